"""Progress of a run as a person at the terminal sees it."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Column

from flows.clock import clock
from flows.events import (
    Event,
    GivenUp,
    Hindered,
    MetricNotMeasured,
    PointsFailed,
    Progressed,
    ShardDone,
    ShardSwept,
    ShardTrained,
    Started,
    Swept,
    TriedAgain,
    Waiting,
)

_NAME = 32  # characters of a task run's name beside the bar


class Display:
    """A bar with time left on a terminal, and one for each task run that goes on; elsewhere a line per
    finished shard. Everything goes to stderr. Listens to a run.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}", table_column=Column(overflow="ellipsis", no_wrap=True)),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[elapsed]}"),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._lines: list[TaskID] = []  # one for each task run that goes on
        self._left: float | None = None
        self._cells = self._points = self._shards = self._done = 0
        self._of_shard: dict[int, Counter[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._start(event)
            case Progressed():
                self._update(event)
            case ShardTrained() | ShardSwept():
                counts = self._of_shard.setdefault(event.number, Counter())
                counts["points"] += len(event.answer.points)
                counts["failed"] += sum(point.error is not None for point in event.answer.points)
            case ShardDone():
                self._tell_done(event)
            case PointsFailed():
                self._say(f"  failed: {event}")
            case TriedAgain(shard, reason, tries):
                self._say(f"  try {tries}: {shard.name}: {reason}")
            case GivenUp(shard, reason):
                self._say(f"  not computed: {shard.name}: {reason}")
            case MetricNotMeasured(reason):
                self._say(f"  not measured: {reason}")
            case Waiting(reason):
                self._say(f"waiting: {reason}")
            case Hindered(reason):
                self._say(f"warning: {reason}")
            case Swept():
                self._bar.stop()

    def _start(self, event: Started) -> None:
        plan, shards = event.plan, event.shards
        self._cells, self._points, self._shards = sum(s.trained for s in shards), plan.missing, len(shards)
        self._begun = time.monotonic()
        self._task = self._bar.add_task("starting", total=1.0, elapsed="", left="")
        if self._console.is_terminal:
            self._bar.start()
        self._say(
            f"study {plan.study.name}: {plan.missing} points to compute, {self._cells} cells to train, "
            f"{len(plan.done)} points done; {self._shards} shards on {event.slots} workers"
        )
        for warning in event.warnings:
            self._say(f"warning: {warning}")

    def _update(self, event: Progressed) -> None:
        assert self._task is not None  # noqa: S101 - a run starts before it progresses
        self._left = event.left
        text = f"cells {event.cells:.0f}/{self._cells}  points {event.points:.0f}/{self._points}"
        left = "" if event.left is None else f"about {clock(event.left)} left"
        elapsed = clock(time.monotonic() - self._begun)
        self._bar.update(self._task, completed=event.fraction, description=text, elapsed=elapsed, left=left)
        for line in self._lines[len(event.running) :]:
            self._bar.remove_task(line)
        del self._lines[len(event.running) :]
        while len(self._lines) < len(event.running):
            self._lines.append(self._bar.add_task("", total=1.0, elapsed="", left=""))
        for line, run in zip(self._lines, event.running, strict=True):
            name = run.name if len(run.name) <= _NAME else run.name[: _NAME - 1] + "…"
            text = "  " + name.replace("[", r"\[")
            self._bar.update(line, completed=run.fraction, description=text, elapsed=clock(run.seconds))

    def _tell_done(self, event: ShardDone) -> None:
        self._done += 1
        elapsed = time.monotonic() - self._begun
        about = "" if self._left is None or self._done == self._shards else f", about {clock(self._left)} left"
        counts = self._of_shard.pop(event.number)
        trouble = f", {counts['failed']} failed" if counts["failed"] else ""
        self._say(
            f"shard {self._done}/{self._shards} committed: {event.shard.name} ({counts['points']} points{trouble}) "
            f"after {clock(elapsed)}{about}"
        )

    def _say(self, text: str) -> None:
        """One line for the person at the terminal."""
        self._console.print(text, markup=False, soft_wrap=True)
