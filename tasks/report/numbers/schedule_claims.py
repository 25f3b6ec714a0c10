"""Claims about schedules and formulations: one against others with the same sampler, at equal step
counts.

An error within 5 % of that of a single point at the target's mean, from the fewest steps on, is a
collapse: one step of a good sampler leaves exactly that, and no credit is given for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from tasks.report.numbers.comparisons import Difference, Run, compare_at_steps, compared, judged
from tasks.report.numbers.evidence import (
    FAILS,
    FEW,
    HOLDS,
    OPEN,
    PART,
    Evidence,
    Verdict,
    decided_by,
    error_text,
    verdict_of,
)
from tasks.report.text import number, some

AT_MOST = 3


_APART = 10.0  # between the noise at a schedule's ends


def straight_paths(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """Flow matching's schedule against the others at the fewest steps."""
    for sampler in ("euler", "ddim"):
        known = evidence.own_grid(dataset, sampler)
        for first in known:
            if first.requested.schedule.name != "flow":
                continue
            rivals = [
                run for run in known if run.series.exact == first.series.exact and run.requested.schedule.name != "flow"
            ]
            found = judged([one for run in rivals for one in _against(first, run) if one.at <= AT_MOST])
            if found:
                yield _few_steps(evidence, dataset, sampler, first, found)


def _against(first: Run, second: Run) -> list[Difference]:
    """At equal steps, the second by its name beside other schedules."""
    return [replace(one, against=_short(second)) for one in compare_at_steps(first, second)]


def _short(run: Run) -> str:
    """What tells a run from others of the same kind: its schedule, if the denoiser is exact."""
    return run.series.on if run.series.exact else run.series.label


def _few_steps(evidence: Evidence, dataset: str, sampler: str, first: Run, found: Sequence[Difference]) -> Verdict:
    parts, counted = [], []
    collapsed = evidence.collapsed(dataset, first)
    for n in sorted({one.at for one in found}):
        here = sorted((one for one in found if one.at == n), key=lambda one: one.second)
        text = f"N = {n:g}: {error_text(here[0].first)}"
        if n in collapsed:
            parts.append(
                f"{text}, a collapse: samples that all lie on the mean score {number(evidence.point_mass(dataset))}"
            )
        elif n == 1 and len(here) > 1 and not any(one.decided for one in here):
            parts.append(f"{text}, like every other schedule")
        else:
            counted += here
            groups = [
                (word, [f"{o.against} {error_text(o.second)}" for o in here if o.decided == t]) for t, word in _BESIDE
            ]
            parts.append(f"{text} ({'; '.join(f'{word}: {some(names)}' for word, names in groups if names)})")
    kind = decided_by(counted) if counted else FAILS if collapsed else OPEN
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


def _names(found: Iterable[Difference]) -> str:
    return some(list(dict.fromkeys(one.against for one in found)))


def _edm_and_rivals(evidence: Evidence, dataset: str, sampler: str) -> Iterator[tuple[Run, list[Run]]]:
    """EDM's own runs with one sampler, and the others with the same kind of denoiser."""
    known = evidence.own_grid(dataset, sampler)
    for run in known:
        own = run.requested.schedule if run.series.exact else run.requested.formulation
        if own.name == run.requested.schedule.name == "edm" and _leads_somewhere(run):
            rivals = [other for other in known if other.series.exact == run.series.exact and other.series != run.series]
            yield run, rivals


def _leads_somewhere(run: Run) -> bool:
    """Whether its schedule goes from noise to data, and does not stay at one level."""
    schedule = run.schedule
    return schedule is None or schedule.terminal_nsr > _APART * float(schedule.nsr(torch.tensor([schedule.t_min])))


def bounded(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """EDM's largest error over few steps against that of each rival."""
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
                    one = compared(max(steps), pairs, fixed=run.fixed and rival.fixed)
                    found.append(replace(one, against=_short(rival)))
                    worst.append((rival, steps))
            if found:
                yield _bounded_verdict(evidence, dataset, sampler, run, worst, judged(found))


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
    found: Sequence[Difference],
) -> Verdict:
    steps = sorted({n for _, requested in rivals for n in requested})
    ranked = sorted((_largest(one, requested), _short(one)) for one, requested in [*rivals, (run, steps)])
    listed = some([f"{label} {error_text(value)} (N = {n})" for (value, n), label in ranked], 6)
    note = ""
    if _largest(run, steps)[1] in evidence.collapsed(dataset, run):
        note = f" Samples that all lie on the mean score {number(evidence.point_mass(dataset))}: bounded by a collapse."
    level = [one.against for one in found if not one.decided]
    shared = f" Shared with {some(level)}." if level else ""
    return Verdict(
        dataset,
        evidence.metric(dataset) or "",
        run.series,
        f"with {sampler}, worst over N ≤ {FEW}",
        decided_by(found),
        f"{listed}.{shared}{note}",
        "steps",
        comparisons=tuple(found),
    )


def accurate(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """EDM against each rival, at every step count."""
    for sampler in ("heun", "euler"):
        for run, rivals in _edm_and_rivals(evidence, dataset, sampler):
            found = judged([one for rival in rivals for one in _against(run, rival)])
            if found:
                yield _accurate_verdict(evidence, dataset, sampler, run, found)


def _accurate_verdict(evidence: Evidence, dataset: str, sampler: str, run: Run, found: Sequence[Difference]) -> Verdict:
    ahead: list[str] = []
    level: list[str] = []
    behind: list[str] = []
    collapsed: list[str] = []
    at_the_mean = evidence.collapsed(dataset, run)
    for n in sorted({one.at for one in found}):
        here = [one for one in found if one.at == n]
        best = min(here, key=lambda one: one.second)
        if any(one.decided > 0 for one in here):
            behind.append(f"{n:g} ({best.against}, {'∞' if math.isinf(best.times) else '×' + number(best.times, 2)})")
        elif n in at_the_mean:
            collapsed.append(f"{n:g}")
        else:
            (ahead if all(one.decided < 0 for one in here) else level).append(f"{n:g}")
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
