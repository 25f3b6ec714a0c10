r"""The one rule for "cannot be told apart": two configurations, or two sides of a comparison, by
their seeds.

*The test.* Let x_s and y_s be the values of the two by seed s; where all of them are positive and
the largest exceeds ten times the smallest (`DECADE`), their logarithms; always these where a factor
is stated (the claims of the page).

    paired   d_s = y_s - x_s,  t = mean(d) / (sd(d) / sqrt n),  n - 1 degrees of freedom
    Welch    t = (mean(y) - mean(x)) / sqrt(v_x / n_x + v_y / n_y),  degrees of freedom by Satterthwaite's formula

In pairs where two seeds or more are shared, over these: equal seeds share their start noise, which
cancels in the difference. Where they do not share it, pairs are as valid, and no sharper than
Welch's test. Welch's test where fewer are shared and each has two or more.

*What cannot be decided.* One seed; differences without a spread beyond rounding (nothing to hold
them against: also values that come in steps can agree by chance); a value that is infinite. What is
the same to rounding for every seed is not told apart. A seed without a value (NaN) does not take
part. Where the caller knows that nothing is random (quantiles to start from, an exact denoiser, a
deterministic sampler), every difference beyond rounding is one.

*Many tests.* The tests that serve one statement are a family, corrected by Holm's rule at `LEVEL`:
those of one `diff`; those of one verdict on a claim; those of one ranking, in which everyone is
compared with the first. The first of k is chosen by the same numbers, and not beforehand. So what
is promised of a ranking is what "multiple comparisons with the best" promise: *the one that is best
in truth is told apart from the first* with a chance of at most `LEVEL`. That *some* of k equals is
told apart has a larger chance for many k; docs/comparing.md has both, as they were simulated.

Source: Student, Biometrika 6, 1908; Welch, Biometrika 34, 1947; Holm, Scand. J. Stat. 6, 1979;
Gupta, Technometrics 7, 1965 and Hsu, Ann. Stat. 9, 1981 (comparisons with the best).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.statistics.corrections import corrected

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

Scale = Literal["auto", "linear", "logarithmic"]
AUTO: Scale = "auto"
LINEAR: Scale = "linear"
LOGARITHMIC: Scale = "logarithmic"

LEVEL = 0.05
"""Of a family of tests: the chance of any false alarm among them."""
FEWEST = 2
"""Seeds, without which there is no spread."""
DECADE = 10.0
"""Values of a pair that are all positive and differ by more than this factor are compared by their
logarithms.
"""
_ROUNDING = 64 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Values:
    """The values of one side: of which pair, of which seed ``[value]``."""

    group: Codes
    seed: Codes
    value: Array


@dataclass(frozen=True)
class Contrasts:
    """The second side against the first, an entry per pair ``[pair]``, NaN where something is not
    known.

    `first` and `second` are means in the metric's units, geometric ones where `logarithmic`;
    `change` is their difference (of the shared seeds, where `paired`). On the scale that was
    tested, `error` is the standard error of the change, and `spreads` is the change in pooled
    standard deviations of the seeds; `factor` is the change as a factor, of logarithmic pairs.
    `still` pairs have no spread beyond rounding, and pairs that are the `same` no change either.
    `p` is that of one test, NaN where none can be made.
    """

    paired: Mask
    logarithmic: Mask
    seeds_first: Codes
    seeds_second: Codes
    first: Array
    second: Array
    change: Array
    factor: Array
    error: Array
    spreads: Array
    still: Mask
    same: Mask
    p: Array

    @property
    def sign(self) -> Array:
        """The direction of the change, on the scale that was tested."""
        return np.asarray(np.sign(np.where(self.logarithmic, self.factor - 1, self.change)))


@dataclass(frozen=True)
class Decision:
    """What the rule says of each pair ``[pair]``: told `apart`, not told apart (`tied`), or
    neither.

    `p` is the corrected one of its family, NaN where there was no test.
    """

    p: Array
    apart: Mask
    tied: Mask

    @property
    def unknown(self) -> Mask:
        """Which pairs cannot be decided."""
        return np.asarray(~(self.apart | self.tied))


def decided(
    contrasts: Contrasts, family: Codes | None = None, level: float = LEVEL, *, nothing_random: Mask | bool = False
) -> Decision:
    """The rule, for tests that were made.

    Args:
        contrasts: the tests.
        family: whose statement each pair serves ``[pair]``; all serve one, unless it is given.
        level: of each family.
        nothing_random: of which pairs seeds change nothing, so that every difference is one
            ``[pair]``.

    Returns:
        Which pairs are told apart.
    """
    size = len(contrasts.p)
    p = np.full(size, np.nan)
    family = np.zeros(size, dtype=np.int64) if family is None else family
    tested = np.isfinite(contrasts.p)
    for member in np.unique(family[tested]):
        rows = np.flatnonzero(tested & (family == member))
        p[rows] = corrected(contrasts.p[rows])
    size_of = np.maximum(np.abs(contrasts.first), np.abs(contrasts.second))
    fact = nothing_random & np.isfinite(contrasts.change)
    same = np.where(fact, np.abs(contrasts.change) <= _ROUNDING * size_of, contrasts.same)
    apart = np.where(fact, ~same, p <= level)
    return Decision(p, apart, ~apart & (tested | same))


def against_first(
    values: Array,
    first: Codes,
    *,
    more_is_better: bool = False,
    level: float = LEVEL,
    nothing_random: Mask | bool = False,
) -> Decision:
    """Rankings: who can be told from the first of them.

    Args:
        values: by row and seed ``[row, seed]``, NaN where a seed has none.
        first: the row that comes first in each row's ranking ``[row]``.
        more_is_better: of the metric.
        level: of each ranking.
        nothing_random: of which rows seeds change nothing ``[row]``.

    Returns:
        For each row whether it is told apart from its first, and worse ``[row]``; a first is never
        told from itself.
    """
    rows = np.flatnonzero(first != np.arange(len(first)))
    contrasts = by_seed(values[first[rows]], values[rows])
    fixed = np.broadcast_to(nothing_random, len(first))
    found = decided(contrasts, first[rows], level, nothing_random=fixed[rows] & fixed[first[rows]])
    worse = contrasts.sign == (-1.0 if more_is_better else 1.0)  # the shared seeds, or logarithms, may say otherwise
    p, apart, tied = np.full(len(first), np.nan), np.zeros(len(first), dtype=bool), np.ones(len(first), dtype=bool)
    p[rows], apart[rows], tied[rows] = found.p, found.apart & worse, found.tied | (found.apart & ~worse)
    return Decision(p, apart, tied)


def by_seed(first: Array, second: Array, *, margin: Array | None = None, scale: Scale = AUTO) -> Contrasts:
    """The second against the first, in pairs where two seeds or more are shared, otherwise by
    Welch's test.

    Args:
        first: by pair and seed ``[pair, seed]``, NaN where a seed has none.
        second: the same.
        margin: as in `contrasts_of`.
        scale: as in `contrasts_of`.

    Returns:
        A contrast for each pair; one with an infinite value has no p.
    """
    size = len(first)
    infinite = np.isinf(first).any(axis=1) | np.isinf(second).any(axis=1)
    there = np.isfinite(first), np.isfinite(second)
    shared = there[0] & there[1]
    paired = in_pairs(first, second)
    sides = []
    for values, known in zip((first, second), there, strict=True):
        pair, seed = np.nonzero(np.where(paired[:, None], shared, known))
        sides.append(Values(pair, seed, values[pair, seed]))
    found = contrasts_of(sides[0], sides[1], size, paired, margin=margin, scale=scale)
    return replace(found, p=np.where(infinite, np.nan, found.p), change=np.where(infinite, np.nan, found.change))


def in_pairs(first: Array, second: Array) -> Mask:
    """Which pairs are compared by seed: those that share two seeds or more, or the only seed of one
    of them.

    Args:
        first: by pair and seed ``[pair, seed]``, NaN where a seed has none.
        second: the same.

    Returns:
        For each pair ``[pair]``; of the others all seeds are compared, by Welch's test.
    """
    there = np.isfinite(first), np.isfinite(second)
    count, fewest = (there[0] & there[1]).sum(axis=1), np.minimum(there[0].sum(axis=1), there[1].sum(axis=1))
    return np.asarray((count >= FEWEST) | ((count == 1) & (fewest == 1)))


def extremes(groups: Codes, values: Array, size: int) -> tuple[Array, Array]:
    """Smallest and largest value of each group; infinities where it has none."""
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, groups, values)
    np.maximum.at(high, groups, values)
    return low, high


def moments(groups: Codes, values: Array, size: int) -> tuple[Codes, Array, Array]:
    """Number, mean and variance (n - 1 in its denominator) of each group's values; NaN where there
    are too few.
    """
    n = np.bincount(groups, minlength=size)
    mean = np.bincount(groups, weights=values, minlength=size) / np.where(n > 0, n, np.nan)
    squares = np.bincount(groups, weights=(values - mean[groups]) ** 2, minlength=size)
    return n, mean, squares / np.where(n > 1, n - 1, np.nan)


def contrasts_of(
    first: Values, second: Values, size: int, paired: Mask, *, margin: Array | None = None, scale: Scale = AUTO
) -> Contrasts:
    """Each pair's change and its p value.

    Args:
        first: values of one side; a seed's value is the mean over its own.
        second: of the other side.
        size: how many pairs there are.
        paired: which are compared by seed ``[pair]``: both sides then have the same seeds.
        margin: a difference that counts as none, in the metric's units ``[pair]``; what is tested
            is the rest, on their scale.
        scale: that of the values or that of their logarithms, which are positive then; `AUTO` by
            their range.

    Returns:
        A contrast for each pair; p is NaN where a side has too few seeds, or where these have no
        spread.
    """
    from scipy.special import stdtr

    groups, values = np.concatenate([first.group, second.group]), np.concatenate([first.value, second.value])
    low, high = extremes(groups, values, size)
    known = np.isfinite(low)
    low, high = np.where(known, low, 1.0), np.where(known, high, 1.0)
    logarithmic = (low > 0) & (high / DECADE > low)
    if margin is not None or scale != AUTO:
        logarithmic = np.full(size, scale == LOGARITHMIC and margin is None) & known
    # otherwise in units of a power of two near the largest value: no square is then lost to the
    # range of numbers
    unit = np.where(logarithmic, 0, np.frexp(np.maximum(np.abs(low), np.abs(high)))[1])
    ends = [np.abs(np.log(np.where(logarithmic, end, 1.0))) for end in (low, high)]
    magnitude = np.maximum(1.0, np.maximum(*ends))  # of what is tested; rounding is relative to it
    x, y = _by_seed(first, logarithmic, unit), _by_seed(second, logarithmic, unit)
    n_x, mean_x, v_x = moments(x.group, x.value, size)
    n_y, mean_y, v_y = moments(y.group, y.value, size)
    part_x, part_y = v_x / np.maximum(n_x, 1), v_y / np.maximum(n_y, 1)
    difference, error = mean_y - mean_x, np.sqrt(part_x + part_y)
    df = _satterthwaite(part_x, part_y, n_x, n_y)
    here, there = paired[x.group], paired[y.group]
    n, mean_d, v_d = moments(x.group[here], y.value[there] - x.value[here], size)
    difference = np.where(paired, mean_d, difference)
    error = np.where(paired, np.sqrt(v_d / np.maximum(n, 1)), error)
    df = np.where(paired, n - 1.0, df)

    still = error <= _ROUNDING * magnitude
    beyond = np.abs(difference) if margin is None else np.maximum(np.abs(difference) - np.ldexp(margin, -unit), 0.0)
    t = beyond / np.where(still, np.nan, error)
    pooled = np.sqrt(((n_x - 1) * v_x + (n_y - 1) * v_y) / np.maximum(n_x + n_y - 2, 1))
    spreads = difference / np.where(pooled > _ROUNDING * magnitude, pooled, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        means = [
            np.where(logarithmic, np.exp(np.where(logarithmic, m, 0)), np.ldexp(m, unit)) for m in (mean_x, mean_y)
        ]
        change = np.where(logarithmic, means[1] - means[0], np.ldexp(difference, unit))
        factor = np.where(logarithmic, np.exp(np.where(logarithmic, difference, 0)), np.nan)
        error = np.ldexp(error, unit)
    return Contrasts(
        paired,
        logarithmic,
        n_x,
        n_y,
        means[0],
        means[1],
        change,
        factor,
        error,
        spreads,
        still,
        still & (np.abs(difference) <= _ROUNDING * magnitude),
        2 * stdtr(df, -t),
    )


def _by_seed(values: Values, logarithmic: Mask, unit: Codes) -> Values:
    """The mean over each seed's points, on the scale of its pair."""
    log = logarithmic[values.group]
    scaled = np.where(log, np.log(np.where(log, values.value, 1)), np.ldexp(values.value, -unit[values.group]))
    width = int(values.seed.max(initial=0)) + 1
    pairs, where = np.unique(values.group * width + values.seed, return_inverse=True)
    mean = np.bincount(where, weights=scaled) / np.bincount(where) if len(pairs) else np.zeros(0)
    return Values(pairs // width, pairs % width, mean)


def _satterthwaite(part_x: Array, part_y: Array, n_x: Codes, n_y: Codes) -> Array:
    """Degrees of freedom of Welch's test, from the two parts of the squared error; NaN where they
    vanish.
    """
    whole = np.where(part_x + part_y > 0, part_x + part_y, np.nan)
    a, b = part_x / whole, part_y / whole
    return np.asarray(1 / (a**2 / np.where(n_x > 1, n_x - 1, np.nan) + b**2 / np.where(n_y > 1, n_y - 1, np.nan)))


def hurdle(seeds: int, tests: int, level: float = LEVEL) -> float:
    """How far the first of `tests` changes must move to be told.

    Args:
        seeds: how many are shared.
        tests: of the family.
        level: of the family.

    Returns:
        The change in standard deviations of the differences by seed.
    """
    from scipy.special import stdtrit

    return float(-stdtrit(seeds - 1, level / tests / 2)) / math.sqrt(seeds)
