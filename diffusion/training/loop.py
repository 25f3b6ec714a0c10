r"""One loop that trains a whole stack of models.

Every member has its own formulation, schedule, data and random streams; they share the network's
shape and the settings. All that mixes numbers within a member (loss, gradient norm, divergence
check) is computed per member, so that a member's weights are the same, to the last bit, whatever it
is stacked with, and a member that diverges stays alone with its NaN.

What is minimised is an *objective* that all members share (`diffusion.objectives`); what is random
about it is drawn from each member's own stream, a block of steps at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion.devices import HOST, to_device
from diffusion.networks import FEATURES, Network
from diffusion.objectives import Objective
from diffusion.objectives.base import OnNoiseLevels, trainable
from diffusion.objectives.member import Member
from diffusion.objectives.recipe import Recipe
from diffusion.objectives.settings import Training
from diffusion.randomness import stream
from diffusion.training.stack import TrainedStack

LOSS_BINS = 64
_CLIP = 1.0
_DIVERGED = 10.0


def _learning_rate(settings: Training, step: int) -> float:
    warm_up = min(1.0, (step + 1) / max(1.0, settings.steps / 100))
    return settings.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def train(
    members: Sequence[Member],
    data: Sequence[Tensor],
    settings: Training,
    progress: Callable[[int], None] = lambda _: None,
    device: torch.device = HOST,
) -> TrainedStack:
    """Train all members together; ``data[m]`` is member m's training set ``[n, dim]`` float64.

    `progress` is called with the number of finished steps, about `LOSS_BINS` times. A member whose
    loss is not finite, or ends ten times above that of a network that answers zero, is reported in
    `TrainedStack.errors`; the others are unharmed.

    Everything random is drawn on the host, whatever the `device` on which the networks are trained
    and stay.

    Raises:
        ValueError: the members' data differ in dimension.
    """
    objective, network = _common(members, settings)
    fresh = network.initialise([stream("init", member.key) for member in members])
    rows = to_device(fresh, device).requires_grad_()
    average = rows.detach().clone()
    balance = _Balance(members, objective, device)
    fused = device.type != "meta"  # which has shapes alone
    optimiser = torch.optim.Adam([rows, *balance.rows], lr=settings.learning_rate, betas=(0.9, 0.99), fused=fused)
    generators = [stream("train", member.key) for member in members]
    longest = math.exp(-1 / (settings.ema * settings.steps))

    bins = min(LOSS_BINS, settings.steps)
    edges = [round(i * settings.steps / bins) for i in range(bins + 1)]
    losses = torch.zeros(len(members), bins, device=device)
    zero_loss = torch.zeros(len(members), device=device)
    for b, (first, end) in enumerate(itertools.pairwise(edges)):
        drawn = [
            objective.batches(member, samples, end - first, settings.batch, generator)
            for member, samples, generator in zip(members, data, generators, strict=True)
        ]
        batches = [to_device(torch.stack(parts, dim=1), device) for parts in zip(*drawn, strict=True)]
        for step in range(first, end):
            batch = [part[step - first] for part in batches]
            example_losses = objective.losses(network, rows, *batch)
            loss = example_losses.mean(1)
            optimiser.zero_grad()
            balance(example_losses, batch).sum().backward()
            _clip_each(rows)
            optimiser.param_groups[0]["lr"] = _learning_rate(settings, step)
            optimiser.step()
            with torch.no_grad():
                average.lerp_(rows, 1 - min(longest, (1 + step) / (10 + step)))
                losses[:, b] += loss.detach() / (end - first)
        zero_loss = objective.zero_loss(*batches)
        progress(end)

    losses, zero_loss = losses.to(HOST), zero_loss.to(HOST)
    return TrainedStack(
        objective,
        network,
        tuple(members),
        average,
        torch.tensor(edges[1:]),
        losses,
        tuple(_verdict(losses[m], float(zero_loss[m]), edges[1:]) for m in range(len(members))),
    )


def _common(members: Sequence[Member], settings: Training) -> tuple[Objective, Network]:
    """The objective and the network that all members of a stack share. Raises ValueError if they do
    not.
    """
    dims = {member.dataset.dim for member in members}
    if len(dims) != 1:
        raise ValueError(f"members of one stack need data of one dimension, found {sorted(dims)}")
    programs = {_program(member, settings) for member in members}
    if len(programs) != 1:
        raise ValueError(f"members of one stack need one objective and one network, found {programs}")
    return programs.pop()


def _program(member: Member, settings: Training) -> tuple[Objective, Network]:
    formulation = trainable(member)
    return formulation.objective, formulation.network(member.dataset, settings)


class _Balance:
    """The learned uncertainty u(nsr) of members whose weighting asks for it: ``E[loss / e^u + u]``,
    u linear in the features.

    Members without it see their own loss, bit for bit, whoever is in the stack.
    """

    def __init__(self, members: Sequence[Member], objective: Objective, device: torch.device = HOST) -> None:
        recipes = [member.formulation for member in members]
        self._learned = [m for m, one in enumerate(recipes) if isinstance(one, Recipe) and one.weighting.learned]
        self._objective = objective
        # two columns, because batched products of a single one take another path
        self.rows = [torch.zeros(1, FEATURES, 2, device=device, requires_grad=True) for _ in self._learned]

    def __call__(self, example_losses: Tensor, batch: Sequence[Tensor]) -> Tensor:
        """Loss of each member ``[members]`` from weighted losses ``[members, batch]``."""
        if not self._learned:
            return example_losses.mean(1)
        if not isinstance(self._objective, OnNoiseLevels):
            raise TypeError(f"{type(self._objective).__name__} has no noise levels to balance")
        conditions = self._objective.noise_features(*batch)[..., :FEATURES]
        losses = list(example_losses.mean(1))
        for m, row in zip(self._learned, self.rows, strict=True):
            u = torch.bmm(conditions[m : m + 1], row)[0, :, 0]
            losses[m] = (example_losses[m].clone() / torch.exp(u) + u).mean()
        return torch.stack(losses)


def _clip_each(rows: Tensor) -> None:
    """Scale each member's gradient to a norm of at most `_CLIP`."""
    if rows.grad is not None:
        rows.grad *= (_CLIP / rows.grad.square().sum(1).sqrt()).clamp(max=1)[:, None]


def _verdict(losses: Tensor, zero_loss: float, ends: Sequence[int]) -> str | None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        return f"training diverged: the loss is not finite by step {ends[int(bad[0])]} of {ends[-1]} (lower training.learning_rate)"
    if float(losses[-1]) > _DIVERGED * zero_loss:
        return (
            f"training diverged: the loss ends at {float(losses[-1]):.3g}, a network that always answers zero has {zero_loss:.3g} "
            "(lower training.learning_rate)"
        )
    return None
