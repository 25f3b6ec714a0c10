"""The distribution of samples on the line against the number of steps: a histogram for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.report.numbers.levels import histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.report.lookup.targets import Target
    from tasks.report.numbers.kept import Kept

Array = NDArray[np.float64]
_BINS = 80


@dataclass(frozen=True)
class ColumnsBySteps:
    """Densities of samples in bins, a column for each step count.

    Args:
        edges: Of the bins.
        steps: The step counts, ascending.
        densities: Of the samples in each bin, for each step count.
        outside: The share of samples outside all bins, for each step count.
        target: The exact mean density in each bin; None where it is not known.
        top: The density that is shown darkest: twice the target's.
    """

    edges: Array
    steps: list[int]
    densities: list[Array]
    outside: list[float]
    target: Array | None
    top: float


def columns_by_steps(kept: Kept, target: Target, shown: tuple[float, float]) -> ColumnsBySteps:
    """The columns of one series between two values."""
    # a hair lower, so that an atom at an edge is in the same bin for samples and target
    edges = np.linspace(*shown, _BINS + 1) - 1e-7 * (shown[1] - shown[0])
    steps = sorted(kept.values)
    columns = [histogram(kept.values[n], edges) for n in steps]
    outside = [1 - float((column * np.diff(edges)).sum()) for column in columns]
    clean = target.density(edges, 1.0, 0.0)
    top = 2 * float(np.quantile(clean[clean > 0], 0.95)) if clean is not None and (clean > 0).any() else 0.0
    return ColumnsBySteps(edges, steps, columns, outside, clean, top or 1.5 * float(columns[-1].max()) or 1.0)


def window(kept: Sequence[Kept], target: Target) -> tuple[float, float]:
    """The values shown: the support of the target and half of its width on either side."""
    low_high = target.support()
    if low_high is None:
        last = np.concatenate([np.zeros(0), *(one.values[max(one.values)] for one in kept)])
        last = last[np.isfinite(last)]
        low_high = (float(np.quantile(last, 0.01)), float(np.quantile(last, 0.99))) if last.size else (0.0, 1.0)
    low, high = low_high
    width = (high - low) or 1.0
    return low - width / 2, high + width / 2
