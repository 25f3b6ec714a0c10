"""How two ways of doing the same are compared: alternately, on the same core, as a ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Work = Callable[[], object]
Ratio = tuple[float, float, float]


def paired(first: Work, second: Work, rounds: int = 5, now: Callable[[], float] = time.perf_counter) -> Ratio:
    """Median, smallest and largest of time(first) / time(second) over alternating rounds.

    With ``now = time.process_time`` only the processor's time counts: for work on one core that
    waits for nothing.
    """

    def clock(work: Work) -> float:
        begun = now()
        work()
        return now() - begun

    first(), second()
    ratios = [clock(first) / clock(second) for _ in range(rounds)]
    return statistics.median(ratios), min(ratios), max(ratios)
