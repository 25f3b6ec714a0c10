r"""Which component of a mixture lies behind a noisy point: exponents that keep their digits.

Softmax of the exponents as they stand loses its digits far away: at ``|x| = 1e9`` they differ by
less than their rounding errors. They are taken relative to those of one component n near `x`, and
what the two have in common never enters: with ``y = x - alpha mu_n`` and ``a_k = mu_k - mu_n``

    |y|^2 / 2 v_n - |x - alpha mu_k|^2 / 2 v_k = alpha a_k (y - alpha a_k / 2) / v_k + |y|^2 (v_k - v_n) / 2 v_k v_n

where ``v_k - v_n = alpha^2 (s_k^2 - s_n^2)``. An error is then that of an `x` moved by a few of its
last bits.

Many components of one width, none narrower against the data's extent R than ``alpha R / 100``, do
not need that: they are taken relative to the centre of all, which is three times as quick and costs
no more than 1e-12 in an exponent.

Arrays are ``[components, points]``; sums over components go by halves, elementwise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.datasets.base import tree_sum


@dataclass(frozen=True, eq=False)
class Components:
    """Weights ``[K]`` (positive), means ``[K, d]`` and standard deviations ``[K]`` (not negative)."""

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

    @cached_property
    def offsets(self) -> Tensor:
        """The means relative to their centre, ``[K, d]``."""
        return self.means - self.centre


class Posterior(ABC):
    """The law of the component behind each of the points ``x [n, d]``, and what follows from it.

    A subclass says relative to what the exponents are taken: `y`, x relative to alpha times a
    reference, ``[d, n]``; `a`, the means relative to it; `fall`, what all exponents have in common.
    """

    def __init__(self, mixture: Components, x: Tensor, alpha: Tensor, sigma: Tensor) -> None:
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
        """``E[(alpha a_k - y) / v_k]``, ``[n, d]``; not by Tweedie's formula, which cancels when
        sigma is small.
        """
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


class NearPosterior(Posterior):
    """Relative to the component that is nearest to each point."""

    def _relative(self) -> Tensor:
        self.nearest = self._nearest()
        means = self.mixture.means[self.nearest].T
        return torch.stack([x - self.alpha * m for x, m in zip(self.x, means, strict=True)])

    def _nearest(self) -> Tensor:
        """The component with the largest share, or, where rounding hides which it is, one of them;
        ``[n]``.
        """
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


class WidePosterior(Posterior):
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
