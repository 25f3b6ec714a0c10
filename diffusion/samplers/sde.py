r"""Stochastic rules in continuous time: the reverse SDE, the family around it, and what adds noise
to the flow.

With the flow's velocity v and any lambda(t) >= 0,

    dx = [v - lambda^2/2 score] dt + lambda dw,      t decreasing,   score = -eps / sigma

has the marginals of the forward process ``dx = f x dt + g dw``: lambda = 0 is the probability-flow
ODE, lambda = g the reverse SDE of Anderson (``v - g^2/2 score = f x - g^2 score``), and no bound is
put on it. In the last step, to sigma = 0, both rules for it take lambda = 0: noise that is added
there would stay in the samples, and the drift that comes with it would have nothing to take away.

f and g are infinite where alpha = 0. `euler-maruyama` and `reverse-sde` refuse schedules that start
there; `churn` adds its noise below, and the predictor of `predictor-corrector` needs neither f nor
g.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.devices import to_device
from diffusion.errors import WrongValue
from diffusion.models import Denoiser
from diffusion.samplers.ancestral import Ancestral
from diffusion.samplers.base import PathSampler, Sampler, implied_noise, per_member, samplers, without_data_at_the_start
from diffusion.samplers.noise import Noise
from diffusion.samplers.ode import euler_step, heun_step
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level


def _refuses_infinite_coefficients(sampler: Sampler, schedule: Schedule) -> str | None:
    if without_data_at_the_start(schedule):
        return (
            f"schedule {schedule.registered_name!r} starts at alpha = 0, where the coefficients f and g of the SDE that "
            f"{sampler.registered_name!r} solves are infinite (ancestral and ddim with eta reverse the same noise there)"
        )
    return None


_MOST_CORRECTIONS = 100_000


@samplers.register(
    "euler-maruyama",
    formula="x_s = x_t + (s - t) (f x_t - g^2 score) + g sqrt(t - s) z; Euler along the flow where sigma_s = 0",
    source="Song et al., SDE, ICLR 2021, eq. 6 (Anderson 1982); Kloeden & Platen 1992, section 9.1",
    document="S0 level 3",
)
@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """Euler's rule for the reverse SDE, in the schedule's own time: weak order 1, N evaluations in
    N steps.

    The noise does not depend on x, so that its strong order is 1, too.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def refuses(self, schedule: Schedule) -> str | None:
        return _refuses_infinite_coefficients(self, schedule) or super().refuses(schedule)

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        if then.clean:
            return euler_step(denoiser, x, now, then)
        score = -implied_noise(x, denoiser(x, now.alpha, now.sigma), now) / per_member(now.sigma)
        duration, square = now.time - then.time, now.diffusion_squared
        drift = per_member(now.drift) * x - per_member(square) * score
        return x - per_member(duration) * drift + per_member(torch.sqrt(square * duration)) * noise.between(now, then)


@samplers.register(
    "reverse-sde",
    formula="dx = (f x - (g^2 + l^2)/2 score) dt + l dw, l = scale g, by Euler-Maruyama; l = 0 where sigma_s = 0",
    source="Karras et al. 2022, eq. 6; Huang, Lim & Courville, A Variational Perspective on Diffusion Models, NeurIPS 2021",
    document="S0 level 4 (there with sigma(t) <= g, which is not needed)",
)
@dataclass(frozen=True)
class ReverseSDE(Sampler):
    """The SDEs with the marginals of the forward process; `scale` is the noise in units of g, and
    any is right in the limit.

    ``scale = 0`` is `euler`, ``scale = 1`` `euler-maruyama`; more noise forgets earlier errors
    faster and needs shorter steps. Weak order 1, N evaluations in N steps.
    """

    scale: float = 1.0
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise WrongValue(f"reverse-sde: scale must be finite and not negative, found {self.scale}")

    @property
    def stochastic(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """True unless scale is 0."""
        return self.scale > 0

    def refuses(self, schedule: Schedule) -> str | None:
        return (_refuses_infinite_coefficients(self, schedule) if self.scale else None) or super().refuses(schedule)

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        if then.clean or self.scale == 0:
            return euler_step(denoiser, x, now, then)
        denoised = denoiser(x, now.alpha, now.sigma)
        implied = implied_noise(x, denoised, now)
        duration, square = now.time - then.time, self.scale**2 * now.diffusion_squared
        forgetting = now.sigma_dot + 0.5 * square / now.sigma
        drift = per_member(now.alpha_dot) * denoised + per_member(forgetting) * implied
        return x - per_member(duration) * drift + per_member(torch.sqrt(square * duration)) * noise.between(now, then)


@samplers.register(
    "churn",
    formula="nsr' = (1 + gamma) nsr, x' = alpha' (x/alpha + s_noise sqrt(nsr'^2 - nsr^2) z), then heun from x'; "
    "gamma = min(s_churn/N, sqrt(2) - 1) where s_min <= nsr <= s_max",
    source="Karras et al. 2022, Algorithm 2 (any schedule: x/alpha is their x, nsr their sigma)",
    document="S0 level 4",
)
@dataclass(frozen=True)
class Churn(PathSampler):
    """The stochastic sampler of EDM: raise the noise level a little by adding noise, then follow
    the flow down with Heun.

    No level is raised above the first of the trajectory, for which no network was trained: the
    first step is Heun's. With ``s_churn = 0`` all are. ``s_noise = 1`` is what the mathematics asks
    for; Karras et al. use 1.003 to 1.007 for networks that take away a little too much noise, and
    their constants for ImageNet-64 are the other defaults. N steps cost 2N - 1 evaluations, some of
    them between the levels of the grid, which a discrete schedule does not offer.

    As both parts of a step keep the marginals, the weak order is Heun's, 2; it shows once
    ``s_churn/N`` is small.
    """

    s_churn: float = 40.0
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.0
    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not (0 <= self.s_churn < math.inf and 0 <= self.s_min <= self.s_max and 0 < self.s_noise < math.inf):
            raise WrongValue(
                f"churn needs s_churn >= 0, 0 <= s_min <= s_max and s_noise > 0, found s_churn = {self.s_churn}, "
                f"s_min = {self.s_min}, s_max = {self.s_max} and s_noise = {self.s_noise}"
            )

    @property
    def stochastic(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """True unless s_churn is 0."""
        return self.s_churn > 0

    @property
    def between_levels(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """True unless s_churn is 0."""
        return self.s_churn > 0

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def showing_order(self) -> Churn:
        """With little churn: 40 lifts by tens of per cent until N exceeds it many times over."""
        return replace(self, s_churn=min(self.s_churn, 5.0))

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        gamma = min(self.s_churn / (len(levels) - 1), math.sqrt(2) - 1)
        for now, then in itertools.pairwise(levels):
            known = now.host  # what is churned, and how much, is a matter of levels alone
            nsr = known.nsr
            nsr_hat = torch.minimum((1 + gamma) * nsr, levels[0].host.nsr)  # sigma_hat where alpha = 1
            churned = (nsr >= self.s_min) & (nsr <= self.s_max) & (nsr_hat > nsr)
            hat = now
            if churned.any():
                t_hat = torch.where(churned, known.time_of(torch.where(churned, nsr_hat, 1.0)), known.time)
                raised = known.at(t_hat).where(churned, known)
                added = torch.where(churned, raised.alpha * torch.sqrt((nsr_hat - nsr) * (nsr_hat + nsr)), 0.0)
                shrunk = torch.where(churned, raised.alpha / known.alpha, 1.0)
                hat = raised.to(x.device)
                x = to_device(per_member(shrunk), x.device) * x
                x = x + to_device(per_member(self.s_noise * added), x.device) * noise.between(now, then)
            x = heun_step(denoiser, x, hat, then)
            yield x


@samplers.register(
    "predictor-corrector",
    formula="ancestral step to s, then corrector_steps times x += e score + sqrt(2e) z, e = 2 (snr sigma_s)^2",
    source="Song et al., SDE, ICLR 2021, Algorithms 4 and 5, with the expected norms E|z|^2 = d, E|score|^2 = d/sigma^2 in their step size",
)
@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    r"""A step of `ancestral` (posterior variance), then Langevin steps at the level reached; none
    after the last step.

    Song et al. choose the Langevin step from the norms that z and the score happen to have,
    ``e = 2 (snr |z|/|score|)^2``: averaged over the batch, which makes samples depend on each
    other, or of each sample, which makes the noise depend on where it is added: e is then infinite
    at a mode of one-dimensional data, and the law that the steps keep is another one. With expected
    norms, those of data at one point, e is a number for each level, as in annealed Langevin
    dynamics.

    Langevin steps of finite length keep a law that is a little too wide. For Gaussian data with
    variance V at the level they keep ``V / (1 - e/2V)``: too much by ``(snr sigma)^2`` to first
    order. This does not fall with the number of steps, and ends with the noise: the samples'
    variance is too large by about ``(snr sigma_min)^2``. The `order`, 1, is that of the predictor,
    above this floor. N steps cost ``(1 + corrector_steps) N - corrector_steps`` evaluations.
    """

    snr: float = 0.16
    corrector_steps: int = 1
    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.snr < 1:
            raise WrongValue(f"predictor-corrector: Langevin steps are stable for 0 < snr < 1, found snr = {self.snr}")
        if not 1 <= self.corrector_steps <= _MOST_CORRECTIONS:
            raise WrongValue(
                f"predictor-corrector needs corrector_steps from 1 to {_MOST_CORRECTIONS}, found {self.corrector_steps} "
                "(without any it is ancestral)"
            )

    def evaluations(self, steps: int) -> int:
        return (1 + self.corrector_steps) * steps - self.corrector_steps

    def showing_order(self) -> PredictorCorrector:
        """With short corrections, whose bias no number of steps removes."""
        return replace(self, snr=min(self.snr, 1e-4))

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        x = Ancestral().step(denoiser, x, now, then, noise)
        if then.clean:
            return x
        length = self.snr * then.sigma  # sqrt(e / 2)
        for _ in range(self.corrector_steps):
            implied = implied_noise(x, denoiser(x, then.alpha, then.sigma), then)
            x = x - per_member(2 * self.snr * length) * implied + per_member(2 * length) * noise.fresh()
        return x
