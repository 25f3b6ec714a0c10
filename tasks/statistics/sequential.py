r"""The rule by which seeds are added until it is decided who is best: when numbers are looked at, and
what each look may conclude.

*Looks.* Numbers are looked at with n_1 < ... < n_L seeds, announced beforehand. Of a level a, look l
may spend

    w_l a,   w_l = f(n_l / n_L) - f(n_{l-1} / n_L),   f(t) = ln(1 + (e - 1) t),   sum of w_l = 1,

the spending function of Lan and DeMets that resembles Pocock's boundaries: it lets a large
difference be told at the first look, where Student's quantiles are wide. The share is the nominal
level of that look's test. Boundaries from the joint law of normal statistics would be a little lower;
they are not used, since with four degrees of freedom they are exceeded too often (5.3 % for 5 %,
docs/growing.md), while a sum of levels holds for every law.

*Two questions of a pair*, x and y by seed, on the scale of `tasks.statistics.decision` (their
logarithms, where the first look's values are positive and exceed a decade; that stays so):

    apart        mean(y) = mean(x) is rejected by the paired test of that rule
    equivalent   mean(y) >= (1 + m) mean(x) and mean(x) >= (1 + m) mean(y) are both rejected, by
                 one-sided paired tests at the same level (of the sizes, if they are negative; with an
                 absolute margin M, mean(y) - mean(x) against M and -M)

Where all seeds differ by the same number, so that there is no spread to hold it against, the test is
that of the signs: p = 2^(1-n), and 2^-n of one side.

*Many pairs.* The leader of a look is chosen by its numbers. So the family is not leader against
rivals but all pairs of rows with different labels, whoever leads. Holm's rule goes on over the looks:
with R pairs of the family that are not yet told apart, a pair is at look l where p <= w_l a / R, and
R falls with each; what was rejected stays rejected, in the direction that the numbers had then.
Equivalence is a family of its own.

*What is promised.* For normal differences: the chance that any pair of equal means is ever told apart
is at most a, and so is the chance that any pair further apart than the margin is ever called
equivalent, whenever one stops and whoever leads. For two rows the two cannot both be wrong, and their
sum is at most a.

Source: Lan & DeMets, Biometrika 70, 1983; Jennison & Turnbull, Group Sequential Methods, 2000, ch. 7;
Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987 (two one-sided tests); Holm, Scand. J. Stat. 6, 1979;
Ye, Li, Liu & Yao, Stat. Med. 32, 2013 (Holm over looks). Nearest in purpose: Mathieu et al., AdaStop,
arXiv 2306.10882, which permutes labels and has no equivalence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.statistics.decision import DECADE, LEVEL, LINEAR, LOGARITHMIC, Contrasts, by_seed

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

RULE = 2
"""Version of the rule: what it decides of given numbers is the same as long as this is."""
FIRST = 5
"""Seeds at the first look; each later one has twice as many."""
MOST_SEEDS = 40
MARGIN = 0.02
NOT_YET = -1


class Margin(NamedTuple):
    """A difference that counts as none: a share of the smaller of two means, or in the metric's
    units.
    """

    size: float = MARGIN
    relative: bool = True

    def __str__(self) -> str:
        return f"{100 * self.size:g}%" if self.relative else f"{self.size:g}"


DEFAULT_MARGIN = Margin()


@dataclass(frozen=True)
class Design:
    """What is announced before the first look: the numbers of seeds, the margin and the level."""

    looks: tuple[int, ...]
    margin: Margin = DEFAULT_MARGIN
    level: float = LEVEL

    @property
    def shares(self) -> Array:
        """The share of the level that each look spends ``[look]``; their sum is 1."""
        spent = np.log1p((math.e - 1) * np.array(self.looks) / self.looks[-1])
        return np.diff(spent, prepend=0.0)


@dataclass(frozen=True)
class Pairs:
    """Which rows are compared ``[pair]``, and in which family each pair is tested."""

    first: Codes
    second: Codes
    family: Codes


@dataclass(frozen=True)
class AfterLook:
    """What is known of each pair after a look ``[pair]``.

    `apart` and `equivalent` are the look at which that was found, `NOT_YET` where it was not;
    `direction` is the sign of the change when the pair was told apart, on the scale that was tested,
    0 where it was not. `contrasts` are those of this look, the second against the first, with the
    p value that was tested; `low` and `high` the ends of the interval of the change (of the
    factor, on a logarithmic scale) at the level that the test had: a pair is told apart at this
    look where it leaves out 0 (1).
    """

    apart: Codes
    direction: Codes
    equivalent: Codes
    contrasts: Contrasts
    low: Array
    high: Array


def looks_up_to(most: int) -> tuple[int, ...]:
    """The numbers of seeds at which one looks: 5, 10, 20, ... below `most`, and `most`."""
    sizes, n = [], FIRST
    while n < most:
        sizes.append(n)
        n *= 2
    return (*sizes, most)


def all_pairs(label: Codes, group: Codes, *, one_family: bool = False) -> Pairs:
    """Every pair of rows of one group whose labels differ.

    Args:
        label: what is compared: of two rows with the same label nothing is asked ``[row]``.
        group: whose ranking each row is in ``[row]``.
        one_family: whether the pairs of all groups share the level; else each group has its own.

    Returns:
        The pairs, the earlier row first.
    """
    first: list[Codes] = []
    second: list[Codes] = []
    for member in np.unique(group):
        rows = np.flatnonzero(group == member)
        i, j = np.triu_indices(len(rows), 1)
        first.append(rows[i])
        second.append(rows[j])
    one = np.concatenate(first) if first else np.zeros(0, dtype=np.int64)
    other = np.concatenate(second) if second else np.zeros(0, dtype=np.int64)
    differ = label[one] != label[other]
    one, other = one[differ], other[differ]
    return Pairs(one, other, np.zeros_like(one) if one_family else group[one])


def verdicts(values: Array, pairs: Pairs, design: Design, looks: int | None = None) -> AfterLook:
    """What the rule says after some looks: a function of the numbers alone.

    Args:
        values: by row and seed, in the order in which seeds are added ``[row, seed]``; finite.
        pairs: which rows are compared.
        design: what was announced.
        looks: how many were made; by default all whose seeds are there.

    Returns:
        The verdicts after the last of them.

    Raises:
        ValueError: not even the first look's seeds are there.
    """
    made = sum(n <= values.shape[1] for n in design.looks) if looks is None else looks
    if not 0 < made <= len(design.looks) or design.looks[made - 1] > values.shape[1]:
        raise ValueError(f"{values.shape[1]} seeds, looks at {design.looks}")
    x, y = values[pairs.first], values[pairs.second]
    beginning = np.concatenate([x[:, : design.looks[0]], y[:, : design.looks[0]]], axis=1)
    low, high = beginning.min(axis=1), beginning.max(axis=1)
    decades = (low > 0) & (high / DECADE > low)
    apart = np.full(len(x), NOT_YET)
    equivalent = apart.copy()
    direction = np.zeros(len(x), dtype=np.int64)
    for look, (n, share) in enumerate(zip(design.looks[:made], design.shares, strict=False)):
        logarithmic = decades & (np.minimum(x[:, :n].min(axis=1), y[:, :n].min(axis=1)) > 0)
        contrasts = _contrasts(x[:, :n], y[:, :n], logarithmic)
        level = _tell(apart, look, contrasts.p, pairs.family, share * design.level)
        direction = np.where(apart == look, contrasts.sign, direction).astype(np.int64)
        both = _equivalence(x[:, :n], y[:, :n], logarithmic, design.margin)
        _tell(equivalent, look, both, pairs.family, share * design.level)
    return AfterLook(apart, direction, equivalent, contrasts, *interval_of(contrasts, n, level))


def _tell(told: Codes, look: int, p: Array, family: Codes, level: float) -> Array:
    """Holm's rule at a look: mark in `told` what it rejects. The level of each pair's test
    ``[pair]``.

    All that pass at one level are rejected at once, and the level rises by their number: in the end
    that is what Holm's steps reject one by one.
    """
    size = int(family.max(initial=-1)) + 1
    at = np.full(len(p), level)
    while True:
        left = np.bincount(family[told == NOT_YET], minlength=size)
        open_ = told == NOT_YET
        at[open_] = level / left[family[open_]]
        found = open_ & (p <= at)
        if not found.any():
            return at
        told[found] = look


def _contrasts(x: Array, y: Array, logarithmic: Mask) -> Contrasts:
    """The paired tests of y against x, on the scale of each pair; with the test of signs where there
    is no spread.
    """
    found = by_seed(x, y, scale=LINEAR)
    if logarithmic.any():
        rows = np.flatnonzero(logarithmic)
        logs = by_seed(x[rows], y[rows], scale=LOGARITHMIC)
        merged = {}
        for name, values in vars(found).items():
            merged[name] = values.copy()
            merged[name][rows] = getattr(logs, name)
        found = Contrasts(**merged)
    signs = np.where(found.same, 1.0, 2.0 ** (1 - x.shape[1]))
    return replace(found, p=np.nan_to_num(np.where(found.still, signs, found.p), nan=1.0))


def _equivalence(x: Array, y: Array, logarithmic: Mask, margin: Margin) -> Array:
    """The larger p value of the two one-sided tests of equivalence ``[pair]``."""
    if not margin.relative:
        nowhere = np.zeros(len(x), dtype=bool)
        return np.maximum(_below(x + margin.size, y, nowhere), _below(y + margin.size, x, nowhere))
    sign = np.where(x.mean(axis=1) + y.mean(axis=1) < 0, -1.0, 1.0)[:, None]
    x, y = sign * x, sign * y
    more = 1 + margin.size
    return np.maximum(_below(more * x, y, logarithmic), _below(more * y, x, logarithmic))


def _below(x: Array, y: Array, logarithmic: Mask) -> Array:
    """The p value of mean(y) >= mean(x), against less ``[pair]``."""
    found = _contrasts(x, y, logarithmic)
    return np.where(found.sign < 0, found.p / 2, np.where(found.p < 1, 1 - found.p / 2, 1.0))


def interval_of(contrasts: Contrasts, n: int | Codes, level: Array) -> tuple[Array, Array]:
    """Student's interval of the change, or of the factor, of pairs of n seeds at the level of each
    pair's test.
    """
    from scipy.special import stdtrit

    log = contrasts.logarithmic
    middle = np.where(log, np.log(np.where(log, contrasts.factor, 1.0)), contrasts.change)
    half = -stdtrit(n - 1, level / 2) * contrasts.error
    ends = middle - half, middle + half
    with np.errstate(over="ignore"):
        low, high = (np.where(log, np.exp(np.where(log, end, 0.0)), end) for end in ends)
    return low, high


def seeds_of(looks: Sequence[int], seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds that are added one after the other: those that a study has, then the smallest that
    it has not.

    Args:
        looks: numbers of seeds, the last one the largest.
        seeds: those of the study.

    Returns:
        As many as the last look needs.
    """
    known = dict.fromkeys(seeds)
    further = (n for n in range(looks[-1] + len(known)) if n not in known)
    return tuple([*known, *further][: looks[-1]])
