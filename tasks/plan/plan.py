"""What a study asks for, what is known already, and what is therefore to be done.

- A `Cell` is one denoiser: dataset x formulation x schedule x seed x training settings.
- A `Point` is one question to a cell: sampler x grid x guidance x steps (x number of samples and layout of the start noise).

Their ids are hashes of the canonical spec, defaults written out, and of the version of every component; they do not depend on
order, spelling, worker or time. Everything here is a pure function.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from diffusion.datasets import Dataset, PointSet
from diffusion.formulations import Exact, Formulation, NoiseConditional, Trained
from diffusion.schedules.grids import Grid
from diffusion.guidance import Guidance
from diffusion.schedules.levels import Level, levels_of
from diffusion.metrics import DenoiserMetric, Metric, PairedMetric
from diffusion.networks import Network
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from diffusion.training import Training
from tasks.study import Study
from tasks.study.axes import Block, SamplerChoice

ENGINE_VERSION = 2
"""Part of every id: raised when the training loop or the sampling loop changes the numbers it gives."""

_LIMIT_EVALUATIONS = 200  # of the denoiser, by the adaptive solver
_SHARD_SECONDS = 30.0  # aimed at, per worker; longer shards lose more in a crash, shorter ones cost overhead
_FLOPS_PER_SECOND = 3e10  # of one core on matrices of a network's size; only sizes shards and weighs progress


_ASKED = {  # what samplers need, in words
    "denoiser": "the clean data behind a noisy point",
    "density": "the density of noisy data",
    "law": "the law of the data",
    "decoder": "a decoder of latent points",
    "action": "the gradient of an action",
    "perturbation": "the noise of stochastic restoration",
    "labelled": "answers that depend on a label",
}


def _digest(value: Any) -> str:
    text = json.dumps(without_signed_zeros(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def without_signed_zeros(value: Any) -> Any:
    """The same plain values with 0.0 for -0.0, which JSON spells differently."""
    match value:
        case dict():
            return {key: without_signed_zeros(inner) for key, inner in value.items()}
        case list() | tuple():
            return [without_signed_zeros(inner) for inner in value]
        case float():
            return value + 0.0
        case _:
            return value


@dataclass(frozen=True)
class Cell:
    """One denoiser; `training` is None for the exact one."""

    dataset: Dataset
    formulation: Formulation
    schedule: Schedule
    seed: int
    training: Training | None

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The canonical description that the id hashes."""
        exact = isinstance(self.formulation, Exact)  # its schedule is the cell's
        objective = self.formulation.objective.version if isinstance(self.formulation, Trained) else 1
        return {
            "engine": ENGINE_VERSION,
            "dataset": self.dataset.identity(),
            "formulation": {"name": "exact", "version": self.formulation.version}
            if exact
            else self.formulation.identity(),
            "schedule": self.schedule.identity(),
            "seed": self.seed,
            "training": self.training.identity(self.dataset.dim) if self.training else None,
            **({"objective": objective} if objective > 1 else {}),
        }

    @cached_property
    def id(self) -> str:
        """Content hash of the spec, 20 hexadecimal digits."""
        return _digest(self.spec)

    def impossible(self) -> str | None:
        """Why there can be no such model, or None."""
        reason = self.formulation.refuses(self.schedule) or self.formulation.refuses_dataset(self.dataset)
        if reason is None and self.training and isinstance(self.formulation, Trained):
            reason = self.formulation.refuses_network(self.dataset, self.training)
        return reason

    @property
    def labels(self) -> dict[str, str]:
        """Short texts for the axes that the cell lies on."""
        exact = isinstance(self.formulation, Exact)
        return {
            "dataset": self.dataset.label(),
            "formulation": "exact" if exact else self.formulation.label(),
            "schedule": self.schedule.label(),
        }

    def __str__(self) -> str:
        labels = self.labels
        return f"{labels['dataset']} {labels['formulation']} on {labels['schedule']}, seed {self.seed}"


@dataclass(frozen=True)
class Point:
    """One question to a cell."""

    cell: Cell
    sampler: Sampler
    grid: Grid
    steps: int
    samples: int
    start: str
    swapped: Schedule | None = None  # the schedule to sample on, where it is not the cell's
    guidance: Guidance | None = None

    @property
    def schedule(self) -> Schedule:
        """The schedule that is sampled on."""
        return self.swapped or self.cell.schedule

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The canonical description that the id hashes."""
        return {
            "cell": self.cell.id,
            "sampler": self.sampler.identity(),
            "grid": self.grid.identity(),
            "steps": self.steps,
            "samples": self.samples,
            "start": self.start,
            **({"schedule": self.swapped.identity()} if self.swapped else {}),
            **({"guidance": self.guidance.identity()} if self.guidance else {}),
        }

    @cached_property
    def id(self) -> str:
        """Content hash of the spec, 20 hexadecimal digits."""
        return _digest(self.spec)

    @property
    def labels(self) -> dict[str, Any]:
        """The coordinates of the point along every axis."""
        given = {"dataset": f"{self.cell.dataset.label()} | {self.guidance.condition()}"} if self.guidance else {}
        return {
            **self.cell.labels,
            **given,  # numbers of different targets are not to be pooled
            "sampler": self.sampler.label()
            + (f" | {self.guidance.label()}" if self.guidance else "")
            + (f" on {self.swapped.label()}" if self.swapped else ""),
            "grid": self.grid.label(),
            "steps": self.steps,
            "seed": self.cell.seed,
        }

    def levels(self) -> list[Level]:
        """The levels of its grid on its schedule, noisiest first, for this point alone."""
        return levels_of([self.schedule], [self.grid], self.steps)

    @cached_property
    def law(self) -> Dataset:
        """The law of clean data that is sampled from: the cell's target, or that target given what guidance knows."""
        return self.guidance.target(self.cell.dataset) if self.guidance else self.cell.dataset

    @cached_property
    def target(self) -> Dataset:
        """The law that its samples should follow, which may be another one than that of clean data."""
        if type(self.sampler).target is Sampler.target:
            return self.law
        return self.sampler.target(self.law, self.sampler.path(self.levels())[-1])

    @property
    def noise_left(self) -> float:
        """sigma / alpha of the noise that its samples are to end in; 0 where they are to follow the data's law."""
        if type(self.sampler).target is Sampler.target:
            return 0.0
        last = self.sampler.path(self.levels())[-1]
        return 0.0 if last.clean else float(last.nsr)

    @property
    def has_limit(self) -> bool:
        """Whether its samples, if it asks the exact denoiser, tend to those of the probability flow as steps grow many."""
        known = self.guidance is None or self.guidance.refuses_target(self.cell.dataset) is None
        return known and self.target == self.law and self.sampler.order is not None

    @property
    def starts_from_noise(self) -> bool:
        """Whether samples come down from the schedule's start noise: see `Sampler.from_noise`."""
        formulation = self.cell.formulation
        return self.sampler.from_noise and not formulation.restores and formulation.own_sampler is None

    def refuses(self, metric: Metric) -> str | None:
        """Why the metric cannot measure the answer, or None."""
        formulation = self.cell.formulation
        if isinstance(metric, DenoiserMetric):
            if self.guidance is not None:
                return "it looks at the denoiser itself, without guidance"
            reason = metric.refuses(self.cell.dataset) or metric.refuses_model(formulation.gives, self.cell.schedule)
            return reason or formulation.refuses_metric(metric)
        if isinstance(metric, PairedMetric) and not formulation.restores:
            return f"it compares samples with what they were restored from, and {formulation.registered_name!r} restores nothing"
        unknown = self.guidance.refuses_target(self.cell.dataset) if self.guidance else None
        return unknown or metric.refuses(self.target)

    def impossible(self) -> str | None:
        """Why this question has no answer, or None."""
        schedule = self.schedule
        reason = self.cell.impossible() or self._unserved()
        reason = reason or self.sampler.refuses(schedule) or self.grid.refuses(schedule)
        if reason is None and self.swapped is not None:
            reason = _unknown_noise(self.cell, self.swapped)
        return reason or self.grid.refuses_steps(schedule, self.steps)

    def _unserved(self) -> str | None:
        """Why the sampler gets nothing from the formulation's models that it could use, or None."""
        formulation, sampler = self.cell.formulation, self.sampler
        if formulation.own_sampler is not None:
            return (
                None
                if type(sampler) is type(formulation.own_sampler)
                else f"{formulation.registered_name!r} is sampled in its own way"
            )
        if self.guidance is not None:
            if sampler.needs != "denoiser":
                asked = _ASKED.get(sampler.needs, sampler.needs)
                return f"guidance steers a denoiser, and sampler {sampler.registered_name!r} asks for {asked}"
            if formulation.restores:
                return f"guidance steers a denoiser of data in noise, and {formulation.registered_name!r} knows data and their observation"
            if reason := self.guidance.refuses(self.cell.dataset, formulation):
                return reason
        if sampler.needs in formulation.gives:
            return formulation.refuses_sampler(sampler, self.schedule)
        asked = _ASKED.get(sampler.needs, f"its {sampler.needs}")
        return f"sampler {sampler.registered_name!r} asks a model for {asked}, and {formulation.registered_name!r} gives none"

    @property
    def flow(self) -> str:
        """What the exact denoiser's flow to its limit depends on: points that agree in it share the limit."""
        guidance = [self.guidance.identity()] if self.guidance else []
        return json.dumps([self.cell.id, self.schedule.identity(), self.samples, self.start, *guidance], sort_keys=True)

    def limit_work(self) -> float:
        """Estimated seconds of one core for that limit."""
        return _LIMIT_EVALUATIONS * self.samples * self._seconds_per_evaluation()

    def work(self) -> float:
        """Estimated seconds of one core."""
        return self.sampler.evaluations(self.steps) * self.samples * self._seconds_per_evaluation()

    def _seconds_per_evaluation(self) -> float:
        return _seconds_per_evaluation(self.cell) * (self.guidance.cost if self.guidance else 1.0)


def _unknown_noise(cell: Cell, schedule: Schedule) -> str | None:
    """Why a network trained on the cell's schedule cannot be asked on another one, or None."""
    formulation, own = cell.formulation, cell.schedule
    known = formulation.noise_range(own)
    if known is None:
        return None
    if own.max_steps is not None and isinstance(formulation, NoiseConditional):
        return (
            f"the network of {formulation.registered_name!r} knows the discrete levels of {own.registered_name!r} only"
        )
    low, high = known
    asked = schedule.nsr(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64))
    if float(asked[0]) >= low * (1 - 1e-9) and float(asked[1]) <= high * (1 + 1e-9):
        return None
    return (
        f"schedule {schedule.registered_name!r} asks for noise from sigma/alpha = {float(asked[0]):.3g} to "
        f"{float(asked[1]):.3g}; the network of {formulation.registered_name!r} on {own.registered_name!r} was trained "
        f"from {low:.3g} to {high:.3g}"
    )


def _network(cell: Cell) -> Network:
    assert isinstance(cell.formulation, Trained)  # noqa: S101 - asked of trained cells only
    assert cell.training is not None  # noqa: S101
    return cell.formulation.network(cell.dataset, cell.training)


def _stack(cell: Cell) -> str:
    """What cells must agree in to share a shard: those of one stack, or exact answers of one target."""
    if not isinstance(cell.formulation, Trained) or cell.training is None:
        return json.dumps([cell.dataset.dim, cell.dataset.spec()])
    return json.dumps([repr(_network(cell)), repr(cell.formulation.objective), cell.training.spec()])


def _seconds_per_evaluation(cell: Cell) -> float:
    if cell.training is None:
        if isinstance(cell.dataset, PointSet):  # every sample is compared with every point
            return 1e-6 + 7e-10 * cell.dataset.points.numel()
        return 2e-7 if cell.dataset.dim == 1 else 5e-6
    return _network(cell).flops() / _FLOPS_PER_SECOND + 2e-8 * cell.dataset.dim


def _seconds_per_lesson(cell: Cell) -> float:
    assert isinstance(cell.formulation, Trained)  # noqa: S101 - asked of trained cells only
    return 4 * _network(cell).flops() / _FLOPS_PER_SECOND * cell.formulation.objective.passes(cell.dataset.dim)


@dataclass(frozen=True)
class Known:
    """What a store says of one point."""

    status: str  # ok, failed or skipped
    metrics: Mapping[str, int]  # column: version of the metric that it was measured by
    samples: bool
    trajectory: bool


@dataclass(frozen=True)
class Job:
    """One cell with the questions to be asked of it now."""

    cell: Cell
    points: tuple[Point, ...]
    train: bool  # False: the weights are in the store, or there are none

    def work(self) -> float:
        """Estimated seconds of one core."""
        training = self.cell.training
        seconds = sum(point.work() for point in self.points)
        if training is None:
            seconds += sum(point.limit_work() for point in {point.flow: point for point in self.points}.values())
        if self.train and training is not None:
            seconds += training.steps * training.batch * (_seconds_per_lesson(self.cell) + 2e-7)
        return seconds


@dataclass(frozen=True)
class Shard:
    """Cells that share a network's shape, trained and questioned together by one worker."""

    jobs: tuple[Job, ...]

    @property
    def name(self) -> str:
        """A name a person recognises: ``uniform: edm x3`` or ``uniform: exact on edm x3, iddpm x2``."""
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
    def points(self) -> int:
        """Number of questions."""
        return sum(len(job.points) for job in self.jobs)

    @property
    def trained(self) -> int:
        """Number of cells to train."""
        return sum(job.train for job in self.jobs)

    def work(self) -> float:
        """Estimated seconds of one core."""
        return sum(job.work() for job in self.jobs)


@dataclass(frozen=True)
class Plan:
    """Every point of a study, sorted by what is to happen to it."""

    study: Study
    points: tuple[Point, ...]
    impossible: Mapping[str, str]  # point id: reason
    done: frozenset[str]
    failed: frozenset[str]  # failed before, left alone
    jobs: tuple[Job, ...]
    unrecorded: frozenset[str]  # impossible, and the store does not say so yet
    reasons: Mapping[str, str] = field(default_factory=dict)  # id of a point to be computed: why

    @property
    def missing(self) -> int:
        """Number of points to be computed."""
        return sum(len(job.points) for job in self.jobs)

    @property
    def cells(self) -> dict[str, Cell]:
        """All cells by id, in the study's order."""
        return {point.cell.id: point.cell for point in self.points}

    def shards(self, workers: int) -> list[Shard]:
        """The jobs packed for a number of workers, longest first. Packing changes no number."""
        groups: dict[str, list[Job]] = {}
        for job in self.jobs:
            groups.setdefault(_stack(job.cell), []).append(job)
        total = sum(job.work() for job in self.jobs)
        target = max(min(_SHARD_SECONDS, total / max(workers, 1)), 1e-9)
        shards = [shard for group in groups.values() for shard in _pack(group, target)]
        return sorted(shards, key=lambda shard: -shard.work())


def _pack(jobs: list[Job], target: float) -> Iterator[Shard]:
    """Consecutive jobs in shards of about `target` seconds each."""
    total = sum(job.work() for job in jobs)
    count = min(len(jobs), max(1, math.ceil(total / target)))
    done, start = 0.0, 0
    for i, job in enumerate(jobs):
        done += job.work()
        left = len(jobs) - i - 1
        if done >= total / count * (1 - 1e-9) or left == 0:
            yield Shard(tuple(jobs[start : i + 1]))
            total, count, done, start = total - done, max(count - 1, 1), 0.0, i + 1


def points_of(study: Study) -> list[Point]:
    """Every point of a study, exact rows included, without repetition."""
    found: dict[str, Point] = {}
    for block in study.blocks():
        pairs = block.pairs()
        for dataset in block.datasets:
            for formulation, schedule in _models(pairs, dataset):
                training = block.training if isinstance(formulation, Trained) else None
                for seed in block.seeds:
                    cell = Cell(dataset, formulation, schedule, seed, training)
                    own = formulation.own_sampler
                    for choice in _choices(block, own):
                        other = choice.schedule.fitted(dataset) if choice.schedule else None
                        grid = choice.grid_on(other or schedule)
                        swapped = other if other != schedule else None
                        for steps in (1,) if own else block.steps:
                            point = Point(
                                cell, choice.sampler, grid, steps, study.samples, study.start, swapped, choice.guidance
                            )
                            if not any(rule.matches(**_names(point)) for rule in block.exclude):
                                found.setdefault(point.id, point)
    return list(found.values())


def _models(pairs: Iterable[tuple[Formulation, Schedule]], dataset: Dataset) -> Iterator[tuple[Formulation, Schedule]]:
    """The pairs of a block that are trained, and the exact answer on each of their schedules; schedules as the data set has them."""
    fitted = [(formulation, schedule.fitted(dataset)) for formulation, schedule in pairs]
    yield from ((formulation, schedule) for formulation, schedule in fitted if isinstance(formulation, Trained))
    if dataset.exact:
        sampled = [schedule for f, schedule in fitted if f.own_sampler is None and not f.restores]
        schedules = {_digest(schedule.spec()): schedule for schedule in sampled}
        yield from ((Exact(schedule), schedule) for schedule in schedules.values())


def _choices(block: Block, own: Sampler | None) -> Sequence[SamplerChoice]:
    """The samplers to ask: of a model with a way of its own that way, as the study writes it if it does."""
    if own is None:
        return block.samplers
    return [one for one in block.samplers if type(one.sampler) is type(own)] or [SamplerChoice(own)]


def _names(point: Point) -> dict[str, str | int]:
    """The registered names that `exclude` patterns speak of."""
    return {
        "dataset": point.cell.dataset.registered_name,
        "formulation": point.cell.formulation.registered_name,
        "schedule": point.schedule.registered_name,  # the one that is sampled on
        "sampler": point.sampler.registered_name,
        "grid": point.grid.registered_name,
        "guidance": point.guidance.registered_name if point.guidance else "none",
        "steps": point.steps,
        "seed": point.cell.seed,
    }


def keeps_trajectory(study: Study, point: Point) -> bool:
    """Whether the study wants the point's path from noise to data stored."""
    return f"{point.sampler.registered_name}@{point.steps}" in study.keep.trajectories


NEW, FORCED, FAILED_BEFORE = "new", "forced", "failed before"


def make_plan(
    study: Study,
    known: Mapping[str, Known],
    trained: Iterable[str],
    *,
    retry_failed: bool = False,
    forced: Collection[str] = (),
) -> Plan:
    """What is done, failed, impossible and missing, and why.

    `known` is what the store says of points by id, `trained` the ids of cells whose weights it holds. A point is done if it
    is stored with all that the study wants of it: its metrics as they are now, its samples, its trajectory. The points in
    `forced` are computed in any case, and their cells trained again.
    """
    points = points_of(study)
    weights, again = set(trained), set(forced)
    impossible = {point.id: reason for point in points if (reason := point.impossible())}
    done, failed, missing, reasons = set(), set(), [], {}
    for point in points:
        before = known.get(point.id)
        if point.id in impossible:
            continue
        if before is not None and before.status == "failed" and not retry_failed and point.id not in again:
            failed.add(point.id)
            continue
        if point.id in again:
            reason = FORCED
        elif before is None:
            reason = NEW
        elif before.status == "failed":
            reason = FAILED_BEFORE
        else:
            lacking = _lacking(before, {m.column: m.version for m in study.metrics if point.refuses(m) is None})
            lacking += ["samples not kept"] if study.keep.samples and not before.samples else []
            lacking += ["trajectory not kept"] if keeps_trajectory(study, point) and not before.trajectory else []
            reason = "; ".join(lacking)
        if reason:
            missing.append(point)
            reasons[point.id] = reason
        else:
            done.add(point.id)
    by_cell: dict[str, list[Point]] = {}
    for point in missing:
        by_cell.setdefault(point.cell.id, []).append(point)
    jobs = tuple(
        Job(
            group[0].cell,
            tuple(group),
            train=group[0].cell.training is not None
            and (cell_id not in weights or any(point.id in again for point in group)),
        )
        for cell_id, group in by_cell.items()
    )
    unrecorded = frozenset(i for i in impossible if i not in known)
    return Plan(study, tuple(points), impossible, frozenset(done), frozenset(failed), jobs, unrecorded, reasons)


def _lacking(before: Known, wanted: Mapping[str, int]) -> list[str]:
    """What of the wanted metrics the store does not know, or knows by another version."""
    new = sorted(column for column in wanted if column not in before.metrics)
    changed = [
        f"version of {column} changed from {before.metrics[column]} to {version}"
        for column, version in sorted(wanted.items())
        if before.metrics.get(column, version) != version
    ]
    return [*([f"{', '.join(new)} not measured"] if new else []), *changed]
