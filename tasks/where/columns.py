"""Columns of points without a table: only what a question names is touched, and texts become
integers before they are grouped.

Most of the time that a frame of all columns of 100,000 points takes goes into texts that nobody
asked for. Here a column is read when its name comes up, and groups are formed from integer codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tasks.columns import metrics_among, says_higher, says_models
from tasks.messages import nearest, shown
from tasks.texts import Coded, Texts, decoded, taken
from tasks.where.conditions import listed
from tasks.where.language import UnknownColumn

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_MOST_PLACES = 1 << 62  # of a product of label counts that fits an integer


class Columns(Mapping[str, np.ndarray]):
    """Named columns of one length, each read when it is first asked for; `rows` keeps some of their
    rows.

    Args:
        names: what they are called.
        size: how many rows they have.
        read: from a name to its column ``[row]``.
        coded: the same before it is decoded, where that is known: texts are then grouped by codes.
    """

    def __init__(
        self,
        names: Sequence[str],
        size: int,
        read: Callable[[str], np.ndarray],
        coded: Callable[[str], Coded] | None = None,
    ) -> None:
        self._names = dict.fromkeys(names)
        self._read, self._coded = read, coded
        self._kept: dict[str, np.ndarray] = {}
        self.size = size

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._kept:
            if name not in self._names:
                raise KeyError(name)
            self._kept[name] = self._read(name)
        return self._kept[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def rows(self, keep: np.ndarray) -> Columns:
        """The same columns at the rows where `keep` is true."""
        if keep.all():
            return self
        at = np.flatnonzero(keep)
        if (coded := self._coded) is None:
            return Columns(list(self), len(at), lambda name: self[name][at])
        return Columns(list(self), len(at), lambda name: self[name][at], lambda name: taken(coded(name), at))

    def only(self, names: Sequence[str]) -> Columns:
        """Some of the columns."""
        return Columns(names, self.size, self.__getitem__, self._coded)

    def factorized(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A column as `factorize` gives it."""
        column = None if self._coded is None else self._coded(name)
        if not isinstance(column, Texts):
            return factorize(self[name])
        order = np.argsort(column.words)
        used = (np.bincount(column.codes, minlength=len(order)) > 0)[order]
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.cumsum(used) - 1
        return place[column.codes], column.words[order][used]

    def uniform(self, name: str) -> bool:
        """Whether all rows have one value in a column; NaN is none, and without rows there is none."""
        column = self[name] if self._coded is None else self._coded(name)
        values = column.codes if isinstance(column, Texts) else self[name]
        return bool(len(values) and values[-1] == values[0] and (values == values[0]).all())

    def at(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Some rows of a column."""
        return self[name][rows] if self._coded is None else decoded(taken(self._coded(name), rows))


class PointColumns(Columns):
    """The columns of a dataset of points, without the dataset: what can be asked before xarray is
    imported.

    Args:
        labels: names of its coordinates.
        numbers: names of its other variables.
        size: how many points.
        read: from a name to its column ``[point]``.
        said: the attributes of its variables, by name.
        attrs: its own attributes.
        coded: as for `Columns`.
    """

    def __init__(
        self,
        labels: Sequence[str],
        numbers: Sequence[str],
        size: int,
        read: Callable[[str], np.ndarray],
        said: Mapping[str, Mapping[str, object]],
        attrs: Mapping[str, object],
        coded: Callable[[str], Coded] | None = None,
    ) -> None:
        super().__init__([*labels, *numbers], size, read, coded)
        self.labels, self.numbers, self.said, self.attrs = tuple(labels), tuple(numbers), said, attrs

    def metrics(self) -> list[str]:
        """The metrics among the numbers, in alphabetical order."""
        return sorted(metrics_among(dict.fromkeys(self.numbers)))

    def higher_is_better(self, name: str) -> bool:
        """As `tasks.columns.higher_is_better`."""
        return says_higher(self.said.get(name, {}))

    def of_models(self, name: str) -> bool:
        """As `tasks.columns.of_models`."""
        return says_models(self.said.get(name, {}))


Points: TypeAlias = "xr.Dataset | PointColumns"
"""What questions are asked of."""


def of_points(points: Points) -> PointColumns:
    """The columns of a dataset of points: every variable along ``point``, coordinates first."""
    if isinstance(points, PointColumns):
        return points
    found = points.variables
    labels, numbers = (
        [str(name) for name in names if found[name].dims == ("point",)] for names in (points.coords, points.data_vars)
    )
    said = {name: found[name].attrs for name in (*labels, *numbers)}
    size = points.sizes["point"]
    return PointColumns(labels, numbers, size, lambda name: np.asarray(found[name].values), said, points.attrs)


def of_frame(frame: pd.DataFrame) -> Columns:
    """The columns of a frame; of two with one name, the first."""
    place = {str(name): i for i, name in reversed(list(enumerate(frame.columns)))}
    names = list(dict.fromkeys(map(str, frame.columns)))
    return Columns(names, len(frame), lambda name: frame.iloc[:, place[name]].to_numpy())


def frame_of(columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Columns as a frame, with texts as pandas' texts."""
    import pandas as pd

    return pd.DataFrame(
        {n: values.astype(object) if values.dtype.kind == "T" else values for n, values in columns.items()}
    )


def factorize(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes ``[n]`` and sorted labels with ``labels[codes] == values``; NaN is a label, the last."""
    import pandas as pd

    texts = values.dtype.kind in "UT"
    codes, labels = pd.factorize(values.astype(object) if texts else values, sort=True, use_na_sentinel=False)
    return codes.astype(np.int64), np.array(labels.tolist(), dtype=str) if texts else np.asarray(labels)


class Groups:
    """Rows that agree in some columns, numbered in the order of their labels, the first column
    slowest.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], by: Sequence[str], size: int) -> None:
        key, places = np.zeros(size, dtype=np.int64), 1
        of = columns if isinstance(columns, Columns) else Columns(list(columns), size, columns.__getitem__)
        for name in by:
            codes, labels = of.factorized(name)
            if places * len(labels) > _MOST_PLACES:
                found, key = np.unique(key, return_inverse=True)
                places = len(found)
            key, places = key * len(labels) + codes, places * len(labels)
        _, self.first, self.codes = np.unique(key, return_index=True, return_inverse=True)
        self.labels = {name: of.at(name, self.first) for name in by}

    def __len__(self) -> int:
        return len(self.first)


def check(kind: str, requested: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are no columns.

    Raises:
        QueryError: a name is not known; the message has the first such name and the nearest known
            one.
    """
    for name in requested:
        if name not in known:
            near = nearest(name[:200], known)
            hint = f"; did you mean {near!r}?" if near else ""
            raise UnknownColumn(f"{kind} {shown(name)} is unknown{hint} (there are: {listed(known)})")
