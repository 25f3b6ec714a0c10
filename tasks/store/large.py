"""Arrays of one shape each, a row per point or cell: final samples, trajectories, weights.

Rows of one commit share chunks of about half a megabyte, and begin at a chunk of their own: a
commit reads no chunk and rewrites none, and leaves few files. So there may be unused rows between;
a table's row says which row is meant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import zarr

from tasks.store.checks import crc
from tasks.store.errors import Damaged
from tasks.store.nodes import array_in
from tasks.store.schema import UNKNOWN
from tasks.store.tables import array

_CHUNK_BYTES = 1 << 19


def shape_name(values: np.ndarray) -> str:
    """The name of the array that holds values of this shape."""
    return "x".join(map(str, values.shape))


def append(group: zarr.Group, name: str, rows: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Append rows of one shape; for each its number and its checksum."""
    first = rows[0]
    if name not in group:
        together = max(1, _CHUNK_BYTES // max(first.nbytes, 1))
        array(group, name, (0, *first.shape), (min(together, 64), *map(_at_least_one, first.shape)), first.dtype, 0)
    target = array_in(group, name)
    together = target.chunks[0]
    begin = -(-target.shape[0] // together) * together
    stack = np.stack(rows).astype(target.dtype, copy=False)
    target.resize((begin + len(stack), *first.shape))
    target[begin:] = stack
    return [(begin + place, crc(values.tobytes())) for place, values in enumerate(stack)]


def _at_least_one(length: int) -> int:
    return max(length, 1)


def read(group: zarr.Group, names: Sequence[str], row: int, check: int) -> list[np.ndarray]:
    """One row of arrays that go together.

    Raises:
        Damaged: the array is not what was written.
    """
    values = [np.asarray(array_in(group, name)[row]) for name in names]
    _refuse_damaged(group, names[0], row, values, check)
    return values


def read_rows(group: zarr.Group, name: str, rows: Sequence[int], checks: Sequence[int]) -> list[np.ndarray]:
    """Some rows of one array, of chunks that each are read once. Raises as `read`."""
    order = np.argsort(rows, kind="stable")
    values = np.asarray(array_in(group, name).oindex[np.asarray(rows)[order]])
    found = [values[place] for place in np.argsort(order)]
    for row, check, own in zip(rows, checks, found, strict=True):
        _refuse_damaged(group, name, row, [own], check)
    return found


def _refuse_damaged(group: zarr.Group, name: str, row: int, values: Sequence[np.ndarray], check: int) -> None:
    if check != UNKNOWN and crc(*(part.tobytes() for part in values)) != check:
        raise Damaged(f"{group.path}/{name}: row {row} is not what was written")
