"""What the rounds of faults count, and that a round which breaks is not counted as a sound one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.plan import make_plan
from tasks.study import load_study
from tests.faults import kit
from tests.faults.hurts import FAULTS, Fault, study_of
from tests.faults.kit import Round, RoundFailed, Run
from tests.faults.rounds import Result, carry_out, lost, table
from tests.faults.whole import Contents
from tests.tasks.store_kit import ROOT


def contents(*points: str, value: str = "1", weights: str = "w") -> Contents:
    labels = {"a": ("edm", "edm"), "b": ("edm", "edm"), "c": ("exact", "edm"), "d": ("exact", "ddpm-linear")}
    rows = {
        point: tuple(
            {"dataset": "uniform", "formulation": labels[point][0], "schedule": labels[point][1], "w1": value}.items()
        )
        for point in points
    }
    return Contents(rows, {"cell": (("status", "ok"), ("weights", weights))}, {})


SAID = (
    "shard 1/2 committed: uniform: edm x2 (2 points) after 0:30, about 1:00 left\n"
    "shard 2/2 committed: uniform: exact on edm, ddpm-linear (2 points, 1 failed) after 0:30\n"
)


def test_a_point_is_lost_by_name_and_not_by_number() -> None:
    whole = contents("a", "b", "c", "d")
    assert lost(SAID, whole, whole, whole) == set()
    assert lost(SAID, contents("a", "c", "d"), whole, whole) == {"b"}
    first = SAID.splitlines()[0]
    assert lost(first, contents("a", "b"), whole, whole) == set()
    assert lost(first, contents("c", "d"), whole, whole) == {"a", "b"}  # as many as were told, and not those
    assert lost("", whole, contents("a", "b", "c"), whole) == {"d"}
    assert lost("", contents("a", value="2"), whole, whole) == {"a"}
    assert lost("", contents("a", weights="other"), whole, whole) == {"cell"}
    with pytest.raises(RoundFailed, match="told 3 points"):
        lost("shard 1/2 committed: uniform: edm x2 (3 points)", whole, whole, whole)


def test_the_points_of_a_shard_are_known_by_its_name_in_the_study_of_the_rounds(tmp_path: Path) -> None:
    (tmp_path / "rounds.yaml").write_text(study_of(None))
    plan = make_plan(load_study(tmp_path / "rounds.yaml"), {}, ())
    whole = Contents({point.id: tuple(point.labels.items()) for point in plan.points}, {}, {})
    shards = plan.shards(1)
    assert len(shards) > 1
    for shard in shards:
        said = f"shard 1/1 committed: {shard.name} ({len(shard.questions)} points) after 0:30"
        assert lost(said, Contents({}, {}, {}), whole, whole) == {point.id for point in shard.questions}


def test_the_guide_tells_how_often_each_fault_was_tried() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    told = text[text.index("## How often this was tried") :]
    assert sorted(re.findall(r"^\| (.*?) \| \d+ \|", told, re.MULTILINE)) == sorted(
        row.about for row in FAULTS.values()
    )


def test_the_table_says_what_is_not_known() -> None:
    name = "worker-killed"
    left = {"processes": 0, "ports": 0, "locks": 1, "folders": 0}
    sound = Result(0, same=True, lost=0, left=left, seconds=2.0)
    assert table({name: [sound, sound]}).splitlines()[-1].endswith("| 2 | 0 | 2 | 0 | 2 | 2 |")
    broken = Result(wrong="RoundFailed", left=left, seconds=4.0)
    assert table({name: [sound, broken]}).splitlines()[-1].endswith("| 2 | 0, None | 1 | ? | 2 | 3 |")
    assert table({name: [broken, Result(wrong="OSError")]}).splitlines()[-1].endswith("| 2 | None | 0 | ? | ? | 2 |")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes through /proc")
def test_what_a_broken_round_leaves_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def breaks(one: Round) -> Run:
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        started.append(subprocess.Popen(command, env=one.environment, start_new_session=True))
        (one.folder / "tmp" / "diffatlas-left").mkdir()
        raise RoundFailed("as it may")

    monkeypatch.setattr(kit, "GONE_SECONDS", 0.5)
    monkeypatch.setitem(FAULTS, "breaks", Fault("breaks", breaks))
    try:
        found = carry_out("breaks", tmp_path / "round", "http://127.0.0.1:9/api", tmp_path, contents(), 0)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert found.wrong.startswith("RoundFailed: as it may")
    assert found.lost is None
    assert found.left == {"processes": 1, "ports": 0, "locks": 0, "folders": 1}
