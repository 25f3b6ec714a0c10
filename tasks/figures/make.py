"""A figure by its name: the store is opened, the numbers looked up, the picture drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.figures import action, digits, flow, forward, langevin, quality, reverse, scores, steps, torus
from tasks.figures.lacking import FigureLacksData
from tasks.figures.movie import Movie
from tasks.figures.registry import FigureEntry, figure_named
from tasks.figures.source import Source
from tasks.figures.style import style_named
from tasks.results.models import ModelledAnswers
from tasks.store import ATLAS, Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tasks.figures.style import FigureStyle

_ROOMS = (
    forward,
    reverse,
    flow,
    steps,
    torus,
    langevin,
    scores,
    digits,
    action,
    quality,
)  # their import registers them


def figure(
    name: str, *, study: str | None = None, store: str = "results", style: str = "paper", as_of: str | None = None
) -> Figure | Movie:
    """A picture of the documents, drawn from stored results.

    Args:
        name: Which one: see `diffatlas figure --list`.
        study: Whose answers; None: of the study that computes them, or else of the first that has
            them.
        store: A folder, or ``s3://bucket/prefix``.
        style: ``paper``, ``slide`` or ``dark``.
        as_of: A snapshot, a tag or a time.

    Returns:
        A matplotlib figure, which belongs to no window; of a figure that moves a `Movie`, which has
        ``save``, ``still`` and ``animation``.

    Raises:
        UnknownName: No figure or style has that name.
        StoreUnavailable: There is no store, or it cannot be read.
        UnknownStudy: The store holds no study of that name.
        FigureLacksData: The store has not what the figure shows; the text says which study computes
            it.
    """
    entry, look = figure_named(name), style_named(style)
    return picture(entry, look_up(entry, study, store, as_of), look)


@dataclass(frozen=True)
class FoundNumbers:
    """The numbers of a figure, and the study that they are of."""

    numbers: Any
    study: str


def picture(entry: FigureEntry, found: FoundNumbers, style: FigureStyle) -> Figure | Movie:
    """The picture of the numbers of a figure, laid out. Its label names study and target, which
    files keep as their description.
    """
    of = f"study {found.study}, target {entry.target(found.numbers)}"
    with style.worn():
        drawn = entry.draw(found.numbers, style)
        figure = drawn.figure if isinstance(drawn, Movie) else drawn
        figure.set_label(f"{entry.name}: {of}")
        if style.credited:
            style.credit(figure, of)
        figure.draw_without_rendering()  # ticks are made in this style
    return drawn


def look_up(entry: FigureEntry, study: str | None, store: str, as_of: str | None = None) -> FoundNumbers:
    """The numbers of a figure. Arguments and errors as of `figure`."""
    opened = Store.open(store)
    asked = ModelledAnswers(opened, study, as_of)
    names = [study] if study else sorted(asked.studies, key=lambda name: name != entry.stored_as)
    needed = ""
    for name in names:
        try:
            return FoundNumbers(entry.find(Source(ModelledAnswers(opened, name, as_of))), name)
        except FigureLacksData as lacking:
            needed = needed or str(lacking)
    where = f"study {study} of store {store} has not" if study else f"store {store} has not"
    address = "" if store in ("results", ATLAS) else f" --store {store}"  # nobody writes to the shipped answers
    raise FigureLacksData(
        f"figure {entry.name!r} shows {needed or 'the answers of a study'}, which {where}: diffatlas run {entry.study}{address} computes it"
    )
