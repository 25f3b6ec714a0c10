"""Claims about samplers of other libraries: their orders, and one rule in two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from diffusion.checks.samplers import order_measured
from diffusion.samplers import (
    DDIM,
    Ancestral,
    DPMSolver2M,
    DPMSolver2MSDE,
    Heun,
    PeerSampler,
    Sampler,
)
from tasks.report.numbers.comparisons import Run, compare_at_steps
from tasks.report.numbers.evidence import FAILS, HOLDS, OPEN, PART, Evidence, Verdict, on_grid
from tasks.report.numbers.sampler_claims import farthest
from tasks.report.text import listing, number

STEPS = (32, 64, 128)
SHORT = 0.2
"""Of the claimed order: what a measured one may lack so far from the limit of many steps."""
SAME = 1e-3
"""Relative, of a metric: some of the libraries go through float32."""

_SAME_RULE: dict[tuple[str, str], Sampler] = {
    ("azula", "DDPMSampler"): Ancestral(),
    ("azula", "DDIMSampler"): DDIM(),
    ("azula", "EulerSampler"): DDIM(),
    ("k-diffusion", "sample_euler"): DDIM(),
    ("k-diffusion", "sample_euler_ancestral"): Ancestral(),
    ("k-diffusion", "sample_dpmpp_2m"): DPMSolver2M(),
    ("k-diffusion", "sample_dpmpp_2m_sde"): DPMSolver2MSDE(),
    ("diffusers", "DDPMScheduler"): Ancestral(),
    ("diffusers", "DDIMScheduler"): DDIM(),
    ("diffusers", "EulerDiscreteScheduler"): DDIM(),
    ("diffusers", "EulerAncestralDiscreteScheduler"): Ancestral(),
    ("diffusers", "EDMEulerScheduler"): DDIM(),
    ("diffusers", "FlowMatchEulerDiscreteScheduler"): DDIM(),
    ("diffusers", "DPMSolverMultistepScheduler"): DPMSolver2M(),
    ("diffusers", "EDMDPMSolverMultistepScheduler"): DPMSolver2M(),
}
_IN_THE_RATIO: dict[tuple[str, str], Sampler] = {  # one rule where sigma / alpha is time
    ("azula", "HeunSampler"): Heun(),
    ("k-diffusion", "sample_heun"): Heun(),
    ("diffusers", "HeunDiscreteScheduler"): Heun(),
}


def _peer(run: Run) -> PeerSampler | None:
    """The sampler of another library; None of ours, and where its library is not here."""
    found = run.requested.sampler.component
    return found if isinstance(found, PeerSampler) else None


def claimed_orders(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """The order that each claims against the one measured on a normal law and on a mixture of two;
    told once, beside the first data set that it was asked on, as it is no matter of the study's own
    targets.
    """
    datasets = evidence.table.datasets
    earlier = datasets[: datasets.index(dataset)]
    told = {_peer(run) for one in earlier for run in evidence.runs(one)}
    for run in evidence.runs(dataset):
        sampler = _peer(run)
        if sampler is None or sampler in told or sampler.chooses_levels:
            continue
        told.add(sampler)
        found, text = _held(sampler)
        yield Verdict(
            dataset,
            evidence.metric(dataset) or "",
            run.series,
            run.name or run.sampler,
            found,
            text,
            "steps",
        )


@lru_cache(maxsize=256)
def _held(sampler: PeerSampler) -> tuple[str, str]:
    """The verdict on a sampler's order, and what it is made from."""
    claimed = sampler.rule.order
    try:
        shown = sampler.showing_order()
        measured = order_measured(shown, STEPS)
    except Exception as error:  # noqa: BLE001 - somebody else's code, which must not end the page
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return OPEN, f"claims order {claimed}; could not be measured: {words}."
    lost = [target for target, order in measured.items() if not math.isfinite(order)]
    if lost:
        return OPEN, f"claims order {claimed}; could not be measured: its error is not finite on {' and '.join(lost)}."
    kept = [order >= claimed - SHORT for order in measured.values()]
    listed = " and ".join(f"{number(order, 3)} on {target}" for target, order in measured.items())
    return (
        HOLDS if all(kept) else PART if any(kept) else FAILS,
        f"claims order {claimed}; measured {listed}, with {STEPS[0]} to {STEPS[-1]} steps{_changed(sampler, shown)}.",
    )


def _changed(sampler: PeerSampler, shown: Sampler) -> str:
    """The options that another value shows the order of: little noise, short corrections."""
    own = sampler.parameters()
    others = [
        f"{name} {value} in place of {own[name]}" for name, value in shown.parameters().items() if value != own[name]
    ]
    return f" and {listing(others)}" if others else ""


def same_rules(evidence: Evidence, dataset: str) -> Iterator[Verdict]:
    """A sampler of another library against ours, where both are one rule."""
    known = evidence.runs(dataset)
    for run in known:
        ours = _ours(run)
        for other in known:
            if ours is None or (other.series, other.grid) != (run.series, run.grid):
                continue
            if other.requested.sampler.component != ours:
                continue
            apart = farthest(run, other)
            if math.isfinite(apart):
                yield Verdict(
                    dataset,
                    evidence.metric(dataset) or "",
                    run.series,
                    f"{run.name or run.sampler} against {other.sampler}{on_grid(run)}",
                    HOLDS if apart <= SAME else FAILS,
                    f"at every N they differ by at most {number(apart, 1)} of the value.",
                    "steps",
                    comparisons=tuple(compare_at_steps(run, other)),
                )


def _ours(run: Run) -> Sampler | None:
    """Our sampler of the same rule, with the library's defaults."""
    sampler = _peer(run)
    if sampler is None or sampler.chosen() != dict(sampler.known_options()):
        return None
    key = sampler.library, str(getattr(sampler, sampler.named))
    ratio_is_time = run.requested.schedule.name == "edm"
    return _SAME_RULE.get(key) or (_IN_THE_RATIO.get(key) if ratio_is_time else None)
