"""What is left of the equations for any density, velocity or score, by differences of eighth order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.analysis.fokker_planck.fields import Amplitude, Field

_FIRST = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
_SECOND = (8 / 5, -1 / 5, 8 / 315, -1 / 560)
_MIDDLE = -205 / 72


def _slope(f: Callable[[float], Tensor], step: float) -> Tensor:
    """f'(0), of eighth order."""
    pairs = (c * (f(k * step) - f(-k * step)) for k, c in enumerate(_FIRST, 1))
    return sum(pairs, start=torch.zeros(())) / step


def _curvature(f: Callable[[float], Tensor], step: float) -> Tensor:
    """f''(0), of eighth order."""
    pairs = (c * (f(k * step) + f(-k * step)) for k, c in enumerate(_SECOND, 1))
    return sum(pairs, start=_MIDDLE * f(0.0)) / step**2


def continuity_residual(density: Field, flow: Field, x: Tensor, t: float, *, dx: float, dt: float) -> Tensor:
    """``dq/dt + d(q v)/dx`` at places ``[n]``: zero where the velocity `flow` carries the density
    along.

    Derivatives are differences over `dx` and `dt`, of eighth order: a few hundredths of the least
    width of q, and of the time in which it changes. With ``flow_of(denoiser, schedule)`` and the
    target's exact density this is what the error of a learned score does to the law; of float32
    networks it is known to about 1e-7 / dx.
    """
    change = _slope(lambda e: density(x, t + e), dt)
    return change + _slope(lambda e: density(x + e, t) * flow(x + e, t), dx)


def fokker_planck_residual(
    density: Field, drift: Field, diffusion: Amplitude, x: Tensor, t: float, *, dx: float, dt: float
) -> Tensor:
    """``dq/dt + d(q f)/dx - g^2/2 d^2q/dx^2`` at places ``[n]``; differences as for
    `continuity_residual`.
    """
    change = _slope(lambda e: density(x, t + e), dt)
    carried = _slope(lambda e: density(x + e, t) * drift(x + e, t), dx)
    return change + carried - 0.5 * diffusion(t) ** 2 * _curvature(lambda e: density(x + e, t), dx)


def score_residual(
    score: Field, drift: Field, diffusion: Amplitude, x: Tensor, t: float, *, dx: float, dt: float
) -> Tensor:
    """``ds/dt - d/dx [g^2/2 (ds/dx + s^2) - f s - df/dx]`` at places ``[n]``: what a score must
    obey, with no density asked for.

    Source: Lai et al., FP-Diffusion: Improving Score-Based Diffusion Models by Enforcing the
    Underlying Score Fokker-Planck Equation, ICML 2023. Differences as for `continuity_residual`.
    """
    square = 0.5 * diffusion(t) ** 2
    change = _slope(lambda e: score(x, t + e), dt)
    bend = _curvature(lambda e: score(x + e, t), dx)
    drift_bend = _curvature(lambda e: drift(x + e, t), dx)
    carried = _slope(lambda e: square * score(x + e, t) ** 2 - drift(x + e, t) * score(x + e, t), dx)
    return change - square * bend - carried + drift_bend
