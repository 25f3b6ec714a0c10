"""What the workers have done so far: they report to one Ray actor, and the coordinator reads it
while it waits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError

from flows.events import Hindered, Progressed, Running
from flows.time_left import Heard, Run, TaskRun, TimeLeft

if TYPE_CHECKING:
    from flows.events import Emit
    from tasks.plan import Shard
    from tasks.plan.pace import Paces

_ANSWER_SECONDS = 0.2
"""How long the coordinator waits for an answer; the next reading finds one that is late."""


@dataclass(frozen=True)
class Total:
    """What a worker has reported of one task run."""

    whole: bool  # whether its beginning was heard
    heard: float = 0.0  # seconds from its start until it reported last
    running: float = 0.0  # seconds from its start until now
    work: float = 0.0  # planned seconds that are done
    cells: int = 0
    points: int = 0
    doing: str = ""

    def __add__(self, later: Total) -> Total:
        parts = ("heard", "running", "work", "cells", "points")
        sums = {name: getattr(self, name) + getattr(later, name) for name in parts}
        return replace(self, **sums, doing=later.doing or self.doing)


@dataclass(frozen=True)
class Reading:
    """What an actor has heard since it started."""

    actor: str  # another one after each start
    totals: Mapping[Run, Total]


class Board:
    """Totals of every task run, as reported by its worker. A Ray actor; one that starts again
    starts from nothing.
    """

    def __init__(self) -> None:
        self._id = uuid4().hex
        self._begun: dict[Run, float] = {}
        self._totals: dict[Run, Total] = {}

    def begin(self, run: Run) -> None:
        """A worker has taken up the task run."""
        self._begun[run] = time.monotonic()
        self._totals[run] = Total(whole=True)

    def add(self, run: Run, seconds: float, cells: int, points: int, doing: str = "") -> None:
        """A worker has done some planned seconds, cells and points of the task run, and says what it
        does.
        """
        now = time.monotonic()
        total = self._totals.get(run, Total(whole=False))
        heard = now - self._begun.setdefault(run, now)
        self._totals[run] = Total(
            total.whole,
            heard,
            heard,
            total.work + seconds,
            total.cells + cells,
            total.points + points,
            doing or total.doing,
        )

    def read(self) -> Reading:
        """What was reported until now."""
        now = time.monotonic()
        return Reading(
            self._id, {run: replace(total, running=now - self._begun[run]) for run, total in self._totals.items()}
        )


class BoardReporter:
    """A worker's side of the board: tells the actor, waits for nothing, minds nothing: work does
    not depend on whether somebody hears of it.
    """

    def __init__(self, board: Any, run: Run) -> None:
        self._board, self._run = board, run

    def begin(self) -> None:
        """The task run starts, or starts again."""
        with suppress(RayError):
            self._board.begin.remote(self._run)

    def __call__(self, seconds: float, cells: int, points: int, doing: str = "", /) -> None:
        with suppress(RayError):
            self._board.add.remote(self._run, seconds, cells, points, doing)


class SharedBoard:
    """The coordinator's side of the board, for shards of which the work is planned.

    Ray starts an actor that dies again, also elsewhere; what was known before is added to what the
    new one hears. One that cannot be had is done without.

    Args:
        shards: in the order in which they are handed over.
        slots: how many task runs go on at once.
        emit: where it says that an actor was lost.
        paces: what the devices that compute need for what is planned, by kind of shard.
    """

    def __init__(self, shards: Sequence[Shard], slots: int, emit: Emit, paces: Paces = MappingProxyType({})) -> None:
        chains = [_task_runs(number, shard) for number, shard in enumerate(shards)]
        self._planned = {task.run: task.seconds for tasks in chains for task in tasks}
        self._all = max(sum(self._planned.values()), 1e-9)
        self._time_left = TimeLeft(chains, slots, {kind: asdict(pace) for kind, pace in paces.items()})
        self._actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(Board).remote()
        self._emit, self._told = emit, False
        self._names: dict[Run, str] = {}
        self._ended: set[Run] = set()
        self._settled: dict[int, Total] = {}  # by number of the shard
        self._asked: Any = None
        self._heard = Reading("", {})
        self._before: Mapping[Run, Total] = {}  # known from actors before this one

    def reporter(self, run: Run, name: str) -> BoardReporter:
        """What the worker of a task run reports with; a person knows it by its name."""
        self._names[run] = name
        return BoardReporter(self._actor, run)

    def end(self, run: Run) -> None:
        """The task run has given its answer, or has ended without one."""
        self._ended.add(run)

    def settle(self, number: int, shard: Shard, lost: Sequence[Shard]) -> None:
        """Everything about a shard has ended: whatever its workers have told, it counts from now on
        as what is committed of it, which is all but the parts that machines have `lost`.
        """
        self._ended |= {("train", number), ("sweep", number)}
        work = max(shard.work() - sum(part.work() for part in lost), 0.0)  # parts may share what is measured
        cells = shard.trained - sum(part.trained for part in lost)
        points = len(shard.questions) - sum(len(part.questions) for part in lost)
        self._settled[number] = Total(whole=True, work=work, cells=cells, points=points)

    def read(self) -> Progressed:
        """All that is known to be reported until now; an answer that is late is not waited for."""
        with suppress(GetTimeoutError):
            try:
                self._asked = self._asked or self._actor.read.remote()
                reading = ray.get(self._asked, timeout=_ANSWER_SECONDS)
                self._asked = None
                if self._heard.actor not in {"", reading.actor}:
                    self._before = self._totals()
                    self._tell("it was started again")
                self._heard = reading
            except (ActorDiedError, ActorUnavailableError) as error:
                self._asked = None
                if isinstance(error, ActorDiedError):
                    self._tell("it cannot be had again: what is shown is what was known before")
        totals = self._totals()
        counted = [total for (_, number), total in totals.items() if number not in self._settled]
        counted += self._settled.values()
        work = sum(total.work for total in counted)
        return Progressed(
            work,
            sum(total.cells for total in counted),
            sum(total.points for total in counted),
            min(work / self._all, 1.0),
            tuple(
                Running(self._names.get(run, ""), self._fraction(run, total), total.running, total.doing)
                for run, total in totals.items()
                if run not in self._ended
            ),
            self._time_left(
                {run: Heard(total.work, total.heard, total.running) for run, total in totals.items()}, self._ended
            ),
        )

    def _fraction(self, run: Run, total: Total) -> float:
        return min(total.work / max(self._planned.get(run, 0.0), 1e-9), 1.0)

    def _totals(self) -> dict[Run, Total]:
        """Of every task run: what this actor heard, and what those before it knew, if it has not
        heard the beginning.
        """
        found = dict(self._heard.totals)
        for run, before in self._before.items():
            if run not in found:
                found[run] = before
            elif not found[run].whole:
                found[run] = before + found[run]
        return found

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            self._emit(Hindered(f"the actor that counts progress ended, and {what}; work goes on"))


def _task_runs(number: int, shard: Shard) -> list[TaskRun]:
    """Those of a shard: its training, if it has one, and its sweep."""
    training = sum(job.training_work() for job in shard.jobs if job.train)
    sweep = TaskRun(("sweep", number), shard.kind, shard.work() - training)
    return [TaskRun(("train", number), shard.kind, training), sweep] if shard.trained else [sweep]
