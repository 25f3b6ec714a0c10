"""`diffatlas grow` by the real command: a look whose points are there, one that is run, and a second
command that computes nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

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
    first = diffatlas(*asked, "--workers", "1", "--json")
    found = json.loads(first.stdout)
    assert [look["seeds"] for look in found["looks"]] == [5, 6]  # euler and ddim are the same here
    again = diffatlas(*asked, "--json", PREFECT_API_URL="http://127.0.0.1:9/api")  # nothing to run: not asked
    assert json.loads(again.stdout) == found
    assert "points computed" not in again.stderr
    table = diffatlas(*asked)
    assert "rivals are open" in table.stdout
    assert "question" in diffatlas("grow", "growing.yaml", "--until", "heun?", code=2).stderr
