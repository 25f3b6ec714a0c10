"""A shard done apart: what ends a process costs its own point or training, and nobody else a bit.
Real processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.plain import Spec
from tasks.plan import Shard, make_plan
from tasks.results.rows import swept_rows, trained_rows
from tasks.study import Study
from tasks.work import Requests, SweepAnswer, sweep_shard, train_shard, training_sets
from tasks.work.apart import Apart
from tasks.work.child import TrainingPart
from tasks.work.data import data_key
from tasks.work.guilty import sweep_apart, train_apart

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

OWN = "tests.tasks.own_parts"
SWEEP: Spec = {
    "name": "apart",
    "datasets": ["uniform"],
    "formulations": [{"name": "exact", "schedule": "edm"}, {"name": "exact", "schedule": "ddpm-linear"}],
    "seeds": 1,
    "samplers": ["heun", f"{OWN}:Exiting", f"{OWN}:Leaving", "ddim"],
    "steps": [2, 3],
    "samples": 40,
    "metrics": ["w1", "score-error"],
}
TRAINING: Spec = {
    "name": "apart",
    "datasets": ["uniform", f"{OWN}:Deadly"],
    "formulations": ["edm"],
    "seeds": 2,
    "training": {"steps": 6, "batch": 16, "width": 16, "depth": 1, "data": 50},
    "samplers": ["euler"],
    "steps": [2],
    "samples": 40,
    "metrics": ["w1"],
}


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", OWN)


def unheard(_seconds: float, _cells: int, _points: int, _doing: str = "", /) -> None:
    pass


def test_only_the_points_that_end_their_process_have_failed_with_status_and_last_words() -> None:
    study = Study.from_spec(SWEEP)
    shard = Shard(tuple(make_plan(study, {}, ()).jobs))
    healthy = shard.asking([point for point in shard.questions if "Exiting" not in str(point.labels["sampler"])])
    requests = Requests(study.metrics, True, frozenset())
    done: list[int] = []

    def heard(_seconds: float, _cells: int, points: int, _doing: str = "", /) -> None:
        done.append(points)

    answer = sweep_apart(shard, {}, requests, 600.0, heard, "cpu")

    errors = {(a.point.labels["schedule"], a.point.labels["sampler"]): a.error for a in answer.points if a.error}
    ended = errors.pop(("ddpm-linear", f"{OWN}:Exiting"))
    assert ended == "the worker ended without an answer (exit status 137; its log ends: out of luck)"
    assert {place[1] for place in errors} == {f"{OWN}:Leaving"}  # which is an exception, and was caught
    assert len(answer.points) == len(shard.questions) == 16
    assert sum(done) == 16 - 2
    assert rows_of(answer, healthy) == rows_of(sweep_shard(healthy, {}, requests), healthy)
    assert answer.profiles.keys() == {job.cell.id for job in shard.jobs}


def rows_of(answer: SweepAnswer, asked: Shard) -> dict[str, object]:
    """What the store gets of some questions, but for the time they took."""
    ids = {point.id for point in asked.questions}
    rows = swept_rows(answer, {})
    found = {row["point_id"]: {**row, "sample_seconds": 0, "train_seconds": 0} for row in rows.points}
    samples = {point: array.tobytes() for point, array in rows.samples.items() if point in ids}
    return {**{str(point): row for point, row in found.items() if point in ids}, "samples": samples}


def test_a_question_that_hangs_is_ended_at_its_limit_and_what_says_where_it_was() -> None:
    spec = SWEEP | {
        "samplers": ["heun", f"{OWN}:Hanging"],
        "steps": [2],
        "formulations": [{"name": "exact", "schedule": "edm"}],
    }
    study = Study.from_spec(spec)
    shard = Shard(tuple(make_plan(study, {}, ()).jobs))
    answer = sweep_apart(shard, {}, Requests(study.metrics, False, frozenset()), 10.0, unheard, "cpu")
    errors = {a.point.labels["sampler"]: a.error for a in answer.points}
    assert errors["heun"] is None
    hung = errors[f"{OWN}:Hanging"]
    assert hung is not None
    assert "no answer within" in hung
    assert "its limit" in hung
    assert "own_parts.py" in hung
    assert "in step" in hung


def test_what_is_not_tried_after_twice_the_limit_says_so() -> None:
    study = Study.from_spec(SWEEP)
    shard = Shard(tuple(make_plan(study, {}, ()).jobs))
    answer = sweep_apart(shard, {}, Requests(study.metrics, False, frozenset()), 0.0, unheard, "cpu")
    assert len(answer.points) == 16
    assert any((a.error or "").startswith("not tried: ") for a in answer.points)


def test_only_the_training_that_ends_its_process_has_failed_and_the_other_weights_are_the_same() -> None:
    study = Study.from_spec(TRAINING)
    shard = Shard(tuple(job for job in make_plan(study, {}, ()).jobs if job.train))
    assert len(shard.jobs) == 4
    answer = train_apart(shard, 600.0, unheard, "cpu")
    fatal = {job.cell.id for job in shard.jobs if "Deadly" in job.cell.labels["dataset"]}
    assert {cell.cell.id for cell in answer.cells if cell.error} == fatal
    reasons = {point.error for point in answer.points}
    assert len(reasons) == 1
    assert "ended by SIGKILL, as the system does when memory runs out" in str(reasons.pop())
    sound = Shard(tuple(job for job in shard.jobs if job.cell.id not in fatal))
    undisturbed = train_shard(sound, training_sets({data_key(job.cell): job.cell for job in sound.jobs}))
    assert answer.weights == undisturbed.weights
    assert trained_rows(answer).weights == undisturbed.weights


SERVER = f"""#!{sys.executable}
import os, sys, time
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    END
"""


@pytest.mark.parametrize(
    "end",
    [
        'os.write(1, f"{pid}\\n{status}\\n".encode())',  # both are there when the first is read
        'os.write(1, f"{pid}\\n".encode()); time.sleep(1.5); os.write(1, f"{status}\\n".encode())',  # it is gone when asked
    ],
    ids=["at-once", "late"],
)
def test_a_process_that_ends_before_it_is_looked_at_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    server = tmp_path / "server"
    server.write_text(SERVER.replace("END", end))
    server.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(server))
    shard = Shard(tuple(make_plan(Study.from_spec(SWEEP), {}, ()).jobs))
    heard: list[object] = []
    with Apart() as apart:
        reason = apart.do(TrainingPart(shard, "cpu"), lambda: 0.3, unheard, heard.append)
    assert reason is not None
    assert ("exit status 3" if "sleep" not in end else "no answer within 0 s") in reason
    assert heard == []


@pytest.mark.parametrize("steps", [[2], [2, 3]])
def test_halves_are_cells_first_then_questions_and_nothing_is_lost(steps: list[int]) -> None:
    study = Study.from_spec(SWEEP | {"steps": steps})
    left, alone = [Shard(tuple(make_plan(study, {}, ()).jobs))], []
    while left:
        shard = left.pop()
        halves = shard.halves()
        if len(shard.jobs) > 1:
            assert sum(len(half.jobs) for half in halves) == len(shard.jobs)
        left.extend(halves)
        alone += [] if halves else shard.questions
    assert sorted(p.id for p in alone) == sorted(p.id for p in make_plan(study, {}, ()).points)


def test_a_child_that_does_not_listen_yet_is_not_ended_by_being_asked_where_it_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tasks.work.child", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for _ in range(2):  # the first answer says that the server is there
            server.stdin.write(f"{tmp_path / 'nothing'}\n".encode())
            assert int(server.stdout.readline()) > 0
            assert int(server.stdout.readline()) == 1  # nothing to do there
            server.send_signal(signal.SIGUSR1)  # children begin with what the server does about a signal
        server.stdin.close()
        assert server.wait() == 0


WATCHES = """
import time
from tasks.work.apart import Apart
with Apart():
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is told that its parent is gone")
def test_nothing_is_left_of_a_shard_apart_whose_worker_is_killed(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "DIFFATLAS_RUN"} | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", WATCHES], stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"there\n"
        assert list(tmp_path.iterdir())
        worker.kill()
    deadline = time.monotonic() + 60
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline, list(tmp_path.iterdir())
        time.sleep(0.1)
