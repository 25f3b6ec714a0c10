"""Which rows of two tables are the same thing: by id, and by labels and seed where ids have
changed.

An id changes when the version of a component does, when a network is trained otherwise, or when
another number of samples is drawn; labels do not. So what has the same id is matched first. Of the
rest, a row is matched with the row of the same labels and seed if there is exactly one on either
side: where there are several, something that no label shows tells them apart, and guessing which
became which would invent changes. Those are counted as ambiguous and stay unmatched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from tasks.columns import CONFIGURATION, OF_SAMPLER, PLACE, MetricColumns

Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]
Columns = Mapping[str, np.ndarray]

LABELS = CONFIGURATION
"""What a group of points is, unless asked otherwise."""

NEEDED = (*PLACE, "cell_id", "point_id", "status")


@dataclass(frozen=True)
class Axis:
    """The values of one coordinate in order, and for each row of the two tables which of them it
    has.
    """

    values: np.ndarray
    before: Codes
    after: Codes


@dataclass(frozen=True)
class Match:
    """Row `before[k]` is row `after[k]`; `vanished` and `appeared` are the rows without a
    counterpart.

    `same_id[k]` says whether the two share their id. `twin_before` and `twin_after` mark the rows
    that are on both sides by their labels and seed, but could not be matched because several are.
    """

    before: Codes
    after: Codes
    same_id: Mask
    vanished: Codes
    appeared: Codes
    twin_before: Mask
    twin_after: Mask


@dataclass(frozen=True)
class Pair:
    """The points of both sides, their coordinates as numbers, and which points are the same."""

    before: Columns
    after: Columns
    axes: Mapping[str, Axis]
    match: Match

    def codes(self, names: Iterable[str]) -> tuple[Codes, Codes, int]:
        """One number for each combination of these coordinates, for the points of both sides; how
        many there are.
        """
        return _combined([self.axes[name] for name in names], len(self.before["point_id"]), len(self.after["point_id"]))

    @cached_property
    def places(self) -> tuple[Codes, Codes, int]:
        """The codes of all labels without the seed."""
        return self.codes(LABELS)

    @cached_property
    def keys(self) -> tuple[Codes, Codes, int]:
        """The codes of all labels and the seed."""
        return self.codes(PLACE)

    def labels(self, names: Iterable[str], rows: Codes, *, after: bool = True) -> dict[str, np.ndarray]:
        """The coordinates of some points of one side."""
        found = {name: self.axes[name] for name in names}
        return {name: axis.values[(axis.after if after else axis.before)[rows]] for name, axis in found.items()}


def pair_of(before: xr.Dataset, after: xr.Dataset, metrics: Sequence[str] = ()) -> Pair:
    """Both datasets with their points matched; a point that stands twice in one counts once."""
    more = tuple(name for name in OF_SAMPLER if name in before and name in after)
    return paired(_columns(before, metrics, more), _columns(after, metrics, more), PLACE, "point_id", more)


def paired(before: Columns, after: Columns, names: Sequence[str], key: str, more: Sequence[str] = ()) -> Pair:
    """Two tables with their rows matched by the ids in column `key`, else by the coordinates
    `names`.

    `more` are coordinates that are known of the rows, and match none.
    """
    same = _same_ids(before[key], after[key])
    found = {name: _axis(before[name], after[name], same) for name in (*names, *more)}
    codes = _combined([found[name] for name in names], len(before[key]), len(after[key]))
    return Pair(before, after, found, _matched(same, codes[0], codes[1], codes[2]))


def _columns(points: xr.Dataset, metrics: Sequence[str], more: Sequence[str]) -> Columns:
    """What is compared of a dataset, a point once, sorted by id; a value that is not finite or not
    of an ok point is NaN.
    """
    ids = np.asarray(points["point_id"].values).astype(str)
    _, rows = np.unique(ids, return_index=True)
    columns = {name: np.asarray(points[name].values)[rows] for name in (*NEEDED, *more)}
    columns["error"] = np.asarray(points["error"].values)[rows] if "error" in points else np.full(len(rows), "")
    unknown = np.full(len(ids), np.nan)
    for name in metrics:
        values, floors = (
            np.asarray(points[n].values if n in points else unknown, dtype=np.float64)[rows]
            for n in (name, MetricColumns(name).floor)
        )
        columns[name] = np.where(np.isfinite(values) & (columns["status"] == "ok"), values, np.nan)
        columns[MetricColumns(name).floor] = floors
    return columns


def _same_ids(before: np.ndarray, after: np.ndarray) -> tuple[Codes, Codes]:
    rows = pd.Index(after).get_indexer(pd.Index(before)).astype(np.int64)
    found = np.flatnonzero(rows >= 0)
    return found, rows[found]


def _axis(before: np.ndarray, after: np.ndarray, same: tuple[Codes, Codes]) -> Axis:
    """One coordinate of both sides. Rows with one id have one label, spelled as it is after."""
    codes, values = pd.factorize(np.concatenate([before, after]), sort=True, use_na_sentinel=False)
    first, second = codes[: len(before)].astype(np.int64), codes[len(before) :].astype(np.int64)
    first[same[0]] = second[same[1]]
    return Axis(np.asarray(values), first, second)


def _combined(parts: Sequence[Axis], before: int, after: int) -> tuple[Codes, Codes, int]:
    whole = np.zeros(before + after, dtype=np.int64)
    for axis in parts:
        whole = whole * max(len(axis.values), 1) + np.concatenate([axis.before, axis.after])
        whole = pd.factorize(whole, sort=True)[0].astype(np.int64)  # dense again, so that products stay small
    return whole[:before], whole[before:], int(whole.max(initial=-1)) + 1


def _matched(same: tuple[Codes, Codes], before: Codes, after: Codes, size: int) -> Match:
    left, right = np.ones(len(before), dtype=bool), np.ones(len(after), dtype=bool)
    left[same[0]], right[same[1]] = False, False
    many_before = np.bincount(before[left], minlength=size)
    many_after = np.bincount(after[right], minlength=size)
    single = (many_before == 1) & (many_after == 1)
    several = (many_before > 0) & (many_after > 0) & ~single
    rows_before, rows_after = np.flatnonzero(left & single[before]), np.flatnonzero(right & single[after])
    rows_before = rows_before[np.argsort(before[rows_before])]
    rows_after = rows_after[np.argsort(after[rows_after])]
    first, second = np.concatenate([same[0], rows_before]), np.concatenate([same[1], rows_after])
    same_id = np.arange(len(first)) < len(same[0])
    order = np.lexsort((first, before[first]))  # listed in the order of their labels
    vanished, appeared = np.flatnonzero(left & ~single[before]), np.flatnonzero(right & ~single[after])
    return Match(
        first[order],
        second[order],
        same_id[order],
        vanished[np.argsort(before[vanished], kind="stable")],
        appeared[np.argsort(after[appeared], kind="stable")],
        left & several[before],
        right & several[after],
    )
