"""By how much the best is ahead, and of whom: a factor or a difference, with its interval.

For positive values x_s of the best and y_s of another one, by the seeds that both have, the factor
is ``exp(mean(log y_s - log x_s))`` and its interval ``exp`` of Student's for that mean: the same
logarithms by which the rule of `tasks.statistics.decision` tells them apart where a factor is
stated. Where a value is not positive, it is the mean of ``y_s - x_s`` with its interval. Where that
rule takes no pairs, the means are over all seeds of each, and there is no interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.report.text import number
from tasks.statistics.decision import in_pairs
from tasks.statistics.intervals import mean_interval

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lead:
    """The nearest of those that are told apart from the best.

    Args:
        who: Its name.
        change: How much more it has than the best: a factor, or a difference.
        interval: The 95 % interval of that; None for fewer than three shared seeds, or where seeds
            change nothing.
        factor: Whether it is a factor.
    """

    who: str
    change: float
    interval: tuple[float, float] | None
    factor: bool

    def amount(self) -> str:
        """For example ``has 1.9 times as much (95 % interval 1.5 to 2.4)``."""
        sure = "" if self.interval is None else f" (95 % interval {' to '.join(map(number, self.interval))})"
        if self.factor:
            return f"has {number(self.change)} times as much{sure}"
        more = "more" if self.change > 0 else "less"
        if self.interval is not None and self.change < 0:
            sure = f" (95 % interval {number(-self.interval[1])} to {number(-self.interval[0])})"
        return f"has {number(abs(self.change))} {more}{sure}"


def lead(who: str, best: Array, other: Array, *, fixed: bool = False) -> Lead:
    """The lead of the best over another one.

    Args:
        who: The other one's name.
        best: Its values by seed ``[seed]``, NaN where a seed has none.
        other: Those of the other one ``[seed]``.
        fixed: Whether seeds change nothing.
    """
    shared = np.isfinite(best) & np.isfinite(other)
    paired = bool(in_pairs(best[None], other[None])[0])
    x, y = (best[shared], other[shared]) if paired else (best[np.isfinite(best)], other[np.isfinite(other)])
    factor = bool((x > 0).all() and (y > 0).all())
    if factor:  # of the logarithms' means; where these say otherwise than the means, no factor is told
        ratio = float(np.log(y).mean() - np.log(x).mean())
        factor = (ratio > 0) == (y.mean() > x.mean())
    interval = None
    if paired and not fixed:
        interval = mean_interval(np.log(y) - np.log(x) if factor else y - x)
    if not factor:
        return Lead(who, float(y.mean() - x.mean()), interval, factor)
    ends = None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))
    return Lead(who, math.exp(ratio), ends, factor)
