"""The rows of the answers as plain values, each with what it asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from tasks.columns import MetricColumns
from tasks.report.lookup.requested import EXACT, Requested, requested_in

if TYPE_CHECKING:
    from tasks.results import Answers


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the answers. Texts are labels: they tell rows apart and are shown, and nothing is
    read out of them.
    """

    dataset: str
    formulation: str
    schedule: str
    sampler: str
    grid: str
    steps: int
    nfe: int
    seed: int
    cell_id: str
    point_id: str
    status: str
    error: str
    start: str  # what it set out from
    process: str  # what it does: see `tasks.columns`
    requested: Requested
    values: Mapping[str, float]
    beside: Mapping[str, float] = field(default_factory=dict)  # the columns beside a metric, see `MetricColumns`

    @property
    def exact(self) -> bool:
        """Whether the exact denoiser was asked."""
        return self.formulation == EXACT

    def floor(self, metric: str) -> float:
        """What stands beside a value as its floor; NaN where that is not known."""
        return self.beside.get(MetricColumns(metric).floor, math.nan)


def rows_in(answers: Answers, metrics: Sequence[str]) -> tuple[Row, ...]:
    """Every row, with the values of some metrics.

    Args:
        answers: The answers of a study.
        metrics: Columns, of which a store may lack some.

    Returns:
        The rows in the order of `Answers.points`; a value that is not there is NaN.
    """
    points = answers.points
    texts = ("dataset", "formulation", "schedule", "sampler", "grid", "cell_id", "point_id", "status", "error")
    text = {name: [str(value) for value in points[name].values] for name in (*texts, "start", "process")}
    count = {name: _counts(points, name) for name in ("steps", "nfe", "seed")}
    values = {metric: _numbers(points, metric) for metric in metrics}
    names = [name for metric in metrics for name in MetricColumns(metric).beside if name in points]
    beside = {name: _numbers(points, name) for name in names}
    return tuple(
        Row(
            **{name: column[i] for name, column in text.items()},
            steps=count["steps"][i],
            nfe=count["nfe"][i],
            seed=count["seed"][i],
            requested=requested,
            values={metric: column[i] for metric, column in values.items()},
            beside={name: column[i] for name, column in beside.items()},
        )
        for i, requested in enumerate(requested_in(answers))
    )


def _numbers(points: xr.Dataset, name: str) -> list[float]:
    if name not in points:
        return [math.nan] * points.sizes["point"]
    return [float(value) for value in points[name].values]


def _counts(points: xr.Dataset, name: str) -> list[int]:
    """Counts, 0 where one is not known (the evaluations of a point that never ran)."""
    return [int(value) if np.isfinite(value) else 0 for value in points[name].values]
