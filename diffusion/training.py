r"""One loop that trains a whole stack of models.

Every member has its own formulation, schedule, data and random streams; they share the network's shape and the settings.
All that mixes numbers within a member (loss, gradient norm, divergence check) is computed per member, so that a member's
weights are the same, to the last bit, whatever it is stacked with, and a member that diverges stays alone with its NaN.

Random numbers are drawn a block of steps at a time: data with replacement from the member's training set, stratified noise
levels, Gaussian noise; from them, in float64, the network's inputs, effective targets and weights (see `parametrizations`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.formulations import Trained
from diffusion.networks import FEATURES, StackedMLP, features
from diffusion.objectives import last_step_share, stratified
from diffusion.parametrizations import Circle, Coefficients
from diffusion.randomness import stream
from diffusion.schedules import Schedule

LOSS_BINS = 64
_CLIP = 1.0
_ROWS = 2048  # of a batch evaluated at once in sampling: hidden activations stay in the cache
_DIVERGED = 10.0
_WIDEST, _DEEPEST = 4096, 64  # a stack of wider networks does not fit into memory


@dataclass(frozen=True)
class Training:
    """How one network is trained.

    Adam (betas 0.9, 0.99) with 1 % warm-up and cosine decay to zero, gradients clipped to norm 1 per member; the weights
    that are kept are an exponential moving average over the fraction `ema` of the steps. `data` is the size of the training
    set, drawn once per target and seed.
    """

    steps: int = 3000
    batch: int = 512
    width: int = 128
    depth: int = 3
    learning_rate: float = 4e-3
    ema: float = 0.03
    data: int = 200_000

    def __post_init__(self) -> None:
        if self.width > _WIDEST or self.depth > _DEEPEST:
            raise ValueError(
                f"training.width is at most {_WIDEST} and training.depth at most {_DEEPEST}, found {self.width} and {self.depth}"
            )
        if not 0 < self.ema <= 1:
            raise ValueError(f"training.ema must lie in (0, 1], found {self.ema}")


@dataclass(frozen=True)
class Member:
    """One model of a stack: what it learns, and the key that names its random streams."""

    dataset: Dataset
    formulation: Trained
    schedule: Schedule
    key: str

    def condition(self, nsr: Tensor) -> Tensor:
        """What the network is told of the noise: features of the label, scaled so that the schedule's range is [-1, 1]."""
        ends = torch.tensor([self.schedule.t_min, self.schedule.t_max], dtype=torch.float64)
        low, high = self.formulation.noise_label(self.schedule.nsr(ends), self.schedule)
        label = self.formulation.noise_label(nsr, self.schedule)
        return features((label - (low + high) / 2) / ((high - low).abs() / 2))

    def coefficients(self, level: Circle) -> Coefficients:
        """c_skip, c_out and c_in of the member's parametrization."""
        return self.formulation.parametrization.coefficients(level, self.dataset.std)

    def lessons(self, data: Tensor, steps: int, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Inputs, targets ``[steps, batch, dim]``, conditions ``[steps, batch, FEATURES]``, weights ``[steps, batch]``, float32."""
        formulation, schedule, std = self.formulation, self.schedule, self.dataset.std
        nsr = formulation.noise_levels.quantile(stratified(steps, batch, generator), schedule)
        x = data[torch.randint(len(data), (steps, batch), generator=generator)]
        target = formulation.noise_target
        share = torch.ones_like(nsr) if target.refinement == 3 else last_step_share(nsr, schedule)
        eps, stand_in = target.draw(share, tuple(x.shape), generator)
        level = Circle.at(nsr)
        c = self.coefficients(level)
        z = level.a[..., None] * x + level.b[..., None] * eps
        answer = formulation.parametrization.predict(x, stand_in, level, std)
        weight = formulation.weighting.on_target(nsr, c, schedule, std)
        return tuple(part.float() for part in (c.into[..., None] * z, answer, self.condition(nsr), weight))


@dataclass(frozen=True)
class TrainedStack:
    """What training leaves: averaged weights, losses and, for members that failed, the reason."""

    network: StackedMLP
    members: tuple[Member, ...]
    rows: Tensor  # [members, network.size], the parameters
    loss_steps: Tensor  # [bins], the step that closes each bin
    losses: Tensor  # [members, bins], mean loss per bin
    errors: tuple[str | None, ...]

    def select(self, indices: Sequence[int]) -> TrainedStack:
        """The sub-stack of the given members."""
        index = torch.tensor(list(indices))
        return TrainedStack(
            self.network,
            tuple(self.members[i] for i in indices),
            self.rows[index],
            self.loss_steps,
            self.losses[index],
            tuple(self.errors[i] for i in indices),
        )

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The denoiser E[x_0 | x_t] of every member: see `diffusion.samplers.Denoiser`."""
        level = Circle.of(alpha, sigma)
        nsr = sigma / alpha
        rows = [member.coefficients(Circle(a, b)) for member, a, b in zip(self.members, level.a, level.b, strict=True)]
        skip, out, into = (
            torch.stack([getattr(row, part) for row in rows])[:, None, None] for part in ("skip", "out", "into")
        )
        c = torch.stack([m.condition(s[None]) for m, s in zip(self.members, nsr, strict=True)]).float()
        z = x / torch.sqrt(alpha**2 + sigma**2)[:, None, None]
        inputs = (into * z).float()
        with torch.no_grad():
            raw = torch.cat([self.network(self.rows, part, c) for part in inputs.split(_ROWS, dim=1)], dim=1)
        return skip * z + out * raw.double()


def _learning_rate(settings: Training, step: int) -> float:
    warm_up = min(1.0, (step + 1) / max(1.0, settings.steps / 100))
    return settings.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def train(
    members: Sequence[Member],
    data: Sequence[Tensor],
    settings: Training,
    progress: Callable[[int], None] = lambda _: None,
) -> TrainedStack:
    """Train all members together; ``data[m]`` is member m's training set ``[n, dim]`` float64.

    `progress` is told the number of finished steps, about `LOSS_BINS` times. Raises ValueError if the members' data differ in
    dimension. A member whose loss is not finite, or ends ten times above that of a network that answers zero, is reported
    in `TrainedStack.errors`; the others are unharmed.
    """
    dims = {member.dataset.dim for member in members}
    if len(dims) != 1:
        raise ValueError(f"members of one stack need data of one dimension, found {sorted(dims)}")
    network = StackedMLP(dims.pop(), settings.width, settings.depth)
    rows = network.initialise([stream("init", member.key) for member in members]).requires_grad_()
    average = rows.detach().clone()
    balance = _Balance(members)
    optimiser = torch.optim.Adam([rows, *balance.rows], lr=settings.learning_rate, betas=(0.9, 0.99), fused=True)
    generators = [stream("train", member.key) for member in members]
    longest = math.exp(-1 / (settings.ema * settings.steps))

    bins = min(LOSS_BINS, settings.steps)
    edges = [round(i * settings.steps / bins) for i in range(bins + 1)]
    losses = torch.zeros(len(members), bins)
    trivial = torch.zeros(len(members))
    for b, (first, end) in enumerate(itertools.pairwise(edges)):
        drawn = [
            member.lessons(samples, end - first, settings.batch, generator)
            for member, samples, generator in zip(members, data, generators, strict=True)
        ]
        inputs, targets, conditions, weighting = (torch.stack(parts, dim=1) for parts in zip(*drawn, strict=True))
        for step in range(first, end):
            k = step - first
            answer = network(rows, inputs[k], conditions[k])
            errors = weighting[k] * (answer - targets[k]).square().sum(-1)
            loss = errors.mean(1)
            optimiser.zero_grad()
            balance(errors, conditions[k]).sum().backward()
            _clip_each(rows)
            optimiser.param_groups[0]["lr"] = _learning_rate(settings, step)
            optimiser.step()
            with torch.no_grad():
                average.lerp_(rows, 1 - min(longest, (1 + step) / (10 + step)))
                losses[:, b] += loss.detach() / (end - first)
        trivial = (weighting * targets.square().sum(-1)).mean((0, 2))
        progress(end)

    return TrainedStack(
        network,
        tuple(members),
        average,
        torch.tensor(edges[1:]),
        losses,
        tuple(_verdict(losses[m], float(trivial[m]), edges[1:]) for m in range(len(members))),
    )


class _Balance:
    """The learned uncertainty u(nsr) of members whose weighting asks for it: ``E[errors / e^u + u]``, u linear in the features.

    Members without it see their own loss, bit for bit, whoever is in the stack.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._learned = [m for m, member in enumerate(members) if member.formulation.weighting.learned]
        # two columns, because batched products of a single one take another path
        self.rows = [torch.zeros(1, FEATURES, 2, requires_grad=True) for _ in self._learned]

    def __call__(self, errors: Tensor, conditions: Tensor) -> Tensor:
        """Loss of each member ``[members]`` from weighted errors ``[members, batch]``."""
        if not self._learned:
            return errors.mean(1)
        losses = list(errors.mean(1))
        for m, row in zip(self._learned, self.rows, strict=True):
            u = torch.bmm(conditions[m : m + 1], row)[0, :, 0]
            losses[m] = (errors[m].clone() / torch.exp(u) + u).mean()
        return torch.stack(losses)


def _clip_each(rows: Tensor) -> None:
    """Scale each member's gradient to a norm of at most `_CLIP`."""
    if rows.grad is not None:
        rows.grad *= (_CLIP / rows.grad.square().sum(1).sqrt()).clamp(max=1)[:, None]


def _verdict(losses: Tensor, trivial: float, ends: Sequence[int]) -> str | None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        return f"training diverged: the loss is not finite by step {ends[int(bad[0])]} of {ends[-1]} (lower training.learning_rate)"
    if float(losses[-1]) > _DIVERGED * trivial:
        return (
            f"training diverged: the loss ends at {float(losses[-1]):.3g}, a network that always answers zero has {trivial:.3g} "
            "(lower training.learning_rate)"
        )
    return None
