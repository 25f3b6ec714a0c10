"""Continuous schedules on which the data keep their size: alpha = 1, and the variance of the noise
grows by g^2 dt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.schedules.base import NoiseAsTime, VarianceExploding, check_sigmas, check_times, schedules


@schedules.register(
    "ve-linear",
    formula="sigma = sqrt(t), alpha = 1: the variance grows linearly, g = 1",
    source="Karras et al. 2022, Table 1, column VE; Song et al., SDE, ICLR 2021 (geometric levels)",
    document="S0 level 3 (where g = 2t is wrong)",
)
@dataclass(frozen=True)
class VELinear(VarianceExploding):
    """Variance equal to time, ``sigma_min^2 <= t <= sigma_max^2``; steps geometric in sigma."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    own_grid: ClassVar[str] = "uniform-log-snr"

    def __post_init__(self) -> None:
        check_sigmas(self.sigma_min, self.sigma_max)

    @property
    def t_min(self) -> float:
        return self.sigma_min**2

    @property
    def t_max(self) -> float:
        return self.sigma_max**2

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return 0.5 / torch.sqrt(t)

    def time_of(self, nsr: Tensor) -> Tensor:
        return nsr**2


@schedules.register(
    "ve-geometric",
    formula="sigma^2 = sigma_min^2 (r^(2t) - 1), r = sigma_max / sigma_min, alpha = 1: g = sigma_min r^t sqrt(2 ln r)",
    source="Song & Ermon, NeurIPS 2019 (levels); Song et al., SDE, ICLR 2021, eq. 30 (its VE SDE, with the exact kernel)",
    document="S0 level 3, S1 (noise perturbation)",
)
@dataclass(frozen=True)
class VEGeometric(VarianceExploding):
    """The VE SDE whose noise levels ``sigma_min r^t`` form a geometric sequence, ``0 <= t <= 1``.

    The variance of x_t given x_0 is what the SDE has added since t = 0, the *difference* of the
    squared levels. (Public codes use the level itself and never reach sigma = 0.)
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_sigmas(self.sigma_min, self.sigma_max)
        check_times("ve-geometric", self.t_min, self.t_max, 1)

    @property
    def _growth(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.sqrt(torch.expm1(2 * self._growth * t))

    def sigma_dot(self, t: Tensor) -> Tensor:
        grown = 2 * self._growth * t
        return self.sigma_min * self._growth * torch.exp(grown) / torch.sqrt(torch.expm1(grown))

    def time_of(self, nsr: Tensor) -> Tensor:
        return torch.log1p((nsr / self.sigma_min) ** 2) / (2 * self._growth)


@schedules.register(
    "edm",
    formula="sigma = t, alpha = 1, sigma_min <= t <= sigma_max",
    source="Karras et al. 2022, Table 1, column EDM",
    document="S0 level 4",
)
@dataclass(frozen=True)
class EDM(NoiseAsTime):
    """The schedule of EDM; its own grid is the power-law one (rho = 7)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    own_grid: ClassVar[str] = "edm"

    def __post_init__(self) -> None:
        check_sigmas(self.sigma_min, self.sigma_max)

    @property
    def t_min(self) -> float:
        return self.sigma_min

    @property
    def t_max(self) -> float:
        return self.sigma_max
