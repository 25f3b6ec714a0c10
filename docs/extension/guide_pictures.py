"""Small pictures of registered names, drawn into the page itself: no files, and in the page's own
colours.
"""

from __future__ import annotations

import html
import math
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from diffusion.datasets import Dataset
from diffusion.schedules import Schedule, schedules
from diffusion.schedules.grids import Grid, grids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from diffusion.registry import Component

WIDTH, HEIGHT, EDGE = 180, 110, 8
LOW, HIGH = -3.0, 3.0  # decades of noise that are shown


def picture(component: Component) -> str | None:
    """A picture as HTML with a text in its place, or None where one would say nothing."""
    match component:
        case Schedule():
            return _schedule(component)
        case Grid():
            return _grid(component)
        case Dataset() if component.dim == 1:
            return _line(component)
        case Dataset() if component.dim in {2, 3}:
            return _cloud(component)
    return None


def _figure(marks: Iterable[str], text: str, caption: str) -> str:
    return (
        f'<figure class="guide-picture"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(text)}">'
        f"{''.join(marks)}</svg><figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _path(points: Iterable[tuple[float, float]]) -> str:
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{steps}" fill="none" stroke="var(--color-brand-primary)" stroke-width="1.5"/>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" stroke-opacity="0.3"/>'


def _across(share: float) -> float:
    return EDGE + share * (WIDTH - 2 * EDGE)


def _up(share: float) -> float:
    return HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE)


def _noise(ratio: float) -> float:
    """Where a noise-to-signal ratio stands between LOW and HIGH decades."""
    decades = math.log10(ratio) if 0 < ratio < math.inf else (LOW if ratio <= 0 else HIGH)
    return (min(max(decades, LOW), HIGH) - LOW) / (HIGH - LOW)


def _schedule(schedule: Schedule) -> str:
    times = torch.linspace(0, 1, 61, dtype=torch.float64) * schedule.t_max
    if schedule.max_steps is not None:  # its levels alone
        every = grids.create(schedule.own_grid).noisy_times(schedule, schedule.max_steps).sort().values
        times = every[torch.linspace(0, len(every) - 1, min(61, len(every))).round().long()]
    ratios = (schedule.sigma(times) / schedule.alpha(times)).tolist()
    shown = [(t, r) for t, r in zip((times / schedule.t_max).tolist(), ratios, strict=True) if r > 10**LOW]
    marks = [
        _rule(_across(0), _up(_noise(1)), _across(1), _up(_noise(1))),
        _path((_across(t), _up(_noise(r))) for t, r in shown),
    ]
    text = f"sigma/alpha against time: {ratios[len(ratios) // 2]:.2g} in the middle, {ratios[-1]:.2g} at the end"
    return _figure(marks, text, "σ/α from 10⁻³ to 10³ (line: 1) against time")


@cache
def _vp() -> Schedule:
    return schedules.create("vp-linear")


def _grid(grid: Grid) -> str | None:
    chosen = _vp() if grid.refuses(_vp()) is None else schedules.create("ddpm-linear")
    if grid.refuses(chosen) is not None or grid.refuses_steps(chosen, 10) is not None:
        return None
    times = grid.noisy_times(chosen, 10)
    places = [_across(_noise(ratio)) for ratio in (chosen.sigma(times) / chosen.alpha(times)).tolist()]
    marks = [_rule(_across(0), _up(0.5), _across(1), _up(0.5))]
    marks += [
        f'<line x1="{x:.1f}" y1="{_up(0.3):.1f}" x2="{x:.1f}" y2="{_up(0.7):.1f}" '
        'stroke="var(--color-brand-primary)" stroke-width="1.5"/>'
        for x in places
    ]
    name = chosen.registered_name
    text = f"the noisy levels of 10 steps on {name} as marks on a logarithmic axis of sigma/alpha"
    return _figure(marks, text, f"10 steps on {name}: σ/α from 10⁻³ to 10³")


def _drawn(dataset: Dataset, n: int) -> Any:
    return dataset.sample(n, torch.Generator().manual_seed(0)).double()


def _line(dataset: Dataset) -> str:
    x = _drawn(dataset, 20_000)[:, 0]
    low, high = float(x.min()), float(x.max())
    margin = 0.15 * (high - low)
    counts = torch.histc(x, bins=60, min=low - margin, max=high + margin)
    heights = (counts / counts.max()).tolist()
    points = [(_across((i + side) / 60), _up(height)) for i, height in enumerate(heights) for side in (0, 1)]
    text = f"histogram of samples from {low - margin:.2g} to {high + margin:.2g}"
    return _figure([_rule(_across(0), _up(0), _across(1), _up(0)), _path(points)], text, text)


def _cloud(dataset: Dataset) -> str:
    x = _drawn(dataset, 700)
    if dataset.dim == 3:  # seen from above at an angle
        x = torch.stack([x[:, 0], 0.5 * x[:, 1] + 0.87 * x[:, 2]], 1)
    middle, size = (x.max(0).values + x.min(0).values) / 2, float((x.max(0).values - x.min(0).values).max())
    places = ((x - middle) / size * (HEIGHT - 2 * EDGE)).tolist()
    marks = [
        f'<circle cx="{WIDTH / 2 + a:.1f}" cy="{HEIGHT / 2 - b:.1f}" r="0.9" fill="var(--color-brand-primary)"/>'
        for a, b in places
    ]
    return _figure(marks, f"700 samples of {dataset.registered_name}", "700 samples")
