"""The pictures of the documents by their names, from stored results, as files for papers, slides and
dark screens.

    figure("flow-fields", store="results", style="slide").savefig("fields.svg")

- `registry`: an entry for each figure; `source`: where its numbers are found;
- `forward`, `reverse`, `flow`, `steps`, `torus`, `langevin`, `scores`, `digits`, `action`,
  `quality`: the figures, each as the numbers that it shows and as its picture;
- `style`, `panels`: how they look; `movie`: one in motion; `files`: one as a file; `make`: one by
  its name.
"""

from __future__ import annotations

from tasks.figures.lacking import FigureLacksData
from tasks.figures.make import figure
from tasks.figures.movie import Movie, save
from tasks.figures.registry import FIGURES, FigureEntry, figure_named
from tasks.figures.style import STYLES, style_named

__all__ = [
    "FIGURES",
    "STYLES",
    "FigureEntry",
    "FigureLacksData",
    "Movie",
    "figure",
    "figure_named",
    "save",
    "style_named",
]
