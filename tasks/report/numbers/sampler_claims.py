"""Claims about samplers: two of them on the same denoiser, at equal cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from diffusion.samplers import Ancestral
from diffusion.schedules import Schedule
from tasks.report.numbers.comparisons import Difference, Run, compare_at_steps, crossings
from tasks.report.numbers.evidence import (
    FAILS,
    FEW,
    HOLDS,
    OPEN,
    PART,
    Evidence,
    Verdict,
    on_grid,
    pair,
    sentence,
)
from tasks.report.text import number

SAME = 1e-6  # relative; what rounding leaves of two ways to write one rule


STOCHASTIC = ("churn", "ancestral", "dpmpp-2m-sde", "euler-maruyama")


_WITHOUT_NOISE = {
    "churn": ("heun", "ddim"),
    "ancestral": ("ddim", "heun"),
    "dpmpp-2m-sde": ("dpmpp-2m", "heun", "ddim"),
    "euler-maruyama": ("euler", "ddim", "heun"),
}


def second_order(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """Heun against Euler."""
    for first, second in evidence.pairs(dataset, ["heun"], "euler"):
        yield from pair(evidence, dataset, first, second)


def multistep(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """DPM-Solver++(2M) against each of the single-step rules."""
    for single in ("heun", "ddim"):
        for first, second in evidence.pairs(dataset, ["dpmpp-2m"], single):
            yield from pair(evidence, dataset, first, second)


def variances(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """Ancestral sampling with its two variances: how their difference fades with the number of
    steps.
    """
    known = [run for run in evidence.runs(dataset) if run.rule == "ancestral"]
    large = [run for run in known if _of_transition(run)]
    for first in known:
        for second in large:
            if first not in large and (first.series, first.grid) == (second.series, second.grid):
                found = compare_at_steps(first, second)
                few, many = [one for one in found if one.at <= FEW], [one for one in found if one.at > FEW]
                if few and many:
                    yield Verdict(
                        dataset,
                        evidence.metric(dataset) or "",
                        first.series,
                        f"posterior against transition{on_grid(first)}",
                        _fades(few, many[-1]),
                        sentence(found, "posterior", "transition", "steps"),
                        "steps",
                        tuple(crossings(found)),
                        tuple(found),
                    )


def _of_transition(run: Run) -> bool:
    sampler = run.requested.sampler.component
    return isinstance(sampler, Ancestral) and sampler.variance == "transition"


def _fades(few: Sequence[Difference], last: Difference) -> str:
    """Whether a difference at few steps is gone at the last: in part, if it has shrunk by half on
    the logarithmic scale.
    """
    most = max((abs(one.log_ratio) for one in few if one.decided), default=0.0)
    if not last.decided:
        return HOLDS if most else OPEN
    return PART if abs(last.log_ratio) <= most / 2 else FAILS


def straight(schedule: Schedule) -> bool:
    """Whether alpha and sigma are linear in t, so that a step in t and a step in sigma/alpha are
    the same move.
    """
    t = torch.linspace(schedule.t_min, schedule.t_max, 9, dtype=torch.float64)
    bends = [float(torch.diff(value, n=2).abs().max()) for value in (schedule.alpha(t), schedule.sigma(t))]
    return max(bends) <= SAME * max(1.0, float(schedule.sigma(t).max()))


def ddim_is_euler(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """DDIM against Euler: one rule on straight schedules, and elsewhere two."""
    for ddim, euler in evidence.pairs(dataset, ["ddim"], "euler"):
        if not ddim.plain:
            continue
        expected = ddim.schedule is not None and straight(ddim.schedule)
        apart = farthest(ddim, euler)
        if not (expected or apart <= SAME):
            yield from pair(evidence, dataset, ddim, euler)
        elif math.isfinite(apart):
            same = apart <= SAME
            yield Verdict(
                dataset,
                evidence.metric(dataset) or "",
                ddim.series,
                f"ddim against euler{on_grid(ddim)}",
                HOLDS if same else FAILS,
                f"one rule here: at every N they differ by at most {number(apart, 1)} of the value."
                if same
                else f"alpha and sigma are linear in t, and yet the two differ by up to {100 * apart:.2g} %.",
                "steps",
                comparisons=tuple(compare_at_steps(ddim, euler)),
            )


def farthest(first: Run, second: Run) -> float:
    """The largest relative difference at any step count and seed that both have; NaN if there is
    none.
    """
    pairs = [
        (first.at_steps(n, seed), second.at_steps(n, seed))
        for seed in first.errors
        if seed in second.errors
        for n in first.steps
    ]
    return max((abs(a / b - 1) for a, b in pairs if math.isfinite(a) and math.isfinite(b)), default=math.nan)


def noise_corrects(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """Each stochastic sampler against the rule that it is without its noise."""
    known = evidence.runs(dataset)
    for name in STOCHASTIC:
        for run in (one for one in known if one.rule == name):
            for rule in _WITHOUT_NOISE[name]:
                others = [o for o in known if o.plain and (o.rule, o.series, o.grid) == (rule, run.series, run.grid)]
                if others:
                    yield from pair(evidence, dataset, run, others[0], _less_then_more, _no_gain)
                    break


def _less_then_more(found: Sequence[Difference]) -> str:
    """For noise that costs steps and then pays: against it at few evaluations, for it at many.

    What decides is the end. Where the last place cannot be told and noise paid nowhere, it might
    still pay later.
    """
    signs = [one.decided for one in found if one.decided]
    if not signs or (-1 not in signs and not found[-1].decided):
        return OPEN
    if signs[-1] == 1:
        return FAILS
    return HOLDS if signs[0] == 1 else PART


def _no_gain(found: Sequence[Difference]) -> str:
    signs = {one.decided for one in found}
    return f" Noise pays nowhere up to {found[-1].at:g} NFE." if 1 in signs and -1 not in signs else ""
