"""What the workers have done so far: they report to one Ray actor, and the coordinator reads it
while it waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray

from flows.events import Progressed

if TYPE_CHECKING:
    from tasks.plan import Shard


Run = tuple[str, int]
"""A task run: its stage, and the number of its shard."""


class Board:
    """Totals of every task run, as reported by its worker. A Ray actor; one that starts again
    starts from nothing.
    """

    def __init__(self) -> None:
        self._totals: dict[Run, list[float]] = {}
        self._latest: Run | None = None

    def begin(self, run: Run) -> None:
        """A worker has taken up the task run."""
        self._totals[run] = [0.0, 0.0, 0.0]
        self._latest = run

    def add(self, run: Run, seconds: float, cells: int, points: int) -> None:
        """A worker has done some planned seconds, cells and points of the task run."""
        totals = self._totals.setdefault(run, [0.0, 0.0, 0.0])
        for i, value in enumerate((seconds, cells, points)):
            totals[i] += value
        self._latest = run

    def read(self) -> tuple[dict[Run, list[float]], Run | None]:
        """Totals by task run, and the one heard of last."""
        return self._totals, self._latest


class BoardReporter:
    """A worker's side of the board: tells the actor, waits for nothing."""

    def __init__(self, board: Any, run: Run) -> None:
        self._board, self._run = board, run

    def begin(self) -> None:
        """The task run starts, or starts again."""
        self._board.begin.remote(self._run)

    def __call__(self, seconds: float, cells: int, points: int) -> None:
        self._board.add.remote(self._run, seconds, cells, points)


class SharedBoard:
    """The coordinator's side of the board, for shards of which the work is planned."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._planned = max(sum(shard.work() for shard in shards), 1e-9)
        self._actor: Any = ray.remote(num_cpus=0)(Board).remote()
        self._names: dict[Run, str] = {}

    def reporter(self, run: Run, name: str) -> BoardReporter:
        """What the worker of a task run reports with; a person knows it by its name."""
        self._names[run] = name
        return BoardReporter(self._actor, run)

    def read(self) -> Progressed:
        """All that was reported until now."""
        totals, latest = ray.get(self._actor.read.remote())
        work, cells, points = (sum(values[i] for values in totals.values()) for i in range(3))
        return Progressed(work, cells, points, min(work / self._planned, 1.0), self._names.get(latest, ""))
