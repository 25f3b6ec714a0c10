"""Where an error comes from, as two pictures above each other.

The metric itself stands above on a logarithmic axis, with the interval of its geometric mean; below
it are its parts as they are, in the metric's units: a bar each, with the 95 % interval of its mean
over seeds. Parts span decades as N grows, and a part that is nothing is negative by chance every
other time: their axis is linear within one floor of zero, where noise is, and logarithmic far away
(asinh). A bar whose interval reaches across the line may be nothing. The hover gives all of a
column with their standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.plain import Spec
from tasks.report.numbers.curves import Mean
from tasks.report.numbers.decomposition import FLOOR, Origin, Split
from tasks.report.pictures.style import Picture, axis, escaped, layout, listed, log_ticks, tick_text
from tasks.report.text import number, plus_minus

WORDS = {"network": "network", "discretisation": "discretisation", "prior": "prior", FLOOR: "sampling floor"}


HATCHES = {"network": "", "discretisation": "/", "prior": "x", FLOOR: "."}


def picture(origin: Origin, metric: str, title: str) -> Picture:
    """The metric above, its parts below."""
    steps = [str(split.steps) for split in origin.at]
    ruler = Ruler.of(origin)
    traces: list[Spec] = [_bars(origin, part, steps, ruler) for part in origin.shown]
    whole = all(split.total.geometric_mean > 0 for split in origin.at)
    totals = [split.total.geometric_mean if whole else split.total.mean for split in origin.at]
    ends = [end for split in origin.at for end in (split.total.geometric_interval or ())] if whole else []
    positive = [value for value in (*totals, *ends) if value > 0]
    scale = axis(escaped(metric), domain=[0.7, 1], anchor="x2", nticks=4)
    if len(positive) == len(totals) + len(ends) and max(positive) < 1e6 * min(positive):
        scale |= _few_ticks(log_ticks(min(positive) / 1.5, max(positive) * 1.5))
    elif positive:
        scale |= _few_ticks(log_ticks(max(min(positive), max(positive) / 1e10) / 1.5, max(positive) * 1.5))
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": steps,
            "y": listed(totals),
            **_error_bars(
                [(value, split.total.geometric_interval) for value, split in zip(totals, origin.at, strict=True)]
            ),
            "text": [f"NFE = {split.total.nfe}: {escaped(metric)} {_in_numbers(split.total)}" for split in origin.at],
            "hovertemplate": "%{text}<extra></extra>",
            "line": {"color": "@ink", "width": 1.5},
            "marker": {"color": "@ink", "size": 5},
            "xaxis": "x2",
            "yaxis": "y2",
        }
    )
    zero = {
        "type": "line",
        "xref": "x domain",
        "x0": 0,
        "x1": 1,
        "y0": 0,
        "y1": 0,
        "line": {"color": "@ink", "width": 1},
    }
    spec = {
        "data": traces,
        "layout": layout(
            barmode="group",
            bargroupgap=0.04,
            hovermode="x unified",
            bargap=0.18,
            xaxis=axis("steps N", type="category", showgrid=False, tickangle=0, tickfont={"size": 10}),
            xaxis2=axis("", type="category", matches="x", anchor="y2", showticklabels=False, ticks="", showgrid=False),
            yaxis=axis("parts", domain=[0, 0.62], **ruler.axis()),
            yaxis2=scale,
            shapes=[zero],
        ),
    }
    first, last = origin.at[0], origin.at[-1]
    caption = f"At N = {first.steps}: {_in_words(first, origin.shown)}."
    if last is not first:
        caption += f" At N = {last.steps}: {_in_words(last, origin.shown)}."
    return Picture(title, caption, spec, families=origin.series.shown_with)


@dataclass(frozen=True)
class Ruler:
    """The axis of the parts: ``asinh(value / unit)``, of which the ends are given."""

    unit: float
    low: float
    high: float

    @classmethod
    def of(cls, origin: Origin) -> Ruler:
        """The axis on which all parts with their intervals are seen; its unit is the floor."""
        means = [split.parts[part] for split in origin.at for part in origin.shown]
        ends = [end for mean in means for end in (mean.mean, *(mean.interval or ()))]
        largest = max(map(abs, ends)) or 1.0
        floor = max(split.parts[FLOOR].mean for split in origin.at)
        unit = floor if floor > 1e-6 * largest else largest / 100
        return cls(unit, min(0.0, *ends), max(0.0, *ends))

    def at(self, value: float) -> float:
        """How high a value stands."""
        return math.asinh(value / self.unit)

    def axis(self) -> Spec:
        """Ticks at nothing and at few powers of ten on either side of it."""
        first = math.ceil(math.log10(self.unit) - 1e-9)
        last = math.floor(math.log10(max(self.high, -self.low, self.unit * 1.001)) + 1e-9)
        every = max(1, math.ceil((last - first + 1) / 4))
        factors = (1, 3) if every == 1 and last - first < 2 else (1,)
        powers = sorted({f * 10.0**power for power in range(last, first - 2, -every) for f in factors}, reverse=True)
        powers = [power for power in powers if power >= self.unit * 0.999] or [self.unit]
        low, high = self.at(self.low), self.at(self.high)
        margin = 0.04 * (high - low)
        values = [value for value in (*(-p for p in powers), 0.0, *powers[::-1]) if self.low <= value <= self.high]
        return {
            "range": listed([low - margin, high + margin]),
            "tickmode": "array",
            "tickvals": listed([self.at(value) for value in values]),
            "ticktext": [("−" if value < 0 else "") + (tick_text(abs(value)) if value else "0") for value in values],
        }


def _bars(origin: Origin, part: str, steps: Sequence[str], ruler: Ruler) -> Spec:
    means = [split.parts[part] for split in origin.at]
    heights = [ruler.at(mean.mean) for mean in means]
    intervals = [
        None if mean.interval is None else (ruler.at(mean.interval[0]), ruler.at(mean.interval[1])) for mean in means
    ]
    pattern = {
        "shape": HATCHES[part],
        "fillmode": "overlay",
        "fgcolor": "@page",
        "fgopacity": 0.9,
        "size": 6,
        "solidity": 0.22,
    }
    return {
        "type": "bar",
        "name": WORDS[part],
        "x": list(steps),
        "y": listed(heights),
        **_error_bars(list(zip(heights, intervals, strict=True))),
        "text": [f"{WORDS[part]} {_in_numbers(mean)}" for mean in means],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": f"@part-{part}", "line": {"color": "@page", "width": 0.5}, "pattern": pattern},
        "xaxis": "x",
        "yaxis": "y",
    }


def _error_bars(drawn: Sequence[tuple[float, tuple[float, float] | None]]) -> Spec:
    """Intervals around what is drawn, where there is one that is wider than a line."""
    if not any(interval is not None and interval[1] > interval[0] for _, interval in drawn):
        return {}
    above = [0.0 if interval is None else interval[1] - value for value, interval in drawn]
    below = [0.0 if interval is None else value - interval[0] for value, interval in drawn]
    line = {"color": "@ink", "thickness": 1.2, "width": 2}
    return {
        "error_y": {"type": "data", "symmetric": False, "array": listed(above), "arrayminus": listed(below), **line}
    }


def _in_numbers(mean: Mean) -> str:
    """Mean and standard error; the mean alone where all seeds have the same, as of the floor."""
    return plus_minus(mean.mean, mean.sem if np.ptp(mean.values) > 0 else math.nan)


def _few_ticks(ticks: Spec) -> Spec:
    """At most four of the ticks, decades first: the upper picture is low."""
    keep = [i for i, v in enumerate(ticks["tickvals"]) if abs(math.log10(v) - round(math.log10(v))) < 1e-9]
    keep = keep if len(keep) > 1 else list(range(len(ticks["tickvals"])))
    keep = keep[:: max(1, math.ceil(len(keep) / 4))]
    return {**ticks, **{name: [ticks[name][i] for i in keep] for name in ("tickvals", "ticktext")}}


def _in_words(split: Split, shown: Sequence[str]) -> str:
    parts = ", ".join(f"{WORDS[part]} {number(split.parts[part].mean, 2)}" for part in shown)
    return f"{number(split.total.mean)} = {parts}"
