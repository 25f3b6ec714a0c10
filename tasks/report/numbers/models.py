"""What each model answers by itself, whatever is drawn with it: likelihood, bounds, the mean error
of its score.

Such a metric belongs to a cell, and all its points repeat it: seeds are told apart by cell. Where
it has a floor (the true density's value on the same draws, for `nll`), the difference from it is
taken seed by seed: both depend on which points were drawn, their difference hardly does. Densities
are those of data with the least noise of the schedule, which therefore stands in the table. Exact
rows stand below the trained ones: what they have above the floor is the process', not a network's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tasks.report.lookup.points import Row
from tasks.report.numbers.curves import Mean, Series, Tabulation
from tasks.report.text import ROUNDING, number, plus_minus


@dataclass(frozen=True)
class ModelMeans:
    """One metric of one series: the seeds' values, their floors, and what they are above these."""

    value: Mean
    floor: Mean | None

    @property
    def above(self) -> Mean | None:
        """Seed by seed what the value is above its floor; None where that is none or nothing."""
        if self.floor is None:
            return None
        pairs = zip(self.value.values, self.floor.values, strict=True)
        return Mean(0, 0, tuple(0.0 if abs(v - f) <= ROUNDING * max(abs(v), abs(f)) else v - f for v, f in pairs))

    def lines(self) -> tuple[str, str]:
        """The value; and, where it has a floor, what it is above that."""
        above = self.above
        text = plus_minus(self.value.mean, self.value.sem)
        if above is None or self.floor is None:
            return text, ""
        return text, f"floor {number(self.floor.mean)}, above it {plus_minus(above.mean, above.sem)}"


@dataclass(frozen=True)
class OfModels:
    """The metrics of a data set's models, and a row for each series with what was measured."""

    metrics: tuple[str, ...]
    rows: tuple[
        tuple[Series, float, tuple[ModelMeans | None, ...]], ...
    ]  # with the least noise of the schedule, sigma / alpha

    @property
    def floors(self) -> bool:
        """Whether any of them has a floor."""
        return any(one is not None and one.floor is not None for *_, row in self.rows for one in row)


def of_models(table: Tabulation, dataset: str) -> OfModels | None:
    """The table of a data set; None where nothing of the kind was measured."""
    cells: dict[Series, dict[str, dict[str, Row]]] = {}
    for point in table.points:
        series = table.series_of(point.formulation, point.schedule)
        if point.dataset != dataset or series is None:
            continue
        for metric in table.of_models:
            if math.isfinite(point.values[metric]):
                cells.setdefault(series, {}).setdefault(metric, {}).setdefault(point.cell_id, point)
    metrics = tuple(metric for metric in table.of_models if any(metric in own for own in cells.values()))
    rows = tuple(
        (
            series,
            _least_noise(own),
            tuple(_measured(metric, own[metric]) if metric in own else None for metric in metrics),
        )
        for series, own in sorted(cells.items(), key=lambda item: item[0].key)
    )
    return OfModels(metrics, rows) if rows else None


def _least_noise(found: Mapping[str, Mapping[str, Row]]) -> float:
    """sigma / alpha at the t_min of the schedule; NaN where it is not known."""
    rows = (row for own in found.values() for row in own.values())
    schedule = next((row.requested.schedule.component for row in rows), None)
    if schedule is None:
        return math.nan
    return float(schedule.nsr(torch.tensor([schedule.t_min], dtype=torch.float64)))


def _measured(metric: str, found: dict[str, Row]) -> ModelMeans:
    points = sorted(found.values(), key=lambda point: point.seed)
    floors = tuple(point.floor(metric) for point in points)
    known = all(math.isfinite(floor) for floor in floors) and any(floors)
    return ModelMeans(
        Mean(0, 0, tuple(point.values[metric] for point in points)), Mean(0, 0, floors) if known else None
    )
