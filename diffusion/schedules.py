r"""Noise schedules: how much of the data and how much noise there is at each time.

    x_t = alpha(t) x_0 + sigma(t) eps,      eps ~ N(0, I),      t from 0 (data) to t_max (noise)

Each schedule gives `alpha`, `sigma` and their derivatives; everything else follows from the four:

    noise-to-signal ratio   nsr(t) = sigma / alpha           (the sigma of Karras et al., 2022)
    drift of the SDE        f(t)   = alpha' / alpha           (times x)
    diffusion of the SDE    g(t)^2 = 2 sigma sigma' - 2 f sigma^2 = alpha^2 d/dt (sigma / alpha)^2

Times are float64 tensors of any shape. A *discrete* schedule is known at ``t = 1 .. max_steps`` only; it is interpolated
smoothly in between so that the probability-flow ODE exists for it too, and grids of other schedules are refused.

Sources: Song et al., "Score-Based Generative Modeling through SDEs", ICLR 2021 (VP, VE); Karras et al., "Elucidating the
Design Space of Diffusion-Based Generative Models", NeurIPS 2022, Table 1 (constants); Ho et al., "Denoising Diffusion
Probabilistic Models", NeurIPS 2020; Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from diffusion.registry import Component, Registry

schedules: Registry[Schedule] = Registry("schedule")

_MOST_LEVELS = 1_000_000  # tables of a discrete schedule are held in memory


@dataclass(frozen=True)
class Level:
    """A schedule at one time for each member of a stack: five float64 tensors ``[members]``."""

    time: Tensor
    alpha: Tensor
    sigma: Tensor
    alpha_dot: Tensor
    sigma_dot: Tensor

    @property
    def nsr(self) -> Tensor:
        """Noise-to-signal ratio sigma / alpha."""
        return self.sigma / self.alpha


@dataclass(frozen=True)
class Schedule(Component):
    """alpha(t), sigma(t) on ``0 <= t <= t_max``, ``sigma(0) = 0``."""

    own_grid: ClassVar[str] = "uniform-t"
    variance_preserving: ClassVar[bool] = False  # alpha^2 + sigma^2 = 1

    @property
    def max_steps(self) -> int | None:
        """Number of noise levels of a discrete schedule; None for a continuous one."""
        return None

    def own_times(self, steps: int) -> Tensor:
        """`steps` of a discrete schedule's own noisy levels, evenly spread over their numbers, noisiest first."""
        raise ValueError(
            f"schedule {self.registered_name!r} is continuous: it has no levels of its own ({steps} asked for)"
        )

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The smallest time with noise at which sampling evaluates the denoiser; from there one step leads to 0."""

    @property
    @abstractmethod
    def t_max(self) -> float:
        """The time of the start noise, which is drawn from ``N(0, sigma(t_max)^2 I)``."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Amplitude of the data."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """d alpha / dt."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """d sigma / dt, for t > 0."""

    @abstractmethod
    def time_of(self, nsr: Tensor) -> Tensor:
        """The inverse of `nsr`."""

    def nsr(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio sigma / alpha."""
        return self.sigma(t) / self.alpha(t)

    def drift(self, t: Tensor) -> Tensor:
        """f(t) of ``dx = f x dt + g dw``."""
        return self.alpha_dot(t) / self.alpha(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g(t)^2 of ``dx = f x dt + g dw``."""
        sigma = self.sigma(t)
        return 2 * sigma * self.sigma_dot(t) - 2 * self.drift(t) * sigma**2


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    """``alpha^2 + sigma^2 = 1`` with ``alpha = exp(-B/2)``; subclasses give B(t), its derivative beta(t) and its inverse."""

    variance_preserving: ClassVar[bool] = True

    @abstractmethod
    def integrated_beta(self, t: Tensor) -> Tensor:
        """B(t), the integral of beta from 0."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """beta(t) = B'(t): then f = -beta/2 and g^2 = beta."""

    @abstractmethod
    def time_of_integrated_beta(self, b: Tensor) -> Tensor:
        """The inverse of B."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.integrated_beta(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.integrated_beta(t)))

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t) * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return 0.5 * self.beta(t) * torch.exp(-self.integrated_beta(t)) / self.sigma(t)

    def nsr(self, t: Tensor) -> Tensor:
        return torch.sqrt(torch.expm1(self.integrated_beta(t)))

    def time_of(self, nsr: Tensor) -> Tensor:
        return self.time_of_integrated_beta(torch.log1p(nsr**2))


@schedules.register(
    "vp-linear",
    formula="B(t) = beta_d t^2 / 2 + beta_min t; alpha = exp(-B/2), sigma^2 = 1 - exp(-B)",
    source="Song et al. 2021; Karras et al. 2022, Table 1, column VP",
    seed="S0 level 3 (with the sign of the exponent corrected)",
)
@dataclass(frozen=True)
class VPLinear(VariancePreserving):
    """The continuous variance-preserving schedule with linear beta, ``0 <= t <= 1``; steps uniform in t."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    epsilon_s: float = 1e-3

    def __post_init__(self) -> None:
        if not (self.beta_d > 0 and self.beta_min > 0 and 0 < self.epsilon_s < 1):
            raise ValueError("vp-linear needs beta_d > 0, beta_min > 0 and 0 < epsilon_s < 1")

    @property
    def t_min(self) -> float:
        return self.epsilon_s

    @property
    def t_max(self) -> float:
        return 1.0

    def integrated_beta(self, t: Tensor) -> Tensor:
        return 0.5 * self.beta_d * t**2 + self.beta_min * t

    def beta(self, t: Tensor) -> Tensor:
        return self.beta_d * t + self.beta_min

    def time_of_integrated_beta(self, b: Tensor) -> Tensor:
        # the root of the quadratic in the form that does not cancel for small b
        return 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * self.beta_d * b))


@schedules.register(
    "ddpm-linear",
    formula="beta_k linear from beta_min to beta_max (times 1000/levels if scaled); alpha_k^2 = prod (1 - beta_i)",
    source="Ho et al. 2020, section 4; scaling to few levels: Nichol & Dhariwal 2021",
    seed="S0 levels 1 and 2, S2 section 2",
)
@dataclass(frozen=True)
class DDPMLinear(VariancePreserving):
    """The discrete chain ``x_k = sqrt(1 - beta_k) x_{k-1} + sqrt(beta_k) eps_k``, time t = k.

    Times between levels are met by a cubic spline of B, which is smooth enough for second-order samplers; between levels 0
    and 1, where nothing is ever evaluated, it may dip below zero.

    With few levels the betas must grow, or the chain does not end in noise: unscaled betas over 100 levels leave
    ``alpha^2 = 0.36`` of the data's power. `scaled` multiplies them by ``1000 / levels``.
    """

    levels: int = 100
    beta_min: float = 1e-4
    beta_max: float = 0.02
    scaled: bool = True
    own_grid: ClassVar[str] = "discrete"

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= _MOST_LEVELS:
            raise ValueError(f"ddpm-linear needs 2 to {_MOST_LEVELS} levels, found {self.levels}")
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError("ddpm-linear needs 0 < beta_min <= beta_max")
        if self.betas[-1] >= 1:
            raise ValueError(
                f"the last beta is {self.betas[-1]:.3g}, it must be below 1: use more levels (found {self.levels}), "
                "a smaller beta_max, or scaled: false"
            )

    @cached_property
    def betas(self) -> np.ndarray:
        """One-step variances, ``[levels]``."""
        scale = 1000 / self.levels if self.scaled else 1.0
        return np.linspace(self.beta_min, self.beta_max, self.levels) * scale

    @cached_property
    def _spline(self) -> CubicSpline:
        return CubicSpline(np.arange(self.levels + 1), np.concatenate([[0.0], -np.cumsum(np.log1p(-self.betas))]))

    @property
    def max_steps(self) -> int | None:
        return self.levels

    def own_times(self, steps: int) -> Tensor:
        # N of the moves from level `levels` to level 0, as even as whole numbers allow (ties to even)
        return torch.as_tensor(np.round(np.linspace(self.levels, 0, steps + 1))[:-1])

    @property
    def t_min(self) -> float:
        return 1.0

    @property
    def t_max(self) -> float:
        return float(self.levels)

    def integrated_beta(self, t: Tensor) -> Tensor:
        return torch.as_tensor(self._spline(t.numpy()))

    def beta(self, t: Tensor) -> Tensor:
        return torch.as_tensor(self._spline(t.numpy(), 1))

    def time_of_integrated_beta(self, b: Tensor) -> Tensor:
        times = np.arange(self.levels + 1, dtype=float)
        guess = np.interp(b.numpy(), self._spline(times), times)
        for _ in range(6):  # Newton, from a guess that is right to O(1/levels^2)
            guess = np.clip(guess - (self._spline(guess) - b.numpy()) / self._spline(guess, 1), 0, self.levels)
        return torch.as_tensor(guess)


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """``alpha = 1``: noise is added to data that keep their size."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


def _check_sigmas(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"0 < sigma_min < sigma_max is needed, found {sigma_min} and {sigma_max}")


@schedules.register(
    "ve-linear",
    formula="sigma = sqrt(t), alpha = 1: the variance grows linearly, g = 1",
    source="Karras et al. 2022, Table 1, column VE; Song et al. 2021 (geometric levels)",
    seed="S0 level 3 (where g = 2t is wrong)",
)
@dataclass(frozen=True)
class VELinear(VarianceExploding):
    """Variance equal to time, ``sigma_min^2 <= t <= sigma_max^2``; steps geometric in sigma."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    own_grid: ClassVar[str] = "log-snr"

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max)

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


@dataclass(frozen=True)
class NoiseAsTime(VarianceExploding):
    """``sigma = t``: time *is* the noise level, and the flow's paths are straight wherever the denoiser is constant."""

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time_of(self, nsr: Tensor) -> Tensor:
        return nsr.clone()


@schedules.register(
    "edm",
    formula="sigma = t, alpha = 1, 0.002 <= t <= 80",
    source="Karras et al. 2022, Table 1, column EDM",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class EDM(NoiseAsTime):
    """The schedule of EDM; its own grid is the power-law one (rho = 7)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    own_grid: ClassVar[str] = "edm"

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max)

    @property
    def t_min(self) -> float:
        return self.sigma_min

    @property
    def t_max(self) -> float:
        return self.sigma_max


@schedules.register(
    "iddpm",
    formula="sigma = t, alpha = 1, with the levels u_j of the cosine schedule: u_{j-1}^2 + 1 = (u_j^2 + 1) / max(a_{j-1}/a_j, C1)",
    source="Nichol & Dhariwal 2021; Karras et al. 2022, Table 1, column iDDPM + DDIM",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class IDDPM(NoiseAsTime):
    """Improved DDPM in EDM's terms: continuous noise-as-time, but networks and grid know the levels ``u_j`` only.

    ``a_j = sin^2(pi j / (2 M (C2 + 1)))``, ``u_M = 0``; sampling starts at ``u_{j0}``.
    """

    levels: int = 1000
    c1: float = 0.001
    c2: float = 0.008
    j0: int = 8
    own_grid: ClassVar[str] = "discrete"

    def __post_init__(self) -> None:
        if not (2 <= self.levels <= _MOST_LEVELS and 0 <= self.j0 < self.levels - 1):
            raise ValueError(
                f"iddpm needs 2 to {_MOST_LEVELS} levels and 0 <= j0 < levels - 1, found {self.levels} and {self.j0}"
            )
        if not (0 < self.c1 < 1 and self.c2 > 0):
            raise ValueError("iddpm needs 0 < c1 < 1 and c2 > 0")

    @cached_property
    def noise_levels(self) -> np.ndarray:
        """u_0 > ... > u_{M-1}, ``[levels]``."""
        a = np.sin(0.5 * np.pi * np.arange(self.levels + 1) / self.levels / (self.c2 + 1)) ** 2
        u = np.zeros(self.levels + 1)
        for j in range(self.levels, 0, -1):
            u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(a[j - 1] / a[j], self.c1) - 1)
        return u[: self.levels]

    @property
    def max_steps(self) -> int | None:
        return self.levels - self.j0

    def own_times(self, steps: int) -> Tensor:
        last = self.levels - 1
        fractions = np.arange(steps) / max(steps - 1, 1)
        return torch.as_tensor(self.noise_levels[np.floor(self.j0 + (last - self.j0) * fractions + 0.5).astype(int)])

    @property
    def t_min(self) -> float:
        return float(self.noise_levels[-1])

    @property
    def t_max(self) -> float:
        return float(self.noise_levels[self.j0])
