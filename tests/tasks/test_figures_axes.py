"""Every axis of every figure that has a scale has a name, and what the name stands for has its unit in
the guide's table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

from tasks.figures import FIGURES, STYLES, Movie
from tests.tasks.figure_store import together
from tests.tasks.test_figures import drawn, found

pytestmark = together

PAGE = (Path(__file__).parents[2] / "docs" / "figures.md").read_text(encoding="utf-8")
X = r"\$[xyz](_[12k])?\$"
NAMES = {
    "x": rf"((exact|learned)\n)?{X}( \(asinh scale\))?",
    "x / standard deviation": rf"({X}|\({X} − \S+\)) / standard deviation( of \$[pq]_[kt]\$)?",
    "density": r"density( of \$x_k\$: samples filled, exact dashed| \$p_t\(x\)\$)?",
    "distance to the surface": r"distance to the surface, in units of \$x\$",
    "velocity": r"velocity \$\\mathrm\{d\}x/\\mathrm\{d\}t\$",
    "moves, levels, steps": r"moves( \$k\$(; paths of \d+ samples)?)?|level, from noise to data|number of steps \$N\$",
    "network evaluations": r"network evaluations \(NFE\)",
    "noise-to-signal ratio": r"noise-to-signal ratio σ/α",
    "error of a score": r"\$\\sigma\^2\\, \\mathrm\{E\}\\,\|s_\\theta - s\|\^2\$ / dimension",
    "a metric": r"\S+ \((lower|higher) is better\)",
}
"""How the labels of each row of the guide's table are written."""


@cache
def shown(name: str) -> Figure:
    """A figure as it is on paper, drawn."""
    made = drawn(name, "paper")
    figure = made.still(0) if isinstance(made, Movie) else made
    with STYLES["paper"].worn():
        figure.draw_without_rendering()
    return figure


def scaled(axis: Any) -> bool:
    """Whether numbers, or other words, stand along an axis."""
    told = (label for tick in axis.majorTicks for label in (tick.label1, tick.label2))
    return any(label.get_visible() and label.get_text() for label in told)


def neighbours(figure: Figure, ax: Axes, way: str) -> Iterator[Axes]:
    """Those that have the same axis: of y in the same row, of x in the same column."""
    place = ax.get_subplotspec()
    for other in figure.axes:
        there = other.get_subplotspec()
        if not other.get_visible() or place is None or there is None:
            continue
        if there.get_gridspec() is not place.get_gridspec():
            continue
        if (there.rowspan, there.colspan)[way == "x"] == (place.rowspan, place.colspan)[way == "x"]:
            yield other


def labels(figure: Figure) -> Iterator[tuple[str, str]]:
    """Where an axis with a scale is, and its name: its own, its neighbour's or the sheet's."""
    for k, ax in enumerate(figure.axes):
        if not ax.get_visible() or not ax.axison:
            continue
        if isinstance(ax, Axes3D):
            yield from (
                (f"panel {k}, {axis.axis_name}", axis.get_label_text()) for axis in (ax.xaxis, ax.yaxis, ax.zaxis)
            )
            continue
        for way in "xy":
            if not scaled(getattr(ax, f"{way}axis")):
                continue
            names = [getattr(one, f"get_{way}label")() for one in (ax, *neighbours(figure, ax, way))]
            sheet = getattr(figure, f"get_sup{way}label")()
            yield f"panel {k}, {way}", next(filter(None, (*names, sheet)), "")


def kinds(label: str) -> list[str]:
    return [name for name, pattern in NAMES.items() if re.fullmatch(pattern, label)]


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_with_a_scale_has_a_name_whose_unit_the_guide_tells(name: str) -> None:
    found = dict(labels(shown(name)))
    assert {place: label for place, label in found.items() if len(kinds(label)) != 1} == {}
    assert bool(found) == (FIGURES[name].study != "digits")  # pixels have no scale


def test_the_guide_s_table_has_the_unit_of_every_name_and_no_other() -> None:
    section = PAGE.partition("## Axes and units")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", section, re.MULTILINE)
    units = {name: unit for name, unit in rows if not name.startswith(("-", "axis"))}
    assert list(units) == list(NAMES)
    assert all(re.search(r"that of (x|the data)|dimensionless|its own", unit) for unit in units.values())
    used = {kind for name in FIGURES for label in dict(labels(shown(name))).values() for kind in kinds(label)}
    assert used == set(NAMES) - {"x / standard deviation"}  # where noise is far wider than the data, and here it is not
    _, marginals = found("density-map")
    for shift in (0.0, 2.5):
        named = replace(marginals, standard=True, shift=shift).named("$x$", "standard deviation of $p_t$")
        assert kinds(named) == ["x / standard deviation"]


def test_what_stands_in_space_has_a_scale_on_each_axis() -> None:
    (space, bar) = shown("torus").axes
    assert isinstance(space, Axes3D)
    for axis, reach in ((space.xaxis, 1.0), (space.yaxis, 1.0), (space.zaxis, 0.4)):
        marks = [tick.get_loc() for tick in axis.majorTicks]
        assert (min(marks), max(marks)) == (-reach, reach)
        assert [tick.label1.get_text() for tick in axis.majorTicks] == [f"{mark:g}".replace("-", "−") for mark in marks]
    assert bar.get_xlabel().endswith("in units of $x$")
