"""The straight line from data to noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.schedules.base import Schedule, check_times, schedules


@schedules.register(
    "flow",
    formula="alpha = 1 - t, sigma = t: f = -1/(1-t), g^2 = 2t/(1-t)",
    source="Lipman et al. and Liu et al. (rectified flow), ICLR 2023; Delbracio & Milanfar, InDI, TMLR 2023",
    document="S2 section 2.9 (InDI towards noise)",
)
@dataclass(frozen=True)
class Flow(Schedule):
    """Linear interpolation of data and noise, ``0 <= t <= 1``.

    At ``t = 1`` no data are left: the start noise is exact, alpha = 0, the noise-to-signal ratio
    and the SDE's f and g are infinite. An earlier `t_max` keeps them finite.
    """

    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_times("flow", self.t_min, self.t_max, 1)

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -1.0)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return 2 * t / (1 - t)

    def time_of(self, nsr: Tensor) -> Tensor:
        return 1 / (1 + 1 / nsr)
