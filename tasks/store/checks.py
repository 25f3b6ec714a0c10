"""Checksums that tell a store's rows from what a lost, swapped or flipped piece of storage would
read as.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

ABSENT: dict[str, float] = {
    "labels": -1,
    "integers": -1,
    "numbers": np.nan,
}  # what a column holds where there is no value


def crc(*data: bytes, start: int = 0) -> int:
    """The checksum of a large value, or of several one after the other; `start` is that of what
    came before.
    """
    check = start
    for part in data:
        check = zlib.crc32(part, check)
    return check


def row_checks(ids: np.ndarray, blocks: Mapping[str, np.ndarray]) -> np.ndarray:
    """A checksum per row, int64: sum over words of (bits xor those of "no value") times an odd
    number of the place.

    What is absent counts nothing, so a column that is added later changes no row's checksum. One
    changed word is always seen, several at once but for one in 2^64 or so. The first of the
    integers is where it goes, and not part of it.
    """
    check = _weighed(np.ascontiguousarray(ids).view(np.uint64), np.uint64(0), 0)
    for salt, kind in enumerate(ABSENT, start=1):
        block = np.ascontiguousarray(blocks[kind])
        if block.dtype == np.int32:
            block = block.astype(np.int64)
        if kind == "integers":
            block = block.copy()
            block[:, 0] = ABSENT[kind]
        absent = np.array(ABSENT[kind], dtype=block.dtype).view(np.uint64)
        check = check + _weighed(block.view(np.uint64), absent, salt)
    return np.asarray(check.view(np.int64))


def _weighed(words: np.ndarray, absent: np.ndarray | np.uint64, salt: int) -> np.ndarray:
    places = np.arange(words.shape[1], dtype=np.uint64) + np.uint64(1 + 1_000_003 * salt)
    weights = places * np.uint64(0x9E3779B97F4A7C15)
    weights = (weights ^ (weights >> np.uint64(29))) | np.uint64(1)
    return np.asarray((words ^ absent) @ weights)


def curve_checks(values: np.ndarray) -> np.ndarray:
    """One checksum per row of ``[row, curve, place]``, the same however wide the array has become;
    0 for no curve.
    """
    rows, curves, places = values.shape
    flat = np.ascontiguousarray(values.transpose(0, 2, 1)).reshape(rows, curves * places).view(np.uint64)
    if not flat.shape[1]:
        return np.zeros(len(values), dtype=np.int64)
    return _weighed(flat, np.array(np.nan).view(np.uint64), 9).view(np.int64)


def chained(check: int, texts: Sequence[str]) -> int:
    """The checksum of a list of texts that had checksum `check` before these were appended."""
    for text in texts:
        check = zlib.crc32(text.encode() + b"\0", check)
    return check
