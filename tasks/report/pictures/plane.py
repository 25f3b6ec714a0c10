"""Samples in the plane: their density beside the target's, at a few step counts, and on the way
from noise to data.

All pictures of a data set share one outlook (`numbers.outlook`) and colours, so that they can be
compared by eye.

Densities travel as one byte per bin: 255 is the darkest colour, and whatever lies above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.plain import Spec
from tasks.report.numbers.findings import thin
from tasks.report.numbers.kept import Kept, kept_trajectories, question_of
from tasks.report.numbers.outlook import BINS, Outlook
from tasks.report.pictures.style import (
    Picture,
    Trajectories,
    axis,
    listed,
    midpoints,
    one_byte,
    packed,
    small_multiples,
)
from tasks.report.text import number

if TYPE_CHECKING:
    import xarray as xr

    from tasks.report.lookup.targets import Target
    from tasks.report.numbers.curves import Series, Tabulation
    from tasks.results.models import ModelledAnswers

Array = NDArray[np.float64]
MOST_STEPS = 4
LEVELS = 6


def target_picture(view: Outlook) -> Picture | None:
    """The exact target, as many draws of it; None where it is not known."""
    if view.target is None:
        return None
    whole = Outlook(view.names, np.eye(2), view.edges, view.top, "", None)
    density, _ = whole.density(view.target)
    spec = _grid([("", density)], view, columns=1)
    return Picture("target", f"{len(view.target):,} draws of the exact target.{view.note}", spec, "square")


def pictures(kept: Sequence[Kept], view: Outlook, *, by_panel: bool = False) -> list[Picture]:
    """For every run its density at up to four step counts, fewest and most included; titled by
    panel if asked to.
    """
    found = []
    for one in kept:
        steps = thin(sorted(one.values), MOST_STEPS)
        densities, outside = zip(*(view.density(one.values[n]) for n in steps), strict=True)
        spec = _grid([(f"N = {n}", d) for n, d in zip(steps, densities, strict=True)], view, columns=2)
        worst = max(zip(outside, steps, strict=True))
        text = (
            f"{one.series.label} with {one.panel.title}, seed {one.seed}, {len(one.values[steps[-1]]):,} samples each."
        )
        if worst[0] >= 0.005:
            text += f" Outside the picture: up to {100 * worst[0]:.0f} % (N = {worst[1]})."
        title = one.panel.title if by_panel else one.series.label
        found.append(Picture(title, text, spec, "square", one.series.shown_with))
    return found


def trajectories(
    answers: ModelledAnswers, table: Tabulation, dataset: str, target: Target, view: Outlook
) -> tuple[Trajectories, int]:
    """One kept reverse trajectory per series, and how many more were kept."""
    chosen, more = kept_trajectories(answers, table, dataset, view.axes.shape[1])
    pictures = [
        (series, [_on_the_way(series, question_of(panel, point), kept, target, view)])
        for series, panel, point, kept in chosen
    ]
    return pictures, more


def _on_the_way(series: Series, sampled: str, kept: xr.DataArray, target: Target, view: Outlook) -> Picture:
    """Each level divided by the standard deviation that the exact law has there: noise starts a
    hundred times wider.
    """
    n = kept.sizes["level"]
    levels = np.unique(np.linspace(0, n - 1, min(n, LEVELS)).round().astype(int)).tolist()
    values = kept.transpose("level", "sample", "coordinate").values.astype(float)
    alphas, sigmas = (np.broadcast_to(kept[name].values.astype(float), n) for name in ("alpha", "sigma"))
    edges = np.linspace(-3, 3, BINS + 1)
    window = Outlook(view.names, view.axes, (edges, edges), view.top, "", None)
    shown, tops = [], []
    for level in levels:
        scale = target.standard_deviation(float(alphas[level]), float(sigmas[level])) or 1.0
        density, _ = window.density((values[level] - target.shift) / scale)
        shown.append((f"level {level}, σ = {number(float(sigmas[level]), 2)}", density))
        tops.append(float(np.quantile(density[density > 0], 0.98)) if (density > 0).any() else 1.0)
    # one colour scale for all would show the noise as nothing beside concentrated data
    spec = _grid(shown, window, columns=3, tops=tops)
    text = (
        f"{series.label} with {sampled}, {kept.sizes['sample']:,} samples: x divided by the exact "
        "standard deviation at its level, level 0 is noise. Each level has its own scale of colours."
    )
    return Picture(f"{series.label}: on the way", text, spec, "triple", series.shown_with)


def _grid(
    densities: Iterable[tuple[str, Array]], view: Outlook, columns: int, tops: Sequence[float] | None = None
) -> Spec:
    """Small heat maps on one window, row by row."""
    shown = list(densities)
    x, y = (packed(midpoints(edge)) for edge in view.edges)
    hover = "(%{x:.3g}, %{y:.3g})<extra></extra>"
    maps = [
        (title, {"x": x, "y": y, "z": one_byte(density.T / top), "hovertemplate": hover})
        for (title, density), top in zip(shown, tops or [view.top] * len(shown), strict=True)
    ]
    return small_multiples(
        maps,
        columns,
        (0.05, 0.1),
        lambda last_row, first_column: (
            _side(view.names[0], view.edges[0], labelled=last_row),
            _side(view.names[1], view.edges[1], labelled=first_column),
        ),
        {"l": 46, "r": 8, "b": 40},
    )


def _side(title: str, edges: Array, *, labelled: bool) -> Spec:
    return axis(
        title if labelled else "",
        range=listed(edges[[0, -1]]),
        showgrid=False,
        nticks=4,
        showticklabels=labelled,
        tickfont={"size": 10},
    )
