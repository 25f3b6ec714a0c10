"""Shards are handed over as there is room for them: the first is committed long before the last is
submitted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from flows.events import Event, ShardSwept
from flows.orchestration import _train_and_sweep
from flows.scale import WAITING_FOR_EACH
from tasks.plan import Shard, make_plan
from tasks.study import Study
from tasks.work import SweepAnswer

SHARDS, SLOTS = 1000, 2


class InOrder:
    """Workers that end what they were handed one after the other, and compute nothing."""

    def __init__(self, told: list[str]) -> None:
        self._left: deque[tuple[int, Shard]] = deque()
        self._told = told
        self.most = 0

    @property
    def busy(self) -> int:
        return len(self._left)

    def sweep(self, number: int, shard: Shard) -> None:
        self._left.append((number, shard))
        self.most = max(self.most, self.busy)
        self._told.append(f"handed over {number}")

    train = sweep

    def goes_on(self, _number: int) -> bool:
        return False

    def ended(self, _look: Callable[[], None]) -> Iterator[ShardSwept]:
        while self._left:
            number, shard = self._left.popleft()
            yield ShardSwept(number, shard, SweepAnswer([], [], {}, "", 0.0), ())


class NoBoard:
    """Where nobody writes."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def test_no_more_is_handed_over_than_waits_for_each_worker_and_the_first_is_told_before_the_last_is() -> None:
    spec = {"name": "many", "datasets": ["uniform"], "formulations": ["exact"], "seeds": SHARDS, "samplers": ["euler"]}
    study = Study.from_spec({**spec, "steps": [1], "samples": 16, "metrics": ["w1"]})
    shards = [Shard((job,)) for job in make_plan(study, {}, ()).jobs]
    assert len(shards) == SHARDS
    order: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, ShardSwept):
            order.append(f"told {event.number}")

    workers = InOrder(order)
    assert _train_and_sweep(shards, SLOTS, cast("Any", workers), cast("Any", NoBoard()), emit) == []
    window = WAITING_FOR_EACH * SLOTS
    assert workers.most == window
    assert len(order) == 2 * SHARDS
    for number in range(SHARDS - window):  # each end makes room for one, and is told at once
        assert order.index(f"told {number}") == order.index(f"handed over {number + window}") + 1
