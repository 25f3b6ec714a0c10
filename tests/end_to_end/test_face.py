"""`diffatlas.run` against real services: what the command does, from Python."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Command

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

STUDY = """
name: tiny
datasets: [uniform]
formulations: [edm]
seeds: 1
training: {steps: 20, batch: 16, width: 8, depth: 1, data: 100}
samplers: [heun]
steps: [2]
samples: 60
metrics: [w1]
"""

RUN = """
import json, sys
import diffatlas as da
study = da.load_study("tiny.yaml")
points = da.run(study if sys.argv[1] == "loaded" else "tiny.yaml", "results", json.loads(sys.argv[2]), workers=1)
assert da.plan("tiny.yaml", "results", json.loads(sys.argv[2])).missing == 0
print(json.dumps([points.sizes["point"], sorted(set(points["status"].values)), "ray" in sys.modules, points.attrs["snapshot"]]))
"""


SLEEPY = """
import time
from dataclasses import dataclass
import diffatlas as da

@dataclass(frozen=True)
class Sleepy(da.Sampler):
    def step(self, denoiser, x, now, then, noise):
        time.sleep(1000)
"""

LIMITED = f"""
import json
from pathlib import Path
import diffatlas as da
Path("sleepy.py").write_text({SLEEPY!r})
changes = ["samplers=[heun, 'sleepy:Sleepy']", "formulations=[exact]", "name=limited"]
points = da.run("tiny.yaml", "results", changes, workers=1, shard_limit=0.1)
told = zip(points["sampler"].values, points["error"].values)
print(json.dumps({{sampler: error.partition("(")[2][:16] for sampler, error in told}}))
"""


def test_a_study_is_run_and_grown_from_python_and_the_command_finds_nothing_left(diffatlas: Command) -> None:
    (diffatlas.folder / "tiny.yaml").write_text(STUDY)

    def run(kind: str, overrides: list[str]) -> tuple[int, list[str], bool, str]:
        out, _ = diffatlas.python(RUN, kind, json.dumps(overrides))
        points, status, with_ray, snapshot = json.loads(out.splitlines()[-1])
        return points, status, with_ray, snapshot

    first = run("loaded", [])
    assert first[:3] == (2, ["ok"], True)
    assert run("loaded", []) == (2, ["ok"], False, first[3])  # a finished study starts nothing
    assert run("named", ["steps=[2, 4]"])[:3] == (4, ["ok"], True)
    assert "nothing to compute" in diffatlas("run", "tiny.yaml", "--set", "steps=[2, 4]").stderr
    assert (diffatlas.folder / "reports" / "tiny.html").exists()
    out, _ = diffatlas.python(LIMITED, PYTHONPATH=f"{diffatlas.folder}:{os.environ.get('PYTHONPATH', '')}")
    assert json.loads(out.splitlines()[-1]) == {"heun": "", "sleepy:Sleepy": "no answer within"}
