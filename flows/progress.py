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
    Running,
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
_MOST_RUNS = 8  # task runs that have a bar of their own
_MOST_LINES = 8  # of what failed, after one answer
_BESIDE = 6  # lines that are neither task runs nor rows
_NAME = 32  # characters of a task run's name beside the bar
_REST = {
    "failed": ("more point", "`diffatlas status` says why"),
    "not measured": ("more time", "the run's log has all"),
}
"""How what is not told line by line is counted, and where it stands."""


class Display:
    """A bar with time left on a terminal, one for each task run that goes on, and the numbers so far;
    elsewhere a line per finished shard. However many task runs, rows and failures there are, it keeps
    to the terminal's height and says how many more. Everything goes to stderr. Listens to a run.
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
        self._told, self._untold = Counter[str](), Counter[str]()  # of what failed, since the last answer
        self._live = Live(get_renderable=self._shown, console=self._console, transient=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say_rest()
        self._live.stop()

    def __call__(self, event: Event) -> None:
        if not isinstance(event, PointsFailed | MetricNotMeasured):
            self._say_rest()
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
                self._say_some("failed", str(event), len(event.points))
            case TriedAgain(shard, reason, tries):
                self._say(f"  try {tries}: {shard.name}: {reason}")
            case GivenUp(_, shard, reason):
                self._say(f"  not computed: {shard.name}: {reason}")
            case MetricNotMeasured(reason):
                self._say_some("not measured", reason, 1)
            case Waiting() | Hindered():
                self._say(f"{'waiting' if isinstance(event, Waiting) else 'warning'}: {event.reason}")
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
        room = min(self._console.height - len(self._lines) - _BESIDE, _MOST_ROWS)
        table = self._rows.table(self._console.width, room) if self._rows is not None else None
        return self._bar if table is None else Group(self._bar, table)

    def _update(self, event: Progressed) -> None:
        assert self._task is not None  # noqa: S101 - a run starts before it progresses
        self._left = event.left
        text = f"cells {event.cells:.0f}/{self._cells}  points {event.points:.0f}/{self._points}"
        left = "" if event.left is None else f"about {clock(event.left)} left"
        elapsed = clock(time.monotonic() - self._begun)
        self._bar.update(self._task, completed=event.fraction, description=text, elapsed=elapsed, left=left)
        lines = self._of_runs(event.running)
        for line in self._lines[len(lines) :]:
            self._bar.remove_task(line)
        del self._lines[len(lines) :]
        while len(self._lines) < len(lines):
            self._lines.append(self._bar.add_task("", total=1.0, elapsed="", left=""))
        for line, (name, fraction, elapsed, doing) in zip(self._lines, lines, strict=True):
            text = "  " + name.replace("[", r"\[")
            left = doing.replace("[", r"\[")
            self._bar.update(line, completed=fraction, description=text, elapsed=elapsed, left=left)

    def _of_runs(self, running: Sequence[Running]) -> list[tuple[str, float, str, str]]:
        """Name, part that is done, time and doings of the first task runs, as many as half the
        terminal has room for, and of the others together.
        """
        most = min(_MOST_RUNS, max((self._console.height - _BESIDE) // 2, 1))
        first, more = running[:most], running[most:]
        lines = [(_short(run.name), run.fraction, clock(run.seconds), run.doing) for run in first]
        if more:
            mean = sum(run.fraction for run in more) / len(more)
            lines.append((f"and {counted(len(more), 'more task run')}", mean, "", "in the mean"))
        return lines

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

    def _say_some(self, what: str, text: str, count: int) -> None:
        """One of the lines that may be very many after an answer: the first few are told."""
        self._told[what] += 1
        if self._told[what] <= _MOST_LINES:
            self._say(f"  {what}: {text}")
        else:
            self._untold[what] += count

    def _say_rest(self) -> None:
        """How much was not told, and where it stands."""
        for what, count in self._untold.items():
            noun, where = _REST[what]
            self._say(f"  {what}: {counted(count, noun)}; {where}")
        self._told.clear()
        self._untold.clear()

    def _say(self, text: str) -> None:
        """One line for the person at the terminal."""
        self._console.print(text, markup=False, soft_wrap=True)


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"
