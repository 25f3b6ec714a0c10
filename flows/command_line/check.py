"""`check`: what a component claims, held against what it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.command_line.options import AllowPluginsOption, JsonOption, WrongOption, app, clear_errors, width
from flows.exit_codes import FAILED

if TYPE_CHECKING:
    from tasks.models.check import Checked


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="heun, mine:Ralston, or '{name: ddim, eta: 0.5}'.", metavar="COMPONENT")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="sampler, schedule, dataset, ..., where several have the name.")
    ] = None,
    as_json: JsonOption = False,
    allow_plugins: AllowPluginsOption = None,  # noqa: ARG001 - its callback has done it
) -> None:
    """Hold the claims of a component against what it does: the order of a sampler, the derivatives of
    a schedule, the score of a data set, the floor of a metric.

    Ends with 1 if a claim fails, with 2 for an unknown name, with 0 otherwise.
    """
    with clear_errors():
        from tasks.models import check as rows_of

        rows = rows_of(_given(name), kind=kind)
        broken = sum(not row.holds for row in rows)
        if as_json:
            print(json.dumps({"holds": not broken, "claims": [asdict(row) for row in rows]}, indent=2))  # noqa: T201
        else:
            _print(rows, Console(width=width(), highlight=False))
        if broken:
            raise typer.Exit(FAILED)


def _given(text: str) -> object:
    """A name, or a mapping as a study has it."""
    if not text.lstrip().startswith("{"):
        return text
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise WrongOption(f"check: {text!r} is no mapping ({error})") from error
    if not isinstance(found, Mapping) or "name" not in found:
        raise WrongOption(f"check: found {text!r}; accepted: a name, or a mapping {{name: ..., parameter: ...}}")
    return found


def _print(rows: list[Checked], console: Console) -> None:
    for subject in dict.fromkeys((row.kind, row.name) for row in rows):
        table = Table(title=" ".join(subject), title_justify="left", title_style="bold")
        for column in ("claim", "", "expected", "found"):
            table.add_column(column, overflow="fold")
        for row in rows:
            if (row.kind, row.name) == subject:
                table.add_row(row.claim, "holds" if row.holds else "FAILS", row.expected, row.found)
        console.print(table, markup=False)
    broken = sum(not row.holds for row in rows)
    console.print(f"{broken} of {len(rows)} claims fail" if broken else f"all {len(rows)} claims hold", markup=False)
