r"""The law of a noised sample as a target of its own: what a diffusion process has made of the data
at one moment.

With ``y = alpha x_0 + sigma eps`` for fixed alpha and sigma, noise on top of it is noise again:

    x = a y + s e = a alpha x_0 + sqrt(V) eps',      V = a^2 sigma^2 + s^2

so that density and score are those of the inner target at ``(a alpha, sqrt(V))``. Given x *and*
x_0, y is normal with mean ``alpha x_0 + a sigma^2 / V (x - a alpha x_0)`` and variance
``sigma^2 s^2 / V``; hence, with the inner denoiser D and posterior variance P at that level,

    E[y | x]                 = (s^2 alpha D + a sigma^2 x) / V
    E[|y - E[y | x]|^2 | x]  = dim sigma^2 s^2 / V + (s^2 alpha / V)^2 P

without a difference of large numbers, and finite for ``a = 0``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, datasets
from diffusion.datasets.gaussian import Gaussian
from diffusion.datasets.gaussian_mixture import GaussianMixture
from diffusion.datasets.mixtures import MixtureDataset
from diffusion.datasets.uniform import Uniform
from diffusion.errors import WrongValue

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_REACH = 40.0  # standard deviations of the noised law to either side of its mean
_MOST_CELLS = 1 << 18
_MOST_STEPS = 200  # of the search for a quantile


@datasets.register(
    "noised",
    formula="p(x) = integral of p_0(x_0) N(x; alpha x_0, sigma^2 I) dx_0,  E[y|x] = (s^2 alpha D + a sigma^2 x) / (a^2 sigma^2 + s^2)",
    source="Gaussian conditioning: Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3",
    document="S1 (perturbed data), S3 and S4 (time marginals)",
)
@dataclass(frozen=True)
class Noised(Dataset):
    r"""The law of ``alpha x_0 + sigma eps`` with x_0 from the target `of`: a time marginal, or data
    that are smooth by intent.

    Exact where `of` is. On the line it then has distribution and quantile functions: in closed form
    for mixtures, atoms, normal and uniform targets; for any other by quadrature of the density, to
    1e-10 where its tails end within 40 standard deviations of its mean. ``alpha = 0`` is noise
    alone.

    Shapes: ``x`` is ``[..., batch, dim]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: `alpha` is negative, `sigma` is not positive, or one of them is not finite.
    """

    on_device: ClassVar[bool] = True

    of: Dataset = Uniform()
    alpha: float = 1.0
    sigma: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.alpha < math.inf and 0 < self.sigma < math.inf):
            raise WrongValue(
                f"noised: alpha = {self.alpha!r}, sigma = {self.sigma!r}; needed: finite numbers, alpha >= 0 and sigma > 0"
            )

    @property
    def exact(self) -> bool:
        return self.of.exact

    @property
    def has_cdf(self) -> bool:
        return self.of.exact and self.of.dim == 1

    @property
    def dim(self) -> int:
        return self.of.dim

    @property
    def mean(self) -> tuple[float, ...]:
        return tuple(self.alpha * m for m in self.of.mean)

    @property
    def std(self) -> float:
        return math.hypot(self.alpha * self.of.std, self.sigma)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        clean = self.of.sample(n, generator)
        return self.alpha * clean + self.sigma * torch.randn(clean.shape, generator=generator, dtype=torch.float64)

    def _level(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The level of the inner target that is this one's at (alpha, sigma)."""
        return alpha * self.alpha, torch.hypot(alpha * self.sigma, sigma)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.of.log_density(x, *self._level(alpha, sigma))

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.of.score(x, *self._level(alpha, sigma))

    def _shares(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``s^2 / V`` and ``a sigma^2 / V``."""
        root = torch.hypot(alpha * self.sigma, sigma)
        return (sigma / root) ** 2, alpha * (self.sigma / root) ** 2

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        inner, outer = self._shares(alpha, sigma)
        denoised = self.of.denoise(x, *self._level(alpha, sigma))
        return self.alpha * inner[..., None] * denoised + outer[..., None] * x

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        inner, _ = self._shares(alpha, sigma)
        left = self.of.posterior_variance(x, *self._level(alpha, sigma))
        return self.dim * self.sigma**2 * inner + (self.alpha * inner) ** 2 * left

    # --- on the line ------------------------------------------------------------------------------

    @cached_property
    def _reduced(self) -> Dataset:
        """This law as a target that has its own distribution function; itself where there is none
        to be had.
        """
        of = self.of
        if self.alpha == 0:
            return Gaussian(0.0, self.sigma)
        if isinstance(of, Noised):
            return Noised(of.of, self.alpha * of.alpha, math.hypot(self.alpha * of.sigma, self.sigma))._reduced  # noqa: SLF001
        if isinstance(of, Gaussian):
            return Gaussian(self.mean[0], self.std)
        if isinstance(of, MixtureDataset):
            weights = (of.mixture.weights / of.mixture.weights.sum()).tolist()
            means, stds = (
                of.mixture.means[:, 0] * self.alpha,
                torch.hypot(of.mixture.stds * self.alpha, torch.tensor(self.sigma, dtype=torch.float64)),
            )
            return GaussianMixture(tuple(weights), tuple(means.tolist()), tuple(stds.tolist()))
        return self

    def cdf(self, x: Tensor) -> Tensor:
        if not self.has_cdf:
            return super().cdf(x)
        if self._reduced is not self:
            return self._reduced.cdf(x)
        flat = x.reshape(-1).clamp(*self._ends)
        if isinstance(self.of, Uniform):
            level = (torch.tensor(value, dtype=torch.float64) for value in (self.alpha, self.sigma))
            return self.of.noised_cdf(flat[:, None], *level).reshape(x.shape)
        return self._integrated(flat).reshape(x.shape)

    def quantile(self, u: Tensor) -> Tensor:
        """The inverse of `cdf`; minus and plus infinity at 0 and 1."""
        if not self.has_cdf:
            return super().quantile(u)
        if self._reduced is not self:
            return self._reduced.quantile(u)
        flat = u.reshape(-1)
        low, high = (torch.full_like(flat, end) for end in self._ends)
        x, step = torch.full_like(flat, self.mean[0]), high - low
        for _ in range(_MOST_STEPS):
            excess = self.cdf(x) - flat
            low, high = torch.where(excess < 0, x, low), torch.where(excess > 0, x, high)
            newton = -excess / self._density(x)
            inside = (x + newton > low) & (x + newton < high) & (newton.abs() < 0.5 * step.abs())
            step = torch.where(excess == 0, 0.0, torch.where(inside, newton, 0.5 * (low + high) - x))
            if (x + step == x).all():
                break
            x = x + step
        x = torch.where(flat <= 0, -math.inf, torch.where(flat >= 1, math.inf, x))
        return x.reshape(u.shape)

    @property
    def _ends(self) -> tuple[float, float]:
        """Where the law is taken to begin and to end."""
        return self.mean[0] - _REACH * self.std, self.mean[0] + _REACH * self.std

    def _density(self, x: Tensor) -> Tensor:
        """p at ``x [n]``."""
        level = (torch.tensor(value, dtype=torch.float64) for value in (self.alpha, self.sigma))
        return torch.exp(self.of.log_density(x[:, None], *level))

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        """Edges of cells no wider than sigma, where that is possible, and the distribution function
        at each.
        """
        low, high = self._ends
        cells = min(math.ceil((high - low) / self.sigma), _MOST_CELLS)
        edges = torch.linspace(low, high, cells + 1, dtype=torch.float64)
        masses = self._masses(edges[:-1], edges[1:])
        return edges, torch.cat([torch.zeros(1, dtype=torch.float64), masses.cumsum(0)]) / masses.sum()

    def _masses(self, left: Tensor, right: Tensor) -> Tensor:
        """The probability of each interval, by Gauss-Legendre quadrature."""
        half = 0.5 * (right - left)
        total = torch.zeros_like(half)
        for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
            total = total + weight * self._density(left + half * (1 + node))
        return half * total

    def _integrated(self, x: Tensor) -> Tensor:
        """F at ``x [n]``: the cells below, and the part of the cell that x lies in."""
        edges, below = self._table
        cell = (torch.searchsorted(edges, x.contiguous(), right=True) - 1).clamp(0, len(edges) - 2)
        return (below[cell] + self._masses(edges[cell], x)).clamp(0, 1)


_SPELLED_OUT = 64  # components of a mixture that is still named one by one


def noised_distribution(dataset: Dataset, alpha: float, sigma: float) -> Dataset:
    """The law of ``alpha x_0 + sigma eps`` in its simplest form: a normal law or a mixture where it
    is one, else `Noised`.

    A mixture that is spelled out has the modes of one. Without noise, and unscaled, it is the
    target itself.
    """
    if sigma == 0 and alpha == 1:
        return dataset
    if isinstance(dataset, Gaussian):
        stds = dataset.stds if isinstance(dataset.stds, tuple) else (dataset.stds,) * dataset.dim
        wide = tuple(math.hypot(alpha * s, sigma) for s in stds)
        return Gaussian(tuple(alpha * m for m in dataset.mean), wide, dataset.dim)
    if isinstance(dataset, MixtureDataset) and len(dataset.mixture.weights) <= _SPELLED_OUT:
        mixture = dataset.mixture
        weights = (mixture.weights / mixture.weights.sum()).tolist()
        stds = tuple(math.hypot(alpha * s, sigma) for s in mixture.stds.tolist())
        return GaussianMixture(tuple(weights), tuple(map(tuple, (alpha * mixture.means).tolist())), stds)
    return Noised(dataset, alpha, sigma)
