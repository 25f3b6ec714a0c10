"""What a schedule promises: amplitudes that belong together, their derivatives, the inverse; and what
a grid promises of its levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from diffusion.checks.findings import ClaimFound, findings_of, none_of, within
from diffusion.checks.known import SCHEDULES
from diffusion.schedules import Chain, Schedule
from diffusion.schedules.grids import Grid

_STEPS = (1, 2, 3, 10)
_DIFFERENCES = (4 / 5, -1 / 5, 4 / 105, -1 / 280)


def check_schedule(schedule: Schedule) -> Iterator[ClaimFound]:
    """Each claim of a schedule, held against what it does."""
    yield from findings_of(
        schedule,
        (
            ("no noise at time 0", no_noise_at_zero),
            ("finite", finite),
            ("more noise with time", rises),
            ("derivative of alpha", lambda it: derivative(it, "alpha")),
            ("derivative of sigma", lambda it: derivative(it, "sigma")),
            ("inverse", inverse),
            ("variance preserving", preserves_variance),
        ),
    )


def check_grid(grid: Grid) -> Iterator[ClaimFound]:
    """Each claim of a grid, held against what it does on the schedules that it serves."""
    if all(grid.refuses(schedule) for schedule in SCHEDULES):
        yield ClaimFound("serves a registered schedule", False, "at least one", f"none: {grid.refuses(SCHEDULES[0])}")
        return
    yield from findings_of(grid, (("levels", falling_levels), ("from the start noise", from_the_start)))


# --- schedules ------------------------------------------------------------------------------------


def no_noise_at_zero(schedule: Schedule) -> ClaimFound:
    """The data at time 0, and an order of the two ends."""
    zero = torch.zeros(1, dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(zero)), float(schedule.sigma(zero))
    holds = abs(alpha - 1) <= 1e-12 and sigma == 0 and 0 < schedule.t_min < schedule.t_max < math.inf
    found = f"alpha = {alpha:.15g}, sigma = {sigma:.3g}, {schedule.t_min:g}, {schedule.t_max:g}"
    return ClaimFound("no noise at time 0", holds, "alpha = 1, sigma = 0, 0 < t_min < t_max", found)


def finite(schedule: Schedule) -> ClaimFound:
    """Numbers in float64 of the shape of the times, from t_min to t_max."""
    t = torch.linspace(schedule.t_min, schedule.t_max, 12, dtype=torch.float64).reshape(3, 4)
    bad = []
    for name in ("alpha", "sigma", "alpha_dot", "sigma_dot"):
        value = getattr(schedule, name)(t)
        if not (isinstance(value, Tensor) and value.shape == t.shape and value.dtype == t.dtype):
            bad.append(f"{name} gives {getattr(value, 'dtype', type(value))} {list(getattr(value, 'shape', []))}")
        elif not bool(torch.isfinite(value).all()):
            bad.append(f"{name} is not finite")
    return none_of("finite", "float64 of the shape of the times", bad)


def rises(schedule: Schedule) -> ClaimFound:
    """The noise-to-signal ratio is sigma / alpha, and rises strictly."""
    t = _times(schedule, 300)
    nsr = schedule.nsr(t)
    ratio = schedule.sigma(t) / schedule.alpha(t)
    bad = [] if bool((nsr.diff() > 0).all()) else [f"falls near t = {float(t[int(nsr.diff().argmin())]):.3g}"]
    if not bool(((nsr - ratio).abs() <= 1e-10 * ratio).all()):
        bad.append("nsr is not sigma / alpha")
    return none_of("more noise with time", "sigma / alpha rises", bad)


def derivative(schedule: Schedule, part: str) -> ClaimFound:
    """The stated derivative against differences of the eighth order, relative to the amplitude."""
    t = torch.logspace(math.log10(schedule.t_min), math.log10(0.98 * schedule.t_max), 40, dtype=torch.float64)
    if isinstance(schedule, Chain):
        t = torch.floor(t) + 0.5  # between the levels of its spline
    function = getattr(schedule, part)
    error = (getattr(schedule, f"{part}_dot")(t) - _slope(function, t, schedule.t_max)) * t
    worst = float(error.abs().max() / function(t).abs().max())
    return within(f"derivative of {part}", f"{part}_dot", worst, 1e-8)


def inverse(schedule: Schedule) -> ClaimFound:
    """The time of a ratio is the time that had it, as far as its last digits tell."""
    t = _times(schedule, 200)
    nsr = schedule.nsr(t)
    back = schedule.time_of(nsr)
    error = float(((back - t) / t).abs().max())
    return within("inverse", "time_of(nsr(t)) = t", error, 1e-9)


def preserves_variance(schedule: Schedule) -> ClaimFound:
    """alpha^2 + sigma^2 = 1 if and only if it says so."""
    t = torch.linspace(schedule.t_min, schedule.t_max, 100, dtype=torch.float64)
    off = float((schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 - 1).abs().max())
    holds = (off <= 1e-12) is bool(schedule.variance_preserving)
    expected = "alpha^2 + sigma^2 = 1" if schedule.variance_preserving else "not (variance_preserving = False)"
    return ClaimFound("variance preserving", holds, expected, f"alpha^2 + sigma^2 off 1 by {off:.2g}")


def _times(schedule: Schedule, count: int) -> Tensor:
    """Times from t_min to t_max, or to just before it where alpha vanishes there."""
    last = schedule.t_max * (0.999 if math.isinf(schedule.terminal_nsr) else 1)
    even = torch.linspace(schedule.t_min, last, count, dtype=torch.float64)
    geometric = torch.logspace(math.log10(schedule.t_min), math.log10(last), count, dtype=torch.float64)
    times: Tensor = torch.cat([even, geometric[1:-1]]).unique()
    return times


def _slope(function: Callable[[Tensor], Tensor], t: Tensor, last: float) -> Tensor:
    """Central differences of the eighth order, without looking beyond `last`."""
    h = (1e-2 * t).clamp(max=0.1).minimum((last - t) / 64)
    total: Tensor = torch.zeros_like(t)
    for j, weight in enumerate(_DIFFERENCES, 1):
        total = total + weight * (function(t + j * h) - function(t - j * h))
    slope: Tensor = total / h
    return slope


# --- grids ----------------------------------------------------------------------------------------


def falling_levels(grid: Grid) -> ClaimFound:
    """N steps are N + 1 falling times that end at 0."""
    bad = []
    for schedule, steps in _served(grid):
        t = grid.times(schedule, steps)
        if t.shape != (steps + 1,) or t.dtype != torch.float64 or not bool((t.diff() < 0).all()) or float(t[-1]) != 0:
            bad.append(f"{steps} steps on {schedule.label()}")
    return none_of("levels", "N + 1 falling times, the last 0", bad)


def from_the_start(grid: Grid) -> ClaimFound:
    """No level is noisier than the start noise, and a discrete schedule is asked at its own levels."""
    bad = []
    for schedule, steps in _served(grid):
        t = grid.times(schedule, steps)
        if float(t.max()) > schedule.t_max * (1 + 1e-12):
            bad.append(f"{float(t.max()):g} beyond t_max = {schedule.t_max:g} of {schedule.label()}")
        if schedule.max_steps is not None and not _among(t[:-1], schedule.level_times):
            bad.append(f"between the levels of {schedule.label()}")
    return none_of("from the start noise", "levels that the schedule has", bad)


def _served(grid: Grid) -> Iterator[tuple[Schedule, int]]:
    for schedule in SCHEDULES:
        if grid.refuses(schedule) is None:
            yield from ((schedule, steps) for steps in _STEPS if grid.refuses_steps(schedule, steps) is None)


def _among(times: Tensor, known: Tensor) -> bool:
    return bool(((times[:, None] - known[None]).abs().amin(1) <= 1e-9 * times).all())
