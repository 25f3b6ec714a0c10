"""Metrics of data on a linear subspace: what is wrong within it, and what is wrong beside it.

Both have floors that do not grow with the number of dimensions around the subspace, where distances
between clouds of points have floors that hide what they are to show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffusion.datasets import Dataset, LinearSubspace
from diffusion.metrics.base import Metric, metrics
from diffusion.metrics.transport import SlicedWasserstein2


@dataclass(frozen=True)
class _SubspaceMetric(Metric):
    """A metric that knows the subspace of `linear_subspace`."""

    def refuses(self, dataset: Dataset) -> str | None:
        return None if isinstance(dataset, LinearSubspace) else "it measures against the subspace of 'linear_subspace'"


@metrics.register(
    "subspace-w2",
    formula="sliced-w2 of U^T x against the law of the coordinates in the subspace, z + s U^T eta",
    source="Bonneel, Rabin, Peyre & Pfister, J. Math. Imaging Vis. 51, 2015, for the coordinates of the samples",
)
@dataclass(frozen=True)
class SubspaceWasserstein2(_SubspaceMetric):
    """`sliced-w2` of the coordinates in the subspace, in the units of the data; `projections` and
    `points` are as of that metric.

    Floor: that of `sliced-w2` in as many dimensions as the subspace has, however many are around
    it. Of what lies beside the subspace it sees nothing: read it together with `off-subspace`.
    """

    axis_label: ClassVar[str] = "sliced Wasserstein-2 distance within the subspace"

    projections: int = 64
    points: int = 10_000

    def __post_init__(self) -> None:
        _ = self._inner  # refuses what cannot be

    @property
    def _inner(self) -> SlicedWasserstein2:
        return SlicedWasserstein2(self.projections, self.points)

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        assert isinstance(dataset, LinearSubspace)  # noqa: S101  # for the type checker: `refuses` has seen to it
        return self._inner.evaluate(dataset.coordinates(samples), dataset.within)

    def _floor(self, dataset: Dataset, n: int) -> float:
        assert isinstance(dataset, LinearSubspace)  # noqa: S101
        return self._inner.floor(dataset.within, n)


@metrics.register(
    "off-subspace",
    formula="sqrt(d - k) |r - s|,  r^2 = mean of |x - U U^T x|^2 / (d - k)",
    source="W2 of two normal laws: Dowson & Landau, J. Multivariate Analysis 12, 1982, for N(0, r^2) and N(0, s^2) on d - k dimensions",
)
@dataclass(frozen=True)
class OffSubspace(_SubspaceMetric):
    """How far the size of what lies beside the subspace is from that of the target's noise s, in the
    units of the data: too much, and too little, which is noise that was lost.

    It is the Wasserstein-2 distance of the two isotropic normal laws on the d - k dimensions beside
    the subspace that have the sizes found and right.

    Floor (against the law): ``s / sqrt(pi n)``, as r is normal with deviation
    ``s / sqrt(2 n (d - k))`` for many samples; 0 without noise.
    """

    axis_label: ClassVar[str] = "error of the size beside the subspace"

    def refuses(self, dataset: Dataset) -> str | None:
        if reason := super().refuses(dataset):
            return reason
        assert isinstance(dataset, LinearSubspace)  # noqa: S101
        return None if dataset.of.dim < dataset.dim else "its subspace is the whole space, and nothing lies beside it"

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        assert isinstance(dataset, LinearSubspace)  # noqa: S101
        left = dataset.dim - dataset.of.dim
        beside = samples - dataset.placed(dataset.coordinates(samples))
        size = math.sqrt(float(beside.square().sum(1).mean()) / left)
        return math.sqrt(left) * abs(size - dataset.noise)

    def _floor(self, dataset: Dataset, n: int) -> float:
        assert isinstance(dataset, LinearSubspace)  # noqa: S101
        return dataset.noise / math.sqrt(math.pi * n)
