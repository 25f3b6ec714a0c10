"""What one worker does with one shard: train the stack, ask every question, measure the answers.

`run_shard` takes values and returns values; it knows neither the store nor Prefect nor Ray. A cell that fails is reported
and the others go on.
"""

from __future__ import annotations

import json
import math
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from diffusion.analysis.flow_limit import FlowLost, flow_limit
from diffusion.datasets import Dataset
from diffusion.formulations import Exact, Trained
from diffusion.guidance import Guided, exact_given_label
from diffusion.metrics import DenoiserMetric, Metric, PairedMetric, ProfileMetric
from diffusion.networks import Network
from diffusion.objectives import Objective
from diffusion.randomness import stream
from diffusion.samplers import Begin, CountingDenoiser, Denoiser, Level, NoiseStreams, levels_of
from diffusion.training import Member, TrainedStack, train
from tasks.columns import LIMIT, VERSION
from tasks.failpoints import failpoint
from tasks.plan import Cell, Point, Shard, without_signed_zeros

TRAJECTORY_SAMPLES = 2000  # of a kept trajectory: enough for its histograms

Progress = Callable[[float, int, int], None]
"""Told of work done since the last call: estimated seconds, cells trained, points answered."""


@dataclass(frozen=True)
class Wanted:
    """What the study wants of each point, besides its id."""

    metrics: tuple[Metric, ...]
    samples: bool
    trajectories: frozenset[str]  # ids of the points whose path is kept


@dataclass
class CellAnswer:
    """A trained (or failed) cell."""

    cell: Cell
    error: str | None
    seconds: float
    losses: list[float]
    loss_steps: list[int]
    weights: bytes | None


@dataclass
class PointAnswer:
    """An answered (or failed) question."""

    point: Point
    error: str | None
    nfe: int = -1
    seconds: float = float("nan")
    metrics: dict[str, float] = field(default_factory=dict)
    samples: np.ndarray | None = None
    trajectory: tuple[np.ndarray, np.ndarray] | None = None


@dataclass
class ShardAnswer:
    """All that a shard gives."""

    cells: list[CellAnswer]
    points: list[PointAnswer]
    profiles: dict[str, tuple[list[float], list[float]]]  # by cell id: noise-to-signal ratios, errors of the score
    device: str
    seconds: float
    unanswered: tuple[str, ...] = ()  # metrics of a denoiser that cannot be measured, each with cell and reason


def generate(dataset: Dataset, seed: int, n: int) -> np.ndarray:
    """The training set of a target: a pure function of spec, seed and size. ``[n, dim]`` float64."""
    return np.asarray(dataset.sample(n, stream("data", _name(dataset), seed, n)))


def generate_labelled(dataset: Dataset, seed: int, n: int) -> np.ndarray:
    """The same data with their labels as a last column, ``[n, dim + 1]`` float64."""
    x, labels = dataset.sample_labelled(n, stream("data", _name(dataset), seed, n))
    return np.asarray(torch.cat([x, labels[:, None].double()], 1))


DataKey = tuple[Any, ...]


def data_key(cell: Cell) -> DataKey:
    """What a trained cell's training set is known by: dataset label, seed and size, and whether it has labels."""
    assert cell.training is not None  # noqa: S101 - asked of trained cells only
    named = (cell.dataset.label(), cell.seed, cell.training.data)
    return (*named, "labelled") if _labelled(cell) else named


def training_set(cell: Cell) -> np.ndarray:
    """The data that a trained cell learns from, those of its `data_key`."""
    assert cell.training is not None  # noqa: S101
    make = generate_labelled if _labelled(cell) else generate
    return make(cell.dataset, cell.seed, cell.training.data)


def _labelled(cell: Cell) -> bool:
    return isinstance(cell.formulation, Trained) and cell.formulation.labelled


def _name(dataset: Dataset) -> str:
    """What the random streams of a target are named by."""
    return json.dumps(without_signed_zeros(dataset.identity()), sort_keys=True)


class ExactDenoiser:
    """The ideal denoisers of a stack of targets."""

    def __init__(self, targets: Sequence[Dataset]) -> None:
        self._groups: list[tuple[Dataset, list[int]]] = []
        for m, target in enumerate(targets):
            for known, rows in self._groups:
                if known == target:
                    rows.append(m)
                    break
            else:
                self._groups.append((target, [m]))

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_t], ``[members, batch, dim]``."""
        out = torch.empty_like(x)
        for target, rows in self._groups:
            out[rows] = target.denoise(x[rows], alpha[rows, None], sigma[rows, None])
        return out

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """E[x_0 | x_t, label] for labels ``[batch]``, -1 where it is not known."""
        out = torch.empty_like(x)
        for target, rows in self._groups:
            out[rows] = exact_given_label(target, x[rows], alpha[rows, None], sigma[rows, None], labels)
        return out

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p(x_t), ``[members, batch]``."""
        out = torch.empty(x.shape[:-1], dtype=x.dtype)
        for target, rows in self._groups:
            out[rows] = target.log_density(x[rows], alpha[rows, None], sigma[rows, None])
        return out

    def divergence(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``div_x E[x_0 | x_t] = alpha / sigma^2`` times the posterior variance, ``[members, batch]``."""
        out = torch.empty(x.shape[:-1], dtype=x.dtype)
        for target, rows in self._groups:
            out[rows] = target.posterior_variance(x[rows], alpha[rows, None], sigma[rows, None])
        return (alpha / sigma**2)[:, None] * out


def run_shard(
    shard: Shard,
    data: Mapping[Any, np.ndarray],
    weights: Mapping[str, bytes],
    wanted: Wanted,
    progress: Progress = lambda _seconds, _cells, _points: None,
) -> ShardAnswer:
    """Train what is to be trained and answer every question of the shard.

    `data` holds training sets by their `data_key`; `weights` the safetensors of cells trained before.
    """
    torch.set_num_threads(1)
    begun = time.perf_counter()
    cells, denoisers = _denoisers(shard, data, weights, progress)
    answers: list[PointAnswer] = []
    failed = {answer.cell.id: answer.error for answer in cells if answer.error}
    questions: dict[str, list[Point]] = {}
    for job in shard.jobs:
        for point in job.points:
            if point.cell.id in failed:
                answers.append(PointAnswer(point, failed[point.cell.id]))
            else:
                alone = point.cell.id if point.sampler.adaptive else None  # its steps are its own
                guidance = point.guidance.spec() if point.guidance else None
                question = [point.sampler.spec(), guidance, point.steps, point.samples, point.start, alone]
                questions.setdefault(json.dumps(question, sort_keys=True), []).append(point)
    if answers:
        progress(sum(answer.point.work() for answer in answers), 0, len(answers))
    beside = _Beside(denoisers, wanted, progress)
    for points in questions.values():
        answers.extend(_ask(points, denoisers, wanted, beside))
        progress(sum(point.work() for point in points), 0, len(points))
    return ShardAnswer(
        cells,
        answers,
        beside.profiles,
        platform.processor() or platform.machine(),
        time.perf_counter() - begun,
        tuple(beside.unanswered),
    )


def _denoisers(
    shard: Shard, data: Mapping[Any, np.ndarray], weights: Mapping[str, bytes], progress: Progress
) -> tuple[list[CellAnswer], Callable[[Sequence[Cell]], Denoiser]]:
    """Train the cells that need it; a function that makes the denoiser of any list of the shard's cells."""
    exact = all(job.cell.training is None for job in shard.jobs)
    if exact:
        cells = [CellAnswer(job.cell, None, 0.0, [], [], None) for job in shard.jobs]
        return cells, lambda chosen: ExactDenoiser([cell.dataset for cell in chosen])

    answers, stacks = [], []
    to_train = [job for job in shard.jobs if job.train]
    if to_train:
        settings = to_train[0].cell.training
        assert settings is not None  # noqa: S101 - a shard is either exact or trained
        begun = time.perf_counter()
        seconds = [job.work() - sum(point.work() for point in job.points) for job in to_train]
        done = 0

        def tell(step: int) -> None:
            nonlocal done
            progress(sum(seconds) * (step - done) / settings.steps, 0, 0)
            if done < settings.steps / 2 <= step:
                failpoint("train.middle")
            done = step

        failpoint("train.begin")
        stack = train(
            [_member(job.cell) for job in to_train],
            [torch.as_tensor(data[data_key(job.cell)].copy()) for job in to_train],
            settings,
            tell,
        )
        share = (time.perf_counter() - begun) / len(to_train)
        for m, job in enumerate(to_train):
            answers.append(
                CellAnswer(
                    job.cell,
                    stack.errors[m],
                    share,
                    stack.losses[m].double().tolist(),
                    stack.loss_steps.tolist(),
                    None if stack.errors[m] else _to_bytes(stack, m),
                )
            )
        progress(0.0, len(to_train), 0)
        stacks.append(stack)
    known = [job.cell for job in shard.jobs if not job.train]
    if known:
        stacks.append(stack_of(known, [weights[cell.id] for cell in known]))
    stack = _joined(stacks)
    where = {member.key: m for m, member in enumerate(stack.members)}
    return answers, lambda chosen: stack.select([where[cell.id] for cell in chosen])


def _member(cell: Cell) -> Member:
    assert isinstance(cell.formulation, Trained)  # noqa: S101 - exact cells are not trained
    return Member(cell.dataset, cell.formulation, cell.schedule, cell.id)


def _to_bytes(stack: TrainedStack, m: int) -> bytes:
    named = stack.network.unpack(stack.rows[m : m + 1])
    return bytes(save({name: value[0].contiguous() for name, value in named.items()}))


def stack_of(cells: Sequence[Cell], files: Sequence[bytes]) -> TrainedStack:
    """The networks of cells that share a shape, from their safetensors files."""
    objective, network = _program(cells[0])
    loaded = [load(file) for file in files]
    rows = network.pack({name: torch.stack([one[name] for one in loaded]) for name in network.shapes})
    nothing = torch.zeros(len(cells), 0)
    members = tuple(map(_member, cells))
    return TrainedStack(objective, network, members, rows, torch.zeros(0), nothing, (None,) * len(cells))


def _program(cell: Cell) -> tuple[Objective, Network]:
    assert isinstance(cell.formulation, Trained)  # noqa: S101 - these cells have weights
    assert cell.training is not None  # noqa: S101
    return cell.formulation.objective, cell.formulation.network(cell.dataset, cell.training)


def _joined(stacks: Sequence[TrainedStack]) -> TrainedStack:
    first = stacks[0]
    members = tuple(member for stack in stacks for member in stack.members)
    rows = torch.cat([stack.rows for stack in stacks])
    nothing = torch.zeros(len(members), 0)
    errors = tuple(e for s in stacks for e in s.errors)
    return TrainedStack(first.objective, first.network, members, rows, torch.zeros(0), nothing, errors)


def start_noise(points: Sequence[Point]) -> Tensor:
    """Standard start noise ``[members, samples, dim]``: of data set and seed alone, or the normal quantiles."""
    first = points[0]
    n, dim = first.samples, first.cell.dataset.dim
    if first.start == "quantiles":
        u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        quantiles: Tensor = torch.special.ndtri(u)[None, :, None]
        return quantiles.expand(len(points), n, dim).clone()
    return _streams(points, "start").fresh()


def _streams(points: Sequence[Point], purpose: str) -> NoiseStreams:
    """One stream per data set and seed: whatever is compared starts from the same noise and is driven by the same path."""
    keys = [(purpose, _name(p.cell.dataset), p.cell.seed) for p in points]
    return NoiseStreams(keys, points[0].samples, points[0].cell.dataset.dim)


def _ask(
    points: Sequence[Point], denoisers: Callable[[Sequence[Cell]], Denoiser], wanted: Wanted, beside: _Beside
) -> list[PointAnswer]:
    """One question put to several cells at once."""
    try:
        return _answers(points, denoisers, wanted, beside)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's sampler may raise anything; the others must go on
        if len(points) > 1:  # find out whose fault it is
            return [answer for point in points for answer in _ask([point], denoisers, wanted, beside)]
        return [PointAnswer(points[0], f"sampling failed: {_reason(error)}")]


def _reason(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.name}, line {where.lineno} of {where.filename.rsplit('/', 1)[-1]})"


def _answers(
    points: Sequence[Point], denoisers: Callable[[Sequence[Cell]], Denoiser], wanted: Wanted, beside: _Beside
) -> list[PointAnswer]:
    begun = time.perf_counter()
    levels = levels_of([p.schedule for p in points], [p.grid for p in points], points[0].steps)
    path = points[0].sampler.path(levels)
    counting = CountingDenoiser(denoisers([p.cell for p in points]))
    kept = [m for m, point in enumerate(points) if point.id in wanted.trajectories]
    asked = (len(points), points[0].samples, points[0].cell.dataset.dim)
    paths = []
    for x in states(points, counting, levels):
        if x.shape != asked:
            raise ValueError(f"the sampler gave samples of shape {list(x.shape)}, expected {list(asked)}")
        if kept:
            paths.append(_thin(x, kept))
    seconds = (time.perf_counter() - begun) / len(points)
    answers = []
    for m, point in enumerate(points):
        trajectory = None
        if m in kept:
            trajectory = (np.stack([states[kept.index(m)] for states in paths]), _level_table(path, m))
        answer = _measured(point, x[m], counting.nfe, seconds, wanted, trajectory)
        if answer.error is None:
            answer.metrics |= beside(point)
        answers.append(answer)
    return answers


def states(points: Sequence[Point], denoiser: Denoiser, levels: Sequence[Level]) -> Iterator[Tensor]:
    """The state ``[members, samples, dim]`` at each level, from start noise to samples, of points that ask the same."""
    sampler = points[0].sampler
    x = _start(points, levels)
    yield x
    yield from sampler.trajectory(_guided(points, denoiser), x, sampler.path(levels), _streams(points, "noise"))


def _guided(points: Sequence[Point], denoiser: Denoiser) -> Denoiser:
    """The denoiser as the guidance of these points, which is one and the same, has it."""
    guidance = points[0].guidance
    return Guided(guidance, denoiser, tuple(point.cell.dataset for point in points)) if guidance else denoiser


def _start(points: Sequence[Point], levels: Sequence[Level]) -> Tensor:
    """The first states ``[members, samples, dim]``: where the sampler says, or the formulation, or the schedule's noise."""
    begin = Begin(
        start_noise(points),
        _spread(points, levels[0]),
        levels,
        tuple(point.cell.dataset for point in points),
        lambda: torch.stack([_clean(point) for point in points]),
    )
    asked = points[0].sampler.start(begin)
    if asked is not None:
        return asked
    x = begin.noise * begin.spread[:, None, None]
    for m, point in enumerate(points):
        own = point.cell.formulation.start(begin.of_member(m))
        if own is not None:
            x[m] = own
    return x


def _clean(point: Point) -> Tensor:
    """Data that are no part of any training set, ``[samples, dim]``: of data set and seed alone."""
    dataset = point.cell.dataset
    return dataset.sample(point.samples, stream("clean", _name(dataset), point.cell.seed))


class _Beside:
    """What stands beside the metrics of a point and belongs to its cell: found once, told with every point.

    Of exact denoisers, each metric at the limit of many steps; of every cell, the metrics of its denoiser. One of these that
    cannot be measured is NaN and told in `unanswered`: the samples, and what else is known of them, are sound.
    """

    def __init__(self, denoisers: Callable[[Sequence[Cell]], Denoiser], wanted: Wanted, progress: Progress) -> None:
        self._denoisers, self._wanted, self._progress = denoisers, wanted, progress
        self._limits: dict[str, dict[str, float]] = {}
        self._scores: dict[tuple[str, str], tuple[float, float]] = {}  # by cell and metric: value and floor
        self.profiles: dict[str, tuple[list[float], list[float]]] = {}  # by cell, of the first such metric: nsr, errors
        self.unanswered: list[str] = []
        self._asked: tuple[str, Denoiser] | None = None

    def __call__(self, point: Point) -> dict[str, float]:
        cell = point.cell
        found: dict[str, float] = {}
        if isinstance(cell.formulation, Exact) and point.has_limit:
            if point.flow not in self._limits:
                self._limits[point.flow] = self._limit(point)
                self._progress(point.limit_work(), 0, 0)
            found |= self._limits[point.flow]
        for metric in self._wanted.metrics:
            if isinstance(metric, DenoiserMetric) and point.refuses(metric) is None:
                name = metric.column
                if (cell.id, name) not in self._scores:
                    self._scores[cell.id, name] = self._scored(metric, cell)
                value, floor = self._scores[cell.id, name]
                found |= {name: value, f"{name}_floor": floor, name + VERSION: metric.version}
        return found

    def _scored(self, metric: DenoiserMetric, cell: Cell) -> tuple[float, float]:
        try:
            value, floor = self._evaluated(metric, cell)
            if not math.isfinite(value):
                raise ValueError(f"found {value}, which is no finite number")  # noqa: TRY301 - told as any other reason
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's metric may raise anything
            self.unanswered.append(f"metric {metric.column} of {cell}: {_reason(error)}")
            return math.nan, math.nan
        return value, floor

    def _evaluated(self, metric: DenoiserMetric, cell: Cell) -> tuple[float, float]:
        if self._asked is None or self._asked[0] != cell.id:
            self._asked = cell.id, self._denoisers([cell])  # the same for all metrics, which share work by it
        denoiser, floor = self._asked[1], metric.floor_on(cell.dataset, cell.schedule)
        if not isinstance(metric, ProfileMetric):
            return metric.evaluate_denoiser(denoiser, cell.dataset, cell.schedule), floor
        errors = metric.profile(denoiser, cell.dataset, cell.schedule)
        self.profiles.setdefault(cell.id, (metric.levels(cell.schedule).tolist(), errors.tolist()))
        return float(errors.mean()), floor

    def _limit(self, point: Point) -> dict[str, float]:
        schedule = point.schedule
        start = start_noise([point]) * schedule.prior_std
        denoiser = _guided([point], self._denoisers([point.cell]))
        try:
            samples = flow_limit(denoiser, start, schedule, point.cell.dataset.std)[0]
        except FlowLost:  # the answer itself is sound; its parts stay unknown, which the split tells as NaN
            return {}
        return {
            f"{metric.column}_{LIMIT}": metric.evaluate(samples, point.target)
            for metric in self._wanted.metrics
            if metric.of == "samples" and point.refuses(metric) is None
        }


def _spread(points: Sequence[Point], first: Level) -> Tensor:
    """Standard deviation of the start noise of each point: that of the grid's first level, or 1 if variance is preserved."""
    kept = torch.tensor([point.schedule.variance_preserving for point in points])
    return torch.where(kept, torch.ones_like(first.sigma), first.sigma)


def _thin(x: Tensor, members: Sequence[int]) -> np.ndarray:
    return x[list(members), :TRAJECTORY_SAMPLES].float().numpy()


def _level_table(levels: Sequence[Level], m: int) -> np.ndarray:
    return np.array([[float(getattr(level, part)[m]) for level in levels] for part in ("time", "alpha", "sigma")])


def _measured(
    point: Point, x: Tensor, nfe: int, seconds: float, wanted: Wanted, trajectory: tuple[np.ndarray, np.ndarray] | None
) -> PointAnswer:
    bad = int((~torch.isfinite(x)).any(-1).sum())
    if bad:
        return PointAnswer(point, f"sampling diverged: {bad} of {len(x)} samples are not finite", nfe, seconds)
    metrics: dict[str, float] = {}
    for metric in wanted.metrics:
        if metric.of == "samples" and point.refuses(metric) is None:
            metrics[metric.column] = metric.evaluate(x, point.target)
            metrics[f"{metric.column}_floor"] = metric.floor(point.target, len(x))
            metrics[metric.column + VERSION] = metric.version
        if isinstance(metric, PairedMetric) and point.refuses(metric) is None:
            dataset = point.cell.dataset
            metrics[metric.column] = metric.evaluate_pairs(x, _clean(point))
            metrics[f"{metric.column}_floor"] = metric.floor_of_pairs(
                point.cell.formulation.least_error(dataset), dataset.dim
            )
            metrics[metric.column + VERSION] = metric.version
    samples = x.float().numpy() if wanted.samples else None
    return PointAnswer(point, None, nfe, seconds, metrics, samples, trajectory)
