r"""Rules that step from one noisy marginal to the next: the reverse of the forward chain, and DDIM.

Between two levels, s < t, the forward process is ``x_t = A x_s + B z`` with

    A = alpha_t / alpha_s,      B^2 = sigma_t^2 - A^2 sigma_s^2

(A_k and B_k of a chain), and knows of x_s, once x_t and x_0 are given,

    x_s ~ N( A sigma_s^2/sigma_t^2 x_t + alpha_s B^2/sigma_t^2 x_0 ,  B^2 sigma_s^2/sigma_t^2 ).

Nothing here needs derivatives or times between the levels, and only `level-1` divides by A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.errors import WrongValue
from diffusion.models import Denoiser
from diffusion.samplers.base import (
    Sampler,
    implied_noise,
    per_member,
    posterior_variance,
    samplers,
    transition_variance,
    without_data_at_the_start,
)
from diffusion.samplers.noise import Noise
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level, Variance, check_variance


@samplers.register(
    "ddim",
    formula="x_s = alpha_s D + sqrt(sigma_s^2 - c^2) eps + c z, c = eta sigma_s/sigma_t sqrt(sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2)",
    source="Song et al., Denoising Diffusion Implicit Models, ICLR 2021, eq. 12 and 16",
    document="S0 level 4",
)
@dataclass(frozen=True)
class DDIM(Sampler):
    """DDIM on any schedule; ``eta = 0`` is the deterministic rule (exact where D is constant),
    ``eta = 1`` ancestral.

    The noise-to-signal ratio is its time: on ``sigma = t, alpha = 1`` it coincides with `euler`. It
    is also DPM-Solver of order one. N evaluations in N steps.
    """

    eta: float = 0.0
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise WrongValue(f"eta must lie between 0 (deterministic) and 1 (ancestral), found {self.eta}")

    @property
    def stochastic(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """True unless eta is 0."""
        return self.eta > 0

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        denoised = denoiser(x, now.alpha, now.sigma)
        implied = implied_noise(x, denoised, now)
        if self.eta == 0:
            return per_member(then.alpha) * denoised + per_member(then.sigma) * implied
        # sigma_s^2 - c^2 without the difference, of which little is left where eta = 1 and steps
        # are long
        inherited = self.eta * now.alpha / then.alpha * then.sigma / now.sigma
        kept = then.sigma * torch.sqrt((1 - self.eta) * (1 + self.eta) + inherited**2)
        x = per_member(then.alpha) * denoised + per_member(kept) * implied
        if then.clean:
            return x
        added = self.eta * torch.sqrt(posterior_variance(now, then))
        return x + per_member(added) * noise.between(now, then)


@samplers.register(
    "ancestral",
    formula="x_s ~ N(A sigma_s^2/sigma_t^2 x_t + alpha_s B^2/sigma_t^2 D, variance), A = alpha_t/alpha_s, B^2 = sigma_t^2 - A^2 sigma_s^2",
    source="Ho et al. 2020, eq. 6-7 and section 3.2 (both variances), for any pair of levels",
    document="S0 level 2, S2 section 2.6",
)
@dataclass(frozen=True)
class Ancestral(Sampler):
    """The reverse of the forward chain, with ``x_0`` replaced by its estimate; no noise in the last
    step.

    `variance` is ``posterior``, sigma_s^2 B^2 / sigma_t^2 (right for data at one point), or
    ``transition``, B^2 (right for data of unit variance, and therefore offered on
    variance-preserving schedules only). The true variance lies between: it is the posterior's plus
    ``(alpha_s B^2/sigma_t^2)^2 Var[x_0 | x_t]``, and no network says that. N evaluations in N
    steps.
    """

    variance: Variance = "posterior"
    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_variance(self.registered_name, self.variance)

    def refuses(self, schedule: Schedule) -> str | None:
        return _refuses_variance(self.variance, schedule) or super().refuses(schedule)

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        denoised = denoiser(x, now.alpha, now.sigma)
        transition = transition_variance(now, then)
        from_x = now.alpha / then.alpha * then.sigma**2 / now.sigma**2
        from_data = then.alpha * transition / now.sigma**2
        x = per_member(from_x) * x + per_member(from_data) * denoised
        return x if then.clean else x + per_member(_spread(self.variance, now, then)) * noise.between(now, then)


@samplers.register(
    "level-1",
    formula="x_s = (x_t - B^2/sigma_t eps) / A + spread z, A = alpha_t/alpha_s, B^2 = sigma_t^2 - A^2 sigma_s^2",
    source="Ho et al. 2020, Algorithm 2 (for neighbouring levels of a chain)",
    document="S0 level 1 (there B_k eps stands for B_k^2/beta_k eps)",
)
@dataclass(frozen=True)
class LevelOne(Sampler):
    """`ancestral`, as the lecture's level 1 writes it: take out the noise of the last move, add
    new; none in the last step.

    The noise that one forward move has added is not eps, of which eps is the sum over all moves so
    far, but on average ``B/sigma_t eps``: hence ``B^2/sigma_t``, where the slides have B.
    `variance` is as of `ancestral`. The rule divides by A and cannot start at alpha = 0. N
    evaluations in N steps.
    """

    variance: Variance = "posterior"
    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_variance(self.registered_name, self.variance)

    def refuses(self, schedule: Schedule) -> str | None:
        if without_data_at_the_start(schedule):
            return (
                f"'level-1' divides by alpha_t/alpha_s, and schedule {schedule.registered_name!r} starts at alpha = 0 "
                "(use ancestral, which is the same rule without that division)"
            )
        return _refuses_variance(self.variance, schedule) or super().refuses(schedule)

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        implied = implied_noise(x, denoiser(x, now.alpha, now.sigma), now)
        coefficient = transition_variance(now, then) / now.sigma
        x = (x - per_member(coefficient) * implied) / per_member(now.alpha / then.alpha)
        return x if then.clean else x + per_member(_spread(self.variance, now, then)) * noise.between(now, then)


def _spread(variance: Variance, now: Level, then: Level) -> Tensor:
    """Standard deviation of the noise of a move."""
    chosen = transition_variance if variance == "transition" else posterior_variance
    return torch.sqrt(chosen(now, then))


def _refuses_variance(variance: Variance, schedule: Schedule) -> str | None:
    if variance == "transition" and not schedule.variance_preserving:
        return (
            f"variance 'transition' is that of data of unit variance on a variance-preserving schedule; "
            f"{schedule.registered_name!r} does not preserve variance (use variance: posterior)"
        )
    return None
