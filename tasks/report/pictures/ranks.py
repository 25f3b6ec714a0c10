"""Mean ranks across data sets, each with its interval, the best one at the top."""

from __future__ import annotations

from tasks.messages import counted
from tasks.plain import Spec
from tasks.report.numbers.across import Across, Standing
from tasks.report.pictures.style import Picture, axis, color, escaped, layout, listed, symbol
from tasks.report.text import number

MOST = 16


def ranks(found: Across) -> Picture:
    """One ranking; of many curves the first ones."""
    shown = found.standings[:MOST]
    names = [escaped(f"{one.series.label}, {one.panel.title}") for one in shown]
    reach = [end for one in shown for end in (one.rank, *(one.interval or ()))]
    upwards = axis(
        "", type="category", autorange="reversed", showgrid=False, categoryorder="array", categoryarray=names
    )
    across = axis("mean rank (1 is best)", range=listed([min(0.8, *reach) - 0.1, max(reach) + 0.2]))
    spec = {
        "data": [_dot(one, name, len(found.datasets)) for one, name in zip(shown, names, strict=True)],
        "layout": layout(xaxis=across, yaxis=upwards),
    }
    title = f"Within {counted(found.budget, 'evaluation')}"
    more = f" The first {MOST} of {len(found.standings)}." if len(found.standings) > MOST else ""
    return Picture(title, f"{found.sentence()}{more}", spec, "tall" if len(shown) > 8 else "short")


def _dot(one: Standing, name: str, datasets: int) -> Spec:
    words = f"{name}<br>mean rank {number(one.rank)}"
    bars: Spec = {}
    if one.interval is not None:
        low, high = one.interval
        words += f" (95 % interval {number(low)} to {number(high)})"
        ends = {"array": listed([high - one.rank]), "arrayminus": listed([one.rank - low])}
        bars = {
            "error_x": {"type": "data", "symmetric": False, **ends, "color": color(one.series.style), "thickness": 1.6}
        }
    words += f"<br>best mean on {one.wins} of {datasets}<br>{_WORDS[one.verdict]}"
    return {
        "type": "scatter",
        "name": name,
        "meta": {"families": list(one.series.shown_with), "exact": one.series.exact},
        "x": listed([one.rank]),
        "y": [name],
        "mode": "markers",
        "marker": {"symbol": symbol(one.series.style), "color": color(one.series.style), "size": 9},
        "hovertemplate": f"{words}<extra></extra>",
        **bars,
    }


_WORDS = {
    "first": "the first",
    "tied": "cannot be told apart from the first",
    "behind": "told apart from the first",
    "undecided": "so few seeds cannot decide",
}
