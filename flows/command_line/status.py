"""`status`: what a store holds of each study, and who writes to it now."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from flows.command_line.options import JsonOption, StoreOption, app, clear_errors, width

if TYPE_CHECKING:
    from tasks.results.status import Status

_COUNTS = {"asked": "asked", "ok": "ok", "failed": "failed", "skipped": "impossible", "missing": "to compute"}


@app.command()
def status(store: StoreOption = "results", as_json: JsonOption = False) -> None:
    """Who writes to a store, and how far each study is. Nothing is locked."""
    with clear_errors():
        from tasks.results.status import status_of

        found = status_of(store)
        if as_json:
            print(json.dumps(_document(found), indent=2))  # noqa: T201 - the document asked for
            return
        _print(found)


def _document(found: Status) -> dict[str, Any]:
    holder = found.holder
    running = holder and {name: getattr(holder, name) for name in ("host", "pid", "started", "since")}
    return {
        "store": found.store,
        "snapshot": found.snapshot.id,
        "time": found.snapshot.time.isoformat(timespec="seconds"),
        "message": found.snapshot.message,
        "studies": [asdict(study) | {"missing": study.missing} for study in found.studies],
        "holder": running and {**running, "ended": found.abandoned},
    }


def _print(found: Status) -> None:
    console = Console(width=width(), highlight=False)
    at = found.snapshot.time.isoformat(timespec="seconds")
    console.print(f"store {found.store}: snapshot {found.snapshot.id} of {at}: {found.snapshot.message}", markup=False)
    if found.holder is None:
        console.print("no run has it", markup=False)
    elif found.abandoned:
        console.print(f"the run that had it ({found.holder}) was killed; the next run goes on", markup=False)
    else:
        console.print(f"in use by a run ({found.holder})", markup=False)
    if not found.studies:
        return
    table = Table()
    table.add_column("study", overflow="fold")
    for heading in _COUNTS.values():
        table.add_column(heading, justify="right")
    for study in found.studies:
        table.add_row(study.study, *(str(getattr(study, name)) for name in _COUNTS))
    console.print(table)
