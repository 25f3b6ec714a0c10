r"""The probability flow on the line: which way every x goes at every level, from noise to data.

    dx/dt = alpha'(t) D(x) + sigma'(t) (x - alpha D(x)) / sigma

is asked of each stored denoiser, exact or trained, on the levels of its schedule's own grid, as a
sampler passes them; where models see the data in other coordinates, ``x = m + s z``, of z. Paths
are Heun's, from quantiles of the start noise.
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
from tasks.report.numbers.curves import Series, Tabulation

if TYPE_CHECKING:
    from tasks.models import Model
    from tasks.report.lookup.targets import Target
    from tasks.results.models import ModelledAnswers

Array = NDArray[np.float64]
STEPS = 40
PATHS = 9
_BINS = 90
_COLUMNS, _ROWS = 17, 19  # of arrows
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
        """Standard deviation of the start noise, in the data's units."""
        return float(self.model.cell.schedule.prior_std) * _coordinates(self.model)[1]

    def velocity(self, level: int, x: Array) -> Array:
        """dx/dt at a noisy level."""
        now = self.levels[level]
        alpha, sigma, alpha_dot, sigma_dot = (
            float(part) for part in (now.alpha, now.sigma, now.alpha_dot, now.sigma_dot)
        )
        shift, scale = _coordinates(self.model)
        z = (x - shift) / scale
        denoised = _denoised(self.model, torch.from_numpy(z)[:, None], alpha, sigma)[:, 0].double().numpy()
        found: Array = scale * (alpha_dot * denoised + sigma_dot * (z - alpha * denoised) / sigma)
        return found


def _coordinates(model: Model) -> tuple[float, float]:
    """m and s of the line's ``x = m + s z``, z what the model sees."""
    frame = model.dataset.frame
    return (0.0, 1.0) if frame is None else (frame.shift[0], frame.scale[0])


def _denoised(model: Model, z: Tensor, alpha: float, sigma: float) -> Tensor:
    """``E[z_0 | z]`` of points ``[n, 1]`` in the coordinates that the model sees."""
    shift, scale = _coordinates(model)
    return (model.denoise(alpha * shift + scale * z, scale * sigma, alpha=alpha) - shift) / scale


def flows_of(answers: ModelledAnswers, table: Tabulation, dataset: str) -> Iterator[FieldOfFlow]:
    """Every series whose denoiser of the first seed is there to be asked."""
    seen: set[Series] = set()
    tried: set[str] = set()
    for point in sorted(table.points, key=lambda point: (point.exact, point.seed)):
        series = table.series_of(point.formulation, point.schedule)
        if point.dataset != dataset or point.status != "ok" or series is None or series in seen:
            continue
        if point.requested.guidance is not None:  # the model alone does not follow the law that was asked for
            continue
        if point.cell_id in tried:
            continue
        tried.add(point.cell_id)
        model = answers.model(point.cell_id)
        if model is None or model.cell.schedule.label() != point.schedule or not begins_with_noise(model):
            continue
        seen.add(series)
        try:
            levels, paths = paths_of(model)
        except (ArithmeticError, RuntimeError, ValueError):  # a network that has come to nothing
            continue
        if np.isfinite(paths).all():
            yield FieldOfFlow(series, model, levels, paths)


def begins_with_noise(model: Model) -> bool:
    """Whether its flow is from the schedule's noise, and not from an observation of the data
    (`indi`): as a likelihood needs it.
    """
    formulation = model.cell.formulation
    return formulation.from_noise and formulation.refuses_metric(NegativeLogLikelihood()) is None


def paths_of(model: Model) -> tuple[list[Level], Array]:
    """The levels of a model's schedule from noise to data, and the paths of Heun's method along
    them ``[level, path]``.
    """
    schedule = model.cell.schedule
    steps = min(STEPS, schedule.max_steps or STEPS)
    levels = levels_of([schedule], [grids.create(schedule.own_grid)], steps)

    def denoiser(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return _denoised(model, x[0], float(alpha), float(sigma))[None]

    share = (torch.arange(PATHS, dtype=torch.float64) + 0.5) / PATHS
    start = (schedule.prior_std * torch.special.ndtri(share))[None, :, None]
    rule = DDIM() if Heun().refuses(schedule) else Heun()
    states = rule.trajectory(denoiser, start, levels, _Silence())
    shift, scale = _coordinates(model)
    return levels, shift + scale * torch.stack([start, *states])[:, 0, :, 0].numpy()


@dataclass(frozen=True)
class Height:
    """How high x is drawn: ``asinh((x - centre) / unit)``, from -`reach` to `reach`; `origin` is
    where start noise has its middle.
    """

    centre: float
    unit: float
    reach: float
    origin: float = 0.0

    @classmethod
    def around(cls, found: Sequence[FieldOfFlow], target: Target) -> Height:
        low, high = target.support() or (-1.0, 1.0)
        centre, unit = 0.5 * (low + high), 0.5 * (high - low) or 1.0
        widest = max([2.2 * one.spread for one in found] + [1.5 * unit])
        origin = float(target.shift[0])
        return cls(centre, unit, math.asinh((widest + abs(centre - origin)) / unit), origin)

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

    def ticks(self) -> list[float]:
        """Round numbers, evenly enough apart as drawn."""
        most = float(self.value(np.array(self.reach)))
        ticks = [0.0] + [sign * m * 10.0**p for p in range(-3, 7) for m in (1, 3) for sign in (-1, 1)]
        if self.origin:  # round distances from it
            most = self.unit * math.sinh(self.reach)
        shown: list[float] = []
        # the data first, then outwards
        for tick in sorted(ticks, key=abs):
            heights = [float(self.drawn(np.array(self.origin + v))) for v in (tick, *shown)]
            if abs(tick) <= most and all(abs(heights[0] - other) > self.reach / 7 for other in heights[1:]):
                shown.append(tick)
        return [self.origin + tick for tick in sorted(shown)]


def density_of(flow: FieldOfFlow, target: Target, scale: Height) -> tuple[Array, Array] | None:
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


@dataclass(frozen=True)
class Arrows:
    """Where arrows begin as drawn (level, height), and how far they lead; all ``[arrow]``."""

    x: Array
    y: Array
    run: Array
    rise: Array


def arrows(flow: FieldOfFlow, scale: Height) -> Arrows:
    """Arrows along the flow, of one length in a picture that is as high as it is wide."""
    steps = len(flow.levels) - 1
    columns = range(0, steps, -(-steps // _COLUMNS))
    heights = (np.arange(_ROWS) + 0.5) / _ROWS * 2 * scale.reach - scale.reach
    wide, high = (steps + 1) / len(columns), 2 * scale.reach / _ROWS
    x, y = scale.value(heights), heights
    found = []
    for level in columns:
        now, then = flow.levels[level], flow.levels[level + 1]
        velocity = flow.velocity(level, x) * float(then.time - now.time)  # in steps of the grid
        rise = velocity * scale.slope(x) / high
        run = np.full_like(rise, 1.0 / wide)
        length = np.hypot(run, rise)
        found.append((np.full_like(y, level), y, _LENGTH * wide * run / length, _LENGTH * high * rise / length))
    return Arrows(*(np.concatenate(part) for part in zip(*found, strict=True)))
