"""Writing rows to the tables of `tasks.store.tables`: new ones at the end, known ones in their
place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsFloat, SupportsInt, TypeAlias, cast

import numpy as np
import zarr

from tasks.store.checks import ABSENT, crc, curve_checks, row_checks
from tasks.store.nodes import array_in
from tasks.store.schema import Table
from tasks.store.tables import ID_BYTES, TYPES, columns_of, extend_texts, read_ids, read_texts, widen

if TYPE_CHECKING:
    from zarr.types import AnyArray

Failpoint = Callable[[str], None]
Held: TypeAlias = "str | float | np.ndarray"
"""A value as the columns hold it: a text, a number, or a curve."""


@dataclass
class Index:
    """What the writer keeps in mind of a table, so that no commit reads a whole one."""

    rows: dict[str, int]
    words: dict[str, int]
    columns: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, group: zarr.Group) -> Index:
        """The index of a stored table."""
        rows = {str(key): row for row, key in enumerate(read_ids(group))}
        return cls(rows, {word: code for code, word in enumerate(read_texts(group, "words"))}, columns_of(group))

    def copy(self) -> Index:
        """The same, to be changed by a transaction that may fail."""
        return Index(dict(self.rows), dict(self.words), dict(self.columns))


def prepared(table: Table, entries: Sequence[Mapping[str, object]]) -> list[dict[str, Held]]:
    """One entry per id, values as the columns hold them; the later wins where two entries tell the
    same column.

    Done before a transaction, so that within one every error is the storage's.

    Raises:
        ValueError: a value is none that its column can hold.
        TypeError: a value is of a type that its column cannot hold.
    """
    found: dict[str, dict[str, Held]] = {}
    for entry in entries:
        held = {name: _held(table, name, value) for name, value in entry.items() if value is not None}
        found.setdefault(str(held[table.key]), {}).update(held)
    return list(found.values())


def checked_id(value: object) -> str:
    """An id that the tables can hold.

    Raises:
        ValueError: the text is no id.
    """
    if not isinstance(value, str) or not 0 < len(value) <= ID_BYTES or not value.isascii() or "\0" in value:
        raise ValueError(f"id {value!r}: expected 1 to {ID_BYTES} ASCII characters")
    return value


def id_bytes(ids: Sequence[str]) -> np.ndarray:
    """Ids as the arrays hold them: uint8 ``[id, 24]``, zeros at the end."""
    return np.array(ids, dtype=f"S{ID_BYTES}").view(np.uint8).reshape(-1, ID_BYTES)


def _held(table: Table, name: str, value: object) -> Held:
    if name == table.key:
        return checked_id(value)
    if name == "spec" or name in table.labels or name in table.late:
        str(value).encode()  # lone surrogates cannot be stored
        return str(value)
    if name in table.integers:
        return int(cast("SupportsInt", value))
    if name in table.curves:
        return np.asarray(value, dtype=np.float64)
    return float(cast("SupportsFloat", value))


def put(
    group: zarr.Group, table: Table, entries: Sequence[Mapping[str, Held]], index: Index, passing: Failpoint
) -> None:
    """Write entries (one per id) to their rows, new ones at the end; what an entry does not tell
    stays as it was.

    `index` is brought up to date. Metrics and late labels become columns when they first come.
    """
    if not entries:
        return
    old = len(index.rows)
    entries = sorted(entries, key=lambda entry: index.rows.get(str(entry[table.key]), old))  # known rows first
    keys = [str(entry[table.key]) for entry in entries]
    for key in keys:
        index.rows.setdefault(key, len(index.rows))
    rows = np.array([index.rows[key] for key in keys])
    known = int((rows < old).sum())
    late = tuple(name for name in table.late if any(name in entry for entry in entries))
    if new_labels := tuple(name for name in late if name not in index.columns["labels"]):
        widen(group, new_labels)
        index.columns["labels"] += new_labels
    new = _new_metrics(table, entries, index.columns)
    index.columns["numbers"] += new
    columns = index.columns
    extend_texts(array_in(group, "number"), new)
    targets = _widened(group, len(columns["numbers"]), len(index.rows))
    _put_words(group, _coded(entries, columns["labels"], index), passing)
    texts = [entry.get("spec") for entry in entries]
    blocks = {kind: _block(targets[kind], kind, columns[kind], entries, rows[:known], index) for kind in columns}
    if table.curves:
        curves = array_in(group, "curves")
        values = _curve_block(curves, table, entries, rows[:known], len(index.rows))
        blocks["integers"][:, columns["integers"].index("curves_check")] = curve_checks(values)
        _store(curves, values, rows, known, passing)
    place = columns["integers"].index("spec_check")
    for row, text in enumerate(texts):
        if text is not None:
            blocks["integers"][row, place] = crc(str(text).encode())
    ids = id_bytes(keys)
    blocks["integers"][:, 0] = row_checks(ids, blocks)
    for name, block in {"id": ids, **blocks}.items():
        _store(targets[name], block, rows, known, passing)
    passing("write.array")
    specs = array_in(group, "spec")
    specs.resize((len(index.rows),))
    given = [row for row, text in enumerate(texts) if text is not None]
    _assign(specs, rows[given], np.array([texts[row] for row in given], dtype=object))


def _new_metrics(
    table: Table, entries: Sequence[Mapping[str, Held]], columns: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    known = {table.key, "spec", *table.curves, *(name for names in columns.values() for name in names)}
    return tuple(dict.fromkeys(name for entry in entries for name in entry if name not in known))


def _widened(group: zarr.Group, numbers: int, rows: int) -> dict[str, AnyArray]:
    """The table's arrays, as long and as wide as they will be."""
    targets = {name: array_in(group, name) for name in ("id", "labels", "integers", "numbers")}
    for name, target in targets.items():
        target.resize((rows, max(target.shape[1], numbers) if name == "numbers" else target.shape[1]))
    return targets


def _coded(entries: Sequence[Mapping[str, Held]], labels: Sequence[str], index: Index) -> list[str]:
    """Give every text of the labels a code; those that are new."""
    texts = dict.fromkeys(str(entry[name]) for name in labels for entry in entries if name in entry)
    new = [text for text in texts if text and text not in index.words]
    index.words.update({text: len(index.words) + place for place, text in enumerate(new)})
    return new


def _put_words(group: zarr.Group, new: Sequence[str], passing: Failpoint) -> None:
    if new:
        passing("write.array")
        extend_texts(array_in(group, "words"), new)


def _block(
    stored: AnyArray,
    kind: str,
    names: Sequence[str],
    entries: Sequence[Mapping[str, Held]],
    known: np.ndarray,
    index: Index,
) -> np.ndarray:
    """The rows ``[entry, column]`` as they will be: stored ones as they are, new ones untold, then
    what entries tell.
    """
    block = np.full((len(entries), stored.shape[1]), ABSENT[kind], dtype=TYPES[kind])
    if len(known):
        block[: len(known)] = stored.oindex[known, slice(None)]
    for place, name in enumerate(names):
        for row, entry in enumerate(entries):
            if name in entry:
                value = entry[name]
                block[row, place] = index.words.get(str(value), -1) if kind == "labels" else value
    return block


def _curve_block(
    stored: AnyArray, table: Table, entries: Sequence[Mapping[str, Held]], known: np.ndarray, rows: int
) -> np.ndarray:
    lengths = [len(np.asarray(entry[name])) for entry in entries for name in table.curves if name in entry]
    stored.resize((rows, stored.shape[1], max([stored.shape[2], *lengths])))
    block = np.full((len(entries), *stored.shape[1:]), np.nan)
    if len(known) and stored.shape[2]:
        block[: len(known)] = stored.oindex[known, slice(None), slice(None)]
    for row, entry in enumerate(entries):
        for place, name in enumerate(table.curves):
            if name in entry:
                values = np.asarray(entry[name])
                block[row, place] = np.nan
                block[row, place, : len(values)] = values
    return block


def _store(target: AnyArray, block: np.ndarray, rows: np.ndarray, known: int, passing: Failpoint) -> None:
    passing("write.array")
    if block.size:
        if known:
            _assign(target, rows[:known], block[:known])
        if len(rows) > known:
            target[int(rows[known]) : int(rows[-1]) + 1] = block[known:]


def _assign(target: AnyArray, rows: np.ndarray, values: np.ndarray) -> None:
    if not len(rows):
        return
    if rows[-1] - rows[0] + 1 == len(rows) and (np.diff(rows) == 1).all():
        target[int(rows[0]) : int(rows[-1]) + 1] = values
    else:
        target.oindex[(rows, *(slice(None),) * (target.ndim - 1))] = values
