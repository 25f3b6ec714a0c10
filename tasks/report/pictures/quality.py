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

import numpy as np

from tasks.columns import distinct
from tasks.plain import Spec
from tasks.report.numbers.curves import Curve, Mean, Tabulation
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
from tasks.report.text import counted, number, plus_minus

if TYPE_CHECKING:
    from collections.abc import Sequence

_DECADES_ABOVE_MEDIAN = 3.3
MOST_BANDS = 8  # curves in one picture; the bands of more cover each other
MOST_TALL = 4


def quality(table: Tabulation, dataset: str, metric: str) -> list[Picture]:
    """One panel per sampler: the metric against NFE. Baselines are level lines in all of them."""
    curves = table.select(dataset, metric)
    if not curves:
        return []
    baselines = table.baselines(dataset, metric)
    floors = {panel: table.floors_of(dataset, metric, panel.sampler) for panel in table.panels[dataset]}
    scale = _Scale.around(curves, distinct(floor for own in floors.values() for floor in own))
    compared = any(not curve.series.exact for curve in curves)
    nfe = [mean.nfe for curve in curves for mean in curve.at if mean.nfe > 0] or [1]
    across = axis("network evaluations (NFE)", **log_ticks(min(nfe) / 1.2, max(nfe) * 1.2, nfe))
    upwards = axis(escaped(metric), **scale.axis())
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
            for trace in _traces(curve, scale, compared and curve.series.exact, banded=not crowded, by_steps=free)
        ]
        traces += [_level_trace(curve, scale, first, last) for curve in baselines]
        traces += [_floor_trace(floor, first, last) for floor in floors[panel] if floor > 0 or not scale.logarithmic]
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


class _Scale:
    """The shared vertical axis of a group of panels."""

    def __init__(self, low: float, high: float, *, logarithmic: bool) -> None:
        self.low, self.high, self.logarithmic = low, high, logarithmic

    @classmethod
    def around(cls, curves: Sequence[Curve], floors: Sequence[float]) -> _Scale:
        values = np.concatenate([mean.values for curve in curves for mean in curve.at])
        if (values < 0).any():
            means = np.array([mean.mean for curve in curves for mean in curve.at])
            middle, reach = float(np.median(means)), float(np.median(np.abs(means - np.median(means)))) or 1.0
            low, high = max(means.min(), middle - 30 * reach), min(means.max(), middle + 30 * reach)
            margin = 0.06 * (high - low) or 1.0
            return cls(low - margin, high + margin, logarithmic=False)
        means = np.array([mean.geometric_mean for curve in curves for mean in curve.at])
        positive = means[means > 0]
        positive = np.append(positive, [floor for floor in floors if floor > 0])
        if not positive.size:
            return cls(0.1, 10.0, logarithmic=True)
        top = float(np.median(positive)) * 10**_DECADES_ABOVE_MEDIAN
        bottom = float(np.median(positive)) / 10 ** (2 * _DECADES_ABOVE_MEDIAN)
        inside = positive[(positive <= top) & (positive >= bottom)]
        return cls(float(inside.min()) / 2.2, float(inside.max()) * 1.8, logarithmic=True)

    def mean(self, at: Mean) -> float:
        """What is drawn of the seeds: the geometric mean on a logarithmic axis."""
        return at.geometric_mean if self.logarithmic else at.mean

    def interval(self, at: Mean) -> tuple[float, float] | None:
        """The 95 % interval of what is drawn."""
        return at.geometric_interval if self.logarithmic else at.interval

    def axis(self) -> Spec:
        return log_ticks(self.low, self.high) if self.logarithmic else {"range": listed([self.low, self.high])}

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def line(self, across: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
        """The polygon through the values (logarithmic across) as far as it lies in the picture; NaN
        where it does not.
        """
        low, high = self._height(self.low), self._height(self.high)
        places = [(math.log(max(x, 1e-300)), self._height(value)) for x, value in zip(across, values, strict=True)]
        drawn: list[tuple[float, float]] = []
        for k, (a, b) in enumerate(zip(places, places[1:] or places, strict=False)):
            inside = [_crossing(a, b, edge) for edge in (low, high) if (a[1] - edge) * (b[1] - edge) < 0]
            part = sorted([p for p in (a, b) if low <= p[1] <= high] + inside)
            if not part:
                continue
            joined = k and drawn and drawn[-1] == part[0]
            drawn += part[1:] if joined else ([(math.nan, math.nan)] if drawn else []) + part
        return [math.exp(x) for x, _ in drawn], [self._value(y) for _, y in drawn]

    def _height(self, value: float) -> float:
        return math.log(min(max(value, 1e-300), 1e300)) if self.logarithmic else value

    def _value(self, height: float) -> float:
        return math.exp(height) if self.logarithmic else height

    def edges(self) -> tuple[float, float]:
        """Just inside the picture, where a mark is still drawn."""
        if self.logarithmic:
            inset = (self.high / self.low) ** 0.015
            return self.low * inset, self.high / inset
        inset = 0.015 * (self.high - self.low)
        return self.low + inset, self.high - inset


def _crossing(a: tuple[float, float], b: tuple[float, float], height: float) -> tuple[float, float]:
    """Where the straight line from a to b reaches a height."""
    share = (height - a[1]) / (b[1] - a[1])
    return a[0] + share * (b[0] - a[0]), height


def _traces(curve: Curve, scale: _Scale, beside: bool, *, banded: bool, by_steps: bool = False) -> list[Spec]:
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


def _as_drawn(mean: Mean, scale: _Scale) -> str:
    """The geometric mean, where that is drawn and another number than the mean."""
    apart = scale.logarithmic and len(set(mean.values)) > 1
    return f"<br>geometric mean {number(scale.mean(mean))}" if apart else ""


def _level_trace(curve: Curve, scale: _Scale, first: int, last: int) -> Spec:
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


def _floor_trace(floor: float, first: int, last: int) -> Spec:
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
