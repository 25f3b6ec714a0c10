"""Progress decides nothing: the actor that counts it is killed, for a while and for good. A real Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flows.listeners
from flows.board import BoardReporter, SharedBoard
from flows.events import (
    Event,
    Events,
    GivenUp,
    Hindered,
    Progressed,
    ShardDone,
    ShardIncomplete,
    ShardSwept,
    Started,
    Swept,
    TriedAgain,
)
from flows.listeners import Artifacts, RunLog
from flows.live import LiveFile
from flows.orchestration import _train_and_sweep
from flows.progress import Display
from flows.services import ray_cluster
from tasks.plan import Shard, make_plan
from tasks.results.live import told as last_told
from tasks.study import Study
from tasks.work import lost_sweep
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


Ended = ShardSwept | TriedAgain | GivenUp


class Scripted:
    """Workers that end what they were handed as they are told to; as many runs of a shard go on as are
    still to come.
    """

    busy = 0

    def __init__(self, coming: list[Ended], board: SharedBoard) -> None:
        self._coming, self._board = coming, board

    def sweep(self, number: int, shard: Shard) -> None:
        """It tells that all is done, as a worker that is lost afterwards may."""
        reporter = self._board.reporter(("sweep", number), shard.name)
        reporter.begin()
        reporter(shard.work(), 0, len(shard.questions))

    def goes_on(self, number: int) -> bool:
        return any(not isinstance(one, TriedAgain) and one.number == number for one in self._coming)

    def ended(self, waiting: Callable[[], None]) -> Iterator[Ended]:
        while self._coming:
            waiting()
            yield self._coming.pop(0)


@pytest.mark.usefixtures("ray_of_ours")
@pytest.mark.parametrize("last", ["answered", "given up", "all of it"])
def test_what_machines_have_lost_of_a_shard_is_told_nowhere_as_committed(
    last: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two shards the first is swept, and the second in halves, one of which is given up: before the
    other is answered, or after it; or the second is given up as a whole.
    """
    spec = {**SPEC, "formulations": [{"name": "exact", "schedule": "edm"}], "datasets": ["uniform", "gaussian"]}
    plan = make_plan(Study.from_spec(spec), {}, ())
    whole, torn = plan.shards(1)
    kept, lost = torn.halves() if last != "all of it" else (Shard(()), torn)
    told: list[Event] = []
    board = SharedBoard([whole, torn], 1, told.append)
    answers: list[Ended] = [ShardSwept(1, kept, lost_sweep(kept, "x")), GivenUp(1, lost, "the node is gone", False)]
    first = [ShardSwept(0, whole, lost_sweep(whole, "x"))]
    coming = [*first, *(reversed(answers) if last == "answered" else answers[last == "all of it" :])]
    token = "f" * 32
    percents: list[tuple[str, float]] = []

    class Page:
        def tell(self, what: str, call: Any) -> None:
            percents.append((what, call.args[0]))

    monkeypatch.setattr(flows.listeners, "get_run_logger", lambda: logging.getLogger("of a run"))
    monkeypatch.setattr(flows.listeners, "_ARTIFACT_SECONDS", -1.0)
    monkeypatch.setattr("flows.live._SECONDS", -1.0)
    emit, page = Events(), Page()
    with Display() as display, LiveFile(token, "tiny") as live, caplog.at_level("INFO"):
        emit.add(told.append, display, live, RunLog(), Artifacts("tiny", ["w1"], page))  # type: ignore[arg-type]
        emit(Started(plan, (whole, torn), 1, ()))
        workers: Any = Scripted(coming, board)
        given_up = _train_and_sweep([whole, torn], 1, workers, board, emit)
        emit(once(board, len(whole.questions) + len(kept.questions)))
        seen = last_told(token)
        emit(Swept())
    assert [one.shard for one in given_up] == [lost]
    ends = [event for event in told if isinstance(event, ShardDone | ShardIncomplete)]
    assert ends == [ShardDone(0, whole), ShardIncomplete(1, torn, len(lost.questions))]

    said = capsys.readouterr().err
    assert said.count(" committed: ") == 1
    failed = f", {len(kept.questions)} failed" if kept.questions else ""
    count = f"({len(kept.questions)} points{failed}, {len(lost.questions)} not computed)"
    assert f"shard 2/2 not complete: {torn.name} {count}" in said
    assert [record.getMessage() for record in caplog.records if "shard done" in record.message] == [
        f"shard done: {whole.name}"
    ]
    assert (
        f"shard not complete: {torn.name}: {len(lost.questions)} of {len(torn.questions)} points not computed"
        in caplog.text
    )
    assert seen is not None
    assert (seen.shards_done, seen.shards_incomplete, seen.running) == (1, 1, ())
    assert seen.points_done == len(whole.questions) + len(kept.questions) < seen.points
    expected = 100 * (whole.work() + torn.work() - lost.work()) / (whole.work() + torn.work())
    what, percent = percents[-1]
    assert what == "progress"
    assert percent == pytest.approx(expected, abs=0.1)
    assert percent < 100
