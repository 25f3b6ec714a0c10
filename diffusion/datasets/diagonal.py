r"""Mixtures of normal distributions with a width of its own along every axis: what is left of a
mixture that was observed.

The target is ``sum_k w_k N(mu_k, diag(s_k1^2 ... s_kd^2))``, widths of zero allowed (a coordinate
that is known). With ``v_kj = alpha^2 s_kj^2 + sigma^2``

    p(x) = sum_k w_k prod_j N(x_j; alpha mu_kj, v_kj),     r_k(x) = w_k prod_j N(x_j; alpha mu_kj, v_kj) / p(x)
    D_j(x) = sum_k r_k m_kj,                               m_kj = (alpha s_kj^2 x_j + sigma^2 mu_kj) / v_kj
    E[|x_0 - D|^2 | x] = sum_k r_k sum_j (s_kj^2 sigma^2 / v_kj + (m_kj - D_j)^2)

Without a name in studies: it is made by conditioning (`diffusion.datasets.observed`). Where all
widths of a component are equal, `diffusion.datasets.mixtures` has more digits far away from the
data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, in_blocks, tree_sum
from diffusion.devices import HOST, numbers

_BLOCK = 1 << 17  # pairs of component and point at a time

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class DiagonalMixture(Dataset):
    r"""``sum_k w_k N(mu_k, diag(s_k^2))``: `weights` ``[K]``, `means` and `stds` ``[K][d]``.

    Shapes: ``x`` is ``[..., batch, d]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.
    """

    registered_name: ClassVar[str] = "diagonal-mixture"

    weights: tuple[float, ...]
    means: Rows
    stds: Rows

    @property
    def exact(self) -> bool:
        return True

    @property
    def dim(self) -> int:
        return len(self.means[0])

    on_device: ClassVar[bool] = True

    @cached_property
    def _parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Those on the host."""
        return self._parameters_on(HOST)

    def _parameters_on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """log w ``[K, 1]``, mu and s^2 ``[d, K, 1]``."""
        weights, means, stds = (numbers(v, device) for v in (self.weights, self.means, self.stds))
        return torch.log(weights / weights.sum())[:, None], means.T[..., None], (stds * stds).T[..., None]

    @cached_property
    def mean(self) -> tuple[float, ...]:
        log_weights, means, _ = self._parameters
        return tuple((log_weights.exp() * means).sum(1)[:, 0].tolist())

    @cached_property
    def std(self) -> float:
        log_weights, means, squares = self._parameters
        centre = torch.tensor(self.mean, dtype=torch.float64)[:, None, None]
        return math.sqrt(float((log_weights.exp() * (squares + (means - centre).square())).sum()) / self.dim)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        log_weights, means, squares = self._parameters
        index = torch.multinomial(log_weights[:, 0].exp(), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        return means[:, index, 0].T + squares[:, index, 0].sqrt().T * noise

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(_Posterior.log_density, x, alpha, sigma)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(_Posterior.denoised, x, alpha, sigma, self.dim)

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(_Posterior.score, x, alpha, sigma, self.dim)

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(_Posterior.variance, x, alpha, sigma)

    def _in_blocks(self, answer, x: Tensor, alpha: Tensor, sigma: Tensor, *trailing: int) -> Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
        def of_rows(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            found: Tensor = answer(_Posterior(log_weights, means, squares, x, alpha, sigma))
            return found

        log_weights, means, squares = self._parameters if x.is_cpu else self._parameters_on(x.device)
        block = max(1, _BLOCK // len(self.weights))
        return in_blocks(of_rows, x, alpha, sigma, block=block, trailing=trailing)


class _Posterior:
    """The component behind each of the points ``x [n, d]``; arrays are ``[K, n]``, one for each
    coordinate.
    """

    def __init__(
        self, log_weights: Tensor, means: Tensor, squares: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> None:
        self.alpha, self.noise = alpha, sigma * sigma
        self.axes = list(zip(x.T, means, squares, strict=True))
        exponent = log_weights
        for at, mean, square in self.axes:
            v = self._v(square)
            offset = at - alpha * mean
            exponent = exponent - 0.5 * (offset * offset / v + torch.log(v))
        self.top = exponent.amax(0)
        self.r = torch.exp(exponent - self.top)
        self.mass = tree_sum(self.r)

    def _v(self, square: Tensor) -> Tensor:
        return self.alpha * self.alpha * square + self.noise

    def _average(self, terms: Tensor) -> Tensor:
        return tree_sum(self.r * terms) / self.mass

    def _means(self, at: Tensor, mean: Tensor, square: Tensor) -> Tensor:
        """m_kj of one coordinate."""
        return (self.alpha * square * at + self.noise * mean) / self._v(square)

    def log_density(self) -> Tensor:
        return torch.log(self.mass) + self.top - 0.5 * len(self.axes) * math.log(2 * math.pi)

    def denoised(self) -> Tensor:
        return torch.stack([self._average(self._means(*axis)) for axis in self.axes], dim=-1)

    def score(self) -> Tensor:
        """Not by Tweedie's formula, which cancels when sigma is small."""
        pulls = [(self.alpha * mean - at) / self._v(square) for at, mean, square in self.axes]
        return torch.stack([self._average(pull) for pull in pulls], dim=-1)

    def variance(self) -> Tensor:
        total = torch.zeros_like(self.noise)
        for at, mean, square in self.axes:
            m = self._means(at, mean, square)
            offset = m - self._average(m)
            total = total + self._average(square * self.noise / self._v(square) + offset * offset)
        return total
