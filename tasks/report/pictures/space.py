"""Samples in space.

In space a cloud hides its own errors: points a little off a torus look right from every side. So
each cloud is coloured by its distance to the surface, ``d = |hypot(hypot(x, y) - R, z) - r|``, and
drawn a second time as a cross-section, ``rho = hypot(x, y)`` against z, where the torus is a circle
and errors are plain to see. Distance alone can be fooled (all points on one spot of the surface
have none), which is why the moments are in the tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.plain import Spec
from tasks.report.numbers.clouds import Cloud, box_of, finite, surface_distance
from tasks.report.pictures.style import Picture, axis, color, heat, layout, listed, midpoints, packed
from tasks.report.text import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.report.lookup.targets import Target

Array = NDArray[np.float64]
MOST_POINTS = 3000
_MOST_CLOUDS = 8  # a browser gives a page sixteen WebGL contexts


def in_space(found: Sequence[Cloud], target: Target) -> list[Picture]:
    """Three-dimensional scatter pictures: trained series, or the exact ones where nothing was
    trained.
    """
    trained = [cloud for cloud in found if not cloud.series.exact] or list(found)
    return [_scatter(cloud, target) for cloud in trained[:_MOST_CLOUDS]]


def _scatter(cloud: Cloud, target: Target) -> Picture:
    values = finite(cloud.values)
    few = values[:: max(1, int(np.ceil(len(values) / MOST_POINTS)))]
    radii = target.torus_radii
    box = box_of(values, target)
    inside = few[(np.abs(few) <= box).all(axis=1)]
    marker: Spec = {"size": 2.2, "color": color(cloud.series.style), "opacity": 0.85}
    more, extra = "", ""
    traces: list[Spec] = []
    if radii:
        distance = surface_distance(inside, *radii)
        marker |= {
            "color": packed(np.log10(np.maximum(distance, 1e-6))),
            "cmin": -3,
            "cmax": -0.5,
            "colorscale": "@distance",
            "colorbar": {
                "title": {"text": "distance", "font": {"size": 11}},
                "tickvals": [-3, -2, -1],
                "ticktext": ["0.001", "0.01", "0.1"],
                "thickness": 8,
                "len": 0.6,
                "x": 1,
                "xpad": 0,
            },
        }
        all_distances = surface_distance(values, *radii)
        more = f" Median distance to the surface {number(_median(all_distances))}."
        traces.append(_torus_surface(*radii))
    if len(inside) < len(few):
        extra = f" {len(few) - len(inside)} of them lie outside the box and are not drawn."
    x, y, z = (packed(inside[:, k]) for k in range(3))
    hover = "(%{x:.3f}, %{y:.3f}, %{z:.3f})<extra></extra>"
    cloud_trace = {"type": "scatter3d", "mode": "markers", "x": x, "y": y, "z": z, "marker": marker}
    traces.append({**cloud_trace, "hovertemplate": hover})
    side = {
        "gridcolor": "@grid",
        "zerolinecolor": "@grid",
        "color": "@muted",
        "backgroundcolor": "rgba(0,0,0,0)",
        "nticks": 5,
        "tickfont": {"size": 10},
    }
    scene = {
        **{
            f"{name}axis": {**side, "title": {"text": name}, "range": listed([-half, half])}
            for name, half in zip("xyz", box.tolist(), strict=True)
        },
        "aspectmode": "manual",
        "aspectratio": {name: half / box.max() for name, half in zip("xyz", box.tolist(), strict=True)},
        "camera": {"eye": {"x": 1.0, "y": 1.0, "z": 0.85}, "center": {"x": 0, "y": 0, "z": -0.08}},
    }
    caption = (
        f"{cloud.series.label} with {cloud.panel.title}, N = {cloud.point.steps}, seed {cloud.point.seed}: "
        f"{len(few):,} of {len(cloud.values):,} samples.{more}{extra}"
    )
    spec = {"data": traces, "layout": layout(scene=scene, margin={"l": 0, "r": 0, "t": 0, "b": 0})}
    return Picture(cloud.series.label, caption, spec, "square", cloud.series.shown_with)


def _torus_surface(R: float, r: float) -> Spec:
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 49), np.linspace(0, 2 * np.pi, 25))
    rho = R + r * np.cos(v)
    return {
        "type": "surface",
        "x": packed(rho * np.cos(u)),
        "y": packed(rho * np.sin(u)),
        "z": packed(r * np.sin(v)),
        "opacity": 0.12,
        "showscale": False,
        "hoverinfo": "skip",
        "surfacecolor": packed(np.zeros_like(u)),
        "colorscale": [[0, "@muted"], [1, "@muted"]],
        "contours": {axis_name: {"highlight": False} for axis_name in "xyz"},
    }


def cross_sections(found: Sequence[Cloud], target: Target) -> list[Picture]:
    """The half-plane (rho, z), all samples of every series: the torus is the dashed circle."""
    radii = target.torus_radii
    if radii is None:
        return []
    R, r = radii
    reach = 1.7 * r
    across, upwards = np.linspace(max(R - reach, 0), R + reach, 91), np.linspace(-reach, reach, 91)
    circle = {
        "type": "circle",
        "x0": R - r,
        "x1": R + r,
        "y0": -r,
        "y1": r,
        "line": {"color": "@accent", "width": 1.5, "dash": "dash"},
    }
    pictures = []
    for cloud in found:
        values = finite(cloud.values)
        rho = np.hypot(values[:, 0], values[:, 1])
        counts: Array = np.histogram2d(rho, values[:, 2], [across, upwards])[0]
        z = np.log10(counts.T + 1)
        off = 1 - counts.sum() / max(len(cloud.values), 1)
        hover = "ρ = %{x:.3f}<br>z = %{y:.3f}<extra></extra>"
        x, y = packed(midpoints(across)), packed(midpoints(upwards))
        trace = heat(x, y, z, float(np.log10(1 + max(4.0, np.quantile(counts, 0.995)))), hovertemplate=hover)
        moment = float(np.mean(rho**2)) if len(values) else float("nan")
        caption = (
            f"{cloud.series.label}, {cloud.panel.title}, N = {cloud.point.steps}: 90 % of the samples within "
            f"{number(_quantile(surface_distance(values, R, r), 0.9), 2)} of the surface; E ρ² = {number(moment)}; "
            f"{100 * off:.1f} % outside the picture."
        )
        axes = {
            "xaxis": axis("ρ = √(x² + y²)", range=listed([across[0], across[-1]]), showgrid=False, constrain="domain"),
            "yaxis": axis("z", range=listed([-reach, reach]), showgrid=False, scaleanchor="x", constrain="domain"),
        }
        spec = {"data": [trace], "layout": layout(shapes=[circle], **axes)}
        pictures.append(Picture(cloud.series.label, caption, spec, "short", cloud.series.shown_with))
    return pictures


def _median(values: Array) -> float:
    return _quantile(values, 0.5)


def _quantile(values: Array, level: float) -> float:
    return float(np.quantile(values, level)) if values.size else float("nan")
