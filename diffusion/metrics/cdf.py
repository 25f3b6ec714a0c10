r"""The law of a target on the line, as metrics need it: jumps, rungs, integrals of F_n - F, means
over perfect samples.

Everything is derived from the two functions that such a target has, F (`cdf`) and Q (`quantile`),
so that a law with atoms, with gaps or with unbounded support is served alike. An integral over x is
cut at the samples and at the *rungs*, quantiles so dense that F is smooth between them; a law of
atoms has its atoms as rungs, and all integrals are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets import Dataset

NEEDS_THE_LINE = "it needs a target on the line with a known distribution function, not one of dimension {}"
_MOST_ATOMS = 4096
_MANY = 20_000  # samples
_TINY = 1e-12  # of probability
_FAR = 0.1  # standard deviations between two rungs


def gauss_legendre(n: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return tuple(zip((0.5 * (nodes + 1)).tolist(), (0.5 * weights).tolist(), strict=True))


_RULE = gauss_legendre(4)


@remembered(64)
def atoms_of(dataset: Dataset) -> tuple[Tensor, Tensor] | None:
    """Places and weights of the jumps of F, if they are all there is; None for any other law.

    Walks from jump to jump: the next one lies at ``Q(F(a)+)``.
    """
    places: list[float] = []
    reached = [0.0]
    while reached[-1] < 1 - _TINY:
        place = dataset.quantile(torch.tensor([reached[-1] + _TINY], dtype=torch.float64))
        before = torch.nextafter(place, torch.full_like(place, -math.inf))
        if float(dataset.cdf(place) - dataset.cdf(before)) < 1e3 * _TINY or len(places) == _MOST_ATOMS:
            return None
        places.append(float(place))
        reached.append(float(dataset.cdf(place)))
    return torch.tensor(places, dtype=torch.float64), torch.tensor(reached, dtype=torch.float64).diff()


@remembered(64)
def rungs(dataset: Dataset) -> Tensor:
    """Points between which F is smooth: the atoms, or quantiles 1/2000 apart and at both ends 1/4
    apart in the logit.

    Where two of them lie far apart there is a gap, and its edges are approached by bisection.
    """
    atoms = atoms_of(dataset)
    if atoms is not None:
        return atoms[0]
    tails = torch.sigmoid(torch.linspace(-36, 36, 289, dtype=torch.float64))
    u = torch.cat([torch.arange(1, 2000, dtype=torch.float64) / 2000, tails[tails < 1]]).unique()
    points = dataset.quantile(u)
    for _ in range(50):
        far = (points.diff() > _FAR * dataset.std) & (u.diff() > _TINY * u[:-1].clamp(min=_TINY))
        if not far.any():
            break
        between = (0.5 * (u[:-1] + u[1:]))[far]
        u, order = torch.cat([u, between]).sort()
        points = torch.cat([points, dataset.quantile(between)])[order]
    return points[torch.isfinite(points)].unique()  # type: ignore[no-any-return]


@remembered(16)
def crossings(dataset: Dataset, n: int) -> Tensor:
    """Where F crosses the values that F_n takes, i / n.

    None if F is a staircase itself, nor for so many samples that the kink between two of them does
    not count.
    """
    if n > _MANY or atoms_of(dataset) is not None:
        return torch.zeros(0, dtype=torch.float64)
    return dataset.quantile(torch.arange(1, n, dtype=torch.float64) / n)


def integral_of_gap(x: Tensor, dataset: Dataset, f: Callable[[Tensor], Tensor], cuts: tuple[Tensor, ...] = ()) -> float:
    """Integral over the line of ``f(F_n - F)``, f(0) = 0, for samples ``x [n]``; further `cuts`
    where f has a kink.
    """
    points = torch.cat([x, rungs(dataset), *cuts]).sort().values
    left, width = points[:-1], points.diff()
    left, width = left[width > 0], width[width > 0]
    share = torch.searchsorted(x.sort().values, left, right=True).double() / len(x)
    total = torch.zeros_like(left)
    for t, weight in _RULE:
        total = total + weight * f(share - dataset.cdf(left + width * t))
    return float((total * width).sum())


def integral_of_cdf(dataset: Dataset, f: Callable[[Tensor], Tensor]) -> float:
    """Integral over the line of ``f(F)``, f(0) = f(1) = 0."""
    points = rungs(dataset)
    left, width = points[:-1], points.diff()
    total = torch.zeros_like(left)
    for t, weight in _RULE:
        total = total + weight * f(dataset.cdf(left + width * t).clamp(0, 1))
    return float((total * width).sum())


@remembered(64)
def mean_difference(dataset: Dataset) -> float:
    """E|X - X'| of two independent draws, ``2 integral of F (1 - F)`` (Gini)."""
    return 2 * integral_of_cdf(dataset, lambda F: F * (1 - F))


def cramer_spectrum(dataset: Dataset) -> tuple[np.ndarray, float]:
    """The limit of ``n 2 integral of (F_n - F)^2``, a sum of ``lambda_k Z_k^2``: the largest
    lambdas and what they miss.

    They are the eigenvalues of the Brownian bridge's covariance, ``2 (min(F, F') - F F')`` on the
    line with dx.
    """
    atoms = atoms_of(dataset)
    if atoms is not None:
        width, F = atoms[0].diff(), atoms[1].cumsum(0)[:-1]
    else:
        points = dataset.quantile(torch.sigmoid(torch.linspace(-14, 14, 401, dtype=torch.float64)))
        width = points.diff()
        F = dataset.cdf(0.5 * (points[:-1] + points[1:]))
    root = width.sqrt()
    bridge = 2 * (torch.minimum(F[:, None], F) - F[:, None] * F) * root[:, None] * root
    eigenvalues = np.linalg.eigvalsh(bridge.numpy()).clip(0)
    return eigenvalues, max(mean_difference(dataset) - float(eigenvalues.sum()), 0.0)


def mean_root(eigenvalues: np.ndarray, rest: float = 0.0) -> float:
    r"""``E sqrt(S)`` for ``S = sum lambda_k Z_k^2 + rest``, Z_k independent standard normal.

    ``E sqrt(S) = (4 pi)^(-1/2) integral of (1 - E exp(-s S)) s^(-3/2) ds``, by the trapezoidal rule
    in log s.
    """
    total = float(eigenvalues.sum()) + rest
    if total == 0:
        return 0.0
    step = 0.125
    s = np.exp(np.arange(-70, 70, step)) / total
    log_laplace = -0.5 * np.log1p(2 * s[:, None] * eigenvalues).sum(1) - rest * s
    return float((-np.expm1(log_laplace) / np.sqrt(s)).sum() * step / math.sqrt(4 * math.pi))


def binomial_mean(n: int, p: float, f: Callable[[np.ndarray], np.ndarray]) -> float:
    """``E f(N / n)``, N binomial(n, p)."""
    from scipy.stats import binom

    reach = 12 * math.sqrt(n * p * (1 - p)) + 40
    k = np.arange(max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach)) + 1)
    return float((binom.pmf(k, n, p) * f(k / n)).sum())


def mean_deviation(n: int, p: float) -> float:
    """``E |N / n - p|``, N binomial(n, p); ``sqrt(2 p (1 - p) / (pi n))`` for large n."""
    return binomial_mean(n, p, lambda share: np.abs(share - p))
