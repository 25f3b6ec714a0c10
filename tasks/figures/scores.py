"""Scores: exact and learned, where there are data and where there are none, and by noise level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion.schedules.grids import grids
from diffusion.schedules.levels import levels_of
from tasks.figures.lacking import FigureLacksData
from tasks.figures.langevin import density_on_grid, middle_of, places, window
from tasks.figures.panels import density_map
from tasks.figures.registry import register
from tasks.figures.source import Source
from tasks.figures.style import FigureStyle
from tasks.models import Model
from tasks.report.lookup.targets import Target
from tasks.report.numbers.curves import Mean, Series
from tasks.report.numbers.flows import begins_with_noise
from tasks.report.numbers.score_errors import errors_by_level
from tasks.report.text import number

Array = NDArray[np.float64]
_ARROWS = 19
_STEPS = 40
_LONG = 45  # characters of a name, two of which do not stand beside each other
_FEW = 0.05  # of the law lies where the density is called low


@dataclass(frozen=True)
class ScoreField:
    """The scores of one model in the plane at one noise level.

    Args:
        sigma: The noise of the level, for data of amplitude `alpha`.
        alpha: That amplitude.
        noise: The same noise in the data's units.
        middle: The middle of the window.
        reach: Half of it.
        density: The exact density on a grid ``[row, column]``.
        least: The density below which 5 % of the law lie.
        points: Where arrows stand, ``[arrow, 2]``.
        exact: The score of the noised data there.
        learned: What the model says there.
        low: Whether the density there is below `least`.
    """

    sigma: float
    alpha: float
    noise: float
    middle: tuple[float, float]
    reach: float
    density: Array
    least: float
    points: Array
    exact: Array
    learned: Array
    low: NDArray[np.bool_]

    def error(self, *, low: bool) -> float:
        """Mean of ``noise^2 |s_theta - s|^2 / 2`` over the arrows where the density is low, or is
        not: 1 is what no score at all would err by where there is noise alone.
        """
        there = self.low == low
        apart = ((self.learned - self.exact)[there] ** 2).sum(axis=1)
        return float(self.noise**2 * apart.mean() / 2) if there.any() else float("nan")


@dataclass(frozen=True)
class LearnedScores:
    """A trained model in the plane, and its scores at some noise levels, the highest first."""

    target: Target
    series: Series
    at: list[ScoreField]


def _learned(source: Source, shares: tuple[float, ...]) -> LearnedScores:
    """Of the first trained denoiser of an exact law in the plane; noise levels as shares of the
    data's width, the next ones that the model was trained at.
    """
    for target in source.datasets(2):
        if not target.exact or (target.frame is not None and not target.frame.one_scale):
            continue  # models say nothing of noise of one size where their coordinates have scales of their own
        for row in source.table.points:
            series = source.table.series_of(row.formulation, row.schedule)
            guided = row.requested.guidance is not None  # the model alone does not follow that law
            if row.dataset != target.name or row.status != "ok" or guided or series is None or series.exact:
                continue
            model = source.answers.model(row.cell_id)
            if model is not None and begins_with_noise(model):
                return LearnedScores(target, series, [score_field(target, model, share) for share in shares])
    raise FigureLacksData("a trained denoiser of data in the plane whose exact law is known")


def score_field(target: Target, model: Model, share: float) -> ScoreField:
    """The scores of a model at the level of its own grid whose ``sigma / alpha`` is nearest to
    `share` of the data's width.

    Args:
        target: An exact law in the plane.
        model: A denoiser of it.
        share: The noise asked for, in standard deviations of the data.

    Raises:
        FigureLacksData: The schedule has no level that holds both data and noise.
    """
    law = target.working
    assert law is not None  # noqa: S101 - `_learned` has asked
    schedule = model.cell.schedule
    levels = levels_of([schedule], [grids.create(schedule.own_grid)], min(_STEPS, schedule.max_steps or _STEPS))
    both = [(float(one.alpha), float(one.sigma)) for one in levels if float(one.alpha) > 0 and float(one.sigma) > 0]
    if not both:
        raise FigureLacksData("a schedule with a level that holds both data and noise")
    alpha, sigma = min(both, key=lambda level: abs(np.log(level[1] / level[0] / (share * law.std))))
    reach = 2.4 * target.standard_deviation(alpha, sigma)
    density = density_on_grid(target, alpha, sigma, reach)
    points = places(target, reach, _ARROWS)
    exact = target.score(points, alpha, sigma)
    at_points = np.exp(target.log_density(points, alpha, sigma))
    noise = target.noise(sigma)
    noisy = torch.from_numpy(points - (1 - alpha) * target.shift)  # alpha x_0 + noise, as a model is asked
    learned = model.score(noisy, noise, alpha=alpha).detach().cpu().numpy()
    ordered = np.sort(density.ravel())
    share_below = np.cumsum(ordered) / ordered.sum()
    least = float(ordered[np.searchsorted(share_below, _FEW)])
    middle = middle_of(target)
    return ScoreField(sigma, alpha, noise, middle, reach, density, least, points, exact, learned, at_points < least)


def _arrows(ax: Axes, one: ScoreField, score: Array, color: str) -> None:
    """Arrows along a score, longer where it is larger, but no longer than their spacing."""
    size = np.linalg.norm(score, axis=1, keepdims=True)
    usual = float(np.median(np.linalg.norm(one.exact, axis=1))) or 1.0
    longest = 2 * one.reach / _ARROWS
    shown = score / np.maximum(size, 1e-12) * longest * np.tanh(size / usual)
    ax.quiver(
        *one.points.T,
        *shown.T,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.005,
        headwidth=4,
        headlength=4,
        headaxislength=3.5,
        color=color,
    )


def _ground(ax: Axes, one: ScoreField, style: FigureStyle, *, marked: bool) -> None:
    density_map(ax, one.density, window(one.middle, one.reach), style, 2.2 * float(np.quantile(one.density, 0.99)))
    if marked:
        along = (np.arange(len(one.density)) + 0.5) / len(one.density) * 2 * one.reach - one.reach
        x, y = (along + at for at in one.middle)
        low = ax.contourf(x, y, one.density, levels=[-1.0, one.least], colors="none", hatches=["///"])
        low.set_edgecolor(style.muted)
        ax.contour(x, y, one.density, levels=[one.least], colors=[style.accent], linewidths=0.9 * style.line)
    ax.set_aspect("equal")
    ax.locator_params(nbins=4)


def low_density(source: Source) -> LearnedScores:
    """At one level of little noise."""
    return _learned(source, (0.25,))


@register(
    "score-fields",
    shows="The exact score, the learned one and its error where there are hardly any data: outside the line lie 5 % of the law",
    study="documents/notes-ncsn",
    document="notes: estimated scores are inaccurate in regions of low density",
    find=low_density,
    target=lambda found: found.target.name,
)
def score_fields(found: LearnedScores, style: FigureStyle) -> Figure:
    """Exact, learned, and their difference."""
    (one,) = found.at
    figure = style.sheet(height=0.42)
    panels = figure.subplots(1, 3, sharey=True)
    shown = (("exact score", one.exact), ("learned score", one.learned), ("difference", one.learned - one.exact))
    for k, (ax, (name, score)) in enumerate(zip(panels, shown, strict=True)):
        _ground(ax, one, style, marked=True)
        _arrows(ax, one, score, style.ink if k < 2 else style.color(1))
        ax.set(title=name, xlabel="$x_1$")
    panels[0].set_ylabel("$x_2$")
    figure.suptitle(
        f"{found.series.label}, σ/α = {number(one.sigma / one.alpha, 2)}. Mean $\\sigma^2|s_\\theta - s|^2/2$: "
        f"{number(one.error(low=False), 2)} where data are, {number(one.error(low=True), 2)} elsewhere (hatched)"
    )
    return figure


def by_noise(source: Source) -> LearnedScores:
    """At three levels, from much noise to little."""
    return _learned(source, (1.2, 0.5, 0.15))


@register(
    "noise-levels",
    shows="Density and score of the noised data at three noise levels, exact above and learned below",
    study="documents/notes-ncsn",
    document="notes: multiple scales of noise perturb the data, and their scores",
    find=by_noise,
    target=lambda found: found.target.name,
)
def noise_levels(found: LearnedScores, style: FigureStyle) -> Figure:
    """A column for each level."""
    figure = style.sheet(height=0.74)
    panels = figure.subplots(2, len(found.at), squeeze=False)
    for column, one in zip(panels.T, found.at, strict=True):
        for ax, score in zip(column, (one.exact, one.learned), strict=True):
            _ground(ax, one, style, marked=False)
            _arrows(ax, one, score, style.ink)
        column[0].set_title(f"σ/α = {number(one.sigma / one.alpha, 2)}")
        column[1].set_xlabel("$x_1$")
    panels[0][0].set_ylabel("exact\n$x_2$")
    panels[1][0].set_ylabel("learned\n$x_2$")
    figure.suptitle(f"{found.series.label}: density of the noised data as colours, score as arrows")
    return figure


@dataclass(frozen=True)
class ScoreErrors:
    """The error of learned scores of one data set by series: noise-to-signal ratio and seeds."""

    target: Target
    curves: dict[Series, list[tuple[float, Mean]]]


def score_errors(source: Source) -> ScoreErrors:
    """Of the first data set where it was measured."""
    found = source.answers.score_errors()
    for target in source.datasets():
        curves = errors_by_level(found, source.table, target.name)
        if curves:
            return ScoreErrors(target, curves)
    raise FigureLacksData("errors of learned scores (metric score-error)")


@register(
    "score-error",
    shows="The Fisher error of learned scores against the noise level, a curve for each way of learning",
    study="documents/notes-score-matching",
    document="notes: the Fisher divergence of a learned score, by noise scale",
    find=score_errors,
    target=lambda found: found.target.name,
)
def score_error(found: ScoreErrors, style: FigureStyle) -> Figure:
    """Both axes logarithmic; bands are 95 % intervals over seeds, from three on."""
    figure = style.sheet(height=0.5)
    ax = figure.subplots()
    bands = False
    for series, levels in found.curves.items():
        ratio = [nsr for nsr, _ in levels]
        color = style.color(series.style)
        means = [mean.geometric_mean for _, mean in levels]
        ax.plot(
            ratio,
            means,
            color=color,
            marker=style.marker(series.style),
            linestyle=style.dash(series.style),
            label=series.label,
        )
        banded = [(nsr, *interval) for nsr, mean in levels if (interval := mean.geometric_interval) is not None]
        if len(banded) > 1:
            at, low, high = zip(*banded, strict=True)
            ax.fill_between(at, low, high, color=color, alpha=0.16, linewidth=0)
            bands = True
    ax.set(xscale="log", yscale="log", xlabel="noise-to-signal ratio σ/α")
    ax.set_ylabel(r"$\sigma^2\, \mathrm{E}\,|s_\theta - s|^2$ / dimension")
    ax.set_title(f"{found.target.name}{'; bands: 95 % intervals over seeds' if bands else ''}")
    if len(found.curves) > 1:
        longest = max(len(series.label) for series in found.curves)
        figure.legend(loc="outside lower center", ncols=1 if longest > _LONG else 2 if longest > _LONG / 2 else 4)
    else:
        ax.legend(loc="best")
    return figure
