"""What a target distribution owes the rest of the atlas.

A noised sample is ``x = alpha x_0 + sigma eps`` with ``x_0`` from the target and ``eps ~ N(0, I)``.
Where the law of `x` is known (in closed form or by quadrature) a dataset gives it for any
``alpha >= 0, sigma > 0``:

- log-density ``log p(x)``, score ``grad log p(x)``,
- ideal denoiser ``D(x) = E[x_0 | x] = (x + sigma^2 score(x)) / alpha`` (Tweedie's formula),
- posterior variance ``E[|x_0 - D(x)|^2 | x] = sigma^2 / alpha  div D(x)``, the trace of the
  covariance of ``x_0``. Its mean over `x` is the denoising loss below which no network can come.

Shapes: ``x`` is ``[..., batch, dim]``; `alpha` and `sigma` broadcast against ``[..., batch]``
(``[members, 1]`` for a stack). Everything is float64. A point's numbers do not depend, not even in
the last bit, on what else is in the batch: nothing here multiplies matrices, and sums go in an
order that is the same for every batch.

Three things more are known of some targets:

- the distribution function and quantiles of the clean data, where `has_cdf`;
- separate *modes* (the atoms of a point set, the cells of a checkerboard): `mode_of` says to which
  of them a clean sample belongs, `mode_weights` with what probability it does;
- *classes*: every sample was drawn with a label (the component of a mixture that it came from, the
  digit that an image shows), which `sample_labelled` tells, and `of_class` is the law of the
  samples of one label. A mode is read off a sample; a label is not, and samples of two labels may
  lie at the same place.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion.arguments import at_a_level, of_draws, wrap_own
from diffusion.datasets.frame import Frame
from diffusion.errors import NoExactAnswer, WrongValue
from diffusion.registry import Component, Registry

datasets: Registry[Dataset] = Registry("dataset")

Rows = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x [n, dim], alpha [n], sigma [n]) -> [n] or [n, dim]


@dataclass(frozen=True)
class Dataset(Component):
    """A target distribution on R^dim.

    What a subclass says of noised points (`denoise`, `log_density`, `score`, `posterior_variance`)
    is asked through `diffusion.arguments.at_a_level`: plain numbers are taken, shapes and levels
    that cannot be right are refused. What it draws is looked at as well: ``[n, dim]``, finite.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        wrap_own(cls, ("denoise", "log_density", "score", "posterior_variance"), at_a_level)
        wrap_own(cls, ("sample",), of_draws)

    on_device: ClassVar[bool] = False
    """Whether what it says of noised points is computed where they are, without looking at a number;
    if not, it is computed on the host and copied back."""

    effort: ClassVar[float] = 1.0
    """How many times as long its exact denoiser takes as that of most laws, for estimates of time."""

    @property
    def exact(self) -> bool:
        """Whether `log_density`, `score`, `denoise` and `posterior_variance` are available."""
        return False

    @property
    def has_cdf(self) -> bool:
        """Whether `cdf` and `quantile` are available; ``dim == 1`` if so."""
        return False

    @property
    def smooth(self) -> bool:
        """Whether the clean data have a density that is positive and differentiable in the whole
        space: a score at every point.

        Points, surfaces and densities that end abruptly have none, nor has anything of which it is
        not known.
        """
        return False

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension of the space the samples live in."""

    @property
    @abstractmethod
    def mean(self) -> tuple[float, ...]:
        """Mean of each coordinate."""

    @property
    @abstractmethod
    def std(self) -> float:
        """Root of the variance averaged over coordinates, the `sigma_data` of the literature."""

    @property
    def root_mean_square(self) -> float:
        """``sqrt(E|x_0|^2 / dim) = sqrt(std^2 + |mean|^2 / dim)``: the size of the data beside noise
        that is centred at zero.
        """
        return math.sqrt(self.std**2 + math.fsum(m * m for m in self.mean) / self.dim)

    @property
    def frame(self) -> Frame | None:
        """The map from the coordinates in which models see the data to the data's own, where these
        are two: see `diffusion.datasets.standardised`.
        """
        return None

    @property
    def working(self) -> Dataset:
        """The law in the coordinates in which models learn it and are sampled; as a rule itself."""
        return self

    @property
    def law(self) -> Dataset:
        """The law in the data's own coordinates, which samples should follow; as a rule itself."""
        return self

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width where a point is an image, its pixels row by row, channel by
        channel; else None.
        """
        return None

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` independent draws, ``[n, dim]`` float64."""

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """E[x_0 | x], shaped like `x`."""
        raise NoExactAnswer(f"dataset {self.registered_name!r} has no exact denoiser")

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """log p(x), ``[..., batch]``."""
        raise NoExactAnswer(f"dataset {self.registered_name!r} has no exact density")

    @at_a_level
    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """grad log p(x), shaped like `x`; by Tweedie's formula from the denoiser."""
        a, s = alpha[..., None], sigma[..., None]
        return (a * self.denoise(x, alpha, sigma) - x) / s**2

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """``E[|x_0 - D(x)|^2 | x]``, summed over coordinates, ``[..., batch]``."""
        raise NoExactAnswer(f"dataset {self.registered_name!r} has no exact posterior variance")

    def cdf(self, x: Tensor) -> Tensor:  # noqa: ARG002
        """P(x_0 <= x) of the clean data, elementwise."""
        raise NoExactAnswer(f"dataset {self.registered_name!r} has no distribution function")

    def quantile(self, u: Tensor) -> Tensor:  # noqa: ARG002
        """The smallest x with ``cdf(x) >= u``, elementwise for u in [0, 1]: the inverse of `cdf`
        where it has one.
        """
        raise NoExactAnswer(f"dataset {self.registered_name!r} has no quantile function")

    @property
    def mode_weights(self) -> tuple[float, ...] | None:
        """``P(mode_of(x_0) = k)`` for each mode k; None where the target does not fall into
        separate modes.
        """
        return None

    def mode_of(self, x: Tensor) -> Tensor:  # noqa: ARG002
        """The mode to which each of the clean samples ``x [n, dim]`` belongs, ``[n]`` int64 below
        `len(mode_weights)`.

        It is the nearest one, so that samples that miss every mode are counted too. Available where
        `mode_weights` is not None.
        """
        raise NoExactAnswer(f"dataset {self.registered_name!r} has no separate modes")

    @property
    def classes(self) -> int:
        """How many classes there are; labels run from 0 to ``classes - 1``. 0 where samples have no
        labels.
        """
        return 0

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """The probability of each label; None where it is not known."""
        return None

    def sample_labelled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """`n` draws, the same that `sample` makes with this generator, and the label of each,
        ``[n]`` int64.
        """
        raise NoExactAnswer(f"dataset {self.registered_name!r} has no labels")

    def of_class(self, label: int) -> Dataset | None:  # noqa: ARG002
        """The distribution of the samples with this label, where it has a form of its own; else
        None.

        See `diffusion.datasets.classes.given_labels`, which finds the samples of other classes
        among draws.

        Raises:
            WrongValue: There is no such label.
        """
        return None

    def of_classes(self, labels: Sequence[int]) -> Dataset | None:  # noqa: ARG002
        """The same for several labels, each as often as any other."""
        return None


@dataclass(frozen=True)
class ScalarDataset(Dataset):
    """A target that lives on the line whatever its parameters, with known distribution and quantile
    functions.
    """

    @property
    def has_cdf(self) -> bool:
        return True

    @property
    def dim(self) -> int:
        return 1

    @abstractmethod
    def cdf(self, x: Tensor) -> Tensor:
        """P(x_0 <= x), elementwise."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The inverse of `cdf` on [0, 1], elementwise."""


def check_label(dataset: Dataset, label: int) -> None:
    """Raise WrongValue if the data set has no class of this label."""
    if dataset.classes == 0:
        raise WrongValue(f"dataset {dataset.registered_name!r} has no labels")
    if not 0 <= label < dataset.classes:
        message = f"dataset {dataset.registered_name!r} has no label {label}; accepted: 0 to {dataset.classes - 1}"
        raise WrongValue(message)


DEVICE_BLOCKS = 6
"""Blocks that keep temporaries in a processor's cache are so many times doubled elsewhere, where few
large operations are quicker."""


def in_blocks(
    function: Rows, x: Tensor, alpha: Tensor, sigma: Tensor, *, block: int, trailing: tuple[int, ...] = ()
) -> Tensor:
    """`function` on a block of points at a time, so that its temporaries stay in the cache;
    ``[..., batch, *trailing]``.
    """
    shape = torch.broadcast_shapes(x.shape[:-1], alpha.shape, sigma.shape)
    points = x.expand(*shape, x.shape[-1]).reshape(-1, x.shape[-1])
    alphas, sigmas = alpha.expand(shape).reshape(-1), sigma.expand(shape).reshape(-1)
    block = block if x.is_cpu else block << DEVICE_BLOCKS
    out = torch.empty(len(points), *trailing, dtype=torch.float64, device=x.device)
    for start in range(0, len(points), block):
        rows = slice(start, start + block)
        out[rows] = function(points[rows], alphas[rows], sigmas[rows])
    return out.reshape(*shape, *trailing)


@dataclass(frozen=True)
class InBlocks(Dataset):
    """A law that answers for a block of points ``[n, dim]`` at a time, alpha and sigma ``[n]``
    each.
    """

    block: ClassVar[int] = 1 << 14

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return in_blocks(self._log_density, x, alpha, sigma, block=self.block)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return in_blocks(self._denoise, x, alpha, sigma, block=self.block, trailing=(self.dim,))

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Not by Tweedie's formula, ``(alpha D - x) / sigma^2``, which cancels where sigma is
        small.
        """
        return in_blocks(self._score, x, alpha, sigma, block=self.block, trailing=(self.dim,))

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return in_blocks(self._variance, x, alpha, sigma, block=self.block)

    @abstractmethod
    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """`log_density` of a block, ``[n]``."""

    @abstractmethod
    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """`denoise` of a block, ``[n, dim]``."""

    @abstractmethod
    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """`score` of a block, ``[n, dim]``."""

    @abstractmethod
    def _variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """`posterior_variance` of a block, ``[n]``."""


def misstated(dataset: Dataset) -> str | None:
    """What a data set that somebody wrote gives in place of its mean or deviation; None if both are
    of their kind.
    """
    name = dataset.registered_name
    mean: object = dataset.mean
    std: object = dataset.std
    each = mean if isinstance(mean, tuple | list) else ()
    if len(each) != dataset.dim or not all(isinstance(m, int | float) for m in each):
        return f"{name}: its mean is {mean!r}; needed: a tuple of {dataset.dim} numbers, one for each coordinate"
    if not isinstance(std, int | float):
        return f"{name}: its std is {std!r}; needed: one number, the root of the variance averaged over coordinates"
    return None


def tree_sum(terms: Tensor) -> Tensor:
    """Sum over the first axis by halves, elementwise: the same order for every column, whatever the
    columns beside it.
    """
    count = terms.shape[0]
    while count > 1:
        half = count // 2
        summed = terms[:half] + terms[half : 2 * half]
        if count % 2:
            summed[0] += terms[count - 1]
        terms, count = summed, half
    return terms[0]
