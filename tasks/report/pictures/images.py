"""Samples that are images, as images: a sheet of them for each step count beside the data, and a
few on their way from noise.

All sheets of a data set are laid out alike (`numbers.sheets`). The first samples of a run are
shown, whatever they look like; since start noise belongs to the data set and the seed, the same
place on two sheets is the same noise. A pixel travels as one byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.plain import Spec
from tasks.report.numbers.findings import thin
from tasks.report.numbers.kept import Kept, kept_trajectories, question_of
from tasks.report.numbers.sheets import Sheets
from tasks.report.pictures.style import Picture, Trajectories, one_byte, small_multiples
from tasks.report.text import number

if TYPE_CHECKING:
    import xarray as xr

    from tasks.report.lookup.targets import Target
    from tasks.report.numbers.curves import Series, Tabulation
    from tasks.results.models import ModelledAnswers

Array = NDArray[np.float64]
MOST_STEPS = 4
LEVELS = 10
FOLLOWED = 5  # images on their way
_BETWEEN = 0.12  # the shade of the lines between images


def data_picture(sheets: Sheets) -> Picture | None:
    """Some of the data; None where they are not known."""
    if sheets.data is None:
        return None
    _, height, width = sheets.shape
    text = f"{sheets.across**2} of the data, drawn at random; {height} x {width} pixels."
    return Picture("data", text, _side_by_side([("", sheets.first(sheets.data))], columns=1), "square")


def pictures(kept: Sequence[Kept], sheets: Sheets, *, by_panel: bool = False) -> list[Picture]:
    """For every run a sheet at up to four step counts, fewest and most included; titled by panel if
    asked to.
    """
    found = []
    for one in kept:
        steps = thin(sorted(one.values), MOST_STEPS)
        spec = _side_by_side([(f"N = {n}", sheets.first(one.values[n])) for n in steps], columns=2)
        text = f"{one.series.label} with {one.panel.title}, seed {one.seed}: the first {sheets.across**2} samples."
        title = one.panel.title if by_panel else one.series.label
        found.append(Picture(title, text, spec, "square", one.series.shown_with))
    return found


def trajectories(
    answers: ModelledAnswers, table: Tabulation, dataset: str, target: Target, sheets: Sheets
) -> tuple[Trajectories, int]:
    """One kept reverse trajectory per series, and how many more were kept."""
    chosen, more = kept_trajectories(answers, table, dataset, math.prod(sheets.shape))
    drawn = [
        (series, [_on_the_way(series, question_of(panel, point), kept, target, sheets)])
        for series, panel, point, kept in chosen
    ]
    return drawn, more


def _on_the_way(series: Series, sampled: str, kept: xr.DataArray, target: Target, sheets: Sheets) -> Picture:
    """Each level scaled to the spread that the data have about their middle grey: noise starts a
    hundred times wider.
    """
    n = kept.sizes["level"]
    levels = np.unique(np.linspace(0, n - 1, min(n, LEVELS)).round().astype(int))
    values = kept.transpose("level", "sample", "coordinate").values.astype(float)[levels, :FOLLOWED]
    alphas, sigmas = (np.broadcast_to(kept[name].values.astype(float), n)[levels] for name in ("alpha", "sigma"))
    middle = (sheets.low + sheets.high) / 2
    clean = target.standard_deviation(1.0, 0.0) or 1.0  # half of a picture leaves one picture, without spread
    scales = [
        clean / (target.standard_deviation(float(a), float(s)) or 1.0) for a, s in zip(alphas, sigmas, strict=True)
    ]
    shown = np.stack(
        [
            middle + (x - target.without_noise(np.array([middle]), float(a))) * scale
            for x, a, scale in zip(values, alphas, scales, strict=True)
        ],
        axis=1,
    )
    spec = _side_by_side([("", sheets.tiled(shown.reshape(-1, shown.shape[-1]), len(levels)))], columns=1)
    listed = ", ".join(number(float(s), 2) for s in sigmas)
    text = (
        f"{series.label} with {sampled}: {values.shape[1]} samples from noise (left) to image (right), each level scaled to the "
        f"spread of the data. σ from left to right: {listed}."
    )
    return Picture(f"{series.label}: on the way", text, spec, "short", series.shown_with)


def _side_by_side(shown: Sequence[tuple[str, Array]], columns: int) -> Spec:
    """Sheets of one size as heat maps with square pixels, row by row."""
    height, width = shown[0][1].shape
    hidden = {"visible": False, "fixedrange": True}
    axes = {**hidden, "range": [-0.5, width - 0.5]}, {**hidden, "range": [height - 0.5, -0.5]}
    maps = [(title, {"z": one_byte(np.nan_to_num(sheet, nan=_BETWEEN)), "hoverinfo": "skip"}) for title, sheet in shown]
    return small_multiples(maps, columns, (0.04, 0.07), lambda *_: axes, {"l": 6, "r": 6, "b": 6})
