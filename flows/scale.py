"""How long a plan takes on many workers, what limits it, and what to change: the parts of a run
followed as a queue, shard by shard.

Three parties serve in turn, each one thing at a time: the coordinator (hands task runs over, takes
answers, commits), the Prefect server (is told of every task run; workers wait for that a few seconds
at most) and the workers. A shard is one task run or two, training and sweep; what is handed over at
once is bounded as in a run. The costs are measured (`python -m tests.benchmarks.scale`), the work of
a shard is its plan's estimate. Task runs that generate training data, faults, the network and other
users of a machine are left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tasks.plan import Plan, Shard

WAITING_FOR_EACH = 3
"""Task runs handed over for each that can run at once: one runs, and the next are there when it
ends, also while a commit goes on.
"""

TOLD_SECONDS = 5.0
"""How long a worker tries to tell Prefect what became of a task run, before it gives its answer all
the same.
"""


@dataclass(frozen=True)
class Costs:
    """What a run needs beside its work: seconds of one core, and bytes of the coordinator.

    Measured on two busy cores of a virtual machine (Python 3.11, Prefect 3.8, Ray 2.60, a store in a
    folder, a server on SQLite), as what a larger real run took more than a small one; docs/scale.md
    has the numbers, and what the parts take alone.
    """

    start_server: float = 10.0  # of Prefect, until a task run can begin; nothing where one is named
    start_ray: float = 5.0  # the same of Ray
    plan_cell: float = 4e-5  # of the coordinator
    plan_point: float = 2.6e-5
    hand_over: float = 0.05  # of the coordinator, each task run: handed over, and its answer taken
    commit: float = 0.07  # of the coordinator, each commit: Prefect's task run of it included
    commit_cell: float = 1.5e-4
    commit_point: float = 6e-5
    told: float = 0.085  # of the Prefect server, each task run, what its worker logs included
    told_commit: float = 0.011
    worker: float = 0.28  # of a worker, each task run
    base_bytes: float = 4.5e8
    cell_bytes: float = 3.3e3
    point_bytes: float = 0.6e3

    @property
    def start(self) -> float:
        """Of the services that the run starts itself, one after the other."""
        return self.start_server + self.start_ray


class Load(NamedTuple):
    """A shard, as far as its time is concerned."""

    train: float  # seconds of one core; 0 if nothing is trained
    sweep: float
    cells: int  # to be trained
    points: int
    name: str = ""


class ForetoldCommit(NamedTuple):
    """An answer, committed."""

    stage: str  # train or sweep
    shard: int  # its place among the loads
    seconds: float  # since the start


@dataclass
class Timeline:
    """What came of following a run."""

    workers: int
    seconds: float = 0.0
    coordinator: float = 0.0  # seconds of one core
    server: float = 0.0
    work: float = 0.0  # of all workers, what task runs cost them included
    most_waiting: int = 0  # task runs handed over and not ended
    commits: list[ForetoldCommit] = field(default_factory=list)

    @property
    def busy(self) -> float:
        """The part of the workers' time in which they work."""
        return self.work / (self.workers * self.seconds) if self.seconds else 0.0


def loads_of(shards: Iterable[Shard]) -> list[Load]:
    """What is known of shards before they run."""
    found = []
    for shard in shards:
        training = sum(job.training_work() for job in shard.jobs if job.train)
        found.append(Load(training, max(shard.work() - training, 0.0), shard.trained, len(shard.questions), shard.name))
    return found


def follow(loads: Sequence[Load], workers: int, costs: Costs) -> Timeline:
    """Follow shards through a run, in the order in which they are handed over."""
    return _Queue(loads, workers, costs).followed()


class _Queue:
    """A run at one moment."""

    def __init__(self, loads: Sequence[Load], workers: int, costs: Costs) -> None:
        self._loads, self._costs, self._free = loads, costs, workers
        self._coming = iter(range(len(loads)))
        self._moments: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self._submitted: deque[tuple[str, int]] = deque()
        self._answers: deque[tuple[str, int]] = deque()
        self._open = 0  # handed over, and the answer not taken
        self._coordinator_is_free = False
        self._server_from = 0.0
        self._line = Timeline(workers)

    def followed(self) -> Timeline:
        self._at(self._hand_over(0.0, ()), self._take_answer)
        while self._moments:
            now, _, happens = heappop(self._moments)
            happens(now)
        return self._line

    def _at(self, moment: float, happens: Callable[[float], None]) -> None:
        heappush(self._moments, (moment, next(self._order), happens))

    def _hand_over(self, now: float, first: Iterable[tuple[str, int]]) -> float:
        """Hand over a sweep that follows, and new shards; when that is done."""
        room = WAITING_FOR_EACH * self._line.workers - self._open
        following = [*first]
        new = islice(self._coming, max(room - len(following), 0))
        following += [("train" if self._loads[i].cells else "sweep", i) for i in new]
        for one in following:
            self._open += 1
            now += self._costs.hand_over
            self._line.coordinator += self._costs.hand_over
            self._at(now, lambda at, one=one: self._begin(at, one))  # type: ignore[misc] # mypy has no type for the default
        self._line.most_waiting = max(self._line.most_waiting, self._open)
        return now

    def _begin(self, now: float, one: tuple[str, int] | None) -> None:
        """Something was handed over, or a worker has become free."""
        if one is None:
            self._free += 1
        else:
            self._submitted.append(one)
        if self._free and self._submitted:
            self._free -= 1
            stage, shard = taken = self._submitted.popleft()
            load = self._loads[shard]
            seconds = self._costs.worker + (load.train if stage == "train" else load.sweep)
            self._line.work += seconds
            self._at(now + seconds, lambda at: self._tell(at, taken))

    def _tell(self, now: float, one: tuple[str, int]) -> None:
        """The worker tells the Prefect server, and gives its answer."""
        self._server_from = max(self._server_from, now) + self._costs.told
        self._line.server += self._costs.told
        self._at(min(self._server_from, now + TOLD_SECONDS), lambda at: self._answer(at, one))

    def _answer(self, now: float, one: tuple[str, int]) -> None:
        self._begin(now, None)
        self._answers.append(one)
        if self._coordinator_is_free:
            self._take_answer(now)

    def _take_answer(self, now: float) -> None:
        """What the coordinator does next: what can run is handed over before the commit."""
        self._coordinator_is_free = not self._answers
        if self._coordinator_is_free:
            return
        stage, shard = self._answers.popleft()
        load = self._loads[shard]
        self._open -= 1
        now = self._hand_over(now, [("sweep", shard)] if stage == "train" and load.points else [])
        many = self._costs.commit_cell * load.cells if stage == "train" else self._costs.commit_point * load.points
        committing = self._costs.commit + many
        self._line.coordinator += committing
        self._line.server += self._costs.told_commit
        self._server_from = max(self._server_from, now) + self._costs.told_commit
        now += committing
        self._line.commits.append(ForetoldCommit(stage, shard, now))
        self._line.seconds = max(self._line.seconds, now)
        self._at(now, self._take_answer)


@dataclass(frozen=True)
class Prediction:
    """What a plan takes on a number of workers, and what would change it."""

    workers: int
    line: Timeline
    shards: int
    task_runs: int
    bytes: float
    longest: Load
    before: float  # seconds until the first task run: planning, and services
    changed: dict[str, float]  # seconds if this were half as slow, or half as long

    @property
    def seconds(self) -> float:
        """From the command to the last commit."""
        return self.before + self.line.seconds

    @property
    def limit(self) -> str:
        """What shortens the run most if it costs half."""
        return min(self.changed, key=lambda name: self.changed[name])


def predict(plan: Plan, workers: int, costs: Costs | None = None) -> Prediction | None:
    """What a plan takes on `workers` workers; None if there is nothing to do.

    Each part in turn is then made to cost half: that which shortens the run most is its limit.
    """
    if not plan.jobs:
        return None
    costs = costs or Costs()
    loads = loads_of(plan.shards(workers))
    before = costs.start + costs.plan_cell * len(plan.cells) + costs.plan_point * len(plan.points)
    size = costs.base_bytes + costs.cell_bytes * len(plan.cells) + costs.point_bytes * len(plan.points)
    again = loads_of(plan.shards(2 * workers))
    return predicted(loads, workers, costs, before=before, size=size, packed_for_twice=again)


def predicted(
    loads: Sequence[Load],
    workers: int,
    costs: Costs,
    *,
    before: float = 0.0,
    size: float = 0.0,
    packed_for_twice: Sequence[Load] | None = None,
) -> Prediction:
    """The same for shards that are packed already."""
    line = follow(loads, workers, costs)
    fast = replace(
        costs,
        hand_over=costs.hand_over / 2,
        commit=costs.commit / 2,
        commit_cell=costs.commit_cell / 2,
        commit_point=costs.commit_point / 2,
    )
    served = replace(costs, told=costs.told / 2, told_commit=costs.told_commit / 2)
    changed = {
        "workers": follow(packed_for_twice or loads, 2 * workers, costs).seconds,
        "coordinator": follow(loads, workers, fast).seconds,
        "server": follow(loads, workers, served).seconds,
        "longest shard": follow(_longest_cut(loads), workers, costs).seconds,
    }
    runs = sum(bool(load.cells) + bool(load.points) for load in loads)
    longest = max(loads, key=lambda load: load.train + load.sweep)
    later = {name: before + seconds for name, seconds in changed.items()}
    later["start"] = before - costs.start / 2 + line.seconds
    return Prediction(workers, line, len(loads), runs, size, longest, before, later)


def _longest_cut(loads: Sequence[Load]) -> list[Load]:
    """Shards of more than half the longest one's time in two, where they stand."""
    most = max(load.train + load.sweep for load in loads)
    cut: list[Load] = []
    for load in loads:
        many = 2 if load.train + load.sweep > most / 2 else 1
        cells, points = (-(-load.cells // many), -(-load.points // many))
        cut += [Load(load.train / many, load.sweep / many, cells, points)] * many
    return cut
