"""Weights lambda of the denoising loss, written for errors of the denoiser.

The same loss in other words: ``lambda = SNR`` (= 1/nsr^2) weighs errors of the predicted noise
equally, 1 errors of the data, ``SNR + 1`` errors of the velocity v. Each weighting is handed to the
loss as a weight on the network's own target, ``lambda c_out^2``, so that nothing is divided by a
small number.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.analysis.elbo import bound_weights, refuses_bound
from diffusion.devices import to_device
from diffusion.errors import WrongValue
from diffusion.objectives.noise_targets import last_step_share
from diffusion.objectives.parametrizations import Coefficients
from diffusion.registry import Component, Registry
from diffusion.schedules import Schedule

weightings: Registry[Weighting] = Registry("weighting")


@dataclass(frozen=True)
class Weighting(Component):
    """lambda(nsr) of the denoising loss."""

    learned: ClassVar[bool] = False  # the loss is lambda |.|^2 / e^u + u with u(nsr) trained beside the network

    def refuses(self, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why this weight is not defined on the schedule, or None."""
        return None

    @abstractmethod
    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:
        """lambda at noise-to-signal ratios of any shape."""

    def on_target(self, nsr: Tensor, c: Coefficients, schedule: Schedule, sigma_data: float) -> Tensor:
        """The weight of the squared error of the network's own target, ``lambda c_out^2``."""
        return self.weight(nsr, schedule, sigma_data) * c.c_out**2


@weightings.register(
    "simple",
    formula="|F - target|^2: the network's own target, unweighted (epsilon: SNR, x0: 1, v: SNR + 1)",
    source="Ho et al. 2020, eq. 14",
    document="S0 levels 1 and 2, S2 sections 2.7 and 2.8",
)
@dataclass(frozen=True)
class Simple(Weighting):
    """No weight on whatever the network predicts; its lambda therefore depends on the
    parametrization.
    """

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        raise ValueError("'simple' weighs the network's target, not the denoiser: its lambda is 1 / c_out^2")

    def on_target(self, nsr: Tensor, c: Coefficients, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        return torch.ones_like(c.c_out)


@weightings.register(
    "snr",
    formula="lambda = 1 / nsr^2",
    source="Ho et al. 2020, eq. 14, written for the denoiser; Karras et al. 2022, Table 1, columns VP, VE, iDDPM",
    document="S0 levels 1 to 3",
)
@dataclass(frozen=True)
class SignalToNoise(Weighting):
    """Every error of the implied *noise* counts the same (the "simple" loss of DDPM)."""

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        return 1 / nsr**2


@weightings.register(
    "min-snr",
    formula="lambda = min(1 / nsr^2, gamma)",
    source="Hang et al., Efficient Diffusion Training via Min-SNR Weighting Strategy, ICCV 2023",
)
@dataclass(frozen=True)
class MinSignalToNoise(Weighting):
    """The signal-to-noise ratio, but no more than gamma: little noise is not trained at the cost of
    much.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise WrongValue(f"gamma must be positive, found {self.gamma}")

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        return (1 / nsr**2).clamp(max=self.gamma)


@weightings.register(
    "likelihood",
    formula="g^2 |s_theta - s|^2, that is lambda = g^2 alpha^2 / sigma^4 = - d SNR / dt",
    source="Song et al., Maximum Likelihood Training of Score-Based Diffusion Models, NeurIPS 2021; Kingma et al., VDM, NeurIPS 2021",
    document="S0 level 3 (weight lambda(t) of the score loss)",
)
@dataclass(frozen=True)
class Likelihood(Weighting):
    """The weight under which the loss, with t uniform, bounds the negative log-likelihood.

    It grows like 1/t^2 (of the predicted noise, 1/t) where the noise vanishes: the smallest
    training time matters.
    """

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        t = schedule.time_of(nsr)
        growth = schedule.sigma_dot(t) / schedule.sigma(t) - schedule.alpha_dot(t) / schedule.alpha(t)
        return 2 * growth / nsr**2


@weightings.register(
    "ddpm-elbo",
    formula="lambda_t = (SNR_{t-1} - SNR_t) / 2, lambda_1 = 1 / (2 beta_1): the weight of |x_0 - D|^2 in the chain's lower bound",
    source="Ho et al. 2020, eq. 12; Kingma et al., Variational Diffusion Models, NeurIPS 2021",
    document="S2 sections 2.7 and 2.8",
)
@dataclass(frozen=True)
class ChainWeights(Weighting):
    """The exact weights of a chain's lower bound: see `diffusion.analysis.elbo`, where the
    tutorial's two forms of them are.

    On DDPM's chain of 1000 levels they run from 5000 to 4e-7, as weights of the predicted noise
    from 0.6 to 0.005.
    """

    def refuses(self, schedule: Schedule) -> str | None:
        return refuses_bound(schedule)

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        level = schedule.time_of(nsr).round().long()
        return to_device(bound_weights(schedule), nsr.device)[level - 1]


@weightings.register(
    "edm",
    formula="lambda = (nsr^2 + s^2) / (nsr s)^2, s = sigma_data",
    source="Karras et al. 2022, Table 1, column EDM",
    document="S0 level 4",
)
@dataclass(frozen=True)
class UnitVariance(Weighting):
    """lambda = 1 / c_out^2 of the `edm` parametrization: at the start of training every level has
    the same loss.
    """

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        return (nsr**2 + sigma_data**2) / (nsr * sigma_data) ** 2


@weightings.register(
    "learned",
    formula="lambda |D - x_0|^2 / e^u(nsr) + u(nsr), lambda of `edm`, u linear in features of the noise label and trained along",
    source="Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, CVPR 2024, eq. 21; Kendall et al., CVPR 2018",
)
@dataclass(frozen=True)
class LearnedUncertainty(UnitVariance):
    """Every level's loss is divided by its own size, learned as ``e^u``: levels weigh alike all
    through training.

    At the optimum ``e^u`` is the level's expected loss.
    """

    learned: ClassVar[bool] = True


@dataclass(frozen=True)
class LastStep(Weighting):
    """lambda = (B_k / (beta_k nsr))^2: errors of the last step's noise count the same.

    Without a name of its own: it makes sense on a chain, with the noise targets above (formulation
    `level-1`).
    """

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        return (last_step_share(nsr, schedule) / nsr) ** 2
