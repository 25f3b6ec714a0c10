"""The probability flow of several formulations, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from tasks.figures.lacking import FigureLacksData
from tasks.figures.panels import dashed_ends, density_map, grid_of, in_lines, not_drawn
from tasks.figures.registry import register
from tasks.figures.source import Source
from tasks.figures.style import FigureStyle
from tasks.report.lookup.targets import Target
from tasks.report.numbers.flows import Arrows, FieldOfFlow, Height, arrows, density_of, flows_of
from tasks.report.text import number

_MOST = 6


@dataclass(frozen=True)
class Flows:
    """The fields of some denoisers, drawn on one scale of x; names of those for which there is no
    room.
    """

    target: Target
    scale: Height
    flows: list[tuple[FieldOfFlow, Arrows]]
    others: tuple[str, ...] = ()


def fields(source: Source) -> Flows:
    """Of the trained denoisers of the first data set on the line that has any; else of exact ones."""
    for target in source.datasets(1):
        found = list(flows_of(source.answers, source.table, target.name))
        own = [one for one in found if not one.series.exact] or found
        chosen, others = own[:_MOST], tuple(one.series.label for one in own[_MOST:])
        if chosen:
            scale = Height.around(chosen, target)
            return Flows(target, scale, [(one, arrows(one, scale)) for one in chosen], others)
    raise FigureLacksData("a denoiser of data on the line")


@register(
    "flow-fields",
    shows="The field of the probability flow of each formulation from its own noise to the data, with paths and the exact law",
    study="documents/slides-design-space",
    document="slides, level 4: vector fields of the ODE for VP, VE, DDPM and EDM",
    find=fields,
    target=lambda found: found.target.name,
)
def flow_fields(found: Flows, style: FigureStyle) -> Figure:
    """A panel for each formulation, all on one scale of x."""
    scale = found.scale
    known = False
    count = len(found.flows)
    rows, columns = grid_of(count, 2 if count < 3 else 3 if count > 4 else 4)
    figure = style.sheet(height=0.62 if count < 3 else 0.42 * rows + 0.04)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, (flow, field) in zip(panels.ravel(), found.flows, strict=False):
        steps = len(flow.levels) - 1
        density = density_of(flow, found.target, scale)
        if density is not None:
            known = True
            values = density[1]
            top = 2.0 * float(np.quantile(values[values > 0], 0.97))
            density_map(ax, values.T, (-0.5, steps - 0.5, -scale.reach, scale.reach), style, top)
        ax.quiver(
            field.x,
            field.y,
            field.run,
            field.rise,
            angles="xy",
            scale_units="xy",
            scale=1,
            units="inches",
            width=0.4 * style.line / 72,
            headwidth=4,
            headlength=4,
            headaxislength=3.5,
            color=style.ink,
            alpha=0.55,
        )
        ax.plot(scale.drawn(flow.paths), color=style.color(1), linewidth=0.8 * style.line)
        for edge in found.target.support() or ():
            ax.axhline(
                float(scale.drawn(np.array(edge))), color=style.accent, linestyle="--", linewidth=0.7 * style.line
            )
        ax.set(xlim=(-0.5, steps + 0.5), ylim=(-scale.reach, scale.reach))
        ax.locator_params(axis="x", nbins=3)
        ax.set_title(f"{flow.series.label}\nstart: σ = {number(flow.spread, 3)}")
    ticks = scale.ticks()
    panels[0][0].set_yticks(scale.drawn(np.array(ticks)), [f"{tick:g}" for tick in ticks])
    for row in panels:
        row[0].set_ylabel("$x$ (asinh scale)")
    for ax in panels.ravel()[count:]:
        ax.set_visible(False)
    laws = "exact law as colours, " if known else ""
    figure.suptitle(in_lines(f"{laws}paths as lines{dashed_ends(found.target)}", not_drawn(found.others)))
    figure.supxlabel("level, from noise to data", fontsize=style.size)
    return figure
