"""Progress decides nothing: the actor that counts it is killed, for a while and for good. A real Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.board import BoardReporter, SharedBoard
from flows.events import Event, Hindered, Progressed
from flows.services import ray_cluster
from tasks.plan import make_plan
from tasks.study import Study
from tests.tasks.tiny_store import SPEC

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def ray_of_ours(home: Path) -> Iterator[Any]:  # noqa: ARG001
    with ray_cluster(None, 1, {}):
        import ray

        yield ray


def report(reporter: BoardReporter, begin: bool, points: int) -> int:
    if begin:
        reporter.begin()
    for _ in range(points):
        reporter(1.0, 0, 1)
    return points


def once(board: SharedBoard, points: float) -> Progressed:
    """The reading of a board that knows of so many points; it may need a while to."""
    deadline = time.monotonic() + 60
    while (now := board.read()).points != points:
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    return now


def test_work_goes_on_without_the_actor_that_counts_it(ray_of_ours: Any) -> None:
    told: list[Event] = []
    board = SharedBoard(make_plan(Study.from_spec(SPEC), {}, ()).shards(1), 1, told.append)
    work = ray_of_ours.remote(report)
    one, two = board.reporter(("train", 0), "first"), board.reporter(("sweep", 0), "second")
    assert ray_of_ours.get(work.remote(one, True, 3)) == 3
    assert [run.name for run in once(board, 3).running] == ["first"]

    ray_of_ours.kill(board._actor, no_restart=False)  # as when its process dies, or its node
    assert board.read().points == 3
    assert ray_of_ours.get(work.remote(one, False, 2)) == 2
    assert ray_of_ours.get(work.remote(two, True, 4)) == 4
    while "second" not in {run.name for run in board.read().running}:
        ray_of_ours.get(work.remote(two, True, 4))  # what was told while there was no actor is lost
    assert board.read().points >= 7
    assert [type(event) for event in told] == [Hindered]
    assert "started again" in str(told[0])

    known = board.read().points
    ray_of_ours.kill(board._actor)
    assert ray_of_ours.get(work.remote(two, True, 4)) == 4
    for _ in range(5):
        assert board.read().points == known
    assert len(told) == 1  # once is enough
