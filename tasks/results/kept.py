"""Tables of snapshots, kept in the user's cache folder: what a snapshot holds never changes, so what
was read and verified once need not be read again.

A file holds what `open_results` gives of one snapshot and one study (or of the whole store), as
Arrow's IPC format: it is mapped, not parsed, so a column that nobody asks for is not read; it can
hold no code; and pandas has imported pyarrow anyway. Parquet would be a third of the size, but has
to be decoded.

Nothing here is ever an error of whoever asks. A file is believed only if it says of which store,
snapshot, study and reader it is, and each of its columns only if its checksum holds: else it is
removed, and the store is read. Where nothing can be written, nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion.errors import WrongValue
from tasks.home import home
from tasks.results.points import Layout
from tasks.texts import Coded, Texts

if TYPE_CHECKING:
    from tasks.store import Snapshot

LIMIT = "DIFFATLAS_CACHE_MB"
"""The variable that says how many megabytes of tables are kept at most; 0: none."""

_MEGABYTES = 1024
_READER = 2  # to be raised whenever another answer is read from the same snapshot
_ABANDONED = 3600.0  # seconds after which a file that was begun is of a process that is gone
_SAID, _CHECK = b"diffatlas", b"check"


def limit() -> int:
    """How many bytes of tables are kept at most.

    Raises:
        WrongValue: the variable holds no such number.
    """
    text = os.environ.get(LIMIT, "").strip()
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise WrongValue(f"{LIMIT}: found {text!r}, expected a number of megabytes, 0 to keep nothing")
    return int(text or _MEGABYTES) << 20


def folder() -> Path:
    """Where the files are."""
    return home() / "tables"


@dataclass(frozen=True)
class Key:
    """What a file is of.

    Args:
        store: the store's address, from wherever it is asked.
        snapshot: which of its snapshots.
        study: the name of one; None: the whole store.
    """

    store: str
    snapshot: Snapshot
    study: str | None

    def text(self) -> str:
        """All that two snapshots may differ in, and the version of this reader."""
        said = self.snapshot
        identity = [_READER, self.store, said.id, said.time.isoformat(), said.message, dict(said.metadata), self.study]
        return json.dumps(identity, sort_keys=True)

    def path(self) -> Path:
        """Where the file is, if there is one."""
        return folder() / f"{hashlib.sha256(self.text().encode()).hexdigest()[:40]}.arrow"


class KeptTable:
    """A file of the cache: the layout of its points, and their columns, each verified when it is
    first read.
    """

    def __init__(self, key: Key, again: Callable[[str], Coded]) -> None:
        """Map the file of `key`; `again` reads a column from the store where the file turns out to
        be damaged.

        Raises:
            Exception: there is no such file, or it is not what it should be; of any kind, as it
                comes.
        """
        import pyarrow as pa

        self._path, self._again = key.path(), again
        reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
        if reader.num_record_batches != 1:
            raise ValueError("a file of the cache has one batch")
        self._batch = reader.get_batch(0)
        self._batch.validate()
        said = self._batch.schema.metadata
        if said[_CHECK] != _check(said[_SAID]):
            raise ValueError("the layout is not what was written")
        found = json.loads(said[_SAID])
        if found["key"] != key.text():
            raise ValueError("the file is of something else")
        self.layout = Layout.of(found["layout"])
        self._checks: Mapping[str, int] = found["checks"]
        if set(self._checks) != set(self.layout.stored()):
            raise ValueError("the columns are not those of the layout")

    def column(self, name: str) -> Coded:
        """A column as it was stored; from the store, if it is not what was written here."""
        try:
            return self._verified(name)
        except Exception:  # noqa: BLE001 - whatever bytes that are not ours lead to
            _remove(self._path)
            return self._again(name)

    def _verified(self, name: str) -> Coded:
        column = self._batch.column(self._batch.schema.get_field_index(name))
        if len(column) != self.layout.size:
            raise ValueError("the column is too short")
        values = _from_arrow(column, self.layout.types.get(name, ""))
        if _sum(values) != self._checks[name]:
            raise ValueError("the column is not what was written")
        return values


def find(key: Key, again: Callable[[str], Coded]) -> KeptTable | None:
    """What is kept of a snapshot, or None; see `KeptTable`."""
    if not limit():
        return None
    try:
        found = KeptTable(key, again)
    except FileNotFoundError:
        return None
    except Exception:  # noqa: BLE001 - whatever bytes that are not ours lead to
        _remove(key.path())
        return None
    with contextlib.suppress(OSError):
        os.utime(key.path())  # the least recently used go first
    return found


def keep(key: Key, layout: Layout, column: Callable[[str], Coded]) -> None:
    """Keep the table of a snapshot, if there is room; `column` gives each of `Layout.stored`."""
    most = limit()
    if not most:
        return
    columns = {name: column(name) for name in layout.stored()}
    with contextlib.suppress(OSError):
        path = key.path()
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, key, layout, columns)
        _make_room(path.parent, most)


def _write(path: Path, key: Key, layout: Layout, columns: Mapping[str, Coded]) -> None:
    import pyarrow as pa

    checks = {name: _sum(values) for name, values in columns.items()}
    said = json.dumps({"key": key.text(), "layout": layout.value(), "checks": checks}).encode()
    arrays = [_to_arrow(values) for values in columns.values()]
    schema = pa.schema(
        [pa.field(name, array.type) for name, array in zip(columns, arrays, strict=True)],
        metadata={_SAID: said, _CHECK: _check(said)},
    )
    descriptor, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file, pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(pa.record_batch(arrays, schema=schema))
        Path(partial).replace(path)
    except BaseException:
        _remove(Path(partial))
        raise


def _make_room(place: Path, most: int) -> None:
    """Remove the least recently used files until the rest fits, and what killed processes left."""
    found = []
    for path in place.iterdir():
        with contextlib.suppress(OSError):
            stat = path.stat()
            if path.suffix == ".arrow":
                found.append((stat.st_mtime_ns, stat.st_size, path))
            elif path.suffix == ".partial" and stat.st_mtime < time.time() - _ABANDONED:
                _remove(path)
    size = 0
    for _, bytes_of, path in sorted(found, reverse=True):
        size += bytes_of
        if size > most:
            _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _check(said: bytes) -> bytes:
    return str(zlib.crc32(said)).encode()


def _sum(column: Coded) -> int:
    """The checksum of a column, its texts included."""
    if isinstance(column, Texts):
        return zlib.crc32("\0".join(column.words.tolist()).encode(), _sum(column.codes))
    return zlib.crc32(np.ascontiguousarray(column).view(np.uint8).data)


def _to_arrow(column: Coded) -> Any:
    import pyarrow as pa

    if isinstance(column, Texts):
        return pa.DictionaryArray.from_arrays(pa.array(column.codes), pa.array(column.words.tolist(), pa.string()))
    values = np.ascontiguousarray(column)
    if values.dtype.kind == "S":
        return pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(values.dtype.itemsize), len(values), [None, pa.py_buffer(values.view(np.uint8))]
        )
    return pa.array(values)


def _from_arrow(column: Any, type_name: str) -> Coded:
    """A copy of a column, without a look at what its bytes are."""
    import pyarrow as pa

    if isinstance(column, pa.DictionaryArray):
        column.dictionary.validate(full=True)  # where a word begins is believed by whoever decodes it
        words = np.array(column.dictionary.to_pylist(), dtype=np.dtype(type_name))
        return Texts(_copied(column.indices, np.dtype(np.int32)), words)
    if pa.types.is_fixed_size_binary(column.type):
        return _copied(column, np.dtype(f"S{column.type.byte_width}"))
    return _copied(column, np.dtype(column.type.to_pandas_dtype()))


def _copied(column: Any, of: np.dtype[Any]) -> np.ndarray:
    if not len(column):
        return np.zeros(0, dtype=of)
    values = np.frombuffer(column.buffers()[1], dtype=of, count=column.offset + len(column))
    return values[column.offset :].copy()
