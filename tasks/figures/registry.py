"""The figures by their names: one entry of each, from which the list, the page of the documentation
and the tests are made.

A figure is two functions: `find` looks up its numbers in the answers of a study, and refuses by
`FigureLacksData` what has none for it; `draw` makes a picture of them and looks up nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from diffusion.registry import UnknownName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tasks.figures.movie import Movie
    from tasks.figures.source import Source
    from tasks.figures.style import FigureStyle

D = TypeVar("D")


@dataclass(frozen=True)
class FigureEntry:
    """A figure.

    Args:
        name: What it is asked for by.
        shows: What is to be seen, in one sentence.
        study: The shipped study that computes what it needs.
        document: Which picture of which document it is.
        moves: Whether it is a picture in motion.
        find: Its numbers in the answers of a study.
        target: The data set that these numbers are of.
        draw: Its picture.
    """

    name: str
    shows: str
    study: str
    document: str
    moves: bool
    find: Callable[[Source], Any]
    target: Callable[[Any], str]
    draw: Callable[[Any, FigureStyle], Figure | Movie]

    @property
    def stored_as(self) -> str:
        """The name of the study in a store."""
        return self.study.rpartition("/")[2]


FIGURES: dict[str, FigureEntry] = {}


def register(
    name: str,
    *,
    shows: str,
    study: str,
    document: str,
    find: Callable[[Source], D],
    target: Callable[[D], str],
    moves: bool = False,
) -> Callable[[Callable[[D, FigureStyle], Figure | Movie]], Callable[[D, FigureStyle], Figure | Movie]]:
    """Decorator of the function that draws a figure; arguments as of `FigureEntry`."""

    def add(
        draw: Callable[[D, FigureStyle], Figure | Movie],
    ) -> Callable[[D, FigureStyle], Figure | Movie]:
        FIGURES[name] = FigureEntry(name, shows, study, document, moves, find, target, draw)
        return draw

    return add


def figure_named(name: str) -> FigureEntry:
    """The figure of a name.

    Raises:
        UnknownName: There is none.
    """
    if name not in FIGURES:
        raise UnknownName("figure", name, list(FIGURES), own=False)
    return FIGURES[name]
