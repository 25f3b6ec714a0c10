"""`diffatlas grow` by the real command: a look whose points are there, one that is run, and a second
command that computes nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tasks.results.stored import looks_recorded
from tasks.store import Store

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Command

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

STUDY = """
name: growing
datasets: [uniform]
formulations: [edm]
seeds: 2
training: {steps: 10, batch: 16, width: 8, depth: 1, data: 50}
samplers: [euler, heun, ddim]
steps: [3]
samples: 100
metrics: [w1]
"""


def test_a_study_grows_by_looks_and_the_same_command_again_computes_nothing(diffatlas: Command) -> None:
    (diffatlas.folder / "growing.yaml").write_text(STUDY)
    diffatlas.answer_here("growing.yaml", "results", "seeds=5")
    asked = ("grow", "growing.yaml", "--until", "best(sampler) at nfe<=20", "--max-seeds", "6", "--margin", "0")
    first = diffatlas(*asked, "--workers", "1")
    assert "1 rival is undecided" in first.stdout  # euler and ddim are the same here
    assert "looks at 5, 6 seeds; margin 0" in first.stderr
    assert "3 of 4 rivals decided" in first.stderr
    assert first.stderr.count("points computed") == 1
    store = Store.open(str(diffatlas.folder / "results"))
    recorded = [json.loads(text) for text in looks_recorded(store, "growing")]
    assert [look["seeds"] for look in recorded] == [5, 6]
    again = diffatlas(*asked, "--json", PREFECT_API_URL="http://127.0.0.1:9/api")  # nothing to run: not asked
    assert "points computed" not in again.stderr
    found = json.loads(again.stdout)
    assert [look["verdicts"] for look in found["looks"]] == [look["verdicts"] for look in recorded]
    assert not found["decided"]
    assert len(looks_recorded(store, "growing")) == 2
    assert "question" in diffatlas("grow", "growing.yaml", "--until", "heun?", code=2).stderr
    refused = diffatlas("grow", "growing.yaml", "--until", "best(smapler)", code=2).stderr
    assert "did you mean 'sampler'" in refused
    assert "looks at" not in refused
