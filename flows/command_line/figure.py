"""`figure`: the pictures of the documents by their names, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.command_line.options import (
    AllowPluginsOption,
    AsOfOption,
    StoreOption,
    StudyOption,
    WrongOption,
    app,
    clear_errors,
    err,
    width,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.figures import FigureEntry


@app.command("figure")
def figure_command(
    name: Annotated[str | None, typer.Argument(help="Which figure: see --list.", metavar="NAME")] = None,
    store: StoreOption = "results",
    study: StudyOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A file .svg, .pdf, .png, .gif or .mp4 (figures/NAME.svg or .gif).", metavar="FILE"),
    ] = None,
    style: Annotated[str, typer.Option("--style", help="paper, slide or dark")] = "paper",
    frame: Annotated[
        int | None,
        typer.Option("--frame", help="Which frame of one that moves, as a still: 0, 1, ... or -1, the last."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Every figure, and what it shows.")] = False,
    as_of: AsOfOption = None,
    allow_plugins: AllowPluginsOption = None,  # noqa: ARG001 - its callback has done it
) -> None:
    """Draw a figure of the documents from stored results, for a paper, a slide or a dark screen.

    Of a figure that moves, .svg, .pdf and .png hold its last frame, or the one that --frame names.
    """
    with clear_errors():
        from tasks.figures import FIGURES, Movie, figure, figure_named, save, style_named
        from tasks.figures.files import ending_of

        if listed:
            _show(FIGURES.values())
            return
        if name is None:
            raise WrongOption("figure: found no NAME; accepted: one of diffatlas figure --list")
        entry = figure_named(name)
        style_named(style)
        path = out or Path("figures") / f"{name}.{'gif' if entry.moves else 'svg'}"
        ending = ending_of(path, moves=entry.moves)
        if frame is not None and (not entry.moves or ending in ("gif", "mp4")):
            raise WrongOption(
                f"--frame: {path} is no still of a figure that moves; accepted: a moving figure as svg, pdf or png"
            )
        drawn = figure(name, study=study, store=store, style=style, as_of=as_of)
        with writing(path):
            save(drawn, path, frame=-1 if frame is None else frame)
        if isinstance(drawn, Movie) and ending not in ("gif", "mp4"):
            which = "the last" if frame is None else f"frame {frame}"
            err.print(
                f"note: {name} moves; {path} holds {which} of {drawn.frames} frames (.gif and .mp4 hold all)",
                markup=False,
            )
        print(f"figure: {path}")  # noqa: T201


def _show(entries: Iterable[FigureEntry]) -> None:
    table = Table()
    for column in ("name", "shows", "from"):
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for entry in entries:
        table.add_row(entry.name, f"{entry.shows}{' (moves)' if entry.moves else ''}", entry.study)
    Console(width=width()).print(table, markup=False)
