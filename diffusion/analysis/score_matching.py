r"""Score matching for any function: the objectives point by point, the distance that they minimise,
and what energies need.

A score ``s(x)`` shall be ``grad log p(x)`` of data of which there are samples only. The **Fisher
divergence**

    F(s) = 1/2 E |s - grad log p|^2 = E [tr grad s + 1/2 |s|^2] + 1/2 E |grad log p|^2

contains the unknown only in its last term, which does not depend on s (Hyvarinen, JMLR 6, 2005).
The equality is an integration by parts and needs ``p s -> 0`` at infinity *and no ends on the way*:
where a density ends abruptly, or is no density at all (points, surfaces), the right side falls
without bound. (On U[0, 1] it is -6, -14, -22 for ``s = -c (2x - 1)^p`` with larger and larger c and
p.) Noised data have a smooth positive density in all cases.

| objective | of a point x | needs |
|---|---|---|
| implicit | ``tr grad s + 1/2 abs(s)^2`` | the trace of the Jacobian: d backward passes |
| implicit, Hutchinson | ``mean_j v_j' (grad s) v_j + 1/2 abs(s)^2`` | M backward passes |
| sliced | ``mean_j [v_j' (grad s) v_j + 1/2 (v_j' s)^2]`` | M backward passes |
| denoising | ``1/2 abs(s(x_0 + sigma eps) + eps / sigma)^2`` | noised data |

The v_j are probes with ``E v v' = I``: normal, or signs (Rademacher). Given x, with J the symmetric
Jacobian,

    Var v' J v = 2 |J|_F^2 (normal),     2 (|J|_F^2 - sum J_ii^2) (signs),     both divided by M for the mean of M.

Sliced score matching with its variance reduced (``E (v's)^2 = |s|^2`` put in) *is* the implicit
objective with Hutchinson's trace. The denoising objective is that of the noised law, up to a
constant (Vincent, Neural Computation 23, 2011); its minimiser is the score of the noised law, not
of the data.

**Energies.** If ``p = exp(f) / Z``, the score is ``grad f`` whatever Z is; `normaliser` finds Z by
quadrature where that can be done.

Sources besides: Hutchinson, Communications in Statistics 18, 1989; Song, Garg, Shi & Ermon, Sliced
Score Matching, UAI 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.models import Denoiser
from diffusion.randomness import Source, integers, normal

ScoreFunction = Callable[[Tensor], Tensor]
"""From points ``[n, d]`` to scores ``[n, d]``; no row of the result depends on another point."""

Probes = Literal["gaussian", "rademacher"]


def draw_probes(law: Probes, shape: tuple[int, ...], generator: Source) -> Tensor:
    """Random vectors with ``E v v' = I``, float64: standard normal numbers or signs."""
    if law == "gaussian":
        return normal(shape, generator)
    return 2.0 * integers(2, shape, generator).double() - 1.0


# --- objectives, point by point -------------------------------------------------------------------


def trace_of_jacobian(score: ScoreFunction, x: Tensor) -> Tensor:
    """``sum_i d s_i / d x_i`` at each of the points ``x [n, d]``, ``[n]``: d backward passes,
    differentiable.
    """
    u, s = _at(score, x)
    return coordinate_trace(s, u)


def hutchinson(score: ScoreFunction, x: Tensor, probes: Tensor) -> Tensor:
    """``mean_j v_j' (grad s) v_j`` for probes ``[n, M, d]``, ``[n]``: an unbiased estimate of the
    trace by M backward passes.
    """
    u, s = _at(score, x)
    return probed_trace(s, u, probes).mean(-1)


def implicit_loss(score: ScoreFunction, x: Tensor, probes: Tensor | None = None) -> Tensor:
    """``tr grad s + 1/2 |s|^2`` at each point, ``[n]``; with `probes` ``[n, M, d]`` the trace is
    Hutchinson's.
    """
    u, s = _at(score, x)
    trace = coordinate_trace(s, u) if probes is None else probed_trace(s, u, probes).mean(-1)
    return trace + 0.5 * s.square().sum(-1)


def sliced_loss(score: ScoreFunction, x: Tensor, probes: Tensor, *, variance_reduced: bool = False) -> Tensor:
    """``mean_j [v_j' (grad s) v_j + 1/2 (v_j' s)^2]`` at each point, ``[n]``, for `probes`
    ``[n, M, d]``.

    With `variance_reduced` the second term is its mean, ``1/2 |s|^2``: then this is `implicit_loss`
    with the same probes.
    """
    if variance_reduced:
        return implicit_loss(score, x, probes)
    u, s = _at(score, x)
    return (probed_trace(s, u, probes) + 0.5 * (probes * s[..., None, :]).sum(-1).square()).mean(-1)


def denoising_loss(score: ScoreFunction, data: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """``1/2 |s(x_0 + sigma eps) + eps / sigma|^2`` for data and standard normal noise ``[n, d]``,
    ``[n]``.
    """
    return 0.5 * (score(data + sigma * noise) + noise / sigma).square().sum(-1)


def coordinate_trace(s: Tensor, u: Tensor) -> Tensor:
    """The trace of ds/du for s and u ``[..., d]``, where s was computed from u row by row;
    ``[...]``.
    """
    return torch.stack([_backward(s[..., i].sum(), u)[..., i] for i in range(u.shape[-1])]).sum(0)


def probed_trace(s: Tensor, u: Tensor, probes: Tensor) -> Tensor:
    """``v_j' (ds/du) v_j`` for s and u ``[..., d]`` and probes ``[..., M, d]``; ``[..., M]``."""
    each = [(v * _backward((v * s).sum(), u)).sum(-1) for v in probes.unbind(-2)]
    return torch.stack(each, -1)


def _backward(number: Tensor, u: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(number, u, create_graph=True, allow_unused=True, materialize_grads=True)
    return gradient


def _at(score: ScoreFunction, x: Tensor) -> tuple[Tensor, Tensor]:
    u = x.detach().requires_grad_()
    s = score(u)
    if s.grad_fn is None and not s.requires_grad:  # a constant score has a Jacobian too
        s = s + 0 * u
    return u, s


# --- distances ------------------------------------------------------------------------------------


def score_of(denoiser: Denoiser, alpha: float, sigma: float) -> ScoreFunction:
    """The score ``(alpha D(x) - x) / sigma^2`` that a denoiser of one member implies at a noise
    level.
    """
    level = torch.tensor([alpha], dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64)

    def score(x: Tensor) -> Tensor:
        return (alpha * denoiser(x[None], *level)[0] - x) / sigma**2

    return score


def fisher_divergence(
    score: ScoreFunction,
    dataset: Dataset,
    sigma: float,
    generator: torch.Generator,
    *,
    alpha: float = 1.0,
    samples: int = 10_000,
) -> tuple[float, float]:
    """``1/2 E |s - grad log p_t|^2`` for ``x_t = alpha x_0 + sigma eps`` of a target with an exact
    score, and its standard error.

    Raises:
        WrongValue: the target has no exact score, or `sigma` is not positive: of clean data not
            every target has one.
    """
    if not dataset.exact:
        raise WrongValue(f"dataset {dataset.registered_name!r} has no exact score to compare with")
    if not sigma > 0:
        raise WrongValue(f"fisher_divergence compares scores at a noise level: sigma must be positive, found {sigma}")
    data = dataset.sample(samples, generator)
    x = alpha * data + sigma * torch.randn(data.shape, generator=generator, dtype=torch.float64)
    exact = dataset.score(x, torch.tensor([alpha], dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64))
    each = 0.5 * (score(x).detach() - exact).square().sum(-1)
    return float(each.mean()), float(each.std() / samples**0.5)


# --- energies -------------------------------------------------------------------------------------

_MOST_POINTS = 1 << 22


def normaliser(log_unnormalised: Callable[[Tensor], Tensor], dim: int, reach: float, tolerance: float = 1e-11) -> float:
    """``Z = int exp(f(x)) dx`` over ``[-reach, reach]^dim`` for f from points ``[n, dim]`` to
    ``[n]``.

    The trapezoidal rule, whose error falls faster than any power for smooth functions that vanish
    with all derivatives at the ends; its step is halved until two results agree to the relative
    `tolerance`.

    Raises:
        WrongValue: the results do not agree within 2^22 points.
    """
    before, nodes = float("nan"), 16
    while nodes**dim <= _MOST_POINTS:
        step = 2 * reach / nodes
        line = -reach + step * torch.arange(nodes, dtype=torch.float64)
        points = torch.cartesian_prod(*[line] * dim).reshape(-1, dim)
        found = float(torch.exp(log_unnormalised(points)).sum()) * step**dim
        if abs(found - before) <= tolerance * abs(found):
            return found
        before, nodes = found, 2 * nodes
    raise WrongValue(
        f"the normaliser is not known to {tolerance:g} with {_MOST_POINTS} points: use fewer dimensions or a smaller reach"
    )
