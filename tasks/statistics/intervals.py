r"""How sure a mean over seeds is: Student's interval, on the line and on a logarithmic axis.

For n values x_i with mean m and standard deviation s (n - 1 in its denominator), and t the quantile
of Student's distribution with n - 1 degrees of freedom,

    of the mean                  m +- t s / sqrt(n)
    on a logarithmic axis        exp(m +- t s / sqrt(n)),  m and s those of log x_i.

A positive quantity that spans decades is as uncertain as its logarithm is: the first interval of
few seeds reaches below zero, where a logarithmic axis has no place. The second one holds the
geometric mean, not always the arithmetic one.

Source: Student, Biometrika 6, 1908.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
FEWEST_SEEDS = 3
"""From which an interval is shown: one seed has no spread, and of two it is thirteen times their
standard error.
"""
_LARGEST = math.log(np.finfo(np.float64).max)


def student(freedom: ArrayLike, confidence: float = CONFIDENCE) -> NDArray[np.float64]:
    """Half the width of Student's interval, in standard errors.

    Args:
        freedom: degrees of freedom, a number or an array.
        confidence: the interval's.

    Returns:
        Of the shape of `freedom`; NaN below one degree of freedom.
    """
    from scipy.special import stdtrit

    known = np.asarray(freedom, dtype=float)
    quantiles: NDArray[np.float64] = stdtrit(np.where(known > 0, known, np.nan), 0.5 + confidence / 2)
    return quantiles


@cache
def _student(freedom: int, confidence: float) -> float:
    return float(student(freedom, confidence))


def mean_interval(
    values: Sequence[float] | NDArray[np.float64], confidence: float = CONFIDENCE, fewest: int = FEWEST_SEEDS
) -> tuple[float, float] | None:
    """The interval of the mean, for a linear axis.

    Args:
        values: one a seed, in any unit.
        confidence: of the interval.
        fewest: how many values it takes.

    Returns:
        Its ends in the unit of the values; None for too few of them.
    """
    numbers = np.asarray(values, dtype=float)
    n = len(numbers)
    if n < max(fewest, 2):
        return None
    mean, half = float(numbers.mean()), float(_student(n - 1, confidence) * numbers.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def geometric_interval(
    values: Sequence[float] | NDArray[np.float64], confidence: float = CONFIDENCE, fewest: int = FEWEST_SEEDS
) -> tuple[float, float] | None:
    """The interval of the geometric mean, for a logarithmic axis.

    Args:
        values: one a seed, in any unit.
        confidence: of the interval.
        fewest: how many values it takes.

    Returns:
        Its ends in the unit of the values, both above zero; None for too few values, or if one is
        not above zero.
    """
    numbers = np.asarray(values, dtype=float)
    if not (numbers > 0).all():
        return None
    found = mean_interval(np.log(numbers), confidence, fewest)
    if found is None:
        return None
    return math.exp(found[0]), math.exp(min(found[1], _LARGEST))
