"""What a store says of its studies and of who writes to it: counted from a real store, told by the
command.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.command_line import app
from flows.events import PointsFailed, Progressed, Running, ShardDone, Started
from flows.live import LiveFile
from tasks.results import Answers
from tasks.results.live import told as last_told
from tasks.results.status import StudyStatus, status_of
from tasks.results.stored import coordinate, plan_against, record
from tasks.store import Rows, Store
from tasks.study import Study
from tests.tasks.store_kit import ROOT, held_by_another_process, point, small_store
from tests.tasks.tiny_store import SPEC, answer

DIVERGING = {**SPEC, "name": "diverging", "training": {**SPEC["training"], "steps": 40, "learning_rate": 1000.0}}
IMPOSSIBLE = {
    **SPEC,
    "name": "impossible",
    "formulations": ["edm", "ddpm"],
    "samplers": ["ddim"],
    "steps": [3, 101],
    "keep": {},
}


def told(*arguments: str) -> str:
    ended = CliRunner().invoke(app, ["status", *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


@pytest.fixture
def uri(tmp_path: Path) -> str:
    where = str(tmp_path / "store")
    for spec in (SPEC, DIVERGING, IMPOSSIBLE):
        answer(where, spec)
    return where


@pytest.fixture
def small(tmp_path: Path) -> str:
    where = str(tmp_path / "small")
    small_store(where)
    return where


def test_points_are_counted_by_what_became_of_them(uri: str) -> None:
    found = {study.study: study for study in status_of(uri).studies}
    # edm and its exact row, two seeds, two samplers, two step counts
    assert found["tiny"] == StudyStatus("tiny", asked=16, ok=16, failed=0, skipped=0)
    diverging = replace(found["diverging"], failures=())
    assert diverging == StudyStatus("diverging", asked=16, ok=8, failed=8, skipped=0)
    assert found["impossible"] == StudyStatus("impossible", asked=16, ok=12, failed=0, skipped=4)
    assert [study.missing for study in found.values()] == [0, 0, 0]

    grown = Study.from_spec({**SPEC, "steps": [1, 3, 5]})  # asked for, and not computed yet
    with coordinate(Store.open(uri)) as coordinator:
        record(coordinator, plan_against(Store.open(uri), grown), {"study": "tiny"})
    (tiny,) = [study for study in status_of(uri).studies if study.study == "tiny"]
    assert (tiny.asked, tiny.ok, tiny.missing) == (24, 16, 8)


def test_what_failed_is_told_by_its_reason_and_of_which_points(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    answer(uri, {**DIVERGING, "seeds": 1})  # its exact rows answer
    answer(uri, {**IMPOSSIBLE, "seeds": 1})  # what is impossible has not failed
    table = Answers(Store.open(uri)).table()
    bad = table["status"] == "failed"
    (reason,) = set(table["error"][bad].tolist())
    assert "diverged" in reason

    studies = {one["study"]: one for one in json.loads(told("--store", uri, "--json"))["studies"]}
    assert studies["impossible"]["failures"] == []
    (failed,) = studies["diverging"]["failures"]
    assert failed["reason"] == reason
    assert failed["questions"] == ["uniform: edm with euler", "uniform: edm with heun"]
    assert sorted(failed["point_ids"]) == sorted(table["point_id"][bad].tolist())
    text = " ".join(told("--store", uri).split())
    assert f"diverging: 4 points failed (uniform: edm with euler, uniform: edm with heun): {reason}" in text
    assert "impossible: " not in text


def test_of_many_reasons_the_most_frequent_are_told_and_the_rest_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    uri = str(tmp_path / "store")
    with Store.create(uri).coordinate() as coordinator:
        reasons = [n for n in range(1, 8) for _ in range(n)]  # the seventh reason has seven points
        rows = [
            point(
                i, dataset="moons", formulation=f"f{i}", sampler="heun", status="failed", error=f"reason {n}", w1=np.nan
            )
            for i, n in enumerate(reasons)
        ]
        ids = [str(row["point_id"]) for row in rows]
        coordinator.commit_study("many", {"metrics": []}, ids, Rows(rows), {"study": "many"})
    (study,) = status_of(uri).studies
    assert [len(one.point_ids) for one in study.failures] == [7, 6, 5, 4, 3, 2, 1]
    lines = [line for line in told("--store", uri).splitlines() if line.startswith("many: ")]
    assert [line.rpartition(": ")[2] for line in lines[:5]] == [f"reason {n}" for n in (7, 6, 5, 4, 3)]
    assert "(moons: f21 with heun, moons: f22 with heun, moons: f23 with heun and 4 more)" in lines[0]
    assert lines[5:] == ["many: 3 points failed for 2 more reasons; --json tells all"]


def test_who_writes_is_named_and_who_was_killed_is_told_from_who_runs(uri: str) -> None:
    assert status_of(uri).holder is None
    assert "no run has it" in told("--store", uri)
    with held_by_another_process(uri) as other:
        running = status_of(uri)
        assert running.holder is not None
        assert (running.holder.pid, running.abandoned) == (other.pid, False)
        assert f"process {other.pid}" in told("--store", uri)
        other.kill()
    killed = json.loads(told("--store", uri, "--json"))["holder"]
    assert (killed["pid"], killed["ended"]) == (other.pid, True)
    assert "was killed; the next run goes on" in " ".join(told("--store", uri).split())
    with Store.open(uri).coordinate():  # to ask takes nothing from the next run
        assert status_of(uri).holder is not None


WATCH = [sys.executable, "-m", "diffatlas", "status", "--watch"]


def test_to_watch_is_to_look_again_until_the_run_has_ended(small: str) -> None:
    with held_by_another_process(small) as other:
        command = [*WATCH, "--json", "--store", small]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as watching:
            assert watching.stdout is not None
            documents = [json.loads(watching.stdout.readline()) for _ in range(2)]  # a line each, while it runs
            assert {one["holder"]["pid"] for one in documents} == {other.pid}
            assert watching.poll() is None
            other.communicate()  # gives the store back
            rest, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (0, "")
    last = [json.loads(line) for line in rest.splitlines()][-1]  # no terminal: nothing but documents
    assert last["holder"] is None
    assert last["studies"] == documents[0]["studies"]


def test_to_watch_ends_when_the_run_is_killed_and_says_so(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    with held_by_another_process(small) as other:

        def wait(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                other.kill()
                other.wait()

        monkeypatch.setattr("flows.command_line.status.time", SimpleNamespace(sleep=wait))
        text = " ".join(told("--watch", "--store", small).split())
    assert waited == [2.0] * 3
    assert text.count("in use by a run (") == 3
    assert text.count("was killed; the next run goes on") == 1
    assert "\x1b" not in text


def test_a_terminal_shows_one_look_at_a_time(small: str) -> None:
    ours, theirs = pty.openpty()
    with held_by_another_process(small) as other:
        environment = {**os.environ, "TERM": "xterm"}
        with subprocess.Popen([*WATCH, "--store", small], stdout=theirs, cwd=ROOT, env=environment) as watching:
            os.close(theirs)
            text = b""
            while text.count(b"in use by a run") < 2:
                text += os.read(ours, 4096)
            other.communicate()
            with contextlib.suppress(OSError):  # the end of a terminal
                while more := os.read(ours, 4096):
                    text += more
    os.close(ours)
    assert watching.returncode == 0
    first, *looks = text.split(b"\x1b[2J")  # cleared before each
    assert b"store" not in first
    assert [b"in use by a run" in look for look in looks] == [True] * (len(looks) - 1) + [False]


def test_the_document_says_the_same_as_the_table(uri: str) -> None:
    document = json.loads(told("--store", uri, "--json"))
    snapshot = Store.open(uri).look()
    assert (document["store"], document["snapshot"], document["message"]) == (uri, snapshot.id, snapshot.message)
    table = told("--store", uri)
    for study in document["studies"]:
        (line,) = [line for line in table.splitlines() if line.split()[1:2] == [study["study"]]]
        counts = [int(word) for word in line.split() if word.isdigit()]
        assert counts == [study[name] for name in ("asked", "ok", "failed", "skipped", "missing")]


def test_no_store_is_told_with_the_exit_code_of_what_is_not_there(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["status", "--store", str(tmp_path / "none")])
    assert ended.exit_code == 3


def test_a_run_tells_how_far_it_is_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path / "home"))
    uri = str(tmp_path / "store")
    store = Store.create(uri)
    plan = plan_against(store, Study.from_spec(SPEC))
    shards = tuple(plan.shards(1))
    with coordinate(store) as coordinator, LiveFile(coordinator.token, "tiny") as live:
        record(coordinator, plan, {"study": "tiny"})
        assert status_of(uri).live is None  # nothing has been told yet
        live(Started(plan, shards, 1, ()))
        first = json.loads(told("--store", uri, "--json"))["run"]
        assert (first["shards"], first["shards_done"], first["points"]) == (len(shards), 0, plan.missing)
        live(PointsFailed(plan.points[:2], "sampling failed: ArithmeticError: no"))
        live(PointsFailed(plan.points[5:6], "diverged"))
        live(Progressed(1.0, 1, 3, 0.25, (Running("train uniform: edm x2", 0.5, 2.0),), 75.0))
        monkeypatch.setattr(live, "_written", time.monotonic())  # just now: the end of a shard is told all the same
        live(ShardDone(0, shards[0]))
        text = told("--store", uri)
        assert f"study tiny: 1 of {len(shards)} shards done, 3 of 16 points, 3 failed; about 1:15 left" in text
        assert json.loads(told("--store", uri, "--json"))["run"]["points_failed"] == 3
        assert "train uniform: edm x2: 50 %" in text
        many = tuple(Running(f"train uniform: edm {n}", 0.5, 2.0) for n in range(300))
        monkeypatch.setattr(live, "_written", 0.0)
        live(Progressed(1.0, 1, 3, 0.25, many, 75.0))
        text = told("--store", uri)
        assert text.count("train uniform: edm ") == 20
        assert "and 280 more task runs; --json tells all" in text
        assert len(json.loads(told("--store", uri, "--json"))["run"]["running"]) == 300
        with monkeypatch.context() as elsewhere:  # a home in which nothing can be written stops nothing
            elsewhere.setenv("DIFFATLAS_HOME", "/proc/none")
            elsewhere.setattr(live, "_written", 0.0)
            live(ShardDone(1, shards[0]))
    assert status_of(uri).live is None
    assert not list((tmp_path / "home" / "running").iterdir())


@pytest.mark.parametrize("token", ["", "../../etc/passwd", "A" * 32, "0" * 31])
def test_a_token_is_never_a_path(token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path))
    assert last_told(token) is None
