"""What moved, came, went or failed from one dataset of points to another.

Only what both sides hold is compared: a mean does not move because a point was added to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from tasks.columns import DEVICE, OF_SAMPLER, PLACE, higher_is_better, metric_names
from tasks.compare.groups import rows, with_verdicts
from tasks.compare.match import LABELS, NEEDED, Columns, Pair, pair_of, paired
from tasks.messages import nearest
from tasks.query import QueryError, UnknownColumn
from tasks.statistics.corrections import CORRECTIONS
from tasks.statistics.decision import LEVEL

_CELL = ("dataset", "formulation", "schedule", "seed")


@dataclass(frozen=True)
class Listing:
    """The points, or cells, of two sides that are not on both, or not as they were.

    `appeared` and `vanished` have the labels, the id and the status; `status` those whose status
    changed, with `status_before` and `status_after` and, of points, `error_before` and
    `error_after`; `renamed` those whose labels stayed and whose id did not, with both ids.
    """

    before: int
    after: int
    appeared: pd.DataFrame
    vanished: pd.DataFrame
    status: pd.DataFrame
    renamed: pd.DataFrame


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    `groups` has one row per group and metric, the most significant first. Its columns: the labels
    in `by`; `metric`; `verdict`; `before`, `after` and `change` in the metric's units; `error`, the
    standard error of the change; `spreads`, the change in pooled standard deviations of the seeds;
    `seeds_before`, `seeds_after` and `places`, how many are compared; `scale`, which is `linear` or
    `logarithmic` (then the means are geometric, `factor` is the change as a factor, and `error` and
    `spreads` are those of its natural logarithm); `test`, which is `paired`, `Welch` or nothing;
    `p` and `p_corrected`; `reason`, why it is not testable; `floor_before` and `floor_after`;
    `near_floor`, whether both means lie below two floors; `new_ids`, how many of the compared
    points have another id than before. What is not known is NaN.

    `values` has one row per point and metric that is not the same to the last bit, of points on
    both sides with the same status. `ambiguous` is how many points of both sides could not be
    matched because several share their labels and seed: these are among the appeared and vanished.
    `beside` is how many points appeared whose labels and seed another point has that was there
    before and still is: in a whole store, what was asked or trained otherwise stands beside what it
    replaces. `only_before` and `only_after` are metrics that one side knows.
    """

    by: tuple[str, ...]
    metrics: tuple[str, ...]
    level: float
    correction: str
    groups: pd.DataFrame
    values: pd.DataFrame
    points: Listing
    cells: Listing
    ambiguous: int
    beside: int
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    provenance: tuple[Mapping[str, str], Mapping[str, str]]

    def count(self, *verdicts: str) -> int:
        """How many rows of `groups` have one of these verdicts."""
        return int(self.groups["verdict"].isin(verdicts).sum())

    @property
    def tests(self) -> int:
        """How many tests were made, and corrected for."""
        return int(self.groups["p"].notna().sum())


def compare(
    before: xr.Dataset,
    after: xr.Dataset,
    metrics: Sequence[str] | None = None,
    by: Sequence[str] = LABELS,
    level: float = LEVEL,
    correction: str = "holm",
) -> Comparison:
    """What moved from `before` to `after`, both as `tasks.results.open_results` returns them.
    Smaller values are better.

    `metrics` defaults to all that both sides know; `by` are the labels that make a group, the seed
    not among them. Groups are tested at `level` after a correction for their number: `holm` bounds
    the chance of any false alarm, `benjamini-hochberg` the expected share of false alarms among the
    alarms. The order of points and of variables changes nothing. Raises `tasks.query.QueryError`
    for names and numbers that make no sense, and for a dataset that is not one of points.
    """
    by = tuple(dict.fromkeys(by))
    there = metric_names(before), metric_names(after)
    _check(before, after, there, metrics, by, level, correction)
    chosen = tuple(dict.fromkeys(metrics)) if metrics is not None else tuple(sorted({*there[0], *there[1]}))
    shared = tuple(name for name in chosen if name in there[0] and name in there[1])
    names = shared or ("",)  # a metric without values: its tables have columns and no rows
    pair = pair_of(before, after, names)
    cells = paired(_cells(pair, after=False), _cells(pair, after=True), _CELL, "cell_id")
    groups = pd.concat([rows(pair, name, by) for name in names], ignore_index=True)
    values = pd.concat([_values(pair, name) for name in names], ignore_index=True)
    return Comparison(
        by,
        shared,
        level,
        correction,
        with_verdicts(groups, by, level, correction, [name for name in shared if higher_is_better(after, name)]),
        values,
        _listing(pair, PLACE, "point_id", ("status", "error")),
        _listing(cells, _CELL, "cell_id", ("status",)),
        int(pair.match.twin_before.sum() + pair.match.twin_after.sum()),
        int(np.isin(pair.keys[1][pair.match.appeared], pair.keys[1][pair.match.after]).sum()),
        tuple(name for name in chosen if name not in there[1]),
        tuple(name for name in chosen if name not in there[0]),
        (_texts(before), _texts(after)),
    )


def _check(
    before: xr.Dataset,
    after: xr.Dataset,
    there: tuple[list[str], list[str]],
    metrics: Sequence[str] | None,
    by: Sequence[str],
    level: float,
    correction: str,
) -> None:
    for side, points in (("before", before), ("after", after)):
        lacking = [name for name in NEEDED if name not in points or points[name].dims != ("point",)]
        if lacking:
            raise QueryError(
                f"the dataset {side} has no {', '.join(lacking)} along point (expected what tasks.results.open_results returns)"
            )
    known = sorted({*there[0], *there[1]})
    labels = (*LABELS, *(name for name in OF_SAMPLER if name in before and name in after))
    for kind, names, accepted in (("--by", by, labels), ("metric", metrics or (), known)):
        for name in names:
            if name not in accepted:
                near = nearest(name, accepted)
                hint = f"; did you mean {near!r}?" if near else ""
                raise UnknownColumn(f"{kind} {name!r} is unknown{hint} (there are: {', '.join(accepted) or 'none'})")
    if not 0 < level < 1:
        raise QueryError(f"--level: found {level:g}, expected a number between 0 and 1, such as 0.05")
    if correction not in CORRECTIONS:
        raise QueryError(f"correction {correction!r} is unknown (there are: {', '.join(CORRECTIONS)})")


def _texts(points: xr.Dataset) -> dict[str, str]:
    """The provenance of one side; its device is that of all its answered points, where they say it."""
    texts = {str(name): str(value) for name, value in points.attrs.items()}
    if DEVICE in points.coords:
        devices = np.unique(points[DEVICE].values[points["status"].values == "ok"].astype(str))
        texts |= {DEVICE: "; ".join(one for one in devices.tolist() if one)} if any(devices.tolist()) else {}
    return texts


def _cells(pair: Pair, *, after: bool) -> Columns:
    """The cells of one side: `ok` if any of their points is, else `failed` if any is."""
    points = pair.after if after else pair.before
    ids, first, cell = np.unique(points["cell_id"].astype(str), return_index=True, return_inverse=True)
    some = {s: np.bincount(cell[points["status"] == s], minlength=len(ids)) > 0 for s in ("ok", "failed")}
    status = np.where(some["ok"], "ok", np.where(some["failed"], "failed", "skipped"))
    return {**pair.labels(_CELL, first, after=after), "cell_id": ids, "status": status}


def _listing(pair: Pair, names: Sequence[str], key: str, facts: Sequence[str]) -> Listing:
    found = pair.match

    def one_side(at: np.ndarray, *, after: bool) -> pd.DataFrame:
        columns = pair.after if after else pair.before
        return pd.DataFrame(
            {**pair.labels(names, at, after=after), key: columns[key][at], "status": columns["status"][at]}
        )

    def both_sides(keep: np.ndarray, columns: Sequence[str]) -> pd.DataFrame:
        left, right = found.before[keep], found.after[keep]
        beside = {f"{name}_before": pair.before[name][left] for name in columns}
        beside |= {f"{name}_after": pair.after[name][right] for name in columns}
        return pd.DataFrame({**pair.labels(names, right), key: pair.after[key][right], **beside})

    changed = pair.before["status"][found.before] != pair.after["status"][found.after]
    return Listing(
        len(pair.before[key]),
        len(pair.after[key]),
        one_side(found.appeared, after=True),
        one_side(found.vanished, after=False),
        both_sides(changed, facts),
        both_sides(~found.same_id, (key,)).drop(columns=key),
    )


def _values(pair: Pair, metric: str) -> pd.DataFrame:
    """The values of points on both sides that are not what they were, a status that changed aside."""
    left, right = pair.match.before, pair.match.after
    x, y = pair.before[metric][left], pair.after[metric][right]
    same = (x == y) | (np.isnan(x) & np.isnan(y)) | (pair.before["status"][left] != pair.after["status"][right])
    at = np.flatnonzero(~same)
    with np.errstate(over="ignore"):
        change = y[at] - x[at]
    return pd.DataFrame(
        {
            **pair.labels(PLACE, right[at]),
            "point_id": pair.after["point_id"][right[at]],
            "metric": metric,
            "before": x[at],
            "after": y[at],
            "change": change,
            "same_id": pair.match.same_id[at],
        }
    )
