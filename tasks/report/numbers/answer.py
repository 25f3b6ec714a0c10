"""The answer of a study in three sentences, made from its numbers: who wins within which budget, by
how much and how surely; what limits the winner; what failed.

They are about the first data set and its first metric. Who is told apart from whom is decided by
the rule of `tasks.statistics.decision` and nothing else. Of the winner's parts of the error, the
largest is compared with the others as the first of a ranking is, and each of the others with
nothing; both are families of tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.columns import FORWARD
from tasks.messages import counted
from tasks.report.numbers import decomposition
from tasks.report.numbers.curves import Curve, Mean, Tabulation, values_by_seed
from tasks.report.numbers.decomposition import FLOOR, Split
from tasks.report.numbers.findings import Best, Verdicts, failures
from tasks.report.text import capital, listing, number, plus_minus, some
from tasks.statistics import decision

LIMITS = {
    "network": "the network",
    "discretisation": "the number of steps",
    "prior": "the prior",
    FLOOR: "the number of samples",
}
"""What a part of an error says has to be better."""


@dataclass(frozen=True)
class Answer:
    """What the page opens with.

    Args:
        dataset: Of which data set.
        metric: Of which metric.
        winners: The curves that are best at some budget, that of the largest first.
        sentences: What each is about, and the sentence.
    """

    dataset: str
    metric: str
    winners: tuple[Curve, ...]
    sentences: tuple[tuple[str, str], ...]


def answer_of(table: Tabulation, found: Verdicts | None, missing: int) -> Answer | None:
    """The answer of the first data set.

    Args:
        table: The answers as curves.
        found: The findings of the first data set and its first metric; None where there is none.
        missing: How many points the study asks that nobody has answered yet.

    Returns:
        None where nothing was asked.
    """
    if not table.datasets and not missing:
        return None
    if found is None:
        return Answer("", "", (), (("What failed", what_failed(table, None, missing)),))
    runs = _runs(found.best)
    winners = tuple(dict.fromkeys(run[-1].curve for run in reversed(runs)))
    sentences = [("Who wins", who_wins(table, found, runs, missing))]
    if runs:
        sentences.append(("What limits it", what_limits(table, found, runs[-1][-1])))
    sentences.append(("What failed", what_failed(table, found, missing)))
    return Answer(found.dataset, found.metric, winners, tuple(sentences))


def _runs(best: Sequence[Best]) -> list[list[Best]]:
    """Stretches of budgets with the same winner."""
    return [list(run) for _, run in itertools.groupby(best, key=lambda one: one.who)]


def who_wins(table: Tabulation, found: Verdicts, runs: Sequence[Sequence[Best]], missing: int = 0) -> str:
    """The winner at the largest budget, how far ahead it is and how surely; then those of smaller
    budgets.
    """
    on = table.short(found.dataset)
    if not runs:
        if all(row.process == FORWARD for row in table.points if row.dataset == found.dataset):
            there = "nothing answered so far" if missing else "nothing there"
            return f"On {on} nothing is ranked: {there} makes samples from noise."
        return f"On {on} nothing can be ranked yet: no point has an answer that every seed gave."
    last, best = runs[-1], runs[-1][-1]
    looked = sum(map(len, runs))
    lowest = "highest" if found.metric in table.higher_is_better else "lowest"
    where = _budgets(last[0].budget, last[-1].budget, from_the_first=len(runs) == 1, final=True)
    if looked < best.costs:
        where = where.replace("every budget asked", "every budget looked at")
    value = plus_minus(best.at.mean, best.at.sem)
    text = (
        f"On {on}, {best.who} has the {lowest} {found.metric} {where}: {value} in {counted(best.at.nfe, 'evaluation')}"
    )
    text += f"{_how_surely(best, alone=len(last) == 1)}."
    others = [
        f"{_budgets(run[0].budget, run[-1].budget, from_the_first=run is runs[0], final=False)} it is {run[-1].who} "
        f"({number(run[-1].at.mean)}{_unsure(run)})"
        for run in runs[:-1]
    ]
    if others:
        shown = others if len(others) <= 2 else [others[0], others[-1]]
        text += f" {capital('; '.join(shown))}{_between(runs)}."
    if looked < best.costs:
        text += f" {looked} of the {best.costs:,} budgets were looked at."
    return text


def _unsure(run: Sequence[Best]) -> str:
    """What the seeds leave open of those who lead at smaller budgets."""
    open_ = [one for one in run if one.ties or one.undecided]
    if not open_:
        return ""
    always = "always " if len(open_) < len(run) else ""
    return f", not {always}{'told apart from' if any(one.ties for one in open_) else 'decided against'} others"


def _between(runs: Sequence[Sequence[Best]]) -> str:
    """Who leads between the first and the last of the smaller budgets."""
    if not runs[1:-2]:
        return ""
    told = {runs[i][-1].who for i in (0, -2, -1)}
    names = [who for who in dict.fromkeys(run[-1].who for run in runs[1:-2]) if who not in told]
    return f"; between them {f'others lead: {some(names, 2)}' if names else 'the lead changes'}"


def _how_surely(best: Best, *, alone: bool) -> str:
    """What the seeds say of all others at the largest budget; `alone` is one that wins at no other."""
    if not (best.ties or best.undecided or best.lead):
        return ", with nothing else to compare it with"
    parts = []
    if best.ties:
        parts.append(f"it cannot be told apart from {some(best.ties, 3)}")
    if best.undecided:
        parts.append(f"whether it is ahead of {some(best.undecided, 3)} cannot be decided by so few seeds")
    if best.lead:
        others = (
            "of those that are told apart from it, the nearest"
            if parts
            else "every other one is told apart from it; the nearest"
        )
        parts.append(f"{others}, {best.lead.who}, {best.lead.amount()}")
    return f"; {'' if alone else 'at the largest budget '}{'; '.join(parts)}"


def _budgets(first: int, last: int, *, from_the_first: bool, final: bool) -> str:
    """``at every budget asked``, ``from 20 evaluations on``, ``within 8 evaluations``, ``from 4 to
    18``.
    """
    if from_the_first and final:
        return "at every budget asked" if first < last else f"within {counted(last, 'evaluation')}"
    if final:
        return f"from {counted(first, 'evaluation')} on"
    if from_the_first:
        return f"within {counted(last, 'evaluation')}"
    return f"from {first} to {last}" if first < last else f"within {last}"


def what_limits(table: Tabulation, found: Verdicts, best: Best) -> str:
    """The largest part of the winner's error where it is best, and which others are known to be
    there. Of a metric that is better the higher it is, parts are what is lost to perfect samples.
    """
    split = _split_of(table, found, best)
    if split is None:
        exact = any(curve.series.exact for curve in table.select(found.dataset, found.metric))
        why = "the same question to the exact denoiser and its limit of many steps are lacking"
        if not exact:
            why = "that takes the exact denoiser’s answers (the formulation “exact”)"
        return f"What limits {best.who} cannot be told: {why}."
    parts, shown = split
    higher = found.metric in table.higher_is_better
    shown = tuple(part for part in shown if part != FLOOR) if higher else shown
    sign = -1.0 if higher else 1.0
    values = sign * values_by_seed([parts.parts[part] for part in shown])
    means = [sign * parts.parts[part].mean for part in shown]
    fixed = table.nothing_random(best.curve.panel.sampler, best.curve.series)
    first, *others = sorted(range(len(shown)), key=lambda i: -means[i])
    where = f"{best.who} in {counted(parts.steps, 'step')}"
    if means[first] <= 0:
        return f"Nothing limits {where}: on {found.metric} it is as good as perfect samples ({number(parts.parts[FLOOR].mean)})."
    ranked = decision.against_first(
        values, np.full(len(shown), first), more_is_better=True, nothing_random=np.full(len(shown), fixed)
    )
    beside = [i for i in others if ranked.tied[i]]
    rest = [i for i in others if i not in beside]
    present = _told_from_nothing(values[rest], fixed=fixed)
    amount = f"{number(means[first])} of {number(parts.total.mean)}"
    if higher:
        amount = f"it takes {number(means[first])} off the {number(parts.parts[FLOOR].mean)} of perfect samples"
    if beside:
        limits = " or ".join(LIMITS[shown[i]] for i in (first, *beside))
        text = f"What limits {where} most is {limits}, which the seeds do not tell apart (the first: {amount})"
    else:
        unsure = ", as far as so few seeds can say" if ranked.unknown[others].any() else ""
        text = f"What limits {where} most is {LIMITS[shown[first]]} ({amount}{unsure})"
    there = [f"{LIMITS[shown[i]]} ({number(means[i])})" for i, known in zip(rest, present, strict=True) if known]
    nothing = [LIMITS[shown[i]] for i, known in zip(rest, present, strict=True) if not known]
    if there:
        text += f"; then {'comes' if len(there) == 1 else 'come'} {listing(there)}"
    if nothing:
        text += f"; that {listing(nothing)} {'limits' if len(nothing) == 1 else 'limit'} it at all cannot be told"
    return f"{text}."


def _told_from_nothing(values: NDArray[np.float64], *, fixed: bool) -> list[bool]:
    """Which parts ``[part, seed]`` are more than nothing; one that is the same for all seeds (the
    floor) is what it is.
    """
    if not len(values):
        return []
    contrasts = decision.by_seed(np.where(np.isfinite(values), 0.0, np.nan), values, scale=decision.LINEAR)
    constant = np.array([np.ptp(row[np.isfinite(row)]) == 0 and np.isfinite(row).sum() > 1 for row in values])
    found = decision.decided(contrasts, nothing_random=constant | fixed)
    return [bool(apart and sign > 0) for apart, sign in zip(found.apart, contrasts.sign, strict=True)]


def _split_of(table: Tabulation, found: Verdicts, best: Best) -> tuple[Split, tuple[str, ...]] | None:
    """The parts of the winner's error, and which it can have; None where it is not split."""
    for origin in decomposition.origins(table, found.dataset, found.metric):
        if (origin.panel, origin.series) == (best.curve.panel, best.curve.series):
            for split in origin.at:
                if split.steps == best.at.steps:
                    return split, origin.shown
    return None


def what_failed(table: Tabulation, found: Verdicts | None, missing: int) -> str:
    """Points that failed, that were skipped and that are missing; and samples that ran away."""
    asked = len(table.points) + missing
    parts = []
    for status, words in (("failed", "failed"), ("skipped", "could not be asked")):
        groups = [one for one in failures(table) if one.status == status]
        if groups:
            more = f", and {counted(len(groups) - 1, 'more reason')}" if len(groups) > 1 else ""
            parts.append(f"{sum(one.count for one in groups):,} {words} ({_short(groups[0].reason)}{more})")
    if missing:
        parts.append(f"{missing:,} {'is' if missing == 1 else 'are'} not computed yet")
    if parts:
        text = f"Of {counted(asked, 'point')}, {listing(parts)}"
    else:
        text = f"Nothing failed: {'the one point has' if asked == 1 else f'all {asked:,} points have'} an answer"
    if found is not None and found.beyond:
        names = [_where(one.curve, one.at) for one in found.beyond]
        text += f"; on {table.short(found.dataset)} the samples of {some(names, 3)} ran away from the data"
    return f"{text}."


def _where(curve: Curve, at: Sequence[Mean]) -> str:
    steps = ", ".join(str(mean.steps) for mean in at[:4]) + (", …" if len(at) > 4 else "")
    return f"{curve.series.label} with {curve.panel.title} (N = {steps})"


def _short(reason: str, most: int = 90) -> str:
    reason = reason.strip().rstrip(".")
    return reason if len(reason) <= most else f"{reason[: most - 1].rstrip()}…"
