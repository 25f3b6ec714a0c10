"""Cells packed into shards: what one worker trains and answers in one go."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.formulations import Formulation, Given, Trained, Untrained
from diffusion.metrics import BaseMetric, ModelMetric
from diffusion.training import Training
from tasks.plan.cell import Cell
from tasks.plan.cost import CELL_SECONDS, metric_seconds, seconds_per_example
from tasks.plan.pace import AS_PLANNED, Pace, Paces
from tasks.plan.point import Point

MOST_CELLS = 256  # a shard's answers are committed at once, and lost at once if its worker dies
LEAST_SECONDS = 2.0  # worth a task run of its own
SHARD_SECONDS = 30.0  # aimed at, per worker; longer shards lose more in a crash, shorter ones cost overhead
COORDINATOR_SECONDS = 0.35  # in which one process hands over and commits a shard, with some to spare


def stack_key(cell: Cell) -> str:
    """What cells must agree in to share a shard: those of one stack, or exact answers of one
    target.
    """
    return _stack_key(cell.formulation, cell.dataset, cell.training)


@remembered(4096)
def _stack_key(formulation: Formulation, dataset: Dataset, training: Training | None) -> str:
    """The same for all seeds."""
    if isinstance(formulation, Given):
        return json.dumps([dataset.dim, formulation.spec()])
    if isinstance(formulation, Untrained):
        return json.dumps([dataset.dim, dataset.spec(), formulation.spec()])
    if not isinstance(formulation, Trained) or training is None:
        return json.dumps([dataset.dim, dataset.spec()])
    return json.dumps([repr(formulation.network(dataset, training)), repr(formulation.objective), training.spec()])


@dataclass(frozen=True)
class Job:
    """One cell with the questions to be asked of it now."""

    cell: Cell
    points: tuple[Point, ...]
    train: bool  # False: the weights are in the store, or there are none
    metrics: tuple[BaseMetric, ...] = ()  # to be measured

    def work(self) -> float:
        """Estimated seconds of one core: training, points, what belongs to the cell."""
        return self._work

    @cached_property
    def _work(self) -> float:
        asked = sum(point.work() + point.measuring_work(self.metrics) for point in self.points)
        limits = {point.flow: point for point in self.points if point.has_limit} if self.cell.exact else {}
        return (
            (self.training_work() if self.train else 0.0)
            + asked
            + sum(point.limit_work() + point.measuring_work(self.metrics) for point in limits.values())
            + sum(metric_seconds(self.cell, [metric for metric in self.metrics if self._measures(metric)]))
        )

    def measuring_work(self) -> float:
        """What of it are metrics of samples, which a processor computes whatever device draws them."""
        return self._measuring

    @cached_property
    def _measuring(self) -> float:
        limits = {point.flow: point for point in self.points if point.has_limit} if self.cell.exact else {}
        return sum(point.measuring_work(self.metrics) for point in (*self.points, *limits.values()))

    def training_work(self) -> float:
        """Estimated seconds of one core to train it."""
        training = self.cell.training
        if training is None:
            return 0.0
        return CELL_SECONDS + training.steps * training.batch * (seconds_per_example(self.cell) + 2e-7)

    def _measures(self, metric: BaseMetric) -> bool:
        return isinstance(metric, ModelMetric) and any(point.refuses(metric) is None for point in self.points)


@dataclass(frozen=True)
class Shard:
    """Cells that share a network's shape, trained and questioned together by one worker."""

    jobs: tuple[Job, ...]

    @property
    def name(self) -> str:
        """A name a person recognises: ``uniform: edm x3`` or
        ``uniform: exact on edm x3, iddpm x2``.
        """
        counts: dict[str, dict[str, int]] = {}
        for job in self.jobs:
            labels = job.cell.labels
            exact = labels["formulation"] == "exact"
            here = counts.setdefault(labels["dataset"] + (": exact on " if exact else ": "), {})
            what = labels["schedule" if exact else "formulation"]
            here[what] = here.get(what, 0) + 1
        return "; ".join(
            start + ", ".join(f"{what} x{count}" if count > 1 else what for what, count in here.items())
            for start, here in counts.items()
        )

    @property
    def kind(self) -> str:
        """What its cells agree in."""
        return stack_key(self.jobs[0].cell)

    @property
    def questions(self) -> list[Point]:
        """The points of all cells."""
        return [point for job in self.jobs for point in job.points]

    @property
    def trained(self) -> int:
        """Number of cells to train."""
        return sum(job.train for job in self.jobs)

    def work(self) -> float:
        """Estimated seconds of one core."""
        return sum(job.work() for job in self.jobs)

    def seconds(self, paces: Paces) -> float:
        """What it takes, of one core or, as far as that is known, of the device that does it."""
        pace = paces.get(self.kind, AS_PLANNED) if paces else AS_PLANNED
        return sum(pace.seconds(job) for job in self.jobs)

    def asking(self, points: Iterable[Point]) -> Shard:
        """The part of it that asks these questions, and trains nothing."""
        ids = {point.id for point in points}
        asked = ((job, tuple(point for point in job.points if point.id in ids)) for job in self.jobs)
        return Shard(tuple(replace(job, points=found, train=False) for job, found in asked if found))

    def halves(self) -> tuple[Shard, ...]:
        """Its cells in two parts, or the questions of its only cell; nothing of a cell with one
        question.
        """
        if len(self.jobs) > 1:
            middle = len(self.jobs) // 2
            return Shard(self.jobs[:middle]), Shard(self.jobs[middle:])
        points = self.questions
        middle = len(points) // 2
        return (self.asking(points[:middle]), self.asking(points[middle:])) if middle else ()


def aimed_at(total: float, workers: int) -> float:
    """Seconds of a shard: what `workers` share evenly, as far as one coordinator can serve so many
    shards.

    It needs ``c`` = `COORDINATOR_SECONDS` for each, so it can serve all workers if a shard takes
    ``c * workers``. A run of ``total`` seconds of work has ``total / s`` shards of ``s`` seconds: to
    serve them all takes as long as one of them if ``s = sqrt(c * total)``.
    """
    served = min(COORDINATOR_SECONDS * workers, math.sqrt(COORDINATOR_SECONDS * total))
    return max(min(max(SHARD_SECONDS, COORDINATOR_SECONDS * workers), total / max(workers, 1)), served, LEAST_SECONDS)


def packed(jobs: list[Job], target: float, pace: Pace = AS_PLANNED) -> Iterator[Shard]:
    """Consecutive jobs in shards of about `target` seconds each, as a device needs them, and of
    `MOST_CELLS` at most.
    """
    total = sum(pace.seconds(job) for job in jobs)
    count = min(len(jobs), max(1, math.ceil(total / target)))
    done, start = 0.0, 0
    for i, job in enumerate(jobs):
        done += pace.seconds(job)
        left = len(jobs) - i - 1
        if done >= total / count * (1 - 1e-9) or left == 0 or i - start + 1 == MOST_CELLS:
            yield Shard(tuple(jobs[start : i + 1]))
            total, count, done, start = total - done, max(count - 1, 1), 0.0, i + 1
