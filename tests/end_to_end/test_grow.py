"""`diffatlas grow` by the real command: a look whose points are there, one that is run, and a second
command that computes nothing.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from diffusion import plugins
from flows.growing import design_of, grown
from flows.refining import refined
from flows.request import RunRequest
from tasks.query.growing import read_question
from tasks.results.stored import looks_recorded
from tasks.statistics.sequential import Margin
from tasks.store import Store
from tasks.study import load_study
from tests.tasks.tiny_store import answer

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


OWN = """
from dataclasses import dataclass
from diffusion.samplers import Sampler

@dataclass(frozen=True)
class Halved(Sampler):
    order = 1

    def step(self, denoiser, x, now, then, noise):
        return x / 2
"""


def test_a_study_grows_by_looks_and_the_same_command_again_computes_nothing(
    diffatlas: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two workers, to the decisions of one process; and what changed in a module of one's own since
    the points that are there were computed is told.
    """
    monkeypatch.setenv(plugins.VARIABLE, "a_rule_that_grows")
    monkeypatch.syspath_prepend(diffatlas.folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(diffatlas.folder), os.environ.get("PYTHONPATH", "")]))
    module = diffatlas.folder / "a_rule_that_grows.py"
    module.write_text(OWN)
    study = STUDY.replace("heun, ddim", "heun, ddim, 'a_rule_that_grows:Halved'")
    (diffatlas.folder / "growing.yaml").write_text(study)
    diffatlas.answer_here("growing.yaml", "results", "seeds=5")
    module.write_text(OWN + "\n# changed\n")
    asked = ("grow", "growing.yaml", "--until", "best(sampler) at nfe<=20", "--max-seeds", "6", "--margin", "0")
    first = diffatlas(*asked, "--workers", "2")
    told = " ".join(first.stderr.split())
    assert "the source of a_rule_that_grows is another one than that which 10 of the 40 done points" in told
    assert "1 rival is undecided" in first.stdout  # euler and ddim are the same here
    assert "looks at 5, 6 seeds; margin 0" in first.stderr
    assert "5 of 6 rivals decided" in first.stderr
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

    def answered(request: RunRequest) -> None:
        answer(request.store, load_study(request.study, request.overrides).spec())

    here = grown(
        RunRequest(str(diffatlas.folder / "growing.yaml"), str(diffatlas.folder / "one")),
        read_question("best(sampler) at nfe<=20"),
        design_of(Margin(0.0), 6),
        answered,
    )
    assert found["looks"] == json.loads(json.dumps([look.value() for look in here.looks]))
    assert "question" in diffatlas("grow", "growing.yaml", "--until", "heun?", code=2).stderr
    refused = diffatlas("grow", "growing.yaml", "--until", "best(smapler)", code=2).stderr
    assert "did you mean 'sampler'" in refused
    assert "looks at" not in refused


def test_steps_are_refined_the_same_by_two_workers_and_a_second_command_computes_nothing(diffatlas: Command) -> None:
    changes = ("seeds=5", "steps=[1, 5, 20]", "samplers=[euler, heun]")
    (diffatlas.folder / "growing.yaml").write_text(STUDY)
    set_to = [word for change in changes for word in ("--set", change)]
    asked = ("grow", "growing.yaml", *set_to, "--steps-until", "floor", "--max-looks", "2")
    first = diffatlas(*asked, "--workers", "2")
    assert "w1 at 8 pairs of neighbouring step counts, in at most 2 looks" in first.stderr
    assert "look 1: 8 pairs of neighbours, " in first.stderr
    assert "after 2 looks; level 5 % over all looks and groups" in " ".join(first.stdout.split())
    again = diffatlas(*asked, "--json", PREFECT_API_URL="http://127.0.0.1:9/api")  # nothing to run: not asked
    assert "points computed" not in again.stderr
    found = json.loads(again.stdout)

    def answered(request: RunRequest) -> None:
        answer(str(diffatlas.folder / "one"), load_study(request.study, request.overrides).spec())

    here = refined(
        RunRequest(str(diffatlas.folder / "growing.yaml"), str(diffatlas.folder / "one"), changes), None, 2, answered
    )
    assert [look["pairs"] for look in found["looks"]] == [look.value()["pairs"] for look in here.looks]
    assert found["groups"] == json.loads(json.dumps(here.groups))
    assert any(row["middle"] for row in found["looks"][0]["pairs"])
    wrong = diffatlas("grow", "growing.yaml", "--steps-until", "floor", "--until", "best(sampler)", code=2).stderr
    assert "--until belongs to seeds that are added" in wrong
