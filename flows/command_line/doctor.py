"""`doctor`: whether what a run needs is there, and what mends what is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from flows.command_line.options import JsonOption, StoreOption, app, clear_errors, width
from flows.exit_codes import UNAVAILABLE

_SIGNS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


@app.command()
def doctor(
    store: StoreOption = "results",
    ray: Annotated[str | None, typer.Option("--ray", help="A Ray cluster to look at.", metavar="ADDRESS")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read all of the store, not its tables alone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at packages, disks, the store, the Prefect server and the Ray cluster.

    Each problem comes with what mends it. Ends with 3 if there is one, with 0 otherwise. Nothing
    is locked, and nothing stays written.
    """
    with clear_errors():
        from flows.doctor import examine

        found = []
        console = Console(width=width(), highlight=False, soft_wrap=True)
        for finding in examine(store, ray, deep=deep):
            found.append(finding)
            if not as_json:
                console.print(f"{_SIGNS[finding.level]:8}{finding.of}: {finding.text}", markup=False)
                if finding.remedy:
                    console.print(f"        -> {finding.remedy}", markup=False)
        problems = sum(finding.level == "problem" for finding in found)
        if as_json:
            print(json.dumps({"healthy": not problems, "findings": [asdict(one) for one in found]}, indent=2))  # noqa: T201
        else:
            console.print(f"{problems} problems" if problems else "healthy: a run can start", markup=False)
        if problems:
            raise typer.Exit(UNAVAILABLE)
