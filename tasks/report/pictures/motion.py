"""The histogram of a kept trajectory in motion, level after level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.plain import Spec
from tasks.report.numbers.marginals import marginals_along
from tasks.report.pictures.style import Picture, axis, color, layout, listed, midpoints, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from tasks.report.lookup.targets import Target
    from tasks.report.numbers.curves import Series

Array = NDArray[np.float64]

_MOST_FRAMES = 60


def motion(series: Series, sampled: str, kept: xr.DataArray, target: Target) -> Picture:
    """The histogram level after level, with a slider and a button that plays it; the exact density
    moves with it.
    """
    found = marginals_along(kept, target, _MOST_FRAMES)
    chosen, edges, densities = found.levels, found.edges, found.densities
    known = found.exact is not None
    curves: Sequence[Array | None] = [None] * len(densities) if found.exact is None else list(found.exact)
    x = packed(midpoints(edges))
    step = {"color": color(series.style), "width": 1, "shape": "hvh"}
    fill = {"fill": "tozeroy", "fillcolor": color(series.style, 0.35)}
    line: Spec = {"type": "scatter", "mode": "lines", "x": x}
    traces: list[Spec] = [
        {**line, "y": _short(densities[0]), **fill, "line": step, "hovertemplate": "samples %{y:.3g}<extra></extra>"}
    ]
    if known:
        dashed = {"color": "@ink", "width": 1.5, "dash": "dash"}
        hover = "exact %{y:.3g}<extra></extra>"
        traces.append({**line, "y": _short(curves[0]), "line": dashed, "hovertemplate": hover})
    names = [f"{level}" for level in chosen.tolist()]
    frames = [
        {"name": name, "data": [{"y": _short(row)} for row in (density, *([curve] if known else []))]}
        for name, density, curve in zip(names, densities, curves, strict=True)
    ]
    top = 1.15 * max(
        float(np.max(row)) for row in (*densities, *(curve for curve in curves if known and curve is not None))
    )
    at_once = {"mode": "immediate", "transition": {"duration": 0}}
    plays: Spec = {**at_once, "fromcurrent": True, "frame": {"duration": 80, "redraw": False}}
    button: Spec = {"method": "animate"}
    passed = "move" if found.fixed else "level"
    axes: Spec = {
        "xaxis": axis(found.named("x", "standard deviation of pₜ"), range=listed([edges[0], edges[-1]])),
        "yaxis": axis("density", range=listed([0, top])),
        "margin": {"l": 52, "r": 12, "t": 10, "b": 100},
        "sliders": [
            {
                "active": 0,
                "steps": [
                    {**button, "label": name, "args": [[name], {**at_once, "frame": {"duration": 0, "redraw": False}}]}
                    for name in names
                ],
                "x": 0.16,
                "len": 0.84,
                "y": -0.32,
                "yanchor": "top",
                "pad": {"t": 0, "b": 0},
                "currentvalue": {"prefix": f"{passed} ", "font": {"size": 12, "color": "@ink"}, "xanchor": "right"},
                "font": {"size": 10, "color": "@muted"},
                "bgcolor": "@grid",
                "bordercolor": "@axis",
                "tickcolor": "@axis",
                "ticklen": 0,
                "minorticklen": 0,
            }
        ],
        "updatemenus": [
            {
                "type": "buttons",
                "direction": "left",
                "showactive": False,
                "x": 0,
                "y": -0.36,
                "xanchor": "left",
                "yanchor": "top",
                "pad": {"t": 0, "r": 0},
                "bgcolor": "@card",
                "bordercolor": "@axis",
                "font": {"size": 12, "color": "@ink"},
                "buttons": [
                    {**button, "label": "▶", "args": [None, plays]},
                    {**button, "label": "❚❚", "args": [[None], at_once]},
                ],
            }
        ],
    }
    caption = (
        f"{series.label} with {sampled}: press ▶, or draw the slider. Histogram of {kept.sizes['sample']:,} samples"
        f"{'; dashed: the exact density' if known else ''}."
    )
    spec = {"data": traces, "layout": layout(**axes), "frames": frames}
    return Picture(f"{series.label}: histogram in motion", caption, spec, "tall", series.shown_with)


def _short(values: Array | None) -> list[float | None]:
    return [] if values is None else [float(f"{value:.3g}") for value in values.tolist()]
