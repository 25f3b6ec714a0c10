"""Metrics for targets on the line: the samples against the target's distribution function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets import Dataset, Uniform
from diffusion.errors import WrongValue
from diffusion.metrics.base import Metric, metrics
from diffusion.metrics.cdf import (
    NEEDS_THE_LINE,
    atoms_of,
    binomial_mean,
    crossings,
    integral_of_cdf,
    integral_of_gap,
    mean_deviation,
)
from diffusion.randomness import stream

_BRIDGES = 1 << 20  # normal numbers for the floor of ks
_LEAST_SHARE = 1e-12

_MOST_CELLS = 1_000_000


@dataclass(frozen=True)
class _LineMetric(Metric):
    """A metric that needs the distribution function of the target."""

    def refuses(self, dataset: Dataset) -> str | None:
        return None if dataset.has_cdf else NEEDS_THE_LINE.format(dataset.dim)


@metrics.register(
    "w1",
    formula="W1 = integral over u of |F_n^-1(u) - F^-1(u)| = integral over x of |F_n(x) - F(x)|",
    source="Villani, Topics in Optimal Transportation, 2003, section 2.2; floor: del Barrio, Gine & Matran, "
    "Central limit theorems for the Wasserstein distance, Ann. Probab. 27, 1999",
    document="S0",
)
@dataclass(frozen=True)
class Wasserstein1(_LineMetric):
    r"""1-Wasserstein distance of the samples' empirical law to the target's law, in the units of
    the data.

    For `uniform`, ``sum_i integral from (i-1)/n to i/n of |x_(i) - Q(u)| du`` with the sorted
    samples ``x_(i)`` and the quantile function Q, each cell split where Q crosses ``x_(i)``:
    linear, and exact. Otherwise the integral of ``|F_n - F|``, cut wherever F_n jumps or F crosses
    it, by Gauss-Legendre quadrature; exact for a law of atoms.

    Floor (against the law): ``sqrt(2 / (pi n))`` times the integral of ``sqrt(F (1 - F))``, which
    is ``sqrt(2 pi) / 8 (high - low) / sqrt(n)`` for `uniform`; for atoms the mean absolute
    deviations of binomial shares, exact for every n.
    """

    axis_label: ClassVar[str] = "Wasserstein-1 distance to the target"

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        x = samples[:, 0].sort().values
        n = len(x)
        if not isinstance(dataset, Uniform):
            return integral_of_gap(x, dataset, torch.abs, (crossings(dataset, n),))
        low = torch.arange(n, dtype=torch.float64) / n
        high = torch.arange(1, n + 1, dtype=torch.float64) / n
        cut = dataset.cdf(x).clamp(low, high)
        below = (cut - low) * (x - dataset.quantile(0.5 * (low + cut))).abs()
        above = (high - cut) * (x - dataset.quantile(0.5 * (cut + high))).abs()
        return float((below + above).sum())

    def _floor(self, dataset: Dataset, n: int) -> float:
        if isinstance(dataset, Uniform):
            return math.sqrt(2 * math.pi) / 8 * (dataset.high - dataset.low) / math.sqrt(n)
        atoms = atoms_of(dataset)
        if atoms is None:
            return math.sqrt(2 / (math.pi * n)) * integral_of_cdf(dataset, lambda F: torch.sqrt(F * (1 - F)))
        places, weights = atoms
        steps = zip(places.diff().tolist(), weights.cumsum(0).tolist(), strict=False)
        return math.fsum(gap * mean_deviation(n, F) for gap, F in steps)


@metrics.register(
    "ks",
    formula="D = sup over x of |F_n(x) - F(x)|",
    source="Kolmogorov 1933; Marsaglia, Tsang & Wang, J. Stat. Softw. 8 (18), 2003",
    document="S0",
)
@dataclass(frozen=True)
class KolmogorovSmirnov(_LineMetric):
    """Kolmogorov-Smirnov statistic of the samples against the target's law, between 0 and 1.

    The supremum is attained at a sample or just before one; both are looked at, so that ties and a
    target with atoms are right. Against atoms it sees *on which side* of an atom a sample lies,
    however near: use `w1`, `energy` or `mode-coverage` there, unless samples are meant to hit the
    atoms.

    Floor (against the law): ``sqrt(pi / 2) ln 2 / sqrt(n)``, the mean of Kolmogorov's distribution,
    for every continuous F; for atoms the mean of the largest ``|B(F)|`` of a Brownian bridge over
    the steps of F alone, from a fixed stream (0.2 % for up to 100 atoms).
    """

    axis_label: ClassVar[str] = "Kolmogorov-Smirnov statistic"

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        values, counts = np.unique(samples[:, 0].numpy(), return_counts=True)
        x, n = torch.from_numpy(values), len(samples)
        after = torch.from_numpy(np.cumsum(counts) / n)
        before = torch.from_numpy((np.cumsum(counts) - counts) / n)
        just_before = torch.nextafter(x, torch.full_like(x, -math.inf))
        above = (after - dataset.cdf(x)).abs().max()
        below = (before - dataset.cdf(just_before)).abs().max()
        return float(torch.maximum(above, below))

    def _floor(self, dataset: Dataset, n: int) -> float:
        atoms = atoms_of(dataset)
        if atoms is None:
            return math.sqrt(math.pi / 2) * math.log(2) / math.sqrt(n)
        return _mean_largest_of_bridge(tuple(atoms[1].tolist())) / math.sqrt(n)


@remembered(64)
def _mean_largest_of_bridge(weights: tuple[float, ...]) -> float:
    """``E max_k |B(w_1 + ... + w_k)|`` of a Brownian bridge B on [0, 1]."""
    step = torch.tensor(weights, dtype=torch.float64)
    draws = max(_BRIDGES // len(weights), 1024)
    normal = torch.randn(draws, len(weights), generator=stream("bridge", weights), dtype=torch.float64)
    walk = (normal * step.sqrt()).cumsum(1)
    bridge = walk - step.cumsum(0) * walk[:, -1:]
    return float(bridge.abs().amax(1).mean())


@metrics.register(
    "kl-grid",
    formula="KL = sum over cells of q_k ln(q_k / p_k), q the samples' shares, p the target's (1 / cells each)",
    source="Cover & Thomas, Elements of Information Theory, 2006, section 2.3; floor: Wilks, Ann. Math. Stat. 9, 1938",
)
@dataclass(frozen=True)
class GridDivergence(_LineMetric):
    """Kullback-Leibler divergence, in nats, of the samples' shares in cells from those of the
    target.

    The line is cut at the target's quantiles into `cells` parts of equal probability, the outer
    ones open, so that the answer is always finite. A cut that falls into a gap of the target, or on
    an atom, moves to the middle of the gap; for up to `cells` atoms each has a cell of its own.

    Floor (against the law): ``(cells - 1) / (2 n)`` for large n; computed as the exact binomial
    mean. A divergence is the *square* of a distance: a sampler whose error is of order p falls with
    the power 2 p of the step.
    """

    axis_label: ClassVar[str] = "KL divergence of shares in cells of equal probability / nats"

    cells: int = 32

    def __post_init__(self) -> None:
        if not 2 <= self.cells <= _MOST_CELLS:
            raise WrongValue(f"kl-grid: cells = {self.cells}; needed: 2 to {_MOST_CELLS}")

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        edges, shares = _cells(dataset, self.cells)
        found = np.bincount(np.searchsorted(edges, samples[:, 0].numpy()), minlength=len(shares)) / len(samples)
        return float(_divergence(found, shares).sum())  # q ln(q / p) - q + p: no term is negative

    def _floor(self, dataset: Dataset, n: int) -> float:
        values, times = np.unique(_cells(dataset, self.cells)[1].round(13), return_counts=True)
        means = [binomial_mean(n, p, partial(_divergence, p=p)) for p in values.tolist()]
        return float(times @ means)


def _divergence(share: np.ndarray, p: float | np.ndarray) -> np.ndarray:
    from scipy.special import kl_div

    return np.asarray(kl_div(share, p))


@remembered(64)
def _cells(dataset: Dataset, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Inner edges and the target's shares of cells ``(e_k, e_k+1]``."""
    atoms = atoms_of(dataset)
    if atoms is not None and len(atoms[0]) <= cells:
        reached = atoms[1].cumsum(0)[:-1]
    else:
        reached = torch.arange(1, cells, dtype=torch.float64) / cells
    left = dataset.quantile((reached - _LEAST_SHARE).clamp(min=0))
    right = dataset.quantile((dataset.cdf(left) + _LEAST_SHARE).clamp(max=1))
    right = torch.maximum(right, dataset.quantile((reached + _LEAST_SHARE).clamp(max=1)))
    edges = 0.5 * (left + right)
    edges = edges[torch.isfinite(edges)].unique()
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    shares = torch.cat([ends[:1], dataset.cdf(edges), ends[1:]]).diff()
    return edges.numpy(), shares.numpy()
