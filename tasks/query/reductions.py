"""What is told of the rows of a group: moments, order, and how sure the mean is.

    mean    m = sum of x / n
    std     s = sqrt(sum of (x - m)^2 / (n - 1))
    sem     s / sqrt(n)
    ci95    t_{0.975, n-1} s / sqrt(n), half the width of Student's 95 % interval of the mean
    best    the smallest value, or the largest of a metric that says ``higher_is_better``

NaN is left out of all of them and not counted; of one row `std`, `sem` and `ci95` are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from tasks.columns import METRIC_SUFFIXES
from tasks.statistics.intervals import student

DEFAULT_STATISTICS = ("mean", "sem", "count")


def ci95(groups: Any) -> Any:
    """Half the width of the 95 % interval of each group's mean."""
    return groups.sem() * student(groups.count() - 1)


STATISTICS: dict[str, Callable[[Any], Any]] = {
    "mean": lambda g: g.mean(),
    "std": lambda g: g.std(),
    "sem": lambda g: g.sem(),
    "ci95": ci95,
    "min": lambda g: g.min(),
    "max": lambda g: g.max(),
    "median": lambda g: g.median(),
    "count": lambda g: g.count(),
    "best": lambda g: g.max() if higher_is_better(str(g.obj.name)) else g.min(),
}


def higher_is_better(name: str) -> bool:
    """Whether larger values of a column are better: of a metric that says so, and of the columns beside it."""
    import tasks.data  # noqa: F401 - registers metrics
    from diffusion.metrics import metrics  # with torch, which other statistics need not wait for

    for suffix in METRIC_SUFFIXES:
        name = name.removesuffix(suffix)
    try:
        metric = metrics.find(name.split("(")[0])
    except Exception:  # noqa: BLE001 - times and counts, and a user's metric that cannot be imported here
        return False
    return metric.higher_is_better


def reduced(name: str, values: np.ndarray, codes: np.ndarray, statistics: Iterable[str]) -> dict[str, np.ndarray]:
    """Statistics ``[group]`` of the values of a column; `codes`, from 0 to the number of groups, say whose each value is."""
    with np.errstate(all="ignore"):  # infinities have neither a mean nor a spread
        groups = pd.Series(values, name=name).groupby(codes)
        return {statistic: STATISTICS[statistic](groups).to_numpy() for statistic in statistics}
