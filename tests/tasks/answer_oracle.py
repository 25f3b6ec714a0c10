"""The answer's sentences, worked out once more from the rows of a store by numpy and scipy alone, and
held against what the page says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from tasks.report.numbers.answer import answer_of
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.findings import verdicts
from tasks.report.page.frame import missing_points
from tasks.results.models import ModelledAnswers

NEEDS = {
    "network": "the network",
    "discretisation": "the number of steps",
    "prior": "the prior",
    "floor": "the number of samples",
}
LEVEL = 0.05

BySeed = Mapping[int, float]


def sentences(answers: ModelledAnswers) -> dict[str, str]:
    """What the page opens with."""
    table = tabulate(answers)
    name = table.datasets[0]
    made = answer_of(table, verdicts(table, name, table.metrics_of(name)[0]), missing_points(answers, table))
    assert made is not None
    return dict(made.sentences)


@dataclass(frozen=True)
class Mean:
    """One curve at one step count."""

    who: str
    steps: int
    nfe: int
    values: BySeed

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))


def p_value(one: BySeed, other: BySeed) -> tuple[float, int]:
    """Student's p that the two are equal, and whether the second is larger; NaN where no test can be
    made. By logarithms where all are positive and span more than a factor of ten.
    """
    every = [*one.values(), *other.values()]
    log = np.log if min(every) > 0 and max(every) > 10 * min(every) else np.asarray
    shared = sorted(one.keys() & other.keys())
    if len(shared) >= 2:
        x, y = (log(np.array([side[seed] for seed in shared])) for side in (one, other))
        change = y - x
        p = scipy.stats.ttest_rel(y, x).pvalue if np.ptp(change) > 1e-12 * np.abs(change).max() else np.nan
        return float(p), int(np.sign(change.mean()))
    x, y = (log(np.array(list(side.values()))) for side in (one, other))
    p = scipy.stats.ttest_ind(y, x, equal_var=False).pvalue if min(len(x), len(y)) > 1 else np.nan
    return float(p), int(np.sign(y.mean() - x.mean()))


def holm(p: Sequence[float]) -> list[float]:
    """Corrected by Holm's rule, NaN where there was no test."""
    found = [np.nan] * len(p)
    tested = sorted((value, place) for place, value in enumerate(p) if np.isfinite(value))
    reached = 0.0
    for already, (value, place) in enumerate(tested):
        reached = max(reached, value * (len(tested) - already))
        found[place] = min(reached, 1.0)
    return found


def against(first: BySeed, others: Sequence[BySeed], worse: int) -> list[str]:
    """Of each other one: ``apart`` (in the direction that is worse), ``tied`` or ``undecided``."""
    tests = [p_value(first, other) for other in others]
    corrected = holm([p for p, _ in tests])
    return [
        "undecided" if np.isnan(p) else "apart" if p <= LEVEL and sign == worse else "tied"
        for p, (_, sign) in zip(corrected, tests, strict=True)
    ]


def means_of(rows: pd.DataFrame, metric: str) -> list[Mean]:
    """Those that no seed failed to give."""
    found = []
    for key, own in rows.groupby(["formulation", "sampler", "steps"]):
        formulation, sampler, steps = cast("tuple[str, str, int]", key)
        if (own["status"] == "ok").all():
            values = dict(zip(own["seed"].tolist(), own[metric].tolist(), strict=True))
            found.append(Mean(f"{formulation} with {sampler}", steps, int(own["nfe"].iloc[0]), values))
    return found


def champions(means: Iterable[Mean], budget: int) -> list[Mean]:
    """The best of each curve within a budget, the best of all first."""
    best: dict[str, Mean] = {}
    for one in sorted((one for one in means if one.nfe <= budget), key=lambda one: one.mean):
        best.setdefault(one.who, one)
    return list(best.values())


def spoken(text: str) -> float:
    """A number as the page writes it."""
    digits = text.replace("−", "-").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")).replace("×10", "e")
    return float(digits)


NUMBER = r"−?[\d.]+(?:×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?"


def check_who_wins(text: str, rows: pd.DataFrame, metric: str = "w1") -> None:
    """The sentence against the rows of its data set (trained ones)."""
    means = means_of(rows, metric)
    budgets = sorted({one.nfe for one in means})
    winner = {budget: champions(means, budget)[0] for budget in budgets}
    last = winner[budgets[-1]]
    stretch = [budget for budget in budgets if all(winner[b].who == last.who for b in budgets if b >= budget)]
    where = "at every budget asked" if stretch == budgets else f"from {stretch[0]} evaluations on"
    if len(stretch) == 1:
        where = f"from {stretch[0]} evaluations on" if len(budgets) > 1 else f"within {stretch[0]} evaluations"
    found = re.match(
        rf"On (\S+), (.+) has the lowest {metric} {where}: ({NUMBER})(?: ± ({NUMBER}))? in (\d+) eval", text
    )
    assert found, text
    assert (found[1], found[2], int(found[5])) == (rows["dataset"].iloc[0], last.who, last.nfe)
    assert spoken(found[3]) == pytest.approx(last.mean, rel=6e-3)
    if found[4]:
        sem = scipy.stats.sem(list(last.values.values()))
        assert spoken(found[4]) == pytest.approx(sem, rel=6e-2)
    else:
        assert len(last.values) == 1

    # who leads within less
    for start, end, who, mean in re.findall(
        rf"(?:[Ww]ithin|from) (\d+)(?: to (\d+))?(?: evaluations?)? it is (.+?) \(({NUMBER})", text
    ):
        inside = [b for b in budgets if (int(start) if end else 0) <= b <= int(end or start)]
        assert winner[inside[-1]].who == who
        assert spoken(mean) == pytest.approx(winner[inside[-1]].mean, rel=6e-3)
    if len({one.who for one in winner.values()}) > 1:
        assert " it is " in text

    first, *others = champions(means, budgets[-1])
    verdict = dict(
        zip((one.who for one in others), against(first.values, [one.values for one in others], 1), strict=True)
    )
    check_listed(
        text, r"it cannot be told apart from (.+?)[;.]", [who for who, what in verdict.items() if what == "tied"]
    )
    undecided = [who for who, what in verdict.items() if what == "undecided"]
    check_listed(text, r"whether it is ahead of (.+?) cannot be decided", undecided)
    behind = [one for one in others if verdict[one.who] == "apart"]
    told = re.search(
        rf"the nearest, (.+?), has ({NUMBER}) times as much(?: \(95 % interval ({NUMBER}) to ({NUMBER})\))?", text
    )
    assert bool(told) == bool(behind), text
    if told:
        nearest = min(behind, key=lambda one: one.mean)
        shared = sorted(first.values.keys() & nearest.values.keys())
        ratios = np.log([nearest.values[seed] / first.values[seed] for seed in shared])
        assert told[1] == nearest.who
        assert spoken(told[2]) == pytest.approx(np.exp(ratios.mean()), rel=6e-3)
        assert bool(told[3]) == (len(shared) > 2)
        if told[3]:
            ends = scipy.stats.t.interval(0.95, len(shared) - 1, ratios.mean(), scipy.stats.sem(ratios))
            assert (spoken(told[3]), spoken(told[4])) == pytest.approx(tuple(np.exp(ends)), rel=6e-3)


def check_listed(text: str, pattern: str, names: Sequence[str]) -> None:
    """All names, or the first few and how many more."""
    found = re.search(pattern, text)
    assert bool(found) == bool(names), (text, names)
    if found:
        more = re.search(r" and (\d+) more$", found[1])
        listed = re.sub(r" and \d+ more$", "", found[1]).split(", ")
        assert set(listed) <= set(names), (text, names)
        assert len(listed) + (int(more[1]) if more else 0) == len(names)


def check_what_limits(text: str, rows: pd.DataFrame, metric: str = "w1") -> None:
    """The parts of the winner's error, by rows that have them."""
    means = means_of(rows, metric)
    best = champions(means, max(one.nfe for one in means))[0]
    formulation, _, sampler = best.who.partition(" with ")
    own = rows[(rows["formulation"] == formulation) & (rows["sampler"] == sampler) & (rows["steps"] == best.steps)]
    own = own[np.isfinite(own[f"{metric}_network"])]
    if own.empty:
        assert text.startswith(f"What limits {best.who} cannot be told")
        return
    parts = {name: dict(zip(own["seed"].tolist(), own[f"{metric}_{name}"].tolist(), strict=True)) for name in NEEDS}
    mean = {name: float(np.mean(list(values.values()))) for name, values in parts.items()}
    assert sum(mean.values()) == pytest.approx(own[metric].mean())  # they add up to the error
    first, *others = sorted(mean, key=lambda name: -mean[name])
    verdict = dict(zip(others, against(parts[first], [parts[name] for name in others], -1), strict=True))
    tied = [name for name in others if verdict[name] == "tied"]
    rest = [name for name in others if name not in tied]
    found = re.match(rf"What limits {re.escape(best.who)} in {best.steps} steps? most is (.+?)(?:;|\.$)", text)
    assert found, text
    assert found[1].startswith(" or ".join(NEEDS[name] for name in (first, *tied))), (text, mean)
    assert ("do not tell apart" in found[1]) == bool(tied)
    amounts = re.search(rf"({NUMBER}) of ({NUMBER})", found[1])
    assert amounts
    assert (spoken(amounts[1]), spoken(amounts[2])) == pytest.approx((mean[first], best.mean), rel=6e-3)
    nothing = {name: dict.fromkeys(parts[name], 0.0) for name in rest}
    tests = [p_value_linear(nothing[name], parts[name]) for name in rest]
    corrected = holm([p for p, _ in tests])
    constant = [len(parts[name]) > 1 and len(set(parts[name].values())) == 1 and mean[name] != 0 for name in rest]
    there = [
        name
        for name, p, (_, sign), fact in zip(rest, corrected, tests, constant, strict=True)
        if sign > 0 and (fact or p <= LEVEL)
    ]
    for name in rest:
        assert (f"{NEEDS[name]} (" in text.partition("; then come")[2]) == (name in there), (name, text, parts)
    untold = text.partition("; that ")[2]
    assert {name for name in rest if NEEDS[name] in untold} == set(rest) - set(there)


def p_value_linear(one: BySeed, other: BySeed) -> tuple[float, int]:
    """Without logarithms: parts of an error may be negative."""
    change = np.array([other[seed] - one[seed] for seed in sorted(one)])
    if len(change) < 2 or np.ptp(change) <= 1e-12 * np.abs(change).max():
        return np.nan, int(np.sign(change.mean()))
    return float(scipy.stats.ttest_1samp(change, 0.0).pvalue), int(np.sign(change.mean()))


def check_what_failed(text: str, table: pd.DataFrame, asked: int) -> None:
    """Of the whole study, whose rows these are."""
    failed, missing = table[table["status"] == "failed"], asked - len(table)
    skipped = int((table["status"] == "skipped").sum())
    if failed.empty and not missing and not skipped:
        assert text.startswith(f"Nothing failed: all {len(table)} points have an answer")
        return
    assert text.startswith(f"Of {asked} points, ")
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (failed|could not be asked|are not computed yet)", text)}
    expected = {"failed": len(failed), "could not be asked": skipped, "are not computed yet": missing}
    assert counts == {word: n for word, n in expected.items() if n}
    if not failed.empty:
        reason = failed["error"].value_counts().index[0]
        assert reason[:80] in text


def hold_to_its_rows(answers: ModelledAnswers, metric: str = "w1") -> dict[str, str]:
    """All three sentences of a store against its rows; the sentences."""
    table = answers.points.to_dataframe().reset_index()
    said = sentences(answers)
    dataset = tabulate(answers).datasets[0]
    trained = table[(table["dataset"] == dataset) & (table["formulation"] != "exact")]
    check_who_wins(said["Who wins"], trained, metric)
    check_what_limits(said["What limits it"], trained, metric)
    check_what_failed(said["What failed"], table, len(answers.asked(str(answers.name))))
    return said
