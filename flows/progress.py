"""Progress of a run as a person at the terminal sees it."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
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
    ShardIncomplete,
    ShardSwept,
    ShardTrained,
    Started,
    Swept,
    TriedAgain,
    Waiting,
)
from flows.rows_so_far import RowsSoFar
from tasks.messages import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.work import PointAnswer

_MOST_ROWS = 12  # below the bars
_NAME = 32  # characters of a task run's name beside the bar


class Display:
    """A bar with time left on a terminal, one for each task run that goes on, and the numbers so far;
    elsewhere a line per finished shard. Everything goes to stderr. Listens to a run.
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
        )
        self._rows: RowsSoFar | None = None
        self._task: TaskID | None = None
        self._lines: list[TaskID] = []  # one for each task run that goes on
        self._left: float | None = None
        self._cells = self._points = self._shards = self._done = 0  # done: ended, complete or not
        self._of_shard: dict[int, Counter[str]] = {}
        self._live = Live(get_renderable=self._shown, console=self._console, transient=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._start(event)
            case Progressed():
                self._update(event)
            case ShardTrained() | ShardSwept():
                self._take_up(event.number, event.answer.points)
            case ShardDone() | ShardIncomplete():
                self._tell_end(event)
            case PointsFailed():
                self._say(f"  failed: {event}")
            case TriedAgain(shard, reason, tries):
                self._say(f"  try {tries}: {shard.name}: {reason}")
            case GivenUp(_, shard, reason):
                self._say(f"  not computed: {shard.name}: {reason}")
            case MetricNotMeasured(reason):
                self._say(f"  not measured: {reason}")
            case Waiting(reason):
                self._say(f"waiting: {reason}")
            case Hindered(reason):
                self._say(f"warning: {reason}")
            case Swept():
                self._live.stop()

    def _start(self, event: Started) -> None:
        plan, shards = event.plan, event.shards
        self._cells, self._points, self._shards = sum(s.trained for s in shards), plan.missing, len(shards)
        self._begun = time.monotonic()
        self._task = self._bar.add_task("starting", total=1.0, elapsed="", left="")
        self._rows = RowsSoFar(plan.study)
        if self._console.is_terminal:
            self._live.start()
        self._say(
            f"study {plan.study.name}: {counted(plan.missing, 'point')} to compute, {counted(self._cells, 'cell')} to train, "
            f"{counted(len(plan.done), 'point')} done; {counted(self._shards, 'shard')} on {counted(event.slots, 'worker')}"
        )
        for warning in event.warnings:
            self._say(f"warning: {warning}")

    def _shown(self) -> RenderableType:
        room = min(self._console.height - len(self._lines) - 6, _MOST_ROWS)
        table = self._rows.table(self._console.width, room) if self._rows is not None else None
        return self._bar if table is None else Group(self._bar, table)

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
            self._bar.update(
                line,
                completed=run.fraction,
                description=text,
                elapsed=clock(run.seconds),
                left=run.doing.replace("[", r"\["),
            )

    def _take_up(self, number: int, points: Sequence[PointAnswer]) -> None:
        if self._rows is not None:
            self._rows.add(points)
        counts = self._of_shard.setdefault(number, Counter())
        counts["points"] += len(points)
        counts["failed"] += sum(point.error is not None for point in points)

    def _tell_end(self, event: ShardDone | ShardIncomplete) -> None:
        self._done += 1
        elapsed = time.monotonic() - self._begun
        about = "" if self._left is None or self._done == self._shards else f", about {clock(self._left)} left"
        counts = self._of_shard.pop(event.number, Counter())  # none, if nothing of it was answered
        trouble = f", {counts['failed']} failed" if counts["failed"] else ""
        how = "committed"
        if isinstance(event, ShardIncomplete):
            how, trouble = "not complete", f"{trouble}, {event.lacking} not computed"
        self._say(
            f"shard {self._done}/{self._shards} {how}: {event.shard.name} ({counted(counts['points'], 'point')}{trouble}) "
            f"after {clock(elapsed)}{about}"
        )

    def _say(self, text: str) -> None:
        """One line for the person at the terminal."""
        self._console.print(text, markup=False, soft_wrap=True)
