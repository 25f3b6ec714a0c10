"""A table of rows as few arrays, so that a commit writes few files and a hundred thousand rows are
read at once.

Columns of one kind share an array ``[row, column]`` whose columns a coordinate array names:
`labels` (codes into the table's `words`), `integers`, `numbers`. Every row carries a checksum over
the three and its id: whatever goes wrong beneath (a chunk that is lost reads as fill values, one
that is misplaced as another's), it is refused and never returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from tasks.store.checks import ABSENT, chained, crc, curve_checks, row_checks
from tasks.store.errors import Damaged
from tasks.store.nodes import WHOLE, Selection, array_in, values_in
from tasks.store.schema import UNKNOWN, Table
from tasks.texts import Coded, Texts, decoded

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
    from zarr.core.common import JSON
    from zarr.types import AnyArray

ID_BYTES = 24
_ROWS = 8192  # per chunk of a table: a commit rewrites one of each array, a reader of 100,000 rows opens 13
_TEXTS = 512
_CURVES = (64, 128)  # cells and places per chunk
TYPES = {"labels": np.int32, "integers": np.int64, "numbers": np.float64}
_NAMES = {"labels": "label", "integers": "integer", "numbers": "number"}  # the arrays of the columns' names
_LONG = ("error",)  # texts that may be long: Python strings, since fixed-width ones would be as wide as the longest


def codecs() -> list[ZstdCodec | Crc32cCodec]:
    """How every array is stored: compressed, with a checksum that is verified when it is read."""
    return [ZstdCodec(level=1), Crc32cCodec()]


def array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: DTypeLike,
    fill: float | str,
    dimension_names: tuple[str, ...] | None = None,
    attributes: dict[str, JSON] | None = None,
) -> AnyArray:
    """A new array of the store."""
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill,
        compressors=codecs(),
        dimension_names=dimension_names,
        attributes=attributes,
    )


def make(group: zarr.Group, table: Table) -> None:
    """The arrays of an empty table."""
    row, columns = ("point" if table.key == "point_id" else "cell"), _columns(table)
    array(group, "id", (0, ID_BYTES), (_ROWS, ID_BYTES), np.uint8, 0, dimension_names=(row, "byte"))
    array(group, "spec", (0,), (_TEXTS,), "string", "", dimension_names=(row,))
    _make_texts(group, "words", "word", ())
    for kind, names in columns.items():
        width = max(len(names), 1)
        at = (row, _NAMES[kind])
        array(group, kind, (0, width), (_ROWS, max(width, 8)), TYPES[kind], ABSENT[kind], dimension_names=at)
        _make_texts(group, _NAMES[kind], _NAMES[kind], names)
    if table.curves:
        shape = (0, len(table.curves), 0)
        chunks = (_CURVES[0], len(table.curves), _CURVES[1])
        array(group, "curves", shape, chunks, np.float64, np.nan, dimension_names=(row, "curve", "place"))
        _make_texts(group, "curve", "curve", table.curves)


def _columns(table: Table) -> dict[str, tuple[str, ...]]:
    return {"labels": table.labels, "integers": table.integers, "numbers": table.numbers}


def _make_texts(group: zarr.Group, name: str, dimension: str, texts: Sequence[str]) -> None:
    array(group, name, (0,), (_TEXTS,), "string", "", dimension_names=(dimension,), attributes={"check": 0})
    extend_texts(array_in(group, name), texts)


def extend_texts(target: AnyArray, texts: Sequence[str]) -> None:
    """Append to a list of texts, whose checksum is an attribute."""
    if texts:
        old = target.shape[0]
        target.resize((old + len(texts),))
        target[old:] = np.array(texts, dtype=object)
        target.attrs["check"] = chained(check_of(target), texts)


def check_of(texts: AnyArray) -> int:
    """The checksum of a stored list of texts.

    Raises:
        Damaged: the array has no checksum.
    """
    check = texts.attrs["check"]
    if not isinstance(check, int):
        raise Damaged(f"{texts.path}: found the checksum {check!r}, expected an integer")
    return check


def widen(group: zarr.Group, labels: Sequence[str]) -> None:
    """Give a stored table the labels that it lacks, untold in every row; no row's checksum changes
    by that.
    """
    stored = columns_of(group)["labels"]
    new = [name for name in labels if name not in stored]
    extend_texts(array_in(group, _NAMES["labels"]), new)
    codes = array_in(group, "labels")
    codes.resize((codes.shape[0], len(stored) + len(new)))


def columns_of(group: zarr.Group) -> dict[str, tuple[str, ...]]:
    """Names of a table's columns by kind."""
    return {kind: tuple(read_texts(group, names)) for kind, names in _NAMES.items()}


def read_ids(group: zarr.Group) -> np.ndarray:
    """Ids of all rows, as text."""
    return _as_bytes(values_in(group, "id")).astype(str)


def _as_bytes(ids: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(ids).view(f"S{ID_BYTES}").reshape(-1)


def read_texts(group: zarr.Group, name: str) -> list[str]:
    """A list of texts: the words that labels are codes of, or names of columns.

    Raises:
        Damaged: the texts are not what was written.
    """
    texts = [str(text) for text in values_in(group, name)]
    if chained(0, texts) != check_of(array_in(group, name)):
        raise Damaged(f"{group.path}/{name}: the texts are not those that were written")
    return texts


def read(
    group: zarr.Group,
    key: str,
    names: Sequence[str] | None = None,
    rows: Selection | None = None,
    *,
    hidden: bool = False,
) -> dict[str, np.ndarray]:
    """Columns by name: all but specs and checksums, or those named; all rows, or those that `rows`
    selects.

    Raises:
        Damaged: a row is not what was written.
        KeyError: a column is not there.
    """
    found = _verified(group)
    known = [key, *found.names(hidden=hidden)]
    if names is not None and (strange := set(names) - {*known, "spec"}):
        raise KeyError(f"no column {', '.join(sorted(strange))} in {group.path}; there are {', '.join(known)}, spec")
    wanted = known if names is None else list(names)
    chosen = WHOLE if rows is None else rows
    columns = {name: decoded(found.column(name, key, chosen)) for name in known if name in wanted}
    if "spec" in wanted:
        columns["spec"] = _specs(group, decoded(found.column("spec_check", key, WHOLE)))[chosen]
    return columns


def read_coded(group: zarr.Group, key: str) -> dict[str, Coded]:
    """All columns but specs and checksums, not decoded. Raises as `read`."""
    found = _verified(group)
    return {name: found.column(name, key, WHOLE) for name in (key, *found.names())}


@dataclass(frozen=True)
class _Verified:
    """A table that is what was written."""

    group: zarr.Group
    columns: Mapping[str, tuple[str, ...]]
    ids: np.ndarray
    blocks: Mapping[str, np.ndarray]

    def names(self, *, hidden: bool = False) -> list[str]:
        """The columns beside the ids, checksums only if they are asked for."""
        return [
            name
            for kind, names in self.columns.items()
            for name in names
            if hidden or kind != "integers" or not name.endswith("_check")
        ]

    def column(self, name: str, key: str, rows: Selection) -> Coded:
        """The ids under the name `key`, or the column of another name."""
        if name == key:
            return _as_bytes(self.ids[rows])
        kind = next(kind for kind, names in self.columns.items() if name in names)
        values = self.blocks[kind][rows, self.columns[kind].index(name)]
        return values if kind != "labels" else _texts(values, self.words, name)

    @cached_property
    def words(self) -> np.ndarray:
        """What the labels are codes of, plus one; the first is the empty text."""
        return np.array(["", *read_texts(self.group, "words")], dtype=object)


def _verified(group: zarr.Group) -> _Verified:
    columns = columns_of(group)
    blocks = {kind: values_in(group, kind) for kind in columns}
    ids = values_in(group, "id")
    _verify(group, ids, blocks)
    return _Verified(group, columns, ids, blocks)


def _texts(codes: np.ndarray, words: np.ndarray, name: str) -> Texts:
    used = np.flatnonzero(np.bincount(codes + 1, minlength=len(words)))
    place = np.zeros(len(words), dtype=np.int32)
    place[used] = np.arange(len(used))
    if name in _LONG:
        return Texts(place[codes + 1], words[used])
    return Texts(place[codes + 1], np.array(words[used].tolist(), dtype=str) if len(used) else np.zeros(0, dtype="<U1"))


def _specs(group: zarr.Group, checks: np.ndarray) -> np.ndarray:
    specs = values_in(group, "spec")
    for row, (text, check) in enumerate(zip(specs, checks.tolist(), strict=True)):
        if check != UNKNOWN and crc(str(text).encode()) != check:
            raise Damaged(f"{group.path}/spec: row {row} is not what was written")
    return np.array([str(text) for text in specs], dtype=object)


def _verify(group: zarr.Group, ids: np.ndarray, blocks: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(block) for name, block in {"id": ids, **blocks}.items()}
    if len(set(lengths.values())) > 1:
        raise Damaged(f"{group.path}: the columns differ in length: {lengths}")
    wrong = np.flatnonzero(row_checks(ids, blocks) != blocks["integers"][:, 0])
    if len(wrong):
        raise Damaged(f"{group.path}: {len(wrong)} of {len(ids)} rows are not what was written, first row {wrong[0]}")


def read_curves(group: zarr.Group, table: Table) -> dict[str, np.ndarray]:
    """Curves by name, each ``[row, place]``, NaN where there is none.

    Raises:
        Damaged: the curves are not what was written.
    """
    values = values_in(group, "curves")
    checks = values_in(group, "integers")[:, table.integers.index("curves_check")]
    wrong = np.flatnonzero(curve_checks(values) != checks)
    if len(wrong):
        raise Damaged(f"{group.path}/curves: row {wrong[0]} is not what was written")
    return {name: values[:, place] for place, name in enumerate(table.curves)}
