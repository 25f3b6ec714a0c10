r"""Mixtures of isotropic normal distributions, atoms included, under noise.

The target is ``sum_k w_k N(mu_k, s_k^2 I)`` on R^d. With ``v_k = alpha^2 s_k^2 + sigma^2``

    p(x) = sum_k w_k N(x; alpha mu_k, v_k I),     r_k(x) proportional to w_k v_k^(-d/2) exp(-|x - alpha mu_k|^2 / 2 v_k)
    D(x) = sum_k r_k m_k,                         m_k = (alpha s_k^2 x + sigma^2 mu_k) / v_k
    E[|x_0 - D|^2 | x] = sum_k r_k (d s_k^2 sigma^2 / v_k + |m_k - D|^2)

Softmax of the exponents as they stand loses its digits far away: at ``|x| = 1e9`` they differ by less than their rounding
errors. They are taken relative to those of one component n near `x`, and what the two have in common never enters: with
``y = x - alpha mu_n`` and ``a_k = mu_k - mu_n``

    |y|^2 / 2 v_n - |x - alpha mu_k|^2 / 2 v_k = alpha a_k (y - alpha a_k / 2) / v_k + |y|^2 (v_k - v_n) / 2 v_k v_n

where ``v_k - v_n = alpha^2 (s_k^2 - s_n^2)``. An error is then that of an `x` moved by a few of its last bits.

Many components of one width, none narrower against the data's extent R than ``alpha R / 100``, do not need that: they are
taken relative to the centre of all, which is three times as quick and costs no more than 1e-12 in an exponent.

Arrays are ``[components, points]``; sums over components go by halves, elementwise. The denoiser of many components in many
dimensions (images) and its posterior variance go point by point instead, each with the same matrix: their numbers do not depend on
the batch either.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, in_blocks, tree_sum

_BLOCK = 1 << 17  # pairs of component and point at a time: a megabyte for each temporary
_MANY = 64  # components from which on the quick way is worth its while
_LONG = 16  # coordinates from which on products of matrix and vector are quicker than coordinate by coordinate
_LIKELY = 0.5  # share of one component from which on the others are a small difference
_FAINT = 800.0  # exponents further below the largest have exponentials that are zero, whatever their last digits
_WIDE = 1e-4  # (width / alpha R)^2 from which on it is exact enough


@dataclass(frozen=True, eq=False)
class Mixture:
    """The components: weights ``[K]`` (positive), means ``[K, d]`` and standard deviations ``[K]`` (not negative)."""

    weights: Tensor
    means: Tensor
    stds: Tensor

    @cached_property
    def log_weights(self) -> Tensor:
        """``[K, 1]``, or ``[1, 1]`` if all are equal: what follows from them is then computed once."""
        logs = torch.log(self.weights / self.weights.sum())[:, None]
        return logs[:1] if bool((self.weights == self.weights[0]).all()) else logs

    @cached_property
    def squares(self) -> Tensor:
        """s_k^2, ``[K, 1]``, or ``[1, 1]`` if all are equal."""
        squares = (self.stds * self.stds)[:, None]
        return squares[:1] if bool((squares == squares[0]).all()) else squares

    @cached_property
    def axes(self) -> tuple[Tensor, ...]:
        """The coordinates of the means, ``[K, 1]`` each."""
        return tuple(axis.contiguous()[:, None] for axis in self.means.T)

    @cached_property
    def centre(self) -> Tensor:
        """The mean of the means, ``[d]``."""
        return self.means.mean(0)

    @cached_property
    def from_centre(self) -> tuple[Tensor, ...]:
        """The coordinates of the means relative to their centre, ``[K, 1]`` each."""
        return tuple(axis - c for axis, c in zip(self.axes, self.centre, strict=True))

    @cached_property
    def half_squares(self) -> Tensor:
        """Half the squared distance of every mean from the centre, ``[K, 1]``."""
        return 0.5 * (self.means - self.centre).square().sum(1, keepdim=True)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(lambda posterior: posterior.log_density(), x, alpha, sigma)

    @cached_property
    def offsets(self) -> Tensor:
        """The means relative to their centre, ``[K, d]``."""
        return self.means - self.centre

    @property
    def _long(self) -> bool:
        """Whether points are better taken one by one: many components of one width in many dimensions."""
        size, dim = self.means.shape
        return size >= _MANY and dim >= _LONG and len(self.squares) == 1

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        dim = self.means.shape[1]
        if self._long:
            return in_blocks(self._points_denoised, x, alpha, sigma, block=_BLOCK, trailing=(dim,))
        return self._in_blocks(lambda posterior: posterior.denoised(), x, alpha, sigma, dim)

    def _points_denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for i, point, a, s, v, reference, means, r in self._point_by_point(x, alpha, sigma):
            mean = reference + torch.mv(means.T, r) / r.sum()
            out[i] = (a * float(self.squares[0]) / v) * point + (s * s / v) * mean
        return out

    def _points_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        out = torch.empty(len(x), dtype=torch.float64)
        for i, _, _, s, v, _, means, r in self._point_by_point(x, alpha, sigma):
            share, places, squares = r / r.sum(), means, 2 * self.half_squares[:, 0]
            if means is not self.offsets or float(share.max()) > _LIKELY:
                kept = (r > 0).nonzero()[:, 0]  # from the likeliest: then the difference below loses no digits
                share, places = share[kept], means[kept] - means[int(r.argmax())]
                squares = places.square().sum(1)
            offset = torch.mv(places.T, share)
            between = torch.dot(squares, share) - torch.dot(offset, offset)
            out[i] = x.shape[1] * float(self.squares[0]) * s * s / v + (s * s / v) ** 2 * between.clamp(min=0)
        return out

    def _point_by_point(
        self, x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Iterator[tuple[int, Tensor, float, float, float, Tensor, Tensor, Tensor]]:
        """Number, point, alpha, sigma, v, a reference, means relative to it, weights: one product of a matrix for each point.

        Exponents are taken relative to the centre or, where that would cost digits, to the nearest component, as elsewhere.
        """
        width, reach = float(self.squares[0]), 2 * float(self.half_squares.max())
        logs = self.log_weights[:, 0]
        for i, (a, s) in enumerate(zip(alpha.tolist(), sigma.tolist(), strict=True)):
            point = x[i].clone()  # an address of its own: products go by the same instructions wherever x[i] lies
            v = width * a * a + s * s
            near = point - a * self.centre
            exponent = logs + torch.mv(self.offsets, near) * (a / v) - self.half_squares[:, 0] * (a * a / v)
            reference, means = self.centre, self.offsets
            if v < _WIDE * reach * a * a:
                kept = (exponent > exponent.max() - _FAINT).nonzero()[:, 0]
                reference = self.means[int(exponent.argmax())]
                means = self.means[kept] - reference
                near = point - a * reference
                exponent = logs[kept if len(logs) > 1 else 0] + torch.mv(means, near) * (a / v)
                exponent = exponent - means.square().sum(1) * (0.5 * a * a / v)
            yield i, point, a, s, v, reference, means, torch.exp(exponent - exponent.max())

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(lambda posterior: posterior.score(), x, alpha, sigma, self.means.shape[1])

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if self._long:
            return in_blocks(self._points_variance, x, alpha, sigma, block=_BLOCK)
        return self._in_blocks(lambda posterior: posterior.variance(), x, alpha, sigma)

    def responsibilities(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(lambda posterior: posterior.responsibilities(), x, alpha, sigma, len(self.means))

    def _in_blocks(
        self, answer: Callable[[_Posterior], Tensor], x: Tensor, alpha: Tensor, sigma: Tensor, *trailing: int
    ) -> Tensor:
        def of_rows(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            if len(self.means) < _MANY or len(self.squares) > 1:
                return answer(_NearPosterior(self, x, alpha, sigma))
            reach = 2 * self.half_squares.max()
            wide = self.squares[0] * (alpha * alpha) + sigma * sigma >= _WIDE * reach * (alpha * alpha)
            out = torch.empty(len(x), *trailing, dtype=torch.float64)
            for kind, mask in ((_WidePosterior, wide), (_NearPosterior, ~wide)):
                rows = mask.nonzero().squeeze(1)
                if len(rows):
                    out[rows] = answer(kind(self, x[rows], alpha[rows], sigma[rows]))
            return out

        return in_blocks(of_rows, x, alpha, sigma, block=max(1, _BLOCK // len(self.means)), trailing=trailing)


class _Posterior(ABC):
    """The law of the component behind each of the points ``x [n, d]``, and what follows from it.

    A subclass says relative to what the exponents are taken: `y`, x relative to alpha times a reference, ``[d, n]``; `a`,
    the means relative to it; `fall`, what all exponents have in common.
    """

    def __init__(self, mixture: Mixture, x: Tensor, alpha: Tensor, sigma: Tensor) -> None:
        self.mixture, self.alpha, self.noise = mixture, alpha, sigma * sigma
        self.x = x.T.contiguous()
        self.v = mixture.squares * (alpha * alpha) + self.noise  # [K or 1, n]
        self.y = self._relative()
        exponent = self._exponent()
        self.top = exponent.amax(0)
        self.r = torch.exp(exponent - self.top)
        self.mass = tree_sum(self.r)

    @abstractmethod
    def _relative(self) -> Tensor: ...

    @abstractmethod
    def _exponent(self) -> Tensor:
        """log(w_k p(x | k)), ``[K, n]``, but for the power of 2 pi and `_fall`."""

    @abstractmethod
    def _a(self, j: int) -> Tensor:
        """Coordinate j of the means relative to the reference, ``[K, n or 1]``."""

    @abstractmethod
    def _fall(self) -> Tensor: ...

    def _prior(self) -> Tensor:
        return self.mixture.log_weights - 0.5 * len(self.x) * torch.log(self.v)

    def average(self, terms: Tensor) -> Tensor:
        """E over components of ``[K or 1, n or 1]`` terms, ``[n or 1]``."""
        return terms[0] if len(terms) == 1 else tree_sum(self.r * terms) / self.mass

    def log_density(self) -> Tensor:
        return torch.log(self.mass) + (self.top - self._fall()) - 0.5 * len(self.x) * math.log(2 * math.pi)

    def denoised(self) -> Tensor:
        """D, ``[n, d]``."""
        keep, shrink = self.alpha * self.mixture.squares / self.v, self.noise / self.v
        columns = []
        for x, axis in zip(self.x, self.mixture.axes, strict=True):
            if len(shrink) == 1:
                columns.append(keep[0] * x + shrink[0] * self.average(axis))
            else:
                columns.append(self.average(keep) * x + self.average(shrink * axis))
        return torch.stack(columns, dim=-1)

    def score(self) -> Tensor:
        """``E[(alpha a_k - y) / v_k]``, ``[n, d]``; not by Tweedie's formula, which cancels when sigma is small."""
        columns = []
        for j, y in enumerate(self.y):
            if len(self.v) == 1:
                columns.append((self.alpha * self.average(self._a(j)) - y) / self.v[0])
            else:
                columns.append(self.average((self.alpha * self._a(j) - y) / self.v))
        return torch.stack(columns, dim=-1)

    def responsibilities(self) -> Tensor:
        """r, ``[n, K]``."""
        return (self.r / self.mass).T

    def variance(self) -> Tensor:
        """``E[d s_k^2 sigma^2 / v_k + |m_k - D|^2]``, ``[n]``, the mean first."""
        total = self.average(len(self.x) * self.mixture.squares * self.noise / self.v)
        keep, shrink = self.alpha * self.mixture.squares / self.v, self.noise / self.v
        for x, axis in zip(self.x, self.mixture.axes, strict=True):
            if len(shrink) == 1:
                offset = axis - self.average(axis)
                total = total + shrink[0] * shrink[0] * self.average(offset * offset)
            else:
                m = keep * x + shrink * axis
                offset = m - self.average(m)
                total = total + self.average(offset * offset)
        return total


class _NearPosterior(_Posterior):
    """Relative to the component that is nearest to each point."""

    def _relative(self) -> Tensor:
        self.nearest = self._nearest()
        means = self.mixture.means[self.nearest].T
        return torch.stack([x - self.alpha * m for x, m in zip(self.x, means, strict=True)])

    def _nearest(self) -> Tensor:
        """The component with the largest share, or, where rounding hides which it is, one of them; ``[n]``."""
        distance = torch.zeros_like(self.alpha)
        for x, axis in zip(self.x, self.mixture.axes, strict=True):
            offset = x - self.alpha * axis
            distance = distance + offset * offset
        return (self._prior() - 0.5 * distance / self.v).argmax(0)

    def _of_nearest(self, values: Tensor) -> Tensor:
        """The entry of the nearest component, ``[n]`` of ``[K or 1, n]``."""
        return values[0] if len(values) == 1 else values.gather(0, self.nearest[None])[0]

    def _a(self, j: int) -> Tensor:
        axis = self.mixture.axes[j]
        return axis - axis[self.nearest, 0]

    def _fall(self) -> Tensor:
        return 0.5 * tree_sum(self.y * self.y) / self._of_nearest(self.v)

    def _exponent(self) -> Tensor:
        total = self._prior()
        scale = self.alpha / self.v
        half = 0.5 * self.alpha * scale
        for j, y in enumerate(self.y):
            a = self._a(j)
            total = total + (scale * y - half * a) * a
        squares = self.mixture.squares
        if len(squares) > 1:
            widening = self.alpha * self.alpha * (squares - squares[self.nearest, 0])  # v_k - v_nearest
            total = total + self._fall() * (widening / self.v)
        return total


class _WidePosterior(_Posterior):
    """Relative to the centre of all components, which have one width."""

    def _relative(self) -> Tensor:
        return self.x - self.alpha * self.mixture.centre[:, None]

    def _a(self, j: int) -> Tensor:
        return self.mixture.from_centre[j]

    def _fall(self) -> Tensor:
        return 0.5 * tree_sum(self.y * self.y) / self.v[0]

    def _exponent(self) -> Tensor:
        scale = self.alpha / self.v
        total = self._prior() - self.alpha * scale * self.mixture.half_squares
        for a, y in zip(self.mixture.from_centre, self.y, strict=True):
            total += a * (scale * y)
        return total


# --- the dataset ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MixtureDataset(Dataset):
    """A target that is a mixture of isotropic normal distributions; `mixture` says which."""

    @property
    @abstractmethod
    def mixture(self) -> Mixture:
        """The components."""

    @property
    def exact(self) -> bool:
        return True

    @property
    def smooth(self) -> bool:
        return bool((self.mixture.stds > 0).all())

    @property
    def dim(self) -> int:
        return self.mixture.means.shape[1]

    @property
    def mean(self) -> tuple[float, ...]:
        return self._moments[0]

    @property
    def std(self) -> float:
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], float]:
        mixture = self.mixture
        w = (mixture.weights / mixture.weights.sum()).tolist()
        means = mixture.means.tolist()
        mean = tuple(math.fsum(wk * m[j] for wk, m in zip(w, means, strict=True)) for j in range(self.dim))
        spread = math.fsum(
            wk * (s * s + math.fsum((m - c) ** 2 for m, c in zip(mk, mean, strict=True)) / self.dim)
            for wk, mk, s in zip(w, means, mixture.stds.tolist(), strict=True)
        )
        return mean, math.sqrt(spread)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self._draw(n, generator)[0]

    def _draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Samples ``[n, d]`` and the component that each came from, ``[n]``."""
        mixture = self.mixture
        index = torch.multinomial(mixture.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        return mixture.means[index] + mixture.stds[index, None] * noise, index

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.mixture.log_density(x, alpha, sigma)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.mixture.denoise(x, alpha, sigma)

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.mixture.score(x, alpha, sigma)

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.mixture.posterior_variance(x, alpha, sigma)

    def responsibilities(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``p(k | x)`` of each component behind a noised sample, ``[..., batch, K]``; they add up to one.

        The component is the mixture's latent variable z: this is ``p(z | x)``, and ``p(x | z = k)`` is ``N(alpha mu_k, v_k I)``.
        """
        return self.mixture.responsibilities(x, alpha, sigma)


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest of ``centres [K, d]`` to each of ``x [n, d]``, ``[n]`` int64; of equally near ones the first."""
    best = torch.full((len(x),), math.inf, dtype=torch.float64)
    index = torch.zeros(len(x), dtype=torch.int64)
    for k, centre in enumerate(centres):
        distance = tree_sum(((x - centre) ** 2).T)
        index = torch.where(distance < best, k, index)
        best = torch.minimum(distance, best)
    return index
