"""Where an error comes from, as two pictures above each other.

The parts of a metric span decades as N grows, and some are negative: a logarithmic axis cannot
stack them, and a linear one shows the first columns only. So the metric itself stands above on a
logarithmic axis, and below it its parts as *shares* of

    |network| + |discretisation| + |prior| + floor,

stacked upwards if positive and downwards if negative: every column is as tall as every other,
whatever its size, and nothing is left out. Parts are means over seeds; the hover gives all of a
column with their standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tasks.plain import Spec
from tasks.report.numbers.curves import Mean
from tasks.report.numbers.decomposition import FLOOR, Origin, Split
from tasks.report.pictures.style import Picture, axis, escaped, layout, listed, log_ticks
from tasks.report.text import number, plus_minus

WORDS = {"network": "network", "discretisation": "discretisation", "prior": "prior", FLOOR: "sampling floor"}


HATCHES = {"network": "", "discretisation": "/", "prior": "x", FLOOR: "."}


def picture(origin: Origin, metric: str, title: str) -> Picture:
    """The metric above, the shares of its parts below."""
    steps = [str(split.steps) for split in origin.at]
    shares = [split.shares() for split in origin.at]
    traces: list[Spec] = [
        {
            "type": "bar",
            "name": WORDS[part],
            "x": steps,
            "y": listed([share[part] for share in shares]),
            "text": [f"{WORDS[part]} {_in_numbers(split.parts[part])}" for split in origin.at],
            "textposition": "none",
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {
                "color": f"@part-{part}",
                "line": {"color": "@page", "width": 0.5},
                "pattern": {
                    "shape": HATCHES[part],
                    "fillmode": "overlay",
                    "fgcolor": "@page",
                    "fgopacity": 0.9,
                    "size": 6,
                    "solidity": 0.22,
                },
            },
            "xaxis": "x",
            "yaxis": "y",
        }
        for part in origin.shown
    ]
    totals = [split.total.mean for split in origin.at]
    positive = [value for value in totals if value > 0]
    scale = axis(escaped(metric), domain=[0.7, 1], anchor="x2", nticks=4)
    if len(positive) == len(totals) and max(positive) < 1e6 * min(positive):
        scale |= _few_ticks(log_ticks(min(positive) / 1.5, max(positive) * 1.5))
    elif positive:
        scale |= _few_ticks(log_ticks(max(min(positive), max(positive) / 1e10) / 1.5, max(positive) * 1.5))
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": steps,
            "y": listed(totals),
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
    lowest = min(sum(min(value, 0.0) for value in share.values()) for share in shares)
    highest = max(sum(max(value, 0.0) for value in share.values()) for share in shares)
    spec = {
        "data": traces,
        "layout": layout(
            barmode="relative",
            hovermode="x unified",
            bargap=0.12,
            xaxis=axis("steps N", type="category", showgrid=False, tickangle=0, tickfont={"size": 10}),
            xaxis2=axis("", type="category", matches="x", anchor="y2", showticklabels=False, ticks="", showgrid=False),
            yaxis=axis(
                "share", domain=[0, 0.62], range=listed([lowest - 0.02, highest + 0.02]), tickformat=".0%", nticks=5
            ),
            yaxis2=scale,
            shapes=[zero],
        ),
    }
    first, last = origin.at[0], origin.at[-1]
    caption = f"At N = {first.steps}: {_in_words(first, origin.shown)}."
    if last is not first:
        caption += f" At N = {last.steps}: {_in_words(last, origin.shown)}."
    return Picture(title, caption, spec, families=origin.series.shown_with)


def _in_numbers(mean: Mean) -> str:
    """Mean and standard error; the mean alone where all seeds have the same, as of the floor."""
    return plus_minus(mean.mean, mean.sem if np.ptp(mean.values) > 0 else math.nan)


def _few_ticks(ticks: Spec) -> Spec:
    """At most four of the ticks, decades first: the upper picture is low."""
    keep = [i for i, v in enumerate(ticks["tickvals"]) if abs(math.log10(v) - round(math.log10(v))) < 1e-9]
    keep = keep or list(range(len(ticks["tickvals"])))
    keep = keep[:: max(1, math.ceil(len(keep) / 4))]
    return {**ticks, **{name: [ticks[name][i] for i in keep] for name in ("tickvals", "ticktext")}}


def _in_words(split: Split, shown: Sequence[str]) -> str:
    parts = ", ".join(f"{WORDS[part]} {number(split.parts[part].mean, 2)}" for part in shown)
    return f"{number(split.total.mean)} = {parts}"
