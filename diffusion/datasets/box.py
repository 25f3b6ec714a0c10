"""The uniform law in a box, every coordinate as on its interval of the line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, tree_sum
from diffusion.datasets.uniform import Uniform


@dataclass(frozen=True)
class Box(Dataset):
    """Independent coordinates, each ``U[low, high]``; see `Uniform`, which has the answers."""

    registered_name: ClassVar[str] = "box"
    on_device: ClassVar[bool] = True

    low: float
    high: float
    dimension: int

    @cached_property
    def _line(self) -> Uniform:
        return Uniform(self.low, self.high)

    @property
    def exact(self) -> bool:
        return True

    @property
    def dim(self) -> int:
        return self.dimension

    @property
    def mean(self) -> tuple[float, ...]:
        return self._line.mean * self.dimension

    @property
    def std(self) -> float:
        return self._line.std

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(n, self.dimension, generator=generator, dtype=torch.float64)
        return self.low + (self.high - self.low) * u

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._line.denoise(x[..., None], alpha[..., None], sigma[..., None])[..., 0]

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._line.score(x[..., None], alpha[..., None], sigma[..., None])[..., 0]

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        each = self._line.log_density(x[..., None], alpha[..., None], sigma[..., None])
        return tree_sum(each.movedim(-1, 0))

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        each = self._line.posterior_variance(x[..., None], alpha[..., None], sigma[..., None])
        return tree_sum(each.movedim(-1, 0))
