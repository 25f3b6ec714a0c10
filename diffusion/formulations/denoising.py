r"""Denoising formulations: a schedule, a parametrization, noise levels for training and a weight,
as one named choice.

The four columns of Table 1 of Karras et al. (2022) with that paper's values, the discrete DDPM of
the lecture, later points of the space, and `denoising`, in which every part is chosen by name.

| formulation | schedule | parametrization | training noise | weight | c_noise |
|---|---|---|---|---|---|
| `vp` | `vp-linear` | `epsilon` | t uniform on [1e-5, 1] | 1/nsr^2 | 999 t |
| `ve` | `ve-linear` | `score` | ln nsr uniform | 1/nsr^2 | ln(nsr/2) |
| `iddpm` | `iddpm` | `epsilon` | levels u_j, uniform | 1/nsr^2 | M - 1 - (number of the nearest level) |
| `edm` | `edm` | `edm` | ln nsr ~ N(-1.2, 1.2^2) | (nsr^2+s^2)/(nsr s)^2 | ln(nsr)/4 |
| `ddpm` | `ddpm-linear`, 100 levels | `epsilon` | levels, uniform | 1/nsr^2 | k |
| `level-1` | `ddpm-linear`, 100 levels | `epsilon` | levels, uniform | B_k^2/beta_k^2 | k |
| `v-prediction` | `vp-cosine` | `v` | t uniform | SNR + 1 | atan(nsr) |
| `flow` | `flow` | `flow-velocity` | t uniform | that of the velocity, unweighted | t |
| `edm2` | `edm` | `edm` | ln nsr ~ N(-0.4, 1) | that of `edm`, divided by learned e^u | ln(nsr)/4 |
| `denoising` | any | any | any | any | ln(nsr)/4, t or atan(nsr) |

`nsr` is the noise-to-signal ratio sigma/alpha and s the data's standard deviation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.errors import WrongValue
from diffusion.formulations.base import NoiseConditional, formulations
from diffusion.objectives import (
    LastStep,
    LearnedUncertainty,
    LogNormal,
    LogUniform,
    NoiseLevels,
    NoiseTarget,
    OwnLevels,
    SignalToNoise,
    Simple,
    SingleLevel,
    UniformTime,
    UnitVariance,
    Weighting,
)
from diffusion.objectives.parametrizations import (
    Epsilon,
    FlowVelocity,
    Parametrization,
    Preconditioned,
    PredictedScore,
    Velocity,
)
from diffusion.schedules import EDM, IDDPM, DDPMLinear, Flow, Schedule, VELinear, VPCosine, VPLinear


@formulations.register(
    "vp",
    formula="D = y - sigma F(y/sqrt(sigma^2+1); 999 t), t ~ U(1e-5, 1), lambda = 1/sigma^2",
    source="Song et al., SDE, ICLR 2021; Karras et al. 2022, Table 1, column VP",
    document="S0 levels 3 and 4",
)
@dataclass(frozen=True)
class VP(NoiseConditional):
    """Variance preserving, continuous in time."""

    epsilon_t: float = 1e-5
    parametrization: ClassVar[Parametrization] = Epsilon()
    weighting: ClassVar[Weighting] = SignalToNoise()

    def __post_init__(self) -> None:
        UniformTime(self.epsilon_t)  # refuses what it cannot use

    def own_schedule(self) -> Schedule:
        return VPLinear()

    def refuses(self, schedule: Schedule) -> str | None:
        if not schedule.variance_preserving or schedule.max_steps is not None:
            return f"'vp' needs a continuous variance-preserving schedule, and {schedule.registered_name!r} is not one"
        return super().refuses(schedule)

    @property
    def noise_levels(self) -> NoiseLevels:
        return UniformTime(self.epsilon_t)

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:
        return 999 * schedule.time_of(nsr)


@formulations.register(
    "ve",
    formula="D = y + sigma F(y; ln(sigma/2)), ln sigma ~ U(ln sigma_min, ln sigma_max), lambda = 1/sigma^2",
    source="Song et al., SDE, ICLR 2021; Karras et al. 2022, Table 1, column VE",
    document="S0 levels 3 and 4",
)
@dataclass(frozen=True)
class VE(NoiseConditional):
    """Variance exploding: the network sees inputs of the size of the noise."""

    parametrization: ClassVar[Parametrization] = PredictedScore()
    weighting: ClassVar[Weighting] = SignalToNoise()

    def own_schedule(self) -> Schedule:
        return VELinear()

    noise_levels: ClassVar[NoiseLevels] = LogUniform()

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        return torch.log(0.5 * nsr)


@formulations.register(
    "iddpm",
    formula="D = y - sigma F(y/sqrt(sigma^2+1); M-1-argmin_j |u_j - sigma|), sigma = u_j, j uniform, lambda = 1/sigma^2",
    source="Nichol & Dhariwal 2021; Karras et al. 2022, Table 1, column iDDPM + DDIM",
    document="S0 level 4",
)
@dataclass(frozen=True)
class ImprovedDDPM(NoiseConditional):
    """Improved DDPM: the levels of the cosine schedule, noise prediction."""

    parametrization: ClassVar[Parametrization] = Epsilon()
    weighting: ClassVar[Weighting] = SignalToNoise()

    def own_schedule(self) -> Schedule:
        return IDDPM()

    def refuses(self, schedule: Schedule) -> str | None:
        if not isinstance(schedule, IDDPM):
            return f"'iddpm' is tied to its own levels (schedule 'iddpm'), and {schedule.registered_name!r} does not have them"
        return super().refuses(schedule)

    noise_levels: ClassVar[NoiseLevels] = OwnLevels()

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:
        assert isinstance(schedule, IDDPM)  # noqa: S101 - `refuses` keeps others out
        return torch.searchsorted(schedule.middles(nsr.device), nsr.contiguous()).to(torch.float64)


@formulations.register(
    "edm",
    formula="D = c_skip y + c_out F(c_in y; ln(sigma)/4), ln sigma ~ N(P_mean, P_std^2), lambda = 1/c_out^2",
    source="Karras et al. 2022, Table 1, column EDM",
    document="S0 level 4",
)
@dataclass(frozen=True)
class ElucidatedDM(NoiseConditional):
    """EDM: preconditioned network, log-normal noise levels."""

    p_mean: float = -1.2
    p_std: float = 1.2
    parametrization: ClassVar[Parametrization] = Preconditioned()
    weighting: ClassVar[Weighting] = UnitVariance()

    def __post_init__(self) -> None:
        if not self.p_std > 0:
            raise WrongValue(f"p_std must be positive, found {self.p_std}")
        LogNormal(self.p_mean, self.p_std)  # refuses what it cannot use

    def own_schedule(self) -> Schedule:
        return EDM()

    @property
    def noise_levels(self) -> NoiseLevels:
        return LogNormal(self.p_mean, self.p_std)

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        return torch.log(nsr) / 4


@formulations.register(
    "ddpm",
    formula="|eps - eps_theta(alpha_k x_0 + sigma_k eps, k)|^2, k uniform on 1..T",
    source="Ho et al. 2020, eq. 14",
    document="S0 levels 1 and 2, S2 sections 2.7 and 2.8",
)
@dataclass(frozen=True)
class DDPM(NoiseConditional):
    """The discrete chain of the lecture: 100 noise levels, betas scaled so that the end is
    Gaussian.
    """

    parametrization: ClassVar[Parametrization] = Epsilon()
    weighting: ClassVar[Weighting] = SignalToNoise()

    def own_schedule(self) -> Schedule:
        return DDPMLinear()

    def refuses(self, schedule: Schedule) -> str | None:
        if not (schedule.variance_preserving and schedule.max_steps is not None):
            return (
                f"{self.registered_name!r} needs a discrete variance-preserving schedule (such as 'ddpm-linear'), "
                f"and {schedule.registered_name!r} is not one"
            )
        return super().refuses(schedule)

    noise_levels: ClassVar[NoiseLevels] = OwnLevels()

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:
        return schedule.time_of(nsr)


@formulations.register(
    "level-1",
    formula="(B_k/beta_k)^2 |target - eps_theta(alpha_k x_0 + beta_k eps, k)|^2, target (beta_k/B_k) eps_k (refinements 1, 2) or eps (3)",
    source="the lecture's level 1 with its factor kept; see diffusion.objectives.NoiseTarget",
    document="S0 level 1",
)
@dataclass(frozen=True)
class LevelOneDDPM(DDPM):
    """The lecture's loss on the noise of the last step alone, in its three refinements.

    All three have one minimiser, that of `ddpm`; they differ in the variance of their gradients,
    and from `ddpm` by the weight ``B_k^2 / beta_k^2``, which the lecture drops.
    """

    refinement: Literal[1, 2, 3] = 3

    @property
    def noise_target(self) -> NoiseTarget:
        return NoiseTarget(self.refinement)

    weighting: ClassVar[Weighting] = LastStep()


@formulations.register(
    "v-prediction",
    formula="|v - v_theta|^2 with v = alpha eps - sigma x_0, t ~ U",
    source="Salimans & Ho, Progressive Distillation for Fast Sampling of Diffusion Models, ICLR 2022",
)
@dataclass(frozen=True)
class VPrediction(NoiseConditional):
    """Velocity on the circle, cosine schedule."""

    def own_schedule(self) -> Schedule:
        return VPCosine()

    parametrization: ClassVar[Parametrization] = Velocity()
    noise_levels: ClassVar[NoiseLevels] = UniformTime()
    weighting: ClassVar[Weighting] = Simple()

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        return torch.atan(nsr)


@formulations.register(
    "flow",
    formula="|(eps - x_0) - v_theta((1-t) x_0 + t eps; t)|^2, t ~ U(0, 1)",
    source="Lipman et al., Flow Matching for Generative Modeling, ICLR 2023; Liu et al., Flow Straight and Fast, ICLR 2023",
)
@dataclass(frozen=True)
class RectifiedFlow(NoiseConditional):
    """Straight paths from noise to data; with data prediction this is InDI's update with noise as
    the observation.
    """

    def own_schedule(self) -> Schedule:
        return Flow()

    parametrization: ClassVar[Parametrization] = FlowVelocity()
    noise_levels: ClassVar[NoiseLevels] = UniformTime()
    weighting: ClassVar[Weighting] = Simple()

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        return straight_time(nsr)


def straight_time(nsr: Tensor) -> Tensor:
    """t = nsr / (1 + nsr), the time of the straight path; 1 where nsr is infinite."""
    return 1 - 1 / (1 + nsr)


@formulations.register(
    "edm2",
    formula="EDM's loss divided by e^u(nsr), plus u(nsr); ln nsr ~ N(-0.4, 1)",
    source="Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, CVPR 2024",
)
@dataclass(frozen=True)
class ElucidatedDM2(ElucidatedDM):
    """EDM with the noise levels of its sequel and learned uncertainty in place of a fixed balance
    between levels.
    """

    p_mean: float = -0.4
    p_std: float = 1.0
    weighting: ClassVar[Weighting] = LearnedUncertainty()


@formulations.register(
    "denoising",
    formula="E lambda(nsr) |D - x_0|^2 with every part chosen by name",
    source="Karras et al. 2022, section 5 (the parts are orthogonal)",
)
@dataclass(frozen=True)
class Denoising(NoiseConditional):
    """Any schedule, parametrization, noise distribution and weighting.

    `noise_label` is what the network takes for the noise level: ``ln(nsr)/4``, the schedule's time,
    or the angle ``atan(nsr)``, which alone has an end on every schedule.
    """

    schedule: Schedule = EDM()
    parametrization: Parametrization = Preconditioned()
    noise_levels: NoiseLevels = LogNormal()
    weighting: Weighting = UnitVariance()
    noise_label: Literal["log-nsr", "time", "angle"] = "log-nsr"
    stored_names: ClassVar[Mapping[str, str]] = {"noise_label": "told"}
    serves_clean: ClassVar[bool] = False

    def differences(self) -> tuple[str, ...]:
        """Without the schedule, which has a label of its own and may be another one."""
        return super(Denoising, dataclasses.replace(self, schedule=Denoising.schedule)).differences()

    def own_schedule(self) -> Schedule:
        """The one that is named; of a single noise level, the schedule that has no others."""
        return self.noise_levels.schedule() if isinstance(self.noise_levels, SingleLevel) else self.schedule

    def refuses(self, schedule: Schedule) -> str | None:
        if self.noise_levels.only == 0 and not self.serves_clean:
            return f"{self.registered_name!r} learns from noise, and noise levels 'single' with sigma = 0 have none"
        return super().refuses(schedule)

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:
        if self.noise_levels.only is not None:
            return torch.zeros_like(nsr)  # one level needs no label
        match self.noise_label:
            case "time":
                return schedule.time_of(nsr)
            case "angle":
                return torch.atan(nsr)
            case _:
                return torch.log(nsr) / 4
