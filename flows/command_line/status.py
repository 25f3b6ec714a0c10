"""`status`: what a store holds of each study, what failed and why, and who writes to it now."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.clock import clock
from flows.command_line.options import JsonOption, StoreOption, app, clear_errors, width
from tasks.messages import counted
from tasks.report.text import some

if TYPE_CHECKING:
    from tasks.results.live import Live
    from tasks.results.status import Status, StudyStatus

_COUNTS = {"asked": "asked", "ok": "ok", "failed": "failed", "skipped": "impossible", "missing": "to compute"}

_WATCH_SECONDS = 2.0
_MOST_REASONS, _MOST_NAMES = 5, 3  # of failures, for eyes
_MOST_RUNS = 20  # task runs that go on, for eyes


@app.command()
def status(
    store: StoreOption = "results",
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="tell again every two seconds, until the run ends")] = False,
) -> None:
    """Who writes to a store, how far it and each study are, what failed and why. Nothing is locked."""
    with clear_errors():
        from tasks.results.status import status_of

        console = Console(width=width(), highlight=False)
        while True:
            found = status_of(store)
            if watch and console.is_terminal:
                console.clear()
            if as_json:
                print(json.dumps(_document(found), indent=None if watch else 2), flush=True)  # noqa: T201 - the document asked for
            else:
                _print(found, console)
            if not watch or found.holder is None or found.abandoned:
                return
            time.sleep(_WATCH_SECONDS)


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
        "run": found.live and _run(found.live),
    }


def _run(live: Live) -> dict[str, Any]:
    running = [{"task": name, "fraction": round(part, 3), "doing": doing} for name, part, doing in live.running]
    return {**asdict(live), "running": running}


def _print(found: Status, console: Console) -> None:
    at = found.snapshot.time.isoformat(timespec="seconds")
    console.print(f"store {found.store}: snapshot {found.snapshot.id} of {at}: {found.snapshot.message}", markup=False)
    if found.holder is None:
        console.print("no run has it", markup=False)
    elif found.abandoned:
        console.print(f"the run that had it ({found.holder}) was killed; the next run goes on", markup=False)
    else:
        console.print(f"in use by a run ({found.holder})", markup=False)
    if found.live is not None:
        _print_run(found.live, console)
    if not found.studies:
        return
    table = Table()
    table.add_column("study", overflow="fold")
    for heading in _COUNTS.values():
        table.add_column(heading, justify="right")
    for study in found.studies:
        table.add_row(study.study, *(str(getattr(study, name)) for name in _COUNTS))
    console.print(table)
    for study in found.studies:
        _print_failures(study, console)


def _print_failures(study: StudyStatus, console: Console) -> None:
    for one in study.failures[:_MOST_REASONS]:
        console.print(
            f"{study.study}: {counted(len(one.point_ids), 'point')} failed ({some(one.questions, _MOST_NAMES)}): {one.reason}",
            markup=False,
        )
    more = study.failures[_MOST_REASONS:]
    if more:
        points = counted(sum(len(one.point_ids) for one in more), "point")
        reasons = counted(len(more), "more reason")
        console.print(f"{study.study}: {points} failed for {reasons}; --json tells all", markup=False)


def _print_run(live: Live, console: Console) -> None:
    failed = f", {live.points_failed} failed" if live.points_failed else ""
    lost = f" and {live.shards_incomplete} not complete" if live.shards_incomplete else ""
    left = "" if live.seconds_left is None else f"; about {clock(live.seconds_left)} left"
    console.print(
        f"study {live.study}: {live.shards_done} of {counted(live.shards, 'shard')} done{lost}, "
        f"{live.points_done} of {counted(live.points, 'point')}{failed}{left}",
        markup=False,
    )
    for name, part, doing in live.running[:_MOST_RUNS]:
        console.print(f"  {name}: {100 * part:.0f} %{f' ({doing})' if doing else ''}", markup=False)
    more = len(live.running) - _MOST_RUNS
    if more > 0:
        console.print(f"  and {counted(more, 'more task run')}; --json tells all", markup=False)
