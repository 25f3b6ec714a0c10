"""What the numbers say, as computed sentences: nobody has to read a figure to learn the result.

*Near.* Whether a trained curve lies near its exact one is the matter of `nearness`.

*Best.* What makes samples from noise is ranked by itself, and so is what restores them from an
observation and what sets out from data: whoever knows more errs less. What goes from the data to
the noise asks no model and is measured against another distribution: it is not ranked, and neither
is a mean over the seeds that did not fail. Who ties with the best at a budget is decided by the
rule of `tasks.statistics.decision`, those ranked being a family.

*Beyond.* Samples that all lie on the target's mean have some error. One a hundred times as large
says that samples left the data altogether, whatever comes of it at other step counts: `Beyond`
lists such answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.columns import FORWARD
from tasks.messages import counted
from tasks.report.numbers.curves import values_by_seed
from tasks.report.numbers.equals import equal_to, first_of
from tasks.report.numbers.leads import Lead, lead
from tasks.report.numbers.nearness import FACTOR, Nearness, Ratio, within
from tasks.report.text import number, plus_minus, some
from tasks.statistics import decision

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.report.lookup.points import Row
    from tasks.report.numbers.curves import Curve, Mean, Panel, Series, Tabulation

MOST_BUDGETS = 14
BEYOND = 100.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the list: ``near``, ``far`` or ``unknown``; which panels; what."""

    kind: str
    panels: str
    text: str


@dataclass(frozen=True, slots=True)
class Best:
    """The best answer that costs at most `budget` network evaluations.

    `ties` are those that are not told apart from it, `undecided` those of whom the seeds cannot
    say; `lead` is that over the best of the others. `costs` is how many budgets there are: where
    they are many, some are not looked at.
    """

    budget: int
    curve: Curve
    at: Mean
    ties: tuple[str, ...]
    undecided: tuple[str, ...] = ()
    lead: Lead | None = None
    costs: int = 1

    @property
    def who(self) -> str:
        return f"{self.curve.series.label} with {self.curve.panel.title}"


@dataclass(frozen=True, slots=True)
class Beyond:
    """The answers of one curve that are beyond the data."""

    curve: Curve
    at: tuple[Mean, ...]
    point: float

    def sentence(self) -> str:
        """For example ``ve with heun: w1 4.2e4 at N = 5, and 2 more step counts``."""
        worst = max(self.at, key=lambda mean: mean.mean)
        more = f", and beyond at {counted(len(self.at) - 1, 'more step count')}" if len(self.at) > 1 else ""
        return (
            f"{self.curve.series.label} with {self.curve.panel.title}: {self.curve.metric} {number(worst.mean)} "
            f"at N = {worst.steps}{more}"
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """All points that did not answer for one reason."""

    status: str
    reason: str
    points: tuple[Row, ...]

    @property
    def count(self) -> int:
        """How many points they are."""
        return len(self.points)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The findings of one dataset and metric."""

    dataset: str
    metric: str
    rankings: tuple[tuple[str, tuple[Best, ...]], ...]
    nearness: tuple[Nearness, ...]
    beyond: tuple[Beyond, ...] = ()

    @property
    def best(self) -> tuple[Best, ...]:
        """The first ranking: of what makes samples from noise, where there is any."""
        return self.rankings[0][1] if self.rankings else ()

    def ranked(self) -> list[tuple[str, list[str]]]:
        """Every ranking: what it is of, and one sentence per run of budgets with the same winner."""
        return [(what, self._sentences(ranking)) for what, ranking in self.rankings]

    def _sentences(self, ranking: Sequence[Best]) -> list[str]:
        runs: list[list[Best]] = []
        for best in ranking:
            if runs and runs[-1][-1].who == best.who:
                runs[-1].append(best)
            else:
                runs.append([best])
        sentences = []
        for run in runs:
            first, last = run[0], run[-1]
            budget = f"{first.budget}" if len(run) == 1 else f"{first.budget} to {last.budget}"
            from_ = (
                ""
                if first.at == last.at
                else f"from {plus_minus(first.at.mean, first.at.sem)} at N = {first.at.steps} to "
            )
            ties = f"; not told apart from {some(last.ties)}" if last.ties else ""
            if last.undecided:
                ties += f"; undecided against {some(last.undecided)}"
            sentences.append(
                f"Budget of {budget} evaluation{'' if budget == '1' else 's'}: best is {last.who}, "
                f"{self.metric} {from_}{plus_minus(last.at.mean, last.at.sem)} at N = {last.at.steps} "
                f"({last.at.nfe} NFE){ties}."
            )
        return sentences

    @property
    def lines(self) -> int:
        """How many lines `by_series` has."""
        return sum(len(lines) for _, lines in self.by_series())

    def tally(self) -> str:
        """How many curves lie near their exact ones: at every N, from some N on, or not at the
        largest.
        """
        compared = [one for one in self.nearness if one.ratios]
        everywhere = sum(one.near_everywhere for one in compared)
        later = sum(one.near_from is not None for one in compared) - everywhere
        return (
            f"{counted(len(compared), 'curve')}: {everywhere} near at every N, {later} near from some N on, "
            f"{len(compared) - everywhere - later} not near at the largest N"
        )

    def by_series(self) -> list[tuple[Series, list[Line]]]:
        """For each trained series its lines; panels with nothing to tell apart share one."""
        found: dict[int, tuple[Series, list[Nearness]]] = {}
        for one in self.nearness:
            found.setdefault(one.curve.series.key, (one.curve.series, []))[1].append(one)
        return [(series, _lines(ones)) for series, ones in found.values()]


def _lines(ones: Sequence[Nearness]) -> list[Line]:
    near = [one for one in ones if one.near_everywhere]
    unknown = [one for one in ones if not one.ratios]
    lines = [
        Line("unknown" if {r.verdict for r in one.away} == {"unsure"} else "far", one.curve.panel.title, one.sentence())
        for one in ones
        if one.away
    ]
    if near:
        ratios = [one.largest for one in near if math.isfinite(one.largest)]
        lines.append(Line("near", _titles(near), within(max(ratios, default=math.nan), "at every N asked")))
    if unknown:
        lines.append(Line("unknown", _titles(unknown), unknown[0].sentence()))
    return lines


def _titles(ones: Sequence[Nearness]) -> str:
    return ", ".join(one.curve.panel.title for one in ones)


def verdicts(table: Tabulation, dataset: str, metric: str, point_mass: float = math.nan) -> Verdicts:
    """Best per budget and nearness to exact, for one dataset and metric; `point_mass` is the error
    of samples at the mean.
    """
    curves = table.select(dataset, metric)
    higher = metric in table.higher_is_better
    trained = [curve for curve in curves if not curve.series.exact]
    exact = {(curve.panel, curve.series.schedule): curve for curve in curves if curve.series.exact}
    nearness = []
    for curve in trained:
        allowance = 0.0 if higher else table.floor(dataset, metric, curve.panel, curve.series) or 0.0
        reference = exact.get((curve.panel, curve.series.schedule))
        nearness.append(Nearness(curve, _ratios(curve, reference, allowance, higher=higher)))
    return Verdicts(
        dataset,
        metric,
        tuple(_rankings(table, trained or curves, higher=higher)),
        tuple(nearness),
        () if higher else tuple(_beyond(curves, point_mass)),
    )


def _rankings(table: Tabulation, curves: Sequence[Curve], *, higher: bool) -> Iterable[tuple[str, tuple[Best, ...]]]:
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        if curve.process != FORWARD:
            groups.setdefault("" if curve.from_noise else curve.start, []).append(curve)
    for start in sorted(groups):
        suffix = f", from {start}" if start else ""
        yield f"Best at each budget{suffix}", tuple(_best(table, groups[start], higher=higher))


def _beyond(curves: Sequence[Curve], point_mass: float) -> Iterable[Beyond]:
    for curve in curves:
        if curve.process != FORWARD:
            found = tuple(mean for mean in curve.at if mean.mean > BEYOND * point_mass > 0)
            if found:
                yield Beyond(curve, found, point_mass)


def failures(table: Tabulation) -> list[Failure]:
    """Every point that did not answer, grouped by status and reason, the most frequent first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for point in table.points:
        if point.status != "ok":
            groups.setdefault((point.status, point.error or "no reason was recorded"), []).append(point)
    found = [Failure(status, reason, tuple(points)) for (status, reason), points in groups.items()]
    return sorted(found, key=lambda failure: (failure.status, -len(failure.points)))


def not_numbers(table: Tabulation) -> list[tuple[Row, list[str]]]:
    """Rows that claim to be ``ok`` although a metric is not a finite number: always a bug, and
    always shown.

    A metric that does not apply to a row (it compares with what was restored, and nothing was) has
    no floor there either.
    """
    found = []
    requested = {dataset: table.metrics_of(dataset) for dataset in table.datasets}
    for point in table.points:
        wrong = [
            metric
            for metric in requested[point.dataset]
            if not math.isfinite(point.values[metric])
            and (math.isinf(point.values[metric]) or math.isfinite(point.floor(metric)))
        ]
        if point.status == "ok" and wrong:
            found.append((point, wrong))
    return found


def _ratios(curve: Curve, exact: Curve | None, floor: float, *, higher: bool) -> tuple[Ratio, ...]:
    """The trained means against the exact ones at the step counts of both, which are one family of
    tests.
    """
    reference = {} if exact is None else exact.by_steps()
    pairs = [(mean, reference[mean.steps]) for mean in curve.at if mean.steps in reference]
    if not pairs:
        return ()
    allowed = np.array([(FACTOR - 1) * min(abs(x.mean), abs(e.mean)) + floor for x, e in pairs])
    values = values_by_seed([mean for pair in pairs for mean in pair])
    contrasts = decision.by_seed(values[1::2], values[::2], margin=allowed)
    away = np.array([abs(x.mean - e.mean) for x, e in pairs]) > allowed
    decided = decision.decided(contrasts, np.where(away, 0, 1))
    words = ["better" if (x.mean > e.mean) == higher else "worse" for x, e in pairs]
    return tuple(
        Ratio(x, e, "near" if not far else word if apart else "unsure")
        for (x, e), far, word, apart in zip(pairs, away, words, decided.apart, strict=True)
    )


def _best(table: Tabulation, curves: Sequence[Curve], *, higher: bool) -> Iterable[Best]:
    sign = -1.0 if higher else 1.0
    costs = sorted({mean.nfe for curve in curves for mean in curve.at if not mean.lost})
    for budget in thin(costs, MOST_BUDGETS):
        champions = []
        for curve in curves:
            affordable = [mean for mean in curve.at if mean.nfe <= budget and not mean.lost]
            if affordable:
                champions.append((curve, affordable[first_of([sign * mean.mean for mean in affordable])]))
        means = [sign * mean.mean for _, mean in champions]
        first = first_of(means)
        fixed = np.array([table.nothing_random(curve.panel.sampler, curve.series) for curve, _ in champions])
        values = values_by_seed([mean for _, mean in champions])
        same = equal_to(values, first)
        values, leads = np.where(same[:, None], values[first], values), np.full(len(champions), first)
        found = decision.against_first(values, leads, more_is_better=higher, nothing_random=fixed)
        names = [f"{curve.series.label} with {curve.panel.title}" for curve, _ in champions]
        ties, undecided = (
            tuple(name for i, name in enumerate(names) if i != first and which[i])
            for which in (found.tied | same, found.unknown & ~same)
        )
        behind = [i for i in np.flatnonzero(found.apart).tolist() if i != first]
        nearest = behind[first_of([means[i] for i in behind])] if behind else None
        ahead = (
            None
            if nearest is None
            else lead(names[nearest], values[first], values[nearest], fixed=bool(fixed[first] and fixed[nearest]))
        )
        yield Best(budget, *champions[first], ties, undecided, ahead, len(costs))


def thin(values: Sequence[int], most: int) -> list[int]:
    """At most `most` of ascending values, first and last included, about evenly spaced in the
    logarithm.
    """
    if len(values) <= most:
        return list(values)
    low, high = math.log(max(values[0], 1)), math.log(max(values[-1], 1))
    wanted = [low + (high - low) * i / (most - 1) for i in range(most)]
    return sorted({min(values, key=lambda v: abs(math.log(max(v, 1)) - w)) for w in wanted})


def panels_of(nearness: Iterable[Nearness]) -> list[Panel]:
    """The panels that occur, in order."""
    return list(dict.fromkeys(one.curve.panel for one in nearness))
