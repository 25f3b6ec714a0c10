"""What a schedule, a target and a denoiser say of the line: density, drift, diffusion, velocity,
score.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.models import Denoiser
from diffusion.samplers.base import implied_noise, velocity
from diffusion.schedules import Schedule
from diffusion.schedules.levels import level_at

Field = Callable[[Tensor, float], Tensor]
"""A function of places ``[n]`` and a time, ``[n]``: a density, a velocity, a drift, a score."""

Amplitude = Callable[[float], float]
"""A function of time alone: g(t)."""


def density_of(dataset: Dataset, schedule: Schedule) -> Field:
    """The exact density of the noised target on the line."""

    def density(x: Tensor, t: float) -> Tensor:
        time = torch.tensor(t, dtype=torch.float64)
        return torch.exp(dataset.log_density(x[:, None], schedule.alpha(time), schedule.sigma(time)))

    return density


def drift_of(schedule: Schedule) -> Field:
    """f(t) x of the schedule's forward process."""
    return lambda x, t: schedule.drift(torch.tensor(t, dtype=torch.float64)) * x


def diffusion_of(schedule: Schedule) -> Amplitude:
    """g(t) of the schedule's forward process."""
    return lambda t: math.sqrt(max(float(schedule.diffusion_squared(torch.tensor(t, dtype=torch.float64))), 0.0))


def flow_of(denoiser: Denoiser, schedule: Schedule) -> Field:
    """The velocity of the probability flow that a denoiser of data on the line implies,
    ``alpha' D + sigma' eps``.
    """

    def field(x: Tensor, t: float) -> Tensor:
        level = level_at([schedule], torch.tensor([t], dtype=torch.float64))
        return velocity(denoiser, x[None, :, None], level)[0, :, 0]

    return field


def score_of(denoiser: Denoiser, schedule: Schedule) -> Field:
    """The score that a denoiser of data on the line implies, ``-eps / sigma``."""

    def field(x: Tensor, t: float) -> Tensor:
        level = level_at([schedule], torch.tensor([t], dtype=torch.float64))
        points = x[None, :, None]
        return -(implied_noise(points, denoiser(points, level.alpha, level.sigma), level) / level.sigma)[0, :, 0]

    return field
