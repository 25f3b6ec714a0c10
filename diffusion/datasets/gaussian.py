r"""The normal distribution with independent coordinates: the one target for which every sampler can
be solved by hand.

With ``v_j = alpha^2 s_j^2 + sigma^2`` coordinate j of the noised sample is ``N(alpha m_j, v_j)``
and

    D_j(x) = m_j + alpha s_j^2 / v_j (x_j - alpha m_j)
    E[|x_0 - D|^2 | x] = sum_j s_j^2 sigma^2 / v_j,   whatever x
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, datasets, tree_sum
from diffusion.devices import HOST, numbers
from diffusion.errors import NoExactAnswer, WrongValue


def _canonical(name: str, value: float | tuple[float, ...], dim: int) -> float | tuple[float, ...]:
    """One number where all coordinates have the same, so that a law has one spelling."""
    values = tuple(map(float, value)) if isinstance(value, tuple) else (float(value),)
    if isinstance(value, tuple) and len(values) != dim:
        raise WrongValue(
            f"gaussian: {name} has {len(values)} entries, dim = {dim}; needed: one number, or {dim} of them"
        )
    if not all(map(math.isfinite, values)):
        raise WrongValue(f"gaussian: {name} = {value!r}; needed: finite numbers")
    return values[0] if len(set(values)) == 1 else values


@datasets.register(
    "gaussian",
    formula="p(x) = N(x; alpha m, alpha^2 s^2 + sigma^2),  D = m + alpha s^2 / (alpha^2 s^2 + sigma^2) (x - alpha m)",
    source="Gaussian conditioning: Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3",
    document="S0, S4",
)
@dataclass(frozen=True)
class Gaussian(Dataset):
    r"""``N(m, diag(s^2))`` on R^dim: `means` m and `stds` s, each one number for all coordinates or
    one for each.

    ``mean = m``; ``std`` is the root of the average of ``s_j^2``.

    Shapes: ``x`` is ``[..., batch, dim]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: ``dim < 1``, a number that is not finite, ``s_j <= 0``, or as many numbers as
            `dim` does not say.
    """

    on_device: ClassVar[bool] = True

    means: float | tuple[float, ...] = 0.0
    stds: float | tuple[float, ...] = 1.0
    dim: int = 1

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise WrongValue(f"gaussian: dim = {self.dim!r}; needed: an integer of at least 1")
        for name in ("means", "stds"):
            object.__setattr__(self, name, _canonical(name, getattr(self, name), self.dim))
        if min(self._stds) <= 0:
            raise WrongValue(f"gaussian: stds = {self.stds!r}; needed: positive numbers")

    @property
    def smooth(self) -> bool:
        return True

    @property
    def exact(self) -> bool:
        return True

    @property
    def has_cdf(self) -> bool:
        return self.dim == 1

    @property
    def mean(self) -> tuple[float, ...]:
        return self.means if isinstance(self.means, tuple) else (self.means,) * self.dim

    @property
    def std(self) -> float:
        return math.sqrt(math.fsum(s * s for s in self._stds) / self.dim)

    def coordinates(self) -> tuple[list[float], list[float]]:
        """m and s, a number for each coordinate."""
        return list(self.mean), list(self._stds)

    @property
    def _stds(self) -> tuple[float, ...]:
        return self.stds if isinstance(self.stds, tuple) else (self.stds,) * self.dim

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        m, s = self._mean_and_std()
        return m + s * torch.randn(n, self.dim, generator=generator, dtype=torch.float64)

    def cdf(self, x: Tensor) -> Tensor:
        m, s = self._line("distribution")
        return torch.special.ndtr((x - m) / s)  # type: ignore[no-any-return]

    def quantile(self, u: Tensor) -> Tensor:
        m, s = self._line("quantile")
        return m + s * torch.special.ndtri(u)  # type: ignore[no-any-return]

    def _line(self, what: str) -> tuple[float, float]:
        if self.dim != 1:
            raise NoExactAnswer(f"dataset 'gaussian' has a {what} function on the line only, not for dim = {self.dim}")
        return self.mean[0], self._stds[0]

    def _mean_and_std(self, device: torch.device = HOST) -> tuple[Tensor, Tensor]:
        """m and s, ``[dim]``."""
        return numbers(self.mean, device), numbers(self._stds, device)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        m, s = self._mean_and_std(x.device)
        a = alpha[..., None]
        return m + a * (s * s) / self._variances(alpha, sigma) * (x - a * m)

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``(alpha m_j - x_j) / v_j``; not by Tweedie's formula, which cancels when sigma is small."""
        return (alpha[..., None] * self._mean_and_std(x.device)[0] - x) / self._variances(alpha, sigma)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        v = self._variances(alpha, sigma)
        offset = x - alpha[..., None] * self._mean_and_std(x.device)[0]
        terms = -0.5 * (offset * offset / v + torch.log(v) + math.log(2 * math.pi))
        return tree_sum(terms.movedim(-1, 0))

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        s = self._mean_and_std(x.device)[1]
        terms = s * s * (sigma * sigma)[..., None] / self._variances(alpha, sigma)
        return (
            tree_sum(terms.movedim(-1, 0))
            .expand(torch.broadcast_shapes(x.shape[:-1], alpha.shape, sigma.shape))
            .clone()
        )

    def _variances(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """v, ``[..., dim]``."""
        s = self._mean_and_std(alpha.device)[1]
        reach = alpha[..., None] * s
        return reach * reach + (sigma * sigma)[..., None]
