"""What a schedule is: the amplitudes of data and noise, their derivatives, the inverse, and what
follows from them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from diffusion.arguments import of_numbers, wrap_own
from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.registry import Component, Registry

schedules: Registry[Schedule] = Registry("schedule")

GAUSSIAN_ENOUGH = 0.025
"""The largest ``alpha rms / sigma`` at t_max for which the start noise passes for the law of x_t.

By the convexity of the Kullback-Leibler divergence that of the law of x_t from ``N(0, sigma^2)`` is
at most half the square of this ratio, per coordinate, whatever the data; by Pinsker's inequality
their total variation is then at most half the ratio: 0.025 means that at most one draw in eighty
can be told apart. (``N(0, 1)`` in place of it, where variance is preserved, adds to the divergence
a term of the order of alpha^4.)
"""

_FUNCTIONS_OF_TIME = (
    *("alpha", "sigma", "alpha_dot", "sigma_dot", "nsr", "time_of", "drift", "diffusion_squared"),
    *("beta", "integrated_beta", "time_of_integrated_beta"),
)

LARGEST_EXPONENT = 700.0  # B up to here leaves alpha^2 = exp(-B) and its inverse within float64


def require(holds: bool, message: str) -> None:
    """Raise WrongValue unless a parameter is acceptable; `message` says what is."""
    if not holds:
        raise WrongValue(message)


@dataclass(frozen=True)
class Schedule(Component):
    """alpha(t), sigma(t) on ``0 <= t <= t_max``, ``alpha(0) = 1`` and ``sigma(0) = 0``.

    A schedule may end with ``alpha(t_max) = 0`` exactly. There nsr is infinite, f minus and g^2
    plus infinity; the amplitudes and their derivatives are finite, `time_of` of an infinite ratio
    is t_max, and nothing is NaN.

    Times and ratios are float64 tensors of any shape; a plain number is taken for a tensor without
    axes.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        wrap_own(cls, _FUNCTIONS_OF_TIME, of_numbers)

    own_grid: ClassVar[str] = "uniform-t"
    variance_preserving: ClassVar[bool] = False  # alpha^2 + sigma^2 = 1

    def fitted(self, dataset: Dataset) -> Schedule:  # noqa: ARG002
        """The schedule for this data set: itself, but for one that chooses levels from the data.
        Idempotent.
        """
        return self

    @property
    def max_steps(self) -> int | None:
        """Number of noise levels of a discrete schedule from which sampling may choose; None for a
        continuous one.
        """
        return None

    @property
    def noise_levels(self) -> np.ndarray:
        """nsr at every level on which a discrete schedule is *trained*, noisiest first,
        ``[levels]``.

        Raises:
            WrongValue: the schedule is continuous.
        """
        raise self._continuous("noise levels were")

    @property
    def level_times(self) -> Tensor:
        """The times of all levels from which *sampling* may choose, noisiest first,
        ``[max_steps]``.

        Raises:
            WrongValue: the schedule is continuous.
        """
        raise self._continuous("level times were")

    def own_times(self, steps: int) -> Tensor:
        """`steps` of a discrete schedule's own noisy levels, evenly spread over their numbers,
        noisiest first.

        Raises:
            WrongValue: the schedule is continuous.
        """
        raise self._continuous(f"{steps}")

    def _continuous(self, requested: str) -> WrongValue:
        return WrongValue(
            f"schedule {self.registered_name!r} is continuous: it has no levels of its own ({requested} asked for)"
        )

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The smallest time with noise at which sampling evaluates the denoiser; from there one
        step leads to 0.
        """

    @property
    @abstractmethod
    def t_max(self) -> float:
        """The time of the start noise, which is drawn from ``N(0, prior_std^2 I)``."""

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

    @of_numbers
    def nsr(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio sigma / alpha."""
        return self.sigma(t) / self.alpha(t)

    @of_numbers
    def drift(self, t: Tensor) -> Tensor:
        """f(t) of ``dx = f x dt + g dw``."""
        return self.alpha_dot(t) / self.alpha(t)

    @of_numbers
    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g(t)^2 of ``dx = f x dt + g dw``."""
        sigma = self.sigma(t)
        return 2 * sigma * self.sigma_dot(t) - 2 * self.drift(t) * sigma**2

    @property
    def prior_std(self) -> float:
        """Standard deviation of the start noise, 1 (the stationary law) if variance is preserved,
        else sigma(t_max).
        """
        return 1.0 if self.variance_preserving else float(self.sigma(torch.tensor([self.t_max], dtype=torch.float64)))

    @property
    def terminal_nsr(self) -> float:
        """sigma / alpha at t_max; infinite where no data are left."""
        return float(self.nsr(torch.tensor([self.t_max], dtype=torch.float64)))

    @property
    def terminal_snr(self) -> float:
        """(alpha / sigma)^2 at t_max; zero where no data are left."""
        return self.terminal_nsr**-2

    def end_warning(self, data_rms: float) -> str | None:
        """One line where the end of the schedule is not Gaussian enough for data of this root mean
        square, or None.

        The threshold is `GAUSSIAN_ENOUGH`. Source of the concern: Lin et al., "Common Diffusion
        Noise Schedules and Sample Steps are Flawed", WACV 2024.
        """
        ratio = data_rms / self.terminal_nsr
        if ratio <= GAUSSIAN_ENOUGH:
            return None
        return (
            f"schedule {self.label()} does not end in noise: there, data of rms {data_rms:.3g} are still {ratio:.2g} of the "
            f"noise (up to {GAUSSIAN_ENOUGH} is good enough), an error of its start noise that no number of steps removes"
        )


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    """``alpha^2 + sigma^2 = 1`` with ``alpha = exp(-B/2)``; subclasses give B(t), its derivative
    beta(t) and its inverse.
    """

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


@dataclass(frozen=True)
class UnitCircle(Schedule):
    """``alpha^2 + sigma^2 = 1`` where alpha and sigma have forms of their own; subclasses give
    both, and alpha'.
    """

    variance_preserving: ClassVar[bool] = True

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -self.alpha(t) * self.alpha_dot(t) / self.sigma(t)


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """``alpha = 1``: noise is added to data that keep their size."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


@dataclass(frozen=True)
class NoiseAsTime(VarianceExploding):
    """``sigma = t``: time *is* the noise level, and the flow's paths are straight wherever the
    denoiser is constant.
    """

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time_of(self, nsr: Tensor) -> Tensor:
        return nsr.clone()


def check_sigmas(sigma_min: float, sigma_max: float) -> None:
    """Raise WrongValue unless two noise levels are in order and their squares within float64."""
    require(0 < sigma_min < sigma_max, f"0 < sigma_min < sigma_max is needed, found {sigma_min} and {sigma_max}")
    require(
        sigma_min >= 1e-100 and sigma_max <= 1e100,
        f"sigma_min and sigma_max must lie between 1e-100 and 1e100, found {sigma_min} and {sigma_max}",
    )


def check_times(name: str, t_min: float, t_max: float, largest: float, *, reached: bool = True) -> None:
    """Raise WrongValue unless ``0 < t_min < t_max <= largest`` (``< largest`` where the end is not
    `reached`).
    """
    in_order = 0 < t_min < t_max and math.isfinite(t_max) and (t_max <= largest if reached else t_max < largest)
    require(
        in_order,
        f"{name} needs 0 < t_min < t_max {'<=' if reached else '<'} {largest:g}, found t_min={t_min}, t_max={t_max}",
    )
