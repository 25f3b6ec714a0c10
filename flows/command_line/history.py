"""`history`, `tag`, `diff` and `gc`: the snapshots of a store, and what moved between them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console

from flows.command_line.options import (
    AgainstOption,
    ByOption,
    ForceUnlockOption,
    JsonOption,
    MetricOption,
    StoreOption,
    StudyOption,
    WrongOption,
    app,
    clear_errors,
    split,
    width,
)
from flows.exit_codes import FAILED
from tasks.messages import counted


@app.command()
def history(store: StoreOption = "results", as_json: JsonOption = False) -> None:
    """Snapshots, newest first."""
    with clear_errors():
        from tasks.store import Store

        entries = Store.open(store).history()
        if as_json:
            print(json.dumps(entries, indent=2))  # noqa: T201
            return
        for entry in entries:
            tags = f" ({', '.join(entry['tags'])})" if entry["tags"] else ""
            print(f"{entry['snapshot']}  {entry['time']}  {entry['message']}{tags}")  # noqa: T201


@app.command()
def tag(
    name: Annotated[str, typer.Argument(help="The tag's name: letters, digits, '_', '.' and '-'.")],
    snapshot: Annotated[str | None, typer.Argument(help="A snapshot, a tag or a time (the newest snapshot).")] = None,
    store: StoreOption = "results",
    delete: Annotated[bool, typer.Option("--delete", help="Take the tag away; its snapshot stays.")] = False,
) -> None:
    """Give a snapshot a name that --as-of and diff understand."""
    with clear_errors():
        from tasks.store import Store

        opened = Store.open(store)
        if delete:
            opened.untag(name)
            print(f"{name}: no longer a tag")  # noqa: T201
        else:
            print(f"{name}: {opened.tag(name, snapshot)}")  # noqa: T201


@app.command()
def diff(
    before: Annotated[str | None, typer.Argument(metavar="[A]", help="A snapshot, a tag or a time.")] = None,
    after: Annotated[str | None, typer.Argument(metavar="[B]", help="The same (the newest snapshot).")] = None,
    store: StoreOption = "results",
    against: AgainstOption = None,
    study: StudyOption = None,
    by: ByOption = None,
    metric: MetricOption = None,
    level: Annotated[float, typer.Option("--level", help="Chance of a false alarm, over all groups together.")] = 0.05,
    correction: Annotated[str, typer.Option("--correction", help="holm or benjamini-hochberg")] = "holm",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 if a number got worse.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Which numbers moved between two snapshots beyond the noise of their seeds, and what came,
    went or failed since.

    Groups are configurations; --by "" makes one of all points. With --against the first side are the
    points of another store that stand for the same questions, as of A if it is given.
    """
    with clear_errors():
        from tasks.compare import LABELS, compare, document, table
        from tasks.results import open_results

        if against is None and before is None:
            raise WrongOption("diff: found neither a snapshot A nor --against URI, expected one of them")
        own = open_results(store, study, after)
        if against is None:
            other = open_results(store, study, before)
        else:
            from tasks.results.beside import points_beside  # which plans, and so waits for torch

            other = points_beside(own, against, before)
            if not other.sizes["point"]:
                raise WrongOption(f"--against {against}: it has none of the points of {study or store}")
        sides = other, own
        found = compare(*sides, split(metric) or None, LABELS if by is None else split(by), level, correction)
        if as_json:
            print(json.dumps(document(found), indent=2))  # noqa: T201
        else:
            console = Console(width=width())
            console.print(table(found, console.width))
        if exit_code and found.count("worse"):
            raise typer.Exit(FAILED)


@app.command()
def gc(
    store: StoreOption = "results",
    older_than: Annotated[
        str, typer.Option("--older-than", help="An age such as 30d or 12h, or a time.", metavar="AGE")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    force_unlock: ForceUnlockOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let go of old snapshots, and of the files that only they need. Tagged ones and the newest
    stay.
    """
    with clear_errors():
        from tasks.store import Store

        removed = Store.open(store).gc(_moment(older_than), dry_run, force_unlock=force_unlock)
        if as_json:
            document = {"snapshots": list(removed.snapshots), "files": removed.files, "bytes": removed.bytes}
            print(json.dumps({**document, "dry_run": removed.dry_run}, indent=2))  # noqa: T201
            return
        verb = "would go" if removed.dry_run else "gone"
        print(  # noqa: T201
            f"{counted(len(removed.snapshots), 'snapshot')} {verb}; {counted(removed.files, 'file')} that no snapshot needs, "
            f"{removed.bytes / 1e6:.1f} MB, {verb}"
        )


def _moment(text: str) -> datetime:
    """The time that an age or a time means."""
    found = re.fullmatch(r"(\d{1,5})([dhm])", text.strip())
    if found:
        unit = {"d": "days", "h": "hours", "m": "minutes"}[found[2]]
        return datetime.now(UTC) - timedelta(**{unit: int(found[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise WrongOption(
            f"--older-than {text!r}: expected an age such as 30d, 12h or 90m, or a time such as 2026-03-03"
        ) from None
