r"""Samplers: from noise at ``t_0`` to data at ``t_N = 0``, one step from t to s < t at a time.

With the denoiser's estimate ``D = E[x_0 | x_t]`` and the noise it implies, ``eps = (x_t - alpha_t D) / sigma_t``, the
probability-flow ODE ``dx/dt = f x - g^2/2 score`` of *any* schedule reads

    dx/dt = alpha'(t) D + sigma'(t) eps                                             (*)

which has no division by alpha. State and time grids are float64; nothing is clamped.

A new sampler is one small subclass with `step`; it declares its `order` (global, on smooth problems; for a stochastic
sampler the weak order) and whether it is `stochastic`. Network evaluations are counted by wrapping the denoiser, never
computed from a formula.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from diffusion.grids import Grid
from diffusion.registry import Component, Registry
from diffusion.schedules import Level, Schedule

samplers: Registry[Sampler] = Registry("sampler")

Noise = Callable[[], Tensor]
"""The next standard normal draw, ``[members, batch, dim]``."""


class Denoiser(Protocol):
    """E[x_0 | x_t] for a stack: x ``[members, batch, dim]``, alpha and sigma ``[members]``."""

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...


class CountingDenoiser:
    """A denoiser that counts its evaluations in `nfe`."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.nfe = 0

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        self.nfe += 1
        return self.denoiser(x, alpha, sigma)


def levels_of(schedules: Sequence[Schedule], grids: Sequence[Grid], steps: int) -> list[Level]:
    """The N + 1 levels of a stack: member m runs over its own schedule on its own grid."""
    rows = []
    for schedule, grid in zip(schedules, grids, strict=True):
        t = grid.times(schedule, steps)
        noisy = t[:-1]
        # no sampler asks for derivatives where the noise has gone; there sigma' may be infinite
        end = torch.full((1,), torch.nan, dtype=torch.float64)
        rows.append(
            torch.stack(
                [
                    t,
                    schedule.alpha(t),
                    schedule.sigma(t),
                    torch.cat([schedule.alpha_dot(noisy), end]),
                    torch.cat([schedule.sigma_dot(noisy), end]),
                ]
            )
        )
    table = torch.stack(rows)  # [members, 5, levels]
    return [Level(*table[:, :, i].unbind(1)) for i in range(steps + 1)]


def _per_member(value: Tensor) -> Tensor:
    return value[:, None, None]


@dataclass(frozen=True)
class Sampler(Component):
    """One rule for a step from level `now` to the less noisy level `then`."""

    order: ClassVar[int]
    stochastic: ClassVar[bool] = False

    def refuses(self, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why this sampler cannot serve the schedule, or None."""
        return None

    @abstractmethod
    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        """x at level `then`. ``then.sigma == 0`` for every member in the last step, and only there."""

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        """The states at ``levels[1:]``, as they are computed; `x` is the state at ``levels[0]``."""
        for now, then in itertools.pairwise(levels):
            x = self.step(denoiser, x, now, then, noise)
            yield x


def _is_last(then: Level) -> bool:
    return bool((then.sigma == 0).all())


def _implied_noise(x: Tensor, denoised: Tensor, level: Level) -> Tensor:
    return (x - _per_member(level.alpha) * denoised) / _per_member(level.sigma)


def _velocity(denoiser: Denoiser, x: Tensor, level: Level) -> Tensor:
    """The right-hand side of (*)."""
    denoised = denoiser(x, level.alpha, level.sigma)
    noise = _implied_noise(x, denoised, level)
    return _per_member(level.alpha_dot) * denoised + _per_member(level.sigma_dot) * noise


@samplers.register(
    "euler",
    formula="x_s = x_t + (s - t) dx/dt",
    source="Karras et al. 2022, eq. 4 (any schedule); first order in the schedule's own time",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class Euler(Sampler):
    """Euler's rule on the probability-flow ODE in the schedule's own time."""

    order: ClassVar[int] = 1

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        return x + _per_member(then.time - now.time) * _velocity(denoiser, x, now)


@samplers.register(
    "heun",
    formula="x' = x_t + (s - t) d_t; x_s = x_t + (s - t) (d_t + d_s(x')) / 2; Euler where sigma_s = 0",
    source="Karras et al. 2022, Algorithm 1",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's second-order rule; the last step is Euler's, so that N steps cost 2N - 1 evaluations."""

    order: ClassVar[int] = 2

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        h = _per_member(then.time - now.time)
        first = _velocity(denoiser, x, now)
        if _is_last(then):
            return x + h * first
        return x + h * 0.5 * (first + _velocity(denoiser, x + h * first, then))


@samplers.register(
    "ddim",
    formula="x_s = alpha_s D + sqrt(sigma_s^2 - c^2) eps + c z, c = eta sigma_s/sigma_t sqrt(sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2)",
    source="Song et al., Denoising Diffusion Implicit Models, ICLR 2021, eq. 12 and 16",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class DDIM(Sampler):
    """DDIM on any schedule; ``eta = 0`` is the deterministic rule (exact where D is constant), ``eta = 1`` ancestral.

    The noise-to-signal ratio is its time: on ``sigma = t, alpha = 1`` it coincides with `euler`.
    """

    eta: float = 0.0
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie between 0 (deterministic) and 1 (ancestral), found {self.eta}")

    @property
    def stochastic(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """True unless eta is 0."""
        return self.eta > 0

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        denoised = denoiser(x, now.alpha, now.sigma)
        implied = _implied_noise(x, denoised, now)
        if self.eta == 0:
            return _per_member(then.alpha) * denoised + _per_member(then.sigma) * implied
        added = self.eta * torch.sqrt(_posterior_variance(now, then))
        kept = torch.sqrt(then.sigma**2 - added**2)
        x = _per_member(then.alpha) * denoised + _per_member(kept) * implied
        return x if _is_last(then) else x + _per_member(added) * noise()


def _transition_variance(now: Level, then: Level) -> Tensor:
    """Variance of x_t given x_s, s < t: ``sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2`` (B_k^2 of a chain)."""
    return now.sigma**2 - (now.alpha / then.alpha) ** 2 * then.sigma**2


def _posterior_variance(now: Level, then: Level) -> Tensor:
    """Variance of x_s given x_t and x_0."""
    return then.sigma**2 / now.sigma**2 * _transition_variance(now, then)


@samplers.register(
    "ancestral",
    formula="x_s ~ N(A sigma_s^2/sigma_t^2 x_t + alpha_s B^2/sigma_t^2 D, variance), A = alpha_t/alpha_s, B^2 = sigma_t^2 - A^2 sigma_s^2",
    source="Ho et al. 2020, eq. 6-7 and section 3.2 (both variances), for any pair of levels",
    seed="S0 level 2, S2 section 2.6",
)
@dataclass(frozen=True)
class Ancestral(Sampler):
    """The reverse of the forward chain, with ``x_0`` replaced by its estimate; no noise in the last step.

    `variance` is ``posterior``, sigma_s^2 B^2 / sigma_t^2 (right for data at one point), or ``transition``, B^2 (right for
    data of unit variance, and therefore offered on variance-preserving schedules only). The true variance lies between.
    """

    variance: Literal["posterior", "transition"] = "posterior"
    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def refuses(self, schedule: Schedule) -> str | None:
        if self.variance == "transition" and not schedule.variance_preserving:
            return (
                f"variance 'transition' is that of data of unit variance on a variance-preserving schedule; "
                f"{schedule.registered_name!r} does not preserve variance (use variance: posterior)"
            )
        return None

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        denoised = denoiser(x, now.alpha, now.sigma)
        transition = _transition_variance(now, then)
        from_x = now.alpha / then.alpha * then.sigma**2 / now.sigma**2
        from_data = then.alpha * transition / now.sigma**2
        x = _per_member(from_x) * x + _per_member(from_data) * denoised
        if _is_last(then):
            return x
        variance = transition if self.variance == "transition" else _posterior_variance(now, then)
        return x + _per_member(torch.sqrt(variance)) * noise()
