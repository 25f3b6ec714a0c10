"""What the workers have done so far: they report to one Ray actor, and the coordinator reads it
while it waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError

from flows.events import Hindered, Progressed

if TYPE_CHECKING:
    from flows.events import Emit
    from tasks.plan import Shard

_ANSWER_SECONDS = 0.2
"""How long the coordinator waits for an answer; the next reading finds one that is late."""

Run = tuple[str, int]
"""A task run: its stage, and the number of its shard."""


@dataclass(frozen=True)
class Reading:
    """What an actor has heard since it started."""

    actor: str  # another one after each start
    totals: Mapping[Run, Sequence[float]]  # planned seconds, cells and points
    begun: frozenset[Run]  # of these task runs the totals are whole
    latest: Run | None  # the task run heard of last


class Board:
    """Totals of every task run, as reported by its worker. A Ray actor; one that starts again
    starts from nothing.
    """

    def __init__(self) -> None:
        self._id = uuid4().hex
        self._totals: dict[Run, list[float]] = {}
        self._begun: set[Run] = set()
        self._latest: Run | None = None

    def begin(self, run: Run) -> None:
        """A worker has taken up the task run."""
        self._totals[run] = [0.0, 0.0, 0.0]
        self._begun.add(run)
        self._latest = run

    def add(self, run: Run, seconds: float, cells: int, points: int) -> None:
        """A worker has done some planned seconds, cells and points of the task run."""
        totals = self._totals.setdefault(run, [0.0, 0.0, 0.0])
        for i, value in enumerate((seconds, cells, points)):
            totals[i] += value
        self._latest = run

    def read(self) -> Reading:
        """What was reported until now."""
        return Reading(self._id, self._totals, frozenset(self._begun), self._latest)


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

    def __call__(self, seconds: float, cells: int, points: int) -> None:
        with suppress(RayError):
            self._board.add.remote(self._run, seconds, cells, points)


class SharedBoard:
    """The coordinator's side of the board, for shards of which the work is planned.

    Ray starts an actor that dies again, also elsewhere; what was known before is added to what the
    new one hears. One that cannot be had is done without.
    """

    def __init__(self, shards: Sequence[Shard], emit: Emit) -> None:
        self._planned = max(sum(shard.work() for shard in shards), 1e-9)
        self._actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(Board).remote()
        self._emit, self._told = emit, False
        self._names: dict[Run, str] = {}
        self._asked: Any = None
        self._heard = Reading("", {}, frozenset(), None)
        self._before: Mapping[Run, Sequence[float]] = {}  # known from actors before this one

    def reporter(self, run: Run, name: str) -> BoardReporter:
        """What the worker of a task run reports with; a person knows it by its name."""
        self._names[run] = name
        return BoardReporter(self._actor, run)

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
        work, cells, points = (sum(values[i] for values in totals.values()) for i in range(3))
        name = self._names.get(self._heard.latest, "") if self._heard.latest else ""
        return Progressed(work, cells, points, min(work / self._planned, 1.0), name)

    def _totals(self) -> dict[Run, list[float]]:
        """Of every task run: what this actor heard, and what those before it knew, if it has not
        heard the beginning.
        """
        heard = {run: list(values) for run, values in self._heard.totals.items()}
        for run, values in self._before.items():
            if run not in self._heard.begun:
                more = heard.get(run, [0.0, 0.0, 0.0])
                heard[run] = [a + b for a, b in zip(values, more, strict=True)]
        return heard

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            self._emit(Hindered(f"the actor that counts progress ended, and {what}; work goes on"))
