"""What happens in a run, each as a value, and whoever listens: the committer, the display, the log,
the artifacts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.compare import Comparison
    from tasks.plan import Plan, Point, Shard
    from tasks.results import Answers
    from tasks.work import PointAnswer, SweepAnswer, TrainingAnswer


@dataclass(frozen=True)
class Planned:
    """The store has been asked what is done and what is missing."""

    plan: Plan


@dataclass(frozen=True)
class Started:
    """There is something to compute, and a Ray to compute it on."""

    plan: Plan
    shards: tuple[Shard, ...]
    slots: int  # tasks that run at once
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Running:
    """A task run that a worker has taken up and not ended."""

    name: str  # its stage and its shard
    fraction: float  # of its planned work
    seconds: float  # since it was taken up
    doing: str = ""  # its step and loss, or its sampler, and the device


@dataclass(frozen=True)
class Progressed:
    """The workers have said what they did so far."""

    work: float  # seconds of one core, as planned
    cells: float
    points: float
    fraction: float  # of all planned work
    running: tuple[Running, ...]
    left: float | None  # seconds until all is computed; None while nothing was measured


@dataclass(frozen=True)
class ShardTrained:
    """A training has ended, whether its cells succeeded or not."""

    number: int  # of the shard, in this run
    shard: Shard
    answer: TrainingAnswer
    ends: tuple[str, ...] = ()  # of earlier task runs of it, which had no answer


@dataclass(frozen=True)
class ShardSwept:
    """A sweep has ended, whether its points succeeded or not."""

    number: int
    shard: Shard  # what was asked: without what failed in training
    answer: SweepAnswer
    ends: tuple[str, ...] = ()


@dataclass(frozen=True)
class TriedAgain:
    """A task run of a shard has ended without an answer, and another one follows."""

    shard: Shard
    reason: str
    tries: int  # with the one that follows


@dataclass(frozen=True)
class GivenUp:
    """Machines have lost a shard, or a part of one, too often: it is not computed, and nothing of
    it has failed.
    """

    number: int
    shard: Shard  # what is lost: the whole, or a part
    reason: str
    other_code: bool  # the machines refused themselves


@dataclass(frozen=True)
class ShardDone:
    """Everything about a shard is committed."""

    number: int
    shard: Shard


@dataclass(frozen=True)
class ShardIncomplete:
    """A shard has ended, and machines have lost some of it; what they have not is committed."""

    number: int
    shard: Shard
    lacking: int  # points that are not computed


@dataclass(frozen=True)
class Committed:
    """A transaction is in the store."""

    message: str
    snapshot: str


@dataclass(frozen=True)
class PointsFailed:
    """Points of one cell and one sampler have failed for one reason."""

    points: tuple[Point, ...]
    reason: str

    def __str__(self) -> str:
        first, count = self.points[0], len(self.points)
        return f"{first.cell}, {first.labels['sampler']} ({count} point{'s' * (count > 1)}): {self.reason}"


@dataclass(frozen=True)
class MetricNotMeasured:
    """A metric of a model could not be measured; its points are sound."""

    reason: str  # with metric and cell


@dataclass(frozen=True)
class Waiting:
    """A run waits: another one has the store, or a device is asked how fast it is."""

    reason: str  # with the holder


@dataclass(frozen=True)
class Hindered:
    """Something that a run can do without is gone, and the run goes on."""

    reason: str


@dataclass(frozen=True)
class Swept:
    """Every shard is done."""


@dataclass(frozen=True)
class Reported:
    """The page is drawn."""

    answers: Answers
    page: Path


@dataclass(frozen=True)
class Compared:
    """The study's numbers beside those of its last run."""

    study: str
    since: str  # a snapshot
    comparison: Comparison
    summary: str


Event = (
    Planned
    | Started
    | Progressed
    | ShardTrained
    | ShardSwept
    | TriedAgain
    | GivenUp
    | ShardDone
    | ShardIncomplete
    | Committed
    | PointsFailed
    | MetricNotMeasured
    | Hindered
    | Swept
    | Waiting
    | Reported
    | Compared
)
Listener = Callable[[Event], None]
Emit = Callable[[Event], None]


class Events:
    """Hands each event to every listener, in the order in which they were added. What a listener
    raises ends the run.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, *listeners: Listener) -> None:
        """Let more of them listen."""
        self._listeners.extend(listeners)

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


def failures(answers: list[PointAnswer]) -> Iterator[PointsFailed]:
    """Those of a stage's answers, by cell, sampler and reason, in alphabetical order."""
    found = sorted((PointsFailed((answer.point,), answer.error) for answer in answers if answer.error), key=str)
    for _, same in groupby(found, key=str):
        together = list(same)
        yield PointsFailed(tuple(failed.points[0] for failed in together), together[0].reason)
