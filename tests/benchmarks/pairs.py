"""How two ways of doing the same are compared: alternately, on the same core, as a ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Work = Callable[[], object]
Ratio = tuple[float, float, float]


def paired(first: Work, second: Work, rounds: int = 5) -> Ratio:
    """Median, smallest and largest of time(first) / time(second) over alternating rounds."""

    def clock(work: Work) -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    first(), second()
    ratios = [clock(first) / clock(second) for _ in range(rounds)]
    return statistics.median(ratios), min(ratios), max(ratios)
