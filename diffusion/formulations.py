r"""Formulations: a schedule, a parametrization, noise levels for training and a weight, as one named choice.

The four columns of Table 1 of Karras et al. (2022) with that paper's values, the discrete DDPM of the lecture, and `exact`,
which has no network: the ideal denoiser of the target, known in closed form or by quadrature.

| formulation | schedule | parametrization | training noise | weight | c_noise |
|---|---|---|---|---|---|
| `vp` | `vp-linear` | `epsilon` | t uniform on [1e-5, 1] | 1/sigma^2 | 999 t |
| `ve` | `ve-linear` | `score` | ln sigma uniform | 1/sigma^2 | ln(sigma/2) |
| `iddpm` | `iddpm` | `epsilon` | levels u_j, uniform | 1/sigma^2 | M - 1 - (number of the nearest level) |
| `edm` | `edm` | `edm` | ln sigma ~ N(-1.2, 1.2^2) | (sigma^2+s^2)/(sigma s)^2 | ln(sigma)/4 |
| `ddpm` | `ddpm-linear`, 100 levels | `epsilon` | levels, uniform | 1/sigma^2 | k |

`sigma` is the noise-to-signal ratio and s the data's standard deviation.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion.objectives import (
    LogNormal,
    LogUniform,
    NoiseLevels,
    OwnLevels,
    SignalToNoise,
    UniformTime,
    UnitVariance,
    Weighting,
)
from diffusion.parametrizations import Epsilon, Parametrization, Preconditioned, Score
from diffusion.registry import Component, Registry
from diffusion.schedules import EDM, IDDPM, DDPMLinear, Schedule, VELinear, VPLinear, schedules

formulations: Registry[Formulation] = Registry("formulation")


@dataclass(frozen=True)
class Formulation(Component):
    """A named point of the design space."""

    @abstractmethod
    def own_schedule(self) -> Schedule:
        """The schedule this formulation is defined with."""

    def refuses(self, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why this formulation cannot be trained on the schedule, or None."""
        return None


@dataclass(frozen=True)
class Trained(Formulation):
    """A formulation with a network."""

    parametrization: ClassVar[Parametrization]
    weighting: ClassVar[Weighting]

    @property
    @abstractmethod
    def noise_levels(self) -> NoiseLevels:
        """Distribution of noise-to-signal ratios in training."""

    @abstractmethod
    def noise_label(self, sigma: Tensor, schedule: Schedule) -> Tensor:
        """c_noise: what the network is told of the noise level, any shape."""


@formulations.register(
    "vp",
    formula="D = y - sigma F(y/sqrt(sigma^2+1); 999 t), t ~ U(1e-5, 1), lambda = 1/sigma^2",
    source="Song et al. 2021; Karras et al. 2022, Table 1, column VP",
    seed="S0 levels 3 and 4",
)
@dataclass(frozen=True)
class VP(Trained):
    """Variance preserving, continuous in time."""

    epsilon_t: float = 1e-5
    parametrization: ClassVar[Parametrization] = Epsilon()
    weighting: ClassVar[Weighting] = SignalToNoise()

    def own_schedule(self) -> Schedule:
        return VPLinear()

    def refuses(self, schedule: Schedule) -> str | None:
        if not schedule.variance_preserving or schedule.max_steps is not None:
            return f"'vp' needs a continuous variance-preserving schedule, and {schedule.registered_name!r} is not one"
        return None

    @property
    def noise_levels(self) -> NoiseLevels:
        return UniformTime(self.epsilon_t)

    def noise_label(self, sigma: Tensor, schedule: Schedule) -> Tensor:
        return 999 * schedule.time_of(sigma)


@formulations.register(
    "ve",
    formula="D = y + sigma F(y; ln(sigma/2)), ln sigma ~ U(ln sigma_min, ln sigma_max), lambda = 1/sigma^2",
    source="Song et al. 2021; Karras et al. 2022, Table 1, column VE",
    seed="S0 levels 3 and 4",
)
@dataclass(frozen=True)
class VE(Trained):
    """Variance exploding: the network sees inputs of the size of the noise."""

    parametrization: ClassVar[Parametrization] = Score()
    weighting: ClassVar[Weighting] = SignalToNoise()

    def own_schedule(self) -> Schedule:
        return VELinear()

    @property
    def noise_levels(self) -> NoiseLevels:
        return LogUniform()

    def noise_label(self, sigma: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        return torch.log(0.5 * sigma)


@formulations.register(
    "iddpm",
    formula="D = y - sigma F(y/sqrt(sigma^2+1); M-1-argmin_j |u_j - sigma|), sigma = u_j, j uniform, lambda = 1/sigma^2",
    source="Nichol & Dhariwal 2021; Karras et al. 2022, Table 1, column iDDPM + DDIM",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class ImprovedDDPM(Trained):
    """Improved DDPM: the levels of the cosine schedule, noise prediction."""

    parametrization: ClassVar[Parametrization] = Epsilon()
    weighting: ClassVar[Weighting] = SignalToNoise()

    def own_schedule(self) -> Schedule:
        return IDDPM()

    def refuses(self, schedule: Schedule) -> str | None:
        if not isinstance(schedule, IDDPM):
            return f"'iddpm' is tied to its own levels (schedule 'iddpm'), and {schedule.registered_name!r} does not have them"
        return None

    @property
    def noise_levels(self) -> NoiseLevels:
        return OwnLevels()

    def noise_label(self, sigma: Tensor, schedule: Schedule) -> Tensor:
        assert isinstance(schedule, IDDPM)  # noqa: S101 - `refuses` keeps others out
        rising = torch.as_tensor(schedule.noise_levels[::-1].copy())
        middles = (rising[1:] + rising[:-1]) / 2
        return torch.searchsorted(middles, sigma.contiguous()).to(torch.float64)


@formulations.register(
    "edm",
    formula="D = c_skip y + c_out F(c_in y; ln(sigma)/4), ln sigma ~ N(P_mean, P_std^2), lambda = 1/c_out^2",
    source="Karras et al. 2022, Table 1, column EDM",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class ElucidatedDM(Trained):
    """EDM: preconditioned network, log-normal noise levels."""

    p_mean: float = -1.2
    p_std: float = 1.2
    parametrization: ClassVar[Parametrization] = Preconditioned()
    weighting: ClassVar[Weighting] = UnitVariance()

    def __post_init__(self) -> None:
        if not self.p_std > 0:
            raise ValueError(f"p_std must be positive, found {self.p_std}")

    def own_schedule(self) -> Schedule:
        return EDM()

    @property
    def noise_levels(self) -> NoiseLevels:
        return LogNormal(self.p_mean, self.p_std)

    def noise_label(self, sigma: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        return torch.log(sigma) / 4


@formulations.register(
    "ddpm",
    formula="|eps - eps_theta(alpha_k x_0 + sigma_k eps, k)|^2, k uniform on 1..T",
    source="Ho et al. 2020, eq. 14",
    seed="S0 levels 1 and 2, S2 sections 2.7 and 2.8",
)
@dataclass(frozen=True)
class DDPM(Trained):
    """The discrete chain of the lecture: 100 noise levels, betas scaled so that the end is Gaussian."""

    parametrization: ClassVar[Parametrization] = Epsilon()
    weighting: ClassVar[Weighting] = SignalToNoise()

    def own_schedule(self) -> Schedule:
        return DDPMLinear()

    def refuses(self, schedule: Schedule) -> str | None:
        if not (schedule.variance_preserving and schedule.max_steps is not None):
            return (
                f"'ddpm' needs a discrete variance-preserving schedule (such as 'ddpm-linear'), "
                f"and {schedule.registered_name!r} is not one"
            )
        return None

    @property
    def noise_levels(self) -> NoiseLevels:
        return OwnLevels()

    def noise_label(self, sigma: Tensor, schedule: Schedule) -> Tensor:
        return schedule.time_of(sigma)


@formulations.register(
    "exact",
    formula="D(y; sigma) = E[x_0 | x_0 + sigma eps = y], in closed form or by quadrature",
    source="Tweedie's formula: Robbins 1956; Efron, JASA 106 (2011)",
    seed="S0 level 3 (the score as a posterior mean)",
)
@dataclass(frozen=True)
class Exact(Formulation):
    """No network: the target's ideal denoiser on the named schedule."""

    schedule: str | dict[str, Any] = "edm"

    def own_schedule(self) -> Schedule:
        if isinstance(self.schedule, str):
            return schedules.create(self.schedule)
        parameters = dict(self.schedule)
        return schedules.create(parameters.pop("name"), **parameters)
