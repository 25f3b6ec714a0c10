"""Optimal transport with the squared distance as cost: exact for a few hundred points, by
projections for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.metrics.base import SimulatedFloor, metrics, reference_sample
from diffusion.metrics.cdf import atoms_of, gauss_legendre
from diffusion.randomness import stream

_REFERENCE = 10  # points of the reference sample for each sample, in `sliced-w2`
_HUGE = 1e100  # beyond, squares would overflow
_MANY = 20_000  # cells
_WIDE = 32  # cells with the widest range of quantiles
_BODY, _MIDDLE = gauss_legendre(4), gauss_legendre(1)
_FINE = tuple(((k + t) / 128, weight / 128) for k in range(128) for t, weight in gauss_legendre(2))
# Nodes that crowd at both ends, u = 10 t^3 - 15 t^4 + 6 t^5, for cells where the quantile function
# may be infinite.
_TAIL = tuple((t**3 * (10 - 15 * t + 6 * t * t), 30 * w * (t * (1 - t)) ** 2) for t, w in gauss_legendre(32))

Cells = tuple[np.ndarray, float]
"""A law on the line cut into n cells of mass 1 / n: means ``[n]``, increasing, and the mean square
within cells.
"""

_MOST_PROJECTIONS = 10_000
_MOST_ASSIGNED = 5000


def _cells_of_points(y: np.ndarray, n: int) -> Cells:
    blocks = np.sort(y).reshape(n, -1)
    means = blocks.mean(1)
    return means, float(((blocks - means[:, None]) ** 2).mean())


def _cells_of_distribution(dataset: Dataset, n: int) -> Cells:
    """From the quantile function, ``n integral of Q du`` over each cell: exact for atoms, else by
    quadrature.

    Of more than 20 000 cells the inner ones are so narrow that the quantile in the middle will do.
    """
    atoms = atoms_of(dataset)
    if atoms is not None:
        centre = dataset.mean[0]
        places, reached = atoms[0].numpy() - centre, np.concatenate([[0.0], atoms[1].cumsum(0).numpy()])
        u = np.arange(n + 1) / n
        moments = [np.concatenate([[0.0], np.cumsum(np.diff(reached) * places**k)]) for k in (1, 2)]
        means, squares = (n * np.diff(np.interp(u, reached, moment)) for moment in moments)
        return centre + means, max(float((squares - means**2).mean()), 0.0)
    low = torch.arange(n, dtype=torch.float64) / n
    means, squares = _quadrature(dataset, low, n, _BODY if n <= _MANY else _MIDDLE)
    wide = dataset.quantile(low).diff().topk(min(_WIDE, n - 1)).indices  # a gap may lie in them
    means[wide], squares[wide] = _quadrature(dataset, low[wide], n, _FINE)
    ends = [0, n - 1]
    means[ends], squares[ends] = _quadrature(dataset, low[ends], n, _TAIL)
    return means.numpy(), float(squares.mean())


def _quadrature(dataset: Dataset, low: Tensor, n: int, rule: tuple[tuple[float, float], ...]) -> tuple[Tensor, Tensor]:
    """Mean and mean square deviation of Q over the cells ``[low, low + 1/n]``."""
    nodes, weights = (torch.tensor(column, dtype=torch.float64)[:, None] for column in zip(*rule, strict=True))
    quantiles = dataset.quantile((low + nodes / n).clamp(1e-300, 1 - 2**-53))
    means = (weights * quantiles).sum(0)
    return means, (weights * (quantiles - means) ** 2).sum(0)


@remembered(32)
def directions(dim: int, number: int) -> np.ndarray:
    """At least `number` unit vectors ``[., dim]`` in orthonormal sets:
    ``mean of (theta . v)^2 = |v|^2 / dim``, exactly.

    In the plane they are equally spaced; in space and beyond, random orthonormal bases from a fixed
    stream.
    """
    sets = math.ceil(number / dim)
    if dim == 1:
        return np.ones((1, 1))
    if dim == 2:
        angles = np.arange(2 * sets) * (math.pi / (2 * sets))
        return np.stack([np.cos(angles), np.sin(angles)], 1)
    normal = torch.randn(sets, dim, dim, generator=stream("directions", dim), dtype=torch.float64)
    return np.asarray(torch.linalg.qr(normal)[0]).reshape(sets * dim, dim)


@remembered(8)
def _projected_target(dataset: Dataset, number: int, n: int) -> tuple[np.ndarray, float]:
    """Cell means ``[directions, n]`` of the projected target and the mean square within cells."""
    if dataset.has_cdf:
        means, spread = _cells_of_distribution(dataset, n)
        return means[None], spread
    reference = reference_sample(dataset, _REFERENCE * n)
    cells = [_cells_of_points(reference @ theta, n) for theta in directions(dataset.dim, number)]
    return np.stack([means for means, _ in cells]), float(np.mean([spread for _, spread in cells]))


def _sliced(x: np.ndarray, dataset: Dataset, number: int) -> float:
    """Root of the mean over projections of W2^2, each by sorting."""
    means, spread = _projected_target(dataset, number, len(x))
    scale = max(1.0, float(np.abs(x).max()) / _HUGE)
    projected = np.sort(directions(dataset.dim, number) @ (x / scale).T, axis=1)
    projected -= means / scale
    return scale * math.sqrt(float(np.square(projected, out=projected).mean()) + spread / scale**2)


@metrics.register(
    "sliced-w2",
    formula="SW2^2 = mean over directions theta of W2^2(theta . X, theta . Y)",
    source="Rabin, Peyre, Delon & Bernot, Wasserstein barycenter and its application to texture mixing, SSVM 2011; "
    "Bonneel, Rabin, Peyre & Pfister, J. Math. Imaging Vis. 51, 2015",
)
@dataclass(frozen=True)
class SlicedWasserstein2(SimulatedFloor):
    r"""Sliced 2-Wasserstein distance over a fixed set of directions, in the units of the data.

    `projections` is rounded up to a multiple of the dimension, in orthonormal sets, so that a shift
    by v is worth ``|v| / sqrt(dim)`` exactly. In each direction the sorted samples meet the
    quantile function of a fixed reference sample ten times as large (optimal transport on the
    line); where the target has a distribution function there is one direction, and the law itself
    takes the reference's place. More than `points` samples are cut to the first.

    Floor: on the line against the law; elsewhere two samples, of which the reference adds a tenth
    to the mean square. The mean over independent perfect samples.
    """

    axis_label: ClassVar[str] = "sliced Wasserstein-2 distance to the target"

    projections: int = 64
    points: int = 10_000

    def __post_init__(self) -> None:
        if not (1 <= self.projections <= _MOST_PROJECTIONS and self.points >= 1):
            raise WrongValue(
                f"sliced-w2: projections = {self.projections}, points = {self.points}; needed: 1 to {_MOST_PROJECTIONS} "
                "projections of at least 1 point"
            )

    def refuses(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        return None

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        return _sliced(samples[: self.points].numpy(), dataset, self.projections)

    def _used(self, dataset: Dataset, n: int) -> int:  # noqa: ARG002
        return min(n, self.points)

    def _repeats(self, dataset: Dataset, n: int) -> int:
        return _repeats_of_sorting(n * (1 if dataset.has_cdf else self.projections))


def _repeats_of_sorting(numbers: int) -> int:
    return int(min(max(3e7 / numbers, 32), 1024))


@metrics.register(
    "w2",
    formula="W2^2 = min over couplings of E|X - Y|^2",
    source="Villani, Topics in Optimal Transportation, 2003; solved exactly by Crouse, On implementing 2D rectangular "
    "assignment algorithms, IEEE Trans. Aerosp. Electron. Syst. 52, 2016 (scipy)",
)
@dataclass(frozen=True)
class Wasserstein2(SimulatedFloor):
    r"""2-Wasserstein distance, in the units of the data.

    Where the target has a distribution function, against the law and from all samples:
    ``W2^2 = sum_i integral from (i-1)/n to i/n of (x_(i) - Q(u))^2 du``. Elsewhere the first
    `points` samples against as many fixed draws of the target: an assignment of one set to the
    other, solved exactly. Two clouds of equal size with equal weights need no general solver;
    scipy's gives the numbers of network simplex codes to rounding, in the same time for 500 points,
    and grows with the cube of their number.

    Floor: on the line against the law; elsewhere two samples of `points`, and falls only like
    ``points^(-1/dim)`` in more than two dimensions. The mean over independent perfect samples.
    """

    axis_label: ClassVar[str] = "Wasserstein-2 distance to the target"
    counted: ClassVar[bool] = True

    points: int = 500

    def __post_init__(self) -> None:
        if not 1 <= self.points <= _MOST_ASSIGNED:  # the table of distances is held in memory
            raise WrongValue(f"w2: points = {self.points}; needed: 1 to {_MOST_ASSIGNED}")

    def refuses(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        return None

    def seconds(self, dataset: Dataset, n: int) -> float:
        """As measured of 500 to 2,000 points, in two and in 16 dimensions."""
        return 0.0 if dataset.has_cdf else 1.2e-10 * min(n, self.points) ** 3

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        if dataset.has_cdf:
            return _sliced(samples.numpy(), dataset, 1)
        x = samples[: self.points].numpy()
        return transport_cost(x, reference_sample(dataset, len(x)))

    def _used(self, dataset: Dataset, n: int) -> int:
        return n if dataset.has_cdf else min(n, self.points)

    def _repeats(self, dataset: Dataset, n: int) -> int:
        return _repeats_of_sorting(n) if dataset.has_cdf else int(min(max(4e9 / n**3, 16), 128))


def transport_cost(x: np.ndarray, y: np.ndarray) -> float:
    """W2 of two clouds ``[n, dim]``.

    The best assignment maximises ``sum x_i . y_j``: it stays the best when either cloud is moved or
    scaled. Both are centred and brought to unit size first, which the solver likes; the cost is
    that of the clouds as they are.
    """
    from scipy.optimize import linear_sum_assignment

    scale = max(1.0, float(np.abs(x).max()) / _HUGE)
    x, y = x / scale, y / scale
    a, b = _standard(x), _standard(y)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    rows, columns = linear_sum_assignment(squares)
    return scale * math.sqrt(float(((x[rows] - y[columns]) ** 2).sum(1).mean()))


def _standard(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(0)
    size = math.sqrt(float((centred**2).sum(1).mean())) or 1.0
    return np.asarray(centred / size)
