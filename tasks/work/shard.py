"""What one worker does with one shard: train the stack, ask every question, measure the answers."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.models import CountingDenoiser, Denoiser
from diffusion.samplers import Level, levels_of
from tasks.plan import Cell, Point, Shard
from tasks.work.answers import PointAnswer, Progress, Requests, ShardAnswer, reason_of
from tasks.work.measuring import ModelMeasurements, measured
from tasks.work.sampling import states
from tasks.work.stacks import denoisers_of

TRAJECTORY_SAMPLES = 2000  # of a kept trajectory: enough for its histograms


def run_shard(
    shard: Shard,
    data: Mapping[Any, np.ndarray],
    weights: Mapping[str, bytes],
    requests: Requests,
    progress: Progress = lambda _seconds, _cells, _points: None,
) -> ShardAnswer:
    """Train what is to be trained and answer every question of the shard.

    `data` holds training sets by their `data_key`; `weights` the safetensors of cells trained before.
    """
    torch.set_num_threads(1)
    begun = time.perf_counter()
    cells, denoisers = denoisers_of(shard, data, weights, progress)
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
    measurements = ModelMeasurements(denoisers, requests, progress)
    for points in questions.values():
        answers.extend(_answered(points, denoisers, requests, measurements))
        progress(sum(point.work() for point in points), 0, len(points))
    return ShardAnswer(
        cells,
        answers,
        measurements.profiles,
        platform.processor() or platform.machine(),
        time.perf_counter() - begun,
        tuple(measurements.unanswered),
    )


def _answered(
    points: Sequence[Point],
    denoisers: Callable[[Sequence[Cell]], Denoiser],
    requests: Requests,
    measurements: ModelMeasurements,
) -> list[PointAnswer]:
    """One question put to several cells at once."""
    try:
        return _answered_together(points, denoisers, requests, measurements)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's sampler may raise anything; the others must go on
        if len(points) > 1:  # find out whose fault it is
            return [answer for point in points for answer in _answered([point], denoisers, requests, measurements)]
        return [PointAnswer(points[0], f"sampling failed: {reason_of(error)}")]


def _answered_together(
    points: Sequence[Point],
    denoisers: Callable[[Sequence[Cell]], Denoiser],
    requests: Requests,
    measurements: ModelMeasurements,
) -> list[PointAnswer]:
    begun = time.perf_counter()
    levels = levels_of([p.schedule for p in points], [p.grid for p in points], points[0].steps)
    path = points[0].sampler.path(levels)
    counting = CountingDenoiser(denoisers([p.cell for p in points]))
    kept = [m for m, point in enumerate(points) if point.id in requests.trajectories]
    expected = (len(points), points[0].samples, points[0].cell.dataset.dim)
    paths = []
    for x in states(points, counting, levels):
        if x.shape != expected:
            raise ValueError(f"the sampler gave samples of shape {list(x.shape)}, expected {list(expected)}")
        if kept:
            paths.append(_thin(x, kept))
    seconds = (time.perf_counter() - begun) / len(points)
    answers = []
    for m, point in enumerate(points):
        trajectory = None
        if m in kept:
            trajectory = (np.stack([kept_states[kept.index(m)] for kept_states in paths]), _level_table(path, m))
        answer = measured(point, x[m], counting.nfe, seconds, requests, trajectory)
        if answer.error is None:
            answer.metrics |= measurements(point)
        answers.append(answer)
    return answers


def _thin(x: Tensor, members: Sequence[int]) -> np.ndarray:
    return x[list(members), :TRAJECTORY_SAMPLES].float().numpy()


def _level_table(levels: Sequence[Level], m: int) -> np.ndarray:
    return np.array([[float(getattr(level, part)[m]) for level in levels] for part in ("time", "alpha", "sigma")])
