"""Statistics of the rows of a group: moments, order, and how sure the mean is.

    mean    m = sum of x / n
    std     s = sqrt(sum of (x - m)^2 / (n - 1))
    sem     s / sqrt(n)
    ci95    t_{0.975, n-1} s / sqrt(n), half the width of Student's 95 % interval of the mean
    best    the smallest value, or the largest where higher values are better

NaN is left out of all of them and not counted; of one row `std`, `sem` and `ci95` are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from tasks.statistics.intervals import student

if TYPE_CHECKING:
    from pandas.api.typing import SeriesGroupBy

Groups: TypeAlias = "SeriesGroupBy[Any, Any]"

DEFAULT_STATISTICS = ("mean", "sem", "count")


def ci95(groups: Groups) -> pd.Series:
    """Half the width of the 95 % interval of each group's mean."""
    half: pd.Series = groups.sem() * student(groups.count() - 1)
    return half


_OF_GROUPS: dict[str, Callable[[Groups], pd.Series]] = {
    "mean": lambda g: g.mean(),
    "std": lambda g: g.std(),
    "sem": lambda g: g.sem(),
    "ci95": ci95,
    "min": lambda g: g.min(),
    "max": lambda g: g.max(),
    "median": lambda g: g.median(),
    "count": lambda g: g.count(),
}
STATISTICS = (*_OF_GROUPS, "best")


def reduced(
    values: np.ndarray, codes: np.ndarray, statistics: Iterable[str], *, higher: bool = False
) -> dict[str, np.ndarray]:
    """Statistics ``[group]`` of the values of a column.

    Args:
        values: ``[row]``.
        codes: which group each row is of, from 0 to the number of groups ``[row]``.
        statistics: names among `STATISTICS`.
        higher: whether the best value is the largest.
    """
    best = "max" if higher else "min"
    with np.errstate(all="ignore"):  # infinities have neither a mean nor a spread
        groups = pd.Series(values).groupby(codes)
        return {name: _OF_GROUPS[best if name == "best" else name](groups).to_numpy() for name in statistics}
