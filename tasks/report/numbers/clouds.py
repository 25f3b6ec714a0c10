"""Samples in space, and how far they are from a torus.

The distance of a point to the torus around the z axis is ``d = |hypot(hypot(x, y) - R, z) - r|``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.report.lookup.targets import followed
from tasks.report.numbers.kept import default_panel

if TYPE_CHECKING:
    from tasks.report.lookup.points import Row
    from tasks.report.lookup.targets import Target
    from tasks.report.numbers.curves import Panel, Series, Tabulation
    from tasks.results.models import ModelledAnswers

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cloud:
    """Kept samples ``[sample, dim]`` of one series at its largest step count."""

    series: Series
    panel: Panel
    point: Row
    values: Array


def clouds(answers: ModelledAnswers, table: Tabulation, target: Target, dim: int) -> list[Cloud]:
    """One cloud per series, of the favourite sampler that has kept samples, at the largest step
    count.

    Without samples that should follow another law than the data: beside the surface they would look
    wrong.
    """
    dataset = target.name
    found: dict[tuple[Panel, Series], Cloud] = {}
    for panel, series, _, points in table.answered(dataset):
        if (panel, series) in found:
            continue
        if followed(target, points[0]) is not target:
            continue
        for point in points:
            kept = answers.samples(point.point_id)
            if kept is not None and kept.sizes.get("coordinate") == dim:
                values = kept.transpose("sample", "coordinate").values.astype(float)
                found[panel, series] = Cloud(series, panel, point, values)
                break
    shown = default_panel([panel for panel in table.panels[dataset] if any(panel == key[0] for key in found)])
    return [cloud for (panel, _), cloud in found.items() if panel == shown]


def box_of(values: Array, target: Target) -> Array:
    """Half-widths of the box that is drawn: the torus with a margin, or nearly all samples."""
    if target.torus_radii:
        R, r = target.torus_radii
        return np.array([1.15 * (R + r), 1.15 * (R + r), 1.8 * r])
    half: Array = 1.15 * np.quantile(np.abs(values), 0.99, axis=0) if len(values) else np.ones(3)
    return np.where(half > 0, half, 1.0)


def surface_distance(values: Array, R: float, r: float) -> Array:
    """Distance of points ``[n, 3]`` to the torus around the z axis with radii R > r."""
    rho = np.hypot(values[:, 0], values[:, 1])
    found: Array = np.abs(np.hypot(rho - R, values[:, 2]) - r)
    return found


def finite(values: Array) -> Array:
    """The points ``[n, dim]`` of which all coordinates are finite."""
    return values[np.isfinite(values).all(axis=1)]
