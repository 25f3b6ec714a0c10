"""Metrics that know the surface of the torus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffusion.datasets import Dataset, Torus
from diffusion.metrics.base import Metric, metrics


@dataclass(frozen=True)
class _TorusMetric(Metric):
    """A metric that knows the surface of `torus`."""

    def refuses(self, dataset: Dataset) -> str | None:
        return None if isinstance(dataset, Torus) else "it measures against the surface of 'torus'"


@metrics.register(
    "torus-distance",
    formula="mean of |sqrt((rho - R)^2 + z^2) - r| / r",
    source="elementary geometry; the lecture's torus",
    document="S0",
)
@dataclass(frozen=True)
class TorusDistance(_TorusMetric):
    """Mean distance of the samples to the surface, in units of the tube's radius. Floor: 0.

    It does not see *where* on the surface the samples lie: read it together with `torus-moment`.
    """

    axis_label: ClassVar[str] = "mean distance to the torus / r"

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        assert isinstance(dataset, Torus)  # noqa: S101  # for the type checker: `refuses` has seen to it
        return float(dataset.distance(samples).mean()) / dataset.r

    def _floor(self, dataset: Dataset, n: int) -> float:  # noqa: ARG002
        return 0.0


@metrics.register(
    "torus-moment",
    formula="|mean(x^2 + y^2) / E[x^2 + y^2] - 1|,  E = R^2 + 3 r^2 / 2 (area), R^2 + r^2 / 2 (angle)",
    source="moments of R + r cos(theta); the lecture's torus",
    document="S0",
)
@dataclass(frozen=True)
class TorusMoment(_TorusMetric):
    """Relative error of the mean square distance from the axis: does the spread over the surface
    follow the law?

    Floor (against the law): ``sqrt(2 / pi)`` times the standard deviation of ``x^2 + y^2`` over its
    mean and ``sqrt(n)``, as the absolute value of a normal error.
    """

    axis_label: ClassVar[str] = "relative error of E[x² + y²]"

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        assert isinstance(dataset, Torus)  # noqa: S101
        return abs(float(samples[:, :2].square().sum(dim=1).mean()) / dataset.second_moment - 1)

    def _floor(self, dataset: Dataset, n: int) -> float:
        assert isinstance(dataset, Torus)  # noqa: S101
        variance = dataset.fourth_moment - dataset.second_moment**2
        return math.sqrt(2 / math.pi) * math.sqrt(variance) / dataset.second_moment / math.sqrt(n)
