"""From noise to data on the line: histograms on the way, and p_t(x) as colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.figures.panels import curve, density_map, grid_of, histogram
from tasks.figures.registry import register
from tasks.figures.source import KeptTrajectory, Source, first
from tasks.figures.style import FigureStyle
from tasks.report.numbers.levels import stays
from tasks.report.numbers.marginals import MarginalAtLevel, StoredMarginals, marginals_along, marginals_at
from tasks.report.text import number

_HISTOGRAMS = 6
_LEVELS = 80
_PATHS = 8


def _reverse(source: Source) -> KeptTrajectory:
    needed = "a kept trajectory from noise to data on the line"
    return first((one for one in source.trajectories(1, forward=False) if not _stays(one)), needed)


def _stays(kept: KeptTrajectory) -> bool:
    return stays(kept.states["sigma"].values.astype(float))


@dataclass(frozen=True)
class OnTheWay:
    """A kept way from noise to data, and its histograms at a few levels."""

    kept: KeptTrajectory
    at: list[MarginalAtLevel]


def on_the_way(source: Source) -> OnTheWay:
    """Of the first series that a study has kept."""
    kept = _reverse(source)
    return OnTheWay(kept, marginals_at(kept.states, kept.target, None, _HISTOGRAMS))


@register(
    "reverse-histograms",
    shows="Histograms of the samples at a few levels on their way from noise to data, beside the exact laws there",
    study="documents/slides-uniform-100",
    document="slides: histograms of 10,000 samples along the reverse process; level 1 and 2",
    find=on_the_way,
    target=lambda found: found.kept.target.name,
)
def reverse_histograms(found: OnTheWay, style: FigureStyle) -> Figure:
    """A panel for each level, noise first."""
    rows, columns = grid_of(len(found.at), 3)
    figure = style.sheet(height=0.28 * rows + 0.04)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, one in zip(panels, found.at, strict=False):
        histogram(ax, one.density, one.edges, style.color(0))
        if one.exact is not None:
            curve(ax, one.exact, one.edges, style)
        ax.set(xlim=one.edges[[0, -1]], title=f"level {one.level}, σ = {number(one.sigma, 2)}")
        ax.set_ylim(bottom=0)
        ax.locator_params(nbins=4)
    for ax in panels[len(found.at) :]:
        ax.set_visible(False)
    dashed = ", exact law dashed" if any(one.exact is not None for one in found.at) else ""
    figure.suptitle(f"{found.kept.title}: {found.kept.states.sizes['sample']:,} samples filled{dashed}")
    figure.supxlabel("$x$", fontsize=style.size)
    figure.supylabel("density", fontsize=style.size)
    return figure


def as_map(source: Source) -> tuple[KeptTrajectory, StoredMarginals]:
    """The law along the first kept trajectory whose exact law is known."""
    kept = _reverse(source)
    for one in source.trajectories(1, forward=False):
        if _stays(one):
            continue
        marginals = marginals_along(one.states, one.target, _LEVELS)
        if marginals.exact is not None:
            return one, marginals
    return kept, marginals_along(kept.states, kept.target, _LEVELS)


@register(
    "density-map",
    shows="The law p_t(x) of the samples as colours with the paths of some of them, beside the exact p_t(x)",
    study="documents/slides-uniform-100",
    document="slides, level 3: p_t(x) shown in colours along time",
    find=as_map,
    target=lambda found: found[0].target.name,
)
def density_of_levels(found: tuple[KeptTrajectory, StoredMarginals], style: FigureStyle) -> Figure:
    """The samples on the left, the exact law on the right, on one scale of colours."""
    kept, marginals = found
    maps = [("samples", marginals.densities)] + ([] if marginals.exact is None else [("exact", marginals.exact)])
    figure = style.sheet(height=0.44)
    panels = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    levels, edges = marginals.levels, marginals.edges
    box = (float(levels[0]), float(levels[-1]), float(edges[0]), float(edges[-1]))
    top = 1.3 * float(np.quantile(maps[-1][1], 0.99)) or 1.0
    shown = None
    for ax, (name, density) in zip(panels, maps, strict=True):
        shown = density_map(ax, density.T, box, style, top)
        for i in range(min(_PATHS, marginals.values.shape[1])):
            ax.plot(levels, marginals.values[:, i], color=style.color(1), linewidth=0.45 * style.line, alpha=0.8)
        ax.set(title=name, xlabel="level, from noise to data")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[0].set_ylabel(marginals.named("$x$", "standard deviation of $p_t$"))
    if shown is not None:
        figure.colorbar(shown, ax=list(panels), label=r"density $p_t(x)$", extend="max", pad=0.02)
    figure.suptitle(f"{kept.title}: law and paths of {min(_PATHS, marginals.values.shape[1])} samples")
    return figure
