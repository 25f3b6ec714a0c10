"""The rows of the answers as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.columns import GENERATION, METRIC_SUFFIXES

if TYPE_CHECKING:
    import xarray as xr


EXACT = "exact"


_NOT_METRICS = {"train_seconds", "sample_seconds"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the answers, as plain values."""

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
    guidance: str
    sampling_schedule: str
    values: Mapping[str, float]
    beside: Mapping[str, float] = field(
        default_factory=dict
    )  # ``<metric>_<part>``, see `tasks.results.error_decomposition`


def metrics_in(points: xr.Dataset) -> list[str]:
    """The metrics among the variables, in their order: numbers, without what stands beside a metric and without times."""
    names = [str(name) for name in points.data_vars]
    return [
        name
        for name in names
        if name not in _NOT_METRICS
        and not name.endswith(METRIC_SUFFIXES)
        and np.issubdtype(points[name].dtype, np.number)
    ]


def points_in(points: xr.Dataset, metrics: Sequence[str]) -> tuple[Row, ...]:
    """Every row as plain values; a column that is missing has its default everywhere."""
    texts = ["dataset", "formulation", "schedule", "sampler", "grid", "cell_id", "point_id", "status", "error", "start"]
    text = {name: [str(v) for v in _column(points, name, "")] for name in (*texts, "guidance")}
    text["process"] = [str(v) for v in _column(points, "process", GENERATION)]
    text["sampling_schedule"] = [str(v) for v in _column(points, "sampling_schedule", "")]
    count = {name: [_integer(v) for v in _column(points, name, 0)] for name in ("steps", "nfe", "seed")}
    values = {metric: [float(v) for v in _column(points, metric, math.nan)] for metric in metrics}
    names = [f"{metric}{suffix}" for metric in metrics for suffix in METRIC_SUFFIXES if f"{metric}{suffix}" in points]
    beside = {name: [float(v) for v in _column(points, name, math.nan)] for name in names}
    return tuple(
        Row(
            **{name: column[i] for name, column in text.items()},
            steps=count["steps"][i],
            nfe=count["nfe"][i],
            seed=count["seed"][i],
            values={metric: column[i] for metric, column in values.items()},
            beside={name: column[i] for name, column in beside.items()},
        )
        for i in range(points.sizes.get("point", 0))
    )


def _column(points: xr.Dataset, name: str, default: object) -> list[Any]:
    if name not in points.variables:
        return [default] * points.sizes.get("point", 0)
    values: list[Any] = points[name].values.tolist()
    return values


def _integer(value: Any) -> int:
    """A count, 0 where it is not known (the evaluations of a point that never ran)."""
    return int(value) if value is not None and math.isfinite(value) else 0
