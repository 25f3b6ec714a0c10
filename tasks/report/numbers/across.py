"""Who does best across the data sets of a study: wins, and mean ranks paired by seed.

Compared are the curves (a formulation with a sampler) that several data sets have in common, each by
the best mean within a budget of network evaluations, in each data set's first metric. In every data
set and for every seed they are ranked from 1 (values equal but for rounding share their mean rank); a
curve's rank for a seed is the mean over the data sets, and its mean rank that over seeds, with
Student's interval. All curves of one seed have the same start noise, so that ranks are paired. Who
cannot be told apart from the first is decided by the rule of `tasks.statistics.decision` on the
ranks by seed, those ranked being a family. A win is the best mean over seeds in one data set.

The interval is about these data sets: others would be another question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.columns import FORWARD
from tasks.messages import counted
from tasks.report.numbers.curves import Curve, Mean, Panel, Series, Tabulation, values_by_seed
from tasks.report.numbers.equals import equal_pairs, first_of
from tasks.report.text import number, some
from tasks.statistics import decision
from tasks.statistics.intervals import mean_interval

FEW = 10
"""Evaluations of the small budget."""
_Key = tuple[Series, Panel]


@dataclass(frozen=True)
class Standing:
    """One curve across the data sets.

    Args:
        series: Its formulation and schedule.
        panel: Its sampler.
        wins: In how many data sets it has the best mean.
        rank: Its mean rank.
        interval: The 95 % interval of that; None for fewer than three seeds.
        verdict: ``first``, ``tied`` (not told apart from the first), ``behind`` or ``undecided``.
    """

    series: Series
    panel: Panel
    wins: int
    rank: float
    interval: tuple[float, float] | None
    verdict: str

    @property
    def who(self) -> str:
        return f"{self.series.label} with {self.panel.title}"


@dataclass(frozen=True)
class Across:
    """The ranking at one budget.

    Args:
        budget: Network evaluations.
        datasets: What it is over.
        left_out: Data sets that have too few curves in common with these.
        seeds: How many seeds all of them have.
        standings: The best mean rank first.
    """

    budget: int
    datasets: tuple[str, ...]
    left_out: tuple[str, ...]
    seeds: int
    standings: tuple[Standing, ...]

    def sentence(self) -> str:
        """The ranking in words."""
        first, *others = self.standings
        sure = "" if first.interval is None else f" (95 % interval {' to '.join(map(number, first.interval))})"
        text = (
            f"Within {counted(self.budget, 'evaluation')}, over {counted(len(self.datasets), 'data set')} and "
            f"{counted(self.seeds, 'seed')}, {first.who} has the best mean rank of {len(self.standings)}, "
            f"{number(first.rank)}{sure}, and the best mean on {first.wins} of {len(self.datasets)}"
        )
        tied = [one.who for one in others if one.verdict == "tied"]
        undecided = [one.who for one in others if one.verdict == "undecided"]
        if tied:
            text += f"; it cannot be told apart from {some(tied)}"
        if undecided:
            text += f"; whether it is ahead of {some(undecided)} cannot be decided by so few seeds"
        if not tied and not undecided:
            text += "; all others are told apart from it"
        best = max(self.standings, key=lambda one: one.wins)
        if best.wins > first.wins:
            text += f". The most wins has {best.who}: {best.wins}"
        return f"{text}."


def across(table: Tabulation) -> list[Across]:
    """The rankings at a small and at the largest budget; none where no two data sets have two
    curves in common.
    """
    own = {name: _curves_of(table, name) for name in table.datasets}
    names, keys = _common(own)
    if len(names) < 2 or len(keys) < 2:
        return []
    left_out = tuple(name for name in table.datasets if name not in names)
    largest = max(mean.nfe for name in names for key in keys for mean in own[name][key].at)
    found = []
    for budget in sorted({min(FEW, largest), largest}):
        best = {(name, key): _within(table, own[name][key], budget) for name in names for key in keys}
        if all(mean is not None for mean in best.values()):
            one = _ranked(table, names, keys, best, budget, left_out)
            found += [one] if one is not None else []
    return found


def _curves_of(table: Tabulation, dataset: str) -> dict[_Key, Curve]:
    """The curves of a data set's first metric that make samples from noise: trained ones, where
    there are any.
    """
    metrics = table.metrics_of(dataset)
    drawn = table.select(dataset, metrics[0]) if metrics else []
    drawn = [curve for curve in drawn if curve.from_noise and curve.process != FORWARD]
    trained = [curve for curve in drawn if not curve.series.exact] or drawn
    return {(curve.series, curve.panel): curve for curve in trained}


def _common(own: dict[str, dict[_Key, Curve]]) -> tuple[list[str], list[_Key]]:
    """Data sets and the curves that all of them have: as many data sets as keep two curves, those
    with the most curves first.
    """
    names: list[str] = []
    keys: list[_Key] = []
    for name in sorted(own, key=lambda name: -len(own[name])):
        shared = list(own[name]) if not names else [key for key in keys if key in own[name]]
        if len(shared) > 1:
            names, keys = [*names, name], shared
    return [name for name in own if name in names], keys


def _within(table: Tabulation, curve: Curve, budget: int) -> Mean | None:
    higher = curve.metric in table.higher_is_better
    affordable = [mean for mean in curve.at if mean.nfe <= budget and not mean.lost]
    if not affordable:
        return None
    return affordable[first_of([-mean.mean if higher else mean.mean for mean in affordable])]


def _ranked(
    table: Tabulation,
    names: Sequence[str],
    keys: Sequence[_Key],
    best: dict[tuple[str, _Key], Mean | None],
    budget: int,
    left_out: tuple[str, ...],
) -> Across | None:
    means = [mean for mean in best.values() if mean is not None]
    seeds = sorted(set[int].intersection(*(set(mean.seeds) for mean in means)))
    if not seeds:
        return None
    ranks = np.zeros((len(names), len(keys), len(seeds)))
    wins = np.zeros(len(keys), dtype=int)
    for i, name in enumerate(names):
        higher = table.metrics_of(name)[0] in table.higher_is_better
        chosen = [mean for key in keys if (mean := best[name, key]) is not None]
        known = sorted({seed for mean in chosen for seed in mean.seeds})
        values = (-1.0 if higher else 1.0) * values_by_seed(chosen)
        ranks[i] = _ranks(values[:, np.isin(known, seeds)])
        wins[first_of([-mean.mean if higher else mean.mean for mean in chosen])] += 1
    by_seed = ranks.mean(axis=0)
    order = np.argsort(by_seed.mean(axis=1), kind="stable")
    by_seed = by_seed[order]
    found = decision.against_first(by_seed, np.zeros(len(keys), dtype=np.int64))
    standings = []
    for place, i in enumerate(order.tolist()):
        verdict = "behind" if found.apart[place] else "tied" if found.tied[place] else "undecided"
        interval = mean_interval(by_seed[place])
        if interval is not None:  # no rank is beyond these
            interval = max(interval[0], 1.0), min(interval[1], float(len(keys)))
        verdict = "first" if place == 0 else verdict
        series, panel = keys[i]
        standings.append(Standing(series, panel, int(wins[i]), float(by_seed[place].mean()), interval, verdict))
    return Across(budget, tuple(names), left_out, len(seeds), tuple(standings))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 within each column ``[curve, seed]``; values that are equal but for rounding share
    their mean rank.
    """
    same = equal_pairs(values)
    less = ((values[:, None] > values[None]) & ~same).sum(axis=1)
    return np.asarray(less + (same.sum(axis=1) + 1) / 2, dtype=np.float64)
