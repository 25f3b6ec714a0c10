"""From the data to noise: paths, marginals, and the law of a mixture on its way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion.samplers import Forward
from diffusion.schedules.levels import levels_of
from tasks.figures.movie import Movie, settled
from tasks.figures.panels import curve, density_map, histogram, in_lines
from tasks.figures.registry import register
from tasks.figures.source import KeptTrajectory, Source, first
from tasks.figures.style import FigureStyle
from tasks.report.numbers.marginals import MarginalAtLevel, StoredMarginals, marginals_along, marginals_at
from tasks.report.text import number

Array = NDArray[np.float64]
_MARGINALS = 5
_FAINT = 80
_FRAMES = 60
_MOST = 200
_PATHS = 8
_SEEN = 0.005  # of a logarithm of widths


@dataclass(frozen=True)
class ForwardProcess:
    """A kept way from the data to noise, on the line.

    Args:
        kept: The trajectory.
        states: Its states ``[level, sample]``.
        mean: Of the exact q_k at each level.
        std: The same.
        marginals: At a few levels, the data and the noise among them.
        wider: See `wider_than_exact`.
    """

    kept: KeptTrajectory
    states: Array
    mean: Array
    std: Array
    marginals: list[MarginalAtLevel]
    wider: float


def _forward(source: Source) -> KeptTrajectory:
    return first(
        source.trajectories(1, forward=True),
        "a kept trajectory from the data to noise on the line",
    )


def process(source: Source) -> ForwardProcess:
    """The first way from the data to noise that a study has kept."""
    kept = _forward(source)
    n = kept.states.sizes["level"]
    states = kept.states.transpose("level", "sample", ...).values.astype(float).reshape(n, -1)
    alpha, sigma = (np.broadcast_to(kept.states[name].values.astype(float), n) for name in ("alpha", "sigma"))
    target, known = kept.target, kept.target.distribution
    start = np.array([known.mean[0] if known else float(states[0].mean())])
    mean = np.array([target.without_noise(start, float(a))[0] for a in alpha])
    noise = np.array([target.noise(float(s)) for s in sigma])
    std = np.hypot(alpha * (known.std if known else float(states[0].std())), noise)
    marginals = marginals_at(kept.states, kept.target, None, _MARGINALS)
    return ForwardProcess(kept, states, mean, std, marginals, wider_than_exact(kept))


def wider_than_exact(kept: KeptTrajectory) -> float:
    """How many times as wide as the exact law the moves themselves make the samples, at the level
    where it is most: `Forward.moments` by the schedule's ``sqrt(alpha^2 std^2 + sigma^2)``. 1 of a
    chain, and where data, schedule or sampler are not known.
    """
    requested, law = kept.row.requested, kept.target.working
    rule, schedule = requested.sampler.component, requested.sampling_schedule.component
    grid = requested.grid.component
    if law is None or schedule is None or grid is None or not isinstance(rule, Forward):
        return 1.0
    passed = rule.path(levels_of([schedule], [grid], kept.row.steps))
    exact = np.array([np.hypot(float(level.alpha) * law.std, float(level.sigma)) for level in passed])
    ratio = rule.moments(passed, law.std)[1][:, 0].numpy() / np.where(exact > 0, exact, np.nan)
    return float(ratio[np.nanargmax(np.abs(np.log(ratio)))])


def _of_the_moves(kept: KeptTrajectory, wider: float, between: str = " ") -> str:
    """What few moves do to the width, for a caption; empty where that is not to be seen."""
    if abs(np.log(wider)) < _SEEN:
        return ""
    reach = "up" if wider > 1 else "down"
    return (
        f"{kept.row.steps} moves of {kept.panel.title}{between}"
        f"make $\\sigma_k$ {reach} to {number(wider)} times the exact one"
    )


@register(
    "forward",
    shows="Samples of the data dissolved into noise move by move, their mean ± 3 standard deviations, and the exact marginals",
    study="documents/notebook-fixed",
    document="notebook: all particles, two particles and the marginals q_t",
    find=process,
    target=lambda found: found.kept.target.name,
)
def forward(found: ForwardProcess, style: FigureStyle) -> Figure:
    """Paths on the left, marginals lying on the right, on one axis of x."""
    figure = style.sheet(height=0.42)
    panels = figure.subplots(
        1, 1 + len(found.marginals), sharey=True, gridspec_kw={"width_ratios": [3.2, *[1] * len(found.marginals)]}
    )
    paths, beside = panels[0], panels[1:]
    moves = np.arange(len(found.states))
    faint = min(_FAINT, found.states.shape[1])
    paths.plot(
        moves, found.states[:, 2:faint], color=style.color(0), alpha=0.13, linewidth=0.35 * style.line, rasterized=True
    )
    for k in range(min(2, found.states.shape[1])):
        paths.plot(
            moves, found.states[:, k], color=style.color(2 + k), linewidth=0.9 * style.line, label=f"sample {k + 1}"
        )
    paths.plot(
        moves,
        found.mean,
        color=style.accent,
        linestyle="--",
        linewidth=1.3 * style.line,
        label=r"$\mu$, $\mu \pm 3\sigma$",
    )
    for sign in (-3, 3):
        paths.plot(moves, found.mean + sign * found.std, color=style.accent, linestyle="--", linewidth=0.8 * style.line)
    middle = float(found.kept.target.shift[0])
    reach = 1.12 * float(np.max(np.abs(found.mean - middle) + 3 * found.std))
    window = (middle - reach, middle + 1.3 * reach)
    paths.set(xlabel=f"moves $k$; paths of {faint} samples", ylabel="$x_k$", xlim=(0, moves[-1]), ylim=window)
    paths.legend(loc="upper center", ncols=3, columnspacing=0.9, handlelength=1.2, handletextpad=0.4, borderpad=0.1)
    for ax, one in zip(beside, found.marginals, strict=True):
        histogram(ax, one.density, one.edges, style.color(0), upright=False)
        if one.exact is not None:
            curve(ax, one.exact, one.edges, style, upright=False)
        highest = max(float(one.density.max()), 0.0 if one.exact is None else float(one.exact.max()))
        ax.set(xlim=(0, 1.08 * highest), xticks=[], title=f"$k = {one.level}$")
        ax.tick_params(left=False)
    beside[len(beside) // 2].set_xlabel("density of $x_k$: samples filled, exact dashed")
    if said := _of_the_moves(found.kept, found.wider):
        figure.suptitle(said)
    return figure


def moving(source: Source) -> tuple[KeptTrajectory, StoredMarginals]:
    """The marginals of the first way from the data to noise, frame by frame."""
    kept = _forward(source)
    return kept, marginals_along(kept.states, kept.target, _FRAMES)


@register(
    "forward-moving",
    shows="The histogram of the samples and the exact marginal beside it, move after move from the data to noise",
    study="documents/notebook-fixed",
    document="notebook: the animated histogram of simulated particles and q_t",
    find=moving,
    target=lambda found: found[0].target.name,
    moves=True,
)
def forward_moving(found: tuple[KeptTrajectory, StoredMarginals], style: FigureStyle) -> Movie:
    """One panel, whose histogram and curve move."""
    kept, marginals = found
    figure = style.sheet(height=0.72, wide=False)
    ax = figure.subplots()
    frames = len(marginals.levels)
    last = frames - 1
    # the data may be atoms, as high as their bins are narrow: they leave the picture at its top
    later = marginals.densities[min(2, last) :]
    top = 1.15 * float(later.max())

    filled, outline = histogram(ax, marginals.densities[last], marginals.edges, style.color(0), label="samples")
    exact = None
    if marginals.exact is not None:
        exact = curve(ax, marginals.exact[last], marginals.edges, style, label="exact $q_k$")
    ax.set(xlim=marginals.edges[[0, -1]], ylim=(0, top), ylabel="density")
    ax.set_xlabel(marginals.named("$x_k$", "standard deviation of $q_k$"))
    figure.legend(loc="outside lower center", ncols=2)  # beside it, an atom would go through
    if said := _of_the_moves(kept, wider_than_exact(kept), "\n"):
        figure.suptitle(said)

    def show(frame: int) -> None:
        for part in (filled, outline):
            part.set_data(marginals.densities[frame])
        if exact is not None and marginals.exact is not None:
            exact.set_ydata(marginals.exact[frame])
        ax.set_title(
            f"after {marginals.levels[frame]} of {marginals.levels[-1]} moves, σ = {marginals.sigmas[frame]:.2f}"
        )

    with settled(figure):
        show(last)
    return Movie(figure, frames, show, style)


def mixture(source: Source) -> tuple[KeptTrajectory, StoredMarginals]:
    """The first way from the data to noise with an exact law at each level."""
    kept = _forward(source)
    for one in source.trajectories(1, forward=True):
        marginals = marginals_along(one.states, one.target, _MOST)
        if marginals.exact is not None:
            return one, marginals
    return kept, marginals_along(kept.states, kept.target, _MOST)


@register(
    "mixture-paths",
    shows="The law of a mixture on its way to a normal one, as colours, and the paths of some of its samples",
    study="documents/talk-forward",
    document="tutorial, figure 12: trajectories of a Gaussian mixture; talk: the forward process",
    find=mixture,
    target=lambda found: found[0].target.name,
)
def mixture_paths(found: tuple[KeptTrajectory, StoredMarginals], style: FigureStyle) -> Figure:
    """The map with paths; at its sides the law at the start and at the end."""
    kept, marginals = found
    shown = marginals.densities if marginals.exact is None else marginals.exact
    edges, levels = marginals.edges, marginals.levels
    figure = style.sheet(height=0.42)
    before, ax, after = figure.subplots(1, 3, sharey=True, gridspec_kw={"width_ratios": [1, 5, 1]})
    top = 1.2 * float(np.quantile(shown, 0.985))
    box = (float(levels[0]), float(levels[-1]), float(edges[0]), float(edges[-1]))
    density_map(ax, shown.T, box, style, top)
    for i in range(min(_PATHS, marginals.values.shape[1])):
        ax.plot(levels, marginals.values[:, i], color=style.color(1), linewidth=0.6 * style.line)
    ax.set_xlabel("moves $k$")
    law = "samples" if marginals.exact is None else "exact law"
    said = _of_the_moves(kept, wider_than_exact(kept))
    figure.suptitle(
        in_lines(
            f"{kept.panel.title}: {law} as colours, paths of {min(_PATHS, marginals.values.shape[1])} samples as lines;",
            f"at the sides samples filled{'' if marginals.exact is None else ', exact law dashed'}",
            said,
        )
    )
    for side, row, name in ((before, 0, "data"), (after, -1, f"σ = {number(float(marginals.sigmas[-1]), 2)}")):
        histogram(side, marginals.densities[row], edges, style.color(0), upright=False)
        if marginals.exact is not None:
            curve(side, marginals.exact[row], edges, style, upright=False)
        side.set(xticks=[], title=name)
        side.set_xlim(left=0)
    before.invert_xaxis()
    before.set_ylabel(marginals.named("$x_k$", "standard deviation"))
    return figure
