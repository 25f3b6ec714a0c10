"""What views are made of: rows with the condition that each stands for, what all of them share, and
what has to be said beside the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

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
        frame: what `tasks.query` has given.
        keys: columns that make a series.
        shared: the columns that all rows share, each with its value.
        codes: which series each row is of ``[row]``, in the order of their first rows.
        first: the first row of each series ``[series]``.
    """

    frame: pd.DataFrame
    keys: tuple[str, ...]
    shared: dict[str, Plain]
    codes: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def label(self, series: int) -> str:
        """What tells a series from the others, in one line."""
        row = self.frame.iloc[int(self.first[series])]
        own = [f"{row[name]}" if isinstance(row[name], str) else f"{name} {row[name]:g}" for name in self._telling()]
        return ", ".join(text for text in dict.fromkeys(own) if text) or "all points"

    def condition(self, series: int) -> str:
        """The condition that the points of a series satisfy."""
        row = int(self.first[series])
        return condition([(name, self.frame[name].iloc[row]) for name in self.keys])

    def _telling(self) -> list[str]:
        """The keys that differ, without those that repeat what another one says already."""
        differ = [name for name in self.keys if name not in self.shared]
        found: list[str] = []
        for name in differ:
            codes = self._places(found)
            if len(np.unique(self._places([*found, name]))) > len(np.unique(codes)):
                found.append(name)
        return found

    def _places(self, by: Sequence[str]) -> np.ndarray:
        rows = {name: self.frame[name].to_numpy()[self.first] for name in by}
        return Groups(rows, by, len(self.first)).codes


def grouped(frame: pd.DataFrame, keys: Sequence[str], labels: Sequence[str]) -> Grouped:
    """The rows of an answer as series.

    Args:
        frame: what `tasks.query` has given.
        keys: columns that make a series.
        labels: all columns of the frame that are labels, `keys` among them.
    """
    columns = {name: frame[name].to_numpy() for name in labels}
    groups = Groups(columns, keys, len(frame))
    order = np.argsort(groups.first, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    shared = {name: plain(column[0]) for name, column in columns.items() if len(column) and (column == column[0]).all()}
    return Grouped(frame, tuple(keys), shared, place[groups.codes], groups.first[order])


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


def table(frame: pd.DataFrame, labels: Sequence[str], shared: dict[str, Plain], *, only: bool) -> Spec:
    """The first rows of an answer, each with its condition.

    Args:
        frame: what `tasks.query` has given.
        labels: the columns that tell its rows apart.
        shared: columns that all rows share.
        only: whether these are left out.
    """
    names = [str(name) for name in frame.columns if not (only and name in shared)]
    some = frame.head(MOST_ROWS)
    return {
        "columns": names,
        "labels": [name for name in names if name in labels],
        "rows": [list(row) for row in zip(*(column(some[name]) for name in names), strict=True)] if names else [],
        "conditions": conditions(some, labels),
        "total": len(frame),
    }


def conditions(frame: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """The condition of each row."""
    columns = [frame[name].tolist() for name in labels]
    return [condition(list(zip(labels, values, strict=True))) for values in zip(*columns, strict=True)]


def remarks(points: PointColumns, where: str, by: Sequence[str]) -> list[str]:
    """What has to be said beside the numbers: points without a value, and what a mean would mix."""
    columns = chosen(points, where or None)
    counts = _statuses(columns)
    found = [f"{counts['failed']} points failed and have no value"] if counts.get("failed") else []
    if by and "cell_id" not in by and (mixed := pooled(points, where or None)):
        found.append(mixed)
    return found


def _statuses(columns: Columns) -> dict[str, int]:
    codes, words = columns.factorized("status")
    return dict(zip(map(str, words), np.bincount(codes, minlength=len(words)).tolist(), strict=True))
