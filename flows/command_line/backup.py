"""`backup` and `restore`: a store copied whole, between folders and buckets, while others write."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flows.command_line.options import JsonOption, app, clear_errors
from tasks.messages import counted

_PLACE = "A folder, or s3://bucket/prefix"
SourceArgument = Annotated[str, typer.Argument(help=f"{_PLACE}.", metavar="STORE")]
TargetArgument = Annotated[
    str, typer.Argument(help=f"{_PLACE}; nothing, or an earlier backup of the store.", metavar="TARGET")
]
BackupArgument = Annotated[str, typer.Argument(help=f"{_PLACE} that `backup` has written.", metavar="BACKUP")]
RestoredArgument = Annotated[str, typer.Argument(help=f"{_PLACE}; nothing may be there.", metavar="STORE")]


@app.command()
def backup(store: SourceArgument, target: TargetArgument, as_json: JsonOption = False) -> None:
    """Copy a store with all its snapshots and tags, as of now, and read the copy.

    A run may go on meanwhile. The copy is a store: every command takes it. To an earlier backup
    what it lacks is copied.
    """
    _copy(store, target, "backup", as_json, onward=True)


@app.command()
def restore(backup: BackupArgument, store: RestoredArgument, as_json: JsonOption = False) -> None:
    """Make a store of a backup, which stays as it is."""
    _copy(backup, store, "restored", as_json, onward=False)


def _copy(source: str, target: str, word: str, as_json: bool, *, onward: bool) -> None:
    with clear_errors():
        from flows.doctor.stores import amounts
        from tasks.store.backup import copy

        copied = copy(source, target, onward=onward)
        held = copied.held
        if as_json:
            much = {name: getattr(copied, name) for name in ("files", "bytes", "files_before", "bytes_before")}
            document = {"source": source, "target": target, **much}
            more = {name: getattr(held, name) for name in ("snapshot", "studies", "points", "cells")}
            print(json.dumps({**document, **more}, indent=2))  # noqa: T201 - the document asked for
            return
        before = (
            f"; {counted(copied.files_before, 'file')}, {copied.bytes_before / 1e6:.1f} MB, were there"
            if copied.files_before
            else ""
        )
        print(  # noqa: T201
            f"{word}: {target}, snapshot {held.snapshot}: {amounts(held)}; "
            f"{counted(copied.files, 'file')}, {copied.bytes / 1e6:.1f} MB copied, each read again{before}"
        )
