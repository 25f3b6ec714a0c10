r"""Finite sets of points, each as likely as any other: the empirical law of a data set, taken as
the target.

The noised law is a mixture of normal distributions of one width, and the ideal denoiser is a
softmax over the points,

    D(x) = sum_k r_k x_k,   r = softmax(-|x - alpha x_k|^2 / (2 sigma^2))

which is what a network that fits its training data perfectly has learnt: sampling with it returns
the training points. It costs (points asked) x (points held) operations; the work goes in blocks, so
that memory stays bounded.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from diffusion.datasets.base import ScalarDataset, check_label, datasets
from diffusion.datasets.mixtures import Mixture, MixtureDataset, nearest
from diffusion.errors import NoExactAnswer, WrongValue


@dataclass(frozen=True)
class PointSet(MixtureDataset):
    """The uniform distribution on finitely many points; a subclass says which. On the line its cdf
    is a staircase.

    Points may have labels, which make classes of them.
    """

    @property
    @abstractmethod
    def points(self) -> Tensor:
        """The points, ``[n, dim]`` float64; a point that occurs twice is twice as likely."""

    @property
    def labels(self) -> Tensor | None:
        """The label of each point, ``[n]`` int64 with every class from 0 on, or None."""
        return None

    @cached_property
    def mixture(self) -> Mixture:
        n = len(self.points)
        return Mixture(torch.full((n,), 1 / n, dtype=torch.float64), self.points, torch.zeros(n, dtype=torch.float64))

    @property
    def dim(self) -> int:
        return self.points.shape[1]

    @property
    def has_cdf(self) -> bool:
        return self.dim == 1

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], float]:
        mean = self.points.mean(0)
        return tuple(mean.tolist()), float((self.points - mean).square().mean().sqrt())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` of the points, drawn with replacement."""
        return self.points[self._chosen(n, generator)]

    def _chosen(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.points), (n,), generator=generator)

    @cached_property
    def classes(self) -> int:
        return 0 if self.labels is None else int(self.labels.max()) + 1

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        labels = self.labels
        return None if labels is None else tuple((torch.bincount(labels).double() / len(labels)).tolist())

    def sample_labelled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.labels is None:
            return super().sample_labelled(n, generator)
        index = self._chosen(n, generator)
        return self.points[index], self.labels[index]

    def of_class(self, label: int) -> PointSet:
        """The points that have the label, each as likely as any other.

        Raises:
            WrongValue: there is no such label.
        """
        return PointsOfClass(self, label)

    @cached_property
    def _staircase(self) -> tuple[Tensor, Tensor]:
        """The points in order, and the cdf at each."""
        if self.dim != 1:
            message = f"has distribution and quantile functions on the line only, not in {self.dim} dimensions"
            raise NoExactAnswer(f"dataset {self.registered_name!r} {message}")
        steps = self.points[:, 0].sort().values
        return steps, torch.arange(1, len(steps) + 1, dtype=torch.float64) / len(steps)

    def cdf(self, x: Tensor) -> Tensor:
        """The share of the points that are not above x: a step at each."""
        steps, _ = self._staircase
        return torch.searchsorted(steps, x.contiguous(), right=True).to(torch.float64) / len(steps)

    def quantile(self, u: Tensor) -> Tensor:
        """The first point at which `cdf` reaches u; the lowest point for u = 0."""
        steps, heights = self._staircase
        return steps[torch.searchsorted(heights, u.contiguous()).clamp(max=len(steps) - 1)]


_LAST_DIGITS = 64 * torch.finfo(torch.float64).eps


def deviations(points: Tensor) -> Tensor:
    """The standard deviation of each coordinate of points ``[n, dim]``, ``[dim]``, of all points
    and not of a sample: ``sqrt(mean_i (x_i - m)^2)``.

    It is 0 where it is no more than ``64 eps max_i |x_i|``. The mean of equal numbers is another
    number in its last digits, so a coordinate that is 0.1 in all points has a deviation of 3e-17 as
    computed.
    """
    found = (points - points.mean(0)).square().mean(0).sqrt()
    return torch.where(found > _LAST_DIGITS * points.abs().amax(0), found, 0.0)


@dataclass(frozen=True)
class PointsOfClass(PointSet):
    """Those points of a labelled set that have one label."""

    registered_name: ClassVar[str] = "points-of-class"

    of: PointSet
    label_of: int

    def __post_init__(self) -> None:
        check_label(self.of, self.label_of)

    @cached_property
    def points(self) -> Tensor:
        labels = self.of.labels
        assert labels is not None  # noqa: S101 - it has classes
        return self.of.points[labels == self.label_of]


Variant = Literal["text", "code"]
_POINTS = {"text": (-15.0, -5.0, 1.0, 10.0), "code": (-15.0, 1.0, -5.0, 15.0)}


@datasets.register(
    "four_points",
    formula="p(x) = 1/4 sum_k N(x; alpha x_k, sigma^2),  x_k in {-15, -5, 1, 10} (text) or {-15, 1, -5, 15} (code)",
    source="the notebook's data set, once as its text has it and once as its code",
    document="S3",
)
@dataclass(frozen=True)
class FourPoints(PointSet, ScalarDataset):
    r"""Four equally likely atoms on the line: ``{-15, -5, 1, 10}`` (``variant="text"``) or
    ``{-15, 1, -5, 15}`` (``"code"``).

    Mean and variance are -2.25 and 82.6875 (text), -1 and 118 (code); std 9.093267 and 10.862780.
    Modes and classes are the atoms in the order given, of weight 1/4 each.

    Shapes: ``x`` is ``[..., batch, 1]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: an unknown variant.
    """

    variant: Variant = "text"

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise WrongValue(f"four_points: variant = {self.variant!r}; accepted: {', '.join(get_args(Variant))}")

    @property
    def dim(self) -> int:
        return 1

    @property
    def has_cdf(self) -> bool:
        return True

    @property
    def points(self) -> Tensor:
        return torch.tensor(_POINTS[self.variant], dtype=torch.float64)[:, None]

    @property
    def labels(self) -> Tensor | None:
        return torch.arange(4)

    @property
    def mode_weights(self) -> tuple[float, ...] | None:
        return (0.25,) * 4

    def mode_of(self, x: Tensor) -> Tensor:
        return nearest(x, self.points)
