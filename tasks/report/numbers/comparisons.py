"""Two ways of sampling at equal cost: which of them errs less, by how much, and whether the seeds
can tell.

*What is compared.* The metric m itself, by its logarithm, seed by seed: seeds share start noise
between samplers, formulations and schedules, and a paired difference is sharper than either mean. m
is not reduced by its floor (the difference of two noisy numbers near zero has no logarithm). Nor by
its limit of many steps, which exact rows know (`error_decomposition`): two samplers of one denoiser
have the same limit, so that subtracting it changes neither the sign nor the noise of their
difference. Where it says more is in *how much*: the ratio of what exceeds the limit is given
besides, where both excesses rise above their own noise.

*Equal cost.* A sampler is asked at certain numbers of evaluations (NFE). Between two neighbouring
ones log m is taken as linear in log NFE; nothing is extrapolated, and nothing is interpolated over
a step count that failed. Comparisons are made at every NFE at which either of the two was asked and
both are known. Two curves of straight pieces have a difference of straight pieces, so that a
crossing is found exactly where these cross. Samples that diverged count as an error beyond all
others (`DIVERGED`); what failed for other reasons has no error.

*Told.* The first errs less, or more, if the rule of `tasks.statistics.decision` tells the two
apart, and if the means of log m differ by more than 5 % (less is of little use to anybody). The
comparisons of one verdict are a family of tests: there are a dozen, and at 5 % each every other
verdict would contain a false alarm.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from diffusion.schedules import Schedule
from tasks.columns import MetricColumns
from tasks.report.lookup.points import Row
from tasks.report.lookup.requested import Requested
from tasks.report.numbers.curves import Series, Tabulation
from tasks.statistics import decision
from tasks.statistics.intervals import mean_interval

Array = NDArray[np.float64]
WORTH = 1.05
DIVERGED = 1e300


@dataclass(frozen=True)
class Run:
    """One sampler on one denoiser: the error at each step count asked, steps ascending, by seed.

    `nfe[i]` is NaN where no seed has an answer, `errors[s][i]` where seed s has none (or one that
    has no logarithm). `limits[s]` is the metric at the limit of many steps, for exact denoisers.
    `fixed` where seeds change nothing.
    """

    series: Series
    sampler: str
    grid: str
    steps: tuple[int, ...]
    nfe: tuple[float, ...]
    errors: Mapping[int, tuple[float, ...]]
    limits: Mapping[int, float]
    requested: Requested
    name: str = ""  # what the page calls the sampler
    fixed: bool = False

    @property
    def rule(self) -> str:
        """The sampler's own name; empty where it is guided or on another schedule than the model's."""
        return self.requested.rule

    @property
    def plain(self) -> bool:
        """Whether the sampler has its default parameters."""
        return self.requested.sampler.plain

    @property
    def schedule(self) -> Schedule | None:
        """The schedule of the model; None where it cannot be made here."""
        return self.requested.schedule.component

    @property
    def own_grid(self) -> bool:
        """Whether its grid is the schedule's own; so, too, where the schedule is not known."""
        grid = self.requested.grid
        return self.schedule is None or (grid.plain and grid.name == self.schedule.own_grid)

    def mean(self, i: int) -> float:
        """Mean error over the seeds that have an answer at place i; NaN if none has."""
        found = [values[i] for values in self.errors.values() if math.isfinite(values[i])]
        return float(np.mean(found)) if found else math.nan

    def at_steps(self, n: int, seed: int) -> float:
        """The error in `n` steps; NaN where it is not known."""
        return self.errors[seed][self.steps.index(n)] if n in self.steps else math.nan

    def at_cost(self, nfe: float, seed: int) -> float:
        """The error for so many evaluations, interpolated; NaN outside and across what failed."""
        values = self.errors[seed]
        for i, cost in enumerate(self.nfe):
            if cost == nfe:
                return values[i]
            if i + 1 < len(self.nfe) and cost < nfe < self.nfe[i + 1]:
                share = math.log(nfe / cost) / math.log(self.nfe[i + 1] / cost)
                return math.exp((1 - share) * math.log(values[i]) + share * math.log(values[i + 1]))
        return math.nan


@dataclass(frozen=True)
class Difference:
    """The first against the second at one place, an NFE or a step count; errors are geometric means
    over seeds.

    `log_ratio` is the mean of the difference of their logarithms, `half` half of its 95 % interval
    (NaN for fewer than three seeds). `pairs` are the errors by seed ``[seed, 2]``, and `fixed` says
    that seeds change nothing. `decided` is -1 if the first errs less, 1 if more, 0 if that cannot
    be told (`judged`). `excess` is the ratio of what exceeds the limit of many steps, or NaN.
    """

    at: float
    first: float
    second: float
    log_ratio: float
    half: float
    pairs: Array = field(repr=False, compare=False)
    fixed: bool = False
    decided: int = 0
    excess: float = math.nan
    against: str = ""

    @property
    def times(self) -> float:
        """How many times the smaller error fits into the larger one; infinite where one of them
        diverged.
        """
        return math.exp(abs(self.log_ratio)) if max(self.first, self.second) < DIVERGED else math.inf


def runs(table: Tabulation, dataset: str, metric: str) -> list[Run]:
    """Every sampler on every denoiser, in the table's order; adaptive samplers, whose cost does not
    grow with N, are left out.
    """
    groups: dict[tuple[Series, str, str], list[Row]] = {}
    for point in table.rows_of(dataset):
        series = table.series_of(point.formulation, point.schedule)
        if series is not None:
            groups.setdefault((series, point.sampler, point.grid), []).append(point)
    found = [
        replace(_run(key, points, metric), name=table.short(key[1]), fixed=table.nothing_random(key[1], key[0]))
        for key, points in groups.items()
    ]
    return [run for run in found if _ascending(run.nfe) and run.errors]


def _run(key: tuple[Series, str, str], points: Sequence[Row], metric: str) -> Run:
    steps = sorted({point.steps for point in points})
    cost: dict[int, list[int]] = {}
    values: dict[int, dict[int, float]] = {}
    limits: dict[int, float] = {}
    for point in points:
        diverged = point.status == "failed" and point.nfe > 0  # what failed otherwise was never counted
        value = DIVERGED if diverged else point.values[metric]
        if (point.status == "ok" or diverged) and math.isfinite(value) and value > 0:
            cost.setdefault(point.steps, []).append(point.nfe)
            values.setdefault(point.seed, {})[point.steps] = value
            limit = point.beside.get(MetricColumns(metric).limit, math.nan)
            if key[0].exact and math.isfinite(limit):
                limits[point.seed] = limit
    nfe = tuple(float(np.median(cost[n])) if n in cost else math.nan for n in steps)
    errors = {seed: tuple(own.get(n, math.nan) for n in steps) for seed, own in sorted(values.items())}
    return Run(
        *key,
        tuple(steps),
        nfe,
        errors,
        limits,
        min((point.requested for point in points), key=lambda requested: not requested.schedule.name),
    )


def _ascending(nfe: Sequence[float]) -> bool:
    known = [cost for cost in nfe if math.isfinite(cost)]
    return all(a < b for a, b in itertools.pairwise(known))


def compare_at_cost(first: Run, second: Run) -> list[Difference]:
    """At every NFE at which one was asked and both are known."""
    places = sorted({cost for run in (first, second) for cost in run.nfe if math.isfinite(cost)})
    return _compare(first, second, places, Run.at_cost)


def compare_at_steps(first: Run, second: Run) -> list[Difference]:
    """At every step count that was asked of both."""
    places = sorted(set(first.steps) & set(second.steps))
    return _compare(first, second, places, Run.at_steps)


def _compare(first: Run, second: Run, places: Iterable[float], read: Callable[..., float]) -> list[Difference]:
    seeds = [seed for seed in first.errors if seed in second.errors]
    fixed = first.fixed and second.fixed
    found = []
    every = []
    for place in places:
        pairs = np.array([(read(first, place, seed), read(second, place, seed)) for seed in seeds]).reshape(-1, 2)
        known = np.isfinite(pairs).all(axis=1)
        if known.any():
            every.append(np.where(known[:, None], pairs, np.nan))
            found.append(replace(compared(place, pairs[known], fixed=fixed), against=second.series.label))
    if found and first.series == second.series:
        limits = np.array([first.limits.get(seed, math.nan) for seed in seeds])
        ratios = _ratios_of_excess(np.array(every), limits, fixed=fixed)
        found = [replace(one, excess=ratio) for one, ratio in zip(found, ratios, strict=True)]
    return judged(found)


def compared(at: float, pairs: Array, *, fixed: bool = False) -> Difference:
    """The comparison of positive errors ``[seed, 2]`` at one place, not yet `judged`."""
    first, second = (
        math.exp(float(np.log(column).mean())) if (column < DIVERGED).all() else DIVERGED for column in pairs.T
    )
    logs = np.log(pairs[:, 0]) - np.log(pairs[:, 1])
    interval = mean_interval(logs)
    half = math.nan if interval is None else (interval[1] - interval[0]) / 2
    return Difference(at, first, second, float(logs.mean()), half, pairs, fixed)


def judged(found: Sequence[Difference]) -> list[Difference]:
    """The comparisons with what is decided of each, as one family of tests."""
    if not found:
        return []
    values = np.full((2, len(found), max(len(one.pairs) for one in found)), np.nan)
    for i, one in enumerate(found):
        values[:, i, : len(one.pairs)] = one.pairs.T
    contrasts = decision.by_seed(values[1], values[0], scale=decision.LOGARITHMIC)
    decided = decision.decided(contrasts, nothing_random=np.array([one.fixed for one in found]))
    sign = np.sign([one.log_ratio for one in found])
    useful = np.abs([one.log_ratio for one in found]) > math.log(WORTH)
    signs = np.where(decided.apart & useful & (contrasts.sign == sign), sign, 0)
    return [replace(one, decided=int(way)) for one, way in zip(found, signs, strict=True)]


def _ratios_of_excess(pairs: Array, limits: Array, *, fixed: bool) -> list[float]:
    """By place, the ratio of what the errors ``[place, seed, 2]`` have above the limit ``[seed]``;
    NaN unless both rise above their own noise. Errors that are not known are NaN.
    """
    errors = pairs.transpose(0, 2, 1).reshape(-1, len(limits))
    below = np.where(np.isnan(errors), np.nan, limits)
    contrasts = decision.by_seed(below, errors, scale=decision.LINEAR)
    decided = decision.decided(contrasts, np.arange(len(errors)), nothing_random=np.full(len(errors), fixed))
    risen = np.asarray(decided.apart & (contrasts.sign > 0)).reshape(-1, 2)
    known = np.isfinite(pairs[..., 0]) & np.isfinite(pairs[..., 1])
    above = [(own[there] - limits[there, None]).mean(axis=0) for own, there in zip(pairs, known, strict=True)]
    return [float(a / b) if both.all() else math.nan for (a, b), both in zip(above, risen, strict=True)]


def crossings(found: Sequence[Difference]) -> list[float]:
    """Where the difference changes sign between a place where the first is decided to err less and
    one where it errs more.

    Between two places the difference of log errors is linear in the logarithm of the place. Of
    several changes of sign between two told places, noise makes all but one; they are summed up by
    their geometric mean.
    """
    decided = [i for i, one in enumerate(found) if one.decided]
    places = []
    for i, j in itertools.pairwise(decided):
        if found[i].decided != found[j].decided:
            zeros = [z for a, b in zip(found[i:j], found[i + 1 : j + 1], strict=True) if (z := _zero(a, b)) is not None]
            places.append(math.exp(float(np.mean(np.log(zeros)))))
    return places


def _zero(a: Difference, b: Difference) -> float | None:
    """The place between two neighbours at which the difference vanishes."""
    if a.log_ratio * b.log_ratio > 0 or a.log_ratio == b.log_ratio:
        return None
    share = a.log_ratio / (a.log_ratio - b.log_ratio)
    return float(a.at * (b.at / a.at) ** share)


def spans(found: Sequence[Difference], sign: int) -> list[tuple[float, float]]:
    """Stretches of places told this way; one at which nothing can be told does not end a stretch."""
    stretches: list[tuple[float, float]] = []
    fresh = True
    for one in found:
        if one.decided == sign:
            stretches = [*stretches, (one.at, one.at)] if fresh else [*stretches[:-1], (stretches[-1][0], one.at)]
            fresh = False
        elif one.decided:
            fresh = True
    return stretches
