"""Curves: quality against network evaluations.

Quality is drawn on two logarithmic axes: a sampler of order p is a straight line of slope -p until
it meets a floor. A curve goes through the geometric means over seeds, and its band is the 95 %
interval of the mean logarithm (`Mean.geometric_interval`). A metric that has a negative value is
drawn on a linear axis, with arithmetic means and their intervals. All panels of a dataset and
metric share their axes, so that samplers can be compared by eye. A run that explodes (VE with
Heun's method and two steps errs by 10^8) would flatten everything else: what lies far above the
rest is drawn as a triangle on the upper edge, with its value on hover and in the table. Lines leave
the picture where they cross its edge and come back where they do; nothing is drawn along it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tasks.columns import distinct
from tasks.messages import counted
from tasks.plain import Spec
from tasks.report.numbers.curves import Curve, Mean, Tabulation
from tasks.report.numbers.window import Window
from tasks.report.pictures.style import (
    Picture,
    axis,
    color,
    escaped,
    layout,
    listed,
    log_ticks,
    symbol,
)
from tasks.report.text import number, plus_minus

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BANDS = 8  # curves in one picture; the bands of more cover each other
MOST_TALL = 4


def quality(table: Tabulation, dataset: str, metric: str) -> list[Picture]:
    """One panel per sampler: the metric against NFE. Baselines are level lines in all of them."""
    curves = table.select(dataset, metric)
    if not curves:
        return []
    baselines = table.baselines(dataset, metric)
    floors = {panel: table.floors_of(dataset, metric, panel.sampler) for panel in table.panels[dataset]}
    scale = Window.around(curves, distinct(floor for own in floors.values() for floor in own))
    compared = any(not curve.series.exact for curve in curves)
    nfe = [mean.nfe for curve in curves for mean in curve.at if mean.nfe > 0] or [1]
    across = axis("network evaluations (NFE)", **log_ticks(min(nfe) / 1.2, max(nfe) * 1.2, nfe))
    upwards = axis(escaped(metric), **upright(scale))
    crowded = len({curve.series for curve in curves if not compared or not curve.series.exact}) > MOST_BANDS
    pictures = []
    for panel in table.panels[dataset]:
        own = [curve for curve in curves if curve.panel == panel]
        if not own or own[0] in baselines:
            continue
        free = not any(mean.nfe for curve in own for mean in curve.at)  # it asks no model: steps are all it has
        steps = [mean.steps for curve in own for mean in curve.at]
        first, last = (min(steps), max(steps)) if free else (min(nfe), max(nfe))
        traces = [
            trace
            for curve in own
            for trace in curve_traces(curve, scale, compared and curve.series.exact, banded=not crowded, by_steps=free)
        ]
        traces += [_level_trace(curve, scale, first, last) for curve in baselines]
        traces += [floor_trace(floor, first, last) for floor in floors[panel] if floor > 0 or not scale.logarithmic]
        moves = axis("steps N (no network is asked)", **log_ticks(first / 1.2, last * 1.2, steps))
        pictures.append(
            Picture(
                title=panel.title,
                caption=_caption(own, metric, higher=metric in table.higher_is_better),
                spec={"data": traces, "layout": layout(xaxis=moves if free else across, yaxis=upwards)},
                shape="tall" if crowded and len(table.panels[dataset]) <= MOST_TALL else "short",
            )
        )
    return pictures


def upright(scale: Window) -> Spec:
    """What plotly is told of the vertical axis."""
    low, high = scale.low, scale.high
    return log_ticks(low, high) if scale.logarithmic else {"range": listed([low, high])}


def curve_traces(curve: Curve, scale: Window, beside: bool, *, banded: bool, by_steps: bool = False) -> list[Spec]:
    """One curve, against its cost or `by_steps`; `beside` is the exact denoiser's beside trained
    ones: without a band.
    """
    series = curve.series
    name = escaped(series.label)
    paint = color(series.style)
    meta = {"families": list(series.shown_with), "exact": series.exact}
    x = [mean.steps if by_steps else mean.nfe for mean in curve.at]
    means = [scale.mean(mean) for mean in curve.at]
    inside = [value if scale.low <= value <= scale.high else None for value in means]
    hover = [
        f"{name}<br>N = {m.steps}, NFE = {m.nfe}<br>{escaped(curve.metric)} {plus_minus(m.mean, m.sem)}"
        f"{_as_drawn(m, scale)}<br>{counted(len(m.values), 'seed')}"
        for m in curve.at
    ]
    common = {"type": "scatter", "name": name, "meta": meta}
    traces: list[Spec] = []
    intervals = [
        (at, interval) for at, m in zip(x, curve.at, strict=True) if (interval := scale.interval(m)) is not None
    ]
    if len(intervals) > 1 and banded and not beside:
        lower = [scale.clip(low) for _, (low, _) in intervals]
        upper = [scale.clip(high) for _, (_, high) in intervals]
        cost = [nfe for nfe, _ in intervals]
        band = {"x": cost + cost[::-1], "y": listed(upper + lower[::-1]), "mode": "lines", "line": {"width": 0}}
        traces.append({**common, **band, "fill": "toself", "fillcolor": color(series.style, 0.16), "hoverinfo": "skip"})
    along, height = scale.line(x, means)
    traces.append(
        {
            **common,
            "x": listed(along),
            "y": listed(height),
            "mode": "lines",
            "line": {"color": paint, "width": 1.6 if beside else 2, "dash": "dash" if beside else "solid"},
            "hoverinfo": "skip",
        }
    )
    marker: Spec = {"symbol": symbol(series.style), "color": paint, "size": 7}
    if beside:
        marker = {"symbol": f"{symbol(series.style)}-open", "color": paint, "size": 6}
    points = {"mode": "markers", "marker": marker, "text": hover, "hovertemplate": "%{text}<extra></extra>"}
    traces.append({**common, "x": x, "y": listed([math.nan if v is None else v for v in inside]), **points})
    lowest, highest = scale.edges()
    for edge, shape, outside in (
        (highest, "triangle-up", [i for i, v in enumerate(means) if v > scale.high]),
        (lowest, "triangle-down", [i for i, v in enumerate(means) if v < scale.low]),
    ):
        if outside:
            sign = {"symbol": shape, "color": paint, "size": 11, "line": {"color": "@ink", "width": 1}}
            where = {
                "x": [x[i] for i in outside],
                "y": listed([edge] * len(outside)),
                "text": [hover[i] for i in outside],
            }
            traces.append({**common, **points, **where, "marker": sign, "cliponaxis": False})
    return traces


def _as_drawn(mean: Mean, scale: Window) -> str:
    """The geometric mean, where that is drawn and another number than the mean."""
    apart = scale.logarithmic and len(set(mean.values)) > 1
    return f"<br>geometric mean {number(scale.mean(mean))}" if apart else ""


def _level_trace(curve: Curve, scale: Window, first: int, last: int) -> Spec:
    """A baseline: what a model scores that samples in its own way, at one cost."""
    (at,) = curve.at
    series = curve.series
    name = escaped(series.label)
    words = f"{name}, in its own way: NFE = {at.nfe}<br>{escaped(curve.metric)} {plus_minus(at.mean, at.sem)}{_as_drawn(at, scale)}"
    height = scale.clip(scale.mean(at))
    return {
        "type": "scatter",
        "name": name,
        "meta": {"families": list(series.shown_with), "exact": False},
        "x": listed([first / 1.2, first, last, last * 1.2]),
        "y": listed([height] * 4),
        "mode": "lines+text",
        "line": {"color": color(series.style), "width": 1.6, "dash": "dashdot"},
        "text": ["", "", "", name],
        "textposition": "top left",
        "textfont": {"color": color(series.style), "size": 11},
        "hovertemplate": f"{words}<br>{counted(len(at.values), 'seed')}<extra></extra>",
    }


def floor_trace(floor: float, first: int, last: int) -> Spec:
    """What as many perfect samples would score."""
    return {
        "type": "scatter",
        "name": "sampling floor",
        "x": listed([first / 1.2, first, last * 1.2]),
        "y": listed([floor] * 3),
        "mode": "lines+text",
        "line": {"color": "@muted", "width": 1.5, "dash": "dot"},
        "text": ["", "floor", ""],
        "textposition": "bottom right",
        "textfont": {"color": "@muted", "size": 11},
        "hovertemplate": f"sampling floor {number(floor)}<extra></extra>",
    }


def _caption(curves: Sequence[Curve], metric: str, *, higher: bool) -> str:
    """The picture in words, for whoever does not see it."""
    trained = [curve for curve in curves if not curve.series.exact] or list(curves)
    pairs = [(curve, mean) for curve in trained for mean in curve.at]
    pick = max if higher else min
    curve, best = pick(pairs, key=lambda pair: pair[1].mean)
    last = max(mean.nfe for _, mean in pairs)
    ends = [(c, m) for c, m in pairs if m.nfe == last]
    text = f"Best: {curve.series.label}, {metric} {plus_minus(best.mean, best.sem)} at {best.nfe} NFE."
    if len({c.series for c, _ in ends}) > 1:
        worst_curve, worst = (min if higher else max)(ends, key=lambda pair: pair[1].mean)
        text += f" At {last} NFE the farthest is {worst_curve.series.label} with {number(worst.mean)}."
    return text
