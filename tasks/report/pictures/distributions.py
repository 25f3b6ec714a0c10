"""Samples on the line: their distribution against the step count.

For every step count the histogram of the kept samples stands as a column of colours, and the
target's beside them; its support is marked. What falls outside the picture is not hidden: its share
is written above the column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.plain import Spec
from tasks.report.pictures.kept import Kept, values_in
from tasks.report.pictures.style import Picture, axis, heat, layout, listed, midpoints, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.report.lookup.targets import Target

_BINS = 80


def window(kept: Sequence[Kept], target: Target) -> tuple[float, float]:
    """The values shown: the support of the target and half of its width on either side."""
    low_high = target.support()
    if low_high is None:
        last = np.concatenate([np.zeros(0), *(one.values[max(one.values)] for one in kept)])
        last = last[np.isfinite(last)]
        low_high = (float(np.quantile(last, 0.01)), float(np.quantile(last, 0.99))) if last.size else (0.0, 1.0)
    low, high = low_high
    width = (high - low) or 1.0
    return low - width / 2, high + width / 2


def against_steps(kept: Kept, target: Target, shown: tuple[float, float], *, by_panel: bool = False) -> Picture:
    """The lecture's figure: colours are the density of the samples, a column for each step count
    and one for the target.

    It is titled by the panel if asked to be. Samples that should follow another law than the data
    set stand beside that one.
    """
    target = kept.target or target
    # a hair lower, so that an atom at an edge is in the same bin for samples and target
    edges = np.linspace(*shown, _BINS + 1) - 1e-7 * (shown[1] - shown[0])
    steps = sorted(kept.values)
    columns, outside = [], []
    for n in steps:
        values = kept.values[n]
        counts = np.histogram(values[np.isfinite(values)], edges)[0]
        columns.append(counts / max(values.size, 1) / np.diff(edges))
        outside.append(1 - counts.sum() / max(values.size, 1))
    clean = target.density(edges, 1.0, 0.0)
    top = 2 * float(np.quantile(clean[clean > 0], 0.95)) if clean is not None and (clean > 0).any() else 0.0
    top = top or 1.5 * float(columns[-1].max()) or 1.0
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
