"""Samples on the line: their distribution against the step count.

For every step count the histogram of the kept samples stands as a column of colours, and the
target's beside them; its support is marked. What falls outside the picture is not hidden: its share
is written above the column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.plain import Spec
from tasks.report.numbers.by_steps import columns_by_steps
from tasks.report.numbers.kept import Kept, values_in
from tasks.report.pictures.style import Picture, axis, heat, layout, listed, midpoints, packed

if TYPE_CHECKING:
    from tasks.report.lookup.targets import Target


def against_steps(kept: Kept, target: Target, shown: tuple[float, float], *, by_panel: bool = False) -> Picture:
    """The lecture's figure: colours are the density of the samples, a column for each step count
    and one for the target.

    It is titled by the panel if asked to be. Samples that should follow another law than the data
    set stand beside that one.
    """
    target = kept.target or target
    found = columns_by_steps(kept, target, shown)
    edges, steps, columns, outside, clean, top = (
        found.edges,
        found.steps,
        found.densities,
        found.outside,
        found.target,
        found.top,
    )
    names = [str(n) for n in steps]
    last = [] if clean is None else ["target"]
    hover = "N = %{x}<br>x = %{y:.3f}<br>density %{z:.3f}<extra></extra>"
    densities = np.array(columns if clean is None else [*columns, clean])
    traces: list[Spec] = [heat(names + last, packed(midpoints(edges)), densities.T, top, hovertemplate=hover)]
    marked = [(n, share) for n, share in zip(names, outside, strict=True) if share >= 0.005]
    if marked:
        traces.append(
            {
                "type": "scatter",
                "mode": "text",
                "x": [n for n, _ in marked],
                "y": listed([shown[1] + 0.045 * (shown[1] - shown[0])] * len(marked)),
                "text": [f"{100 * share:.0f}" for _, share in marked],
                "textfont": {"size": 9, "color": "@muted"},
                "cliponaxis": False,
                "hovertemplate": "N = %{x}: %{text} % of the samples lie outside the picture<extra></extra>",
            }
        )
    support = target.support()
    shapes = [_support_line(edge) for edge in support] if support else []
    label = kept.series.label
    worst = max(zip(outside, steps, strict=True))
    text = f"{label} with {kept.panel.title}, seed {kept.seed}, {values_in(kept)} samples per column."
    if kept.target is not None:
        text += " The target is the law in noise at the last level passed, not the data."
    if worst[0] >= 0.005:
        text += f" Outside the picture: up to {100 * worst[0]:.0f} % (N = {worst[1]})."
    across = axis("steps N", type="category", showgrid=False, tickangle=0, tickfont={"size": 10})
    upwards = axis("sample value", range=listed([shown[0], shown[1] + 0.09 * (shown[1] - shown[0])]), showgrid=False)
    spec = {"data": traces, "layout": layout(xaxis=across, yaxis=upwards, shapes=shapes)}
    return Picture(kept.panel.title if by_panel else label, text, spec, families=kept.series.shown_with)


def _support_line(edge: float) -> Spec:
    line = {"color": "@accent", "width": 1.5, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": edge, "y1": edge, "line": line}
