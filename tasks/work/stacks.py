"""The models of a shard: networks trained together, networks from their stored weights, exact
answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from safetensors.numpy import save  # the bytes of its sibling for torch, in a quarter of the time
from safetensors.torch import load
from torch import Tensor

from diffusion.devices import HOST
from diffusion.formulations import Trained, Untrained
from diffusion.models import ExactDenoiser
from diffusion.networks import Network
from diffusion.objectives import Objective
from diffusion.training import Member, TrainedStack, train
from diffusion.training.placement import Placement
from tasks.failpoints import failpoint
from tasks.plan import Cell, Job
from tasks.work.answers import CellAnswer, Progress
from tasks.work.data import DataAnswer, data_key
from tasks.work.placing import Bucket, with_room

Models = Callable[[Sequence[Cell]], object]
"""Makes the model of any list of a shard's cells, to be asked together; what it can be asked is its
type.
"""


def models_of(cells: Sequence[Cell], weights: Mapping[str, bytes], place: torch.device) -> Models:
    """The models, on a device, of cells that are all exact, all of one formulation that needs no
    training, or all networks of one shape with safetensors files by cell id.
    """
    named = cells[0].formulation
    if isinstance(named, Untrained):
        return lambda chosen: named.model_of([cell.dataset.working for cell in chosen])
    if all(cell.training is None for cell in cells):
        return lambda chosen: ExactDenoiser([cell.dataset.working for cell in chosen])
    stack = stack_of(cells, [weights[cell.id] for cell in cells]).to(place)
    where = {member.key: m for m, member in enumerate(stack.members)}
    return lambda chosen: stack.select([where[cell.id] for cell in chosen]).model


def train_jobs(
    jobs: Sequence[Job], data: DataAnswer, progress: Progress, place: Placement
) -> tuple[list[CellAnswer], Bucket]:
    """Train the cells of jobs that share a network's shape as one stack, where they are placed;
    cells without data have failed. The answers, and the bucket that was used.
    """
    found = [(job, data[data_key(job.cell)]) for job in jobs]
    lost = [
        CellAnswer(job.cell, f"generating the data failed: {reason}", 0.0, [], [], None)
        for job, reason in found
        if isinstance(reason, str)
    ]
    progress(sum(job.training_work() for job, one in found if isinstance(one, str)), len(lost), 0)
    with_data = [(job, one) for job, one in found if not isinstance(one, str)]
    answers, bucket = _trained(with_data, progress, place) if with_data else ([], Bucket())
    return [*answers, *lost], bucket


def _trained(
    given: Sequence[tuple[Job, np.ndarray]], progress: Progress, place: Placement
) -> tuple[list[CellAnswer], Bucket]:
    jobs = [job for job, _ in given]
    settings = jobs[0].cell.training
    assert settings is not None  # noqa: S101 - asked of trained cells only
    begun = time.perf_counter()
    seconds = sum(job.training_work() for job in jobs)
    done = 0

    def tell(step: int, losses: Tensor) -> None:
        nonlocal done
        loss = f", loss {float(losses.mean()):.2g}" if place.device == HOST else ""  # elsewhere to look is to wait
        doing = f"step {step} of {settings.steps}{loss}, on {place.device.type}"
        before, done = done, max(done, step)  # a stack that is trained again has been told of
        progress(seconds * (done - before) / settings.steps, 0, 0, doing)
        if before < settings.steps / 2 <= done:
            failpoint("train.middle")
        failpoint("train.memory", torch.OutOfMemoryError)

    members = [member_of(job.cell) for job in jobs]
    copies = {id(data): torch.as_tensor(data.copy()) for _, data in given}  # what comes from Ray is read-only
    sets = [copies[id(data)] for _, data in given]
    try:
        stack, bucket = with_room(lambda smaller: train(members, sets, settings, tell, smaller), place)
    except torch.OutOfMemoryError as error:
        reason, share = f"training failed: {error}", (time.perf_counter() - begun) / len(jobs)
        progress(seconds * (1 - done / settings.steps), len(jobs), 0)
        return [CellAnswer(job.cell, reason, share, [], [], None) for job in jobs], Bucket(place.bucket)
    share = (time.perf_counter() - begun) / len(jobs)
    progress(0.0, len(jobs), 0)
    answers = [
        CellAnswer(
            job.cell,
            stack.errors[m],
            share,
            stack.losses[m].double().tolist(),
            stack.loss_steps.tolist(),
            None if stack.errors[m] else to_bytes(stack, m),
        )
        for m, job in enumerate(jobs)
    ]
    return answers, bucket


def stack_of(cells: Sequence[Cell], files: Sequence[bytes]) -> TrainedStack:
    """The networks of cells that share a shape, from their safetensors files."""
    objective, network = _program(cells[0])
    loaded = [load(file) for file in files]
    rows = network.pack({name: torch.stack([one[name] for one in loaded]) for name in network.shapes})
    nothing = torch.zeros(len(cells), 0)
    members = tuple(map(member_of, cells))
    return TrainedStack(objective, network, members, rows, torch.zeros(0), nothing, (None,) * len(cells))


def member_of(cell: Cell) -> Member:
    """The cell as the training loop knows it; its id names its random streams."""
    assert isinstance(cell.formulation, Trained)  # noqa: S101 - exact cells are not trained
    return Member(cell.dataset.working, cell.formulation, cell.schedule, cell.id)


def _program(cell: Cell) -> tuple[Objective, Network]:
    assert isinstance(cell.formulation, Trained)  # noqa: S101 - these cells have weights
    assert cell.training is not None  # noqa: S101
    return cell.formulation.objective, cell.formulation.network(cell.dataset.working, cell.training)


def to_bytes(stack: TrainedStack, m: int) -> bytes:
    """The weights of one member as a safetensors file."""
    named = stack.network.unpack(stack.rows[m : m + 1].to(HOST))
    return bytes(save({name: value[0].contiguous().numpy() for name, value in named.items()}))
