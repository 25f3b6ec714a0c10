r"""The field of the probability flow on the line: which way every x goes at every level, from noise
to data.

    dx/dt = alpha'(t) D(x) + sigma'(t) (x - alpha D(x)) / sigma

is asked of each stored denoiser, exact or trained, on its own schedule. Across are the levels of
the schedule's own grid, as a sampler passes them; upwards is x on a scale that is linear near the
data and logarithmic far away (asinh), the same for all pictures of a data set: a variance-exploding
process begins a hundred times wider than it ends, and both are to be seen. An arrow has the
direction of the flow as it is drawn, in steps of the grid, and always the same length. Lines are
paths of Heun's method from quantiles of the start noise; behind them, where it is known, the exact
density of x_t on the scale that is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion.metrics import NegativeLogLikelihood
from diffusion.samplers import DDIM, Heun
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import Level, levels_of
from tasks.plain import Spec
from tasks.report.numbers.curves import Series, Tabulation
from tasks.report.pictures.style import Picture, axis, color, escaped, heat, layout, listed, packed
from tasks.report.text import number

if TYPE_CHECKING:
    from tasks.models import Model
    from tasks.report.lookup.targets import Target
    from tasks.results.models import ModelledAnswers

Array = NDArray[np.float64]

STEPS = 40
MOST = 16  # pictures of a data set
_COLUMNS, _ROWS = 17, 19  # of arrows
_PATHS = 9
_BINS = 90
_LENGTH = 0.8  # of an arrow, in spacings


class _Silence:
    """Noise for rules that draw none."""

    def between(self, now: Level, then: Level) -> Tensor:
        raise AssertionError(f"noise was asked for between {now.time} and {then.time}")

    def fresh(self) -> Tensor:
        raise AssertionError("noise was asked for")


@dataclass(frozen=True)
class FieldOfFlow:
    """One denoiser on the levels of its schedule: those from noise to data, and the paths that it
    leads along.
    """

    series: Series
    model: Model
    levels: Sequence[Level]
    paths: Array  # [levels, paths]

    @property
    def spread(self) -> float:
        """Standard deviation of the start noise."""
        return float(self.model.cell.schedule.prior_std)

    def velocity(self, level: int, x: Array) -> Array:
        """dx/dt at a noisy level."""
        now = self.levels[level]
        alpha, sigma, alpha_dot, sigma_dot = (
            float(part) for part in (now.alpha, now.sigma, now.alpha_dot, now.sigma_dot)
        )
        denoised = self.model.denoise(torch.from_numpy(x)[:, None], sigma, alpha=alpha)[:, 0].double().numpy()
        found: Array = alpha_dot * denoised + sigma_dot * (x - alpha * denoised) / sigma
        return found


def fields(answers: ModelledAnswers, table: Tabulation, target: Target) -> tuple[list[Picture], list[Picture], int]:
    """The fields of the trained denoisers of a data set on the line and those of the exact ones;
    how many more there were.
    """
    if target.dim != 1:
        return [], [], 0
    found = list(_flows(answers, table, target.name))
    if not found:
        return [], [], 0
    scale = _Scale.around(found[:MOST], target)
    pictures = [(one.series, _picture(one, target, scale)) for one in found[:MOST]]
    trained = [picture for series, picture in pictures if not series.exact]
    exact = [picture for series, picture in pictures if series.exact]
    return trained, exact, len(found) - len(pictures)


def _flows(answers: ModelledAnswers, table: Tabulation, dataset: str) -> Iterator[FieldOfFlow]:
    """Every series whose denoiser of the first seed is there to be asked."""
    seen: set[Series] = set()
    tried: set[str] = set()
    for point in sorted(table.points, key=lambda point: (point.exact, point.seed)):
        series = table.series_of(point.formulation, point.schedule)
        if point.dataset != dataset or point.status != "ok" or series is None or series in seen:
            continue
        if point.cell_id in tried:
            continue
        tried.add(point.cell_id)
        model = answers.model(point.cell_id)
        if model is None or model.cell.schedule.label() != point.schedule or not _begins_with_noise(model):
            continue
        seen.add(series)
        try:
            levels, paths = _paths(model)
        except (ArithmeticError, RuntimeError, ValueError):  # a network that has come to nothing
            continue
        if np.isfinite(paths).all():
            yield FieldOfFlow(series, model, levels, paths)


def _begins_with_noise(model: Model) -> bool:
    """Whether its flow is from the schedule's noise, and not from an observation of the data
    (`indi`): as a likelihood needs it.
    """
    formulation = model.cell.formulation
    return formulation.from_noise and formulation.refuses_metric(NegativeLogLikelihood()) is None


def _paths(model: Model) -> tuple[list[Level], Array]:
    schedule = model.cell.schedule
    steps = min(STEPS, schedule.max_steps or STEPS)
    levels = levels_of([schedule], [grids.create(schedule.own_grid)], steps)

    def denoiser(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return model.denoise(x[0], float(sigma), alpha=float(alpha))[None]

    share = (torch.arange(_PATHS, dtype=torch.float64) + 0.5) / _PATHS
    start = (schedule.prior_std * torch.special.ndtri(share))[None, :, None]
    rule = DDIM() if Heun().refuses(schedule) else Heun()
    states = rule.trajectory(denoiser, start, levels, _Silence())
    return levels, torch.stack([start, *states])[:, 0, :, 0].numpy()


@dataclass(frozen=True)
class _Scale:
    """How high x is drawn: ``asinh((x - centre) / unit)``, from -`reach` to `reach`."""

    centre: float
    unit: float
    reach: float

    @classmethod
    def around(cls, found: Sequence[FieldOfFlow], target: Target) -> _Scale:
        low, high = target.support() or (-1.0, 1.0)
        centre, unit = 0.5 * (low + high), 0.5 * (high - low) or 1.0
        widest = max([2.2 * one.spread for one in found] + [1.5 * unit])
        return cls(centre, unit, math.asinh((widest + abs(centre)) / unit))

    def drawn(self, x: Array) -> Array:
        found: Array = np.arcsinh((x - self.centre) / self.unit)
        return found

    def slope(self, x: Array) -> Array:
        """d drawn / dx."""
        found: Array = 1 / np.hypot(self.unit, x - self.centre)
        return found

    def value(self, height: Array) -> Array:
        found: Array = self.centre + self.unit * np.sinh(height)
        return found

    def axis(self) -> Spec:
        """Round numbers, evenly enough apart as drawn."""
        most = float(self.value(np.array(self.reach)))
        ticks = [0.0] + [sign * m * 10.0**p for p in range(-3, 7) for m in (1, 3) for sign in (-1, 1)]
        shown: list[float] = []
        # the data first, then outwards
        for tick in sorted(ticks, key=abs):
            heights = [float(self.drawn(np.array(v))) for v in (tick, *shown)]
            if abs(tick) <= most and all(abs(heights[0] - other) > self.reach / 7 for other in heights[1:]):
                shown.append(tick)
        shown.sort()
        return axis(
            "x",
            range=[round(-self.reach, 4), round(self.reach, 4)],
            tickmode="array",
            tickvals=listed(self.drawn(np.array(shown))),
            ticktext=[f"{tick:g}" for tick in shown],
            showgrid=False,
        )


def _picture(flow: FieldOfFlow, target: Target, scale: _Scale) -> Picture:
    steps = len(flow.levels) - 1
    traces: list[Spec] = []
    density = _density(flow, target, scale)
    if density is not None:
        edges, values = density
        middle = (edges[1:] + edges[:-1]) / 2
        top = 1.1 * float(np.quantile(values[values > 0], 0.97))
        traces.append(heat(list(range(steps)), packed(middle), values.T, top, hoverinfo="skip", opacity=0.55))
    traces.append(_arrows(flow, scale, steps))
    line = {"color": color(flow.series.style), "width": 1.6}
    along = listed(np.tile([*range(steps + 1), math.nan], _PATHS))
    heights = np.vstack([scale.drawn(flow.paths), np.full(_PATHS, math.nan)]).T.ravel()
    traces.append(
        {"type": "scatter", "mode": "lines", "x": along, "y": packed(heights), "line": line, "hoverinfo": "skip"}
    )
    support = target.support()
    edges_of = [float(scale.drawn(np.array(edge))) for edge in support] if support else []
    dashed = {"color": "@accent", "width": 1.5, "dash": "dash"}
    shapes = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": edge, "y1": edge, "line": dashed} for edge in edges_of
    ]
    across = axis("level, from noise to data", range=[-0.5, steps + 0.5], showgrid=False, nticks=6)
    ends = flow.paths[-1]
    caption = (
        f"{flow.series.label}: starts with standard deviation {number(flow.spread, 3)}, and after {steps} steps of "
        f"the schedule’s own grid {_PATHS} paths from quantiles of that noise end between {number(float(ends.min()), 2)} "
        f"and {number(float(ends.max()), 2)}."
    )
    spec = {"data": traces, "layout": layout(xaxis=across, yaxis=scale.axis(), shapes=shapes)}
    return Picture(escaped(flow.series.label), caption, spec, "tall", flow.series.shown_with)


def _density(flow: FieldOfFlow, target: Target, scale: _Scale) -> tuple[Array, Array] | None:
    """Edges as drawn, and the exact density of the drawn x_t in each bin at each noisy level; None
    where it is not known.
    """
    edges = np.linspace(-scale.reach, scale.reach, _BINS + 1)
    places = scale.value(edges)
    stretch = np.diff(places) / np.diff(edges)
    columns = []
    for level in flow.levels[:-1]:
        density = target.density(places, float(level.alpha), float(level.sigma))
        if density is None:
            return None
        columns.append(density * stretch)
    values = np.array(columns)
    return edges, np.where(values > 0.01 * values.max(), values, 0.0)


def _arrows(flow: FieldOfFlow, scale: _Scale, steps: int) -> Spec:
    """Arrows of one length in the picture, which is as high as it is wide in their units."""
    columns = range(0, steps, -(-steps // _COLUMNS))
    heights = (np.arange(_ROWS) + 0.5) / _ROWS * 2 * scale.reach - scale.reach
    wide, high = (steps + 1) / len(columns), 2 * scale.reach / _ROWS
    x, y = scale.value(heights), heights
    along: list[Array] = []
    upwards: list[Array] = []
    for level in columns:
        now, then = flow.levels[level], flow.levels[level + 1]
        velocity = flow.velocity(level, x) * float(then.time - now.time)  # in steps of the grid
        rise = velocity * scale.slope(x) / high
        run = np.full_like(rise, 1.0 / wide)
        length = np.hypot(run, rise)
        along.append(
            np.stack([np.full_like(y, level), level + _LENGTH * wide * run / length, np.full_like(y, math.nan)])
        )
        upwards.append(np.stack([y, y + _LENGTH * high * rise / length, np.full_like(y, math.nan)]))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": packed(np.concatenate([part.T.ravel() for part in along])),
        "y": packed(np.concatenate([part.T.ravel() for part in upwards])),
        "line": {"color": "@ink", "width": 0.7},
        "marker": {
            "symbol": "arrow",
            "angleref": "previous",
            "size": [0, 7, 0] * (_ROWS * len(columns)),
            "color": "@ink",
        },
        "opacity": 0.55,
        "hoverinfo": "skip",
    }
