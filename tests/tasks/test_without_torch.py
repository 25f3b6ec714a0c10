"""What reads stored numbers waits for no library that computes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tasks.golden_stores import unpacked
from tests.tasks.store_kit import python

_COMMAND = """
import sys
from flows.command_line import app
app(sys.argv[1:], standalone_mode=False)
found = {"torch", "prefect", "ray"} & sys.modules.keys()
assert not found, found
"""


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (["--by", "guidance,sampling_schedule", "--metric", "energy"], "vp-linear"),
        (["--by", "sampler", "--metric", "gone_parts:Hits", "--stat", "best,count"], "gone_parts:Hits_best"),
        (["--best", "sampling_schedule", "--by", "dataset", "--metric", "energy"], "behind"),
        (["--pareto", "energy,nfe", "--by", "dataset"], "energy_mean"),
        (["--where", "process == 'forward' and status == 'ok'"], "forward-chain"),
    ],
)
def test_questions_to_a_study_do_without(tmp_path: Path, question: list[str], expected: str) -> None:
    uri = unpacked("run-3", tmp_path)
    with python(_COMMAND, "query", "--store", uri, "--study", "run", *question) as requested:
        out, err = requested.communicate()
    assert requested.returncode == 0, err
    assert expected in out


@pytest.mark.parametrize("form", ["zarr", "netcdf", "parquet"])
def test_exports_do_without(tmp_path: Path, form: str) -> None:
    uri = unpacked("run-3", tmp_path)
    out = str(tmp_path / "points")
    with python(_COMMAND, "export", "--store", uri, "--study", "run", "--format", form, "--out", out) as requested:
        _, err = requested.communicate()
    assert requested.returncode == 0, err


def test_comparing_a_store_with_itself_does_without(tmp_path: Path) -> None:
    code = """
import sys
from tasks.compare import compare, summary
from tasks.results import open_results
points = open_results(sys.argv[1], "run")
print(summary(compare(points, points, by=("guidance", "sampling_schedule"))))
assert "torch" not in sys.modules
"""
    with python(code, unpacked("run-3", tmp_path)) as requested:
        out, err = requested.communicate()
    assert requested.returncode == 0, err
    assert "all are the same to the last bit" in out
