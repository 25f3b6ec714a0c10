"""The rule that adds seeds until it is decided: it keeps the error rates that it states, and needs
fewer seeds than a number of them fixed beforehand.

Simulations have fixed seeds. `bound` is where a rate that is exactly as stated would be in one run of
a thousand: the false-alarm rate of these tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tasks.statistics.decision import LEVEL
from tasks.statistics.sequential import (
    NOT_YET,
    AfterLook,
    Design,
    Margin,
    Pairs,
    all_pairs,
    looks_up_to,
    seeds_of,
    verdicts,
)

STUDIES = 2000
RARELY = 1e-3
BOUND = float(stats.binom.isf(RARELY, STUDIES, LEVEL)) / STUDIES
DESIGN = Design(looks_up_to(40))


@dataclass(frozen=True)
class Simulated:
    """Studies of the same rows, each a family: `values` of row and seed, and the pairs."""

    rows: int
    values: NDArray[np.float64]
    pairs: Pairs


def studies(means: list[float], noise: float, seed: int, seeds: int = 40) -> Simulated:
    """Studies whose rows share a part of their noise by seed, as rows of one start noise do."""
    draw, rows = np.random.default_rng(seed), len(means)
    shared, own = draw.normal(size=(STUDIES, 1, seeds)), draw.normal(size=(STUDIES, rows, seeds))
    values = np.array(means)[:, None] + shared + noise * own
    pairs = all_pairs(np.tile(np.arange(rows), STUDIES), np.repeat(np.arange(STUDIES), rows))
    return Simulated(rows, values.reshape(-1, seeds), pairs)


def share_with_any(of: Simulated, wrong: NDArray[np.bool_]) -> float:
    """The share of studies with such a pair."""
    return float((np.bincount(of.pairs.family, wrong, minlength=STUDIES) > 0).mean())


def ended(of: Simulated, found: AfterLook, design: Design) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """With how many seeds each study ends, and whether its first row is then known to lead."""
    seeds, right = np.full(STUDIES, design.looks[-1]), np.zeros(STUDIES, dtype=bool)
    going = np.ones(STUDIES, dtype=bool)
    first, second = of.pairs.first % of.rows, of.pairs.second % of.rows
    for look, n in enumerate(design.looks):
        lead = of.values[:, :n].mean(axis=1).reshape(STUDIES, -1).argmin(axis=1)[of.pairs.family]
        worse = np.where(first == lead, found.direction, -found.direction)
        told = ((worse > 0) & (found.apart <= look)) | ((found.equivalent != NOT_YET) & (found.equivalent <= look))
        left = np.bincount(of.pairs.family, ((first == lead) | (second == lead)) & ~told, minlength=STUDIES)
        end = going & (left == 0)
        seeds[end], right[end] = n, (lead.reshape(STUDIES, -1)[:, 0] == 0)[end]
        going &= ~end
    return seeds, right


# --- error rates ----------------------------------------------------------------------------------


def test_equals_are_told_apart_no_more_often_than_stated() -> None:
    none = studies([10.0] * 4, 0.2, 20)
    found = verdicts(none.values, none.pairs, DESIGN)
    assert share_with_any(none, found.apart != NOT_YET) <= BOUND
    seeds, _ = ended(none, found, DESIGN)
    assert (found.equivalent != NOT_YET).mean() > 0.8  # 40 seeds show most of them to be within 2 %
    assert seeds.max() == 40


def test_a_difference_at_the_margin_is_called_none_no_more_often_than_stated() -> None:
    at = studies([10.0, 10.2, 10.404], 0.1, 21)
    found = verdicts(at.values, at.pairs, DESIGN)
    assert share_with_any(at, found.equivalent != NOT_YET) <= BOUND
    seeds, right = ended(at, found, DESIGN)
    assert right.mean() > 0.9  # the difference is there, and told
    assert seeds.mean() < 20
    two = studies([10.0, 10.2], 0.1, 26)
    assert 0.02 < (verdicts(two.values, two.pairs, DESIGN).equivalent != NOT_YET).mean() <= BOUND  # nothing wasted


def test_a_large_difference_is_told_by_the_first_look() -> None:
    large = studies([10.0, 20.0, 30.0], 1.0, 22)
    found = verdicts(large.values, large.pairs, DESIGN)
    seeds, right = ended(large, found, DESIGN)
    assert right.mean() > 1 - RARELY
    assert seeds.max() == 5
    assert (found.equivalent == NOT_YET).all()


def test_fewer_seeds_are_needed_than_by_a_number_fixed_beforehand_of_equal_power() -> None:
    means, noise = [10.0, 10.5, 11.0, 12.0], 0.5
    grown = studies(means, noise, 23)
    seeds, right = ended(grown, verdicts(grown.values, grown.pairs, DESIGN), DESIGN)
    mean = int(np.ceil(seeds.mean()))
    fixed = studies(means, noise, 24, mean + 1)
    at_once = Design((mean + 1,))
    _, right_at_once = ended(fixed, verdicts(fixed.values, fixed.pairs, at_once), at_once)
    apart = float(right.mean() - right_at_once.mean())
    error = np.sqrt((right.var() + right_at_once.var()) / STUDIES)
    assert apart > stats.norm.isf(RARELY) * error  # more than its mean, and still of less power
    assert seeds.mean() < 0.9 * 31  # which has the power of 97 % (docs/growing.md)


# --- what it decides ------------------------------------------------------------------------------


def test_the_looks_are_announced_and_spend_the_whole_level() -> None:
    assert looks_up_to(40) == (5, 10, 20, 40)
    assert looks_up_to(30) == (5, 10, 20, 30)
    assert looks_up_to(5) == (5,)
    assert looks_up_to(3) == (3,)
    assert DESIGN.shares.sum() == pytest.approx(1)
    assert np.cumsum(DESIGN.shares)[1] == pytest.approx(np.log(1 + (np.e - 1) / 4))


def test_seeds_are_added_to_those_of_the_study() -> None:
    assert seeds_of((5, 10), (0, 1, 2)) == tuple(range(10))
    assert seeds_of((5,), (7, 3)) == (7, 3, 0, 1, 2)
    assert seeds_of((2,), (4, 5, 6)) == (4, 5)


def pair(first: list[float], second: list[float], design: Design) -> AfterLook:
    values = np.array([first, second])
    return verdicts(values, all_pairs(np.array([0, 1]), np.array([0, 0])), design)


def test_the_interval_leaves_out_zero_where_a_pair_is_told_apart() -> None:
    x = [1.0, 1.2, 0.9, 1.1, 1.05]
    design = Design((5,))
    critical = stats.t.isf(LEVEL / 2, 4)
    for size, apart in ((1.01, True), (0.99, False)):
        noise = np.array([1.0, -1.0, 0.5, -0.5, 0.0])
        change = size * critical * noise.std(ddof=1) / np.sqrt(5)
        found = pair(x, (np.array(x) + change + noise).tolist(), design)
        assert bool(found.apart[0] == 0) is apart
        assert bool(found.low[0] > 0) is apart
        assert (found.low[0] + found.high[0]) / 2 == pytest.approx(change)


def test_a_verdict_stays_and_holm_passes_its_level_on() -> None:
    values = np.array([[1.0, 1.1, 0.9, 1.05, 1.0], [5.0, 5.2, 4.9, 5.1, 5.0], [1.4, 1.35, 1.5, 1.6, 1.3]])
    three = all_pairs(np.arange(3), np.zeros(3, dtype=np.int64))
    p = np.sort([stats.ttest_rel(values[i], values[j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))])
    level = p[2] * 1.001  # above what is left for the last, below a third of it
    assert p[1] < level / 2
    assert (verdicts(values, three, Design((5,), level=level)).apart == 0).all()
    assert (verdicts(values, three, Design((5,), level=p[0] * 2.9)).apart == NOT_YET).all()
    later = np.concatenate([values, np.tile([1.0, 9.0, -5.0, 2.0, 7.0], (3, 1))[:, ::-1] * [[1.0], [-1.0], [1.0]]], 1)
    looked = verdicts(later, three, Design((5, 10), level=level * 4))
    assert (looked.apart[[0, 2]] == 0).all()


def test_a_pair_is_told_apart_in_the_direction_that_its_numbers_had_then() -> None:
    a, b = [1.0, 1.1, 0.9, 1.05, 0.95], [2.0, 2.15, 1.9, 2.0, 1.95]
    found = pair([*a, *[9.0] * 5], [*b, *[2.0] * 5], Design((5, 10)))
    assert (found.apart[0], found.direction[0], found.contrasts.sign[0]) == (0, 1, -1)
    assert pair(b, a, Design((5,))).direction[0] == -1
    assert pair(a, a, Design((5,))).direction[0] == 0


def test_groups_may_share_one_level() -> None:
    x = np.array([1.0, 1.2, 0.9, 1.1, 1.05])
    some, little = np.array([0.5, 0.8, 0.1, 0.6, 0.7]), np.array([0.1, 0.9, -0.9, 0.2, -0.3])
    values = np.array([x, x + some, x, x + little])
    label, group = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    level = 1.5 * stats.ttest_rel(values[0], values[1]).pvalue  # too little for one of two
    own = verdicts(values, all_pairs(label, group), Design((5,), level=level))
    shared = verdicts(values, all_pairs(label, group, one_family=True), Design((5,), level=level))
    assert own.apart.tolist() == [0, NOT_YET]
    assert shared.apart.tolist() == [NOT_YET, NOT_YET]


def test_equal_rows_are_equivalent_and_a_constant_difference_is_tested_by_its_signs() -> None:
    x = [1.0, 1.2, 0.9, 1.1, 1.05, 1.0, 0.95, 1.15, 1.02, 0.98]
    same = pair(x, x, Design((10,)))
    assert (same.apart[0], same.equivalent[0]) == (NOT_YET, 0)
    shifted = pair(x, [value + 0.5 for value in x], Design((10,)))
    assert shifted.contrasts.p[0] == 2.0**-9
    assert shifted.apart[0] == 0
    fewer = pair(x[:5], [value + 0.5 for value in x[:5]], Design((5,)))
    assert (fewer.apart[0], fewer.equivalent[0]) == (NOT_YET, NOT_YET)


def test_the_margin_may_be_in_units_and_of_negative_means() -> None:
    draw = np.random.default_rng(3)
    x = draw.normal(size=10) - 4
    y = x + 0.05 + 0.01 * draw.normal(size=10)
    for margin, equivalent in ((Margin(0.02), 0), (Margin(0.005), NOT_YET), (Margin(0.1, False), 0)):
        found = pair(x.tolist(), y.tolist(), Design((10,), margin))
        assert (found.apart[0], found.equivalent[0]) == (0, equivalent)
    assert pair(x.tolist(), y.tolist(), Design((10,), Margin(0.03, False))).equivalent[0] == NOT_YET


def test_decades_are_compared_by_logarithms_from_the_first_look_on() -> None:
    x = [1.0, 10.0, 30.0, 2.0, 5.0]
    found = pair(x, [value * factor for value, factor in zip(x, (2.0, 2.1, 1.9, 2.0, 2.05), strict=True)], Design((5,)))
    assert found.contrasts.logarithmic[0]
    assert found.apart[0] == 0
    assert 1 < found.low[0] < found.contrasts.factor[0] < found.high[0]


def test_what_was_found_at_a_look_does_not_change_with_later_seeds() -> None:
    some = studies([10.0, 10.3, 10.3], 0.4, 25)
    early = verdicts(some.values[:, :10], some.pairs, DESIGN)
    late = verdicts(some.values, some.pairs, DESIGN)
    for name in ("apart", "equivalent"):
        before, after = getattr(early, name), getattr(late, name)
        np.testing.assert_array_equal(before, np.where(after > 1, NOT_YET, after))
    with pytest.raises(ValueError, match="looks at"):
        verdicts(some.values[:, :4], some.pairs, DESIGN)
