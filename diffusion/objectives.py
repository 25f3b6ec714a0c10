r"""What is minimised: the denoising loss, its noise levels and its weights.

    L = E_sigma E_{x_0, eps} lambda(sigma) | D(x_0 + sigma eps; sigma) - x_0 |^2

Noise levels are given by a *quantile function* of a uniform variable u, so that one batch can be stratified: with
``u_i = (i + U_i) / batch`` every batch covers the whole range of noise and the loss's variance falls.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.registry import Component
from diffusion.schedules import IDDPM, Schedule


def stratified(steps: int, batch: int, generator: torch.Generator) -> Tensor:
    """``[steps, batch]`` uniform numbers, one in each of `batch` equal strata of [0, 1) in every row."""
    jitter = torch.rand(steps, batch, generator=generator, dtype=torch.float64)
    return (torch.arange(batch, dtype=torch.float64) + jitter) / batch


@dataclass(frozen=True)
class NoiseLevels(Component):
    """A distribution of noise-to-signal ratios in training."""

    @abstractmethod
    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Noise-to-signal ratios at the quantiles `u` in [0, 1), any shape."""


@dataclass(frozen=True)
class UniformTime(NoiseLevels):
    """t uniform between `t_min` and the schedule's end."""

    t_min: float = 1e-5

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return schedule.nsr(self.t_min + u * (schedule.t_max - self.t_min))


@dataclass(frozen=True)
class LogUniform(NoiseLevels):
    """ln sigma uniform between the schedule's ends."""

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        ends = schedule.nsr(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)).log()
        return torch.exp(ends[0] + u * (ends[1] - ends[0]))


@dataclass(frozen=True)
class LogNormal(NoiseLevels):
    """ln sigma normal with the given mean and standard deviation."""

    mean: float = -1.2
    std: float = 1.2

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        # u = 0 has probability 2^-53 and would be sigma = 0
        return torch.exp(self.mean + self.std * torch.special.ndtri(u.clamp_min(2.0**-54)))


@dataclass(frozen=True)
class OwnLevels(NoiseLevels):
    """A discrete schedule's own levels, all equally likely."""

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        if isinstance(schedule, IDDPM):
            levels = torch.as_tensor(schedule.noise_levels)
        else:
            levels = schedule.nsr(torch.arange(1, (schedule.max_steps or 0) + 1, dtype=torch.float64))
        return levels[(u * len(levels)).long()]


@dataclass(frozen=True)
class Weighting(Component):
    """lambda(sigma) of the denoising loss."""

    @abstractmethod
    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """lambda at `sigma`, any shape."""


@dataclass(frozen=True)
class SignalToNoise(Weighting):
    """lambda = 1 / sigma^2: every error of the predicted *noise* counts the same (the "simple" loss of DDPM)."""

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:  # noqa: ARG002
        return 1 / sigma**2


@dataclass(frozen=True)
class UnitVariance(Weighting):
    """lambda = (sigma^2 + s^2) / (sigma s)^2 = 1 / c_out^2 of the `edm` parametrization."""

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
