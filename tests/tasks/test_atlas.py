"""The answers that ship: they are those of the studies as they are now, they are small, they are read
and never written, and computing some again gives the same.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder

from deployments.atlas import STUDIES, TARGET
from diffusion.metrics import BaseMetric
from flows.command_line import app
from tasks.plan import Shard, make_plan
from tasks.results import Answers, open_results
from tasks.results.provenance import cpu_capability
from tasks.results.shipping import ship
from tasks.results.stored import plan_against
from tasks.store import Store, StoreUnavailable
from tasks.study import load_study
from tasks.work import PointAnswer, Requests, data_key, sweep_shard, training_set
from tests.tasks.in_one_process import run_shard
from tests.tasks.store_kit import ROOT
from tests.tasks.tiny_store import SPEC, answer

ATLAS = "atlas:"
MOST_BYTES = 3_000_000
SMALL = ("smoke", "reference")
AGAIN = (*SMALL, "uniform", "action-matching", "torus")  # of the others one exact row takes a minute, or there is none


def test_they_are_the_studies_that_are_said_to_ship_and_small() -> None:
    assert sorted(Answers(Store.open(ATLAS)).studies) == sorted(STUDIES)
    assert sum(path.stat().st_size for path in TARGET.rglob("*") if path.is_file()) <= MOST_BYTES


def test_the_wheel_holds_them_and_they_answer_from_it(tmp_path: Path) -> None:
    """Built as it is published, unpacked elsewhere, and asked there."""
    builder = WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(tmp_path / "wheels"), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    installed = tmp_path / "installed" / "deployments" / "atlas"
    files = {path.relative_to(TARGET) for path in TARGET.rglob("*") if path.is_file()}
    assert {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()} == files
    assert all((installed / name).read_bytes() == (TARGET / name).read_bytes() for name in files)
    asked = ["query", "--store", ATLAS, "--study", "smoke", "--by", "formulation", "--format", "csv"]
    done = subprocess.run(
        [sys.executable, "-m", "flows", *asked],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed"), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) > 2


def test_the_guide_names_what_ships_and_what_does_not() -> None:
    known = {path.stem for path in (ROOT / "deployments" / "studies").glob("*.yaml")}
    text = (ROOT / "docs" / "query.md").read_text(encoding="utf-8")
    ships, others = (re.search(start + r".*?\n\n", text, re.DOTALL) for start in ("can ask `atlas:`", "Not in it are"))
    assert ships
    assert others
    named = [set(re.findall(r"`([\w-]+)`", found[0])) & known for found in (ships, others)]
    assert named[0] == set(STUDIES)
    assert named[1] == known - set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_every_point_of_a_study_as_it_is_now_has_its_answer(name: str) -> None:
    """Whoever raises a version makes them again: python deployments/atlas.py."""
    rows_alone = load_study(name, ["keep.samples=false", "keep.trajectories=[]"])
    plan = plan_against(Store.open(ATLAS), rows_alone)
    assert (plan.reasons, plan.failed, plan.unrecorded) == ({}, frozenset(), frozenset())
    assert Answers(Store.open(ATLAS), name).study == load_study(name).spec()
    found = open_results(ATLAS, name)
    assert found.sizes["point"] == len(plan.points)
    assert {"torch", "python", "host", "device"} <= found.attrs.keys()
    assert not {"user", "flow_run"} & found.attrs.keys()
    answers = Answers(Store.open(ATLAS), name)
    assert answers.trained() == set()
    assert answers.samples(str(found["point_id"].values[0])) is None


def least(name: str, *, exact: bool) -> tuple[Shard, tuple[BaseMetric, ...]]:
    """The cell of a study with the least work, with its least points, and what is measured."""
    study = load_study(name)
    plan = make_plan(study, {}, ())
    jobs = [job for job in plan.jobs if job.cell.exact == exact]
    job = min(jobs, key=lambda job: job.work())
    some = tuple(sorted(job.points, key=lambda point: point.work())[: 4 if name in SMALL else 1])
    cheap = tuple(metric for metric in study.metrics if metric.registered_name != "nll" or name in SMALL)
    return Shard((dataclasses.replace(job, points=some),)), cheap


def held_to_what_ships(
    name: str, answers: Sequence[PointAnswer], metrics: Sequence[BaseMetric], *, exact: bool
) -> None:
    """To the last bit where torch and the processor's instructions are those that computed them;
    elsewhere to rounding, which a training enlarges.
    """
    shipped = open_results(ATLAS, name).set_xindex("point_id")
    here = {"torch": version("torch"), "cpu_capability": cpu_capability()}
    same = all(shipped.attrs.get(key) == value for key, value in here.items())
    assert answers
    for one in answers:
        assert one.error is None
        row = shipped.sel(point_id=one.point.id)
        assert one.nfe == int(row["nfe"])
        found = {metric.column: one.metrics[metric.column] for metric in metrics if metric.column in one.metrics}
        assert found
        stored = {column: float(row[column]) for column in found}
        if same:
            assert found == stored
        else:
            assert found == pytest.approx(stored, rel=1e-6 if exact else 1e-2, abs=1e-9)


@pytest.mark.parametrize("name", AGAIN)
def test_exact_rows_computed_again_are_those_that_ship(name: str) -> None:
    shard, metrics = least(name, exact=True)
    answers = sweep_shard(shard, {}, Requests(metrics, False, frozenset())).points
    held_to_what_ships(name, answers, metrics, exact=True)


def test_a_network_trained_again_gives_the_rows_that_ship() -> None:
    shard, metrics = least("smoke", exact=False)
    sets = {data_key(job.cell): training_set(job.cell) for job in shard.jobs}
    answers = run_shard(shard, sets, {}, Requests(metrics, False, frozenset())).points
    held_to_what_ships("smoke", answers, metrics, exact=False)


def test_whoever_would_write_is_told_how_to_have_a_store_of_their_own(tmp_path: Path) -> None:
    store = Store.open(ATLAS)
    before = store.snapshot()
    for write in (lambda: store.tag("mine"), lambda: store.untag("mine"), store.coordinate().__enter__):
        with pytest.raises(StoreUnavailable, match=r"only read; copy them .*diffatlas backup atlas: FOLDER"):
            write()
    with pytest.raises(StoreUnavailable, match="only read"):
        Store.create(ATLAS)
    command = [sys.executable, "-m", "flows", "backup", ATLAS, str(tmp_path / "own"), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["snapshot"] == before
    with Store.open(str(tmp_path / "own")).coordinate() as coordinator:
        assert coordinator.before is None
    assert sorted(path.name for path in TARGET.parent.glob(f"{TARGET.name}*")) == ["atlas", "atlas.py"]


@pytest.mark.parametrize("command", ["run", "grow"])
def test_a_run_is_refused_before_anything_is_started(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app([command, "smoke", "--store", ATLAS])
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert "store atlas: holds answers that came with diffatlas and are only read" in " ".join(said.split())
    assert "getting Prefect and Ray ready" not in said


def test_the_command_answers_without_a_store_of_ones_own(tmp_path: Path) -> None:
    asked = ["query", "--store", ATLAS, "--study", "smoke", "--by", "formulation", "--metric", "w1", "--format", "csv"]
    done = subprocess.run(
        [sys.executable, "-m", "flows", *asked],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("formulation,")
    assert len(done.stdout.splitlines()) > 2
    assert not (tmp_path / "results").exists()


def test_what_is_shipped_are_the_rows_and_nothing_that_is_large(tmp_path: Path) -> None:
    uri, target = str(tmp_path / "all"), str(tmp_path / "rows")
    answer(uri)
    ship(Store.open(uri), Store.create(target), ["tiny"])
    given, taken = (open_results(one, "tiny") for one in (uri, target))
    assert given.drop_attrs().identical(taken.drop_attrs())
    here, there = (Answers(Store.open(one), "tiny") for one in (uri, target))
    assert here.losses().identical(there.losses())
    assert here.study == there.study
    point = str(given["point_id"].values[0])
    assert here.samples(point) is not None
    assert there.samples(point) is None
    assert there.trained() == set()
    assert np.isfinite(taken["w1"]).all()


def test_a_study_that_lacks_answers_is_not_shipped(tmp_path: Path) -> None:
    uri = str(tmp_path / "all")
    answer(uri, {**SPEC, "training": {**SPEC["training"], "learning_rate": 1e12}})
    with pytest.raises(ValueError, match="have no answer in"):
        ship(Store.open(uri), Store.create(str(tmp_path / "rows")), ["tiny"])


def test_a_figure_that_needs_samples_names_a_command_that_is_not_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["figure", "torus", "--store", ATLAS])
    assert ended.value.code == 2
    assert "diffatlas run documents/slides-torus computes it" in " ".join(capsys.readouterr().err.split())
