"""The metrics of an answer: those of its samples, and those that belong to its model."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from diffusion.analysis.flow_limit import FlowLost, flow_limit
from diffusion.formulations import Exact
from diffusion.metrics import DenoiserMetric, PairedMetric, ProfileMetric
from diffusion.models import Denoiser
from tasks.columns import MetricColumns
from tasks.plan import Cell, Point
from tasks.work.answers import PointAnswer, Progress, Requests, reason_of
from tasks.work.sampling import clean_data, guided, start_noise
from tasks.work.stacks import Models


def measured(
    point: Point,
    x: Tensor,
    nfe: int,
    seconds: float,
    requests: Requests,
    trajectory: tuple[np.ndarray, np.ndarray] | None,
) -> PointAnswer:
    """The answer that samples ``[samples, dim]`` of a point are: with its metrics, or why it has none."""
    bad = int((~torch.isfinite(x)).any(-1).sum())
    if bad:
        return PointAnswer(point, f"sampling diverged: {bad} of {len(x)} samples are not finite", nfe, seconds)
    metrics: dict[str, float] = {}
    for metric in requests.metrics:
        columns = MetricColumns(metric.column)
        if metric.of == "samples" and point.refuses(metric) is None:
            metrics[metric.column] = metric.evaluate(x, point.target)
            metrics[columns.floor] = metric.floor(point.target, len(x))
            metrics[columns.version] = metric.version
        if isinstance(metric, PairedMetric) and point.refuses(metric) is None:
            dataset = point.cell.dataset
            metrics[metric.column] = metric.evaluate_pairs(x, clean_data(point))
            metrics[columns.floor] = metric.floor_of_pairs(point.cell.formulation.least_error(dataset), dataset.dim)
            metrics[columns.version] = metric.version
    samples = x.float().numpy() if requests.samples else None
    return PointAnswer(point, None, nfe, seconds, metrics, samples, trajectory)


class ModelMeasurements:
    """What stands beside the metrics of a point and belongs to its cell: found once, told with every point.

    Of exact denoisers, each metric at the limit of many steps; of every cell, the metrics of its denoiser. One of these that
    cannot be measured is NaN and told in `unanswered`: the samples, and what else is known of them, are sound.
    """

    def __init__(self, models: Models, requests: Requests, progress: Progress) -> None:
        self._models, self._requests, self._progress = models, requests, progress
        self._limits: dict[str, dict[str, float]] = {}
        self._scores: dict[tuple[str, str], tuple[float, float]] = {}  # by cell and metric: value and floor
        self.profiles: dict[str, tuple[list[float], list[float]]] = {}  # by cell, of the first such metric: nsr, errors
        self.unanswered: list[str] = []
        self._latest: tuple[str, object] | None = None

    def __call__(self, point: Point) -> dict[str, float]:
        cell = point.cell
        found: dict[str, float] = {}
        if isinstance(cell.formulation, Exact) and point.has_limit:
            if point.flow not in self._limits:
                self._limits[point.flow] = self._limit(point)
                self._progress(point.limit_work(), 0, 0)
            found |= self._limits[point.flow]
        for metric in self._requests.metrics:
            if isinstance(metric, DenoiserMetric) and point.refuses(metric) is None:
                columns = MetricColumns(metric.column)
                if (cell.id, columns.name) not in self._scores:
                    self._scores[cell.id, columns.name] = self._scored(metric, cell)
                value, floor = self._scores[cell.id, columns.name]
                found |= {columns.name: value, columns.floor: floor, columns.version: metric.version}
        return found

    def _scored(self, metric: DenoiserMetric, cell: Cell) -> tuple[float, float]:
        try:
            value, floor = self._evaluated(metric, cell)
            if not math.isfinite(value):
                raise ValueError(f"found {value}, which is no finite number")  # noqa: TRY301 - told as any other reason
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's metric may raise anything
            self.unanswered.append(f"metric {metric.column} of {cell}: {reason_of(error)}")
            return math.nan, math.nan
        return value, floor

    def _evaluated(self, metric: DenoiserMetric, cell: Cell) -> tuple[float, float]:
        if self._latest is None or self._latest[0] != cell.id:
            self._latest = cell.id, self._models([cell])  # the same for all metrics, which share work by it
        denoiser, floor = cast("Denoiser", self._latest[1]), metric.floor_on(cell.dataset, cell.schedule)
        if not isinstance(metric, ProfileMetric):
            return metric.evaluate_denoiser(denoiser, cell.dataset, cell.schedule), floor
        errors = metric.profile(denoiser, cell.dataset, cell.schedule)
        self.profiles.setdefault(cell.id, (metric.levels(cell.schedule).tolist(), errors.tolist()))
        return float(errors.mean()), floor

    def _limit(self, point: Point) -> dict[str, float]:
        schedule = point.schedule
        start = start_noise([point]) * schedule.prior_std
        denoiser = guided([point], self._models([point.cell]))
        assert isinstance(denoiser, Denoiser)  # noqa: S101 - asked of exact models only
        try:
            samples = flow_limit(denoiser, start, schedule, point.cell.dataset.std)[0]
        except FlowLost:  # the answer itself is sound; its parts stay unknown, which the split tells as NaN
            return {}
        return {
            MetricColumns(metric.column).limit: metric.evaluate(samples, point.target)
            for metric in self._requests.metrics
            if metric.of == "samples" and point.refuses(metric) is None
        }
