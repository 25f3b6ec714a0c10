"""A column of texts that repeat, as codes into the few that there are: what is stored, cached and
selected, and decoded only for whoever looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True)
class Texts:
    """A column of texts.

    Args:
        codes: which of the words each row is ``[row]``, integers.
        words: the texts, each once ``[word]``.
    """

    codes: np.ndarray
    words: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)


Coded: TypeAlias = "np.ndarray | Texts"
"""A column that is not decoded yet: numbers, texts, or ids as bytes."""


def decoded(column: Coded) -> np.ndarray:
    """The values of a column ``[row]``."""
    if isinstance(column, Texts):
        return np.asarray(column.words[column.codes])
    return column.astype(str) if column.dtype.kind == "S" else column


def decoded_type(column: Coded) -> np.dtype[np.generic]:
    """The type that `decoded` gives, without decoding."""
    if isinstance(column, Texts):
        return column.words.dtype
    return np.dtype(f"<U{column.dtype.itemsize}") if column.dtype.kind == "S" else column.dtype


def taken(column: Coded, rows: np.ndarray) -> Coded:
    """Some rows of a column, in the order of `rows`."""
    return Texts(column.codes[rows], column.words) if isinstance(column, Texts) else column[rows]


def places(column: Coded) -> tuple[np.ndarray, int]:
    """Numbers ``[row]`` from 0 that are equal where the values are, and what is larger than all of
    them.
    """
    if isinstance(column, Texts):
        return column.codes, max(len(column.words), 1)
    if column.dtype.kind in "iu" and len(column):
        low, high = int(column.min()), int(column.max())
        if high - low < 1 << 32:
            return column - low, high - low + 1
    labels, codes = np.unique(column, return_inverse=True)
    return codes, max(len(labels), 1)
