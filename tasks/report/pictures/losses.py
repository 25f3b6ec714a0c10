"""Training losses: the mean over seeds, each seed faint behind it."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from tasks.plain import Spec
from tasks.report.numbers.curves import Series, Tabulation
from tasks.report.pictures.style import Picture, axis, color, dash, escaped, layout, listed, log_ticks, packed
from tasks.report.text import number

_LOSS_POINTS = 200
_FAINT = 100  # seeds of a series that are drawn one by one: more are a grey area and a heavy page


def losses(found: xr.DataArray, table: Tabulation, dataset: str) -> Picture | None:
    """Training losses of one dataset: the mean over all seeds, up to a hundred faint behind it."""
    if found.size == 0 or "cell" not in found.dims:
        return None
    own = [i for i, name in enumerate(found["dataset"].values.astype(str)) if name == dataset]
    groups: dict[Series, list[int]] = {}
    formulations, schedules = (found[name].values.astype(str) for name in ("formulation", "schedule"))
    for i in own:
        series = table.series_of(str(formulations[i]), str(schedules[i]))
        if series is not None and not series.exact:
            groups.setdefault(series, []).append(i)
    every = max(1, math.ceil(found.sizes["progress"] / _LOSS_POINTS))
    recorded = (
        found["step"] if "step" in found.coords else xr.DataArray(np.arange(found.sizes["progress"]), dims="progress")
    )
    # studies may train cells for different numbers of steps: every cell has its own
    steps = recorded.broadcast_like(found).transpose("cell", "progress").values.astype(float)[:, ::every]
    values = found.transpose("cell", "progress").values.astype(float)[:, ::every]
    shown = values[[i for members in groups.values() for i in members]]
    shown = shown[np.isfinite(shown)]
    if not shown.size:
        return None
    traces: list[Spec] = []
    for series, members in groups.items():
        meta = {"families": list(series.shown_with), "exact": False}
        common = {"type": "scatter", "mode": "lines", "name": escaped(series.label), "meta": meta}
        if len(members) > 1:
            line = {"color": color(series.style, 0.3), "width": 1}
            traces += [
                {**common, "x": packed(steps[i]), "y": packed(values[i]), "line": line, "hoverinfo": "skip"}
                for i in members[:_FAINT]
            ]
        members = [i for i in members if np.array_equal(steps[i], steps[members[0]], equal_nan=True)]  # noqa: PLW2901
        known = np.isfinite(values[members])
        total = np.where(known, values[members], 0.0).sum(axis=0)
        mean = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
        line = {"color": color(series.style), "width": 2.2, "dash": dash(series.style)}
        hover = f"{escaped(series.label)}<br>step %{{x}}: %{{y:.4g}}<extra></extra>"
        traces.append(
            {**common, "x": packed(steps[members[0]]), "y": packed(mean), "line": line, "hovertemplate": hover}
        )
    upwards = axis("training loss")
    if (shown > 0).all():
        upwards |= log_ticks(float(np.quantile(shown, 0.001)) / 1.3, float(np.quantile(shown, 0.999)) * 1.3)
    ends = ", ".join(f"{series.label} {number(_last(values[members]))}" for series, members in groups.items())
    most = max(map(len, groups.values()))
    each = f"the first {_FAINT} of {most:,} seeds" if most > _FAINT else "each seed"
    caption = (
        f"Mean training loss per bin of steps; {each} faint, the mean bold. At the end: {ends}. Each formulation "
        "weights noise levels in its own way: compare shapes within one, never heights between two."
    )
    across = axis("training step", range=listed([0, 1.01 * float(np.nanmax(steps[own]))]))
    spec = {"data": traces, "layout": layout(xaxis=across, yaxis=upwards)}
    return Picture(f"Training loss, {dataset}", caption, spec, shape="tall")


def _last(values: np.ndarray) -> float:
    ends = [row[np.isfinite(row)][-1] for row in values if np.isfinite(row).any()]
    return float(np.mean(ends)) if ends else math.nan
