"""What a verdict is, what it is computed from, and how it is put into words.

The kinds of verdicts, by comparisons that the seeds can tell (`comparisons` has the rules and why
they are so):

- `holds`: at least one comparison is told in favour of the claim, and none against it;
- `does not hold`: the other way round;
- `holds in part`: both, or half of what the claim says; its text says where;
- `cannot be told`: all differences are below the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tasks.plain import Spec
from tasks.report.numbers.comparisons import DIVERGED, WORTH, Difference, Run, compare_at_cost, crossings, runs, spans
from tasks.report.numbers.curves import Series, Tabulation
from tasks.report.text import listing, number

HOLDS, PART, FAILS, OPEN = "holds", "holds in part", "does not hold", "cannot be told"
VERDICTS = (HOLDS, PART, FAILS, OPEN)
FEW = 10  # steps, in what the literature says of few


@dataclass(frozen=True)
class Verdict:
    """What a claim comes to on one data set, denoiser and schedule, with the numbers behind it.

    `crossings` are places (NFE, or steps where `unit` says so) at which the better of two becomes
    the worse.
    """

    dataset: str
    metric: str
    series: Series
    compared: str
    verdict: str
    text: str
    unit: str = "nfe"
    crossings: tuple[float, ...] = ()
    comparisons: tuple[Difference, ...] = ()

    @property
    def denoiser(self) -> str:
        """What the page calls the denoiser."""
        return self.series.label

    def as_dict(self) -> Spec:
        """Plain values, as JSON takes them: what is not a number is None."""
        return {
            "dataset": self.dataset,
            "metric": self.metric,
            "formulation": self.series.formulation,
            "schedule": self.series.schedule,
            "compared": self.compared,
            "verdict": self.verdict,
            "text": self.text,
            "crossings": [_plain(place) for place in self.crossings],
            "comparisons": [_as_dict(one, self.unit) for one in self.comparisons],
        }


def _as_dict(one: Difference, unit: str) -> Spec:
    low, high = one.log_ratio - one.half, one.log_ratio + one.half
    return {
        unit: _plain(one.at),
        "against": one.against,
        "error": _plain(one.first),
        "error_against": _plain(one.second),
        "ratio": _plain(_exp(one.log_ratio)),
        "ratio_low": _plain(_exp(low)),
        "ratio_high": _plain(_exp(high)),
        "excess_ratio": _plain(one.excess),
        "told": {-1: "less", 0: "cannot be told", 1: "more"}[one.decided],
    }


def _exp(value: float) -> float:
    return math.exp(value) if value < math.log(DIVERGED) / 2 else math.inf


def _plain(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) and value < DIVERGED else None


@dataclass(frozen=True)
class Evidence:
    """The answers of a study as claims look at them."""

    table: Tabulation
    _runs: dict[str, list[Run]] = field(default_factory=dict, repr=False)
    _points: dict[str, float] = field(default_factory=dict, repr=False)

    def metric(self, dataset: str) -> str | None:
        """The data set's first metric that is better the lower it is."""
        found = [m for m in self.table.metrics_of(dataset) if m not in self.table.higher_is_better]
        return found[0] if found else None

    def runs(self, dataset: str) -> list[Run]:
        """Every sampler on every denoiser, by the first metric."""
        if dataset not in self._runs:
            metric = self.metric(dataset)
            self._runs[dataset] = runs(self.table, dataset, metric) if metric else []
        return self._runs[dataset]

    def own_grid(self, dataset: str, sampler: str) -> list[Run]:
        """The runs of one sampler, one for each denoiser: on the schedule's own grid, or else on
        the first one asked.
        """
        chosen: dict[int, Run] = {}
        for run in self.runs(dataset):
            known = run.series.key in chosen
            if run.rule == sampler and run.plain and (not known or (run.schedule is not None and run.own_grid)):
                chosen[run.series.key] = run
        return list(chosen.values())

    def pairs(self, dataset: str, first: Iterable[str], second: str) -> Iterator[tuple[Run, Run]]:
        """Runs of two samplers on the same denoiser and grid; samplers by their names, of `first`
        with any parameters.
        """
        wanted = set(first)
        known = self.runs(dataset)
        for a in known:
            for b in known:
                if (a.series, a.grid) == (b.series, b.grid) and a.rule in wanted and b.rule == second and b.plain:
                    yield a, b

    def collapsed(self, dataset: str, run: Run) -> set[float]:
        """The step counts, from the fewest on without a gap, at which samples that all lie on the
        mean would score the same.
        """
        point = self.point_mass(dataset)
        found: set[float] = set()
        for i, n in enumerate(run.steps):
            if not (point > 0 and 1 / WORTH <= run.mean(i) / point <= WORTH):  # also where one of them is not known
                break
            found.add(n)
        return found

    def point_mass(self, dataset: str) -> float:
        """The error of samples that all lie on the mean; NaN where it is not known."""
        if dataset not in self._points:
            metric = self.table.known.get(self.metric(dataset) or "")
            self._points[dataset] = self.table.targets[dataset].error_of_its_mean(metric)
        return self._points[dataset]


def verdict_of(favourable: bool, unfavourable: bool) -> str:
    """By whether anything was told in favour of a claim, and anything against it."""
    if favourable:
        return PART if unfavourable else HOLDS
    return FAILS if unfavourable else OPEN


def decided_by(found: Iterable[Difference]) -> str:
    """The verdict on "the first errs less"."""
    signs = {one.decided for one in found}
    return verdict_of(-1 in signs, 1 in signs)


def _where(found: Sequence[Difference], sign: int, unit: str) -> str:
    """``from 9 to 63 NFE, by up to a factor of 6.3 (at 63: 0.0051 against 0.032)``."""
    parts = [f"at {low:g}" if low == high else f"from {low:g} to {high:g}" for low, high in spans(found, sign)]
    most = max((one for one in found if one.decided == sign), key=lambda one: one.times)
    less, more = sorted((most.first, most.second))
    beyond = most.excess if sign > 0 else 1 / most.excess
    beside = f"; {number(beyond, 2)} above the limit of many steps" if beyond > most.times * WORTH else ""
    alone = len(parts) == 1 and parts[0].startswith("at ")
    numbers = f"{'' if alone else f'at {most.at:g}: '}{error_text(less)} against {error_text(more)}{beside}"
    return f"{listing(parts)} {unit}, {factor_text(most, up_to=not alone)} ({numbers})"


def factor_text(one: Difference, *, up_to: bool = False) -> str:
    """``by a factor of 2.1``."""
    if math.isinf(one.times):
        return "without bound"
    return f"by {'up to ' if up_to else ''}a factor of {number(one.times, 2)}"


def error_text(value: float) -> str:
    """An error in three digits."""
    return number(value) if value < DIVERGED else "diverged"


def _range(found: Sequence[Difference], unit: str) -> str:
    first, last = found[0].at, found[-1].at
    return f"at {first:g} {unit}" if first == last else f"from {first:g} to {last:g} {unit}"


def sentence(found: Sequence[Difference], first: str, second: str, unit: str = "NFE") -> str:
    """Who errs less where, by how much, and where they cross."""
    parts = [
        f"{who} errs less {_where(found, sign, unit)}"
        for who, sign in ((first, -1), (second, 1))
        if any(one.decided == sign for one in found)
    ]
    if not parts:
        return f"no difference can be told {_range(found, unit)}."
    places = crossings(found)
    if places:
        parts.append(f"they cross at {listing([number(place, 2) for place in places])} {unit}")
    elif not all(one.decided for one in found):
        parts.append("elsewhere no difference can be told")
    return "; ".join(parts) + "."


def pair(
    evidence: Evidence,
    dataset: str,
    first: Run,
    second: Run,
    kind: Callable[[Sequence[Difference]], str] = decided_by,
    note: Callable[[Sequence[Difference]], str] | None = None,
) -> Iterator[Verdict]:
    """The verdict on two samplers at equal cost, if there is any place at which they can be
    compared.
    """
    found = compare_at_cost(first, second)
    if found:
        yield Verdict(
            dataset,
            evidence.metric(dataset) or "",
            first.series,
            f"{first.name} against {second.name}{on_grid(first)}",
            kind(found),
            sentence(found, first.name, second.name) + (note(found) if note else ""),
            crossings=tuple(crossings(found)),
            comparisons=tuple(found),
        )


def on_grid(run: Run) -> str:
    """The grid, where it is not the schedule's own."""
    return "" if run.own_grid else f", grid {run.grid}"
