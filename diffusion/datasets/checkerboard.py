r"""The black cells of a checkerboard, with the exact noised law.

A cell is a product of two intervals and black where the numbers of its column i and its row j are
both even or both odd. So the sum over black cells factorises into sums over columns and rows: with
``U_i`` the density of the noised uniform distribution on the i-th interval of an axis
(`diffusion.datasets.truncated_normal`),

    X_e(x) = sum over even i of U_i(x),   X_o(x) = sum over odd i of U_i(x)
    p(x, y) = (X_e(x) X_e(y) + X_o(x) X_o(y)) / number of black cells

and with the posterior probability ``r_i`` of column i, ``D_x = sum_i r_i m_i`` and so on, ``m_i``
the mean within it. Sums are taken of logarithms, relative to the column nearest to `x`: with `o`
the distance outside that one and ``o + d_i`` outside the i-th, both in units of sigma, the exponent
``-(o + d_i)^2 / 2`` is ``-o^2 / 2``, common to all, and ``-d_i (2 o + d_i) / 2``. The difference
``d_i`` is that of two ends, not of two large numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from diffusion.datasets import truncated_normal
from diffusion.datasets.base import InBlocks, datasets, tree_sum
from diffusion.datasets.truncated_normal import Branch
from diffusion.devices import numbers, to_device
from diffusion.errors import WrongValue

_MOST_CELLS = 64
_REACH = 1e3  # an interval whose exponent lies so far below that of the nearest has no share in double precision
_NOTHING = 1e-30


class _Axis(NamedTuple):
    """One coordinate of n points against every interval of its axis, ``[cells, n]``."""

    x: Tensor  # [n]
    left: Tensor  # is x left of the interval's centre?
    a: Tensor  # see truncated_normal
    s: Tensor
    tau: Tensor
    fall: Tensor  # o^2 / 2, [n]
    share: Tensor  # U_i relative to the largest of its parity
    log_mass: Tensor  # log X_e and log X_o but for `fall` and sigma, [2, n]

    def of(self, r: Tensor, what: Branch) -> Tensor:
        """What is asked of each interval with a share r that counts; 0 for the rest."""
        return _where(~(r < _NOTHING), what, self.a, self.s, self.tau)


def _where(mask: Tensor, what: Branch, a: Tensor, s: Tensor, tau: Tensor) -> Tensor:
    """`what` on the elements that are asked for, 0 elsewhere: most intervals are too far away to
    matter.
    """
    if not a.is_cpu:
        return truncated_normal.where_asked(mask, what, a, s, tau)
    out = torch.zeros_like(a)
    index = mask.nonzero(as_tuple=True)
    out[index] = what(a[index], s[index], tau[index])
    return out


@datasets.register(
    "checkerboard",
    formula="p(x, y) = sum over black cells (i, j) of U_i(x) U_j(y) / number of black cells,  U_i the noised uniform law",
    source="the plane density of Grathwohl et al., 'FFJORD', 2019, section 4.1",
)
@dataclass(frozen=True)
class Checkerboard(InBlocks):
    r"""Uniform on the black cells of the square ``[-half_width, half_width]^2`` cut into `cells`
    times `cells`.

    The lower-left cell is black. The default has eight black cells of side 1 in ``[-2, 2]^2``; mean
    (0, 0), std 1.154701 (``half_width / sqrt(3)`` whenever `cells` is even).

    Modes are the black cells, row by row from the bottom and from left to right; `mode_of` is the
    nearest cell.

    Shapes: ``x`` is ``[..., batch, 2]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: `half_width` is not positive and finite, or `cells` is not an integer from 2 to
            64.
    """

    block: ClassVar[int] = 1 << 12
    on_device: ClassVar[bool] = True

    half_width: float = 2.0
    cells: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.half_width < math.inf:
            raise WrongValue(f"checkerboard: half_width = {self.half_width!r}; needed: a positive number")
        if not 2 <= self.cells <= _MOST_CELLS:
            raise WrongValue(f"checkerboard: cells = {self.cells!r}; needed: an integer from 2 to {_MOST_CELLS}")

    @property
    def exact(self) -> bool:
        return True

    @property
    def dim(self) -> int:
        return 2

    @property
    def mean(self) -> tuple[float, ...]:
        return (0.0, 0.0)

    @property
    def std(self) -> float:
        low, high = self._ends
        centres = (0.5 * (low + high)).tolist()
        count = (self.cells + 1) // 2, self.cells // 2  # black cells in an even and in an odd column
        between = math.fsum(count[i % 2] * c * c for i, c in enumerate(centres)) / len(self._black)
        return math.sqrt(between + self._half**2 / 3)

    @property
    def _half(self) -> float:
        """Half the side of a cell."""
        return self.half_width / self.cells

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """Lower and upper end of every interval, ``[cells]``; the outermost are exactly -half_width
        and half_width.
        """
        edges = self.half_width * (2 * torch.arange(self.cells + 1, dtype=torch.float64) / self.cells - 1)
        return edges[:-1], edges[1:]

    def _ends_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device.type == "cpu":
            return self._ends
        low, high = (numbers(end.tolist(), device) for end in self._ends)
        return low, high

    @cached_property
    def _black(self) -> Tensor:
        """Column and row of the black cells, ``[number, 2]``, row by row."""
        return torch.tensor([(i, j) for j in range(self.cells) for i in range(self.cells) if (i + j) % 2 == 0])

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        cell = self._black[torch.randint(len(self._black), (n,), generator=generator)]
        within = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return self._ends[0][cell] + 2 * self._half * within

    @property
    def mode_weights(self) -> tuple[float, ...] | None:
        return (1 / len(self._black),) * len(self._black)

    def mode_of(self, x: Tensor) -> Tensor:
        low, high = self._ends_on(x.device)
        best = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
        index = torch.zeros_like(best, dtype=torch.int64)
        for k, cell in enumerate(to_device(self._black, x.device)):
            outside = torch.clamp(torch.maximum(low[cell] - x, x - high[cell]), min=0)
            distance = outside[:, 0] ** 2 + outside[:, 1] ** 2
            index = torch.where(distance < best, k, index)
            best = torch.minimum(distance, best)
        return index

    def _axis(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> _Axis:
        ends = self._ends_on(x.device)
        low, high = (alpha * end[:, None] for end in ends)
        centre = alpha * (0.5 * (ends[0] + ends[1]))[:, None]
        left = x < centre
        a = torch.where(left, low - x, x - high) / sigma
        s = (alpha * self._half / sigma).expand(a.shape)
        # where takes one side's derivative at a corner; those of abs, clamp and maximum are neither's
        tau = s * torch.where(left, centre - x, x - centre) / sigma
        rim = alpha * self.half_width
        o = torch.where(x.abs() > rim, x.abs() - rim, 0.0) / sigma
        inner = torch.where(x > rim, rim, torch.where(x < -rim, -rim, x))
        d = torch.maximum(low - inner, inner - high).clamp(min=0) / sigma
        log_u = -0.5 * d * (2 * o + d)
        share = torch.empty_like(log_u)
        log_mass = []
        for parity in (0, 1):
            own = log_u[parity::2]
            near = ~(own < own.amax(0) - _REACH)
            mass_within = _where(near, truncated_normal.log_mass, a[parity::2], s[parity::2], tau[parity::2])
            own = torch.where(near, own + mass_within, -math.inf)
            top = own.amax(0)
            weights = torch.exp(own - top)
            mass = tree_sum(weights)
            share[parity::2] = weights / mass
            log_mass.append(top + torch.log(mass))
        return _Axis(x, left, a, s, tau, 0.5 * o * o, share, torch.stack(log_mass))

    def _both(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[tuple[_Axis, _Axis], Tensor]:
        """The two axes, and log of the even and the odd part of p but for what is common,
        ``[2, n]``.
        """
        axes = self._axis(x[:, 0], alpha, sigma), self._axis(x[:, 1], alpha, sigma)
        return axes, axes[0].log_mass + axes[1].log_mass

    def _posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> list[tuple[_Axis, Tensor]]:
        """For both axes: where the point is, and the posterior probability of each interval
        ``[cells, n]``.
        """
        axes, parts = self._both(x, alpha, sigma)
        weights = torch.exp(parts - parts.amax(0))
        weights = weights / (weights[0] + weights[1])
        even = (torch.arange(self.cells, device=x.device) % 2 == 0)[:, None]
        return [(axis, axis.share * torch.where(even, weights[0], weights[1])) for axis in axes]

    def _means(self, axis: _Axis, r: Tensor) -> Tensor:
        """The posterior mean within each interval that has a share r in the point, ``[cells, n]``."""
        gap = self._half * axis.of(r, truncated_normal.gap)
        low, high = (end[:, None] for end in self._ends_on(r.device))
        return torch.where(axis.left, low + gap, high - gap)

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        (first, second), parts = self._both(x, alpha, sigma)
        top = parts.amax(0)
        mass = torch.log(torch.exp(parts[0] - top) + torch.exp(parts[1] - top))
        return mass + top - (first.fall + second.fall) - 2 * torch.log(sigma) - math.log(len(self._black))

    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.stack([tree_sum(r * self._means(axis, r)) for axis, r in self._posterior(x, alpha, sigma)], dim=-1)

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        columns = []
        for axis, r in self._posterior(x, alpha, sigma):
            pull = axis.of(r, truncated_normal.pull)
            columns.append(tree_sum(r * torch.where(axis.left, pull, -pull)) / sigma)
        return torch.stack(columns, dim=-1)

    def _variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        total = torch.zeros_like(alpha)
        for axis, r in self._posterior(x, alpha, sigma):
            m = self._means(axis, r)
            within = self._half**2 * axis.of(r, truncated_normal.variance)
            total = total + tree_sum(r * (within + (m - tree_sum(r * m)) ** 2))
        return total
