"""Models that are known exactly, and what a sampler is driven with: schedules, levels and noise.

For data ``N(m, s^2)`` the probability-flow ODE is solved by
``x_t = alpha m + sqrt(alpha^2 s^2 + sigma^2) z`` with z constant, and every sampler that does not
choose its own steps is an affine map of its start and its noises, which `affine` finds exactly. For
any data on the line the flow keeps quantiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.models import Denoiser, Motion
from diffusion.randomness import clock, stream
from diffusion.samplers import Noise, Sampler
from diffusion.schedules import NCSN, DDPMLinear, Schedule, schedules
from diffusion.schedules.grids import Grid, grids
from diffusion.schedules.levels import Level, levels_of

_LONG = {"ncsn": NCSN(levels=100, sigma_max=50.0)}  # whose own ten levels are too few to ask everything of
SCHEDULES: tuple[Schedule, ...] = (
    *(_LONG.get(entry.name) or entry.cls() for entry in schedules if entry.has_defaults),
    DDPMLinear(levels=1000),
)


def served(sampler: Sampler) -> list[Schedule]:
    """The schedules that a sampler does not refuse."""
    return [schedule for schedule in SCHEDULES if sampler.refuses(schedule) is None]


# --- models ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """The exact model of a target: its denoiser, and its density for samplers that need one."""

    target: Dataset

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.target.denoise(x, alpha[:, None], sigma[:, None])

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.target.log_density(x, alpha[:, None], sigma[:, None])


@dataclass(frozen=True)
class Able(Known):
    """Members that give whatever a sampler may ask for, each in its own measure; nothing is known
    of what is right.

    The first, of number 0, perturbs nothing, and its action moves samples without noise; with
    `growth` it is the only one whose weights stay equal.
    """

    members: tuple[int, ...]
    dim: int
    growth: bool

    def _each(self, first: float, more: float) -> Tensor:
        return first + more * torch.tensor(self.members, dtype=torch.float64)

    def perturbation(self, time: Tensor) -> Tensor:
        return self._each(0.0, 0.3) / torch.sqrt(time)

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion:
        slope = self(x, alpha, sigma) - x
        growth = self._each(0.0, float(self.growth))[:, None] * slope.sum(-1).sin()
        return Motion(self._each(0.5, 0.1), self._each(0.0, 0.4), slope, growth)

    def latent_dim(self) -> int:
        return self.dim + 1

    def decode(self, z: Tensor) -> Tensor:
        return self._each(1.0, 0.2)[:, None, None] * z.cumsum(-1)[..., 1:].sin()

    def decoder_std(self) -> Tensor:
        return self._each(0.1, 0.1)


class Rough:
    """Nobody's model: a linear denoiser, the same at every level and far from the truth, and a
    density of something else.
    """

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        return 0.3 - 1.7 * x

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        return -(x**2).sum(-1)


@dataclass(frozen=True)
class NormalMixture:
    """Denoiser and distribution function of data that are a mixture of normal laws."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def _parts(self, alpha: Tensor, sigma: Tensor) -> list[tuple[float, Tensor, Tensor, float]]:
        return [
            (w, alpha * m, torch.sqrt(alpha**2 * s * s + sigma**2), s)
            for w, m, s in zip(self.weights, self.means, self.stds, strict=True)
        ]

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha, sigma = alpha[:, None, None], sigma[:, None, None]
        parts = self._parts(alpha, sigma)
        logs = torch.stack([math.log(w) - torch.log(total) - 0.5 * ((x - m) / total) ** 2 for w, m, total, _ in parts])
        means = [
            mean + alpha * s * s * (x - m) / total**2 for (_, m, total, s), mean in zip(parts, self.means, strict=True)
        ]
        return (torch.softmax(logs, 0) * torch.stack(means)).sum(0)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        parts = self._parts(alpha[:, None, None], sigma[:, None, None])
        logs = [math.log(w) - torch.log(total) - 0.5 * ((x - m) / total) ** 2 for w, m, total, _ in parts]
        return torch.logsumexp(torch.stack(logs), 0).sum(-1) - 0.5 * math.log(2 * math.pi)

    def cdf(self, x: Tensor, level: Level) -> Tensor:
        parts = self._parts(level.alpha[:, None, None], level.sigma[:, None, None])
        return torch.stack([w * torch.special.ndtr((x - m) / total) for w, m, total, _ in parts]).sum(0)


def gaussian(mean: float = 0.0, std: float = 1.0) -> NormalMixture:
    """A normal law."""
    return NormalMixture((1.0,), (mean,), (std,))


BIMODAL = NormalMixture((0.3, 0.7), (-1.0, 1.0), (0.5, 0.4))


def marginal(level: Level, mean: float, std: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_t for data N(mean, std^2)."""
    return level.alpha * mean, level.alpha**2 * std**2 + level.sigma**2


# --- levels ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Smooth(Grid):
    """Equal steps of log nsr over a moderate range, the end of which does not depend on N, on every
    schedule.

    Convergence is measured on all but the last of its levels. The step to sigma = 0, which is
    Euler's and infinitely long in log nsr, would hide the order; and the schedules' own range, up
    to eight decades, would need very many steps to show it.
    """

    first: float = 15.0
    last: float = 0.1

    def refuses(self, schedule: Schedule) -> str | None:  # noqa: ARG002 - interpolated schedules are smooth, too
        return None

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        ratio = torch.linspace(math.log(self.first), math.log(self.last), steps, dtype=torch.float64)
        return schedule.time_of(ratio.exp())

    def times(self, schedule: Schedule, steps: int) -> Tensor:  # also between the levels, and more of them
        return torch.cat([self.noisy_times(schedule, steps), torch.zeros(1, dtype=torch.float64)])


@functools.cache
def smooth_levels(chosen: tuple[Schedule, ...], steps: int) -> list[Level]:
    """N + 1 noisy levels, N moves."""
    return levels_of(chosen, [Smooth()] * len(chosen), steps + 1)[:-1]


@functools.cache
def stack_of(pairs: tuple[tuple[Schedule, Grid], ...], steps: int) -> list[Level]:
    """The levels of schedules on grids, side by side."""
    return levels_of([schedule for schedule, _ in pairs], [grid for _, grid in pairs], steps)


def own_stack(chosen: Sequence[Schedule], steps: int) -> list[Level]:
    """The levels of schedules, each on its own grid, side by side."""
    return stack_of(tuple((schedule, grids.create(schedule.own_grid)) for schedule in chosen), steps)


# --- noise ----------------------------------------------------------------------------------------


class Drawn:
    """Given numbers, in the order in which they are asked for."""

    def __init__(self, draws: Iterator[Tensor]) -> None:
        self._draws = draws

    def between(self, now: Level, then: Level) -> Tensor:  # noqa: ARG002
        return next(self._draws)

    def fresh(self) -> Tensor:
        return next(self._draws)


@dataclass
class Recorded:
    """Zeros, with a record of what was asked for."""

    shape: tuple[int, ...]
    moves: list[tuple[Level, Level]] = field(default_factory=list)
    fresh_draws: int = 0

    def between(self, now: Level, then: Level) -> Tensor:
        self.moves.append((now, then))
        return torch.zeros(self.shape, dtype=torch.float64)

    def fresh(self) -> Tensor:
        self.fresh_draws += 1
        return torch.zeros(self.shape, dtype=torch.float64)


def standard(shape: tuple[int, ...], *name: object) -> Tensor:
    """A reproducible standard normal draw."""
    return torch.randn(shape, generator=stream("checks", *name), dtype=torch.float64)


# --- runs -----------------------------------------------------------------------------------------


def states(sampler: Sampler, model: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> list[Tensor]:
    """The states after the start, of a sampler that passes the levels of a grid in its own way."""
    return list(sampler.trajectory(model, x, sampler.path(levels), noise))


@dataclass(frozen=True)
class Affine:
    """``x_end = gain x_start + shift + sum of weights z``: gain and shift ``[members]``, weights
    ``[members, draws]``.
    """

    gain: Tensor
    shift: Tensor
    weights: Tensor

    def of_normal(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the end from those of the start."""
        return self.gain * mean + self.shift, self.gain**2 * variance + (self.weights**2).sum(1)


def affine(sampler: Sampler, model: Denoiser, levels: Sequence[Level]) -> Affine:
    """The map that a trajectory with a linear denoiser is: from the start at 0, at 1, and from each
    noise alone at 1.
    """
    members = len(levels[0].time)
    draws = sampler.evaluations(len(levels)) + len(levels) if sampler.stochastic else 0  # as many at most
    x = torch.zeros(members, 2 + draws, 1, dtype=torch.float64)
    x[:, 1] = 1
    noise: Noise = _Columns(x) if sampler.stochastic else Recorded(tuple(x.shape))
    end = states(sampler, model, x, levels, noise)[-1][:, :, 0]
    return Affine(end[:, 1] - end[:, 0], end[:, 0], end[:, 2:] - end[:, :1])


class _Columns:
    """A sample for each draw, in which it is 1 and all others are 0.

    A move that begins where the last one began, and leads further, has the last one's numbers in it.
    """

    def __init__(self, like: Tensor) -> None:
        self._like, self._drawn = like, 2
        self._last: tuple[Level, Level, Tensor] | None = None

    def fresh(self) -> Tensor:
        unit = torch.zeros_like(self._like)
        unit[:, self._drawn] = 1
        self._drawn += 1
        return unit

    def between(self, now: Level, then: Level) -> Tensor:
        found = self.fresh()
        if self._last is not None:
            start, end, old = self._last
            if torch.equal(start.nsr, now.nsr) and bool((then.nsr < end.nsr).all()):
                ends = [torch.tensor([clock(r) for r in level.nsr.tolist()]) for level in (now, end, then)]
                share = ((ends[0] - ends[1]) / (ends[0] - ends[2]))[:, None, None]
                found = torch.sqrt(share) * old + torch.sqrt(1 - share) * found
        self._last = now, then, found
        return found


def slope(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The order that errors show: minus the slope of log error against log N, by least squares."""
    logs = [(math.log(n), math.log(max(e, 1e-300))) for n, e in zip(steps, errors, strict=True)]
    x, y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    return -float(sum((a - x) * (b - y) for a, b in logs) / sum((a - x) ** 2 for a, _ in logs))
