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
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.plain import Spec
from tasks.report.numbers.curves import Tabulation
from tasks.report.numbers.flows import PATHS, FieldOfFlow, Height, arrows, density_of, flows_of
from tasks.report.pictures.style import Picture, axis, color, escaped, heat, layout, listed, packed
from tasks.report.text import number

if TYPE_CHECKING:
    from tasks.report.lookup.targets import Target
    from tasks.results.models import ModelledAnswers

Array = NDArray[np.float64]

MOST = 16  # pictures of a data set


def fields(answers: ModelledAnswers, table: Tabulation, target: Target) -> tuple[list[Picture], list[Picture], int]:
    """The fields of the trained denoisers of a data set on the line and those of the exact ones;
    how many more there were.
    """
    if target.dim != 1:
        return [], [], 0
    found = list(flows_of(answers, table, target.name))
    if not found:
        return [], [], 0
    scale = Height.around(found[:MOST], target)
    pictures = [(one.series, _picture(one, target, scale)) for one in found[:MOST]]
    trained = [picture for series, picture in pictures if not series.exact]
    exact = [picture for series, picture in pictures if series.exact]
    return trained, exact, len(found) - len(pictures)


def _upright(scale: Height) -> Spec:
    shown = scale.ticks()
    return axis(
        "x",
        range=[round(-scale.reach, 4), round(scale.reach, 4)],
        tickmode="array",
        tickvals=listed(scale.drawn(np.array(shown))),
        ticktext=[f"{tick:g}" for tick in shown],
        showgrid=False,
    )


def _picture(flow: FieldOfFlow, target: Target, scale: Height) -> Picture:
    steps = len(flow.levels) - 1
    traces: list[Spec] = []
    density = density_of(flow, target, scale)
    if density is not None:
        edges, values = density
        middle = (edges[1:] + edges[:-1]) / 2
        top = 1.1 * float(np.quantile(values[values > 0], 0.97))
        traces.append(heat(list(range(steps)), packed(middle), values.T, top, hoverinfo="skip", opacity=0.55))
    traces.append(_arrows(flow, scale))
    line = {"color": color(flow.series.style), "width": 1.6}
    along = listed(np.tile([*range(steps + 1), math.nan], PATHS))
    heights = np.vstack([scale.drawn(flow.paths), np.full(PATHS, math.nan)]).T.ravel()
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
        f"the schedule’s own grid {PATHS} paths from quantiles of that noise end between {number(float(ends.min()), 2)} "
        f"and {number(float(ends.max()), 2)}."
    )
    spec = {"data": traces, "layout": layout(xaxis=across, yaxis=_upright(scale), shapes=shapes)}
    return Picture(escaped(flow.series.label), caption, spec, "tall", flow.series.shown_with)


def _arrows(flow: FieldOfFlow, scale: Height) -> Spec:
    found = arrows(flow, scale)
    gap = np.full_like(found.x, math.nan)
    along = np.stack([found.x, found.x + found.run, gap])
    upwards = np.stack([found.y, found.y + found.rise, gap])
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": packed(along.T.ravel()),
        "y": packed(upwards.T.ravel()),
        "line": {"color": "@ink", "width": 0.7},
        "marker": {
            "symbol": "arrow",
            "angleref": "previous",
            "size": [0, 7, 0] * len(found.x),
            "color": "@ink",
        },
        "opacity": 0.55,
        "hoverinfo": "skip",
    }
