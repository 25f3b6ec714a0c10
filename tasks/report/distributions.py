"""Samples on the line: their distribution against the step count, and along the reverse trajectory.

*Against N*: for every step count the histogram of the kept samples, as a column of colours, and the target's beside them; its
support is marked. What falls outside the picture is not hidden: its share is written above the column.

*Along the trajectory*: the law of x_t at each level, from noise to data, as histograms and as a map; where the target's noised
density is known, p_t(x) is drawn over the histograms and beside the map. Over the histograms of the way from the data to the
noise, and where no formula is known, stands the solution of the Fokker-Planck equation. A variance-exploding process starts a
hundred times wider than it ends, so its map shows x / sqrt(alpha^2 std^2 + sigma^2) instead of x. Where all moves are made at
one noise level (Langevin dynamics), the law stays and samples wander: the paths of some are drawn over the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.report.look import Picture, Spec, axis, color, heat, layout, listed, midpoints, packed
from tasks.report.targets import followed, sampled_on, solved
from tasks.report.text import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import xarray as xr

    from diffusion.schedules import Schedule
    from tasks.report.answers import Answers
    from tasks.report.curves import Panel, Point, Series, Table
    from tasks.report.targets import Target

Array = NDArray[np.float64]
_BINS = 80
_MOST_LEVELS = 80
_MOST_FRAMES = 60
_MULTIPLES = 6
_WANDERERS = 6
_FAVOURITES = ("heun", "ddim", "euler")


@dataclass(frozen=True)
class Kept:
    """Kept samples of one series in one panel by one seed: step count -> values ``[n]`` on the line, else ``[n, dim]``."""

    panel: Panel
    series: Series
    seed: int
    values: Mapping[int, Array]
    target: Target | None = None  # what they should follow, where it is not the data set


def preference(panel: Panel) -> int:
    """How early a panel is shown: Heun's method, DDIM, and so on; others after them."""
    return _FAVOURITES.index(panel.sampler) if panel.sampler in _FAVOURITES else len(_FAVOURITES)


def default_panel(panels: Sequence[Panel]) -> Panel | None:
    """The panel shown first: Heun's method where there is one, else DDIM, else whatever comes first."""
    return min(panels, key=preference, default=None)


def asked(table: Table, dataset: str) -> Iterator[tuple[Panel, Series, int, list[Point]]]:
    """The answered points of a dataset by panel, series and seed, most steps first."""
    groups: dict[tuple[Panel, Series, int], list[Point]] = {}
    for point in table.points:
        series = table.series_of(point.formulation, point.schedule)
        if point.dataset == dataset and point.status == "ok" and series is not None:
            groups.setdefault((table.panel_of(point), series, point.seed), []).append(point)
    order = {panel: i for i, panel in enumerate(table.panels[dataset])}
    for (panel, series, seed), points in sorted(groups.items(), key=lambda g: (order[g[0][0]], g[0][1].key, g[0][2])):
        yield panel, series, seed, sorted(points, key=lambda point: -point.steps)


def kept_samples(
    answers: Answers, table: Table, dataset: str, dim: int, panel: Panel, target: Target
) -> tuple[list[Kept], bool]:
    """What was kept of a data set with one sampler, per series of the first seed that has any.

    And whether some is left out, because it should follow another law than the data set, and that is not known or not on the line.
    """
    found: dict[Series, Kept] = {}
    left_out = False
    for asked_of, series, seed, points in asked(table, dataset):
        if series in found or asked_of != panel:
            continue
        values = {}
        for point in reversed(points):
            samples = answers.samples(point.point_id)
            if samples is not None and samples.sizes.get("coordinate", 1) == dim:
                flat = samples.values.astype(float)
                values[point.steps] = flat.reshape(-1) if dim == 1 else flat.reshape(-1, dim)
        if not values:
            continue
        law = followed(target, points[0], answers.study)  # of the most steps
        if law is target:
            found[series] = Kept(panel, series, seed, values)
        elif law is not None and dim == 1:
            found[series] = Kept(panel, series, seed, values, law)
        else:
            left_out = True
    return list(found.values()), left_out


def window(kept: Sequence[Kept], target: Target) -> tuple[float, float]:
    """The values shown: the support of the target and half of its width on either side."""
    low_high = target.support()
    if low_high is None:
        last = np.concatenate([np.zeros(0), *(one.values[max(one.values)] for one in kept)])
        last = last[np.isfinite(last)]
        low_high = (float(np.quantile(last, 0.01)), float(np.quantile(last, 0.99))) if last.size else (0.0, 1.0)
    low, high = low_high
    width = (high - low) or 1.0
    return low - width / 2, high + width / 2


def against_steps(kept: Kept, target: Target, shown: tuple[float, float], *, by_panel: bool = False) -> Picture:
    """The lecture's figure: colours are the density of the samples, a column for each step count and one for the target.

    It is titled by the panel if asked to be. Samples that should follow another law than the data set stand beside that one.
    """
    target = kept.target or target
    # a hair lower, so that an atom at an edge is in the same bin for samples and target
    edges = np.linspace(*shown, _BINS + 1) - 1e-7 * (shown[1] - shown[0])
    steps = sorted(kept.values)
    columns, outside = [], []
    for n in steps:
        values = kept.values[n]
        counts = np.histogram(values[np.isfinite(values)], edges)[0]
        columns.append(counts / max(values.size, 1) / np.diff(edges))
        outside.append(1 - counts.sum() / max(values.size, 1))
    clean = target.density(edges, 1.0, 0.0)
    top = 2 * float(np.quantile(clean[clean > 0], 0.95)) if clean is not None and (clean > 0).any() else 0.0
    top = top or 1.5 * float(columns[-1].max()) or 1.0
    names = [str(n) for n in steps]
    last = [] if clean is None else ["target"]
    hover = "N = %{x}<br>x = %{y:.3f}<br>density %{z:.3f}<extra></extra>"
    densities = np.array(columns if clean is None else [*columns, clean])
    traces: list[Spec] = [heat(names + last, packed(midpoints(edges)), densities.T, top, hovertemplate=hover)]
    marked = [(n, share) for n, share in zip(names, outside, strict=True) if share >= 0.005]
    if marked:
        traces.append(
            {
                "type": "scatter",
                "mode": "text",
                "x": [n for n, _ in marked],
                "y": listed([shown[1] + 0.045 * (shown[1] - shown[0])] * len(marked)),
                "text": [f"{100 * share:.0f}" for _, share in marked],
                "textfont": {"size": 9, "color": "@muted"},
                "cliponaxis": False,
                "hovertemplate": "N = %{x}: %{text} % of the samples lie outside the picture<extra></extra>",
            }
        )
    support = target.support()
    shapes = [_support_line(edge) for edge in support] if support else []
    label = kept.series.label
    worst = max(zip(outside, steps, strict=True))
    text = f"{label} with {kept.panel.title}, seed {kept.seed}, {values_in(kept)} samples per column."
    if kept.target is not None:
        text += " The target is the law in noise at the last level passed, not the data."
    if worst[0] >= 0.005:
        text += f" Outside the picture: up to {100 * worst[0]:.0f} % (N = {worst[1]})."
    across = axis("steps N", type="category", showgrid=False, tickangle=0, tickfont={"size": 10})
    upwards = axis("sample value", range=listed([shown[0], shown[1] + 0.09 * (shown[1] - shown[0])]), showgrid=False)
    spec = {"data": traces, "layout": layout(xaxis=across, yaxis=upwards, shapes=shapes)}
    return Picture(kept.panel.title if by_panel else label, text, spec, families=kept.series.shown_with)


def values_in(kept: Kept) -> str:
    """How many samples a column holds."""
    return f"{next(iter(kept.values.values())).size:,}"


def _support_line(edge: float) -> Spec:
    line = {"color": "@accent", "width": 1.5, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": edge, "y1": edge, "line": line}


def asked_for(panel: Panel, point: Point) -> str:
    """Sampler and step count."""
    return f"{panel.title}, N = {point.steps}"


Trajectories = list[tuple["Series", list[Picture]]]


def trajectories(answers: Answers, table: Table, dataset: str, target: Target) -> tuple[Trajectories, int]:
    """Histograms, map and histogram in motion of one kept trajectory per series; and how many more were kept."""
    chosen, more = kept_trajectories(answers, table, dataset, 1)
    pairs = [
        (
            series,
            [
                _multiples(series, asked_for(panel, point), kept, target, sampled_on(point, target, answers.study)),
                _map(series, asked_for(panel, point), kept, target),
                _motion(series, asked_for(panel, point), kept, target),
            ],
        )
        for series, panel, point, kept in chosen
    ]
    return pairs, more


def kept_trajectories(
    answers: Answers, table: Table, dataset: str, dim: int
) -> tuple[list[tuple[Series, Panel, Point, xr.DataArray]], int]:
    """One kept trajectory of each series, of the panel that is shown first; and how many more were kept."""
    found: dict[Series, tuple[Panel, Point, xr.DataArray]] = {}
    seen = 0
    for panel, series, _, points in asked(table, dataset):
        for point in points:
            kept = answers.trajectory(point.point_id)
            if kept is None or kept.sizes.get("coordinate", 1) != dim or kept.sizes.get("level", 0) < 2:
                continue
            seen += 1
            if series not in found or preference(panel) < preference(found[series][0]):
                found[series] = (panel, point, kept)
    chosen = sorted(found.items(), key=lambda item: item[0].key)
    return [(series, *rest) for series, rest in chosen], seen - len(chosen)


def _levels(kept: xr.DataArray, most: int) -> tuple[NDArray[np.int64], Array, Array, Array]:
    """Indices of at most `most` levels, ends included, with their values ``[level, sample]``, alpha and sigma."""
    n = kept.sizes["level"]
    chosen = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
    values = kept.transpose("level", "sample", ...).values.astype(float).reshape(n, -1)[chosen]
    alpha, sigma = (np.broadcast_to(kept[name].values.astype(float), n)[chosen] for name in ("alpha", "sigma"))
    return chosen, values, alpha, sigma


def _stays(sigma: Array) -> bool:
    """Whether all moves, but perhaps a last one to the data, are made at one noise level."""
    return len(sigma) > 2 and bool(np.ptp(sigma[:-1]) <= 1e-9 * sigma[0])


def _multiples(
    series: Series, sampled: str, kept: xr.DataArray, target: Target, schedule: Schedule | None = None
) -> Picture:
    chosen, values, alphas, sigmas = _levels(kept, _MULTIPLES)
    times = np.broadcast_to(kept["time"].values.astype(float), kept.sizes["level"])[chosen]
    forward = sigmas[0] < sigmas[-1]
    traces: list[Spec] = []
    axes: Spec = {}
    notes = []
    stays = _stays(sigmas)
    for k, (level, row, alpha, sigma) in enumerate(zip(chosen, values, alphas, sigmas, strict=True)):
        finite = row[np.isfinite(row)]
        low, high = (np.quantile(finite, [0.001, 0.999]) if finite.size else np.array([0.0, 1.0])).tolist()
        margin = 0.15 * (high - low) or 0.5
        edges = np.linspace(low - margin, high + margin, 61)
        density = np.histogram(finite, edges)[0] / max(row.size, 1) / np.diff(edges)
        number_of = "" if k == 0 else str(k + 1)
        where = {"xaxis": f"x{number_of}", "yaxis": f"y{number_of}", "type": "scatter", "mode": "lines"}
        x = packed(midpoints(edges))
        fill = {"fill": "tozeroy", "fillcolor": color(series.style, 0.35)}
        line = {"color": color(series.style), "width": 1, "shape": "hvh"}
        hover = "x = %{x:.3g}<br>samples %{y:.3g}<extra></extra>"
        traces.append({**where, "x": x, "y": packed(density), **fill, "line": line, "hovertemplate": hover})
        exact = target.density(edges, float(alpha), float(sigma))
        if exact is not None:
            line = {"color": "@ink", "width": 1.5, "dash": "dash"}
            hover = "x = %{x:.3g}<br>exact %{y:.3g}<extra></extra>"
            traces.append({**where, "x": x, "y": packed(exact), "line": line, "hovertemplate": hover})
        by_equation = (
            solved(target.law, schedule, float(times[k]), edges)
            if target.law is not None and schedule is not None and sigma > 0 and (forward or exact is None)
            else None
        )
        if by_equation is not None:
            line = {"color": "@accent", "width": 2, "dash": "dot"}
            hover = "x = %{x:.3g}<br>Fokker-Planck %{y:.3g}<extra></extra>"
            traces.append({**where, "x": x, "y": packed(by_equation), "line": line, "hovertemplate": hover})
        column, line_of = k % 2, k // 2
        left, top = 0.56 * column, 1 - 0.36 * line_of
        place = f"move {level}" if stays else f"level {level}"
        name = f"{place}, σ = {number(float(sigma), 2)}"
        axes[f"xaxis{number_of}"] = axis(name, domain=[left, left + 0.44], anchor=f"y{number_of}", nticks=4)
        axes[f"yaxis{number_of}"] = axis(
            "", domain=[max(top - 0.22, 0), top], anchor=f"x{number_of}", nticks=3, rangemode="tozero"
        )
        notes.append(f"{place}: mean {number(float(np.mean(finite)), 2) if finite.size else '–'}")
    first = "level 0 is the data, level k has been through k moves" if forward else "level 0 is noise"
    first = "move 0 is the start" if stays else first
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


def _along(stays: bool, forward: bool) -> str:
    if forward:
        return "the law of x along the levels, the data on the left"
    if stays:
        return f"the law of x move by move at one noise level, from its start on the left, and the paths of {_WANDERERS} samples"
    return "the law of x along the levels, noise on the left"


def _scales(target: Target, alphas: Array, sigmas: Array) -> tuple[Array, bool]:
    """What x is divided by at each level: its standard deviation, if that changes by more than ten, which is told; else 1."""
    scales = np.array([target.standard_deviation(a, s) for a, s in zip(alphas, sigmas, strict=True)])
    standard = bool(scales.max() > 10 * scales.min())
    return (scales if standard else np.ones_like(scales)), standard


def _edges(values: Array, bins: int) -> Array:
    """Even bins around nearly all of the values."""
    finite = values[np.isfinite(values)]
    low, high = (np.quantile(finite, [0.002, 0.998]) if finite.size else np.array([0.0, 1.0])).tolist()
    margin = 0.1 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, bins + 1)


def _map(series: Series, sampled: str, kept: xr.DataArray, target: Target) -> Picture:
    chosen, values, alphas, sigmas = _levels(kept, _MOST_LEVELS)
    scales, standard = _scales(target, alphas, sigmas)
    scaled = values / scales[:, None]
    edges = _edges(scaled, _BINS)
    densities = [np.histogram(row[np.isfinite(row)], edges)[0] / max(row.size, 1) / np.diff(edges) for row in scaled]
    exact = [target.density(edges * s, a, b) for s, a, b in zip(scales, alphas.tolist(), sigmas.tolist(), strict=True)]
    laws = [density * s for density, s in zip(exact, scales, strict=True) if density is not None]
    top = 1.3 * float(np.quantile(np.array(laws or densities), 0.99)) or 1.0
    y = packed(midpoints(edges))
    hover = "level %{x}<br>%{y:.3g}<br>density %{z:.3g}<extra></extra>"
    traces = [heat(listed(chosen), y, np.array(densities).T, top, hovertemplate=hover)]
    known = len(laws) == len(scaled)
    stays = _stays(sigmas)
    if stays:
        traces += [_wanderer(chosen, scaled[:, i]) for i in range(min(_WANDERERS, scaled.shape[1]))]
    passed = "move" if stays else "level"
    name = "x / standard deviation of pₜ" if standard else "x"
    axes: Spec = {
        "xaxis": axis(f"sampled: {passed}", showgrid=False, nticks=5, domain=[0, 0.48 if known else 1]),
        "yaxis": axis(name, showgrid=False, range=listed([edges[0], edges[-1]])),
    }
    if known:
        law = np.array(laws).T
        law = np.where(law > 0.004 * top, law, 0.0)  # as empty as a histogram would be there
        traces.append(heat(listed(chosen), y, law, top, hovertemplate=hover, xaxis="x2"))
        axes["xaxis2"] = axis(f"exact: {passed}", showgrid=False, nticks=5, domain=[0.52, 1])
    far = 0.0
    if known:
        far = max(float(np.abs(s - e).sum() * np.diff(edges)[0]) for s, e in zip(densities[1:], laws[1:], strict=True))
    forward = sigmas[0] < sigmas[-1]
    at_the_end = "noise" if forward else "data"
    caption = (
        f"{series.label} with {sampled}: {_along(stays, forward)}"
        f"{'; beside it the exact pₜ(x)' if known else '' if stays else f', {at_the_end} on the right'}."
        f"{f' Largest L1 distance between the two: {number(far, 2)} (2 would be no overlap).' if known else ''}"
        f"{' Each level is divided by its exact standard deviation.' if standard else ''}"
    )
    return Picture(f"{series.label}: pₜ(x)", caption, {"data": traces, "layout": layout(**axes)}, "tall")


def _motion(series: Series, sampled: str, kept: xr.DataArray, target: Target) -> Picture:
    """The histogram level after level, with a slider and a button that plays it; the exact density moves with it."""
    chosen, values, alphas, sigmas = _levels(kept, _MOST_FRAMES)
    scales, standard = _scales(target, alphas, sigmas)
    scaled = values / scales[:, None]
    edges = _edges(scaled, _BINS)
    widths = np.diff(edges)
    densities = [np.histogram(row[np.isfinite(row)], edges)[0] / max(row.size, 1) / widths for row in scaled]
    exact = [target.density(edges * s, a, b) for s, a, b in zip(scales, alphas.tolist(), sigmas.tolist(), strict=True)]
    laws = [None if law is None else law * s for law, s in zip(exact, scales, strict=True)]
    known = all(law is not None for law in laws)
    x = packed(midpoints(edges))
    step = {"color": color(series.style), "width": 1, "shape": "hvh"}
    fill = {"fill": "tozeroy", "fillcolor": color(series.style, 0.35)}
    line: Spec = {"type": "scatter", "mode": "lines", "x": x}
    traces: list[Spec] = [
        {**line, "y": _short(densities[0]), **fill, "line": step, "hovertemplate": "samples %{y:.3g}<extra></extra>"}
    ]
    if known:
        dashed = {"color": "@ink", "width": 1.5, "dash": "dash"}
        hover = "exact %{y:.3g}<extra></extra>"
        traces.append({**line, "y": _short(laws[0]), "line": dashed, "hovertemplate": hover})
    names = [f"{level}" for level in chosen.tolist()]
    frames = [
        {"name": name, "data": [{"y": _short(row)} for row in (density, *([law] if known else []))]}
        for name, density, law in zip(names, densities, laws, strict=True)
    ]
    top = 1.15 * max(float(np.max(row)) for row in (*densities, *(law for law in laws if known and law is not None)))
    at_once = {"mode": "immediate", "transition": {"duration": 0}}
    plays: Spec = {**at_once, "fromcurrent": True, "frame": {"duration": 80, "redraw": False}}
    button: Spec = {"method": "animate"}
    passed = "move" if _stays(sigmas) else "level"
    axes: Spec = {
        "xaxis": axis("x / standard deviation of pₜ" if standard else "x", range=listed([edges[0], edges[-1]])),
        "yaxis": axis("density", range=listed([0, top])),
        "margin": {"l": 52, "r": 12, "t": 10, "b": 100},
        "sliders": [
            {
                "active": 0,
                "steps": [
                    {**button, "label": name, "args": [[name], {**at_once, "frame": {"duration": 0, "redraw": False}}]}
                    for name in names
                ],
                "x": 0.16,
                "len": 0.84,
                "y": -0.32,
                "yanchor": "top",
                "pad": {"t": 0, "b": 0},
                "currentvalue": {"prefix": f"{passed} ", "font": {"size": 12, "color": "@ink"}, "xanchor": "right"},
                "font": {"size": 10, "color": "@muted"},
                "bgcolor": "@grid",
                "bordercolor": "@axis",
                "tickcolor": "@axis",
                "ticklen": 0,
                "minorticklen": 0,
            }
        ],
        "updatemenus": [
            {
                "type": "buttons",
                "direction": "left",
                "showactive": False,
                "x": 0,
                "y": -0.36,
                "xanchor": "left",
                "yanchor": "top",
                "pad": {"t": 0, "r": 0},
                "bgcolor": "@card",
                "bordercolor": "@axis",
                "font": {"size": 12, "color": "@ink"},
                "buttons": [
                    {**button, "label": "▶", "args": [None, plays]},
                    {**button, "label": "❚❚", "args": [[None], at_once]},
                ],
            }
        ],
    }
    caption = (
        f"{series.label} with {sampled}: press ▶, or draw the slider. Histogram of {kept.sizes['sample']:,} samples"
        f"{'; dashed: the exact density' if known else ''}."
    )
    spec = {"data": traces, "layout": layout(**axes), "frames": frames}
    return Picture(f"{series.label}: histogram in motion", caption, spec, "tall", series.shown_with)


def _short(values: Array | None) -> list[float | None]:
    return [] if values is None else [float(f"{value:.3g}") for value in values.tolist()]
