"""Kept samples and trajectories of a data set, as pictures take them: one of each series, of one
sampler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.report.lookup.targets import Target, followed

if TYPE_CHECKING:
    import xarray as xr

    from tasks.report.lookup.points import Row
    from tasks.report.numbers.curves import Panel, Series, Tabulation
    from tasks.results.models import ModelledAnswers

Array = NDArray[np.float64]


_FAVOURITES = ("heun", "ddim", "euler")


@dataclass(frozen=True)
class Kept:
    """Kept samples of one series in one panel by one seed: step count -> values ``[n]`` on the
    line, else ``[n, dim]``.
    """

    panel: Panel
    series: Series
    seed: int
    values: Mapping[int, Array]
    target: Target | None = None  # what they should follow, where it is not the data set


def preference(panel: Panel) -> int:
    """How early a panel is shown: Heun's method, DDIM, and so on; others after them."""
    return _FAVOURITES.index(panel.rule) if panel.plain and panel.rule in _FAVOURITES else len(_FAVOURITES)


def default_panel(panels: Sequence[Panel]) -> Panel | None:
    """The panel shown first: Heun's method where there is one, else DDIM, else whatever comes
    first.
    """
    return min(panels, key=preference, default=None)


def kept_samples(
    answers: ModelledAnswers, table: Tabulation, dataset: str, dim: int, panel: Panel, target: Target
) -> tuple[list[Kept], bool]:
    """What was kept of a data set with one sampler, per series of the first seed that has any.

    And whether some is left out, because it should follow another law than the data set, and that
    is not known or not on the line.
    """
    found: dict[Series, Kept] = {}
    left_out = False
    for other, series, seed, points in table.answered(dataset):
        if series in found or other != panel:
            continue
        values = {}
        kept = answers.samples_of([point.point_id for point in points])
        for point in reversed(points):
            samples = kept.get(point.point_id)
            if samples is not None and samples.shape[1] == dim:
                values[point.steps] = samples.astype(float).reshape((-1,) if dim == 1 else (-1, dim))
        if not values:
            continue
        distribution = followed(target, points[0])  # of the most steps
        if distribution is target:
            found[series] = Kept(panel, series, seed, values)
        elif distribution is not None and dim == 1:
            found[series] = Kept(panel, series, seed, values, distribution)
        else:
            left_out = True
    return list(found.values()), left_out


def values_in(kept: Kept) -> str:
    """How many samples a column holds."""
    return f"{next(iter(kept.values.values())).size:,}"


def question_of(panel: Panel, point: Row) -> str:
    """Sampler and step count."""
    return f"{panel.title}, N = {point.steps}"


def kept_trajectories(
    answers: ModelledAnswers, table: Tabulation, dataset: str, dim: int
) -> tuple[list[tuple[Series, Panel, Row, xr.DataArray]], int]:
    """One kept trajectory of each series, of the panel that is shown first; and how many more were
    kept.
    """
    found: dict[Series, tuple[Panel, Row]] = {}
    seen = 0
    for panel, series, _, points in table.answered(dataset):
        for point in points:
            shape = answers.trajectory_shape(point.point_id)
            if shape is None or shape[0] < 2 or shape[2] != dim:
                continue
            seen += 1
            if series not in found or preference(panel) < preference(found[series][0]):
                found[series] = (panel, point)
    chosen = [
        (series, panel, point, kept)
        for series, (panel, point) in sorted(found.items(), key=lambda item: item[0].key)
        if (kept := answers.trajectory(point.point_id)) is not None
    ]
    return chosen, seen - len(chosen)
