r"""One loop that trains a whole stack of models.

Every member has its own formulation, schedule, data and random streams; they share the network's
shape and the settings. All that mixes numbers within a member (loss, gradient norm, divergence
check) is computed per member, so that a member's weights are the same, to the last bit, whatever it
is stacked with, and a member that diverges stays alone with its NaN. So members may also step a few
at a time: as many as the processor's cache has room for.

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
from diffusion.replay import Replayed
from diffusion.training.adam import Adam
from diffusion.training.lessons import drawn_on_device, drawn_on_host
from diffusion.training.placement import Placement, filled
from diffusion.training.stack import TrainedStack

LOSS_BINS = 64
_CLIP = 1.0
_DIVERGED = 10.0
_CACHED = 2**20  # bytes of one layer's hidden units, of all members that step together: they stay in the cache
_DRAWN = 2**28  # bytes of the points of a block of steps that are drawn at once on a device


def _learning_rate(settings: Training, step: int) -> float:
    warm_up = min(1.0, (step + 1) / max(1.0, settings.steps / 100))
    return settings.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def train(
    members: Sequence[Member],
    data: Sequence[Tensor],
    settings: Training,
    progress: Callable[[int, Tensor], None] = lambda _, __: None,
    device: torch.device | Placement = HOST,
) -> TrainedStack:
    """Train all members together; ``data[m]`` is member m's training set ``[n, dim]`` float64.

    `progress` is called about `LOSS_BINS` times, with the number of finished steps and the mean loss
    of each member since the last call `[members]`, on the device (to read it is to wait for it). A
    member whose loss is not finite, or ends ten times above that of a network that answers zero, is
    reported in `TrainedStack.errors`; the others are unharmed.

    Networks are trained on the `device`, and stay there. Weights at the start are drawn on the host;
    batches are as well, unless the placement has them drawn on the device, from other streams.

    Raises:
        ValueError: the members' data differ in dimension.
    """
    objective, network = _common(members, settings)
    place = device if isinstance(device, Placement) else Placement.on(device, len(members))
    together = place.bucket or _together(network, settings.batch)
    parts = [
        _Part(objective, network, members[first : first + together], data[first : first + together], settings, place)
        for first in range(0, len(members), together)
    ]
    bins = min(LOSS_BINS, settings.steps)
    edges = [round(i * settings.steps / bins) for i in range(bins + 1)]
    found = []
    for first, end in itertools.pairwise(edges):
        found.append(torch.cat([part.advance(first, end) for part in parts]))
        progress(end, found[-1])
    losses = torch.stack(found, 1).to(HOST)
    zero_loss = torch.cat([part.zero_loss for part in parts]).to(HOST)
    return TrainedStack(
        objective,
        network,
        tuple(members),
        torch.cat([part.average for part in parts]),
        torch.tensor(edges[1:]),
        losses,
        tuple(_verdict(losses[m], float(zero_loss[m]), edges[1:]) for m in range(len(members))),
    )


def _together(network: Network, batch: int) -> int:
    """How many members step together: as many as their hidden units find room in the cache."""
    return max(1, _CACHED // (4 * batch * network.widest))


class _Part:
    """Members that step together, with what their steps change."""

    def __init__(
        self,
        objective: Objective,
        network: Network,
        members: Sequence[Member],
        data: Sequence[Tensor],
        settings: Training,
        place: Placement,
    ) -> None:
        device = place.device
        self._objective, self._network, self._settings = objective, network, settings
        self._count = len(members)
        members, data = filled(members, place.bucket), filled(data, place.bucket)
        there = place.drawn_there and objective.draws_anywhere
        self._block = max(1, _DRAWN // (8 * len(members) * settings.batch * data[0].shape[1])) if there else None
        drawn = drawn_on_device if there else drawn_on_host
        self._lessons = drawn(objective, members, data, settings.batch, device)
        fresh = network.initialise([stream("init", member.key) for member in members])
        self._rows = to_device(fresh, device).requires_grad_()
        self._balance = _Balance(members, objective, device)
        self._optimiser = Adam([self._rows, *self._balance.rows], betas=(0.9, 0.99))
        self._average = self._rows.detach().clone()
        self._zero_loss = torch.zeros(len(members), device=device)
        self._numbers = (
            to_device(torch.tensor([self._numbers_of(step) for step in range(settings.steps)]), device)
            if place.static
            else None
        )
        changed = [self._rows, self._average, *self._balance.rows, *self._optimiser.state]
        self._step = Replayed(self._stepped, changed, place.recorder)

    @property
    def average(self) -> Tensor:
        """The averaged parameters, ``[members, network.size]``."""
        return self._average[: self._count]

    @property
    def zero_loss(self) -> Tensor:
        """The loss of networks that answer zero, ``[members]``."""
        return self._zero_loss[: self._count]

    def advance(self, first: int, end: int) -> Tensor:
        """The steps from `first` to `end`; returns the mean loss of each member over them."""
        losses = torch.zeros(len(self._rows), device=self._rows.device)
        for start in range(first, end, self._block or end - first):
            stop = min(end, start + (self._block or end - first))
            batches = self._lessons(start, stop)
            for step in range(start, stop):
                batch = [part[step - start] for part in batches]
                losses += self._taken(step, batch) / (end - first)
            self._zero_loss = self._objective.zero_loss(*batches)
        return losses[: self._count]

    def _taken(self, step: int, batch: Sequence[Tensor]) -> Tensor:
        """The step of a number, replayed where that is possible."""
        if self._numbers is None:
            return self._stepped(self._numbers_of(step), *batch)
        return self._step(self._numbers[step], *batch)

    def _numbers_of(self, step: int) -> tuple[float, float]:
        """The learning rate of a step, and how far the average follows."""
        longest = math.exp(-1 / (self._settings.ema * self._settings.steps))
        return _learning_rate(self._settings, step), 1 - min(longest, (1 + step) / (10 + step))

    def _stepped(self, numbers: Sequence[float] | Tensor, *batch: Tensor) -> Tensor:
        """One step; returns the loss of each member before it."""
        rows = self._rows
        example_losses = self._objective.losses(self._network, rows, *batch)
        loss = example_losses.mean(1)
        self._optimiser.zero_grad()
        self._balance(example_losses, batch).sum().backward()
        _clip_each(rows)
        self._optimiser.step(numbers[0])
        with torch.no_grad():
            self._average.lerp_(rows, numbers[1])
        return loss.detach()


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
