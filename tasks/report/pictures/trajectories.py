"""Samples on the line along the reverse trajectory: the law of x_t at each level, from noise to
data.

It is drawn as histograms and as a map; where the target's noised density is known, p_t(x) is drawn
over the histograms and beside the map. Over the histograms of the way from the data to the noise,
and where no formula is known, stands the solution of the Fokker-Planck equation. A
variance-exploding process starts a hundred times wider than it ends, so its map shows x /
sqrt(alpha^2 std^2 + sigma^2) instead of x. Where all moves are made at one noise level (Langevin
dynamics), the law stays and samples wander: the paths of some are drawn over the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.plain import Spec
from tasks.report.numbers.kept import kept_trajectories, question_of
from tasks.report.numbers.levels import stays
from tasks.report.numbers.marginals import marginals_along, marginals_at
from tasks.report.pictures.motion import motion
from tasks.report.pictures.style import Picture, Trajectories, axis, color, heat, layout, listed, midpoints, packed
from tasks.report.text import number

if TYPE_CHECKING:
    import xarray as xr

    from diffusion.schedules import Schedule
    from tasks.report.lookup.targets import Target
    from tasks.report.numbers.curves import Series, Tabulation
    from tasks.results.models import ModelledAnswers

Array = NDArray[np.float64]
_MOST_LEVELS = 80


_MULTIPLES = 6


_WANDERERS = 6


def trajectories(answers: ModelledAnswers, table: Tabulation, dataset: str, target: Target) -> tuple[Trajectories, int]:
    """Histograms, map and histogram in motion of one kept trajectory per series; and how many more
    were kept.
    """
    chosen, more = kept_trajectories(answers, table, dataset, 1)
    pairs = [
        (
            series,
            [
                _multiples(
                    series, question_of(panel, point), kept, target, point.requested.sampling_schedule.component
                ),
                _map(series, question_of(panel, point), kept, target),
                motion(series, question_of(panel, point), kept, target),
            ],
        )
        for series, panel, point, kept in chosen
    ]
    return pairs, more


def _multiples(
    series: Series, sampled: str, kept: xr.DataArray, target: Target, schedule: Schedule | None = None
) -> Picture:
    found = marginals_at(kept, target, schedule, _MULTIPLES)
    forward = found[0].sigma < found[-1].sigma
    traces: list[Spec] = []
    axes: Spec = {}
    notes = []
    fixed = stays(np.array([one.sigma for one in found]))
    for k, one in enumerate(found):
        number_of = "" if k == 0 else str(k + 1)
        where = {"xaxis": f"x{number_of}", "yaxis": f"y{number_of}", "type": "scatter", "mode": "lines"}
        x = packed(midpoints(one.edges))
        fill = {"fill": "tozeroy", "fillcolor": color(series.style, 0.35)}
        line = {"color": color(series.style), "width": 1, "shape": "hvh"}
        hover = "x = %{x:.3g}<br>samples %{y:.3g}<extra></extra>"
        traces.append({**where, "x": x, "y": packed(one.density), **fill, "line": line, "hovertemplate": hover})
        if one.exact is not None:
            line = {"color": "@ink", "width": 1.5, "dash": "dash"}
            hover = "x = %{x:.3g}<br>exact %{y:.3g}<extra></extra>"
            traces.append({**where, "x": x, "y": packed(one.exact), "line": line, "hovertemplate": hover})
        if one.by_equation is not None:
            line = {"color": "@accent", "width": 2, "dash": "dot"}
            hover = "x = %{x:.3g}<br>Fokker-Planck %{y:.3g}<extra></extra>"
            traces.append({**where, "x": x, "y": packed(one.by_equation), "line": line, "hovertemplate": hover})
        column, line_of = k % 2, k // 2
        left, top = 0.56 * column, 1 - 0.36 * line_of
        place = f"move {one.level}" if fixed else f"level {one.level}"
        name = f"{place}, σ = {number(one.sigma, 2)}"
        axes[f"xaxis{number_of}"] = axis(name, domain=[left, left + 0.44], anchor=f"y{number_of}", nticks=4)
        axes[f"yaxis{number_of}"] = axis(
            "", domain=[max(top - 0.22, 0), top], anchor=f"x{number_of}", nticks=3, rangemode="tozero"
        )
        notes.append(f"{place}: mean {number(one.mean, 2)}")
    first = "level 0 is the data, level k has been through k moves" if forward else "level 0 is noise"
    first = "move 0 is the start" if fixed else first
    caption = (
        f"{series.label} with {sampled}: histograms of {kept.sizes['sample']:,} samples, "
        f"{first}. {'Dashed: the exact density. ' if any(t['line'].get('dash') == 'dash' for t in traces) else ''}"
        f"{'Dotted: the Fokker-Planck equation, solved. ' if any(t['line'].get('dash') == 'dot' for t in traces) else ''}"
        f"{'; '.join(notes)}."
    )
    return Picture(
        f"{series.label}: histograms on the way", caption, {"data": traces, "layout": layout(**axes)}, "tall"
    )


def _wanderer(moves: NDArray[np.int64], values: Array) -> Spec:
    """The path of one sample over the map."""
    line = {"color": "@accent", "width": 1}
    hover = "move %{x}<br>%{y:.3g}<extra>one sample</extra>"
    return {
        "type": "scatter",
        "mode": "lines",
        "x": listed(moves),
        "y": packed(values),
        "line": line,
        "hovertemplate": hover,
    }


def _along(fixed: bool, forward: bool) -> str:
    if forward:
        return "the law of x along the levels, the data on the left"
    if fixed:
        return f"the law of x move by move at one noise level, from its start on the left, and the paths of {_WANDERERS} samples"
    return "the law of x along the levels, noise on the left"


def _map(series: Series, sampled: str, kept: xr.DataArray, target: Target) -> Picture:
    found = marginals_along(kept, target, _MOST_LEVELS)
    chosen, edges, scaled, exact = found.levels, found.edges, found.values, found.exact
    top = 1.3 * float(np.quantile(found.known if len(found.known) else found.densities, 0.99)) or 1.0
    y = packed(midpoints(edges))
    hover = "level %{x}<br>%{y:.3g}<br>density %{z:.3g}<extra></extra>"
    traces = [heat(listed(chosen), y, found.densities.T, top, hovertemplate=hover)]
    fixed = found.fixed
    if fixed:
        traces += [_wanderer(chosen, scaled[:, i]) for i in range(min(_WANDERERS, scaled.shape[1]))]
    passed = "move" if fixed else "level"
    name = found.named("x", "standard deviation of pₜ")
    axes: Spec = {
        "xaxis": axis(f"sampled: {passed}", showgrid=False, nticks=5, domain=[0, 0.48 if exact is not None else 1]),
        "yaxis": axis(name, showgrid=False, range=listed([edges[0], edges[-1]])),
    }
    if exact is not None:
        picture = exact.T
        picture = np.where(picture > 0.004 * top, picture, 0.0)  # as empty as a histogram would be there
        traces.append(heat(listed(chosen), y, picture, top, hovertemplate=hover, xaxis="x2"))
        axes["xaxis2"] = axis(f"exact: {passed}", showgrid=False, nticks=5, domain=[0.52, 1])
    known, far, forward = exact is not None, found.farthest(), found.forward
    at_the_end = "noise" if forward else "data"
    caption = (
        f"{series.label} with {sampled}: {_along(fixed, forward)}"
        f"{'; beside it the exact pₜ(x)' if known else '' if fixed else f', {at_the_end} on the right'}."
        f"{f' Largest L1 distance between the two: {number(far, 2)} (2 would be no overlap).' if known else ''}"
        f"{' Each level is divided by its exact standard deviation.' if found.standard else ''}"
    )
    return Picture(f"{series.label}: pₜ(x)", caption, {"data": traces, "layout": layout(**axes)}, "tall")
