r"""Discrete schedules: chains ``x_k = sqrt(1 - beta_k) x_{k-1} + sqrt(beta_k) eps_k`` at times t =
k = 1 .. T, and iDDPM.

    alpha_k^2 = prod_{i <= k} (1 - beta_i),      sigma_k^2 = 1 - alpha_k^2

Times between the levels of a chain are met by a cubic spline of B, which is smooth enough for
second-order samplers; between levels 0 and 1, where nothing is ever evaluated, it may dip below
zero.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from diffusion.devices import DeviceCopies, to_device
from diffusion.errors import WrongValue
from diffusion.schedules.base import LARGEST_EXPONENT, NoiseAsTime, VariancePreserving, require, schedules

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

_MOST_LEVELS = 1_000_000  # tables of a discrete schedule are held in memory


def stationary_variance(keep: float, add: float) -> float:
    r"""Where the variance of ``x_k = keep x_{k-1} + add eps_k`` goes, whatever x_0:
    ``add^2 / (1 - keep^2)``.

    It is 1 for ``add = sqrt(1 - keep^2)``: hence the pair sqrt(1 - beta), sqrt(beta) in every chain
    below.

    Raises:
        WrongValue: ``keep`` is not between -1 and 1, and the variance has no limit.
    """
    require(-1 < keep < 1, f"the variance of such a chain has a limit for -1 < keep < 1 only, found {keep}")
    return add**2 / ((1 - keep) * (1 + keep))


@dataclass(frozen=True)
class Chain(VariancePreserving):
    """A variance-preserving chain of `levels` steps; subclasses give the one-step variances
    `betas`.
    """

    levels: int = 1000
    own_grid: ClassVar[str] = "discrete"

    @property
    @abstractmethod
    def betas(self) -> np.ndarray:
        """One-step variances, ``[levels]``."""

    def __post_init__(self) -> None:
        name = self.registered_name
        require(2 <= self.levels <= _MOST_LEVELS, f"{name} needs 2 to {_MOST_LEVELS} levels, found {self.levels}")
        self._check()
        total = -float(np.log1p(-self.betas).sum())
        require(
            total <= LARGEST_EXPONENT,
            f"{name} leaves alpha^2 = exp(-{total:.3g}) of the data, which float64 cannot hold: "
            f"use fewer levels (found {self.levels}) or smaller betas",
        )

    @abstractmethod
    def _check(self) -> None:
        """Raise WrongValue unless the parameters besides `levels` are acceptable."""

    @cached_property
    def _spline(self) -> CubicSpline:
        from scipy.interpolate import CubicSpline

        return CubicSpline(np.arange(self.levels + 1), np.concatenate([[0.0], -np.cumsum(np.log1p(-self.betas))]))

    @property
    def max_steps(self) -> int | None:
        return self.levels

    @cached_property
    def noise_levels(self) -> np.ndarray:
        """nsr at k = T .. 1."""
        return np.asarray(self.nsr(self.level_times))

    @property
    def level_times(self) -> Tensor:
        return torch.arange(self.levels, 0, -1, dtype=torch.float64)

    def own_times(self, steps: int) -> Tensor:
        # N of the moves from level `levels` to level 0, as even as whole numbers allow (ties to
        # even)
        return torch.as_tensor(np.round(np.linspace(self.levels, 0, steps + 1))[:-1])

    @property
    def t_min(self) -> float:
        return 1.0

    @property
    def t_max(self) -> float:
        return float(self.levels)

    @property
    def terminal_nsr(self) -> float:
        """sigma / alpha at the last level, where B is the sum of all ``-log(1 - beta_k)``: no spline
        is made to say how a chain ends.
        """
        return math.sqrt(math.expm1(-float(np.cumsum(np.log1p(-self.betas))[-1])))

    def integrated_beta(self, t: Tensor) -> Tensor:
        cubic, square, linear, constant, z = self._at(t)
        z2 = z * z
        return ((constant + linear * z) + square * z2) + cubic * (z2 * z)

    def beta(self, t: Tensor) -> Tensor:
        cubic, square, linear, _, z = self._at(t)
        return (linear + square * z * 2) + cubic * (z * z) * 3

    def _at(self, t: Tensor) -> tuple[Tensor, ...]:
        """The spline's four coefficients, highest power first, at times of any shape, and the time
        since the level before.
        """
        coefficients, _ = self._tables(t.device)
        t = t.double()
        before = t.floor().clamp(0, self.levels - 1).nan_to_num()
        return *coefficients[:, before.long()].unbind(0), t - before

    def time_of_integrated_beta(self, b: Tensor) -> Tensor:
        _, known = self._tables(b.device)  # B at the levels 0 .. T
        before = (torch.searchsorted(known, b.contiguous(), right=True) - 1).clamp(0, self.levels - 1)
        low, high = known[before], known[before + 1]
        guess = torch.where(b >= known[-1], self.levels, (b - low) * (1 / (high - low)) + before).clamp(min=0)
        for _ in range(6):  # Newton, from a guess that is right to O(1/levels^2)
            guess = (guess - (self.integrated_beta(guess) - b) / self.beta(guess)).clamp(0, self.levels)
        return guess

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The spline's coefficients ``[4, levels]`` and B at its levels ``[levels + 1]``."""
        if device not in self._places:
            with torch.inference_mode(mode=False):  # whatever mode the first who asks is in
                knots = self._spline(np.arange(self.levels + 1, dtype=float))
                coefficients, known = torch.from_numpy(self._spline.c.copy()), torch.from_numpy(knots)
                self._places[device] = to_device(coefficients, device), to_device(known, device)
        return self._places[device]

    @cached_property
    def _places(self) -> DeviceCopies[tuple[Tensor, Tensor]]:
        return DeviceCopies()


def _check_betas(name: str, beta_min: float, beta_max: float) -> None:
    require(0 < beta_min <= beta_max, f"{name} needs 0 < beta_min <= beta_max, found {beta_min} and {beta_max}")


def _check_last(betas: np.ndarray) -> None:
    require(
        bool(betas[-1] < 1),
        f"the last beta is {betas[-1]:.3g}, it must be below 1: use more levels (found {len(betas)}), "
        "a smaller beta_max, or scaled: false",
    )


@schedules.register(
    "ddpm-linear",
    formula="beta_k linear from beta_min to beta_max (times 1000/levels if scaled); alpha_k^2 = prod (1 - beta_i)",
    source="Ho et al. 2020, section 4; scaling to few levels: Nichol & Dhariwal 2021",
    document="S0 levels 1 and 2, S2 section 2",
)
@dataclass(frozen=True)
class DDPMLinear(Chain):
    """The chain of DDPM, by default with 100 levels.

    With few levels the betas must grow, or the chain does not end in noise: unscaled betas over 100
    levels leave ``alpha^2 = 0.36`` of the data's power. `scaled` multiplies them by
    ``1000 / levels``.
    """

    levels: int = 100
    beta_min: float = 1e-4
    beta_max: float = 0.02
    scaled: bool = True

    def _check(self) -> None:
        _check_betas("ddpm-linear", self.beta_min, self.beta_max)
        _check_last(self.betas)

    @cached_property
    def betas(self) -> np.ndarray:
        """One-step variances, ``[levels]``."""
        scale = 1000 / self.levels if self.scaled else 1.0
        return np.linspace(self.beta_min, self.beta_max, self.levels) * scale


@schedules.register(
    "ddpm-scaled-linear",
    formula="sqrt(beta_k) linear from sqrt(beta_min) to sqrt(beta_max) (beta_k times 1000/levels if scaled)",
    source="Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022 (its code)",
)
@dataclass(frozen=True)
class DDPMScaledLinear(Chain):
    """The chain of Stable Diffusion. Its end is *not* noise: ``alpha = 0.068`` of the data is left
    (see `end_warning`).

    The "scaled" of its name means linear in the root; the parameter `scaled` means what it means
    for `ddpm-linear`.
    """

    levels: int = 1000
    beta_min: float = 0.00085
    beta_max: float = 0.012
    scaled: bool = True

    def _check(self) -> None:
        _check_betas("ddpm-scaled-linear", self.beta_min, self.beta_max)
        _check_last(self.betas)

    @cached_property
    def betas(self) -> np.ndarray:
        """One-step variances, ``[levels]``."""
        scale = 1000 / self.levels if self.scaled else 1.0
        roots = np.linspace(math.sqrt(self.beta_min), math.sqrt(self.beta_max), self.levels)
        return scale * roots**2


@schedules.register(
    "ddpm-cosine",
    formula="1 - beta_k = f(k/T) / f((k-1)/T), f(t) = cos^2(pi/2 (t+s)/(1+s)), beta_k <= beta_max",
    source="Nichol & Dhariwal 2021, eq. 17",
    document="S0 level 4 (iDDPM)",
)
@dataclass(frozen=True)
class DDPMCosine(Chain):
    """The chain of improved DDPM. Without the bound on beta, which binds at the last level, its end
    would be alpha = 0.

    Its noise-to-signal ratios are the levels of `iddpm`, which takes them for times of
    ``alpha = 1``.
    """

    levels: int = 1000
    s: float = 0.008
    beta_max: float = 0.999

    def _check(self) -> None:
        require(
            0 <= self.s <= 1 and 0 < self.beta_max < 1,
            f"ddpm-cosine needs 0 <= s <= 1 and 0 < beta_max < 1, found s={self.s}, beta_max={self.beta_max}",
        )

    @cached_property
    def betas(self) -> np.ndarray:
        """One-step variances, ``[levels]``."""
        theta = 0.5 * np.pi * (np.arange(self.levels + 1) / self.levels + self.s) / (1 + self.s)
        # 1 - cos^2 b / cos^2 a = sin(b - a) sin(b + a) / cos^2 a
        betas = np.sin(np.diff(theta)) * np.sin(theta[1:] + theta[:-1]) / np.cos(theta[:-1]) ** 2
        return np.asarray(np.minimum(betas, self.beta_max))


@schedules.register(
    "vp-constant",
    formula="x_k = sqrt(1 - s^2) x_{k-1} + s eps_k, s = step_noise: alpha_k^2 = (1 - s^2)^k",
    source="Ho et al. 2020, eq. 2 with constant beta = s^2",
    document="S3 section 1.1.1 (sigma = 0.2, T = 200)",
)
@dataclass(frozen=True)
class VPConstant(Chain):
    """The same move again and again, with noise of standard deviation `step_noise` in each."""

    levels: int = 200
    step_noise: float = 0.2

    def _check(self) -> None:
        require(0 < self.step_noise < 1, f"vp-constant needs 0 < step_noise < 1, found {self.step_noise}")

    @cached_property
    def betas(self) -> np.ndarray:
        """One-step variances, ``[levels]``."""
        return np.full(self.levels, self.step_noise**2)


@schedules.register(
    "iddpm",
    formula="sigma = t, alpha = 1, with the levels u_j of the cosine schedule: u_{j-1}^2 + 1 = (u_j^2 + 1) / max(a_{j-1}/a_j, C1)",
    source="Nichol & Dhariwal 2021; Karras et al. 2022, Table 1, column iDDPM + DDIM",
    document="S0 level 4",
)
@dataclass(frozen=True)
class IDDPM(NoiseAsTime):
    """Improved DDPM in EDM's terms: continuous noise-as-time, but networks and grid know the levels
    ``u_j`` only.

    ``a_j = sin^2(pi j / (2 M (C2 + 1)))``, ``u_M = 0``; sampling starts at ``u_{j0}``.
    """

    levels: int = 1000
    c1: float = 0.001
    c2: float = 0.008
    j0: int = 8
    own_grid: ClassVar[str] = "discrete"

    def __post_init__(self) -> None:
        if not (2 <= self.levels <= _MOST_LEVELS and 0 <= self.j0 < self.levels - 1):
            raise WrongValue(
                f"iddpm needs 2 to {_MOST_LEVELS} levels and 0 <= j0 < levels - 1, found {self.levels} and {self.j0}"
            )
        if not (0 < self.c1 < 1 and self.c2 > 0):
            raise WrongValue("iddpm needs 0 < c1 < 1 and c2 > 0")

    @cached_property
    def noise_levels(self) -> np.ndarray:
        """u_0 > ... > u_{M-1}, ``[levels]``."""
        a = np.sin(0.5 * np.pi * np.arange(self.levels + 1) / self.levels / (self.c2 + 1)) ** 2
        u = np.zeros(self.levels + 1)
        for j in range(self.levels, 0, -1):
            u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(a[j - 1] / a[j], self.c1) - 1)
        return u[: self.levels]

    def middles(self, device: torch.device) -> Tensor:
        """Half way between neighbouring levels, rising, ``[levels - 1]``; not to be written to."""
        if device not in self._places:
            with torch.inference_mode(mode=False):  # whatever mode the first who asks is in
                rising = torch.as_tensor(self.noise_levels[::-1].copy())
                self._places[device] = to_device((rising[1:] + rising[:-1]) / 2, device)
        return self._places[device]

    @cached_property
    def _places(self) -> DeviceCopies[Tensor]:
        return DeviceCopies()

    @property
    def max_steps(self) -> int | None:
        return self.levels - self.j0

    @property
    def level_times(self) -> Tensor:
        return torch.as_tensor(self.noise_levels[self.j0 :].copy())

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
