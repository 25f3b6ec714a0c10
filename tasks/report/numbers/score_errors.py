"""How far learned scores are from the exact one, noise level by noise level, over seeds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tasks.report.numbers.curves import Mean, Series, Tabulation

if TYPE_CHECKING:
    import xarray as xr


def errors_by_level(found: xr.DataArray, table: Tabulation, dataset: str) -> dict[Series, list[tuple[float, Mean]]]:
    """By series its noise levels, ascending, each with the errors of its seeds."""
    if found.size == 0 or "cell" not in found.dims:
        return {}
    values = found.transpose("cell", "level").values.astype(float)
    levels = found["nsr"].broadcast_like(found).transpose("cell", "level").values.astype(float)
    groups: dict[Series, dict[float, list[float]]] = {}
    for i, owner in enumerate(found["dataset"].values.astype(str)):
        formulation, schedule = (str(found[name].values[i]) for name in ("formulation", "schedule"))
        series = table.series_of(formulation, schedule)
        if owner != dataset or series is None or series.exact:
            continue
        for nsr, value in zip(levels[i].tolist(), values[i].tolist(), strict=True):
            if math.isfinite(nsr) and nsr > 0 and math.isfinite(value) and value > 0:
                groups.setdefault(series, {}).setdefault(float(f"{nsr:.9g}"), []).append(value)
    return {
        series: [(nsr, Mean(0, 0, tuple(errors))) for nsr, errors in sorted(own.items())]
        for series, own in sorted(groups.items(), key=lambda item: item[0].key)
    }
