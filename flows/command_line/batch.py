"""Several studies for one command: each is run whatever becomes of the others, and one table tells
how they ended.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffusion.errors import DiffatlasError
from flows.command_line.options import err, width
from flows.exit_codes import FAILED, exit_code_of
from tasks.messages import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flows.request import Outcome
    from tasks.study.collection import CollectedStudy, Collection


@dataclass
class Ended:
    """How one study ended: its line of the last table."""

    study: str
    code: int
    message: str
    counts: dict[str, int] = field(default_factory=dict)  # points by status
    seconds: float = 0.0
    page: str = ""


def run_each(
    collection: Collection,
    run: Callable[[CollectedStudy, Path | None], Outcome | None],
    store: str,
    folder: Path | None,
    services: Sequence[Callable[[], AbstractContextManager[Any]]],
) -> None:
    """Run one study after the other, and end with the worst of their exit codes.

    `run` gives a study's outcome, None if there was nothing to do; pages go to `folder`, if it is
    named. The services are entered once for all; after an error that is nobody's input, and where
    Prefect's server was lost, they are left, and the next study enters them afresh.
    """
    ended: list[Ended] = []
    with ExitStack() as entered:
        ready = False
        for number, member in enumerate(collection.members, start=1):
            begun = time.monotonic()
            page = folder / f"{member.study.name}.html" if folder else None
            try:
                if not ready:
                    for service in services:
                        entered.enter_context(service())
                    ready = True
                outcome = run(member, page)
                if outcome is not None and outcome.untold:
                    entered.close()
                    ready = False
                one = _ended(member, store, outcome, page)
            except Exception as error:  # noqa: BLE001 - whatever ended this study, the others go on
                entered.close()
                ready = False
                one = _cut_short(member.study.name, error)
            one.seconds = time.monotonic() - begun
            ended.append(one)
            err.print(f"{number}/{len(collection.members)} {one.study}: {one.message}", markup=False)
    _show(collection.name or "", ended)


def _cut_short(study: str, error: Exception) -> Ended:
    if isinstance(error, DiffatlasError):
        return Ended(study, exit_code_of(error), str(error))
    return Ended(study, FAILED, f"{type(error).__name__}: {error}")


def _ended(member: CollectedStudy, store: str, outcome: Outcome | None, page: Path | None) -> Ended:
    from tasks.query.tables import failure_lines
    from tasks.results import open_results

    points = open_results(store, member.study.name)
    counts = Counter(map(str, points["status"].values.tolist()))
    if outcome is None:
        path = page_of_finished(store, member.study.name, page)
        message = "finished, nothing to compute"
    else:
        path = Path(outcome.report)
        message = f"{counted(outcome.computed, 'point')} computed, {counted(outcome.trained, 'cell')} trained"
        if outcome.untold:
            err.print(outcome.untold, markup=False)
    for line in failure_lines(points, 5):
        err.print(line, markup=False)
    return Ended(member.study.name, FAILED if counts["failed"] else 0, message, dict(counts), page=str(path))


def page_of_finished(store: str, study: str, page: Path | None) -> Path:
    """Where the page of a finished study is; drawn where another path is named, or there is none.

    A page that is there needs nothing that draws pages.
    """
    from flows.request import default_page

    path = page or default_page(study)
    if page or not path.exists():
        from tasks.report.page.files import write_report
        from tasks.results.models import ModelledAnswers
        from tasks.store import Store

        write_report(ModelledAnswers(Store.open(store), study), path)
    return path


def _show(name: str, ended: Sequence[Ended]) -> None:
    table = Table(title=f"{name}: {counted(len(ended), 'study', 'studies')}", title_justify="left", title_style="bold")
    table.add_column("study", overflow="fold")
    for column in ("ok", "failed", "skipped", "time"):
        table.add_column(column, justify="right")
    table.add_column("what happened", overflow="fold")
    table.add_column("report", overflow="fold")
    for one in ended:
        numbers = [str(one.counts.get(status, 0)) if one.counts else "" for status in ("ok", "failed", "skipped")]
        minutes, seconds = divmod(round(one.seconds), 60)
        table.add_row(one.study, *numbers, f"{minutes}:{seconds:02d}", Text(one.message), one.page)
    Console(width=width()).print(table)
    worst = max(one.code for one in ended)
    if worst:
        raise typer.Exit(worst)


def sums(collection: Collection, each: list[dict[str, Any]]) -> dict[str, Any]:
    """The plans of several studies: each, and their sums (what two of them share is counted twice)."""
    return {
        "collection": collection.name,
        "points": {kind: sum(plan["points"][kind] for plan in each) for kind in each[0]["points"]},
        "cells_to_train": sum(plan["cells_to_train"] for plan in each),
        "estimated_core_seconds": round(sum(plan["estimated_core_seconds"] for plan in each), 1),
        "studies": each,
    }
