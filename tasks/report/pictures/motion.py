"""The histogram of a kept trajectory in motion, level after level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.plain import Spec
from tasks.report.numbers.marginals import marginals_along
from tasks.report.pictures.style import Picture, axis, color, layout, listed, midpoints, packed
from tasks.report.text import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from tasks.report.lookup.targets import Target
    from tasks.report.numbers.curves import Series

Array = NDArray[np.float64]

_MOST_FRAMES = 60


def motion(series: Series, sampled: str, kept: xr.DataArray, target: Target) -> Picture:
    """The histogram level after level, and the exact density with it: a frame for each level, named by
    it. What plays them is the page's: one control for all pictures of a pane.
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
    passed = "move" if found.fixed else "level"
    names = [
        f"{passed} {level}, σ = {number(sigma, 2)}" for level, sigma in zip(chosen.tolist(), found.sigmas, strict=True)
    ]
    frames = [
        {"name": name, "data": [{"y": _short(row)} for row in (density, *([curve] if known else []))]}
        for name, density, curve in zip(names, densities, curves, strict=True)
    ]
    top = 1.15 * max(
        float(np.max(row)) for row in (*densities, *(curve for curve in curves if known and curve is not None))
    )
    axes: Spec = {
        "xaxis": axis(found.named("x", "standard deviation of pₜ"), range=listed([edges[0], edges[-1]])),
        "yaxis": axis("density", range=listed([0, top])),
    }
    caption = (
        f"{series.label} with {sampled}: histogram of {kept.sizes['sample']:,} samples"
        f"{'; dashed: the exact density' if known else ''}."
    )
    spec = {"data": traces, "layout": layout(**axes), "frames": frames}
    return Picture(f"{series.label}: histogram in motion", caption, spec, families=series.shown_with)


def _short(values: Array | None) -> list[float | None]:
    return [] if values is None else [float(f"{value:.3g}") for value in values.tolist()]
