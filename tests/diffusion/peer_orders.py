"""The order that each wrapped sampler shows: the table of docs/peers.md, and the test that holds it.

Of flows it is measured as `diffatlas check` does. Of stochastic rules the law at the end is known on
a normal law alone; on a mixture it has to be drawn. Samples of N and of 2N steps start from one draw
and follow one Brownian motion, so that the difference of their laws is seen far below the noise of
either: with ``m_N`` the means of ``cos(k pi U)``, k = 1 to 4, U the true law's distribution function
at a sample,

    order = log2 |m_N - m_2N| / |m_2N - m_4N|,      m = 0 for the true law.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.checks.known import BIMODAL, smooth_levels, states
from diffusion.checks.samplers import order_measured
from diffusion.randomness import clock, stream
from diffusion.samplers import PeerSampler, Sampler
from diffusion.schedules import VPLinear
from diffusion.schedules.levels import Level

STEPS = (32, 128)
SAMPLES = 80_000  # of a block, in pairs of one start and opposite noise
BLOCKS = 8  # of the table, for rules of a second order; a test takes one
_FUNCTIONS = 4
_PARTS = 20  # of the samples, each left out once for the standard error


@dataclass(frozen=True)
class OrderShown:
    """What a sampler claims and what is measured; `error` is the standard error of a drawn one."""

    claimed: int
    normal: float
    mixture: float
    error: float | None

    def cells(self) -> list[str]:
        """As the table has them."""
        drawn = "" if self.error is None else f" ± {self.error:.2f}"
        return [str(self.claimed), f"{self.normal:.2f}", f"{self.mixture:.2f}{drawn}"]


def order_shown(sampler: PeerSampler, blocks: int = 1) -> OrderShown:
    """On `vp-linear`, in equal steps of log nsr from 15 to 0.1; drawn orders from so many blocks."""
    shown = sampler.showing_order()
    found = order_measured(shown, STEPS)
    if not shown.stochastic:
        return OrderShown(sampler.rule.order, found["a normal law"], found["a mixture"], None)
    return OrderShown(sampler.rule.order, found["a normal law"], *drawn_order(ends_of(shown, blocks)))


# --- drawn ----------------------------------------------------------------------------------------


class OnePath:
    """Increments of one Brownian motion for each sample, between levels that lie equally far apart in
    log nsr, and in the middle of two: the same ones, however many steps are taken.
    """

    def __init__(self, block: int, first: float, last: float, parts: int) -> None:
        self._first, self._width, self._parts = first, math.log(first / last), parts
        ratios = [first * math.exp(-self._width * k / parts) for k in range(parts + 1)]
        self._clocks = torch.tensor([clock(ratio) for ratio in ratios], dtype=torch.float64)
        self._generator = stream("one path", block, parts)
        spread = torch.sqrt(self._clocks[:-1] - self._clocks[1:])[:, None]
        self._at = torch.cat([torch.zeros(1, SAMPLES, dtype=torch.float64), (spread * self._drawn(parts)).cumsum(0)])

    def _place(self, level: Level) -> int:
        at = self._parts * math.log(self._first / float(level.host.nsr[0])) / self._width
        assert abs(at - round(at)) < 0.01, f"a move ends between the parts of the path, at {at}"
        return round(at)

    def between(self, now: Level, then: Level) -> Tensor:
        start, end = self._place(now), self._place(then)
        length = self._clocks[start] - self._clocks[end]
        return ((self._at[end] - self._at[start]) / torch.sqrt(length))[None, :, None]

    def fresh(self) -> Tensor:
        return self._drawn(1)[:, :, None]

    def _drawn(self, rows: int) -> Tensor:
        half = torch.randn(rows, SAMPLES // 2, generator=self._generator, dtype=torch.float64)
        return torch.cat([half, -half], 1)


def drawn_steps(sampler: Sampler) -> tuple[int, ...]:
    """Fewer of rules whose error is below the noise of so many samples in more steps."""
    if isinstance(sampler, PeerSampler) and sampler.rule.overlapping:
        return 8, 16, 32
    return 16, 32, 64


@functools.cache
def ends_of(sampler: Sampler, blocks: int = 1) -> list[Tensor]:
    """The functions of the samples at the end, ``[4, pairs]`` for each number of steps: means of two
    samples with one start and opposite noise, which do without most of what the noise adds.
    """
    steps = drawn_steps(sampler)
    return [torch.cat([_functions(sampler, n, max(steps), block) for block in range(blocks)], 1) for n in steps]


def _functions(sampler: Sampler, steps: int, most: int, block: int) -> Tensor:
    levels = smooth_levels((VPLinear(),), steps)
    generator = stream("mixture, drawn", block)
    component = torch.rand(SAMPLES // 2, generator=generator, dtype=torch.float64) < BIMODAL.weights[0]
    clean, noise = torch.randn(2, SAMPLES // 2, generator=generator, dtype=torch.float64)
    (low, high), (narrow, wide) = BIMODAL.means, BIMODAL.stds
    clean = torch.where(component, low + narrow * clean, high + wide * clean)
    start = levels[0].alpha * clean + levels[0].sigma * noise
    x = torch.cat([start, start])[None, :, None]
    path = OnePath(block, float(levels[0].nsr[0]), float(levels[-1].nsr[0]), 2 * most)
    end = states(sampler, BIMODAL, x, levels, path)[-1]
    u = BIMODAL.cdf(end, levels[-1])[0, :, 0]
    values = torch.stack([torch.cos(k * math.pi * u) for k in range(1, _FUNCTIONS + 1)])
    return values.reshape(_FUNCTIONS, 2, -1).mean(1)


def drawn_order(ends: Sequence[Tensor]) -> tuple[float, float]:
    """The order from three numbers of steps, each twice the one before, and its standard error, by
    leaving out a twentieth of the samples at a time.
    """
    coarse, fine = ends[0] - ends[1], ends[1] - ends[2]
    part = torch.arange(coarse.shape[1]) % _PARTS

    def order(kept: Tensor) -> float:
        large, small = _square(coarse[:, kept]), _square(fine[:, kept])
        return 0.5 * math.log2(large / small) if min(large, small) > 0 else math.nan

    without = [order(part != number) for number in range(_PARTS)]
    centre = sum(without) / _PARTS
    error = math.sqrt((_PARTS - 1) / _PARTS * sum((one - centre) ** 2 for one in without))
    return order(part >= 0), error


def _square(values: Tensor) -> float:
    """The square of the vector of means, without what the noise of the means adds to it."""
    noise = values.var(1) / values.shape[1]
    return float((values.mean(1) ** 2 - noise).sum())


def distance_from_the_law(ends: Sequence[Tensor], order: float) -> float:
    """The square of the distance of the means from those of the true law, in units of their variance:
    chi-square of 4 where it is met. What the last number of steps lacks by its order is taken off.
    """
    left = (ends[-2] - ends[-1]).mean(1) / (2**order - 1)
    means = ends[-1].mean(1) - left
    return float((means**2 / (ends[-1].var(1) / ends[-1].shape[1])).sum())


# --- the table ------------------------------------------------------------------------------------


def rows(cases: Sequence[tuple[str, dict[str, Any]]], made: Any) -> Iterator[str]:
    """The table's rows, one sampler after the other; `made` makes one by library and options."""
    for library, options in cases:
        (name,) = options.values()
        sampler = made(library, **options)
        shown = order_shown(sampler, 1 if sampler.order == 1 else BLOCKS)
        yield f"| {library} | `{name}` | {' | '.join(shown.cells())} |"
