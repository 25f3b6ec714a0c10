"""A shard whose worker ended without an answer, done again apart until the guilty point, or the
guilty training, is found. It alone has failed; what the others answer is kept.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from tasks.plan import Job, Shard
from tasks.work.answers import CellAnswer, PointAnswer, Progress, Requests, SweepAnswer, TrainingAnswer
from tasks.work.apart import Apart
from tasks.work.child import SweepPart, TrainingPart
from tasks.work.shard import swept, together

_LEAST_SHARE = 0.1
ENOUGH = 2.0
"""After so many times the shard's limit no process is started any more."""


def train_apart(shard: Shard, limit: float, progress: Progress, device: str) -> TrainingAnswer:
    """Train the cells of a shard that are to be trained: together, and in halves if that ends
    without an answer, down to one cell.

    Args:
        shard: cells that share a network's shape.
        limit: the seconds that the shard may take; a part has the same share of it as of the work,
            and a tenth at least.
        progress: is called with the work as it is done.
        device: `cpu`, or `cuda` for the GPU that this worker was given.
    """
    begun = time.perf_counter()
    whole = [job for job in shard.jobs if job.train]
    left, parts = deque([whole]), list[TrainingAnswer]()
    with Apart() as apart:
        while left:
            jobs = left.popleft()
            if late := _late(begun, limit):
                parts.append(_untrained(jobs, late))
                continue
            share = limit * max(_LEAST_SHARE, _training_work(jobs) / max(_training_work(whole), 1e-9))
            heard: list[TrainingAnswer] = []
            reason = apart.do(TrainingPart(Shard(tuple(jobs)), device), lambda s=share: s, progress, heard.append)  # type: ignore[misc, arg-type]
            if heard:
                parts += heard
            elif len(jobs) == 1:
                parts.append(_untrained(jobs, reason or ""))
            else:
                left.extend([jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]])
    return TrainingAnswer(
        [cell for part in parts for cell in part.cells],
        [point for part in parts for point in part.points],
        "; ".join(dict.fromkeys(part.device for part in parts if part.device)),
        time.perf_counter() - begun,
    )


def sweep_apart(
    shard: Shard, weights: Mapping[str, bytes], requests: Requests, limit: float, progress: Progress, device: str
) -> SweepAnswer:
    """Ask every question of a shard. One that ends its process is put aside while the others are
    asked, and then in halves, by cells and by points, down to one point.

    Args:
        shard: cells that share a network's shape, or exact ones of one target.
        weights: safetensors files by cell id; of exact cells there are none.
        requests: what is wanted of each point.
        limit: the seconds that the shard may take; a question has the same share of it as of the
            work, and a tenth at least.
        progress: is called with the work as it is done.
        device: `cpu`, or `cuda` for the GPU that this worker was given.
    """
    begun = time.perf_counter()
    whole = max(shard.work(), 1e-9)
    left, parts = deque([shard.asking(shard.questions)]), list[SweepAnswer]()

    def fail(part: Shard, reason: str) -> None:
        parts.append(SweepAnswer([], [PointAnswer(point, reason) for point in part.questions], {}, "", 0.0))

    with Apart() as apart:
        while left:
            part = left.popleft()
            if late := _late(begun, limit):
                fail(part, late)
                continue
            questions = [part.asking(points) for points in together(part)]
            asked = deque(questions)

            def heard(answer: SweepAnswer, asked: deque[Shard] = asked) -> None:
                parts.append(answer)
                asked.popleft()

            def seconds(asked: deque[Shard] = asked) -> float:
                return limit * max(_LEAST_SHARE, asked[0].work() / whole if asked else 0.0)

            files = {job.cell.id: weights[job.cell.id] for job in part.jobs if job.cell.training}
            reason = apart.do(SweepPart(part, files, requests, device), seconds, progress, heard)  # type: ignore[arg-type]
            if not asked:  # whatever happened after its last answer
                continue
            guilty = asked.popleft()
            if asked:
                left.appendleft(part.asking([point for question in asked for point in question.questions]))
            if halves := guilty.halves():
                left.extend(halves)
            else:
                fail(guilty, reason or "")
    return swept(shard, parts, time.perf_counter() - begun)


def _late(begun: float, limit: float) -> str:
    """Why nothing is tried any more, if that is so."""
    taken = time.perf_counter() - begun
    if taken <= ENOUGH * limit:
        return ""
    return f"not tried: other parts of its shard ended without an answer for {taken:.0f} s, the shard's limit is {limit:.0f} s"


def _training_work(jobs: list[Job]) -> float:
    return sum(job.training_work() for job in jobs)


def _untrained(jobs: list[Job], reason: str) -> TrainingAnswer:
    """The answer for cells whose training has none."""
    return TrainingAnswer(
        [CellAnswer(job.cell, reason, 0.0, [], [], None) for job in jobs],
        [PointAnswer(point, reason) for job in jobs for point in job.points],
        "",
        0.0,
    )
