"""How far a run is, for whoever asks from another terminal: a small file in the user's cache folder,
under the token of the store's holder. It is written by the run while it goes on, is no part of the
store, and can be lost at no cost.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tasks.home import home

if TYPE_CHECKING:
    from pathlib import Path

_TOKEN = re.compile("[0-9a-f]{32}")
_WEEK = 7 * 86400.0


@dataclass(frozen=True)
class Live:
    """A run at one moment."""

    study: str
    shards: int
    shards_done: int
    points: int  # to compute in this run
    points_done: int
    points_failed: int
    running: tuple[tuple[str, float, str], ...]  # each task run, which part of its work is done, and what it does
    seconds_left: float | None  # None before anything was measured
    time: float  # when this was written, in seconds since 1970
    shards_incomplete: int = 0  # ended, and machines have lost some of them


def tell(token: str, live: Live) -> None:
    """Write the file; a folder that cannot be written is no reason to stop."""
    path = _path(token)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(asdict(live)))
        new.replace(path)


def told(token: str) -> Live | None:
    """What the run with this token has told last; None if it has not, or not on this machine."""
    if not _TOKEN.fullmatch(token):
        return None
    try:
        found = json.loads(_path(token).read_text())
        running = tuple((str(name), float(part), str(doing)) for name, part, doing in found.pop("running"))
        return Live(running=running, **found)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def forget(token: str) -> None:
    """The run has ended; files of runs that were killed go after a week."""
    with suppress(OSError):
        _path(token).unlink(missing_ok=True)
        for other in _path(token).parent.iterdir():
            if time.time() - other.stat().st_mtime > _WEEK:
                other.unlink(missing_ok=True)


def _path(token: str) -> Path:
    return home() / "running" / f"{token}.json"
