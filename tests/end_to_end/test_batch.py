"""A file that names studies, run by the real command: one store, one table, and no failure that
stops the others.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.results import open_results

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Command

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

ROOT = Path(__file__).resolve().parents[2]

STUDY = """
name: {name}
datasets: [uniform]
formulations: [{formulation}]
seeds: 1
training: {{steps: {steps}, batch: 16, width: 8, depth: 1, data: 100}}
samplers: ["{sampler}"]
steps: [2]
samples: 60
metrics: [w1]
"""

RAISING = '''
from dataclasses import dataclass
from typing import ClassVar

from diffusion.samplers import Sampler


@dataclass(frozen=True)
class Raising(Sampler):
    """Never ends a step."""

    order: ClassVar[int] = 1

    def step(self, denoiser, x, now, then, noise):
        raise ArithmeticError("not today")
'''


def test_every_study_of_a_list_is_run_and_the_worst_decides_the_exit_code(diffatlas: Command) -> None:
    folder = diffatlas.folder
    (folder / "raising.py").write_text(RAISING)
    for name, formulation, sampler in (
        ("first", "edm", "raising:Raising"),
        ("second", "edm", "heun"),
        ("third", "ddpm", "ancestral"),
    ):
        text = STUDY.format(name=name, formulation=formulation, sampler=sampler, steps=20)
        (folder / f"{name}.yaml").write_text(text)
    (folder / "all.yaml").write_text("name: all\nstudies: [first.yaml, second.yaml, third.yaml]\n")
    result = diffatlas("run", "all.yaml", code=1, PYTHONPATH=f"{folder}{os.pathsep}{ROOT}")
    assert "all: 3 studies" in result.stdout
    assert "not today" in result.stderr
    for name, status in (("first", "failed"), ("second", "ok"), ("third", "ok")):
        points = open_results(str(folder / "results"), name)
        assert set(points["status"].values.tolist()) == {status}
        assert points.sizes["point"] == 2  # the trained and the exact one
        assert (folder / "reports" / f"{name}.html").is_file()

    (folder / "all.yaml").write_text("name: all\nstudies: [second.yaml, third.yaml]\n")
    again = diffatlas("run", "all.yaml", PREFECT_API_URL="http://127.0.0.1:9/api")  # nothing to orchestrate: not asked
    assert again.stdout.count("finished, nothing") == 2
    changed = diffatlas("run", "all.yaml", "--set", "steps=[2,3]")
    assert changed.stderr.count("2 points computed, 0 cells trained") == 2
