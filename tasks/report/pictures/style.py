"""How pictures look: colours, symbols and dashes, and the plain dictionaries that plotly.js draws.

A colour is written as a token, ``@series-1`` or ``@series-1/0.2`` (with opacity), and becomes a
colour in the reader's browser, from the same CSS variables as the page: so a picture follows the
light and the dark scheme and is printed black on white. Nothing depends on colour alone: series
differ by symbol and dash too. The palette keeps at least 3:1 contrast to the page, and its first
five colours apart (CIELAB distance above 13) for deuteranopes, protanopes and tritanopes as well,
mostly by lightness.

Numbers of any length travel as base64 of float32 (plotly.js reads it), a third of their decimal
text.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.plain import Plain, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from tasks.report.numbers.curves import Series

PALETTE = 8
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross", "star")
DASHES = ("solid", "dot", "dash", "longdash", "dashdot", "longdashdot", "4px,2px", "1px,3px")


@dataclass(frozen=True)
class Picture:
    """A figure of the page: what plotly draws and, as text, what is to be seen in it.

    `shape` is its height on the page (``short``, ``tall``, ``square`` or, three beside each other,
    ``triple``; ``opening`` is that of the first one). `families` are the legend keys that it as a
    whole belongs to; empty: it belongs to all.
    """

    title: str
    caption: str
    spec: Spec
    shape: str = "short"
    families: tuple[int, ...] = ()
    exact: bool = False


Trajectories = list[tuple["Series", list[Picture]]]
"""Pictures of one kept trajectory of each series."""


def color(style: int, opacity: float | None = None) -> str:
    """The token of a series' colour."""
    return f"@series-{style % PALETTE + 1}" + ("" if opacity is None else f"/{opacity:g}")


def symbol(style: int) -> str:
    """The marker of a series; where colours begin again, symbols are shifted by one."""
    return SYMBOLS[(style + style // PALETTE) % len(SYMBOLS)]


def dash(style: int) -> str:
    """The dash of a series, for figures without markers."""
    return DASHES[(style + style // PALETTE) % len(DASHES)]


def escaped(text: str) -> str:
    """Text of a user, for plotly's labels: tags, entities and hover fields in it are shown, not
    obeyed.
    """
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("{", "&#123;"), ("$", "&#36;")):
        text = text.replace(char, entity)
    return text


def packed(values: ArrayLike) -> dict[str, str]:
    """An array as plotly.js' typed array; infinities become gaps."""
    array = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        small = np.ascontiguousarray(np.where(np.isfinite(array), array, np.nan), dtype="<f4")
    small[~np.isfinite(small)] = np.nan
    found = {"dtype": "f4", "bdata": base64.b64encode(small.tobytes()).decode()}
    if small.ndim > 1:
        found["shape"] = ", ".join(str(size) for size in small.shape)
    return found


def one_byte(shares: NDArray[np.float64]) -> dict[str, str]:
    """An array of numbers from 0 to 1 as plotly.js' typed array of bytes, 255 for 1 and above; what
    is above 0 is not 0.
    """
    small = np.ascontiguousarray(np.clip(np.ceil(255 * shares), 0, 255), dtype=np.uint8)
    data = base64.b64encode(small.tobytes()).decode()
    return {"dtype": "u1", "bdata": data, "shape": ", ".join(str(size) for size in small.shape)}


def listed(values: ArrayLike) -> list[float | None]:
    """A short array as numbers of five digits, gaps as None."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in np.asarray(values, dtype=float).ravel().tolist()]


def axis(title: str, **more: Plain) -> Spec:
    """An axis; what all have in common is in ``page.js``."""
    return {"title": {"text": title}, **more}


def layout(**more: Plain) -> Spec:
    """A layout; what all have in common is in ``page.js``: no title and no legend, the page has them
    as text.
    """
    return more


FINE = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
"""Steps of a decade on a short logarithmic axis: the second next is at most 1.67 times each."""


def log_ticks(low: float, high: float, known: Sequence[float] = ()) -> Spec:
    """Ticks of a logarithmic axis from `low` to `high`: decades, and 2 and 5 between them where
    there is room.

    Where only one of them is in sight, there are ticks at both ends of the `known` values instead, or
    at every step of `FINE`: two of these at least, where `high` is 1.7 times `low`.
    """
    decades = math.log10(high / low)
    every = max(1, math.ceil(decades / 7))
    factors = (1, 2, 5) if decades < 2.5 else (1, 3) if decades < 3.5 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))

    def inside(factors: Sequence[float]) -> list[float]:
        powers = (power for power in range(first, last + 1) if power % every == 0)
        ticks = (float(f"{f}e{power}") for power in powers for f in factors)
        return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]

    values = inside(factors)
    if len(values) < 2:
        values = sorted({float(min(known)), float(max(known))}) if len(known) else inside(FINE)
    return {
        "type": "log",
        "range": [round(math.log10(low), 4), round(math.log10(high), 4)],
        "tickmode": "array",
        "tickvals": values,
        "ticktext": [tick_text(value) for value in values],
    }


def tick_text(value: float) -> str:
    """``0.01``, ``5``, ``10<sup>4</sup>``."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    mantissa, power = f"{value:.1e}".split("e")
    factor = "" if mantissa == "1.0" else f"{mantissa.removesuffix('.0')}×"
    return f"{factor}10<sup>{'−' if int(power) < 0 else ''}{abs(int(power))}</sup>"


def midpoints(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle of each bin."""
    return (edges[1:] + edges[:-1]) / 2


def heat(x: Plain, y: Plain, z: NDArray[np.float64], top: float, **more: Plain) -> Spec:
    """A density as colours from 0 to `top`; nothing where there is nothing."""
    return {
        "type": "heatmap",
        "x": x,
        "y": y,
        "z": packed(np.where(z > 0, z, np.nan)),
        "zmin": 0,
        "zmax": float(f"{top:.4g}"),
        "colorscale": "@density",
        "showscale": False,
        "hoverongaps": False,
        **more,
    }


def small_multiples(
    shown: Sequence[tuple[str, Spec]],
    columns: int,
    gaps: tuple[float, float],
    axes_of: Callable[[bool, bool], tuple[Spec, Spec]],
    margin: Spec,
) -> Spec:
    """Heat maps with their titles, row by row, the cells of each square.

    `gaps` are shares of the picture between columns and between rows; `axes_of` gives the two axes
    of a map, by whether it is in the last row and in the first column.
    """
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    traces: list[Spec] = []
    axes: dict[str, Spec] = {}
    titles = []
    for k, (title, trace) in enumerate(shown):
        row, column = divmod(k, columns)
        name = "" if k == 0 else str(k + 1)
        traces.append(
            {
                "type": "heatmap",
                "zmin": 0,
                "zmax": 255,
                "colorscale": "@density",
                "showscale": False,
                "xaxis": f"x{name}",
                "yaxis": f"y{name}",
                **trace,
            }
        )
        across, upwards = _part(column, columns, gaps[0]), _part(rows - 1 - row, rows, gaps[1])
        along, up = axes_of(k + columns >= len(shown), column == 0)
        kept = {"constrain": "domain"}
        axes[f"xaxis{name}"] = {
            **along,
            **kept,
            "domain": listed(across),
            "anchor": f"y{name}",
            "constraintoward": "left",
        }
        axes[f"yaxis{name}"] = {
            **up,
            **kept,
            "domain": listed(upwards),
            "anchor": f"x{name}",
            "constraintoward": "top",
            "scaleanchor": f"x{name}",
        }
        titles.append(
            {
                "text": title,
                "x": across[0],
                "y": upwards[1],
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 11},
            }
        )
    top = 20 if any(title for title, _ in shown) else 6
    return {"data": traces, "layout": layout(**axes, annotations=titles, margin={**margin, "t": top})}


def _part(place: int, many: int, gap: float) -> list[float]:
    """The part of the picture that one of `many` in a row takes."""
    width = (1 - gap * (many - 1)) / many
    return [place * (width + gap), min(place * (width + gap) + width, 1.0)]
