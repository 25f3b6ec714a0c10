"""The metrics of an answer: those of its samples, and those that belong to its model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion.metrics import (
    BaseMetric,
    Materials,
    Measurement,
    ModelMaterial,
    PairMaterial,
    Profile,
    SampleMaterial,
)
from tasks.columns import MetricColumns
from tasks.plan import Cell, Point
from tasks.plan.cost import metric_seconds
from tasks.work.answers import PointAnswer, Progress, Requests, reason_of
from tasks.work.limits import Limits
from tasks.work.sampling import clean_data
from tasks.work.stacks import Models


def measured(
    point: Point,
    x: Tensor,
    nfe: int,
    seconds: float,
    requests: Requests,
    trajectory: tuple[np.ndarray, np.ndarray] | None,
) -> PointAnswer:
    """The answer that samples ``[samples, dim]`` of a point are: with its metrics, or why it has
    none.
    """
    bad = int((~torch.isfinite(x)).any(-1).sum())
    if bad:
        return PointAnswer(point, f"sampling diverged: {bad} of {len(x)} samples are not finite", nfe, seconds)
    metrics: dict[str, float] = {}
    for metric in requests.metrics:
        found = None if point.refuses(metric) else metric.measured(_OfPoint(point, x))
        if found is not None:
            metrics |= _columns(metric, found)
    samples = x.float().numpy() if requests.samples else None
    return PointAnswer(point, None, nfe, seconds, metrics, samples, trajectory)


@dataclass(frozen=True)
class _OfPoint(Materials):
    """What a point alone gives: its samples."""

    point: Point
    x: Tensor

    def samples(self) -> SampleMaterial:
        return SampleMaterial(self.x, self.point.target)

    def pairs(self) -> PairMaterial:
        cell, frame = self.point.cell, self.point.cell.dataset.frame
        least = cell.formulation.least_error(cell.dataset.working)
        if frame is not None and least is not None:
            least = least * frame.scale[0] ** 2 if frame.one_scale else None
        return PairMaterial(self.x, clean_data(self.point), least)


@dataclass(frozen=True)
class _OfCell(Materials):
    """What all points of a cell share: its model."""

    cell: Cell
    stack_of: Callable[[Cell], object]

    def model(self) -> ModelMaterial:
        dataset, frame = self.cell.dataset, self.cell.dataset.frame
        volume = 0.0 if frame is None else frame.log_volume
        return ModelMaterial(self.stack_of(self.cell), dataset.working, self.cell.schedule, volume)


def _columns(metric: BaseMetric, found: Measurement) -> dict[str, float]:
    names = MetricColumns(metric.column)
    return {names.name: found.value, names.floor: found.floor, names.version: metric.version}


class ModelMeasurements:
    """What stands beside the metrics of a point and belongs to its cell: found once, stored with
    every point.

    Of exact denoisers, each metric at the limit of many steps; of every cell, the metrics of its
    model. One of these that cannot be measured is NaN and named in `unanswered`: the samples, and
    what else is known of them, are sound.
    """

    def __init__(self, points: Sequence[Point], models: Models, requests: Requests, progress: Progress) -> None:
        self._models, self._requests, self._progress = models, requests, progress
        self._limits = Limits(points, models, requests, progress)
        self._scores: dict[tuple[str, str], Measurement | None] = {}  # by cell and metric; None: not of models
        self.profiles: dict[str, Profile] = {}  # by cell, of the first metric that has one
        self.unanswered: list[str] = []
        self._latest: tuple[str, object] | None = None

    def __call__(self, point: Point) -> dict[str, float]:
        cell = point.cell
        found = dict(self._limits.of(point))
        asked = [metric for metric in self._requests.metrics if point.refuses(metric) is None]
        for metric, seconds in zip(asked, metric_seconds(cell, asked), strict=True):
            key = cell.id, metric.column
            if key not in self._scores:
                self._scores[key] = self._scored(metric, cell)
                self._progress(seconds, 0, 0)
            score = self._scores[key]
            found |= {} if score is None else _columns(metric, score)
        return found

    def _scored(self, metric: BaseMetric, cell: Cell) -> Measurement | None:
        try:
            found = metric.measured(_OfCell(cell, self._stack_of))
            if found is not None and not math.isfinite(found.value):
                raise ValueError(f"found {found.value}, which is no finite number")  # noqa: TRY301 - reported as any other
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's metric may raise anything
            self.unanswered.append(f"metric {metric.column} of {cell}: {reason_of(error)}")
            return Measurement(math.nan, math.nan)
        if found is not None and found.profile is not None:
            self.profiles.setdefault(cell.id, found.profile)
        return found

    def _stack_of(self, cell: Cell) -> object:
        """The cell's model, the same for all metrics, which share work by it."""
        if self._latest is None or self._latest[0] != cell.id:
            self._latest = cell.id, self._models([cell])
        return self._latest[1]
