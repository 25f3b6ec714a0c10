"""The picture that the page opens with: quality against network evaluations, of all samplers at
once, with the best curves named on themselves.

Best are those that lead at some budget. They are drawn as in the panels of `quality`, each with the
exact denoiser's curve beside it; all others are thin. A name stands where its curve leads, on the
side where nothing of the same kind is better, so that it covers little, and as far away as it takes
to lie on no other name, no thick or dashed curve and no floor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from tasks.columns import FORWARD
from tasks.messages import counted
from tasks.plain import Spec
from tasks.report.numbers.curves import Curve, Mean, Tabulation
from tasks.report.numbers.findings import Best
from tasks.report.numbers.window import Window
from tasks.report.pictures.quality import curve_traces, floor_trace, upright
from tasks.report.pictures.style import Picture, axis, color, escaped, layout, listed, log_ticks
from tasks.report.text import capital, plus_minus

MOST_NAMED = 4
_WIDTH, _HEIGHT = 300, 300  # pixels of a small picture, in which names must not cover each other
_LETTER, _LINE = 6.4, 17
_TRIES = 4

Place: TypeAlias = "tuple[float, float]"


def answer_picture(table: Tabulation, best: Sequence[Best], metric: str) -> Picture | None:
    """The opening picture of a data set and metric; None where nothing is ranked.

    Args:
        table: The answers as curves.
        best: The leaders by budget, ascending.
        metric: What they were ranked by.
    """
    if not any(mean.nfe > 0 for one in best for mean in one.curve.at):  # nor drawn along evaluations that nobody made
        return None
    dataset, higher = best[0].curve.dataset, metric in table.higher_is_better
    leaders = list(dict.fromkeys(one.curve for one in reversed(best)))
    named = leaders[:MOST_NAMED]
    drawn = table.select(dataset, metric)
    trained = [curve for curve in drawn if not curve.series.exact] or drawn
    others = [curve for curve in trained if _compared(curve, named[0]) and curve not in named]
    beside = [curve for curve in drawn if curve.series.exact and _beside(curve, named)]
    learned = any(not curve.series.exact for curve in named)
    floors = sorted({f for one in named for f in table.floors_of(dataset, metric, one.panel.sampler) if f > 0})
    scale = Window.around([*named, *others, *(beside if learned else ())], floors)
    nfe = [mean.nfe for curve in (*named, *others) for mean in curve.at if mean.nfe > 0]
    lines = [*named, *(beside if learned else ())]
    places, scale = _with_names(named, best, scale, nfe, lines, floors, higher=higher)
    traces = [_thin(own, scale) for own in _by_series(others)]
    traces += [floor_trace(floor, min(nfe), max(nfe)) for floor in floors]
    traces += [t for curve in beside if learned for t in curve_traces(curve, scale, beside=True, banded=False)]
    traces += [t for curve in named for t in curve_traces(curve, scale, beside=False, banded=True)]
    traces += [_name(curve, *place) for curve, place in zip(named, places, strict=True)]
    better = "higher" if higher else "lower"
    spec = {
        "data": traces,
        "layout": layout(
            xaxis=axis("network evaluations (NFE)", **log_ticks(min(nfe) / 1.2, max(nfe) * 1.2, nfe)),
            yaxis=axis(f"{escaped(metric)} ({better} is better)", **upright(scale)),
        ),
    }
    title = f"{table.short(dataset)}: {metric} against network evaluations"
    kinds = [_leaders(best, len(leaders), len(named))]
    if others:
        kinds.append(f"thin: {counted(len(others), 'other')}")
    if beside and learned:
        kinds.append(
            "dashed: the exact denoiser in their place" if len(named) > 1 else "dashed: the exact denoiser in its place"
        )
    if floors:
        kinds.append("dotted: the sampling floor")
    return Picture(title, f"{_best(best[-1])} {capital('; '.join(kinds))}.", spec, "opening")


def _compared(curve: Curve, with_: Curve) -> bool:
    """Whether a curve is ranked with another one."""
    own, other = (one.start if not one.from_noise else "" for one in (curve, with_))
    return curve.process != FORWARD and own == other and any(mean.nfe > 0 for mean in curve.at)


def _beside(exact: Curve, named: Sequence[Curve]) -> bool:
    return any((exact.panel, exact.series.schedule) == (one.panel, one.series.schedule) for one in named)


def _by_series(curves: Sequence[Curve]) -> list[list[Curve]]:
    found: dict[int, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.series.key, []).append(curve)
    return list(found.values())


def _thin(curves: Sequence[Curve], scale: Window) -> Spec:
    """The curves of one series that never lead, as one trace."""
    x: list[float] = []
    y: list[float] = []
    words: list[str] = []
    for curve in curves:
        along, height = scale.line([m.nfe for m in curve.at], [scale.mean(m) for m in curve.at])
        x += [*along, math.nan]
        y += [*height, math.nan]
        words += [f"{escaped(curve.series.label)} with {escaped(curve.panel.title)}"] * len(along) + [""]
    series = curves[0].series
    return {
        "type": "scatter",
        "name": escaped(series.label),
        "meta": {"families": list(series.shown_with), "exact": False},
        "x": listed(x),
        "y": listed(y),
        "mode": "lines",
        "line": {"color": color(series.style, 0.45), "width": 1},
        "text": words,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _with_names(
    named: Sequence[Curve],
    best: Sequence[Best],
    scale: Window,
    nfe: Sequence[float],
    lines: Sequence[Curve],
    floors: Sequence[float],
    *,
    higher: bool,
) -> tuple[list[tuple[float, str, float]], Window]:
    """Places of the names, and the scale with room for them: a larger scale makes names cover more
    of it, so that they are placed again.
    """
    for _ in range(_TRIES):
        places = _placed(named, best, scale, nfe, _drawn(lines, floors, scale, nfe), higher=higher)
        larger = _with_room(scale, [height for *_, height in places])
        if (larger.low, larger.high) == (scale.low, scale.high):
            break
        scale = larger
    return places, scale


def _reach(nfe: Sequence[float]) -> tuple[float, float]:
    """The ends of the horizontal axis, as logarithms."""
    return math.log(min(nfe) / 1.2), math.log(max(nfe) * 1.2)


def _drawn(
    curves: Sequence[Curve], floors: Sequence[float], scale: Window, nfe: Sequence[float]
) -> list[tuple[Place, Place]]:
    """What names must not lie on, as pieces of lines in shares of the picture."""
    low, high = _reach(nfe)
    pieces = [((0.0, scale.share(floor)), (1.0, scale.share(floor))) for floor in floors]
    for curve in curves:
        along, heights = scale.line([mean.nfe for mean in curve.at], [scale.mean(mean) for mean in curve.at])
        places = [
            ((math.log(max(x, 1e-300)) - low) / (high - low), scale.share(y))
            for x, y in zip(along, heights, strict=True)
        ]
        pieces += [(a, b) for a, b in itertools.pairwise(places) if not math.isnan(a[1] + b[1])]
    return pieces


def _meets(piece: tuple[Place, Place], left: float, right: float, bottom: float, top: float) -> bool:
    """Whether a piece of a line passes through a box."""
    (x, y), (x_end, y_end) = sorted(piece)
    if x_end < left or x > right:
        return False
    slope = (y_end - y) / (x_end - x) if x_end > x else 0.0
    ends = [y + slope * (min(max(edge, x), x_end) - x) for edge in (left, right)]
    if x_end == x:
        ends = [y, y_end]
    return min(ends) < top and max(ends) > bottom


def _placed(
    named: Sequence[Curve],
    best: Sequence[Best],
    scale: Window,
    nfe: Sequence[float],
    lines: Sequence[tuple[Place, Place]],
    *,
    higher: bool,
) -> list[tuple[float, str, float]]:
    """Of each curve where its name stands: NFE, on which side of that, and how high."""
    low, high = _reach(nfe)
    taken: list[tuple[float, float, float]] = []
    found = []
    for curve in named:
        at = _leading(curve, best)
        across = (math.log(max(at.nfe, 1)) - low) / (high - low)
        wide = _LETTER * len(_text(curve)) / _WIDTH
        side = "right" if across < 0.34 else "left" if across > 0.66 else "center"
        left = across - {"right": 0.0, "center": wide / 2, "left": wide}[side]
        height, step = scale.share(scale.clip(scale.mean(at))), (1 if higher else -1) * _LINE / _HEIGHT
        height += step
        half, right = 0.45 * abs(step), left + wide
        while any(
            left < r and low_end < right and abs(height - h) < 0.99 * abs(step) for low_end, r, h in taken
        ) or any(_meets(piece, left, right, height - half, height + half) for piece in lines):
            height += 0.5 * step
        taken.append((left, left + wide, height))
        found.append((float(at.nfe), side, scale.at_share(height)))
    return found


def _leading(curve: Curve, best: Sequence[Best]) -> Mean:
    """The mean in the middle of the budgets at which a curve leads; of the winner of the largest
    budget, that one.
    """
    own = list(dict.fromkeys(one.at for one in best if one.curve == curve))
    return own[-1] if best[-1].curve == curve else own[len(own) // 2]


def _with_room(scale: Window, heights: Sequence[float]) -> Window:
    """The scale with room for names at these heights."""
    shares = [scale.share(height) for height in heights]
    low, high = (
        scale.at_share(min(0.0, *(s - 0.05 for s in shares))),
        scale.at_share(max(1.0, *(s + 0.05 for s in shares))),
    )
    return replace(scale, low=low, high=high)


def _text(curve: Curve) -> str:
    return f"{curve.series.label}, {curve.panel.title}"


def _name(curve: Curve, nfe: float, side: str, height: float) -> Spec:
    return {
        "type": "scatter",
        "name": escaped(curve.series.label),
        "meta": {"families": list(curve.series.shown_with), "exact": False},
        "x": [nfe],
        "y": listed([height]),
        "mode": "text",
        "text": [f"<b>{escaped(_text(curve))}</b>"],
        "textposition": f"middle {side}",
        "textfont": {"color": color(curve.series.style), "size": 12},
        "cliponaxis": False,
        "hoverinfo": "skip",
    }


def _best(last: Best) -> str:
    return f"Best at the largest budget: {last.who}, {last.curve.metric} {plus_minus(last.at.mean, last.at.sem)} at {last.at.nfe} NFE."


def _leaders(best: Sequence[Best], leaders: int, named: int) -> str:
    """Which curves are thick."""
    budget = "some budget" if len(best) == best[-1].costs else "some budget looked at"
    which = "the curve that leads" if leaders == 1 else f"the {leaders} curves that lead at {budget}"
    if named < leaders:
        which = f"{named} of {which}"
    return f"thick: {which}, with the 95 % band over seeds (from three seeds on)"
