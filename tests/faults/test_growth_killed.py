"""A growth that is killed in the middle, again and again, decides what an undisturbed one decides:
seeds that are added, and step counts.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import tasks.failpoints
from flows.growing import design_of, grown
from flows.refining import refined
from flows.request import RunRequest
from tasks.query.growing import read_question
from tasks.results.stored import looks_recorded
from tasks.statistics.sequential import Margin
from tasks.store import Store
from tasks.study import load_study
from tests.faults.scenarios import in_a_process
from tests.tasks.tiny_store import answer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults-killed")]

STUDY = """
name: growing
datasets: [uniform]
formulations: [edm]
seeds: 5
training: {steps: 10, batch: 16, width: 8, depth: 1, data: 50}
samplers: [euler, heun]
steps: [3, 24]
samples: 100
metrics: [w1]
"""
PLACES = ("commit.before:2", "commit.after:2", "sweep.end", "train.middle", "commit.before:3")


def _request(folder: Path, store: str) -> RunRequest:
    (folder / "growing.yaml").write_text(STUDY)
    return RunRequest(str(folder / "growing.yaml"), str(folder / store))


def _run(request: RunRequest) -> None:
    """What a run does, with its commits and failpoints, in this process."""
    answer(request.store, load_study(request.study, request.overrides).spec())


def seeds_added(folder: Path, store: str, failpoint: str = "") -> None:
    os.environ[tasks.failpoints.VARIABLE] = failpoint
    question = read_question("best(sampler)", ("formulation",))
    growth = grown(_request(folder, store), question, design_of(Margin(0.0), 10), _run)
    (folder / f"{store}.json").write_text(json.dumps([look.value() for look in growth.looks]))


def steps_added(folder: Path, store: str, failpoint: str = "") -> None:
    os.environ[tasks.failpoints.VARIABLE] = failpoint
    growth = refined(_request(folder, store), None, 3, _run)
    (folder / f"{store}.json").write_text(json.dumps([look.value() for look in growth.looks]))


@pytest.mark.parametrize("grow", [seeds_added, steps_added])
def test_killed_at_every_turn_it_decides_what_it_would_have_decided(grow: Callable[..., None], tmp_path: Path) -> None:
    assert in_a_process(grow, tmp_path, "whole") == 0
    decided = json.loads((tmp_path / "whole.json").read_text())
    assert len(decided) > 1  # something is computed between looks
    ended, recorded = [], set()
    for place in itertools.cycle(PLACES):
        ended.append(in_a_process(grow, tmp_path, "killed", place))
        if Store.exists(str(tmp_path / "killed")):
            recorded.add(len(looks_recorded(Store.open(str(tmp_path / "killed")), "growing")))
        if ended[-1] != -signal.SIGKILL:
            break
        assert len(ended) < 30
    assert ended[-1] == 0
    assert len(ended) > 3  # three kills and more
    assert len(recorded) > 1  # killed before a look, and after one
    assert json.loads((tmp_path / "killed.json").read_text()) == decided
    stores = [Store.open(str(tmp_path / name)) for name in ("whole", "killed")]
    assert looks_recorded(stores[0], "growing") == looks_recorded(stores[1], "growing")
    snapshot = stores[1].snapshot()
    assert in_a_process(grow, tmp_path, "killed", "commit.before") == 0  # nothing is left to commit
    assert Store.open(str(tmp_path / "killed")).snapshot() == snapshot
