"""The tables of docs/growing.md: error rates of the rule by which seeds are added, and what it saves.

    python -m tests.benchmarks.growing

Studies are simulated: 2,000 a line, whose rows share a part of their noise by seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.statistics.sequential import NOT_YET, Design, all_pairs, verdicts
from tests.tasks.test_sequential import DESIGN, STUDIES, Simulated, ended, share_with_any

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]

NOISE: dict[str, Draw] = {
    "normal": lambda draw, shape: draw.normal(size=shape),
    "Student's with 3 degrees of freedom": lambda draw, shape: draw.standard_t(3, size=shape),
    "log-normal": lambda draw, shape: draw.lognormal(size=shape) - np.exp(0.5),
}
COMPARED = (([10.0, 11.0], 1.2, 34), ([10.0, 10.5, 11.0, 12.0], 0.5, 31), ([10.0, 10.6, 14.0, 14.0], 0.7, 35))


def simulated(means: Sequence[float], noise: float, kind: str, seed: int, seeds: int = 40) -> Simulated:
    """Studies of rows with these means."""
    draw, rows = np.random.default_rng(seed), len(means)
    shared = NOISE[kind](draw, (STUDIES, 1, seeds))
    own = NOISE[kind](draw, (STUDIES, rows, seeds))
    values = np.array(means)[:, None] + shared + noise * own
    pairs = all_pairs(np.tile(np.arange(rows), STUDIES), np.repeat(np.arange(STUDIES), rows))
    return Simulated(rows, values.reshape(-1, seeds), pairs)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print both tables."""
    say("| noise | k | none: told apart | of these, studies decided | at the margin: called equivalent | mean seeds |")
    for kind in NOISE:
        for k in (2, 4, 8):
            none = simulated([10.0] * k, 0.2, kind, 100 + k)
            found = verdicts(none.values, none.pairs, DESIGN)
            apart = share_with_any(none, found.apart != NOT_YET)
            told = (found.apart != NOT_YET) | (found.equivalent != NOT_YET)
            decided = 1 - share_with_any(none, ~told)
            at = simulated([10.0 * 1.02**i for i in range(k)], 0.1, kind, 200 + k)
            found = verdicts(at.values, at.pairs, DESIGN)
            equivalent = share_with_any(at, found.equivalent != NOT_YET)
            seeds, _ = ended(at, found, DESIGN)
            say(f"| {kind} | {k} | {apart:.1%} | {decided:.0%} | {equivalent:.1%} | {seeds.mean():.1f} |")
    say("| means | own noise | decided rightly | mean seeds | fixed number | decided rightly by that |")
    for means, noise, number in COMPARED:
        grown = simulated(means, noise, "normal", 300)
        seeds, right = ended(grown, verdicts(grown.values, grown.pairs, DESIGN), DESIGN)
        fixed = simulated(means, noise, "normal", 301, number)
        design = Design((number,))
        _, at_once = ended(fixed, verdicts(fixed.values, fixed.pairs, design), design)
        told = ", ".join(f"{mean:g}" for mean in means)
        say(f"| {told} | {noise:g} | {right.mean():.0%} | {seeds.mean():.1f} | {number} | {at_once.mean():.0%} |")


if __name__ == "__main__":
    main()
