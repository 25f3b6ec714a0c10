"""What several figures draw: a density as colours, a histogram, paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from tasks.report.text import some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.patches import StepPatch

    from tasks.figures.style import FigureStyle
    from tasks.report.lookup.targets import Target

Array = NDArray[np.float64]


def density_map(
    ax: Axes, values: Array, box: tuple[float, float, float, float], style: FigureStyle, top: float
) -> AxesImage:
    """A density ``[row, column]``, rows upwards, as colours from nothing to `top`.

    `box` is left, right, bottom and top of the picture.
    """
    shown = ax.imshow(
        values,
        cmap=style.density,
        vmin=0,
        vmax=top,
        extent=box,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        rasterized=True,
    )
    ax.set_xlim(box[0], box[1])
    ax.set_ylim(box[2], box[3])
    return shown


def histogram(
    ax: Axes, density: Array, edges: Array, color: str, *, label: str = "", upright: bool = True
) -> tuple[StepPatch, StepPatch]:
    """A density in bins, filled; lying on its side if it is not `upright`."""
    orientation: Literal["vertical", "horizontal"] = "vertical" if upright else "horizontal"
    filled = ax.stairs(density, edges, fill=True, color=color, alpha=0.4, orientation=orientation, linewidth=0)
    outline = ax.stairs(density, edges, color=color, orientation=orientation, linewidth=0.6, label=label)
    return filled, outline


def curve(
    ax: Axes, density: Array, edges: Array, style: FigureStyle, *, label: str = "", upright: bool = True
) -> Line2D:
    """A known density, dashed, through the middle of its bins."""
    middle = (edges[1:] + edges[:-1]) / 2
    across = (middle, density) if upright else (density, middle)
    (line,) = ax.plot(*across, color=style.accent, linestyle=(0, (4, 2)), linewidth=0.8 * style.line, label=label)
    return line


def dashed_ends(target: Target) -> str:
    """What the dashed lines at `target.support` are called in a title; nothing where there are
    none.
    """
    if target.support() is None:
        return ""
    return f"; dashed: {'ends' if target.has_ends() else '0.5 % and 99.5 % quantiles'} of the target"


def not_drawn(names: Sequence[str]) -> str:
    """What a title says of those for which there is no room; nothing where there is for all."""
    return f"not drawn: {some(names)}" if names else ""


def in_lines(*parts: str) -> str:
    """A title of several lines, without those that are empty."""
    return "\n".join(part for part in parts if part)


def tight(figure: Figure) -> None:
    """Panels that nearly touch, as images do."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.01, h_pad=0.04, wspace=0.02, hspace=0.02)


def apart(figure: Figure) -> None:
    """Panels of many images each, which have more between them than their images have."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(wspace=0.06)


def bare(ax: Axes) -> None:
    """Neither ticks nor frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def grid_of(count: int, columns: int) -> tuple[int, int]:
    """Rows and columns for so many panels."""
    columns = min(count, columns)
    return -(-count // columns), columns
