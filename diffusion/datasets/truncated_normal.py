r"""The normal distribution cut off at both ends of an interval, everywhere to full accuracy.

If ``x_0`` is uniform on an interval with centre m and half-width h and
``x = alpha x_0 + sigma eps``, the posterior of ``x_0`` is a normal distribution cut off at the ends
of the interval. Four numbers say it all; the picture is mirrored so that `x` lies on the side of
the *near* end:

    s   = alpha h / sigma                      half-width in units of the noise
    a   = signed distance from the near end    (in units of sigma; positive outside the interval)
    b   = a + 2 s                              distance from the far end
    tau = s |x - alpha m| / sigma              slope of the log-posterior;  exp(-2 tau) = phi(b) / phi(a)

Nothing divides by alpha, so ``alpha = 0`` (pure noise) is an ordinary value. The textbook formula
``D = x + sigma (phi(a) - phi(b)) / (Phi(b) - Phi(a))`` loses every digit for large sigma and far
outside; it is replaced by three expressions, each used only where it is accurate:

- *flat*, ``s < 1, tau < 4``: Gauss-Legendre quadrature of ``exp(-s^2 v^2 / 2 + tau v)`` over
  ``v in [-1, 1]``;
- *far*, ``a >= 8``: the continued fraction of Mills' ratio,
  ``1/M(a) = a + 1/(a + 2/(a + 3/(a + ...)))``;
- *edge*, all the rest: the textbook formula written with the scaled complementary error function.

The choice is made for each element from its own values, and every operation is elementwise: a
point's numbers do not depend, not even in the last bit, on what else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

FLAT_S = 1.0  # quadrature takes over below, and for tau < 4; 12 nodes are exact there to rounding
_FLAT_TAU = 4.0
_FAR = 8.0  # where 16 terms of the continued fraction are exact to rounding
_PLAIN = (1.0, 0.2, 0.24)  # a, s and tau, as they go together, of a point that no branch finds hard
_FAR_TERMS = 16
_BLOCK = 1 << 14
ROOT_TWO_PI = math.sqrt(2 * math.pi)
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def _symmetric_nodes(n: int) -> tuple[tuple[float, float], ...]:
    """The positive half of the `n` (even) Gauss-Legendre nodes on [-1, 1], with their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return tuple((float(v), float(w)) for v, w in zip(nodes, weights, strict=True) if v > 0)


NODES = _symmetric_nodes(12)

Branch = Callable[[Tensor, Tensor, Tensor], Tensor]  # (a, s, tau) -> result, elementwise


def _mills(u: Tensor) -> Tensor:
    """Mills' ratio Q(u) / phi(u) of the normal distribution, u >= 0."""
    scaled: Tensor = torch.special.erfcx(u * math.sqrt(0.5))
    return scaled * math.sqrt(math.pi / 2)


# --- flat: the posterior is nearly uniform --------------------------------------------------------


def _flat_moments(s: Tensor, tau: Tensor, order: int) -> list[Tensor]:
    """Integrals of ``v^k exp(-s^2 v^2 / 2 + tau v)`` over [-1, 1], k = 0 .. order, node pairs +-v
    taken together.
    """
    half = -0.5 * s * s
    moments = [torch.zeros_like(tau) for _ in range(order + 1)]
    for v, weight in NODES:
        even, slope = half * (v * v), tau * v
        right, left = torch.exp(even + slope), torch.exp(even - slope)
        parts = (right + left, right - left)
        for k in range(order + 1):
            moments[k] = moments[k] + parts[k % 2] * (weight * v**k)
    return moments


def _flat_mean(s: Tensor, tau: Tensor) -> Tensor:
    mass, first = _flat_moments(s, tau, 1)
    return first / mass


def _flat_gap(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:  # noqa: ARG001  # one signature for the three branches
    return 1 - _flat_mean(s, tau)


def _flat_pull(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    return (a + s) - s * _flat_mean(s, tau)


def _flat_variance(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:  # noqa: ARG001
    mass, first, second = _flat_moments(s, tau, 2)
    return second / mass - (first / mass) ** 2


def _flat_log_density(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    z = a + s
    return torch.log(0.5 * _flat_moments(s, tau, 0)[0]) - 0.5 * z * z - _HALF_LOG_TWO_PI


def _flat_log_mass(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    beyond = torch.where(a > 0, s * (2 * a + s), (a + s) * (a + s))  # z^2 - max(a, 0)^2
    return torch.log(0.5 * _flat_moments(s, tau, 0)[0]) - 0.5 * beyond - _HALF_LOG_TWO_PI


# --- edge: one end, or both, within reach ---------------------------------------------------------


def _edge_terms(a: Tensor, s: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """phi(a), 1 - exp(-2 tau) and Phi(b) - Phi(a), the first and last in units of phi(max(a, 0))."""
    inside = a < 0
    loss = -torch.expm1(-2 * tau)
    near = torch.exp(-0.5 * a * a).where(inside, torch.ones_like(a))
    tail = near * _mills(torch.where(inside, -a, a))  # not abs, whose derivative at the end is neither side's
    mass = torch.where(inside, ROOT_TWO_PI - tail, tail) - near * (1 - loss) * _mills(a + 2 * s)
    return near, loss, mass


def _edge_pull(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    near, loss, mass = _edge_terms(a, s, tau)
    return near * loss / mass


def _edge_gap(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    return (_edge_pull(a, s, tau) - a) / s


def _edge_variance(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    near, loss, mass = _edge_terms(a, s, tau)
    pull = near * loss / mass
    return (1 + near * (a * loss - 2 * s * (1 - loss)) / mass - pull * pull) / (s * s)


def _edge_log_density(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    mass = _edge_terms(a, s, tau)[2]
    outside = a.clamp(min=0)
    return torch.log(mass / (2 * s)) - 0.5 * outside * outside - _HALF_LOG_TWO_PI


def _edge_log_mass(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    return torch.log(_edge_terms(a, s, tau)[2] / (2 * s)) - _HALF_LOG_TWO_PI


# --- far: an exponential tail ---------------------------------------------------------------------


def _excess(a: Tensor) -> tuple[Tensor, Tensor]:
    """``c = 1/M(a) - a = 1/(a + c2)`` and ``c2 = 2/(a + 3/(a + ...))``; the tail has mean c and
    second moment c c2.
    """
    f = a
    for k in range(_FAR_TERMS, 2, -1):
        f = a + k / f
    c2 = 2 / f
    return 1 / (a + c2), c2


def _far_moments(a: Tensor, s: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """First and second moment of the distance t from the near end, in units of sigma / alpha: a
    tail minus a tail.
    """
    a = a.clamp(max=1e100)  # at 1e100 noise widths the posterior is the end itself; keeps inf / inf away
    b = a + 2 * s
    c, c2 = _excess(a)
    e, e2 = _excess(b)
    cut = torch.exp(-2 * tau) * (a + c) / (b + e)  # the share of the tail that lies beyond the far end
    rest = 1 - cut
    return (c - cut * (2 * s + e)) / rest, (c * c2 - cut * (4 * s * (s + e) + e * e2)) / rest


def _far_gap(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    return _far_moments(a, s, tau)[0] / s


def _far_pull(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    return a + _far_moments(a, s, tau)[0]


def _far_variance(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    first, second = _far_moments(a, s, tau)
    return (second - first * first) / (s * s)


def where_asked(mask: Tensor, what: Branch, a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    """`what` on the elements of the mask, 0 elsewhere, without asking which they are.

    The others are computed at a place where every branch and its derivatives are finite: a NaN that
    is not taken still has a part in a gradient.
    """
    places = (torch.where(mask, value, plain) for value, plain in zip((a, s, tau), _PLAIN, strict=True))
    return torch.where(mask, what(*places), 0.0)


def _by_branch(a: Tensor, s: Tensor, tau: Tensor, flat: Branch, edge: Branch, far: Branch) -> Tensor:
    """Each branch on the elements that are its own, a block that fits the cache at a time. NaN goes
    to `edge`.

    Elsewhere than on the host all branches are computed everywhere, rather than asking which are
    needed.
    """
    if not a.is_cpu:
        is_flat = (s < FLAT_S) & (tau < _FLAT_TAU)
        is_far = (a >= _FAR) & ~is_flat
        near = where_asked(~(is_flat | is_far), edge, a, s, tau)
        return torch.where(is_flat, where_asked(is_flat, flat, a, s, tau), near + where_asked(is_far, far, a, s, tau))
    out = torch.empty(a.numel(), dtype=a.dtype)
    flattened = [v.reshape(-1) for v in (a, s, tau)]
    for start in range(0, len(out), _BLOCK):
        rows = slice(start, start + _BLOCK)
        result, values = out[rows], [v[rows] for v in flattened]
        is_flat = (values[1] < FLAT_S) & (values[2] < _FLAT_TAU)
        is_far = (values[0] >= _FAR) & ~is_flat
        for mask, branch in ((is_flat, flat), (is_far, far), (~(is_flat | is_far), edge)):
            index = mask.nonzero().squeeze(1)
            if len(index) == len(result):
                result.copy_(branch(*values))
            elif len(index):
                result[index] = branch(*(v[index] for v in values))
    return out.reshape(a.shape)


# --- what is asked for ----------------------------------------------------------------------------


def gap(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    """Distance of the mean from the near end in half-widths, between 0 and 1."""
    return _by_branch(a, s, tau, _flat_gap, _edge_gap, _far_gap).clamp(0, 1)


def pull(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    """sigma times the score, positive towards the interval."""
    return _by_branch(a, s, tau, _flat_pull, _edge_pull, _far_pull)


def variance(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    """Variance in squared half-widths."""
    return _by_branch(a, s, tau, _flat_variance, _edge_variance, _far_variance)


def log_density(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    """log(sigma p(x)) of the noised uniform law."""
    return _by_branch(a, s, tau, _flat_log_density, _edge_log_density, _edge_log_density)


def log_mass(a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    """log(sigma p(x)) + max(a, 0)^2 / 2: what is left when the Gaussian fall outside the interval
    is taken out.
    """
    return _by_branch(a, s, tau, _flat_log_mass, _edge_log_mass, _edge_log_mass)
