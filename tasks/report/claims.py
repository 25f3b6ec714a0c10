"""What the literature says of samplers and formulations, weighed on the numbers of a study.

A verdict is about one data set, one denoiser (exact, or a trained formulation) on one schedule, and the data set's first metric:
`holds`, `does not hold`, `holds in part` or `cannot be told`, by the rules of `evidence` and `comparisons`. A claim whose rows the
study does not have is not asked, and has none.

Claims about few steps mean N <= 10 (`FEW`). An error within 5 % of that of a single point at the target's mean, from the
fewest steps on, is a collapse: one step of a good sampler leaves exactly that, and no credit is given for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffusion.schedules import Schedule
from tasks.report.comparisons import Comparison, Run, compare_at_steps, compared, crossings
from tasks.report.curves import Table, tabulate
from tasks.report.evidence import (
    FAILS,
    HOLDS,
    OPEN,
    PART,
    VERDICTS,
    Evidence,
    Verdict,
    base,
    error_text,
    on_grid,
    pair,
    sentence,
    told_by,
    verdict_of,
)
from tasks.report.text import number, some

if TYPE_CHECKING:
    import xarray as xr

FEW = 10
AT_MOST = 3
_APART = 10.0  # between the noise at a schedule's ends
SAME = 1e-6  # relative; what rounding leaves of two ways to write one rule
STOCHASTIC = ("churn", "ancestral", "dpmpp-2m-sde", "euler-maruyama")
_WITHOUT_NOISE = {
    "churn": ("heun", "ddim"),
    "ancestral": ("ddim", "heun"),
    "dpmpp-2m-sde": ("dpmpp-2m", "heun", "ddim"),
    "euler-maruyama": ("euler", "ddim", "heun"),
}


@dataclass(frozen=True)
class Claim:
    """A sentence of the literature; `needs` is what a study must ask for it to be weighed."""

    key: str
    text: str
    source: str
    needs: str
    weigh: Callable[[Evidence, str], Iterable[Verdict]]


@dataclass(frozen=True)
class Weighed:
    """A claim with its verdicts, in the order of the study."""

    claim: Claim
    verdicts: tuple[Verdict, ...]

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many verdicts of each kind there are, without the kinds that do not occur."""
        found = {kind: sum(one.verdict == kind for one in self.verdicts) for kind in VERDICTS}
        return {kind: count for kind, count in found.items() if count}


def weigh(table: Table, study: Mapping[str, Any]) -> list[Weighed]:
    """Every claim on every data set; those that the study did not ask have no verdicts."""
    evidence = Evidence(table, study)
    return [
        Weighed(claim, tuple(verdict for dataset in table.datasets for verdict in claim.weigh(evidence, dataset)))
        for claim in CLAIMS
    ]


def claims(points: xr.Dataset, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every claim as plain values: `claim`, `text`, `source`, `needs`, `asked`, and a list of `verdicts`.

    A verdict has `dataset`, `metric`, `formulation` (``exact`` for the exact denoiser), `schedule`, `compared`, `verdict`, `text`,
    `crossings` and `comparisons`.
    """
    return [
        {
            "claim": one.claim.key,
            "text": one.claim.text,
            "source": one.claim.source,
            "needs": one.claim.needs,
            "asked": bool(one.verdicts),
            "verdicts": [verdict.as_dict() for verdict in one.verdicts],
        }
        for one in weigh(tabulate(points, study), study)
    ]


def _second_order(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    for first, second in evidence.pairs(dataset, ["heun"], "euler"):
        yield from pair(evidence, dataset, first, second)


def _multistep(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    for single in ("heun", "ddim"):
        for first, second in evidence.pairs(dataset, ["dpmpp-2m"], single):
            yield from pair(evidence, dataset, first, second)


def _variances(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    known = [run for run in evidence.runs(dataset) if base(run.sampler) == "ancestral"]
    large = [run for run in known if "variance=transition" in run.sampler]
    for first in known:
        for second in large:
            if first not in large and (first.series, first.grid) == (second.series, second.grid):
                found = compare_at_steps(first, second, evidence.floor(dataset, first.sampler, second.sampler))
                few, many = [one for one in found if one.at <= FEW], [one for one in found if one.at > FEW]
                if few and many:
                    yield Verdict(
                        dataset,
                        evidence.metric(dataset) or "",
                        first.series,
                        f"posterior against transition{on_grid(evidence, first)}",
                        _fades(few, many[-1]),
                        sentence(found, "posterior", "transition", "steps"),
                        "steps",
                        tuple(crossings(found)),
                        tuple(found),
                    )


def _fades(few: Sequence[Comparison], last: Comparison) -> str:
    """Whether a difference at few steps is gone at the last: in part, if it has shrunk by half on the logarithmic scale."""
    most = max((abs(one.log_ratio) for one in few if one.told), default=0.0)
    if not last.told:
        return HOLDS if most else OPEN
    return PART if abs(last.log_ratio) <= most / 2 else FAILS


def straight(schedule: Schedule) -> bool:
    """Whether alpha and sigma are linear in t, so that a step in t and a step in sigma/alpha are the same move."""
    t = torch.linspace(schedule.t_min, schedule.t_max, 9, dtype=torch.float64)
    bends = [float(torch.diff(value, n=2).abs().max()) for value in (schedule.alpha(t), schedule.sigma(t))]
    return max(bends) <= SAME * max(1.0, float(schedule.sigma(t).max()))


def _ddim(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    for ddim, euler in evidence.pairs(dataset, ["ddim"], "euler"):
        if ddim.sampler != "ddim":
            continue
        schedule = evidence.schedule(ddim.series.schedule)
        expected = schedule is not None and straight(schedule)
        apart = _farthest(ddim, euler)
        if not (expected or apart <= SAME):
            yield from pair(evidence, dataset, ddim, euler)
        elif math.isfinite(apart):
            same = apart <= SAME
            yield Verdict(
                dataset,
                evidence.metric(dataset) or "",
                ddim.series,
                f"ddim against euler{on_grid(evidence, ddim)}",
                HOLDS if same else FAILS,
                f"one rule here: at every N they differ by at most {number(apart, 1)} of the value."
                if same
                else f"alpha and sigma are linear in t, and yet the two differ by up to {100 * apart:.2g} %.",
                "steps",
                comparisons=tuple(compare_at_steps(ddim, euler, evidence.floor(dataset, "ddim", "euler"))),
            )


def _farthest(first: Run, second: Run) -> float:
    """The largest relative difference at any step count and seed that both have; NaN if there is none."""
    pairs = [
        (first.at_steps(n, seed), second.at_steps(n, seed))
        for seed in first.errors
        if seed in second.errors
        for n in first.steps
    ]
    return max((abs(a / b - 1) for a, b in pairs if math.isfinite(a) and math.isfinite(b)), default=math.nan)


def _straight_paths(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    for sampler in ("euler", "ddim"):
        known = evidence.own_grid(dataset, sampler)
        for first in known:
            if base(first.series.schedule) != "flow":
                continue
            rivals = [
                run for run in known if run.series.exact == first.series.exact and base(run.series.schedule) != "flow"
            ]
            floor = evidence.floor(dataset, sampler)
            found = [one for run in rivals for one in _against(first, run, floor) if one.at <= AT_MOST]
            if found:
                yield _few_steps(evidence, dataset, sampler, first, found)


def _against(first: Run, second: Run, floor: float) -> list[Comparison]:
    """At equal steps, the second by its name beside other schedules."""
    return [replace(one, against=_short(second)) for one in compare_at_steps(first, second, floor)]


def _short(run: Run) -> str:
    """What tells a run from others of the same kind: its schedule, if the denoiser is exact."""
    return run.series.label.removeprefix("exact on ")


def _few_steps(evidence: Evidence, dataset: str, sampler: str, first: Run, found: Sequence[Comparison]) -> Verdict:
    parts, counted = [], []
    collapsed = evidence.collapsed(dataset, first)
    for n in sorted({one.at for one in found}):
        here = sorted((one for one in found if one.at == n), key=lambda one: one.second)
        told = f"N = {n:g}: {error_text(here[0].first)}"
        if n in collapsed:
            parts.append(
                f"{told}, a collapse: samples that all lie on the mean score {number(evidence.point_mass(dataset))}"
            )
        elif n == 1 and len(here) > 1 and not any(one.told for one in here):
            parts.append(f"{told}, like every other schedule")
        else:
            counted += here
            groups = [
                (word, [f"{o.against} {error_text(o.second)}" for o in here if o.told == t]) for t, word in _BESIDE
            ]
            parts.append(f"{told} ({'; '.join(f'{word}: {some(names)}' for word, names in groups if names)})")
    kind = told_by(counted) if counted else FAILS if collapsed else OPEN
    return Verdict(
        dataset,
        evidence.metric(dataset) or "",
        first.series,
        f"with {sampler}, against {_names(found)}",
        PART if kind == HOLDS and 1 in collapsed else kind,
        "; ".join(parts) + ".",
        "steps",
        comparisons=tuple(found),
    )


_BESIDE = ((1, "less"), (0, "not told apart"), (-1, "more"))


def _names(found: Iterable[Comparison]) -> str:
    return some(list(dict.fromkeys(one.against for one in found)))


def _edm_and_rivals(evidence: Evidence, dataset: str, sampler: str) -> Iterator[tuple[Run, list[Run]]]:
    """EDM's own runs with one sampler, and the others with the same kind of denoiser."""
    known = evidence.own_grid(dataset, sampler)
    for run in known:
        own = run.series.schedule if run.series.exact else run.series.formulation
        if base(own) == "edm" and base(run.series.schedule) == "edm" and _leads_somewhere(evidence, run):
            rivals = [other for other in known if other.series.exact == run.series.exact and other.series != run.series]
            yield run, rivals


def _leads_somewhere(evidence: Evidence, run: Run) -> bool:
    """Whether its schedule goes from noise to data, and does not stay at one level."""
    schedule = evidence.schedule(run.series.schedule)
    return schedule is None or schedule.terminal_nsr > _APART * float(schedule.nsr(torch.tensor([schedule.t_min])))


def _bounded(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    for sampler in ("heun", "euler"):
        for run, rivals in _edm_and_rivals(evidence, dataset, sampler):
            found, worst = [], []
            for rival in rivals:
                steps = [n for n in run.steps if n <= FEW and n in rival.steps]
                seeds = [seed for seed in run.errors if seed in rival.errors]
                pairs = np.array(
                    [[_worst(one, steps, seed) for one in (run, rival)] for seed in seeds], dtype=float
                ).reshape(-1, 2)
                pairs = pairs[np.isfinite(pairs).all(axis=1)]
                if steps and len(pairs):
                    floor = evidence.floor(dataset, sampler)
                    found.append(compared(max(steps), pairs, floor, against=_short(rival)))
                    worst.append((rival, steps))
            if found:
                yield _bounded_verdict(evidence, dataset, sampler, run, worst, found)


def _worst(run: Run, steps: Sequence[int], seed: int) -> float:
    known = [value for n in steps if math.isfinite(value := run.at_steps(n, seed))]
    return max(known, default=math.nan)


def _largest(run: Run, steps: Sequence[int]) -> tuple[float, int]:
    """The largest mean error over seeds, and the least step count at which it occurs."""
    means = [(run.mean(run.steps.index(n)), -n) for n in steps]
    value, n = max(pair for pair in means if math.isfinite(pair[0]))
    return value, -n


def _bounded_verdict(
    evidence: Evidence,
    dataset: str,
    sampler: str,
    run: Run,
    rivals: Sequence[tuple[Run, Sequence[int]]],
    found: Sequence[Comparison],
) -> Verdict:
    steps = sorted({n for _, asked in rivals for n in asked})
    ranked = sorted((_largest(one, asked), _short(one)) for one, asked in [*rivals, (run, steps)])
    listed = some([f"{label} {error_text(value)} (N = {n})" for (value, n), label in ranked], 6)
    note = ""
    if _largest(run, steps)[1] in evidence.collapsed(dataset, run):
        note = f" Samples that all lie on the mean score {number(evidence.point_mass(dataset))}: bounded by a collapse."
    level = [one.against for one in found if not one.told]
    shared = f" Shared with {some(level)}." if level else ""
    return Verdict(
        dataset,
        evidence.metric(dataset) or "",
        run.series,
        f"with {sampler}, worst over N ≤ {FEW}",
        told_by(found),
        f"{listed}.{shared}{note}",
        "steps",
        comparisons=tuple(found),
    )


def _accurate(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    for sampler in ("heun", "euler"):
        for run, rivals in _edm_and_rivals(evidence, dataset, sampler):
            floor = evidence.floor(dataset, sampler)
            found = [one for rival in rivals for one in _against(run, rival, floor)]
            if found:
                yield _accurate_verdict(evidence, dataset, sampler, run, found)


def _accurate_verdict(evidence: Evidence, dataset: str, sampler: str, run: Run, found: Sequence[Comparison]) -> Verdict:
    ahead: list[str] = []
    level: list[str] = []
    behind: list[str] = []
    collapsed: list[str] = []
    at_the_mean = evidence.collapsed(dataset, run)
    for n in sorted({one.at for one in found}):
        here = [one for one in found if one.at == n]
        best = min(here, key=lambda one: one.second)
        if any(one.told > 0 for one in here):
            behind.append(f"{n:g} ({best.against}, {'∞' if math.isinf(best.times) else '×' + number(best.times, 2)})")
        elif n in at_the_mean:
            collapsed.append(f"{n:g}")
        else:
            (ahead if all(one.told < 0 for one in here) else level).append(f"{n:g}")
    parts = []
    if ahead:
        parts.append(f"errs least at N = {', '.join(ahead)}")
    if level:
        parts.append(f"not told apart from the best at N = {', '.join(level)}")
    if behind:
        parts.append(f"another errs less at N = {', '.join(behind)}")
    if collapsed:
        parts.append(f"collapsed to the mean at N = {', '.join(collapsed)}, which does not count")
    return Verdict(
        dataset,
        evidence.metric(dataset) or "",
        run.series,
        f"with {sampler}, at each N against {_names(found)}",
        verdict_of(bool(ahead), bool(behind)) if ahead or behind else OPEN,
        "; ".join(parts) + ".",
        "steps",
        comparisons=tuple(found),
    )


def _noise_corrects(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    known = evidence.runs(dataset)
    for name in STOCHASTIC:
        for run in (one for one in known if base(one.sampler) == name):
            for rule in _WITHOUT_NOISE[name]:
                others = [o for o in known if (o.sampler, o.series, o.grid) == (rule, run.series, run.grid)]
                if others:
                    yield from pair(evidence, dataset, run, others[0], _less_then_more, _no_gain)
                    break


def _less_then_more(found: Sequence[Comparison]) -> str:
    """For noise that costs steps and then pays: against it at few evaluations, for it at many.

    What decides is the end. Where the last place cannot be told and noise paid nowhere, it might still pay later.
    """
    told = [one.told for one in found if one.told]
    if not told or (-1 not in told and not found[-1].told):
        return OPEN
    if told[-1] == 1:
        return FAILS
    return HOLDS if told[0] == 1 else PART


def _no_gain(found: Sequence[Comparison]) -> str:
    told = {one.told for one in found}
    return f" Noise pays nowhere up to {found[-1].at:g} NFE." if 1 in told and -1 not in told else ""


CLAIMS = (
    Claim(
        "second-order",
        "Heun's second-order steps are worth their double cost: at equal NFE they err less than Euler's.",
        "Karras et al. 2022, section 3",
        "heun and euler",
        _second_order,
    ),
    Claim(
        "ancestral-variance",
        "Which variance ancestral sampling takes, posterior or transition (B²), matters at few steps and no longer at many.",
        "Ho et al. 2020, section 3.2; Nichol & Dhariwal 2021, section 3.1",
        "ancestral with both variances on a variance-preserving schedule, at N ≤ 10 and above",
        _variances,
    ),
    Claim(
        "multistep",
        "Multistep beats single-step at equal cost: DPM-Solver++(2M) errs less than Heun's method and than DDIM.",
        "Lu et al., DPM-Solver++, 2022",
        "dpmpp-2m and one of heun, ddim",
        _multistep,
    ),
    Claim(
        "ddim-is-euler",
        "DDIM is Euler's rule in sigma/alpha instead of t: the same where both are linear in t, better elsewhere.",
        "Song, Meng & Ermon, ICLR 2021, section 4.3; Karras et al. 2022, section 3",
        "ddim and euler",
        _ddim,
    ),
    Claim(
        "straight-paths",
        "Straight paths need few steps, ideally one: flow matching's schedule errs less than others at N ≤ 3.",
        "Liu et al. and Lipman et al., ICLR 2023",
        "euler or ddim on the schedule flow and on another one, at N ≤ 3",
        _straight_paths,
    ),
    Claim(
        "edm-robust",
        "EDM is the most robust at few steps: its largest error over N ≤ 10 is the smallest.",
        "the lecture, level 4; Karras et al. 2022",
        "heun or euler on edm and on another schedule, at N ≤ 10",
        _bounded,
    ),
    Claim(
        "edm-accurate",
        "EDM converges quicker and more accurately: it errs least at every N.",
        "the lecture, level 4; Karras et al. 2022",
        "heun or euler on edm and on another schedule",
        _accurate,
    ),
    Claim(
        "noise-corrects",
        "Stochastic samplers need more steps, and at many err less than their deterministic counterparts: noise corrects errors.",
        "Karras et al. 2022, section 4; Song et al. 2021",
        "churn, ancestral, dpmpp-2m-sde or euler-maruyama beside heun, ddim, dpmpp-2m or euler",
        _noise_corrects,
    ),
)
"""What is weighed, in the order of the page."""
