"""Walks at one noise level, and down a ladder of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.figures.lacking import FigureLacksData
from tasks.figures.panels import curve, density_map, grid_of, histogram
from tasks.figures.registry import register
from tasks.figures.source import KeptTrajectory, Source
from tasks.figures.style import FigureStyle
from tasks.report.lookup.targets import Target
from tasks.report.numbers.levels import edges_around, stays
from tasks.report.numbers.levels import histogram as density_in
from tasks.report.text import number

Array = NDArray[np.float64]
_BINS = 70
_PATHS = 40
_LEVELS = 6
_CELLS = 90


@dataclass(frozen=True)
class Walk:
    """A walk on the line at one noise level.

    Args:
        kept: The trajectory.
        states: ``[move, sample]``.
        density: Of the last states in the bins of the figure.
        apart: The integral of ``|p_hat - p|`` between that histogram and the exact law; 2 at most.
    """

    kept: KeptTrajectory
    states: Array
    density: Array
    apart: float


@dataclass(frozen=True)
class Walks:
    """Gradient ascent and Langevin dynamics on one law: its exact density in bins beside both."""

    target: Target
    edges: Array
    exact: Array
    ascent: Walk
    langevin: Walk


def walks(source: Source) -> Walks:
    """The two walks of the first data set on the line that has both."""
    for target in source.datasets(1):
        rules: dict[str, KeptTrajectory] = {}
        for kept in source.every_trajectory(target, 1):
            rules.setdefault(kept.panel.rule, kept)
        if "gradient-ascent" not in rules or "langevin" not in rules:
            continue
        states = {
            rule: kept.states.transpose("level", "sample", ...).values.astype(float) for rule, kept in rules.items()
        }
        flat = {rule: values.reshape(len(values), -1) for rule, values in states.items()}
        edges = edges_around(np.concatenate([flat["gradient-ascent"][-1], flat["langevin"][-1]]), _BINS)
        exact = target.density(edges, 1.0, 0.0)
        if exact is None:
            continue
        found = {rule: _walk(rules[rule], flat[rule], edges, exact) for rule in ("gradient-ascent", "langevin")}
        return Walks(target, edges, exact, found["gradient-ascent"], found["langevin"])
    raise FigureLacksData("kept trajectories of gradient ascent and of Langevin dynamics on the line")


def _walk(kept: KeptTrajectory, states: Array, edges: Array, exact: Array) -> Walk:
    density = density_in(states[-1], edges)
    outside = 1 - float((density * np.diff(edges)).sum())
    return Walk(kept, states, density, float((np.abs(density - exact) * np.diff(edges)).sum()) + outside)


@register(
    "ascent-and-langevin",
    shows="Gradient ascent on log p ends at the modes, Langevin dynamics in the law: paths from a uniform start, and both histograms",
    study="documents/tutorial-langevin",
    document="tutorial, section 3.1 and figure 17: gradient ascent, and Langevin dynamics on a Gaussian mixture",
    find=walks,
    target=lambda found: found.target.name,
)
def ascent_and_langevin(found: Walks, style: FigureStyle) -> Figure:
    """A row for each walk: paths, and the last states beside the law."""
    figure = style.sheet(height=0.66)
    panels = figure.subplots(2, 2, sharey=True, gridspec_kw={"width_ratios": [2.6, 1]})
    rows = (("gradient ascent", found.ascent), ("Langevin dynamics", found.langevin))
    starts = np.concatenate([walk.states[0] for _, walk in rows])
    low, high = min(found.edges[0], float(starts.min())), max(found.edges[-1], float(starts.max()))
    for (paths, beside), (name, walk) in zip(panels, rows, strict=True):
        paths.plot(
            walk.states[:, :_PATHS], color=style.color(0), linewidth=0.35 * style.line, alpha=0.55, rasterized=True
        )
        paths.plot(walk.states[:, 0], color=style.color(1), linewidth=style.line)
        paths.set(xlim=(0, len(walk.states) - 1), ylim=(low, high), ylabel="$x$")
        paths.set_title(f"{name}, {len(walk.states) - 1} moves; one path marked")
        histogram(beside, walk.density, found.edges, style.color(0), upright=False, label="samples")
        curve(beside, found.exact, found.edges, style, upright=False, label="exact law")
        # modes that are hit by all samples would make the law a line
        beside.set_xlim(0, 3.2 * float(found.exact.max()))
        beside.set_title(rf"last states: $\Vert\hat{{p}} - p\,\Vert_1$ = {number(walk.apart, 2)}")
    panels[1][0].set_xlabel("moves")
    panels[1][1].set_xlabel("density")
    panels[0][1].legend(loc="lower right")
    return figure


@dataclass(frozen=True)
class Ladder:
    """Samples in the plane at the levels of a trajectory, and the exact law at each.

    Args:
        kept: The trajectory.
        sigmas: The noise at each level that is shown.
        samples: ``[level, sample, 2]``.
        reach: Half of the window at each level.
        middle: The middle of all windows.
        exact: The exact density on a grid of the window ``[row, column]`` at each level.
    """

    kept: KeptTrajectory
    sigmas: list[float]
    samples: Array
    reach: list[float]
    middle: tuple[float, float]
    exact: list[Array]


def ladder(source: Source) -> Ladder:
    """The first annealed walk in the plane."""
    for target in source.datasets(2):
        for kept in source.every_trajectory(target, 2):
            sigma = kept.states["sigma"].values.astype(float)
            if "annealed" not in kept.row.requested.sampler.name or stays(sigma) or kept.forward:
                continue
            chosen = np.unique(np.linspace(0, len(sigma) - 1, min(len(sigma), _LEVELS)).round().astype(int))
            values = kept.states.transpose("level", "sample", "coordinate").values.astype(float)[chosen]
            alpha = np.broadcast_to(kept.states["alpha"].values.astype(float), len(sigma))[chosen]
            levels = sigma[chosen]
            reach = [3.0 * target.standard_deviation(float(a), float(s)) for a, s in zip(alpha, levels, strict=True)]
            exact = [
                density_on_grid(target, float(a), float(s), r) for a, s, r in zip(alpha, levels, reach, strict=True)
            ]
            return Ladder(kept, levels.tolist(), values, reach, middle_of(target), exact)
    raise FigureLacksData("a kept trajectory of annealed Langevin dynamics in the plane")


def middle_of(target: Target) -> tuple[float, float]:
    """Where noise alone has its middle in the plane."""
    x, y = np.broadcast_to(target.shift, 2).tolist()
    return x, y


def window(middle: tuple[float, float], reach: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a square."""
    x, y = middle
    return x - reach, x + reach, y - reach, y + reach


def places(target: Target, reach: float, cells: int) -> Array:
    """The midpoints of `cells` by `cells` squares of a window about `middle_of` the target,
    ``[n, 2]``, row by row.
    """
    along = (np.arange(cells) + 0.5) / cells * 2 * reach - reach
    x, y = np.meshgrid(along, along)
    found: Array = np.stack([x.ravel(), y.ravel()], axis=1) + target.shift
    return found


def density_on_grid(target: Target, alpha: float, sigma: float, reach: float) -> Array:
    """The exact density of x at a level in a square of the plane, ``[row, column]``; zeros where it
    is not known. Without noise, that of a noise narrower than a pixel.
    """
    if not target.exact:
        return np.zeros((_CELLS, _CELLS))
    noise = max(sigma, reach / _CELLS / target.noise(1.0))
    found: Array = np.exp(target.log_density(places(target, reach, _CELLS), alpha, noise)).reshape(_CELLS, _CELLS)
    return found


@register(
    "annealed-langevin",
    shows="Samples of annealed Langevin dynamics at its noise levels, over the exact law of the noised data at each",
    study="documents/notes-ncsn",
    document="notes: annealed Langevin dynamics through a sequence of noise scales",
    find=ladder,
    target=lambda found: found.kept.target.name,
)
def annealed_langevin(found: Ladder, style: FigureStyle) -> Figure:
    """A panel for each level, from the most noise to the least, each as wide as its law."""
    rows, columns = grid_of(len(found.sigmas), 3)
    figure = style.sheet(height=0.36 * rows + 0.05)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, sigma, samples, reach, exact in zip(
        panels, found.sigmas, found.samples, found.reach, found.exact, strict=False
    ):
        density_map(ax, exact, window(found.middle, reach), style, 1.1 * float(np.quantile(exact, 0.995)) or 1.0)
        ax.plot(*samples[:800].T, ".", color=style.color(1), markersize=0.7 * style.line, alpha=0.6, rasterized=True)
        ax.set_aspect("equal")
        ax.locator_params(nbins=4)
        ax.set_title(f"σ = {number(sigma, 2)}")
    for ax in panels[len(found.sigmas) :]:
        ax.set_visible(False)
    figure.suptitle(f"{found.kept.title}: samples over the exact law")
    figure.supxlabel("$x_1$", fontsize=style.size)
    figure.supylabel("$x_2$", fontsize=style.size)
    return figure
