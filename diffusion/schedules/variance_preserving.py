r"""Continuous schedules on which data and noise share a fixed variance (and sub-VP, on which they
share less).

With ``alpha = exp(-B/2)``, B the integral of beta, the SDE is
``dx = -beta/2 x dt + sqrt(beta) dw``. The Euler-Maruyama step of length dt is
``x' = (1 - beta dt/2) x + sqrt(beta dt) z``; the chain of the discrete schedules is
``x' = sqrt(1 - beta dt) x + sqrt(beta dt) z``. Differences of nearly equal numbers are written as
products throughout, so that sigma keeps its digits at small t and alpha near the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.schedules.base import (
    LARGEST_EXPONENT,
    Schedule,
    UnitCircle,
    VariancePreserving,
    check_times,
    require,
    schedules,
)


@schedules.register(
    "vp-linear",
    formula="B(t) = beta_d t^2 / 2 + beta_min t; alpha = exp(-B/2), sigma^2 = 1 - exp(-B)",
    source="Song et al., SDE, ICLR 2021; Karras et al. 2022, Table 1, column VP",
    document="S0 level 3 (with the sign of the exponent corrected)",
)
@dataclass(frozen=True)
class VPLinear(VariancePreserving):
    """The continuous variance-preserving schedule with linear beta, ``0 <= t <= 1``; steps uniform
    in t.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    epsilon_s: float = 1e-3

    def __post_init__(self) -> None:
        _check_linear_beta("vp-linear", self.beta_d, self.beta_min)
        require(0 < self.epsilon_s < 1, f"vp-linear needs 0 < epsilon_s < 1, found {self.epsilon_s}")

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
        return _root_of_linear_beta(b, self.beta_d, self.beta_min)


def _check_linear_beta(name: str, beta_d: float, beta_min: float) -> None:
    require(
        beta_d > 0 and beta_min > 0 and 0.5 * beta_d + beta_min <= LARGEST_EXPONENT,
        f"{name} needs beta_d > 0, beta_min > 0 and beta_d / 2 + beta_min <= {LARGEST_EXPONENT:g}, "
        f"found beta_d={beta_d}, beta_min={beta_min}",
    )


def _root_of_linear_beta(b: Tensor, beta_d: float, beta_min: float) -> Tensor:
    # the root of the quadratic in the form that does not cancel for small b
    return 2 * b / (beta_min + torch.sqrt(beta_min**2 + 2 * beta_d * b))


@schedules.register(
    "vp-exponential",
    formula="alpha = exp(-t), sigma^2 = 1 - exp(-2t): f = -1, g = sqrt(2)",
    source="the Ornstein-Uhlenbeck process; Song et al., SDE, ICLR 2021 with beta = 2",
    document="S0 level 3 (where g = 2 is wrong)",
)
@dataclass(frozen=True)
class VPExponential(VariancePreserving):
    """Constant beta = 2. The end ``t_max = 5`` leaves ``alpha = 0.0067`` of the data, as much as
    `vp-linear` does.

    Noise grows as sqrt(2t), so that equal steps in t would spend nearly all of them where little is
    left to find out; its own grid takes equal steps in log nsr.
    """

    t_min: float = 1e-4
    t_max: float = 5.0
    own_grid: ClassVar[str] = "uniform-log-snr"

    def __post_init__(self) -> None:
        check_times("vp-exponential", self.t_min, self.t_max, LARGEST_EXPONENT / 2)

    def integrated_beta(self, t: Tensor) -> Tensor:
        return 2 * t

    def beta(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 2.0)

    def time_of_integrated_beta(self, b: Tensor) -> Tensor:
        return b / 2


@schedules.register(
    "vp-cosine",
    formula="alpha = cos(theta) / cos(theta_0), theta = pi/2 (t+s)/(1+s); s = 0: alpha = cos(pi t/2), sigma = sin(pi t/2)",
    source="Nichol & Dhariwal 2021, eq. 17; s = 0: Salimans & Ho, ICLR 2022; t_max: Lu et al., DPM-Solver, NeurIPS 2022",
    document="S0 level 4 (the continuous form of iDDPM's levels)",
)
@dataclass(frozen=True)
class VPCosine(UnitCircle):
    """The cosine schedule, continuous in time.

    At ``t = 1`` no data are left and the noise-to-signal ratio is infinite. By default it ends at
    0.9946, DPM-Solver's choice (alpha = 0.0084); ``t_max: 1`` ends with ``alpha = 0`` exactly.
    """

    s: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.9946

    def __post_init__(self) -> None:
        require(0 <= self.s <= 1, f"vp-cosine needs 0 <= s <= 1, found {self.s}")
        check_times("vp-cosine", self.t_min, self.t_max, 1)

    @property
    def _rate(self) -> float:
        return 0.5 * math.pi / (1 + self.s)  # d theta / dt

    @property
    def _start(self) -> float:
        return self._rate * self.s  # theta_0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(self._rate * (1 - t)) / math.cos(self._start)

    def sigma(self, t: Tensor) -> Tensor:
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a)
        travelled = self._rate * t
        return torch.sqrt(torch.sin(travelled) * torch.sin(travelled + 2 * self._start)) / math.cos(self._start)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -self._rate * torch.sin(self._rate * t + self._start) / math.cos(self._start)

    def time_of(self, nsr: Tensor) -> Tensor:
        sine, cosine = math.sin(self._start), math.cos(self._start)
        signal = 1 / (1 + nsr**2)  # alpha^2
        noise = 1 / (1 + nsr**-2)  # sigma^2
        sine_end, cosine_end = torch.sqrt(sine**2 + noise * cosine**2), torch.sqrt(signal) * cosine
        # sin(b - a) from the identity above, cos(b - a) by the addition theorem: neither subtracts
        sine_travelled = noise * cosine**2 / (sine_end * cosine + cosine_end * sine)
        travelled = torch.atan(sine_travelled / (cosine_end * cosine + sine_end * sine))
        t = torch.where(signal == 0, 1.0, travelled / self._rate)
        return torch.where(nsr == 0, 0.0, t)


@schedules.register(
    "vp-sigmoid",
    formula="alpha^2 = (S(end/tau) - S(u)) / (S(end/tau) - S(start/tau)), u = (start + t (end - start))/tau, S the sigmoid",
    source="Jabri et al., Scalable Adaptive Computation for Iterative Generation, 2022; Chen 2023, arXiv:2301.10972",
)
@dataclass(frozen=True)
class VPSigmoid(UnitCircle):
    """The sigmoid schedule, which spends its time at middling noise.

    alpha falls to zero at ``t = 1`` as a square root, with an infinite slope; the default end
    leaves alpha = 0.0055 (Chen cuts alpha^2 off at 1e-9). Own steps are even in log nsr: Euler's
    rule in t would have to resolve that root.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    t_min: float = 1e-3
    t_max: float = 0.9999
    own_grid: ClassVar[str] = "uniform-log-snr"

    def __post_init__(self) -> None:
        require(
            self.tau > 0 and -100 * self.tau <= self.start < self.end <= 100 * self.tau,
            f"vp-sigmoid needs tau > 0 and -100 tau <= start < end <= 100 tau, "
            f"found start={self.start}, end={self.end}, tau={self.tau}",
        )
        check_times("vp-sigmoid", self.t_min, self.t_max, 1, reached=False)

    @property
    def _half(self) -> float:
        return 0.5 * (self.end - self.start) / self.tau

    @property
    def _ends(self) -> tuple[float, float]:
        return 0.5 * self.start / self.tau, 0.5 * self.end / self.tau

    # S(a) - S(b) = sinh((a-b)/2) / (2 cosh(a/2) cosh(b/2))

    def alpha(self, t: Tensor) -> Tensor:
        first, _ = self._ends
        share = torch.sinh(self._half * (1 - t)) / math.sinh(self._half)
        return torch.sqrt(share * math.cosh(first) / torch.cosh(first + self._half * t))

    def sigma(self, t: Tensor) -> Tensor:
        first, last = self._ends
        share = torch.sinh(self._half * t) / math.sinh(self._half)
        return torch.sqrt(share * math.cosh(last) / torch.cosh(first + self._half * t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        first, last = self._ends
        falling = torch.sinh(self._half * (1 - t)) * torch.cosh(first + self._half * t)
        return -0.5 * self._half * self.alpha(t) * math.cosh(last) / falling

    def nsr(self, t: Tensor) -> Tensor:
        first, last = self._ends
        ratio = torch.sinh(self._half * t) / torch.sinh(self._half * (1 - t))
        return torch.sqrt(ratio * (math.cosh(last) / math.cosh(first)))

    def time_of(self, nsr: Tensor) -> Tensor:
        first, last = self._ends
        inverse_ratio = math.cosh(last) / math.cosh(first) * nsr**-2
        grown = 2 * math.sinh(self._half) / (inverse_ratio + math.exp(-self._half))
        return 0.5 * torch.log1p(grown) / self._half


@schedules.register(
    "sub-vp",
    formula="alpha = exp(-B/2), sigma = 1 - exp(-B), B = beta_d t^2 / 2 + beta_min t: f = -beta/2, g^2 = beta (1 - exp(-2B))",
    source="Song et al., SDE, ICLR 2021, eq. 29 and appendix B",
)
@dataclass(frozen=True)
class SubVP(Schedule):
    """The sub-VP SDE: the data as in `vp-linear`, the noise's *standard deviation* what there is
    its variance.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_linear_beta("sub-vp", self.beta_d, self.beta_min)
        check_times("sub-vp", self.t_min, self.t_max, 1)

    def integrated_beta(self, t: Tensor) -> Tensor:
        """B(t), the integral of beta from 0."""
        return 0.5 * self.beta_d * t**2 + self.beta_min * t

    def beta(self, t: Tensor) -> Tensor:
        """beta(t) = B'(t)."""
        return self.beta_d * t + self.beta_min

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.integrated_beta(t))

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integrated_beta(t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t) * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.beta(t) * torch.exp(-self.integrated_beta(t))

    def nsr(self, t: Tensor) -> Tensor:
        return 2 * torch.sinh(0.5 * self.integrated_beta(t))

    def time_of(self, nsr: Tensor) -> Tensor:
        return _root_of_linear_beta(2 * torch.asinh(0.5 * nsr), self.beta_d, self.beta_min)
