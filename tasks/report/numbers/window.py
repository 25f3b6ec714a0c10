"""The vertical axis that the panels of a metric share, and what of a curve lies in it.

A run that explodes (VE with Heun's method and two steps errs by 10^8) would flatten everything
else: what lies far above the rest is outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.report.numbers.curves import Curve, Mean

if TYPE_CHECKING:
    from collections.abc import Sequence

_DECADES_ABOVE_MEDIAN = 3.3


@dataclass(frozen=True)
class Window:
    """The shared vertical axis of a group of panels."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def around(cls, curves: Sequence[Curve], floors: Sequence[float]) -> Window:
        values = np.concatenate([mean.values for curve in curves for mean in curve.at])
        if (values < 0).any():
            means = np.array([mean.mean for curve in curves for mean in curve.at])
            middle, reach = float(np.median(means)), float(np.median(np.abs(means - np.median(means)))) or 1.0
            low, high = max(means.min(), middle - 30 * reach), min(means.max(), middle + 30 * reach)
            margin = 0.06 * (high - low) or 1.0
            return cls(low - margin, high + margin, logarithmic=False)
        means = np.array([mean.geometric_mean for curve in curves for mean in curve.at])
        positive = means[means > 0]
        positive = np.append(positive, [floor for floor in floors if floor > 0])
        if not positive.size:
            return cls(0.1, 10.0, logarithmic=True)
        top = float(np.median(positive)) * 10**_DECADES_ABOVE_MEDIAN
        bottom = float(np.median(positive)) / 10 ** (2 * _DECADES_ABOVE_MEDIAN)
        inside = positive[(positive <= top) & (positive >= bottom)]
        return cls(float(inside.min()) / 2.2, float(inside.max()) * 1.8, logarithmic=True)

    def mean(self, at: Mean) -> float:
        """What is drawn of the seeds: the geometric mean on a logarithmic axis."""
        return at.geometric_mean if self.logarithmic else at.mean

    def interval(self, at: Mean) -> tuple[float, float] | None:
        """The 95 % interval of what is drawn."""
        return at.geometric_interval if self.logarithmic else at.interval

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def line(self, across: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
        """The polygon through the values (logarithmic across) as far as it lies in the picture; NaN
        where it does not.
        """
        low, high = self._height(self.low), self._height(self.high)
        places = [(math.log(max(x, 1e-300)), self._height(value)) for x, value in zip(across, values, strict=True)]
        drawn: list[tuple[float, float]] = []
        for k, (a, b) in enumerate(zip(places, places[1:] or places, strict=False)):
            inside = [_crossing(a, b, edge) for edge in (low, high) if (a[1] - edge) * (b[1] - edge) < 0]
            part = sorted([p for p in (a, b) if low <= p[1] <= high] + inside)
            if not part:
                continue
            joined = k and drawn and drawn[-1] == part[0]
            drawn += part[1:] if joined else ([(math.nan, math.nan)] if drawn else []) + part
        return [math.exp(x) for x, _ in drawn], [self._value(y) for _, y in drawn]

    def share(self, value: float) -> float:
        """How high a value stands, from 0 at the lower edge to 1 at the upper one."""
        low, high = self._height(self.low), self._height(self.high)
        return (self._height(value) - low) / (high - low)

    def at_share(self, share: float) -> float:
        """The value that stands so high; outside the picture, too."""
        low, high = self._height(self.low), self._height(self.high)
        return self._value(low + share * (high - low))

    def _height(self, value: float) -> float:
        return math.log(min(max(value, 1e-300), 1e300)) if self.logarithmic else value

    def _value(self, height: float) -> float:
        return math.exp(height) if self.logarithmic else height

    def edges(self) -> tuple[float, float]:
        """Just inside the picture, where a mark is still drawn."""
        if self.logarithmic:
            inset = (self.high / self.low) ** 0.015
            return self.low * inset, self.high / inset
        inset = 0.015 * (self.high - self.low)
        return self.low + inset, self.high - inset


def _crossing(a: tuple[float, float], b: tuple[float, float], height: float) -> tuple[float, float]:
    """Where the straight line from a to b reaches a height."""
    share = (height - a[1]) / (b[1] - a[1])
    return a[0] + share * (b[0] - a[0]), height
