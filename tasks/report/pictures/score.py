"""How far the learned score is from the exact one, noise level by noise level.

The error is a mean square, positive, and varies over decades between levels and by factors between
seeds: curves are geometric means over seeds, bands the 95 % interval of the mean of its logarithm
by Student's t, from three seeds on. Both axes are logarithmic. Exact denoisers err by rounding only
and are left out.
"""

from __future__ import annotations

import xarray as xr

from tasks.messages import counted
from tasks.plain import Spec
from tasks.report.numbers.curves import Mean, Series, Tabulation
from tasks.report.numbers.score_errors import errors_by_level
from tasks.report.pictures.style import Picture, axis, color, escaped, layout, listed, log_ticks, symbol
from tasks.report.text import number


def score_errors(found: xr.DataArray, table: Tabulation, dataset: str) -> Picture | None:
    """One curve per trained series of a data set, or None where nothing of the kind was measured."""
    curves = errors_by_level(found, table, dataset)
    if not curves:
        return None
    traces = [trace for series, levels in curves.items() for trace in _traces(series, levels)]
    everything = [(nsr, mean.geometric_mean) for levels in curves.values() for nsr, mean in levels]
    across = [nsr for nsr, _ in everything]
    upwards = [error for _, error in everything]
    bottom = max(min(upwards), max(upwards) * 1e-9)  # one level that is right by chance shall not flatten the rest
    spec = {
        "data": traces,
        "layout": layout(
            xaxis=axis("noise-to-signal ratio σ / α", **log_ticks(min(across) / 1.3, max(across) * 1.3)),
            yaxis=axis(
                "error of the score, σ² E|s<sub>θ</sub> − s|² / dim", **log_ticks(bottom / 1.6, max(upwards) * 1.6)
            ),
        ),
    }
    worst = [max(levels, key=lambda one: one[1].geometric_mean) for levels in curves.values()]
    peaks = "; ".join(
        f"{series.label} {number(mean.geometric_mean)} at σ/α = {number(nsr, 2)}"
        for series, (nsr, mean) in zip(curves, worst, strict=True)
    )
    return Picture(f"Error of the learned score, {dataset}", f"Each curve at its highest: {peaks}.", spec, shape="tall")


def _traces(series: Series, levels: list[tuple[float, Mean]]) -> list[Spec]:
    name = escaped(series.label)
    common: Spec = {"type": "scatter", "name": name, "meta": {"families": list(series.shown_with), "exact": False}}
    traces: list[Spec] = []
    banded = [(nsr, interval) for nsr, mean in levels if (interval := mean.geometric_interval) is not None]
    if len(banded) > 1:
        x = [nsr for nsr, _ in banded]
        y = [high for _, (_, high) in banded] + [low for _, (low, _) in banded][::-1]
        band = {"x": listed(x + x[::-1]), "y": listed(y), "mode": "lines", "line": {"width": 0}, "fill": "toself"}
        traces.append({**common, **band, "fillcolor": color(series.style, 0.14), "hoverinfo": "skip"})
    hover = [
        f"{name}<br>σ/α = {number(nsr)}<br>{number(mean.geometric_mean)}<br>{counted(len(mean.values), 'seed')}"
        for nsr, mean in levels
    ]
    traces.append(
        {
            **common,
            "mode": "lines+markers",
            "x": listed([nsr for nsr, _ in levels]),
            "y": listed([mean.geometric_mean for _, mean in levels]),
            "line": {"color": color(series.style), "width": 2},
            "marker": {"symbol": symbol(series.style), "color": color(series.style), "size": 6},
            "text": hover,
            "hovertemplate": "%{text}<extra></extra>",
        }
    )
    return traces
