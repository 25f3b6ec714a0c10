r"""The rule by which step counts are added between two others: where one looks, and what a look may
conclude.

*The tree.* Of an axis n_1 < ... < n_k the first look is at its neighbours (a, b). Where a pair is
refined, the step count of its middle m is added, and the next look is at (a, m) and (m, b):

    m = the integer strictly between a and b that can be asked and is nearest to sqrt(a b) in ratio,

the smaller of two that are as near. Which pairs there could be at look l, M_l of them in all groups
together, follows from the axes alone. Pairs without a middle are none of them.

*Apart.* A pair is told apart where the paired test of `tasks.statistics.decision` rejects that both
have the same mean, at the level

    level / (L M_l)   of look l of L,

by logarithms where the values are positive and exceed a decade. Where all seeds differ by the same
number, the test is that of the signs, p = 2^(1-n); where nothing is random every difference beyond
rounding is one.

*What is promised.* Each pair of the tree is tested once, at a level that is fixed before the first
look, and these sum up to `level`. So the chance that any two neighbours of equal means are ever told
apart is at most that, whatever was refined before: of the tests that were not made nothing is needed.

Source: Bonferroni's inequality over a tree that is given beforehand; the paired test: Student,
Biometrika 6, 1908.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.statistics.decision import LEVEL, Contrasts, by_seed, decided

Pair = tuple[int, int]
"""Two neighbouring step counts, the smaller first."""
Group = tuple[str, ...]
"""The labels of what has an axis of steps."""
CanAsk = Callable[[int], bool]
"""Whether a step count can be asked."""

RULE = 1
"""Version of the rule: what it decides of given numbers is the same as long as this is."""
MOST_LOOKS = 4
LARGEST_LOOKS = 10
FLOORS = 2.0
"""Of so many sampling floors both means of a pair that needs no more step counts are at most."""


@dataclass(frozen=True)
class StepTree:
    """What is announced: the pairs that could be looked at, by look and group ``[look][group]``."""

    pairs: tuple[Mapping[Group, tuple[Pair, ...]], ...]
    level: float = LEVEL

    def level_at(self, look: int) -> float:
        """The level of each test of a look, from 0."""
        count = sum(map(len, self.pairs[look].values()))
        return self.level / (len(self.pairs) * count) if count else 0.0


@dataclass(frozen=True)
class ToldApart:
    """What the test says of each pair ``[pair]``: the contrasts, the second against the first, with
    the p value that was tested, and whether they are told apart.
    """

    contrasts: Contrasts
    apart: NDArray[np.bool_]


def middle(pair: Pair, can_ask: CanAsk = lambda _: True) -> int | None:
    """The step count between two that is asked next, or None where there is none."""
    a, b = pair
    geometric = math.isqrt(a * b)
    below, above = geometric, geometric + 1
    while below > a or above < b:
        # of below * above against a * b, in integers: which of the two is nearer in ratio
        down = below > a and (above >= b or below * above >= a * b)
        candidate = below if down else above
        if a < candidate < b and can_ask(candidate):
            return candidate
        below, above = (below - 1, above) if down else (below, above + 1)
    return None


def halves(pair: Pair, can_ask: CanAsk = lambda _: True) -> tuple[Pair, ...]:
    """The pairs that come of a refined one, as far as they have a middle."""
    at = middle(pair, can_ask)
    if at is None:
        return ()
    return tuple(one for one in ((pair[0], at), (at, pair[1])) if middle(one, can_ask) is not None)


def step_tree(
    axes: Mapping[Group, Sequence[int]], can_ask: Callable[[Group, int], bool], looks: int, level: float = LEVEL
) -> StepTree:
    """The tree of every group, look by look.

    Args:
        axes: the step counts of each group.
        can_ask: whether a group can be asked with a step count.
        looks: how many there are at most.
        level: of all tests together.

    Returns:
        As many looks, the last ones without pairs where nothing is left between.
    """

    def of(group: Group) -> CanAsk:
        return lambda steps: can_ask(group, steps)

    first = {
        group: tuple(pair for pair in itertools.pairwise(ordered) if middle(pair, of(group)) is not None)
        for group, steps in axes.items()
        for ordered in (sorted(set(steps)),)
    }
    levels: list[dict[Group, tuple[Pair, ...]]] = [first]
    while len(levels) < looks:
        levels.append(
            {
                group: tuple(half for pair in pairs for half in halves(pair, of(group)))
                for group, pairs in levels[-1].items()
            }
        )
    return StepTree(tuple(levels), level)


def told_apart(
    first: NDArray[np.float64], second: NDArray[np.float64], level: float, fixed: NDArray[np.bool_]
) -> ToldApart:
    """The test of pairs, all at the same level.

    Args:
        first: the values at the smaller step count ``[pair, seed]``, NaN where a group lacks a seed.
        second: at the larger one, of the same seeds.
        level: of each test.
        fixed: of which pairs seeds change nothing ``[pair]``.
    """
    found = by_seed(first, second)
    signs = np.where(found.same, 1.0, 2.0 ** (1.0 - found.seeds_first))
    found = replace(found, p=np.where(found.still, signs, found.p))
    each = decided(found, np.arange(len(first)), level, nothing_random=fixed)  # a family each: the level is shared out
    return ToldApart(found, each.apart)
