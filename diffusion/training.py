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
from diffusion.networks import StackedMLP, features
from diffusion.objectives import stratified
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

    def condition(self, sigma: Tensor) -> Tensor:
        """What the network is told of the noise: features of the label, scaled so that the schedule's range is [-1, 1]."""
        ends = torch.tensor([self.schedule.t_min, self.schedule.t_max], dtype=torch.float64)
        low, high = self.formulation.noise_label(self.schedule.nsr(ends), self.schedule)
        label = self.formulation.noise_label(sigma, self.schedule)
        return features((label - (low + high) / 2) / ((high - low).abs() / 2))

    def lessons(self, data: Tensor, steps: int, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Inputs, targets ``[steps, batch, dim]``, conditions ``[steps, batch, FEATURES]``, weights ``[steps, batch]``, float32."""
        u = stratified(steps, batch, generator)
        sigma = self.formulation.noise_levels.quantile(u, self.schedule)
        x = data[torch.randint(len(data), (steps, batch), generator=generator)]
        y = x + sigma[..., None] * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        c = self.formulation.parametrization.coefficients(sigma, self.dataset.std)
        target = (x - c.skip[..., None] * y) / c.out[..., None]
        weight = self.formulation.weighting.weight(sigma, self.dataset.std) * c.out**2
        return tuple(part.float() for part in (c.into[..., None] * y, target, self.condition(sigma), weight))


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
        nsr = sigma / alpha
        rows = [
            m.formulation.parametrization.coefficients(s, m.dataset.std) for m, s in zip(self.members, nsr, strict=True)
        ]
        skip, out, into = (
            torch.stack([getattr(row, part) for row in rows])[:, None, None] for part in ("skip", "out", "into")
        )
        c = torch.stack([m.condition(s[None]) for m, s in zip(self.members, nsr, strict=True)]).float()
        y = x / alpha[:, None, None]
        z = (into * y).float()
        with torch.no_grad():
            raw = torch.cat([self.network(self.rows, part, c) for part in z.split(_ROWS, dim=1)], dim=1)
        return skip * y + out * raw.double()


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
    optimiser = torch.optim.Adam([rows], lr=settings.learning_rate, betas=(0.9, 0.99), fused=True)
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
            loss = (weighting[k] * (answer - targets[k]).square().sum(-1)).mean(1)
            optimiser.zero_grad()
            loss.sum().backward()
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
