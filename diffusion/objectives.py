r"""What is minimised: the denoising loss, at which noise levels, with which weight, towards which noise.

    L = E_nsr E_{x_0, eps} lambda(nsr) | D(x_t; nsr) - x_0 |^2,      nsr = sigma / alpha

**Noise levels** are given by a *quantile function* of a uniform variable u, so that one batch can be stratified: with
``u_i = (i + U_i) / batch`` every batch covers the whole range of noise and the loss's variance falls.

**Weightings** lambda are written for errors of the denoiser. The same loss in other words: ``lambda = SNR`` (= 1/nsr^2) weighs errors of
the predicted noise equally, 1 errors of the data, ``SNR + 1`` errors of the velocity v. Each weighting is handed to the loss as a
weight on the network's own target, ``lambda c_out^2``, so that nothing is divided by a small number.

**Noise targets.** The minimiser of ``E |target - F|^2`` is the mean of the target given ``x_t``, so that any random target with the right
conditional mean trains the same network; what differs is the variance of the gradient. The lecture reaches the usual target, the noise
eps of the whole way from ``x_0`` to ``x_k``, from the noise ``eps_k`` of the last step alone in three refinements (see `NoiseTarget`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.parametrizations import Coefficients
from diffusion.registry import Component, Registry
from diffusion.schedules import Schedule

noise_distributions: Registry[NoiseLevels] = Registry("noise-distribution")
weightings: Registry[Weighting] = Registry("weighting")


_LARGEST_LOG = 300.0  # of a noise-to-signal ratio whose square is still a number


def stratified(steps: int, batch: int, generator: torch.Generator) -> Tensor:
    """``[steps, batch]`` uniform numbers, one in each of `batch` equal strata of [0, 1) in every row."""
    jitter = torch.rand(steps, batch, generator=generator, dtype=torch.float64)
    return (torch.arange(batch, dtype=torch.float64) + jitter) / batch


# --- noise levels -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseLevels(Component):
    """A distribution of noise-to-signal ratios in training."""

    def refuses(self, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why this distribution cannot serve the schedule, or None."""
        return None

    @abstractmethod
    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Noise-to-signal ratios at the quantiles `u` in [0, 1), any shape."""


@noise_distributions.register(
    "uniform-t",
    formula="t ~ U(start, t_max), start = min(t_min t_max, t_min of the schedule)",
    source="Song et al. 2021; Karras et al. 2022, Table 1, column VP",
    seed="S0 level 3",
)
@dataclass(frozen=True)
class UniformTime(NoiseLevels):
    """t uniform between its start and the schedule's end; on a discrete schedule all levels are equally likely.

    The start is ``t_min t_max``, or the schedule's own t_min where that is earlier: whatever is sampled is trained.

    `t_min` must be positive: unweighted score losses diverge as it goes to 0.
    """

    t_min: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.t_min < 1:
            raise ValueError(f"t_min must lie between 0 and 1, found {self.t_min}")

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        if schedule.max_steps is not None:
            return OwnLevels().quantile(u, schedule)
        start = min(self.t_min * schedule.t_max, schedule.t_min)
        return schedule.nsr(start + u * (schedule.t_max - start))


@noise_distributions.register(
    "log-uniform",
    formula="ln nsr ~ U(ln nsr_min, ln nsr_max)",
    source="Karras et al. 2022, Table 1, column VE",
)
@dataclass(frozen=True)
class LogUniform(NoiseLevels):
    """ln nsr uniform between the schedule's ends."""

    def refuses(self, schedule: Schedule) -> str | None:
        if float(schedule.alpha(torch.tensor([schedule.t_max], dtype=torch.float64))) == 0:
            return f"schedule {schedule.registered_name!r} ends without signal: the logarithm of its noise-to-signal ratio has no end"
        return None

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        ends = schedule.nsr(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)).log()
        return torch.exp(ends[0] + u * (ends[1] - ends[0]))


def _normal_quantile(u: Tensor) -> Tensor:
    # u = 0 has probability 2^-53 and would be minus infinity
    quantile: Tensor = torch.special.ndtri(u.clamp_min(2.0**-54))
    return quantile


@noise_distributions.register(
    "log-normal",
    formula="ln nsr ~ N(mean, std^2)",
    source="Karras et al. 2022, Table 1, column EDM (-1.2, 1.2); Karras et al., CVPR 2024 (-0.4, 1.0)",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class LogNormal(NoiseLevels):
    """ln nsr normal with the given mean and standard deviation."""

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"std must be positive, found {self.std}")
        if abs(self.mean) + 8 * self.std > _LARGEST_LOG:
            raise ValueError(
                f"ln nsr reaches beyond {_LARGEST_LOG}: use a smaller mean ({self.mean}) or std ({self.std})"
            )

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        return torch.exp(self.mean + self.std * _normal_quantile(u))


@noise_distributions.register(
    "logit-normal",
    formula="t = t_max sigmoid(N(mean, std^2)); on the straight path this is ln nsr ~ N(mean, std^2)",
    source="Esser et al., Scaling Rectified Flow Transformers, ICML 2024, section 3.1",
)
@dataclass(frozen=True)
class LogitNormal(NoiseLevels):
    """The logit of the schedule's relative time is normal: the middle of the way is trained most."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"std must be positive, found {self.std}")

    def refuses(self, schedule: Schedule) -> str | None:
        if schedule.max_steps is not None:
            return f"schedule {schedule.registered_name!r} is discrete: its times between levels are not trained (use 'discrete')"
        return None

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return schedule.nsr(schedule.t_max * torch.sigmoid(self.mean + self.std * _normal_quantile(u)))


@noise_distributions.register(
    "discrete",
    formula="nsr = the schedule's own level k, k ~ U{1..T}",
    source="Ho et al. 2020, eq. 14; Karras et al. 2022, Table 1, column iDDPM + DDIM",
    seed="S0 levels 1 and 2, S2 section 2",
)
@dataclass(frozen=True)
class OwnLevels(NoiseLevels):
    """A discrete schedule's own levels, all equally likely."""

    def refuses(self, schedule: Schedule) -> str | None:
        if schedule.max_steps is None:
            return f"schedule {schedule.registered_name!r} is continuous: it has no levels of its own"
        return None

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        levels = torch.as_tensor(schedule.noise_levels)
        return levels[(u * len(levels)).long()]


# --- weightings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weighting(Component):
    """lambda(nsr) of the denoising loss."""

    learned: ClassVar[bool] = False  # the loss is lambda |.|^2 / e^u + u with u(nsr) trained beside the network

    @abstractmethod
    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:
        """lambda at noise-to-signal ratios of any shape."""

    def on_target(self, nsr: Tensor, c: Coefficients, schedule: Schedule, sigma_data: float) -> Tensor:
        """The weight of the squared error of the network's own target, ``lambda c_out^2``."""
        return self.weight(nsr, schedule, sigma_data) * c.out**2


@weightings.register(
    "simple",
    formula="|F - target|^2: the network's own target, unweighted (epsilon: SNR, x0: 1, v: SNR + 1)",
    source="Ho et al. 2020, eq. 14",
    seed="S0 levels 1 and 2, S2 sections 2.7 and 2.8",
)
@dataclass(frozen=True)
class Simple(Weighting):
    """No weight on whatever the network predicts; its lambda therefore depends on the parametrization."""

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        raise ValueError("'simple' weighs the network's target, not the denoiser: its lambda is 1 / c_out^2")

    def on_target(self, nsr: Tensor, c: Coefficients, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        return torch.ones_like(c.out)


@weightings.register(
    "snr",
    formula="lambda = 1 / nsr^2",
    source="Ho et al. 2020, eq. 14, written for the denoiser; Karras et al. 2022, Table 1, columns VP, VE, iDDPM",
    seed="S0 levels 1 to 3",
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
    """The signal-to-noise ratio, but no more than gamma: little noise is not trained at the cost of much."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, found {self.gamma}")

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        return (1 / nsr**2).clamp(max=self.gamma)


@weightings.register(
    "likelihood",
    formula="g^2 |s_theta - s|^2, that is lambda = g^2 alpha^2 / sigma^4 = - d SNR / dt",
    source="Song et al., Maximum Likelihood Training of Score-Based Diffusion Models, NeurIPS 2021; Kingma et al., VDM, NeurIPS 2021",
    seed="S0 level 3 (weight lambda(t) of the score loss)",
)
@dataclass(frozen=True)
class Likelihood(Weighting):
    """The weight under which the loss, with t uniform, bounds the negative log-likelihood.

    It grows like 1/t^2 (of the predicted noise, 1/t) where the noise vanishes: the smallest training time matters.
    """

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        t = schedule.time_of(nsr)
        growth = schedule.sigma_dot(t) / schedule.sigma(t) - schedule.alpha_dot(t) / schedule.alpha(t)
        return 2 * growth / nsr**2


@weightings.register(
    "edm",
    formula="lambda = (nsr^2 + s^2) / (nsr s)^2, s = sigma_data",
    source="Karras et al. 2022, Table 1, column EDM",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class UnitVariance(Weighting):
    """lambda = 1 / c_out^2 of the `edm` parametrization: at the start of training every level has the same loss."""

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        return (nsr**2 + sigma_data**2) / (nsr * sigma_data) ** 2


@weightings.register(
    "learned",
    formula="lambda |D - x_0|^2 / e^u(nsr) + u(nsr), lambda of `edm`, u linear in features of the noise label and trained along",
    source="Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, CVPR 2024, eq. 21; Kendall et al., CVPR 2018",
)
@dataclass(frozen=True)
class LearnedUncertainty(UnitVariance):
    """Every level's loss is divided by its own size, learned as ``e^u``: levels weigh alike all through training.

    At the optimum ``e^u`` is the level's expected loss.
    """

    learned: ClassVar[bool] = True


# --- noise targets ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseTarget:
    r"""Draws of (eps, target): the noise in ``x_t = alpha x_0 + sigma eps``, and what stands for it in the loss.

    For a chain ``x_k = A x_{k-1} + B eps_k``, with beta for sigma_k, the lecture's refinements minimise ``|eps_k - f|^2``. Its
    minimiser is ``f = (B/beta) E[eps | x_k]``; with ``F = (beta/B) f`` and ``target = (beta/B) eps_k`` the same loss reads
    ``(B/beta)^2 |target - F|^2`` and F predicts the noise itself, as everywhere else.

    | refinement | eps | target |
    |---|---|---|
    | 1 | drawn first | (beta/B) eps_k with eps_k given eps: mean (B/beta) eps, variance 1 - B^2/beta^2 |
    | 2 | (A beta_{k-1} eps' + B eps_k) / beta, two independent draws | (beta/B) eps_k |
    | 3 | one draw | eps |

    1 and 2 are the same law (drawing eps_k and eps independently, as one might read refinement 1, would train F = 0);
    3 is their mean given (x_0, eps), and so has the smaller gradient variance.
    """

    refinement: Literal[1, 2, 3] = 3

    def draw(self, share: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(eps, target) of `shape`; `share` is B/beta, the part of the noise that the last step added, ``shape[:-1]``."""
        eps = torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.refinement == 3:
            return eps, eps
        other = torch.randn(shape, generator=generator, dtype=torch.float64)
        share = share[..., None]
        rest = torch.sqrt(1 - share**2)
        if self.refinement == 1:
            last = share * eps + rest * other
            return eps, last / share
        return rest * other + share * eps, eps / share


def last_step_share(nsr: Tensor, schedule: Schedule) -> Tensor:
    """B_k / beta_k of a discrete variance-preserving chain at its level with the given noise-to-signal ratio."""
    k = schedule.time_of(nsr).round()
    sigma, before = schedule.sigma(k), schedule.sigma(k - 1)
    ratio = schedule.alpha(k) / schedule.alpha(k - 1)
    return torch.sqrt(sigma**2 - (ratio * before) ** 2) / sigma


@dataclass(frozen=True)
class LastStep(Weighting):
    """lambda = (B_k / (beta_k nsr))^2: errors of the last step's noise count the same.

    Without a name of its own: it makes sense on a chain, with the noise targets above (formulation `level-1`).
    """

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        return (last_step_share(nsr, schedule) / nsr) ** 2
