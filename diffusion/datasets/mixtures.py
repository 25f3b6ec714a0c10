r"""Mixtures of isotropic normal distributions, atoms included, under noise.

The target is ``sum_k w_k N(mu_k, s_k^2 I)`` on R^d. With ``v_k = alpha^2 s_k^2 + sigma^2``

    p(x) = sum_k w_k N(x; alpha mu_k, v_k I),     r_k(x) proportional to w_k v_k^(-d/2) exp(-|x - alpha mu_k|^2 / 2 v_k)
    D(x) = sum_k r_k m_k,                         m_k = (alpha s_k^2 x + sigma^2 mu_k) / v_k
    E[|x_0 - D|^2 | x] = sum_k r_k (d s_k^2 sigma^2 / v_k + |m_k - D|^2)

How the weights r_k keep their digits far away from the data is described in
`diffusion.datasets.mixture_posteriors`. The denoiser of many components in many dimensions (images)
and its posterior variance go point by point instead, each with the same matrix: their numbers do
not depend on the batch either.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, in_blocks, tree_sum
from diffusion.datasets.mixture_posteriors import Components, NearPosterior, Posterior, WidePosterior
from diffusion.devices import DeviceCopies, to_device

_BLOCK = 1 << 17  # pairs of component and point at a time: a megabyte for each temporary
_MANY = 64  # components from which on the quick way is worth its while
_LONG = 16  # coordinates from which on products of matrix and vector are quicker than coordinate by coordinate
_LIKELY = 0.5  # share of one component from which on the others are a small difference
_FAINT = 800.0  # exponents further below the largest have exponentials that are zero, whatever their last digits
_WIDE = 1e-4  # (width / alpha R)^2 from which on it is exact enough


def taken_one_by_one(components: int, dim: int) -> bool:
    """Whether so many components of one width are so many, in so many dimensions, that samples go
    one by one, each by products of a matrix and a vector.
    """
    return components >= _MANY and dim >= _LONG


class _Level(NamedTuple):
    """What all points at the noise level (a, s) share, of components of one width."""

    a: float
    v: float  # alpha^2 width^2 + sigma^2
    near: bool  # the components are far apart: exponents are taken relative to the nearest
    centre: Tensor  # [d], of the noised components
    logs: Tensor  # [1] or [K], logarithms of the weights
    fall: Tensor  # [K], what a component's distance from the centre takes off its exponent


@dataclass(frozen=True)
class _Behind:
    """The components of one width behind one point ``[d]``, those that count."""

    point: Tensor
    v: float  # alpha^2 s^2 + sigma^2
    reference: Tensor  # [d]
    means: Tensor  # [K, d], relative to the reference
    weights: Tensor  # [K], r but for a factor


@dataclass(frozen=True, eq=False)
class Mixture(Components):
    """A mixture under noise: what follows from a noisy point ``x [..., batch, d]``, alpha and sigma
    ``[..., batch]``.
    """

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(lambda posterior: posterior.log_density(), x, alpha, sigma)

    def on(self, device: torch.device) -> Mixture:
        """The same mixture on a device; what follows from it is computed here and copied once."""
        if device.type == "cpu":
            return self
        if device not in self._copies:
            with torch.inference_mode(mode=False):  # whatever mode the first who asks is in
                self._copies[device] = self._copied(device)
        return self._copies[device]

    def _copied(self, device: torch.device) -> Mixture:
        copy = Mixture(*(to_device(part, device) for part in (self.weights, self.means, self.stds)))
        for name in ("log_weights", "squares", "centre", "half_squares", "offsets"):
            copy.__dict__[name] = to_device(getattr(self, name), device)
        for name in ("axes", "from_centre"):
            columns = to_device(torch.stack(getattr(self, name)), device)
            copy.__dict__[name] = columns.unbind(0)
        return copy

    @cached_property
    def _copies(self) -> DeviceCopies[Mixture]:
        return DeviceCopies()

    @property
    def _long(self) -> bool:
        """Whether points are better taken one by one: many components of one width in many
        dimensions, on the host.
        """
        return self.means.is_cpu and taken_one_by_one(*self.means.shape) and len(self.squares) == 1

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        dim = self.means.shape[1]
        if self._long:
            return in_blocks(self._points_denoised, x, alpha, sigma, block=_BLOCK, trailing=(dim,))
        return self._in_blocks(lambda posterior: posterior.denoised(), x, alpha, sigma, dim)

    def _points_denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        out = torch.empty_like(x)
        width = float(self.squares[0])
        for i, (point, (s, level)) in enumerate(zip(x, self._levels(alpha, sigma), strict=True)):
            a, one = level.a, self._behind(point, level)
            mean = one.reference + torch.mv(one.means.T, one.weights) / one.weights.sum()
            out[i] = (a * width / one.v) * one.point + (s * s / one.v) * mean
        return out

    def _points_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        out = torch.empty(len(x), dtype=torch.float64)
        width = float(self.squares[0])
        for i, (point, (s, level)) in enumerate(zip(x, self._levels(alpha, sigma), strict=True)):
            one = self._behind(point, level)
            share, places, squares = one.weights / one.weights.sum(), one.means, 2 * self.half_squares[:, 0]
            if one.means is not self.offsets or float(share.max()) > _LIKELY:
                kept = (one.weights > 0).nonzero()[
                    :, 0
                ]  # from the likeliest: then the difference below loses no digits
                share, places = share[kept], one.means[kept] - one.means[int(one.weights.argmax())]
                squares = places.square().sum(1)
            offset = torch.mv(places.T, share)
            between = torch.dot(squares, share) - torch.dot(offset, offset)
            out[i] = x.shape[1] * width * s * s / one.v + (s * s / one.v) ** 2 * between.clamp(min=0)
        return out

    def _levels(self, alpha: Tensor, sigma: Tensor) -> Iterator[tuple[float, _Level]]:
        """sigma of each point, and what it shares with those at its level, made once for points in
        a row.
        """
        width, reach = float(self.squares[0]), 2 * float(self.half_squares.max())
        latest: tuple[float, float] | None = None
        for a, s in zip(alpha.tolist(), sigma.tolist(), strict=True):
            if latest != (a, s):
                v = width * a * a + s * s
                fall = self.half_squares[:, 0] * (a * a / v)
                level = _Level(a, v, v < _WIDE * reach * a * a, a * self.centre, self.log_weights[:, 0], fall)
                latest = a, s
            yield s, level

    def _behind(self, point: Tensor, level: _Level) -> _Behind:
        """The components behind one point ``[d]`` at a noise level, by one product of a matrix and a
        vector.

        Exponents are taken relative to the centre or, where that would cost digits, to the nearest
        component.
        """
        a, v, logs = level.a, level.v, level.logs
        point = point.clone()  # an address of its own: products go by the same instructions wherever it lies
        exponent = torch.mv(self.offsets, point - level.centre).mul_(a / v).add_(logs).sub_(level.fall)
        reference, means = self.centre, self.offsets
        if level.near:
            kept = (exponent > exponent.max() - _FAINT).nonzero()[:, 0]
            reference = self.means[int(exponent.argmax())]
            means = self.means[kept] - reference
            near = point - a * reference
            exponent = torch.mv(means, near).mul_(a / v).add_(logs[kept] if len(logs) > 1 else logs)
            exponent = exponent - means.square().sum(1) * (0.5 * a * a / v)
        return _Behind(point, v, reference, means, torch.exp(exponent - exponent.max()))

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(lambda posterior: posterior.score(), x, alpha, sigma, self.means.shape[1])

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if self._long:
            return in_blocks(self._points_variance, x, alpha, sigma, block=_BLOCK)
        return self._in_blocks(lambda posterior: posterior.variance(), x, alpha, sigma)

    def responsibilities(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._in_blocks(lambda posterior: posterior.responsibilities(), x, alpha, sigma, len(self.means))

    def _in_blocks(
        self, answer: Callable[[Posterior], Tensor], x: Tensor, alpha: Tensor, sigma: Tensor, *trailing: int
    ) -> Tensor:
        def of_rows(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            if not x.is_cpu or len(self.means) < _MANY or len(self.squares) > 1:
                return answer(NearPosterior(self, x, alpha, sigma))
            reach = 2 * self.half_squares.max()
            wide = self.squares[0] * (alpha * alpha) + sigma * sigma >= _WIDE * reach * (alpha * alpha)
            out = torch.empty(len(x), *trailing, dtype=torch.float64)
            for kind, mask in ((WidePosterior, wide), (NearPosterior, ~wide)):
                rows = mask.nonzero().squeeze(1)
                if len(rows):
                    out[rows] = answer(kind(self, x[rows], alpha[rows], sigma[rows]))
            return out

        return in_blocks(of_rows, x, alpha, sigma, block=max(1, _BLOCK // len(self.means)), trailing=trailing)


@dataclass(frozen=True)
class MixtureDataset(Dataset):
    """A target that is a mixture of isotropic normal distributions; `mixture` says which."""

    on_device: ClassVar[bool] = True

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
        return self.mixture.on(x.device).log_density(x, alpha, sigma)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.mixture.on(x.device).denoise(x, alpha, sigma)

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.mixture.on(x.device).score(x, alpha, sigma)

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.mixture.on(x.device).posterior_variance(x, alpha, sigma)

    def responsibilities(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``p(k | x)`` of each component behind a noised sample, ``[..., batch, K]``; they add up
        to one.

        The component is the mixture's latent variable z: this is ``p(z | x)``, and ``p(x | z = k)``
        is ``N(alpha mu_k, v_k I)``.
        """
        return self.mixture.on(x.device).responsibilities(x, alpha, sigma)


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest of ``centres [K, d]`` to each of ``x [n, d]``, ``[n]`` int64; of equally
    near ones the first.
    """
    best = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
    index = torch.zeros_like(best, dtype=torch.int64)
    for k, centre in enumerate(to_device(centres, x.device)):
        distance = tree_sum(((x - centre) ** 2).T)
        index = torch.where(distance < best, k, index)
        best = torch.minimum(distance, best)
    return index
