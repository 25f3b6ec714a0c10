r"""Data far from zero, or of odd scale, with the affine map by which models see them.

With m the data's mean and s their standard deviation, of all coordinates together or of each,

    x_0 = m + s z_0

Models learn and are sampled in the coordinates z, where the data have mean 0 and deviation 1 and the
noise of a schedule is noise of that size; what goes in and comes out is in those of x. A noisy point
of one scale s is ``z_t = (x_t - alpha m) / s`` with noise ``sigma / s``, so that of the law of z

    D_x(x; alpha, sigma)               = m + s D_z(z_t; alpha, sigma / s)
    grad log p_x, log p_x              = grad log p_z / s,   log p_z - dim log s
    E[|x_0 - D_x|^2 | x]               = s^2 E[|z_0 - D_z|^2 | z]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, datasets
from diffusion.datasets.frame import Frame
from diffusion.datasets.gaussian import Gaussian
from diffusion.datasets.own import OwnPoints
from diffusion.datasets.points import PointSet, deviations
from diffusion.datasets.uniform import Uniform
from diffusion.devices import numbers
from diffusion.errors import NoExactAnswer, WrongValue


@dataclass(frozen=True)
class MovedPoints(PointSet):
    """The points of a set in other coordinates; their labels stay."""

    registered_name: ClassVar[str] = "moved-points"

    of: PointSet
    by: Frame
    deviation: float

    @cached_property
    def points(self) -> Tensor:
        return self.by.into(self.of.points)

    @property
    def labels(self) -> Tensor | None:
        return self.of.labels

    @property
    def exact(self) -> bool:
        return self.of.exact

    @property
    def dim(self) -> int:
        return self.of.dim

    @property
    def mean(self) -> tuple[float, ...]:
        return self.by.moved_mean(self.of.mean)

    @property
    def std(self) -> float:
        return self.deviation

    @property
    def has_cdf(self) -> bool:
        return self.of.has_cdf

    @cached_property
    def classes(self) -> int:
        return self.of.classes

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        return self.of.image_shape


@dataclass(frozen=True)
class Moved(Dataset):
    """The law of ``z = (x - m) / s`` for x of a law `of`.

    It is exact where `of` is, if all coordinates have one scale; where they have scales of their own
    its deviation is that of coordinates which `of` spreads alike.
    """

    registered_name: ClassVar[str] = "moved"
    on_device: ClassVar[bool] = True

    of: Dataset
    by: Frame

    @property
    def _scale(self) -> float:
        return self.by.scale[0]

    @property
    def exact(self) -> bool:
        return self.of.exact and self.by.one_scale

    @property
    def has_cdf(self) -> bool:
        return self.of.has_cdf

    @property
    def smooth(self) -> bool:
        return self.of.smooth and self.by.one_scale

    @property
    def dim(self) -> int:
        return self.of.dim

    @property
    def mean(self) -> tuple[float, ...]:
        return self.by.moved_mean(self.of.mean)

    @property
    def std(self) -> float:
        return self.of.std * math.sqrt(math.fsum(s**-2 for s in self.by.scale) / self.dim)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        return self.of.image_shape

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.by.into(self.of.sample(n, generator))

    def _asked(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The point and the level of the law `of` that are these."""
        shift = alpha[..., None] * numbers(self.by.shift, z.device)
        return z * self._scale + shift, alpha, sigma * self._scale

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.by.into(self.of.denoise(*self._asked(x, alpha, sigma)))

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Not by Tweedie's formula, which cancels where sigma is small."""
        return self.of.score(*self._asked(x, alpha, sigma)) * self._scale

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.of.log_density(*self._asked(x, alpha, sigma)) + self.by.log_volume

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.of.posterior_variance(*self._asked(x, alpha, sigma)) / self._scale**2

    def cdf(self, x: Tensor) -> Tensor:
        if not self.has_cdf:
            return super().cdf(x)
        return self.of.cdf(x * self._scale + self.by.shift[0])

    def quantile(self, u: Tensor) -> Tensor:
        if not self.has_cdf:
            return super().quantile(u)
        return (self.of.quantile(u) - self.by.shift[0]) / self._scale

    @property
    def mode_weights(self) -> tuple[float, ...] | None:
        return self.of.mode_weights

    def mode_of(self, x: Tensor) -> Tensor:
        return self.of.mode_of(self.by.back(x))

    @property
    def classes(self) -> int:
        return self.of.classes

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        return self.of.class_weights

    def sample_labelled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, labels = self.of.sample_labelled(n, generator)
        return self.by.into(x), labels

    def of_class(self, label: int) -> Dataset | None:
        found = self.of.of_class(label)
        return None if found is None else replace(self, of=found)

    def of_classes(self, labels: Sequence[int]) -> Dataset | None:
        found = self.of.of_classes(labels)
        return None if found is None else replace(self, of=found)


@datasets.register(
    "standardised",
    formula="x_0 = m + s z_0, m and s mean and deviation of the data: models see z, samples and metrics are of x;  "
    "D_x = m + s D_z((x - alpha m) / s; alpha, sigma / s)",
    source="change of variables; inputs of mean 0 and deviation 1: LeCun, Bottou, Orr & Muller, Efficient BackProp, 1998, section 4.3",
)
@dataclass(frozen=True)
class Standardised(Dataset):
    r"""The law `of`, of which models see ``z = (x - m) / s``: data far from zero or of odd scale, such
    as people's own.

    m is the mean of each coordinate; s the standard deviation over all coordinates, or with
    ``each: true`` that of each coordinate (1 where that is 0), which points and `gaussian` tell.
    The law itself, and all that is measured of samples, is that of `of`; noise levels of schedules
    and what is told of them are in units of s. Exact where `of` is.

    Shapes: ``x`` is ``[..., batch, dim]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64. The density, score and denoiser that it tells itself are those of `of`, noised in the
    data's own units.

    Raises:
        WrongValue: `each` of a law that does not tell the deviation of each coordinate, or a law
            that is standardised already.
    """

    on_device: ClassVar[bool] = True

    of: Dataset = Uniform()
    each: bool = False

    def __post_init__(self) -> None:
        if self.of.frame is not None:
            raise WrongValue(f"standardised: {self.of.label()} is standardised already; accepted: any other data set")
        if self.each and not isinstance(self.of, PointSet | Gaussian):
            raise WrongValue(
                f"standardised: each = True, and {self.of.label()} does not tell the deviation of each coordinate; "
                "accepted: points, gaussian, or each: false"
            )

    def label(self) -> str:
        return f"standardised({self.of.label()}{',each' if self.each else ''})"

    @cached_property
    def frame(self) -> Frame:
        """Shift m and scale s."""
        mean = tuple(map(float, self.of.mean))
        if not self.each:
            return Frame(mean, (float(self.of.std),) * self.dim)
        return Frame(mean, tuple(s if s > 0 else 1.0 for s in self._deviations()))

    def _deviations(self) -> list[float]:
        match self.of:
            case Gaussian():
                return self.of.coordinates()[1]
            case OwnPoints(stds=tuple(stds)):
                return list(stds)
            case PointSet():
                found: list[float] = deviations(self.of.points).tolist()
                return found
        raise NoExactAnswer(f"{self.of.label()} does not tell the deviation of each coordinate")

    def _deviation_left(self) -> float:
        """Of the law of z, over all coordinates: 1 but for those that are the same in all data."""
        if not self.each:
            return 1.0
        left = [(s / c) ** 2 for s, c in zip(self._deviations(), self.frame.scale, strict=True)]
        return math.sqrt(math.fsum(left) / len(left))

    @cached_property
    def working(self) -> Dataset:
        """The law of z."""
        frame, of = self.frame, self.of
        if isinstance(of, PointSet):
            return MovedPoints(of, frame, self._deviation_left())
        if isinstance(of, Gaussian):
            means, stds = of.coordinates()
            moved = tuple(frame.moved_mean(means)), tuple(s / c for s, c in zip(stds, frame.scale, strict=True))
            return Gaussian(*moved, of.dim)
        return Moved(of, frame)

    @property
    def law(self) -> Dataset:
        """`of`."""
        return self.of

    @property
    def exact(self) -> bool:
        return self.of.exact

    @property
    def has_cdf(self) -> bool:
        return self.of.has_cdf

    @property
    def smooth(self) -> bool:
        return self.of.smooth

    @property
    def dim(self) -> int:
        return self.of.dim

    @property
    def mean(self) -> tuple[float, ...]:
        return self.of.mean

    @property
    def std(self) -> float:
        return self.of.std

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        return self.of.image_shape

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.of.sample(n, generator)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.of.denoise(x, alpha, sigma)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.of.log_density(x, alpha, sigma)

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.of.score(x, alpha, sigma)

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.of.posterior_variance(x, alpha, sigma)

    def cdf(self, x: Tensor) -> Tensor:
        return self.of.cdf(x)

    def quantile(self, u: Tensor) -> Tensor:
        return self.of.quantile(u)

    @property
    def mode_weights(self) -> tuple[float, ...] | None:
        return self.of.mode_weights

    def mode_of(self, x: Tensor) -> Tensor:
        return self.of.mode_of(x)

    @property
    def classes(self) -> int:
        return self.of.classes

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        return self.of.class_weights

    def sample_labelled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.of.sample_labelled(n, generator)

    def of_class(self, label: int) -> Dataset | None:
        return self.of.of_class(label)

    def of_classes(self, labels: Sequence[int]) -> Dataset | None:
        return self.of.of_classes(labels)


def in_data_units(working: Dataset, frame: Frame) -> Dataset:
    """The law of ``m + s z`` for z of a law in a model's coordinates."""
    return Moved(working, frame.inverse)
