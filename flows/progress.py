"""Progress of a run: seen on the terminal and in Prefect's pages.

Workers report to one Ray actor; the flow reads it while it waits. Time left is estimated from planned work done so far.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

_NAME = 32  # characters of a shard's name beside the bar


class Board:
    """Totals of every shard, as reported by its worker. A Ray actor; a shard that starts again starts from nothing."""

    def __init__(self) -> None:
        self._shards: dict[int, list[float]] = {}
        self._latest = 0

    def begin(self, shard: int) -> None:
        """A worker has taken the shard."""
        self._shards[shard] = [0.0, 0.0, 0.0]
        self._latest = shard

    def add(self, shard: int, seconds: float, cells: int, points: int) -> None:
        """A worker has done some planned seconds, cells and points of the shard."""
        totals = self._shards.setdefault(shard, [0.0, 0.0, 0.0])
        for i, value in enumerate((seconds, cells, points)):
            totals[i] += value
        self._latest = shard

    def read(self) -> tuple[dict[int, list[float]], int]:
        """Totals by shard, and the shard heard of last."""
        return self._shards, self._latest


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Display:
    """A bar with time left on a terminal; elsewhere a line per finished shard. Everything goes to stderr."""

    def __init__(self, work: float, cells: int, points: int, *, quiet: bool = False) -> None:
        self._totals = (max(work, 1e-9), cells, points)
        self._begun = self._working_since = time.monotonic()
        self._fraction = 0.0
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shard]}", table_column=Column(overflow="ellipsis", no_wrap=True)),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=self._totals[0], shard="")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def fraction(self) -> float:
        """Share of the planned work that is done."""
        return self._fraction

    def update(self, done: tuple[float, float, float], shard: str) -> None:
        """Show totals of work, cells and points, and the shard heard of last."""
        work, cells, points = done
        if not self._fraction:  # until now workers were starting
            self._working_since = time.monotonic()
        self._fraction = min(work / self._totals[0], 1.0)
        text = f"cells {cells:.0f}/{self._totals[1]}  points {points:.0f}/{self._totals[2]}"
        shard = shard if len(shard) <= _NAME else shard[: _NAME - 1] + "…"
        done_work = min(work, self._totals[0])
        self._bar.update(self._task, completed=done_work, description=text, shard=shard.replace("[", r"\["))

    def committed(self, number: int, of: int, name: str, points: int, failed: int) -> None:
        """A shard is in the store."""
        elapsed = time.monotonic() - self._begun
        working = time.monotonic() - self._working_since
        left = working * (1 / self._fraction - 1) if self._fraction > 0 else float("nan")
        about = f", about {_clock(left)} left" if number < of and left == left else ""
        trouble = f", {failed} failed" if failed else ""
        self.say(f"shard {number}/{of} committed: {name} ({points} points{trouble}) after {_clock(elapsed)}{about}")

    def say(self, text: str) -> None:
        """One line for the person at the terminal."""
        self._console.print(text, markup=False, soft_wrap=True)


def reporter(board: Any, shard: int) -> Any:
    """The `Progress` callback of a worker: tells the actor, waits for nothing."""

    def tell(seconds: float, cells: int, points: int) -> None:
        board.add.remote(shard, seconds, cells, points)

    return tell
