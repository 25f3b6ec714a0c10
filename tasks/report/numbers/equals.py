"""What is equal but for rounding: two samplers that are one and the same rule on a schedule add in
another order, and which of them has the smaller error is then decided by the last digits, another
way on another machine.

`ddim` and `euler` on `edm` are such a pair: with ``alpha = 1`` and ``sigma = t`` both move by
``(x - D) (sigma' - sigma) / sigma``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EQUAL = 1e-9
"""Relative: numbers that differ by no more are taken for equal."""

Array = NDArray[np.float64]


def first_of(values: Sequence[float]) -> int:
    """The place of the smallest value; of several that are equal but for rounding, of the first."""
    least = min(values)
    return next(i for i, value in enumerate(values) if value == least or abs(value - least) <= EQUAL * abs(least))


def equal_to(values: Array, first: int) -> NDArray[np.bool_]:
    """Which rows are one of them but for rounding.

    Args:
        values: by row and seed ``[row, seed]``, NaN where a seed has none.
        first: the row that others are compared with.

    Returns:
        Whether a row has the seeds of `first`, and equal values for each of them ``[row]``.
    """
    return np.asarray(np.isclose(values, values[first], rtol=EQUAL, atol=0.0, equal_nan=True).all(axis=1))


def equal_pairs(values: Array) -> NDArray[np.bool_]:
    """Which pairs of rows are equal but for rounding, in each column ``[row, row, column]``."""
    return np.asarray(np.isclose(values[:, None], values[None], rtol=EQUAL, atol=0.0))
