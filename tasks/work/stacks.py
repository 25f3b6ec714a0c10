"""The denoisers of a shard: networks trained together, networks from their stored weights, exact answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from diffusion.formulations import Trained
from diffusion.models import Denoiser, ExactDenoiser
from diffusion.networks import Network
from diffusion.objectives import Objective
from diffusion.training import Member, TrainedStack, train
from tasks.failpoints import failpoint
from tasks.plan import Cell, Shard
from tasks.work.answers import CellAnswer, Progress
from tasks.work.data import data_key


def denoisers_of(
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
            [member_of(job.cell) for job in to_train],
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
                    None if stack.errors[m] else to_bytes(stack, m),
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
    return Member(cell.dataset, cell.formulation, cell.schedule, cell.id)


def _program(cell: Cell) -> tuple[Objective, Network]:
    assert isinstance(cell.formulation, Trained)  # noqa: S101 - these cells have weights
    assert cell.training is not None  # noqa: S101
    return cell.formulation.objective, cell.formulation.network(cell.dataset, cell.training)


def to_bytes(stack: TrainedStack, m: int) -> bytes:
    """The weights of one member as a safetensors file."""
    named = stack.network.unpack(stack.rows[m : m + 1])
    return bytes(save({name: value[0].contiguous() for name, value in named.items()}))


def _joined(stacks: Sequence[TrainedStack]) -> TrainedStack:
    first = stacks[0]
    members = tuple(member for stack in stacks for member in stack.members)
    rows = torch.cat([stack.rows for stack in stacks])
    nothing = torch.zeros(len(members), 0)
    errors = tuple(e for s in stacks for e in s.errors)
    return TrainedStack(first.objective, first.network, members, rows, torch.zeros(0), nothing, errors)
