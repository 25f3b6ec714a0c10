"""Images: an autoencoder beside a diffusion model, and one half of a picture completed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion.guidance.coordinates import KnownCoordinates
from tasks.figures.lacking import FigureLacksData
from tasks.figures.panels import apart, bare, tight
from tasks.figures.registry import register
from tasks.figures.source import KeptTrajectory, Source
from tasks.figures.style import FigureStyle
from tasks.report.lookup.targets import Target
from tasks.report.numbers.kept import Kept, kept_samples
from tasks.report.numbers.levels import levels_of
from tasks.report.numbers.sheets import Sheets, sheets_of
from tasks.report.text import number

Array = NDArray[np.float64]
_LEVELS = 8
_STRIPS = 5


def _images(source: Source) -> list[Target]:
    found = [target for target in source.datasets() if target.image_shape is not None]
    if not found:
        raise FigureLacksData("a data set of images")
    return found


@dataclass(frozen=True)
class TwoModels:
    """Samples of an autoencoder and of a diffusion model, beside the data."""

    target: Target
    sheets: Sheets
    autoencoder: Kept
    diffusion: Kept

    def shown(self) -> list[tuple[str, Array]]:
        """The data, then the samples of the most steps of each, with their names."""
        data = [] if self.sheets.data is None else [("data", self.sheets.data)]
        models = [(one, max(one.values)) for one in (self.autoencoder, self.diffusion)]
        return data + [(f"{one.series.label}, N = {n}", one.values[n]) for one, n in models]


def two_models(source: Source) -> TwoModels:
    """Of the first data set of images that has samples of both."""
    for target in _images(source):
        autoencoder = diffusion = None
        for panel in source.panels(target):
            kept, _ = kept_samples(source.answers, source.table, target.name, target.dim or 0, panel, target)
            for one in kept:
                if one.series.exact or one.target is not None:
                    continue
                if one.series.formulation.startswith("vae"):
                    autoencoder = autoencoder or one
                elif panel.rule:
                    diffusion = diffusion or one
        if autoencoder and diffusion and target.image_shape:
            sheets = sheets_of(target, [autoencoder, diffusion], target.image_shape)
            return TwoModels(target, sheets, autoencoder, diffusion)
    raise FigureLacksData("kept samples of an autoencoder and of a diffusion model of images")


@register(
    "autoencoder-and-diffusion",
    shows="Images of an autoencoder and of a diffusion model beside the data they were trained on",
    study="digits",
    document="tutorial, sections 1 and 2: from the variational autoencoder to the diffusion model",
    find=two_models,
    target=lambda found: found.target.name,
)
def autoencoder_and_diffusion(found: TwoModels, style: FigureStyle) -> Figure:
    """Three sheets, the first images of each as they come."""
    shown = found.shown()
    figure = style.sheet(height=1.1 / len(shown))
    apart(figure)
    for ax, (name, values) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _sheet(ax, found.sheets.first(values), style)
        ax.set_title(name)
    return figure


def _sheet(ax: Axes, sheet: Array, style: FigureStyle) -> None:
    ax.imshow(np.ma.masked_invalid(sheet), cmap=style.grey, vmin=0, vmax=1, interpolation="nearest")
    bare(ax)
    between = style.grey(0.25)  # a white image ends where its frame is
    ax.set_facecolor(between)
    for spine in ax.spines.values():
        spine.set(visible=True, color=between, linewidth=0.6)


@dataclass(frozen=True)
class Completions:
    """Images of which a part is known, on their way from noise.

    Args:
        kept: The trajectory.
        sheets: How images are laid out.
        known: Whether a pixel is known, ``[dim]``.
        given: What is known of the image, NaN elsewhere ``[dim]``.
        states: ``[level, sample, dim]``, each level scaled to the spread of the data.
        sigmas: The noise at each level.
    """

    kept: KeptTrajectory
    sheets: Sheets
    known: NDArray[np.bool_]
    given: Array
    states: Array
    sigmas: list[float]


def completions(source: Source) -> Completions:
    """The first kept trajectory of images of which coordinates are known exactly."""
    for target in _images(source):
        whole = next(
            (
                row.requested.dataset.component
                for row in source.table.points
                if row.dataset == target.name and row.requested.dataset.component is not None
            ),
            None,
        )
        if whole is None or whole.image_shape is None:
            continue
        for kept in source.every_trajectory(target, whole.dim):
            guidance = kept.row.requested.guidance
            if guidance is None or not isinstance(guidance.component, KnownCoordinates) or guidance.component.noise:
                continue
            observation = guidance.component.observation(whole)
            known = np.zeros(whole.dim, dtype=bool)
            known[list(observation.coordinates)] = True
            given = np.full(whole.dim, np.nan)
            given[list(observation.coordinates)] = observation.values
            plain = Target(whole.label(), whole)
            sheets = sheets_of(plain, [], whole.image_shape)
            chosen, _, alphas, sigmas = levels_of(kept.states, _LEVELS)
            values = kept.states.transpose("level", "sample", "coordinate").values.astype(float)[chosen, :_STRIPS]
            middle = (sheets.low + sheets.high) / 2
            wide = [whole.std / np.hypot(a * whole.std, s) for a, s in zip(alphas, sigmas, strict=True)]
            states = np.stack([middle + (x - a * middle) * w for x, a, w in zip(values, alphas, wide, strict=True)])
            return Completions(kept, sheets, known, given, states, sigmas.tolist())
    raise FigureLacksData("a kept trajectory of images of which a part is known (guidance inpainting)")


@register(
    "inpainting",
    shows="One half of an image is known, the other comes out of noise: level by level, several samples",
    study="digits",
    document="notes: conditional generation and inpainting with an unconditional model",
    find=completions,
    target=lambda found: found.kept.target.name,
)
def inpainting(found: Completions, style: FigureStyle) -> Figure:
    """What is known on the left, then a column for each level, a row for each sample."""
    n, rows = found.states.shape[0], found.states.shape[1]
    figure = style.sheet(height=1.0 * rows / (n + 1) + 0.08)
    tight(figure)
    panels = figure.subplots(1, n + 1)
    columns = [np.broadcast_to(found.given, found.states[0].shape), *found.states]
    names = ["known", *(number(sigma, 2) for sigma in found.sigmas)]
    for ax, name, images in zip(panels, names, columns, strict=True):
        _sheet(ax, found.sheets.tiled(images, 1), style)
        ax.set_title(name)
    hidden = np.broadcast_to(np.where(found.known, np.nan, found.sheets.low), found.states[0].shape)
    unknown = np.ma.masked_invalid(found.sheets.tiled(hidden, 1))
    panels[0].imshow(unknown, cmap=ListedColormap([style.muted]), interpolation="nearest")
    figure.suptitle(f"{found.kept.title}; σ above each column")
    return figure
