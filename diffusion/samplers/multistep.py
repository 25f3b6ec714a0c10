r"""Multistep rules in the half log-signal-to-noise ratio: DPM-Solver++, which remembers the
estimates of earlier levels.

With ``lambda = log(alpha / sigma)`` as time and ``h = lambda_s - lambda_t > 0``, the flow is, for
every schedule,

    x_s = sigma_s/sigma_t x_t + sigma_s  integral of e^lambda D(lambda) d lambda   from lambda_t to lambda_s,

exact but for D along the way. A polynomial through the estimates at this level and those before
takes its place; held constant, D gives `ddim`. The integrals over it are, up to alpha_s, with
``lambda_t + u`` in the place of lambda,

    I_k = integral of e^(u - h) u^k du   from 0 to h:     I_0 = 1 - e^-h,   I_k = h^k - k I_(k-1).

The last step has h = infinity, and all rules take it with order one, ``x_s = D``. A schedule that
starts at alpha = 0 has lambda = -infinity there: its first step has h = infinity, too, and the
estimate made in it is infinitely far from the others, so that it bends no polynomial. Both limits
come out of the same formulas.

Sources: Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in
Around 10 Steps", NeurIPS 2022; Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of
Diffusion Probabilistic Models", 2022.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.errors import WrongValue
from diffusion.models import Denoiser
from diffusion.samplers.base import PathSampler, per_member, samplers
from diffusion.samplers.noise import Noise
from diffusion.schedules.levels import Level


def _length(now: Level, then: Level) -> Tensor:
    """h, the gain in lambda, ``[members]``; infinite if the first level has no data."""
    return torch.log(now.nsr / then.nsr)


@dataclass(frozen=True)
class _SecondOrder(PathSampler):
    """DPM-Solver++(2M) for the SDE whose noise is sqrt(eta) g; ``eta = 0`` is the flow."""

    def _walk(
        self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise, eta: float
    ) -> Iterator[Tensor]:
        old: tuple[Tensor, Tensor] | None = None  # what was denoised in the step before, and its h
        for now, then in itertools.pairwise(levels):
            denoised = denoiser(x, now.alpha, now.sigma)
            if then.clean:
                yield per_member(then.alpha) * denoised
                return
            h = _length(now, then)
            denoised_d = denoised
            if old is not None:
                old_denoised, h_last = old
                denoised_d = denoised + per_member(0.5 * h / h_last) * (denoised - old_denoised)
            kept = torch.exp(-eta * h) if eta else torch.ones_like(h)
            x = (
                per_member(then.sigma / now.sigma * kept) * x
                - per_member(then.alpha * torch.expm1(-(1 + eta) * h)) * denoised_d
            )
            if eta:
                x = x + per_member(then.sigma * torch.sqrt(-torch.expm1(-2 * eta * h))) * noise.between(now, then)
            old = denoised, h
            yield x


@samplers.register(
    "dpmpp-2m",
    formula="x_s = sigma_s/sigma_t x_t + alpha_s (1 - e^-h) (D + h/(2 h') (D - D')), h = ln(nsr_t/nsr_s), ' the step before; first and "
    "last: D alone",
    source="Lu et al., DPM-Solver++, 2022, Algorithm 2",
)
@dataclass(frozen=True)
class DPMSolver2M(_SecondOrder):
    """DPM-Solver++(2M): second order with one evaluation a step, N in N steps."""

    order: ClassVar[int] = 2

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        return self._walk(denoiser, x, levels, noise, 0.0)


@samplers.register(
    "dpmpp-2m-sde",
    formula="x_s = sigma_s/sigma_t e^(-eta h) x_t + alpha_s (1 - e^(-(1+eta) h)) (D + h/(2 h') (D - D')) "
    "+ sigma_s sqrt(1 - e^(-2 eta h)) z, h = ln(nsr_t/nsr_s), ' the step before; first and last: D alone, no noise in the last",
    source="Lu et al., DPM-Solver++, 2022, section 5 (SDE-DPM-Solver++(2M), eta = 1); eta as in k-diffusion",
)
@dataclass(frozen=True)
class DPMSolver2MSDE(_SecondOrder):
    """DPM-Solver++(2M) for the SDE of `reverse-sde` with ``scale = sqrt(eta)``; ``eta = 0`` is
    `dpmpp-2m`.

    N evaluations in N steps.
    """

    eta: float = 1.0
    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise WrongValue(f"dpmpp-2m-sde: eta must be finite and not negative, found {self.eta}")

    @property
    def stochastic(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """True unless eta is 0."""
        return self.eta > 0

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        return self._walk(denoiser, x, levels, noise, self.eta)


@samplers.register(
    "dpmpp-3m",
    formula="x_s = sigma_s/sigma_t x_t + sigma_s integral of e^lambda P(lambda), P the parabola through the last three D",
    source="Lu et al., DPM-Solver++, 2022, appendix B (order 3, exact interpolation); first step: Zhao et al., UniPC, NeurIPS 2023",
)
@dataclass(frozen=True)
class DPMSolver3M(PathSampler):
    """DPM-Solver++ of order three with the exact integrals of Lagrange's parabola; one evaluation a
    step, N in N steps.

    A first step of order one would bring the whole down to order two. It is therefore corrected, as
    UniPC corrects: the estimate at its end, which the next step needs anyway, replaces the constant
    D by a straight line. The second step is of order two, the last of order one. In one or two
    steps it is `ddim`.
    """

    order: ClassVar[int] = 3

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:  # noqa: ARG002
        past: list[tuple[Tensor, Tensor]] = []  # estimates and the lengths of the steps after them, the latest first
        denoised_next: Tensor | None = None
        for now, then in itertools.pairwise(levels):
            denoised = denoiser(x, now.alpha, now.sigma) if denoised_next is None else denoised_next
            denoised_next = None
            if then.clean:
                yield per_member(then.alpha) * denoised
                return
            h = _length(now, then)
            integrals = _integrals(h)
            x = per_member(then.sigma / now.sigma) * x + per_member(then.alpha) * _interpolated(
                integrals, denoised, past
            )
            if not past:
                denoised_next = denoiser(x, then.alpha, then.sigma)
                bend = torch.where(torch.isinf(h), 0.0, integrals[1] / h)
                x = x + per_member(then.alpha * bend) * (denoised_next - denoised)
            past = [(denoised, h), *past[:1]]
            yield x


def _integrals(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """I_0, I_1 and I_2."""
    zeroth = -torch.expm1(-h)
    first = h - zeroth
    return zeroth, first, h**2 - 2 * first


def _interpolated(
    integrals: tuple[Tensor, Tensor, Tensor], denoised: Tensor, past: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """Integral of ``e^(u - h)`` times Newton's form of the polynomial through this estimate and
    those before.
    """
    zeroth, first, second = integrals
    total = per_member(zeroth) * denoised
    if past:
        old_denoised, h = past[0]
        slope = (denoised - old_denoised) / per_member(h)
        total = total + per_member(first) * slope
        if len(past) > 1:
            earliest, earlier_h = past[1]
            curvature = (slope - (old_denoised - earliest) / per_member(earlier_h)) / per_member(h + earlier_h)
            total = total + per_member(second + h * first) * curvature
    return total
