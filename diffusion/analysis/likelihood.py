r"""The likelihood of data under a denoiser, by the change of variables along its probability flow.

Measured in units of the noise, ``w = x_t / sigma``, with the amplitude of the signal in those units,
``u = alpha / sigma``, in place of the time, the flow of every schedule is one and the same,

    dw/du = D(x_t)                                  (w = u x_0 + eps: what does not depend on u is the noise)

regular from pure noise (u = 0) to the least noise of the schedule, and of one scale everywhere: an
error of 0.001 in w is a thousandth of the noise. The density of w changes along it by the
divergence,

    d log p_w / du = -div_w D = -sigma div_x D,     for the ideal denoiser = -u E[|x_0 - D|^2 | x_t]

(the last by Tweedie's formula; its mean is the relation of Guo, Shamai & Verdu, IEEE Trans. Inf.
Theory 51, 2005). So that

    log p(x) = log N(x_T; 0, S^2 I) + d log(sigma_T / sigma_min) - integral over u from u_T to u_min of sigma div_x D

with x at the schedule's t_min, x_T where the flow takes it at t_max, and S the standard deviation
of the process' own start noise: 1 where variance is preserved, sigma(t_max) where it explodes.
**The cut-off is part of the answer**: what is given is the density at t_min, that of data noised by
sigma(t_min).

Divergences: an ideal denoiser knows its own (`DivergenceModel`). Otherwise by automatic
differentiation, d vector-Jacobian products for the exact trace, or Hutchinson's estimate
``mean of v' (dD/dx) v`` with random signs v, each sample's own and the same at every u (Grathwohl
et al., FFJORD, ICLR 2019), so that the solver sees a smooth function; the error of log p is then
that of the estimate, and has mean zero.

Sources: Chen et al., Neural Ordinary Differential Equations, NeurIPS 2018; Song et al., Score-Based
Generative Modeling through Stochastic Differential Equations, ICLR 2021, appendix D.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from diffusion.analysis.flow_limit import FlowLost
from diffusion.devices import HOST, to_device
from diffusion.errors import WrongValue
from diffusion.models import Denoiser, DivergenceModel
from diffusion.randomness import SampleNoise
from diffusion.schedules import Schedule

MOST_EXACT = 16
"""Dimensions up to which the trace is exact unless asked otherwise."""

Trace = Literal["auto", "exact", "hutchinson"]

_MOST_EVALUATIONS = 20_000
_RELATIVE = 1e-12  # of w, whose rounding errors are of that size where u is large: the tolerance is absolute


def signs(key: tuple[object, ...], probes: int, samples: int, dim: int) -> Tensor:
    """Random signs ``[probes, samples, dim]`` of the stream named by `key`; sample i's do not
    depend on how many there are.
    """
    noise = SampleNoise(key, samples, dim)
    draws = torch.stack([noise.draw(k) for k in range(probes)])
    return torch.where(draws < 0, -1.0, 1.0).to(torch.float64)


def divergence(
    denoiser: Denoiser, x: Tensor, alpha: Tensor, sigma: Tensor, probes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``D(x)`` ``[members, batch, dim]`` and ``div_x D`` ``[members, batch]``, x as a `Denoiser`
    takes it.

    With `probes` ``[probes, batch, dim]`` the divergence is Hutchinson's estimate, unless the
    denoiser knows better.

    Raises:
        WrongValue: the denoiser neither states its divergence nor can be differentiated.
    """
    if isinstance(denoiser, DivergenceModel):
        return denoiser(x, alpha, sigma), denoiser.divergence(x, alpha, sigma)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        denoised = denoiser(x, alpha, sigma)
        if not denoised.requires_grad:
            raise WrongValue(
                f"{type(denoiser).__name__} cannot be differentiated in x and does not state its divergence"
            )
        exact = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)[:, None]
        directions = exact if probes is None else to_device(probes, x.device)
        total = torch.zeros(x.shape[:-1], dtype=torch.float64, device=x.device)
        for k, v in enumerate(directions):
            (pulled,) = torch.autograd.grad(denoised, x, v.expand_as(denoised), retain_graph=k < len(directions) - 1)
            total += (pulled * v).sum(-1)
    return denoised.detach(), total if probes is None else total / len(directions)


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    *,
    tolerance: float = 1e-4,
    trace: Trace = "auto",
    probes: int = 1,
    key: tuple[object, ...] = ("likelihood",),
) -> Tensor:
    """log p ``[1, batch]``, in nats, of points ``[1, batch, dim]`` at the schedule's t_min under a
    denoiser's flow.

    To score clean data, noise them first, ``x = alpha x_0 + sigma eps`` at t_min: the density is
    that of noised data. Errors of the solver are held to `tolerance`, in units of the noise and in
    nats (root mean square over the batch). `trace` is exact up to `MOST_EXACT` dimensions and
    Hutchinson's with `probes` random signs beyond, unless it is named; signs come from the stream
    `key`.

    Raises:
        FlowLost: the solver gives up or leaves the numbers.
        WrongValue: the denoiser neither states its divergence nor can be differentiated.
        WrongValue: x is not ``[1, batch, dim]`` or not finite, `tolerance` is not above zero, `trace`
            is none of these, or `probes` is below 1.
    """
    _, batch, dim = _checked(x, tolerance)
    if trace not in get_args(Trace):
        raise WrongValue(f"trace = {trace!r}; accepted: {', '.join(get_args(Trace))}")
    if probes < 1:
        raise WrongValue(f"probes = {probes}; needed: at least 1")
    exact = trace == "exact" or (trace == "auto" and dim <= MOST_EXACT)
    directions = None if exact else signs(key, probes, batch, dim)

    def slope(u: float, state: Tensor) -> Tensor:
        alpha, sigma = _on_circle(u, x.device)
        denoised, spread = divergence(denoiser, sigma * state[..., :-1], alpha, sigma, directions)
        return torch.cat([denoised, (sigma[:, None] * spread)[..., None]], -1)

    first, last, sigma_min, sigma_max = _ends(schedule)
    start = torch.cat([x / sigma_min, torch.zeros(*x.shape[:-1], 1, dtype=torch.float64, device=x.device)], -1)
    end = _followed(slope, start, first, last, tolerance)
    z = sigma_max / schedule.prior_std * end[..., :-1]  # the end in units of the start noise
    at_end = -0.5 * z.square().sum(-1) - dim * (0.5 * math.log(2 * math.pi) + math.log(schedule.prior_std))
    return at_end + dim * math.log(sigma_max / sigma_min) + end[..., -1]


def bits_per_dim(log_density: Tensor, dim: int, scale: float = 1.0) -> Tensor:
    """``-log2 p / dim + log2 scale``: of data in another unit, `scale` of which are one unit of
    those whose density is given.

    Images of whole grey levels 0 .. 255 that were mapped to [-1, 1] have ``scale = 127.5``: bits
    per dimension are then those of grey levels.
    """
    return -log_density / (dim * math.log(2)) + math.log2(scale)


def to_noise(denoiser: Denoiser, x: Tensor, schedule: Schedule, tolerance: float = 1e-6) -> Tensor:
    """Where the flow takes points ``[1, batch, dim]`` from t_min to t_max; errors held to
    `tolerance` of the noise.
    """
    _checked(x, tolerance)
    first, last, sigma_min, sigma_max = _ends(schedule)
    return sigma_max * _followed(_velocity(denoiser), x / sigma_min, first, last, tolerance)


def to_data(denoiser: Denoiser, x: Tensor, schedule: Schedule, tolerance: float = 1e-6) -> Tensor:
    """Where the flow takes points ``[1, batch, dim]`` from t_max to t_min: the inverse of
    `to_noise`.
    """
    _checked(x, tolerance)
    first, last, sigma_min, sigma_max = _ends(schedule)
    return sigma_min * _followed(_velocity(denoiser), x / sigma_max, last, first, tolerance)


def _checked(x: Tensor, tolerance: float) -> torch.Size:
    if x.ndim != 3 or x.shape[0] != 1:
        raise WrongValue(f"points of shape {list(x.shape)}; needed: [1, batch, dim], one member at a time")
    if not x.to(HOST).isfinite().all():
        raise WrongValue("points that are not finite: the flow takes them nowhere")
    if not 0 < tolerance < math.inf:
        raise WrongValue(f"tolerance = {tolerance}; needed: a number above zero")
    return x.shape


def _ends(schedule: Schedule) -> tuple[float, float, float, float]:
    """u and sigma: at t_min, at t_max."""
    ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
    sigma = schedule.sigma(ends)
    first, last = (1 / schedule.nsr(ends)).tolist()
    return first, last, *sigma.tolist()


def _on_circle(u: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """alpha and sigma, ``[1]``, of the level with ``alpha / sigma = u`` and
    ``alpha^2 + sigma^2 = 1``.
    """
    r = math.hypot(1.0, u)
    level = to_device(torch.tensor([u / r, 1 / r], dtype=torch.float64), device)
    return level[:1], level[1:]


def _velocity(denoiser: Denoiser) -> Callable[[float, Tensor], Tensor]:
    def slope(u: float, state: Tensor) -> Tensor:
        alpha, sigma = _on_circle(u, state.device)
        return denoiser(sigma * state, alpha, sigma)

    return slope


def _followed(
    slope: Callable[[float, Tensor], Tensor], state: Tensor, first: float, last: float, tolerance: float
) -> Tensor:
    """The state at `last`, by an adaptive solver of order 8 (scipy's DOP853), which runs on the
    host: every evaluation goes there and back.
    """
    from scipy.integrate import solve_ivp

    evaluations = 0

    def flat(u: float, values: np.ndarray) -> np.ndarray:
        nonlocal evaluations
        evaluations += 1
        if evaluations > _MOST_EVALUATIONS:
            raise FlowLost(
                f"the flow is not at its end after {_MOST_EVALUATIONS} evaluations (tolerance {tolerance:g})"
            )
        here = to_device(torch.as_tensor(values).reshape(state.shape), state.device)
        found = slope(u, here).double().to(HOST).numpy().ravel()
        if not np.isfinite(found).all():
            raise FlowLost("the flow could not be followed to its end: it is not finite there")
        return found

    solution = solve_ivp(
        flat,
        (first, last),
        state.to(HOST).numpy().ravel(),
        method="DOP853",
        t_eval=[last],
        rtol=_RELATIVE,
        atol=tolerance,
    )
    if not (solution.success and np.isfinite(solution.y).all()):
        raise FlowLost(f"the flow could not be followed to its end: {solution.message}")
    return to_device(torch.as_tensor(solution.y[:, -1]).reshape(state.shape), state.device)
