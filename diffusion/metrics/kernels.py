"""Distances between laws by a kernel: the energy distance and the maximum mean discrepancy.

All are ``D^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)`` with X from the samples and Y from the
target, ``k = -|x - y|`` or a mean of Gaussians; reported is D, which is a metric in the
mathematician's sense and falls like the error itself. Expectations run over all pairs, a point with
itself included (V-statistics), so that D^2 is the squared distance of two actual laws and never
negative; `energy-unbiased` leaves a point with itself out (U-statistics).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.metrics.base import SimulatedFloor, metrics, reference_sample
from diffusion.metrics.cdf import cramer_spectrum, integral_of_gap, mean_root

_ROWS, _COLUMNS = 64, 1024  # of a block of pairs, which is to stay in the cache
_NARROW = 8  # dimensions up to which differences are squared one by one
_FAR = 1e4  # standard deviations from the mean up to which squared distances may be expanded into products
_REFERENCE = 2  # points of the reference sample for each point that is looked at
_NODES = 800  # quantiles that stand for a law on the line where its kernel's eigenvalues are needed
_LEAST_REPEATS, _MOST_REPEATS = 16, 128
_SORTED_IN_FLOOR = 3e7  # numbers that a measured floor on the line may sort in all its repeats: some seconds
_FAINTEST = -700.0  # exponents below have exponentials that cost the processor ten times as long
_HUGE = 1e100  # beyond, squares would overflow

Squares = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
"""Writes ``|a_i - b_j|^2`` to the third argument; the fourth is of its shape and free."""

Kernel = Callable[[np.ndarray, np.ndarray], float]
"""The sum of the kernel over a block of squared distances; it may overwrite them, and a second
array of their shape.
"""

_MOST_POINTS = 100_000


def _by_differences(a: np.ndarray, b: np.ndarray, out: np.ndarray, spare: np.ndarray) -> None:
    np.subtract.outer(a[:, 0], b[:, 0], out=out)
    out *= out
    for k in range(1, a.shape[1]):
        np.subtract.outer(a[:, k], b[:, k], out=spare)
        spare *= spare
        out += spare


def _by_products(a: np.ndarray, b: np.ndarray, out: np.ndarray, spare: np.ndarray) -> None:  # noqa: ARG001
    np.matmul(-2 * a, b.T, out=out)
    out += (a * a).sum(1)[:, None]
    out += (b * b).sum(1)
    np.maximum(out, 0, out=out)


@dataclass(frozen=True)
class _Pairs:
    """Means of a kernel over pairs of points, a block at a time."""

    squares: Squares
    kernel: Kernel

    def across(self, a: np.ndarray, b: np.ndarray) -> float:
        """Over all pairs of a point of `a` and one of `b`."""
        return self._sum(a, b) / (len(a) * len(b))

    def within(self, a: np.ndarray) -> float:
        """Over all pairs of points of `a`, each with itself included."""
        total = 0.0
        for start in range(0, len(a), _ROWS):
            block, later = a[start : start + _ROWS], a[start + _ROWS :]
            total += self._sum(block, block) + 2 * self._sum(block, later)
        return total / len(a) ** 2

    def _sum(self, a: np.ndarray, b: np.ndarray) -> float:
        total = 0.0
        squares, spare = np.empty((2, _ROWS, _COLUMNS))
        for i in range(0, len(a), _ROWS):
            for j in range(0, len(b), _COLUMNS):
                rows, columns = a[i : i + _ROWS], b[j : j + _COLUMNS]
                block = (slice(len(rows)), slice(len(columns)))
                self.squares(rows, columns, squares[block], spare[block])
                total += self.kernel(squares[block], spare[block])
        return total


@dataclass(frozen=True)
class _Gaussians:
    """The mean over widths h of ``exp(-|x - y|^2 / 2 h^2)``."""

    widths: tuple[float, ...]

    def __call__(self, squares: np.ndarray, spare: np.ndarray) -> float:
        total = 0.0
        for width in self.widths:
            np.multiply(squares, -0.5 / width**2, out=spare)
            np.maximum(spare, _FAINTEST, out=spare)
            np.exp(spare, out=spare)
            total += float(spare.sum())
        return total / len(self.widths)


def _distances(squares: np.ndarray, spare: np.ndarray) -> float:
    np.sqrt(squares, out=spare)
    return float(spare.sum())


@remembered(32)
def _reference(dataset: Dataset, m: int) -> np.ndarray:
    """The reference sample, centred."""
    return np.asarray(reference_sample(dataset, m) - np.array(dataset.mean))


@remembered(32)
def _reference_within(dataset: Dataset, m: int, kernel: Kernel) -> float:
    """The mean of the kernel over pairs of the reference sample."""
    reference = _reference(dataset, m)
    return _Pairs(_squares_for(dataset, reference), kernel).within(reference)


def _squares_for(dataset: Dataset, x: np.ndarray) -> Squares:
    """Differences lose nothing; products of centred points are quicker in many dimensions, and lose
    digits far away.
    """
    wide = dataset.dim > _NARROW and float(np.abs(x).max()) < _FAR * dataset.std
    return _by_products if wide else _by_differences


@dataclass(frozen=True)
class _KernelMetric(SimulatedFloor):
    """A metric that looks at pairs of the first `points` samples and of a reference sample twice as
    large.
    """

    pairs_of_floor: ClassVar[float]  # that a measured floor may spend on all its repeats: a second

    points: int = 1500

    def __post_init__(self) -> None:
        if not 1 <= self.points <= _MOST_POINTS:  # every pair is compared
            raise WrongValue(f"{self.registered_name}: points = {self.points}; needed: 1 to {_MOST_POINTS}")

    def refuses(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        return None

    def _used(self, dataset: Dataset, n: int) -> int:  # noqa: ARG002
        return min(n, self.points)

    def _repeats(self, dataset: Dataset, n: int) -> int:  # noqa: ARG002
        pairs = n * (n / 2 + _REFERENCE * self.points)
        return int(min(max(self.pairs_of_floor / pairs, _LEAST_REPEATS), _MOST_REPEATS))


@metrics.register(
    "energy",
    formula="D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'|;  on the line 2 integral of (F_n - F)^2",
    source="Szekely & Rizzo, Energy statistics: a class of statistics based on distances, J. Stat. Plan. Inference 143, "
    "2013; the root, as in scipy.stats.energy_distance",
)
@dataclass(frozen=True)
class EnergyDistance(_KernelMetric):
    r"""Energy distance D of the samples to the target, in the square root of the data's units.

    Where the target has a distribution function, against the law and from all samples: the integral
    of ``2 (F_n - F)^2``. Elsewhere the first `points` samples against a fixed reference sample of
    ``2 points`` draws.

    Floor: on the line (against the law) ``E sqrt(sum lambda_k Z_k^2) / sqrt(n)``, lambda_k the
    eigenvalues of the Brownian bridge's covariance ``2 (min(F, F') - F F')``; its root mean square
    is exactly ``sqrt(E|X - X'| / n)``. Elsewhere two samples: the mean over independent perfect
    samples against the same reference (a standard error of 3 to 5 %); over references it is about
    ``sqrt(E|X - X'| (1/n + 1/m))``, n samples looked at, m = 2 points.
    """

    axis_label: ClassVar[str] = "energy distance to the target"
    pairs_of_floor: ClassVar[float] = 2e8

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        if dataset.has_cdf:
            return math.sqrt(2 * integral_of_gap(samples[:, 0], dataset, torch.square))
        across, within, reference, scale = _mean_distances(samples, dataset, self.points)
        return math.sqrt(max(2 * across - within - reference, 0.0) * scale)

    def _floor(self, dataset: Dataset, n: int) -> float:
        if dataset.has_cdf:
            return _energy_rate(dataset) / math.sqrt(n)
        return super()._floor(dataset, n)


@remembered(64)
def _energy_rate(dataset: Dataset) -> float:
    return mean_root(*cramer_spectrum(dataset))


def _mean_distances(samples: Tensor, dataset: Dataset, points: int) -> tuple[float, float, float, float]:
    """Mean distances between samples and reference, within the samples and within the reference,
    each point with itself included; and what all three are to be multiplied by.
    """
    m = _REFERENCE * points
    x, reference = samples[:points].numpy() - np.array(dataset.mean), _reference(dataset, m)
    within = _reference_within(dataset, m, _distances)
    scale = max(1.0, float(np.abs(x).max()) / _HUGE)
    if scale > 1:
        x, reference, within = x / scale, reference / scale, within / scale
    pairs = _Pairs(_squares_for(dataset, x), _distances)
    return pairs.across(x, reference), pairs.within(x), within, scale


@metrics.register(
    "energy-unbiased",
    formula="D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'| over pairs of different points; the root, 0 where D^2 is below 0",
    source="Szekely & Rizzo, Energy statistics, J. Stat. Plan. Inference 143, 2013; U-statistics: Hoeffding, Ann. Math. Stat. 19, 1948",
)
@dataclass(frozen=True)
class UnbiasedEnergy(_KernelMetric):
    r"""Energy distance whose square is estimated without bias, in the square root of the data's
    units: `energy` without its floor's greater part.

    A point's distance from itself, 0, is left out of the means, and with it the part
    ``E|X - X'| (1/n + 1/m)`` of `energy`'s square, which perfect samples have too. In many
    dimensions that is nearly all of `energy`'s floor, and hides errors which this metric shows. In
    return the square of small distances may be estimated below 0; such are told as 0.

    Where the target has a distribution function, against the law and from all samples:
    ``2 integral of (F_n - F)^2`` less the samples' own mean distance over n. Elsewhere the first
    `points` samples against a fixed reference sample of ``2 points`` draws.

    Against the law the mean of perfect samples' square is 0. Against the reference it is 0 over
    references; with the one that there is, it is an offset of deviation
    ``sqrt(2 sum lambda_k^2 / (m (m - 1)))``, m = 2 points and lambda_k the eigenvalues of the kernel
    centred under the law, whose sum is ``E|X - X'|``. All seeds share it, and no number of them
    averages it out. Where n = points it is about a third of one sample's noise.

    Floor: the mean over independent perfect samples against the same reference, so that it holds
    the offset.

    Raises:
        WrongValue: `points` below 2, or one sample.
    """

    axis_label: ClassVar[str] = "energy distance to the target, without bias"
    pairs_of_floor: ClassVar[float] = 2e8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 2:
            raise WrongValue(
                f"energy-unbiased: points = {self.points}; needed: 2 to {_MOST_POINTS}, as pairs of different ones are compared"
            )

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        return math.sqrt(max(self._squared(samples, dataset), 0.0))

    def _squared(self, samples: Tensor, dataset: Dataset) -> float:
        """The estimate of D^2, which may be below 0."""
        n = len(samples)
        if n < 2:
            raise WrongValue("energy-unbiased: 1 sample; needed: 2 or more, as pairs of different ones are compared")
        if dataset.has_cdf:
            x = samples[:, 0].sort().values - dataset.mean[0]
            rank = 2.0 * torch.arange(1, n + 1, dtype=torch.float64) - (n + 1)
            own = 2.0 * float((rank / n * (x / (n - 1))).sum())
            return 2 * integral_of_gap(samples[:, 0], dataset, torch.square) - own / n
        across, within, reference, scale = _mean_distances(samples, dataset, self.points)
        n, m = min(n, self.points), _REFERENCE * self.points
        return (2 * across - within * (n / (n - 1)) - reference * (m / (m - 1))) * scale

    def _floor(self, dataset: Dataset, n: int) -> float:
        if n < 2:
            raise WrongValue("energy-unbiased: floor of 1 sample; needed: 2 or more")
        return super()._floor(dataset, n)

    def _used(self, dataset: Dataset, n: int) -> int:
        return n if dataset.has_cdf else min(n, self.points)

    def _repeats(self, dataset: Dataset, n: int) -> int:
        if dataset.has_cdf:  # sorting
            return int(min(max(_SORTED_IN_FLOOR / n, _LEAST_REPEATS), _MOST_REPEATS))
        return max(_LEAST_REPEATS, super()._repeats(dataset, n) * _NARROW // max(_NARROW, dataset.dim))


@metrics.register(
    "mmd",
    formula="MMD^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y),  k = mean over h of exp(-|x - y|^2 / 2 h^2)",
    source="Gretton, Borgwardt, Rasch, Scholkopf & Smola, A kernel two-sample test, JMLR 13, 2012, equation 5",
)
@dataclass(frozen=True)
class MaximumMeanDiscrepancy(_KernelMetric):
    r"""Maximum mean discrepancy with a mean of Gaussian kernels, between 0 and sqrt(2): the root of
    the V-statistic.

    `bandwidths` are widths h in units of the target's root-mean-square distance from its mean,
    ``std sqrt(dim)``: a small one sees the detail, a large one the bulk. The first `points` samples
    are compared with a fixed reference of ``2 points``: the quantiles of ``(i - 1/2) / 2 points``
    where the target has a distribution function, else draws.

    Floor: on the line (against the law) ``E sqrt(sum lambda_k Z_k^2) / sqrt(n)``, lambda_k the
    eigenvalues of the centred kernel under the law; the root mean square is
    ``sqrt((1 - E k(Y, Y')) / n)``. Elsewhere two samples: the mean over independent perfect samples
    against the same reference (a standard error of 3 to 5 %); over references it is about
    ``sqrt((1 - E k(Y, Y')) (1/n + 1/m))``, n samples looked at, m = 2 points.
    """

    axis_label: ClassVar[str] = "maximum mean discrepancy"
    pairs_of_floor: ClassVar[float] = 1e8

    bandwidths: tuple[float, ...] = (0.1, 0.3, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bandwidths or not all(math.isfinite(h) and h > 0 for h in self.bandwidths):
            raise WrongValue(f"mmd: bandwidths = {list(self.bandwidths)}; needed: one or more numbers above 0")

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        m, kernel = _REFERENCE * self.points, _Gaussians(self._widths(dataset))
        x, reference = samples[: self.points].numpy() - np.array(dataset.mean), _reference(dataset, m)
        pairs = _Pairs(_squares_for(dataset, x), kernel)
        with np.errstate(over="ignore"):  # exp(-inf) = 0 is right
            squared = pairs.within(x) + _reference_within(dataset, m, kernel) - 2 * pairs.across(x, reference)
        return math.sqrt(max(squared, 0.0))

    def _floor(self, dataset: Dataset, n: int) -> float:
        if dataset.has_cdf:
            return _gaussian_rate(dataset, self._widths(dataset)) / math.sqrt(self._used(dataset, n))
        return super()._floor(dataset, n)

    def _widths(self, dataset: Dataset) -> tuple[float, ...]:
        return tuple(h * dataset.std * math.sqrt(dataset.dim) for h in self.bandwidths)


@remembered(64)
def _gaussian_rate(dataset: Dataset, widths: tuple[float, ...]) -> float:
    """``E sqrt(sum lambda_k Z_k^2)``, from the Gram matrix of quantiles."""
    y = reference_sample(dataset, _NODES)[:, 0]
    squares = np.subtract.outer(y, y) ** 2
    gram = np.mean([np.exp(squares * (-0.5 / h**2)) for h in widths], axis=0)
    mean = gram.mean(0)
    centred = gram - mean - mean[:, None] + mean.mean()
    return mean_root(np.linalg.eigvalsh(centred / _NODES).clip(0))
