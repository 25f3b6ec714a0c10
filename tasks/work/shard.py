"""The two stages of a shard: train its stack; ask every question of it and measure the answers.

Between them lie the weights, as the bytes that the store keeps: what is swept is what is stored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diffusion.devices import HOST
from diffusion.models import counted
from diffusion.samplers import Level, levels_of
from diffusion.training.placement import Placement, filled
from tasks.failpoints import failpoint
from tasks.plan import Point, Shard
from tasks.work.answers import CellAnswer, PointAnswer, Progress, Requests, SweepAnswer, TrainingAnswer, reason_of
from tasks.work.data import DataAnswer
from tasks.work.measuring import ModelMeasurements, measured
from tasks.work.placing import Bucket, device_of_worker, label, with_room
from tasks.work.sampling import states
from tasks.work.stacks import Models, models_of, train_jobs

TRAJECTORY_SAMPLES = 2000  # of a kept trajectory: enough for its histograms


def _unheard(_seconds: float, _cells: int, _points: int, _doing: str = "") -> None:
    """Nobody follows the work."""


def train_shard(shard: Shard, data: DataAnswer, progress: Progress = _unheard, device: str = "cpu") -> TrainingAnswer:
    """Train the cells of a shard that are to be trained; the points of a cell that diverges, or has
    no data, have failed with it.

    Args:
        shard: cells that share a network's shape.
        data: training sets by their `data_key`, or why there is none.
        progress: is called with the work as it is done.
        device: `cpu`, or `cuda` for the GPU that this worker was given.
    """
    torch.set_num_threads(1)
    place = device_of_worker(device)
    begun = time.perf_counter()
    failpoint("train.begin")
    jobs = [job for job in shard.jobs if job.train]
    cells, bucket = train_jobs(jobs, data, progress, Placement.on(place, len(jobs)))
    where = label(place, [bucket])
    for answer in cells:
        answer.device = where
    failed = {answer.cell.id: answer.error for answer in cells if answer.error}
    points = [PointAnswer(point, failed[point.cell.id]) for point in shard.questions if point.cell.id in failed]
    if points:
        metrics = {job.cell.id: job.metrics for job in shard.jobs}
        lost = sum(
            point.work() + point.measuring_work(metrics[point.cell.id]) for point in (answer.point for answer in points)
        )
        progress(lost, 0, len(points))
    failpoint("train.end")
    return TrainingAnswer(cells, points, where, time.perf_counter() - begun)


def sweep_shard(
    shard: Shard,
    weights: Mapping[str, bytes],
    requests: Requests,
    progress: Progress = _unheard,
    device: str = "cpu",
) -> SweepAnswer:
    """Answer every question of a shard and measure the answers. A question without an answer costs
    no other one.

    Args:
        shard: cells that share a network's shape, or exact ones of one target.
        weights: safetensors files by cell id; of exact cells there are none.
        requests: what is wanted of each point.
        progress: is called with the work as it is done.
        device: `cpu`, or `cuda` for the GPU that this worker was given.
    """
    begun = time.perf_counter()
    return swept(shard, list(sweep_parts(shard, weights, requests, progress, device)), time.perf_counter() - begun)


def sweep_parts(
    shard: Shard,
    weights: Mapping[str, bytes],
    requests: Requests,
    progress: Progress = _unheard,
    device: str = "cpu",
) -> Iterator[SweepAnswer]:
    """The same, one question after the other, each with all cells that it is put to: those of
    `together`.
    """
    torch.set_num_threads(1)
    place = device_of_worker(device)
    failpoint("sweep.begin")
    models = models_of([job.cell for job in shard.jobs], weights, place)
    measurements = ModelMeasurements(shard.questions, models, requests, progress)
    profiles: set[str] = set()
    told = 0
    for points in together(shard):
        first = points[0]
        progress(0.0, 0, 0, f"{first.labels['sampler']}, {first.steps} steps, on {place.type}")
        answers, bucket = answered(points, models, requests, measurements, placed(points, place))
        progress(sum(point.work() + point.measuring_work(requests.metrics) for point in points), 0, len(points))
        new = {cell: profile for cell, profile in measurements.profiles.items() if cell not in profiles}
        yield SweepAnswer([], answers, new, label(place, [bucket]), 0.0, tuple(measurements.unanswered[told:]))
        profiles |= new.keys()
        told = len(measurements.unanswered)
    failpoint("sweep.end")


def together(shard: Shard) -> list[list[Point]]:
    """The questions of a shard, each with all points that ask it."""
    found: dict[str, list[Point]] = {}
    for point in shard.questions:
        alone = point.cell.id if point.sampler.adaptive else None  # its steps are its own
        guidance = point.guidance.spec() if point.guidance else None
        question = [point.sampler.spec(), guidance, point.steps, point.samples, point.start, alone]
        found.setdefault(json.dumps(question, sort_keys=True), []).append(point)
    return list(found.values())


def swept(shard: Shard, parts: Sequence[SweepAnswer], seconds: float) -> SweepAnswer:
    """The answer that its parts make."""
    return SweepAnswer(
        [CellAnswer(job.cell, None, 0.0, [], [], None) for job in shard.jobs if job.cell.training is None],
        [answer for part in parts for answer in part.points],
        {cell: profile for part in reversed(parts) for cell, profile in part.profiles.items()},  # the first of each
        "; ".join(dict.fromkeys(part.device for part in parts if part.device)),
        seconds,
        tuple(dict.fromkeys(reason for part in parts for reason in part.unanswered)),
    )


def left_to_sweep(shard: Shard, trained: TrainingAnswer) -> Shard | None:
    """What of a shard is to be asked after its training, without the points that failed with it;
    None if nothing is left.
    """
    failed = {answer.point.cell.id for answer in trained.points}
    jobs = tuple(job for job in shard.jobs if job.cell.id not in failed)
    return Shard(jobs) if jobs else None


def lost_training(shard: Shard, reason: str) -> TrainingAnswer:
    """The answer of a worker that ended without one: no cell is trained, and their points have
    failed.
    """
    points = [PointAnswer(point, reason) for job in shard.jobs if job.train for point in job.points]
    return TrainingAnswer([], points, "", 0.0)


def lost_sweep(shard: Shard, reason: str) -> SweepAnswer:
    """The answer of a worker that ended without one: every point has failed."""
    return SweepAnswer([], [PointAnswer(point, reason) for point in shard.questions], {}, "", 0.0)


def placed(points: Sequence[Point], device: torch.device) -> Placement:
    """Where a question is answered: trained networks in a bucket for as many as it is put to. An
    adaptive sampler, whose steps are its own, and exact answers need none.
    """
    place = Placement.on(device, len(points))
    first = points[0]
    return replace(place, bucket=None) if first.sampler.adaptive or first.cell.training is None else place


def answered(
    points: Sequence[Point],
    models: Models,
    requests: Requests,
    measurements: ModelMeasurements,
    place: Placement,
) -> tuple[list[PointAnswer], Bucket]:
    """One question put to several cells at once; the answers, and the bucket that was used."""
    try:
        return with_room(lambda room: _in_buckets(points, models, requests, measurements, room), place)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's sampler may raise anything; the others must go on
        if place.bucket and isinstance(error, torch.OutOfMemoryError):
            return [PointAnswer(point, f"sampling failed: {error}") for point in points], Bucket(place.bucket)
        if len(points) > 1:  # find out whose fault it is
            alone = [answered([point], models, requests, measurements, place) for point in points]
            return [answer for answers, _ in alone for answer in answers], alone[0][1]
        return [PointAnswer(points[0], f"sampling failed: {reason_of(error)}")], Bucket(place.bucket)


def _in_buckets(
    points: Sequence[Point],
    models: Models,
    requests: Requests,
    measurements: ModelMeasurements,
    place: Placement,
) -> list[PointAnswer]:
    size = place.bucket or len(points)
    parts = [points[first : first + size] for first in range(0, len(points), size)]
    return [answer for part in parts for answer in _answered_together(part, models, requests, measurements, place)]


def _answered_together(
    points: Sequence[Point],
    models: Models,
    requests: Requests,
    measurements: ModelMeasurements,
    place: Placement,
) -> list[PointAnswer]:
    begun = time.perf_counter()
    stack = filled(points, place.bucket)
    levels = levels_of([p.schedule for p in stack], [p.grid for p in stack], points[0].steps)
    path = points[0].sampler.path(levels)
    model, counter = counted(models([p.cell for p in stack]))
    kept = [m for m, point in enumerate(points) if point.id in requests.trajectories]
    paths = []
    for x in states(stack, model, levels, place.device):
        failpoint("sweep.memory", torch.OutOfMemoryError)
        if kept:
            paths.append(_thin(x, kept))
    x = x.to(HOST)  # where they are measured
    seconds = (time.perf_counter() - begun) / len(points)
    answers = []
    for m, point in enumerate(points):
        trajectory = None
        if m in kept:
            trajectory = (np.stack([kept_states[kept.index(m)] for kept_states in paths]), _level_table(path, m))
        answer = measured(point, x[m], counter.nfe, seconds, requests, trajectory)
        if answer.error is None:
            answer.metrics |= measurements(point)
        answers.append(answer)
    return answers


def _thin(x: Tensor, members: Sequence[int]) -> np.ndarray:
    return x[list(members), :TRAJECTORY_SAMPLES].float().cpu().numpy()


def _level_table(levels: Sequence[Level], m: int) -> np.ndarray:
    return np.array([[float(getattr(level, part)[m]) for level in levels] for part in ("time", "alpha", "sigma")])
