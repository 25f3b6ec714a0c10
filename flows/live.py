"""Keeps the file that `diffatlas status` reads from another terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from flows.events import Event, PointsFailed, Progressed, ShardDone, ShardIncomplete, Started
from tasks.results.live import Live, forget, tell

_SECONDS = 1.0


class LiveFile:
    """Listens to a run, and writes how far it is: when a shard ends, and else at most once a second. A
    context: the file goes with the run.

    Args:
        token: of the store's holder.
        study: its name.
    """

    def __init__(self, token: str, study: str) -> None:
        self._token, self._study = token, study
        self._shards = self._done = self._incomplete = self._points = self._failed = 0
        self._progress = Progressed(0.0, 0, 0, 0.0, (), None)
        self._written = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        forget(self._token)

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._shards, self._points = len(event.shards), event.plan.missing
            case ShardDone():
                self._done += 1
            case ShardIncomplete():
                self._incomplete += 1
            case PointsFailed():
                self._failed += len(event.points)
            case Progressed():
                self._progress = event
            case _:
                return
        ended = isinstance(event, ShardDone | ShardIncomplete)  # the terminal says so: who asks now must read it
        if ended or time.monotonic() - self._written > _SECONDS:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        progress = self._progress
        running = tuple((run.name, run.fraction, run.doing) for run in progress.running)
        tell(
            self._token,
            Live(
                self._study,
                self._shards,
                self._done,
                self._points,
                int(progress.points),
                self._failed,
                running,
                progress.left,
                time.time(),
                self._incomplete,
            ),
        )
