"""The rule that adds step counts between others: its tree, its level, and what it tells apart.

Simulations have fixed seeds; `BOUND` is where a rate that is exactly as stated would be in one run of
a thousand: the false-alarm rate of these tests.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tasks.statistics.bisection import Group, Pair, StepTree, halves, middle, step_tree, told_apart
from tasks.statistics.decision import LEVEL

STUDIES = 2000
RARELY = 1e-3
BOUND = float(stats.binom.isf(RARELY, STUDIES, LEVEL)) / STUDIES


def test_the_middle_is_the_nearest_integer_in_ratio() -> None:
    for a in range(1, 30):
        for b in range(a + 2, 60):
            between = range(a + 1, b)
            found = middle((a, b))
            assert found is not None
            assert a < found < b
            nearest = min(abs(math.log(m * m / (a * b))) for m in between)
            assert abs(math.log(found * found / (a * b))) == pytest.approx(nearest, abs=1e-12)
    assert (middle((1, 2)), middle((3, 4))) == (None, None)
    assert (middle((1, 3)), middle((10, 40)), middle((1, 100))) == (2, 20, 10)


def test_the_middle_is_one_that_can_be_asked() -> None:
    def divides(steps: int) -> bool:
        return 100 % steps == 0

    assert middle((10, 50), divides) == 20  # of 20 and 25, sqrt(500) = 22.4
    assert middle((20, 50), divides) == 25
    assert middle((25, 50), divides) is None
    assert halves((10, 50), divides) == ((20, 50),)  # between 10 and 20 nothing divides
    assert halves((25, 50), divides) == ()


def test_the_tree_is_known_beforehand_and_shares_the_level_out() -> None:
    axes: dict[Group, tuple[int, ...]] = {("a",): (16, 1, 4), ("b",): (1, 2)}
    tree = step_tree(axes, lambda group, steps: True, 3)  # noqa: ARG005
    assert tree.pairs[0] == {("a",): ((1, 4), (4, 16)), ("b",): ()}
    assert tree.pairs[1][("a",)] == ((2, 4), (4, 8), (8, 16))
    assert tree.pairs[2][("a",)] == ((4, 6), (6, 8), (8, 11), (11, 16))
    spent = sum(tree.level_at(look) * sum(map(len, pairs.values())) for look, pairs in enumerate(tree.pairs))
    assert spent == pytest.approx(LEVEL)
    assert step_tree({("b",): (1, 2)}, lambda *_: True, 2).level_at(0) == 0


def refined(values: dict[int, np.ndarray], tree: StepTree) -> dict[Pair, np.ndarray]:
    """Which studies tell each pair of the tree apart that they come to: of axes ``[study, seed]``."""
    (pairs, *_) = tree.pairs[0].values()
    come = dict.fromkeys(pairs, np.ones(STUDIES, dtype=bool))
    told: dict[Pair, np.ndarray] = {}
    for look in range(len(tree.pairs)):
        following: dict[Pair, np.ndarray] = {}
        for pair, here in come.items():
            found = told_apart(values[pair[0]], values[pair[1]], tree.level_at(look), np.zeros(STUDIES, dtype=bool))
            told[pair] = here & found.apart
            following |= dict.fromkeys(halves(pair), told[pair])
        come = following
    return told


def simulated(curve: dict[int, float], seeds: int, noise: float, seed: int) -> dict[int, np.ndarray]:
    """Values whose noise by seed is in part shared by all step counts, as the start noise is."""
    draw = np.random.default_rng(seed)
    shared = draw.normal(size=(STUDIES, seeds))
    return {n: mean + shared + noise * draw.normal(size=(STUDIES, seeds)) for n, mean in curve.items()}


def test_equals_are_told_apart_no_more_often_than_stated() -> None:
    tree = step_tree({("a",): (1, 4, 16, 64)}, lambda *_: True, 3)
    level_curve = dict.fromkeys(range(1, 65), 30.0)
    told = refined(simulated(level_curve, 5, 0.3, 31), tree)
    rate = np.any(list(told.values()), axis=0).mean()
    assert 0 < rate <= BOUND


def test_where_the_curve_has_come_down_equals_are_told_apart_no_more_often_than_stated() -> None:
    """Also below pairs that were refined with reason: the curve falls up to 8 steps."""
    tree = step_tree({("a",): (1, 4, 16, 64)}, lambda *_: True, 3)
    curve = {n: 30.0 + 20.0 * max(0, 8 - n) for n in range(1, 65)}
    told = refined(simulated(curve, 5, 0.3, 32), tree)
    falls = [pair for pair in told if pair[0] < 8]
    assert all(told[pair].mean() > 0.99 for pair in falls)
    assert (2, 4) in falls
    assert (4, 8) in falls
    assert np.any([told[pair] for pair in told if pair[0] >= 8], axis=0).mean() <= BOUND


def test_a_pair_without_a_spread_is_tested_by_its_signs_and_a_fact_is_one() -> None:
    x = np.arange(10.0)[None] + 20
    y = x + 0.5
    random, fact = np.array([False]), np.array([True])
    assert told_apart(x, y, 2.0**-9, random).apart
    assert not told_apart(x, y, 2.0**-9.1, random).apart
    assert told_apart(x, y, 1e-9, fact).apart
    assert not told_apart(x, x.copy(), 1.0 - 1e-9, fact).apart
