"""What views are made of: rows with the condition that each stands for, what all of them share, and
what has to be said beside the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from tasks.columns import CONFIGURATION
from tasks.explorer.copies import condition
from tasks.plain import Plain, Spec
from tasks.query import pooled
from tasks.query.records import chosen
from tasks.where.columns import Columns, Groups, PointColumns

MOST_SERIES = 40
"""So many lines one picture can hold for a reader; the others are counted."""
MOST_ROWS = 400
"""So many rows the page's table has; the command prints all."""


@dataclass(frozen=True)
class Grouped:
    """Rows of an answer, by what tells their series apart.

    Args:
        columns: those that are labels, `keys` among them.
        keys: columns that make a series.
        shared: the columns that all rows share, each with its value.
        codes: which series each row is of ``[row]``, in the order of their first rows.
        first: the first row of each series ``[series]``.
    """

    columns: Columns
    keys: tuple[str, ...]
    shared: dict[str, Plain]
    codes: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def label(self, series: int) -> str:
        """What tells a series from the others, in one line."""
        own = (_word(name, self._heads[name][series]) for name in self._telling)
        return ", ".join(text for text in dict.fromkeys(own) if text) or "all points"

    def condition(self, series: int) -> str:
        """The condition that the points of a series satisfy."""
        return condition([(name, self._heads[name][series]) for name in self.keys])

    @cached_property
    def _heads(self) -> dict[str, list[Plain]]:
        """Of each key, its value in each series."""
        return {name: self.columns.at(name, self.first).tolist() for name in self.keys}

    @cached_property
    def _telling(self) -> list[str]:
        """The keys that differ, without those that repeat what others say already."""
        found: list[str] = []
        told = 1
        for name in (name for name in self.keys if name not in self.shared):
            more = len(set(zip(*(self._heads[key] for key in (*found, name)), strict=True)))
            if more > told:
                found.append(name)
                told = more
        return found


def _word(name: str, value: Plain) -> str:
    return value if isinstance(value, str) else f"{name} {value:g}"


def labels_of(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The columns of an answer that are labels."""
    return {name: frame[name].to_numpy() for name in names}


def labels_in(frame: pd.DataFrame, names: Sequence[str]) -> Columns:
    """The same as columns."""
    labels = labels_of(frame, names)
    return Columns(list(labels), len(frame), labels.__getitem__)


def grouped(columns: Columns, keys: Sequence[str]) -> Grouped:
    """Rows as series.

    Args:
        columns: their labels.
        keys: columns that make a series.
    """
    groups = Groups(columns, keys, columns.size)
    order = np.argsort(groups.first, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return Grouped(columns, tuple(keys), _shared(columns), place[groups.codes], groups.first[order])


def in_runs(columns: Columns, keys: Sequence[str]) -> Grouped:
    """The same of rows that are sorted by `keys`: of 100,000 rows in a tenth of the time."""
    begins = np.zeros(columns.size, dtype=bool)
    begins[:1] = True
    for name in keys:
        values = columns[name]
        differ = values[1:] != values[:-1]
        if values.dtype.kind == "f":
            differ &= ~(np.isnan(values[1:]) & np.isnan(values[:-1]))
        begins[1:] |= differ
    return Grouped(columns, tuple(keys), _shared(columns), np.cumsum(begins) - 1, np.flatnonzero(begins))


def _shared(columns: Columns) -> dict[str, Plain]:
    """The columns that have one value."""
    return {name: plain(columns.at(name, np.zeros(1, int))[0]) for name in columns if columns.uniform(name)}


def plain(value: object) -> Plain:
    """A value as JSON knows it; None where a number is not finite."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value


def column(values: pd.Series | np.ndarray) -> list[Plain]:
    """A column as plain values."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        found = array.astype(object)
        found[~np.isfinite(array)] = None
        return list(found.tolist())
    return [plain(value) for value in array.tolist()]


def table(frame: pd.DataFrame, columns: Columns, shared: Mapping[str, Plain], *, only: bool) -> Spec:
    """The first rows of an answer, each with its condition.

    Args:
        frame: what `tasks.query` has given, or its first rows.
        columns: the labels that tell its rows apart, of all of them.
        shared: columns that all rows share.
        only: whether these are left out, and the schedule of the sampler where it is the model's.
    """
    some = frame.head(MOST_ROWS)
    silent = set(shared) if only else set()
    if (
        only
        and {"schedule", "sampling_schedule"} <= set(some)
        and (some["schedule"] == some["sampling_schedule"]).all()
    ):
        silent.add("sampling_schedule")
    names = [str(name) for name in frame.columns if name not in silent]
    return {
        "columns": names,
        "labels": [name for name in names if name in columns],
        "rows": [list(row) for row in zip(*(column(some[name]) for name in names), strict=True)] if names else [],
        "conditions": conditions(columns, np.arange(len(some))),
        "total": columns.size,
    }


def conditions(columns: Columns, at: np.ndarray) -> list[str]:
    """The condition of some rows."""
    names = list(columns)
    values = [columns.at(name, at).tolist() for name in names]
    return [condition(list(zip(names, row, strict=True))) for row in zip(*values, strict=True)]


def remarks(points: PointColumns, where: str, by: Sequence[str]) -> list[str]:
    """What has to be said beside the numbers: points without a value, and what a mean would mix."""
    columns = chosen(points, where or None)
    counts = _statuses(columns)
    failed = counts.get("failed", 0)
    found = (
        [f"{failed} {'point failed and has' if failed == 1 else 'points failed and have'} no value"] if failed else []
    )
    if mixed := _mixed(columns, by):
        found.append(
            f"rows pool different values of {', '.join(mixed)}: group by them as well, or choose one by a filter"
        )
    if by and "cell_id" not in by and (several := pooled(points, where or None)):
        found.append(several)
    return found


def _statuses(columns: Columns) -> dict[str, int]:
    codes, words = columns.factorized("status")
    return dict(zip(map(str, words), np.bincount(codes, minlength=len(words)).tolist(), strict=True))


def _mixed(columns: Columns, by: Sequence[str]) -> list[str]:
    """The labels of a configuration that differ within groups of `by`, which does not name them."""
    absent = [name for name in CONFIGURATION if name not in by] if by else []
    if not absent:
        return []
    groups = len(Groups(columns, by, columns.size))
    if len(Groups(columns, [*by, *absent], columns.size)) == groups:
        return []
    return [name for name in absent if len(Groups(columns, [*by, name], columns.size)) > groups]
