r"""Blurred curves in the plane, with the exact noised law by quadrature along the curve.

The target is ``x_0 = c + s z``: c on a curve, with a known law of its parameter t, and
``z ~ N(0, I)``; s is the *noise* of the target. With ``v = alpha^2 s^2 + sigma^2`` the noised
sample is ``N(alpha c(t), v I)`` given t, and the posterior of t has the weight ``exp(f(t))``, up to
what all t have in common,

    f(t) = alpha (c(t) - c_0) (x - alpha (c(t) + c_0) / 2) / v,      c_0 the mean of the target
    p(x) = N(x; alpha c_0, v I) E[exp f]
    D(x) = (alpha s^2 x + sigma^2 C) / v,   C = E[c exp f] / E[exp f]
    E[|x_0 - D|^2 | x] = 2 s^2 sigma^2 / v + (sigma^2 / v)^2 Var[c | x]

The curve is cut into panels of one length ``l <= 16 s``. Over half a panel f changes by no more
than about

    M = (l / 2)^2 alpha^2 / v + (l / 2) alpha d / v,      d the distance from x to alpha c

and as many Gauss-Legendre nodes as M asks for, 8 to 72 in each panel, give the integral to 1e-12.
That reaches thirty noise widths from the curve and farther. A point still farther away sees a part
of the curve that shrinks like the root of ``v / alpha |x|``: there, in every panel that counts, the
part where f is within 50 of its maximum is found by refining a grid, and gets 64 nodes to itself.
That is exact at any distance, and some five times slower.

Everything is elementwise or summed by halves: a point's numbers do not depend, not even in the last
bit, on the batch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion.datasets.base import InBlocks, tree_sum
from diffusion.errors import WrongValue

LONGEST_PANEL = 16.0  # in units of the noise
_LEAST_NOISE, _MOST_NOISE = 0.01, 100.0
_RULES = (
    (0.8, 8),
    (3.9, 12),
    (9.8, 16),
    (28.0, 24),
    (59.0, 32),
    (93.0, 40),
    (155.0, 52),
    (270.0, 72),
)  # largest M, nodes
_PAIRS = 1 << 17  # of node and point at a time: a megabyte for each temporary
_FEW_PAIRS = 1 << 15  # the sums of so few are quicker all at once
_CELLS, _DEPTH, _NODES = 32, 50.0, 64  # of the refinement: cells of the grid, depth below the maximum, nodes at last
_MOST_ROUNDS = 100
_LIMITS = torch.tensor([most for most, _ in _RULES], dtype=torch.float64)
_FRACTIONS = torch.arange(_CELLS + 1, dtype=torch.float64) / _CELLS

Plane = tuple[Tensor, Tensor]  # the two coordinates


@cache
def _gauss_legendre(n: int) -> Plane:
    """Nodes and weights on [0, 1]."""
    u, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(n))
    return 0.5 * (1 + u), 0.5 * w


class Panels(NamedTuple):
    """A curve in pieces of equal length: on which arc each lies and from where to where in t,
    ``[panels]`` each.
    """

    length: float
    arc: Tensor  # int64
    start: Tensor
    stop: Tensor
    speed: float  # bounds of |c'(t)| and |c''(t)| on the whole curve
    bend: float

    def within(self, fraction: Tensor) -> Tensor:
        """t at fractions ``[m]`` of every panel, ``[panels, m]``."""
        return self.start[:, None] + (self.stop - self.start)[:, None] * fraction


class _Nodes(NamedTuple):
    """Points of the curve relative to c_0, half their squared lengths, and the logarithms of their
    weights.

    ``[K, 1]`` each, or ``[K, n]`` if every point x has its own.
    """

    a: Plane
    half_square: Tensor
    log_weight: Tensor


def _nodes(a: Plane, log_weight: Tensor) -> _Nodes:
    return _Nodes(a, 0.5 * (a[0] * a[0] + a[1] * a[1]), log_weight)


class _Rows(NamedTuple):
    """n points: x relative to alpha c_0, alpha, v, and alpha / v; ``[n]`` each."""

    y: Plane
    alpha: Tensor
    v: Tensor
    scale: Tensor

    def of(self, index: Tensor) -> _Rows:
        return _Rows((self.y[0][index], self.y[1][index]), self.alpha[index], self.v[index], self.scale[index])

    def exponent(self, nodes: _Nodes) -> Tensor:
        """f + log weight."""
        f = nodes.a[0] * (self.scale * self.y[0])
        f += nodes.a[1] * (self.scale * self.y[1])
        f -= nodes.half_square * (self.alpha * self.scale)
        f += nodes.log_weight
        return f


class _Known(NamedTuple):
    """What n points know of c: log E[exp f], C - c_0 and, where asked for, Var[c | x]; ``[n]``
    each.
    """

    log_mass: Tensor
    mean: Plane
    spread: Tensor


def _known(exponent: Tensor, a: Plane, within: Tensor | float, *, spread: bool) -> _Known:
    """The same of a law that has `a` with weight ``exp(exponent)``, ``[K, n]``; each `a` may have a
    spread of its own.
    """
    top = exponent.amax(0)
    r = torch.exp(exponent - top)
    sums = (r, r * a[0], r * a[1])
    few = r.numel() <= _FEW_PAIRS
    mass, x, y = tree_sum(torch.stack(sums, dim=1)) if few else map(tree_sum, sums)
    x, y = x / mass, y / mass
    square = tree_sum(r * ((a[0] - x) ** 2 + (a[1] - y) ** 2 + within)) / mass if spread else mass
    return _Known(top + torch.log(mass), (x, y), square)


@dataclass(frozen=True)
class BlurredCurve(InBlocks):
    """A curve in the plane blurred by isotropic Gaussian noise.

    A subclass says what the curve is: arcs on which c(t) is smooth, each as likely as any other, t
    uniform on them over the same range.

    Shapes: ``x`` is ``[..., batch, 2]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: the noise is not between 0.01 and 100.
    """

    noise: float = 0.05

    def __post_init__(self) -> None:
        if not _LEAST_NOISE <= self.noise <= _MOST_NOISE:
            raise WrongValue(
                f"{self.registered_name}: noise = {self.noise!r}; needed: a number from {_LEAST_NOISE} to {_MOST_NOISE:g} "
                f"(the number of quadrature nodes grows like 1 / noise)"
            )

    @abstractmethod
    def curve(self, t: Tensor, arc: Tensor) -> Plane:
        """c(t) on the arc of that number, elementwise."""

    @abstractmethod
    def _cut(self) -> Panels:
        """The curve in panels no longer than `LONGEST_PANEL` noise widths."""

    @property
    def smooth(self) -> bool:
        return True

    @property
    def exact(self) -> bool:
        return True

    @property
    def dim(self) -> int:
        return 2

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        panels = self._panels
        arc = torch.randint(int(panels.arc[-1]) + 1, (n,), generator=generator)
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        clean = self.curve(panels.start[0] + (panels.stop[-1] - panels.start[0]) * u, arc)
        return torch.stack(clean, dim=-1) + self.noise * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        rows = self._rows(x, alpha, sigma)
        fall = 0.5 * (rows.y[0] * rows.y[0] + rows.y[1] * rows.y[1]) / rows.v
        return self._seen(rows).log_mass - fall - torch.log(2 * math.pi * rows.v)

    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        rows = self._rows(x, alpha, sigma)
        mean = self._seen(rows).mean
        keep, shrink = rows.scale * self.noise**2, sigma * sigma / rows.v
        return torch.stack([keep * x[:, j] + shrink * (self.mean[j] + mean[j]) for j in (0, 1)], dim=-1)

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        rows = self._rows(x, alpha, sigma)
        mean = self._seen(rows).mean
        return torch.stack([(alpha * mean[j] - rows.y[j]) / rows.v for j in (0, 1)], dim=-1)

    def _variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        rows = self._rows(x, alpha, sigma)
        shrink = sigma * sigma / rows.v
        return 2 * self.noise**2 * shrink + shrink * shrink * self._seen(rows, spread=True).spread

    def _rows(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> _Rows:
        v = (alpha * self.noise) ** 2 + sigma * sigma
        return _Rows((x[:, 0] - alpha * self.mean[0], x[:, 1] - alpha * self.mean[1]), alpha, v, alpha / v)

    # --- the quadrature

    @cached_property
    def _panels(self) -> Panels:
        return self._cut()

    def _from_mean(self, t: Tensor, arc: Tensor) -> Plane:
        """c(t) - c_0."""
        x, y = self.curve(t, arc)
        return x - self.mean[0], y - self.mean[1]

    def _on_panels(self, fraction: Tensor) -> Plane:
        """c - c_0 at fractions ``[m]`` of every panel, ``[panels m, 1]``."""
        t, arc = self._panels.within(fraction), self._panels.arc[:, None]
        x, y = self._from_mean(t, arc)
        return x.reshape(-1, 1), y.reshape(-1, 1)

    @cached_property
    def _reach(self) -> float:
        """The range of t, all arcs together."""
        return float(self._panels.stop[-1] - self._panels.start[0]) * (int(self._panels.arc[-1]) + 1)

    @cached_property
    def _rules(self) -> tuple[_Nodes, ...]:
        """The nodes of every rule, those of all panels together."""
        rules = []
        for _, n in _RULES:
            u, w = _gauss_legendre(n)
            weight = ((self._panels.stop - self._panels.start) / self._reach)[:, None] * w
            rules.append(_nodes(self._on_panels(u), torch.log(weight).reshape(-1, 1)))
        return tuple(rules)

    @cached_property
    def _beacons(self) -> Plane:
        """Points along the curve, a quarter of a panel from one to the next: the distance to it,
        well enough.
        """
        return self._on_panels((torch.arange(4, dtype=torch.float64) + 0.5) / 4)

    @cached_property
    def _radius(self) -> float:
        """A bound of |c - c_0|."""
        x, y = self._beacons
        return float(torch.sqrt(x * x + y * y).max()) + self._panels.length

    @cached_property
    def _grid(self) -> _Nodes:
        """The points of the refinement's first grid, those of all panels together."""
        return _nodes(self._on_panels(_FRACTIONS), torch.zeros(1, dtype=torch.float64))

    def _seen(self, rows: _Rows, *, spread: bool = False) -> _Known:
        """What each point knows of c by the rule that its own M asks for."""
        away = [y - rows.alpha * a for y, a in zip(rows.y, self._beacons, strict=True)]
        distance = torch.sqrt((away[0] * away[0] + away[1] * away[1]).amin(0))
        half = 0.5 * self._panels.length
        M = half * rows.scale * (half * rows.alpha + distance)
        number = torch.bucketize(M.nan_to_num(nan=0.0), _LIMITS)
        log_mass, x, y, square = (torch.empty_like(M) for _ in range(4))
        for i in range(len(_RULES) + 1):
            nodes = self._rules[i] if i < len(_RULES) else self._grid
            block = max(1, _PAIRS // len(nodes.half_square))
            for part in (number == i).nonzero().squeeze(1).split(block):
                own = rows.of(part)
                far = i == len(_RULES)
                seen = self._refined(own) if far else _known(own.exponent(nodes), nodes.a, 0.0, spread=spread)
                log_mass[part], (x[part], y[part]), square[part] = seen
        return _Known(log_mass, (x, y), square)

    def _refined(self, rows: _Rows) -> _Known:
        """`_seen` of points far away: a rule of its own for each of them on each panel that counts."""
        panels = self._panels
        f = rows.exponent(self._grid).reshape(len(panels.arc), _CELLS + 1, -1)
        peak = f.amax(1)
        step = (panels.stop - panels.start)[:, None] / _CELLS
        distance = torch.sqrt(rows.y[0] ** 2 + rows.y[1] ** 2) + rows.alpha * self._radius
        hidden = step * step / 8 * rows.scale * (distance * panels.bend + rows.alpha * panels.speed**2)
        number, point = (~(peak + hidden < peak.amax(0) - _DEPTH)).nonzero().T
        own, arc = rows.of(point), panels.arc[number]
        low, high = self._zoom(own, arc, panels.start[number], panels.stop[number])
        u, w = _gauss_legendre(_NODES)
        a = self._from_mean(low + (high - low) * u[:, None], arc)
        one = _known(own.exponent(_nodes(a, torch.log((high - low) / self._reach * w[:, None]))), a, 0.0, spread=True)
        log_mass, x, y, square = (torch.zeros_like(peak) for _ in range(4))
        log_mass.fill_(-math.inf)
        log_mass[number, point], x[number, point], y[number, point] = one.log_mass, *one.mean
        square[number, point] = one.spread
        return _known(log_mass, (x, y), square, spread=True)

    def _zoom(self, rows: _Rows, arc: Tensor, low: Tensor, high: Tensor) -> Plane:
        """The part of each interval of t in which f is within `_DEPTH` of its maximum there."""
        low, high = low.clone(), high.clone()
        moving = torch.arange(len(low))
        for _ in range(_MOST_ROUNDS):
            a, b = low[moving], high[moving]
            points = self._from_mean(a + (b - a) * _FRACTIONS[:, None], arc[moving])
            f = rows.of(moving).exponent(_nodes(points, _FRACTIONS.new_zeros(1)))
            near = ~(f < f.amax(0) - _DEPTH)
            number = torch.arange(_CELLS + 1)[:, None]
            first = torch.where(near, number, _CELLS).amin(0) - 1
            last = torch.where(near, number, 0).amax(0) + 1
            fits = (first <= 0) & (last >= _CELLS)
            low[moving] = torch.where(first <= 0, a, a + (b - a) * (first / _CELLS))
            high[moving] = torch.where(last >= _CELLS, b, a + (b - a) * (last / _CELLS))
            moving = moving[~fits]
            if not len(moving):
                break
        return low, high
