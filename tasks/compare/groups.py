"""Each group's change in one metric: which of its points are compared, how the change is tested,
and the verdict.

Seeds are what a test counts. With two seeds or more on both sides, the points that are on both
sides are compared seed by seed. Otherwise, with two seeds or more on each side, the means over the
places that both sides know are compared. Whatever cannot be tested keeps its row, its change and a
reason.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from tasks.columns import MetricColumns
from tasks.compare.match import Codes, Columns, Mask, Pair
from tasks.statistics.corrections import corrected
from tasks.statistics.decision import FEWEST, Array, Contrasts, Values, contrasts_of

BETTER, WORSE, UNCHANGED, NOISE, UNTESTABLE = "better", "worse", "unchanged", "within noise", "not testable"
VERDICTS = (WORSE, BETTER, UNTESTABLE, NOISE, UNCHANGED)
_NEAR = 2.0  # floors: below so many, a mean is mostly what perfect samples show too


@dataclass(frozen=True)
class _Side:
    """The points of one side that may be compared, in an order of their own: row, group, place,
    seed, value and floor.
    """

    row: Codes
    group: Codes
    place: Codes
    seed: Codes
    value: Array
    floor: Array

    def only(self, keep: Mask) -> _Side:
        return _Side(*(getattr(self, field.name)[keep] for field in fields(self)))

    @property
    def values(self) -> Values:
        return Values(self.group, self.seed, self.value)


def rows(pair: Pair, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """A row for each group that has a value of `metric` at a place that both sides know; the
    columns of `Comparison.groups`.
    """
    groups, places = pair.codes(by), pair.places
    size, found = groups[2], pair.match
    first = _side(pair, metric, groups[0], places[0], places[1], after=False)
    second = _side(pair, metric, groups[1], places[1], places[0], after=True)
    both = np.isfinite(pair.before[metric][found.before]) & np.isfinite(pair.after[metric][found.after])
    left, right, group = found.before[both], found.after[both], groups[1][found.after[both]]
    common = _distinct(group, pair.axes["seed"].after[right], size)
    fewest = np.minimum(_distinct(first.group, first.seed, size), _distinct(second.group, second.seed, size))
    paired = (common >= FEWEST) | ((common == 1) & (fewest == 1))

    on_both = np.zeros(places[2], dtype=bool)
    on_both[np.intersect1d(first.place, second.place)] = True
    alone = ~_any(first.group[on_both[first.place]], size)  # groups with values on one side only, or at other places
    first, second = (
        side.only(np.where(paired[side.group], np.isin(side.row, matched), on_both[side.place] | alone[side.group]))
        for side, matched in ((first, left), (second, right))
    )
    contrasts = contrasts_of(first.values, second.values, size, paired)
    moved = _any(group[pair.before[metric][left] != pair.after[metric][right]], size)
    regular = _regular(first, size) & _regular(second, size)
    verdict, reason = _untested(contrasts, paired, moved, regular)
    floors = [_mean(side.group, side.floor, size) for side in (first, second)]
    frame = pd.DataFrame(
        {
            **_labels(pair, by, groups),
            "metric": metric,
            "verdict": verdict,
            "before": contrasts.first,
            "after": contrasts.second,
            "change": contrasts.change,
            "factor": contrasts.factor,
            "error": contrasts.error,
            "spreads": contrasts.spreads,
            "seeds_before": contrasts.seeds_first,
            "seeds_after": contrasts.seeds_second,
            "places": np.maximum(*(_distinct(side.group, side.place, size) for side in (first, second))),
            "scale": np.where(contrasts.logarithmic, "logarithmic", "linear"),
            "test": np.where(verdict != "", "", np.where(paired, "paired", "Welch")),
            "p": np.where(verdict == "", contrasts.p, np.nan),
            "reason": reason,
            "floor_before": floors[0],
            "floor_after": floors[1],
            "near_floor": (contrasts.first / _NEAR < floors[0]) & (contrasts.second / _NEAR < floors[1]),
            "new_ids": np.where(paired, np.bincount(group[~found.same_id[both]], minlength=size), 0),
        }
    )
    return frame[(contrasts.seeds_first > 0) | (contrasts.seeds_second > 0)]


def _side(pair: Pair, metric: str, group: Codes, place: Codes, other: Codes, *, after: bool) -> _Side:
    """The points with a value at places that are on both sides, but for those that cannot be told
    from one another.
    """
    columns: Columns = pair.after if after else pair.before
    keys = pair.keys
    key = keys[1] if after else keys[0]
    matched = np.zeros(len(key), dtype=bool)
    matched[pair.match.after if after else pair.match.before] = True
    twin = pair.match.twin_after if after else pair.match.twin_before
    alone = (np.bincount(key, minlength=keys[2])[key] == 1) & ~twin
    row = np.flatnonzero(np.isfinite(columns[metric]) & np.isin(place, other) & (matched | alone))
    row = row[np.argsort(key[row], kind="stable")]
    seed = pair.axes["seed"].after if after else pair.axes["seed"].before
    return _Side(
        row, group[row], place[row], seed[row], columns[metric][row], columns[MetricColumns(metric).floor][row]
    )


def _distinct(group: Codes, item: Codes, size: int) -> Codes:
    """How many different items each group has."""
    width = int(item.max(initial=0)) + 1
    pairs = np.sort(group * width + item)
    first = np.diff(pairs, prepend=-1) > 0
    return np.bincount(pairs[first] // width, minlength=size)


def _any(group: Codes, size: int) -> Mask:
    return np.asarray(np.bincount(group, minlength=size) > 0)


def _mean(group: Codes, values: Array, size: int) -> Array:
    n = np.bincount(group, minlength=size)
    return np.asarray(np.bincount(group, weights=values, minlength=size) / np.where(n > 0, n, np.nan))


def _regular(side: _Side, size: int) -> Mask:
    """Whether each seed of a group has a value at each of its places."""
    seeds, places = _distinct(side.group, side.seed, size), _distinct(side.group, side.place, size)
    width = int(side.seed.max(initial=0)) + 1
    return np.asarray(_distinct(side.group, side.place * width + side.seed, size) == seeds * places)


def _untested(contrasts: Contrasts, paired: Mask, moved: Mask, regular: Mask) -> tuple[np.ndarray, np.ndarray]:
    """The verdict of what is not tested, with its reason; both empty where there is a test to
    judge.
    """
    fewest = np.minimum(contrasts.seeds_first, contrasts.seeds_second)
    same = np.where(paired, ~moved, contrasts.same)
    cases = (
        (contrasts.seeds_second == 0, UNTESTABLE, "no value after"),
        (contrasts.seeds_first == 0, UNTESTABLE, "no value before"),
        (same, UNCHANGED, ""),
        (~paired & ~regular, UNTESTABLE, "other seeds, which do not all have a value at every place"),
        (paired & (fewest == 1), UNTESTABLE, "one seed"),
        (fewest == 1, UNTESTABLE, "one seed on a side, and another one than on the other"),
        (contrasts.same, UNTESTABLE, "points moved, and no seed's mean did"),
        (contrasts.still & paired, UNTESTABLE, "every seed moved by the same amount: no spread to hold it against"),
        (contrasts.still, UNTESTABLE, "the seeds of a side all agree: no spread to hold it against"),
    )
    conditions = [np.asarray(condition, dtype=bool) for condition, _, _ in cases]
    verdict = np.select(conditions, [np.full(len(fewest), v, dtype=object) for _, v, _ in cases], default="")
    reason = np.select(conditions, [np.full(len(fewest), r, dtype=object) for _, _, r in cases], default="")
    return verdict, reason


def _labels(pair: Pair, by: Sequence[str], groups: tuple[Codes, Codes, int]) -> dict[str, np.ndarray]:
    """The labels of each group, in the groups' order."""
    codes = np.concatenate(groups[:2])
    _, example = np.unique(codes, return_index=True)
    axes = {name: pair.axes[name] for name in by}
    return {name: axis.values[np.concatenate([axis.before, axis.after])[example]] for name, axis in axes.items()}


def with_verdicts(
    rows: pd.DataFrame, by: Sequence[str], level: float, correction: str, higher: Collection[str] = ()
) -> pd.DataFrame:
    """The rows with corrected p values and verdicts, the most significant first, then the largest.

    Of the metrics in `higher` larger values are better.
    """
    p = rows["p"].to_numpy(dtype=np.float64)
    tests = np.isfinite(p)
    family = np.full(len(p), np.nan)
    family[tests] = corrected(p[tests], correction)
    change = rows["change"].to_numpy(dtype=np.float64)
    wanted = rows["metric"].isin(list(higher)).to_numpy(dtype=bool)
    alarm = np.where((_sign(rows) > 0) == wanted, BETTER, WORSE)
    verdict = np.where(tests, np.where(family <= level, alarm, NOISE), rows["verdict"].to_numpy(dtype=object))
    found = rows.assign(verdict=verdict, p_corrected=family)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        largest = np.maximum(rows["before"].abs(), rows["after"].abs())
        size = np.abs(change) / np.where(largest > 0, largest, 1)
    keys = found.assign(
        _class=pd.Series(verdict, index=rows.index).map({BETTER: 0, WORSE: 0, UNTESTABLE: 1, NOISE: 2, UNCHANGED: 3}),
        _spreads=-found["spreads"].abs(),
        _size=-size,
    )
    order = keys.sort_values(["_class", "p", "_spreads", "_size", *by, "metric"], kind="stable").index
    columns = list(rows.columns)
    at = columns.index("p") + 1
    return found.loc[order, [*columns[:at], "p_corrected", *columns[at:]]].reset_index(drop=True)


def _sign(rows: pd.DataFrame) -> Array:
    """The direction of the change on the scale that was tested."""
    factor = rows["factor"].to_numpy(dtype=np.float64)
    return np.asarray(np.where(np.isfinite(factor), factor - 1, rows["change"].to_numpy(dtype=np.float64)))
