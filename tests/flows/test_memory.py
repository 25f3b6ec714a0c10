"""What the coordinator keeps of answers that it has committed: less than a kilobyte a point."""

from __future__ import annotations

import gc
import pickle
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from flows.events import Event, Events, Planned, ShardSwept, ShardTrained, Started
from flows.listeners import Committer, Tally
from flows.live import LiveFile
from flows.orchestration import _train_and_sweep
from flows.progress import Display
from tasks.plan import Shard, make_plan
from tasks.results.stored import coordinate
from tasks.stages import commit
from tasks.store import Store
from tasks.study import Study
from tasks.work import Requests, data_key, sweep_shard, train_shard, training_sets
from tasks.work.code import code_here
from tests.tasks.tiny_store import SPEC

CELLS, STEPS, SHARDS = 60, 8, 20


class Here:
    """Workers in this process, one after the other. Answers arrive as from another one."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._left: deque[tuple[str, int, Shard]] = deque()
        self._weights: dict[int, dict[str, bytes]] = {}

    @property
    def busy(self) -> int:
        return len(self._left)

    def train(self, number: int, shard: Shard) -> None:
        self._left.append(("train", number, shard))

    def sweep(self, number: int, shard: Shard) -> None:
        self._left.append(("sweep", number, shard))

    def goes_on(self, number: int) -> bool:
        return any(number == other for _, other, _ in self._left)

    def ended(self, _look: Callable[[], None]) -> Iterator[ShardTrained | ShardSwept]:
        while self._left:
            stage, number, shard = self._left.popleft()
            if stage == "train":
                answer = train_shard(shard, training_sets({data_key(job.cell): job.cell for job in shard.jobs}))
                self._weights[number] = answer.weights
                yield ShardTrained(number, shard, pickle.loads(pickle.dumps(answer)), ())  # noqa: S301 - our own
            else:
                swept = sweep_shard(shard, self._weights.pop(number, {}), self._requests)
                yield ShardSwept(number, shard, pickle.loads(pickle.dumps(swept)), ())  # noqa: S301 - as above


class NoBoard:
    """Where nobody writes."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def test_a_point_that_is_committed_leaves_less_than_a_kilobyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all who listen to a run, but for Prefect's pages; what Ray and Prefect keep beside them is
    measured by `tests.benchmarks.scale`.
    """
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("flows.listeners.commit", commit.fn)  # without Prefect around it
    spec: dict[str, Any] = {
        **SPEC,
        "name": "many",
        "seeds": CELLS,
        "training": {"steps": 1, "batch": 8, "width": 8, "depth": 1, "data": 16},
        "samplers": ["euler"],
        "steps": list(range(1, STEPS + 1)),
        "samples": 16,
        "metrics": ["w1"],
        "keep": {},
        "exclude": [{"formulation": "exact"}],
    }
    study = Study.from_spec(spec)
    plan = make_plan(study, {}, ())
    jobs = list(plan.jobs)
    shards = [Shard(tuple(jobs[i::SHARDS])) for i in range(SHARDS)]
    store = Store.create(str(tmp_path / "store"))
    tally = Tally()
    held: list[tuple[int, int]] = []

    def weighed(event: Event) -> None:
        if isinstance(event, ShardSwept) and event.number in (SHARDS // 4, SHARDS - 1):
            gc.collect()
            held.append((tally.computed, tracemalloc.get_traced_memory()[0]))

    emit = Events()
    with Display(quiet=True) as display, coordinate(store) as coordinator, LiveFile(coordinator.token, "many") as live:
        committer = Committer("many", study.metrics, store, coordinator, {}, code_here(), {}, emit)
        emit.add(committer, tally, live, display, weighed)
        for event in (Planned(plan), Started(plan, tuple(shards), 2, ())):
            emit(event)
        tracemalloc.start()
        try:
            requests = Requests(study.metrics, False, frozenset())
            workers = cast("Any", Here(requests))
            assert _train_and_sweep(shards, 2, workers, cast("Any", NoBoard()), emit) == []
        finally:
            tracemalloc.stop()
    assert tally.computed == len(plan.points) == CELLS * STEPS
    (first, before), (last, after) = held  # what is made once is made by the first
    assert last - first >= 300
    assert (after - before) / (last - first) < 1024
