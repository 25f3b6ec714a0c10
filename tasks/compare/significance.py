r"""Tests of a change against the noise of seeds, for many groups at once, and what to make of many tests.

Let x_s be a group's value before and y_s after, by seed s; where values span decades, the logarithms of these (`DECADE`).

    paired   d_s = y_s - x_s,  t = mean(d) / (sd(d) / sqrt n),  n - 1 degrees of freedom
    Welch    t = (mean(y) - mean(x)) / sqrt(v_x / n_x + v_y / n_y),  degrees of freedom by Satterthwaite's formula

Sources: Student, Biometrika 6, 1908; Welch, Biometrika 34, 1947; Holm, Scand. J. Stat. 6, 1979; Benjamini & Hochberg,
J. R. Stat. Soc. B 57, 1995.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from tasks.compare.match import Codes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CORRECTIONS = ("holm", "benjamini-hochberg")
DECADE = 10.0
"""Values of a group that are all positive and differ by more than this factor are compared by their logarithms."""
_ROUNDING = 64 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Values:
    """The values that are compared, on one side: of which group, of which seed."""

    group: Codes
    seed: Codes
    value: Array


@dataclass(frozen=True)
class Outcome:
    """One entry per group, NaN where something is not known.

    `before` and `after` are means in the metric's units, geometric ones where `logarithmic`; `change` is their difference. On the
    scale that was tested, `error` is the standard error of the change, and `spreads` is the change in pooled standard deviations of
    the seeds; `factor` is the change as a factor, of logarithmic groups. `still` groups have no spread beyond rounding.
    """

    logarithmic: Mask
    seeds_before: Codes
    seeds_after: Codes
    before: Array
    after: Array
    change: Array
    factor: Array
    error: Array
    spreads: Array
    still: Mask
    p: Array


def extremes(groups: Codes, values: Array, size: int) -> tuple[Array, Array]:
    """Smallest and largest value of each group; infinities where it has none."""
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, groups, values)
    np.maximum.at(high, groups, values)
    return low, high


def moments(groups: Codes, values: Array, size: int) -> tuple[Codes, Array, Array]:
    """Number, mean and variance (n - 1 in its denominator) of each group's values; NaN where there are too few."""
    n = np.bincount(groups, minlength=size)
    mean = np.bincount(groups, weights=values, minlength=size) / np.where(n > 0, n, np.nan)
    squares = np.bincount(groups, weights=(values - mean[groups]) ** 2, minlength=size)
    return n, mean, squares / np.where(n > 1, n - 1, np.nan)


def tested(before: Values, after: Values, size: int, paired: Mask) -> Outcome:
    """Each group's change and its p value: by seed where `paired` (both sides then have the same seeds), else by Welch's test.

    A seed's value is the mean over its points. p is NaN where a side has too few seeds, or where these have no spread.
    """
    low, high = extremes(np.concatenate([before.group, after.group]), np.concatenate([before.value, after.value]), size)
    known = np.isfinite(low)
    low, high = np.where(known, low, 1.0), np.where(known, high, 1.0)
    logarithmic = (low > 0) & (high / DECADE > low)
    # otherwise in units of a power of two near the largest value: no square is then lost to the range of numbers
    unit = np.where(logarithmic, 0, np.frexp(np.maximum(np.abs(low), np.abs(high)))[1])
    ends = [np.abs(np.log(np.where(logarithmic, end, 1.0))) for end in (low, high)]
    magnitude = np.maximum(1.0, np.maximum(*ends))  # of what is tested; rounding is relative to it
    x, y = _by_seed(before, logarithmic, unit), _by_seed(after, logarithmic, unit)
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
    t = difference / np.where(still, np.nan, error)
    pooled = np.sqrt(((n_x - 1) * v_x + (n_y - 1) * v_y) / np.maximum(n_x + n_y - 2, 1))
    spreads = difference / np.where(pooled > _ROUNDING * magnitude, pooled, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        means = [
            np.where(logarithmic, np.exp(np.where(logarithmic, m, 0)), np.ldexp(m, unit)) for m in (mean_x, mean_y)
        ]
        change = np.where(logarithmic, means[1] - means[0], np.ldexp(difference, unit))
        factor = np.where(logarithmic, np.exp(np.where(logarithmic, difference, 0)), np.nan)
        error = np.ldexp(error, unit)
    p = 2 * stdtr(df, -np.abs(t))
    return Outcome(logarithmic, n_x, n_y, means[0], means[1], change, factor, error, spreads, still, p)


def _by_seed(values: Values, logarithmic: Mask, unit: Codes) -> Values:
    """The mean over each seed's points, on the scale of its group."""
    log = logarithmic[values.group]
    scaled = np.where(log, np.log(np.where(log, values.value, 1)), np.ldexp(values.value, -unit[values.group]))
    width = int(values.seed.max(initial=0)) + 1
    pairs, where = np.unique(values.group * width + values.seed, return_inverse=True)
    mean = np.bincount(where, weights=scaled) / np.bincount(where) if len(pairs) else np.zeros(0)
    return Values(pairs // width, pairs % width, mean)


def _satterthwaite(part_x: Array, part_y: Array, n_x: Codes, n_y: Codes) -> Array:
    """Degrees of freedom of Welch's test, from the two parts of the squared error; NaN where they vanish."""
    whole = np.where(part_x + part_y > 0, part_x + part_y, np.nan)
    a, b = part_x / whole, part_y / whole
    return np.asarray(1 / (a**2 / np.where(n_x > 1, n_x - 1, np.nan) + b**2 / np.where(n_y > 1, n_y - 1, np.nan)))


def corrected(p: Array, method: str) -> Array:
    """p values for a family of tests, in the order given: by Holm's rule, or that of Benjamini and Hochberg."""
    if method == "benjamini-hochberg":
        from scipy.stats import false_discovery_control

        return np.asarray(false_discovery_control(p, method="bh")) if len(p) else p
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(p)
    found[order] = np.minimum(steps, 1.0)
    return found


def hurdle(seeds: int, tests: int, level: float) -> float:
    """How far the first of `tests` changes must move to be told, in standard deviations of the paired differences of `seeds` seeds."""
    return float(-stdtrit(seeds - 1, level / tests / 2)) / math.sqrt(seeds)
