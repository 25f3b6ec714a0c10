"""At which noise levels a model is trained.

A distribution of noise-to-signal ratios is given by its *quantile function* of a uniform variable
u, so that one batch can be stratified: with ``u_i = (i + U_i) / batch`` every batch covers the
whole range of noise and the loss's variance falls.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.devices import to_device
from diffusion.errors import WrongValue
from diffusion.randomness import Source, uniform
from diffusion.registry import Component, Registry
from diffusion.schedules import EDM, Schedule

noise_distributions: Registry[NoiseLevels] = Registry("noise-distribution")

_LARGEST_LOG = 300.0  # of a noise-to-signal ratio whose square is still a number


def stratified(steps: int, batch: int, generator: Source) -> Tensor:
    """``[steps, batch]`` uniform numbers, one in each of `batch` equal strata of [0, 1) in every
    row.
    """
    jitter = uniform((steps, batch), generator)
    return (torch.arange(batch, dtype=torch.float64, device=jitter.device) + jitter) / batch


@dataclass(frozen=True)
class NoiseLevels(Component):
    """A distribution of noise-to-signal ratios in training."""

    @property
    def only(self) -> float | None:
        """The one noise level at which anything is trained (0: clean data), or None where there are
        more.
        """
        return None

    def refuses(self, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why this distribution cannot serve the schedule, or None."""
        return None

    @abstractmethod
    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Noise-to-signal ratios at the quantiles `u` in [0, 1), any shape."""


@noise_distributions.register(
    "uniform-t",
    formula="t ~ U(start, t_max), start = min(t_min t_max, t_min of the schedule)",
    source="Song et al., SDE, ICLR 2021; Karras et al. 2022, Table 1, column VP",
    document="S0 level 3",
)
@dataclass(frozen=True)
class UniformTime(NoiseLevels):
    """t uniform between its start and the schedule's end; on a discrete schedule all levels are
    equally likely.

    The start is ``t_min t_max``, or the schedule's own t_min where that is earlier: whatever is
    sampled is trained.

    `t_min` must be positive: unweighted score losses diverge as it goes to 0.
    """

    t_min: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.t_min < 1:
            raise WrongValue(f"t_min must lie between 0 and 1, found {self.t_min}")

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
        low, high = ends.tolist()
        return torch.exp(low + u * (high - low))


def _normal_quantile(u: Tensor) -> Tensor:
    # u = 0 has probability 2^-53 and would be minus infinity
    quantile: Tensor = torch.special.ndtri(u.clamp_min(2.0**-54))
    return quantile


@noise_distributions.register(
    "log-normal",
    formula="ln nsr ~ N(mean, std^2)",
    source="Karras et al. 2022, Table 1, column EDM (-1.2, 1.2); Karras et al., CVPR 2024 (-0.4, 1.0)",
    document="S0 level 4",
)
@dataclass(frozen=True)
class LogNormal(NoiseLevels):
    """ln nsr normal with the given mean and standard deviation."""

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise WrongValue(f"std must be positive, found {self.std}")
        if abs(self.mean) + 8 * self.std > _LARGEST_LOG:
            raise WrongValue(
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
            raise WrongValue(f"std must be positive, found {self.std}")

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
    document="S0 levels 1 and 2, S2 section 2",
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
        return to_device(levels, u.device)[(u * len(levels)).long()]


WIDTH = 1e-3
"""How far the schedule of one noise level reaches below it, of itself: as good as nothing, and room
for any number of steps.
"""

_SIGMA_OF_CLEAN = 1e-3  # the noise level at which a network that was trained on clean data is asked


@noise_distributions.register(
    "single",
    formula="nsr = sigma; of clean data sigma = 0",
    source="Vincent, A Connection Between Score Matching and Denoising Autoencoders, Neural Computation 23, 2011",
    document="S1 (score matching before noise levels)",
)
@dataclass(frozen=True)
class SingleLevel(NoiseLevels):
    """One noise level, or clean data: what the network is asked at others, it does not know.

    Its schedule is therefore its own (`schedule`), on which all levels are this one.
    """

    sigma: float = 0.3

    def __post_init__(self) -> None:
        if not (self.sigma == 0 or 1e-100 <= self.sigma <= 1e100):
            raise WrongValue(f"single: sigma must be 0 or lie between 1e-100 and 1e100, found {self.sigma}")

    @property
    def only(self) -> float | None:
        return self.sigma

    def schedule(self) -> Schedule:
        """Noise as time over `WIDTH` of the level. A network of clean data is asked at 0.001."""
        sigma = self.sigma or _SIGMA_OF_CLEAN
        return EDM(float(f"{sigma * (1 - WIDTH):.12g}"), sigma)

    def refuses(self, schedule: Schedule) -> str | None:
        sigma = self.sigma or _SIGMA_OF_CLEAN
        ends = schedule.nsr(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)).tolist()
        if all(abs(end / sigma - 1) <= 2 * WIDTH for end in ends):
            return None
        return (
            f"schedule {schedule.registered_name!r} asks for noise from sigma/alpha = {ends[0]:.3g} to {ends[1]:.3g}, and noise "
            f"levels 'single' know {sigma:g} alone (name no schedule, or {self.schedule().label()})"
        )

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        return torch.full_like(u, self.sigma)
