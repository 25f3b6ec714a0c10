"""The velocity of a path, learned by its action and by its score, beside the exact one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion.models import ActionModel
from diffusion.schedules.levels import Level
from tasks.figures.lacking import FigureLacksData
from tasks.figures.panels import density_map, in_lines, not_drawn
from tasks.figures.registry import register
from tasks.figures.source import Source
from tasks.figures.style import FigureStyle
from tasks.report.lookup.targets import Target
from tasks.report.numbers.flows import FieldOfFlow, flows_of
from tasks.report.text import number

Array = NDArray[np.float64]
_LEVELS = 3
_PLACES = 201
_MOST = 4


@dataclass(frozen=True)
class VelocityAt:
    """dx/dt at one level.

    Args:
        alpha: The amplitude of the data.
        sigma: The noise.
        x: The places, within three standard deviations.
        density: The exact density there, zeros where it is not known.
        velocities: Of each model, in the order of `Velocities.flows`.
    """

    alpha: float
    sigma: float
    x: Array
    density: Array
    velocities: list[Array]


@dataclass(frozen=True)
class Velocities:
    """Models of one path on the line: learned by an action, by a score, and exact, with their
    velocities at a few levels from noise to data; names of those for which there is no room.
    """

    target: Target
    flows: list[FieldOfFlow]
    at: list[VelocityAt]
    others: tuple[str, ...] = ()

    def error(self, flow: int, level: int) -> float:
        """``E |v_theta - v|^2 / E |v|^2`` under the exact law at a level; NaN without an exact one."""
        exact = next((i for i, one in enumerate(self.flows) if one.series.exact), None)
        if exact is None:
            return float("nan")
        one = self.at[level]
        apart = (one.velocities[flow] - one.velocities[exact]) ** 2
        return float((one.density * apart).sum() / (one.density * one.velocities[exact] ** 2).sum())


def velocities(source: Source) -> Velocities:
    """Of the first data set on the line with an action and another denoiser on the same schedule."""
    for target in source.datasets(1):
        found = list(flows_of(source.answers, source.table, target.name))
        actions = [one for one in found if isinstance(one.model.model, ActionModel)]
        if not actions:
            continue
        schedule = actions[0].series.schedule
        same = [one for one in found if one.series.schedule == schedule]
        others = [one for one in same if not isinstance(one.model.model, ActionModel)]
        if not others:
            continue
        own = [one for one in actions if one in same][:2]
        flows = (own + sorted(others, key=lambda one: one.series.exact))[: _MOST - 1]
        flows += [one for one in others if one.series.exact and one not in flows][:1]
        levels = [level for level in flows[0].levels if float(level.sigma) > 0]
        chosen = [levels[round(share * (len(levels) - 1))] for share in (0.35, 0.7, 0.93)][:_LEVELS]
        left = tuple(one.series.label for one in same if one not in flows)
        return Velocities(target, flows, [_at(target, flows, level) for level in chosen], left)
    raise FigureLacksData("a model of an action on the line, and another one of the same path")


def _at(target: Target, flows: list[FieldOfFlow], level: Level) -> VelocityAt:
    alpha, sigma = float(level.alpha), float(level.sigma)
    law = target.distribution
    middle = float(target.without_noise(np.array([law.mean[0] if law else 0.0]), alpha)[0])
    reach = 3 * target.standard_deviation(alpha, sigma)
    edges = np.linspace(middle - reach, middle + reach, _PLACES + 1)
    x = (edges[1:] + edges[:-1]) / 2
    density = target.density(edges, alpha, sigma)
    places = [next(i for i, one in enumerate(flow.levels) if abs(float(one.sigma) - sigma) < 1e-9) for flow in flows]
    speeds = [flow.velocity(place, x) for flow, place in zip(flows, places, strict=True)]
    return VelocityAt(alpha, sigma, x, np.zeros_like(x) if density is None else density, speeds)


@register(
    "action-velocity",
    shows="The velocity of one path at three levels: from an action, from a score and exact; behind it the density of the data there",
    study="documents/talk-action-matching",
    document="talk, last topic: Action Matching, whose gradient is the velocity of the continuity equation",
    find=velocities,
    target=lambda found: found.target.name,
)
def action_velocity(found: Velocities, style: FigureStyle) -> Figure:
    """A panel for each level, noise on the left."""
    figure = style.sheet(height=0.44)
    panels = figure.subplots(1, len(found.at))
    for ax, one in zip(panels, found.at, strict=True):
        fastest = max(float(np.abs(v[one.density >= 0.02 * one.density.max()]).max()) for v in one.velocities)
        top = float(one.density.max()) or 1.0
        density_map(ax, one.density[None], (one.x[0], one.x[-1], -1.25 * fastest, 1.25 * fastest), style, 3.0 * top)
        for flow, speed in zip(found.flows, one.velocities, strict=True):
            exact = flow.series.exact
            ax.plot(
                one.x,
                speed,
                color=style.ink if exact else style.color(flow.series.style),
                linestyle="--" if exact else style.dash(flow.series.style),
                linewidth=style.line * (0.9 if exact else 1.2),
                label="exact" if exact else flow.series.label,
            )
        ax.locator_params(nbins=5)
        ax.set(title=f"α = {number(one.alpha, 2)}, σ = {number(one.sigma, 2)}", xlabel="$x$")
    panels[0].set_ylabel(r"velocity $\mathrm{d}x/\mathrm{d}t$")
    behind = "behind: density of the data at that noise" if any(one.density.any() for one in found.at) else ""
    if title := in_lines(behind, not_drawn(found.others)):
        figure.suptitle(title)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 if max(map(len, labels)) > 24 else len(labels))
    return figure
