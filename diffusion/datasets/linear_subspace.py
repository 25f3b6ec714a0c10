r"""Data on a plane of few dimensions in a space of many: a known law on a random linear subspace,
with a little noise around it or none.

``x_0 = U z + s eta``, U ``[d, k]`` with orthonormal columns, z from the law `of` on R^k and
``eta ~ N(0, I)`` on R^d. With ``x = alpha x_0 + sigma eps`` and ``V = alpha^2 s^2 + sigma^2`` the two
parts of x are independent: ``y = U^T x`` is z of `of` noised at ``(alpha, sqrt V)``, and what is left,
``x - U y``, is ``N(0, V)`` on the other d - k dimensions. Hence

    log p(x)                = log p_z(y; alpha, sqrt V) - |x - U y|^2 / 2 V - (d - k) / 2 log(2 pi V)
    grad log p(x)           = U grad log p_z(y; alpha, sqrt V) - (x - U y) / V
    D(x)                    = sigma^2 / V  U D_z(y; alpha, sqrt V) + alpha s^2 / V  x
    E[|x_0 - D|^2 | x]      = d s^2 sigma^2 / V + (sigma^2 / V)^2 E[|z - D_z|^2 | y]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, datasets, tree_sum
from diffusion.datasets.gaussian_mixture import EightGaussians
from diffusion.datasets.noised import noised_distribution
from diffusion.devices import DeviceCopies, to_device
from diffusion.errors import WrongValue
from diffusion.randomness import stream

MOST_DIMENSIONS = 4096


@datasets.register(
    "linear_subspace",
    formula="x_0 = U z + s eta, U^T U = I;  D = sigma^2/V U D_z(U^T x; alpha, sqrt V) + alpha s^2/V x,  V = alpha^2 s^2 + sigma^2",
    source="data near a linear subspace: Chen, Huang, Zhao & Wang, Score approximation, estimation and distribution recovery "
    "of diffusion models on low-dimensional data, ICML 2023",
)
@dataclass(frozen=True)
class LinearSubspace(Dataset):
    r"""A law `of` on R^k placed on a random k-dimensional linear subspace of R^dim, with isotropic
    normal noise of standard deviation `noise` (0: none) around it.

    The subspace is drawn by `seed`: the columns of U are orthonormal, uniform among all such frames.
    Exact where `of` is. Modes and classes are those of `of`, told from the coordinates in the
    subspace.

    ``mean = U mean_z``; ``std^2 = (k std_z^2 + dim noise^2) / dim``.

    Shapes: ``x`` is ``[..., batch, dim]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: `dim` is below the dimension of `of` or above 4096, `noise` is negative or not
            finite, or `seed` is negative.
    """

    on_device: ClassVar[bool] = True

    of: Dataset = EightGaussians()
    dim: int = 16
    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.of.dim <= self.dim <= MOST_DIMENSIONS:
            raise WrongValue(
                f"linear_subspace: dim = {self.dim!r}, and {self.of.label()} has {self.of.dim}; "
                f"needed: from {self.of.dim} to {MOST_DIMENSIONS}"
            )
        if not 0 <= self.noise < math.inf:
            raise WrongValue(f"linear_subspace: noise = {self.noise!r}; needed: 0 or a positive number")
        if self.seed < 0:
            raise WrongValue(f"linear_subspace: seed = {self.seed!r}; needed: 0 or above")

    @property
    def exact(self) -> bool:
        return self.of.exact

    @property
    def smooth(self) -> bool:
        return self.of.exact and (self.noise > 0 or (self.of.dim == self.dim and self.of.smooth))

    @property
    def mean(self) -> tuple[float, ...]:
        placed = self.placed(torch.tensor([self.of.mean], dtype=torch.float64))
        return tuple(placed[0].tolist())

    @property
    def std(self) -> float:
        return math.sqrt(self.of.dim / self.dim * self.of.std**2 + self.noise**2)

    @cached_property
    def basis(self) -> Tensor:
        """U transposed: orthonormal rows ``[k, dim]``."""
        generator = stream("linear subspace", self.dim, self.of.dim, self.seed)
        normal = torch.randn(self.dim, self.of.dim, generator=generator, dtype=torch.float64)
        columns, upper = torch.linalg.qr(normal)
        # a positive diagonal makes the frame unique, whatever library factorises
        rows: Tensor = (columns * upper.diagonal().sign()).T.contiguous()
        return rows

    @cached_property
    def _copies(self) -> DeviceCopies[Tensor]:
        return DeviceCopies()

    def _basis_on(self, device: torch.device) -> Tensor:
        if device.type == "cpu":
            return self.basis
        if device not in self._copies:
            with torch.inference_mode(mode=False):  # whatever mode the first who asks is in
                self._copies[device] = to_device(self.basis, device)
        return self._copies[device]

    def coordinates(self, x: Tensor) -> Tensor:
        """``U^T x``: the coordinates in the subspace of points ``[..., dim]``, ``[..., k]``."""
        return torch.stack([tree_sum((x * row).movedim(-1, 0)) for row in self._basis_on(x.device)], -1)

    def placed(self, z: Tensor) -> Tensor:
        """``U z``: points ``[..., dim]`` of the subspace by their coordinates ``[..., k]``."""
        basis = self._basis_on(z.device)
        return tree_sum(torch.stack([z[..., j, None] * row for j, row in enumerate(basis)]))

    @cached_property
    def within(self) -> Dataset:
        """The law of a sample's coordinates in the subspace: that of `of`, noised."""
        return noised_distribution(self.of, 1.0, self.noise)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self._around(self.of.sample(n, generator), generator)

    def sample_labelled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        z, labels = self.of.sample_labelled(n, generator)
        return self._around(z, generator), labels

    def _around(self, z: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(z), self.dim, generator=generator, dtype=torch.float64)
        return self.placed(z) + self.noise * noise

    def _level(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """sqrt(V)."""
        return torch.hypot(alpha * self.noise, sigma)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        root = self._level(alpha, sigma)
        inner = self.placed(self.of.denoise(self.coordinates(x), alpha, root))
        kept, own = (sigma / root) ** 2, alpha * (self.noise / root) ** 2
        return kept[..., None] * inner + own[..., None] * x

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Not by Tweedie's formula, which cancels where sigma is small."""
        root = self._level(alpha, sigma)
        y = self.coordinates(x)
        return self.placed(self.of.score(y, alpha, root)) - (x - self.placed(y)) / (root * root)[..., None]

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        root, left = self._level(alpha, sigma), self.dim - self.of.dim
        y = self.coordinates(x)
        beside = tree_sum(((x - self.placed(y)) / root[..., None]).square().movedim(-1, 0))
        return self.of.log_density(y, alpha, root) - 0.5 * beside - left * torch.log(root * math.sqrt(2 * math.pi))

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        root = self._level(alpha, sigma)
        inner = self.of.posterior_variance(self.coordinates(x), alpha, root)
        kept = (sigma / root) ** 2
        return self.dim * self.noise**2 * kept + kept * kept * inner

    @property
    def mode_weights(self) -> tuple[float, ...] | None:
        return self.within.mode_weights

    def mode_of(self, x: Tensor) -> Tensor:
        return self.within.mode_of(self.coordinates(x))

    @property
    def classes(self) -> int:
        return self.of.classes

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        return self.of.class_weights

    def of_class(self, label: int) -> Dataset | None:
        found = self.of.of_class(label)
        return None if found is None else replace(self, of=found)

    def of_classes(self, labels: Sequence[int]) -> Dataset | None:
        found = self.of.of_classes(labels)
        return None if found is None else replace(self, of=found)
