"""Nearness of a trained curve to its exact one.

At one step count let x and e be the seed means of the trained and of the exact denoiser (same
dataset, schedule, sampler, grid and steps), with standard errors s_x and s_e, and f the sampling
floor. The trained one lies *near* its exact curve when

    |x - e| <= (FACTOR - 1) min(|x|, |e|) + f,      FACTOR = 1.5,

that is: within a factor of 1.5, allowing for what so many samples cannot tell apart. (A metric that
is better the higher it is has no floor to allow for.) If the difference is larger, but what it is
beyond that cannot be told from nothing, so few seeds cannot tell, and that is what is said: by the
rule of `tasks.statistics.decision`, the step counts of a curve being a family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.report.text import NOTHING, ROUNDING, number, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.report.numbers.curves import Curve, Mean

FACTOR = 1.5


@dataclass(frozen=True, slots=True)
class Ratio:
    """A trained mean against the exact one at one step count. `verdict`: ``near``, ``worse``,
    ``better`` or ``unsure``.
    """

    trained: Mean
    exact: Mean
    verdict: str

    @property
    def steps(self) -> int:
        return self.trained.steps

    @property
    def value(self) -> float:
        """x / e; NaN where a ratio makes no sense (e = 0 but for rounding, or signs differ)."""
        if (
            abs(self.exact.mean) <= max(NOTHING, ROUNDING * abs(self.trained.mean))
            or self.trained.mean / self.exact.mean < 0
        ):
            return math.nan
        return self.trained.mean / self.exact.mean


@dataclass(frozen=True, slots=True)
class Nearness:
    """One trained curve against its exact one."""

    curve: Curve
    ratios: tuple[Ratio, ...]

    @property
    def away(self) -> tuple[Ratio, ...]:
        return tuple(ratio for ratio in self.ratios if ratio.verdict != "near")

    @property
    def near_from(self) -> int | None:
        """The least step count from which on every answer is near; None if the last one is not."""
        found = None
        for ratio in reversed(self.ratios):
            if ratio.verdict != "near":
                break
            found = ratio.steps
        return found

    @property
    def near_everywhere(self) -> bool:
        return bool(self.ratios) and not self.away

    @property
    def largest(self) -> float:
        """The largest ratio where the curve is near for good; NaN where there is none."""
        start = self.near_from
        found = [] if start is None else [r.value for r in self.ratios if r.steps >= start and math.isfinite(r.value)]
        return max(found, default=math.nan)

    def sentence(self) -> str:
        """In words, for example ``lies within a factor of 1.2 of exact from N ≥ 8 on``."""
        if not self.ratios:
            return "no exact answer to compare with"
        start = self.near_from
        parts = []
        if start is not None:
            where = "at every N asked" if start == self.ratios[0].steps else f"from N ≥ {start} on"
            parts.append(within(self.largest, where))
        for verdict, words in (
            ("worse", "does NOT lie near its exact curve"),
            ("better", "errs less than its exact curve"),
            ("unsure", "cannot be told from so few seeds"),
        ):
            found = [ratio for ratio in self.ratios if ratio.verdict == verdict]
            if found:
                parts.append(f"{words} {self._where(found)}")
        return "; ".join(parts)

    def _where(self, found: Sequence[Ratio]) -> str:
        extreme = max(found, key=lambda ratio: abs(math.log(ratio.value)) if ratio.value > 0 else math.inf)
        everywhere = len(found) == len(self.ratios)
        steps = "at any N asked" if everywhere else f"at N in {{{', '.join(str(ratio.steps) for ratio in found)}}}"
        times = f", ratio {number(extreme.value, 2)}" if math.isfinite(extreme.value) else ""
        return (
            f"{steps}: {self.curve.metric} {written(extreme.trained.mean)} vs {written(extreme.exact.mean)} "
            f"at N = {extreme.steps}{times}"
        )


def within(largest: float, where: str) -> str:
    """How near a curve is, in words: its largest ratio, and where it holds."""
    if math.isnan(largest):
        return f"lies near its exact curve {where}"
    allowed = f" (within {FACTOR:g} once the floor is allowed for)" if largest > FACTOR else ""
    return f"lies within a factor of {number(max(largest, 1.0))} of exact {where}{allowed}"
