"""Samples on a torus, turning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray

from tasks.figures.lacking import FigureLacksData
from tasks.figures.movie import Movie, settled
from tasks.figures.registry import register
from tasks.figures.source import Source
from tasks.figures.style import FigureStyle
from tasks.report.lookup.targets import Target
from tasks.report.numbers.clouds import Cloud, clouds, finite, surface_distance
from tasks.report.text import number

Array = NDArray[np.float64]
_POINTS = 2000
_FRAMES = 60


@dataclass(frozen=True)
class OnTorus:
    """Samples that should lie on a torus.

    Args:
        target: The torus.
        cloud: The samples.
        radii: R and r.
        distance: Of each finite sample to the surface.
        moment: The mean of x^2 + y^2 over them.
        exact_moment: What it is on the torus.
    """

    target: Target
    cloud: Cloud
    radii: tuple[float, float]
    distance: Array
    moment: float
    exact_moment: float


def on_torus(source: Source) -> OnTorus:
    """The samples of the most steps, of a trained model where there is one."""
    for target in source.datasets(3):
        found = clouds(source.answers, source.table, target, 3) if target.torus_radii else []
        for cloud in sorted(found, key=lambda cloud: cloud.series.exact):
            values = finite(cloud.values)
            if target.torus_radii and len(values):
                moment = float((values[:, :2] ** 2).sum(axis=1).mean())
                return OnTorus(
                    target,
                    cloud,
                    target.torus_radii,
                    surface_distance(values, *target.torus_radii),
                    moment,
                    target.torus_moment,
                )
    raise FigureLacksData("kept samples of a torus")


@register(
    "torus",
    shows="Samples in space that should lie on a torus, coloured by their distance to it, turning once",
    study="documents/slides-torus",
    document="slides, level 4: from Gaussian noise in three dimensions to points on a torus",
    find=on_torus,
    target=lambda found: found.target.name,
    moves=True,
)
def torus(found: OnTorus, style: FigureStyle) -> Movie:
    """The cloud around the ghost of the surface."""
    R, r = found.radii
    values = finite(found.cloud.values)[:_POINTS]
    distance = found.distance[:_POINTS]
    figure = style.sheet(height=0.78, wide=False)
    ax = figure.add_subplot(projection="3d")
    assert isinstance(ax, Axes3D)  # noqa: S101 - which mypy is not told
    reach = 1.05 * (R + r)
    inside = np.all(np.abs(values) <= [reach, reach, 2.2 * r], axis=1)
    outside = f"; {int((~inside).sum()):,} of {len(values):,} outside the box" if not inside.all() else ""
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 61), np.linspace(0, 2 * np.pi, 21))
    rho = R + r * np.cos(v)
    ax.plot_surface(rho * np.cos(u), rho * np.sin(u), r * np.sin(v), color=style.muted, alpha=0.09, linewidth=0)
    shown = ax.scatter(
        *values[inside].T,
        c=np.log10(np.maximum(distance[inside], 1e-6)),
        cmap=style.distance,
        vmin=-3,
        vmax=-0.5,
        s=1.6 * style.line**2,
        linewidths=0,
        depthshade=False,
        rasterized=True,
    )
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-2.2 * r, 2.2 * r))
    ax.set_box_aspect((1, 1, 2.2 * r / reach), zoom=1.15)
    _scaled(ax, R, r, style)
    bar = figure.colorbar(shown, ax=ax, orientation="horizontal", shrink=0.7, aspect=30, pad=0.03)
    bar.set_ticks([-3, -2, -1], labels=["0.001", "0.01", "0.1"])
    bar.set_label("distance to the surface, in units of $x$")
    who = "exact score" if found.cloud.series.exact else found.cloud.series.label
    figure.suptitle(
        f"{who}, {found.cloud.panel.title}, N = {found.cloud.point.steps}\n"
        f"E($x^2 + y^2$) = {number(found.moment)}, exact {number(found.exact_moment)}{outside}"
    )

    def show(frame: int) -> None:
        ax.view_init(elev=34, azim=360 * frame / _FRAMES + 36)

    with settled(figure):
        show(0)
    return Movie(figure, _FRAMES, show, style)


def _scaled(ax: Axes3D, R: float, r: float, style: FigureStyle) -> None:
    """Axes with their names and two marks each, where names have room between them; and neither walls
    nor a grid. Offsets of 21 and 8 points, matplotlib's own, suit one size of text alone.
    """
    for axis, name, marks in ((ax.xaxis, "x", (-R, R)), (ax.yaxis, "y", (-R, R)), (ax.zaxis, "z", (-r, r))):
        axis.set_pane_color((0, 0, 0, 0))
        axis.line.set_color(style.muted)
        axis.set_ticks(marks, [f"{mark:g}".replace("-", "−") for mark in marks])
        axis.set_label_text(f"${name}$")
        axis.set_tick_params(pad=0.65 * style.size - 8)
        axis.labelpad = 1.5 * style.size - 21
    ax.grid(visible=False)
