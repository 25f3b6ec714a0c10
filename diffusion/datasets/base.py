"""What a target distribution owes the rest of the atlas.

A noised sample is ``x = alpha x_0 + sigma eps`` with ``x_0`` from the target and ``eps ~ N(0, I)``. Where the law of `x` is
known (in closed form or by quadrature) a dataset gives it for any ``alpha >= 0, sigma > 0``:

- log-density ``log p(x)``, score ``grad log p(x)``,
- ideal denoiser ``D(x) = E[x_0 | x] = (x + sigma^2 score(x)) / alpha`` (Tweedie's formula).

Shapes: ``x`` is ``[..., batch, dim]``; `alpha` and `sigma` broadcast against ``[..., batch]`` (``[members, 1]`` for a stack).
Everything is float64.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.registry import Component, Registry

datasets: Registry[Dataset] = Registry("dataset")


@dataclass(frozen=True)
class Dataset(Component):
    """A target distribution on R^dim."""

    exact: ClassVar[bool] = False  # whether log_density, score and denoise are available

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
        """Root of the variance averaged over coordinates: the `sigma_data` of the literature."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` independent draws, ``[n, dim]`` float64."""

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x], shaped like `x`."""
        raise NotImplementedError(f"dataset {self.registered_name!r} has no exact denoiser")

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p(x), ``[..., batch]``."""
        raise NotImplementedError(f"dataset {self.registered_name!r} has no exact density")

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """grad log p(x), shaped like `x`; by Tweedie's formula from the denoiser."""
        a, s = alpha[..., None], sigma[..., None]
        return (a * self.denoise(x, alpha, sigma) - x) / s**2


@dataclass(frozen=True)
class ScalarDataset(Dataset):
    """A target on the line with known distribution and quantile functions (of the clean data)."""

    @property
    def dim(self) -> int:
        return 1

    @abstractmethod
    def cdf(self, x: Tensor) -> Tensor:
        """P(x_0 <= x), elementwise."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The inverse of `cdf` on [0, 1], elementwise."""
