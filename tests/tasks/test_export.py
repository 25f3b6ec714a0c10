"""Exports open with what others have, hold everything, and are whole or not there."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tasks.results import Answers
from tasks.results import export as module
from tasks.results.export import WRITERS, ExportError, export
from tasks.store import Rows, Store
from tests.tasks.golden_stores import unpacked
from tests.tasks.store_kit import kept_samples
from tests.tasks.tiny_store import SPEC, answer

_SUFFIX = {"zarr": "zarr", "netcdf": "nc", "parquet": "parquet"}
_OPEN = {
    "zarr": "xarray.open_zarr(path)",
    "netcdf": "xarray.open_dataset(path)",
    "parquet": "pandas.read_parquet(path)",
}
_ELSEWHERE = """
import sys, warnings
for name in ("icechunk", "tasks", "diffusion", "flows", "torch"):
    sys.modules[name] = None  # importing it is an ImportError
warnings.simplefilter("error")
import json, pandas, xarray
path = sys.argv[1]
found = {}
print(json.dumps([len(found["w1"]), float(found["w1"].sum()), str(found["sampler"].values[1]), found.attrs["snapshot"]]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    uri = str(tmp_path_factory.mktemp("export") / "store")
    answer(uri)
    answer(uri, SPEC | {"name": "short", "samples": 30, "formulations": ["exact"], "metrics": ["w1"]})
    return Answers(Store.open(uri))


@pytest.fixture
def study(answers: Answers) -> Answers:
    return Answers(answers._store, "tiny")


def read(form: str, path: Path) -> xr.Dataset:
    if form == "parquet":
        frame = pd.read_parquet(path)
        return xr.Dataset({name: ("point", frame[name].to_numpy()) for name in frame}, attrs=frame.attrs)
    return (xr.open_zarr(path) if form == "zarr" else xr.open_dataset(path, engine="h5netcdf")).load()


@pytest.mark.parametrize("form", WRITERS)
def test_an_export_opens_without_this_package_and_without_warnings(answers: Answers, tmp_path: Path, form: str) -> None:
    path = export(answers, form, tmp_path / f"points.{_SUFFIX[form]}", samples=form != "parquet")
    program = _ELSEWHERE.format(_OPEN[form])
    done = subprocess.run(
        [sys.executable, "-c", program, path], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    points = answers.points
    w1, first = float(points["w1"].sum()), str(points["sampler"].values[1])
    assert json.loads(done.stdout) == [points.sizes["point"], pytest.approx(w1), first, points.attrs["snapshot"]]


@pytest.mark.parametrize("form", WRITERS)
def test_every_column_comes_back_bit_for_bit_with_the_provenance_and_the_study(
    study: Answers, tmp_path: Path, form: str
) -> None:
    points, found = study.points, read(form, export(study, form, tmp_path / "points"))
    assert set(found.variables) == set(points.variables)
    for name in points.variables:
        expected, got = points[name].values, found[name].values
        if expected.dtype.kind in "OUT":
            assert got.tolist() == expected.tolist(), name
        else:
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected, err_msg=name)
    assert {key: found.attrs[key] for key in points.attrs} == points.attrs
    assert json.loads(found.attrs["spec"]) == study.study
    assert json.loads(found.attrs["studies"]) == ["short", "tiny"]
    if form != "parquet":
        assert set(found.coords) == set(points.coords)


@pytest.mark.parametrize("form", WRITERS)
def test_guidance_schedules_and_what_is_known_of_metrics_are_exported(tmp_path: Path, form: str) -> None:
    answers = Answers(Store.open(unpacked("run-3", tmp_path)), "run")
    found = read(form, export(answers, form, tmp_path / "points"))
    for name in ("guidance", "sampling_schedule", "process"):
        assert found[name].values.tolist() == answers.points[name].values.tolist()
    assert {"class-label(weight=2.0)", ""} <= set(found["guidance"].values.tolist())
    if form != "parquet":
        result = {
            name: (found[name].attrs["of"], found[name].attrs["better"]) for name in ("score-error", "gone_parts:Hits")
        }
        assert result == {"score-error": ("models", "lower"), "gone_parts:Hits": ("samples", "higher")}


@pytest.mark.parametrize("form", ["zarr", "netcdf"])
def test_kept_samples_come_in_one_group_per_shape_with_the_ids_of_their_points(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 3 * 4 * 400)  # three points at once: several blocks, the last one short
    path = export(answers, form, tmp_path / "points", samples=True)
    seen = 0
    for shape in ("400x1", "30x1"):
        group = f"samples/{shape}"
        found = (xr.open_zarr(path, group=group) if form == "zarr" else xr.open_dataset(path, group=group)).load()
        assert found["samples"].dims == ("kept", "sample", "coordinate")
        assert "point_id" in found["samples"].coords
        for i, point_id in enumerate(found["point_id"].values.tolist()):
            np.testing.assert_array_equal(found["samples"].values[i], kept_samples(answers, point_id).values)
        seen += found.sizes["kept"]
    assert seen == answers.points.sizes["point"]


def test_samples_of_a_study_are_its_own(study: Answers, tmp_path: Path) -> None:
    path = export(study, "zarr", tmp_path / "points", samples=True)
    assert sorted(entry.name for entry in (path / "samples").iterdir() if entry.is_dir()) == ["400x1"]


def test_parquet_refuses_samples_and_says_what_takes_them(answers: Answers, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="export them as zarr or netcdf"):
        export(answers, "parquet", tmp_path / "points", samples=True)
    with pytest.raises(ExportError, match="there are: zarr, netcdf, parquet"):
        export(answers, "xlsx", tmp_path / "points")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", WRITERS)
def test_an_earlier_export_is_replaced_only_if_asked_for(
    answers: Answers, study: Answers, tmp_path: Path, form: str
) -> None:
    path = export(answers, form, tmp_path / "new" / "points")
    with pytest.raises(ExportError, match="--overwrite"):
        export(study, form, path)
    assert read(form, path).sizes["point"] == answers.points.sizes["point"]
    export(study, form, path, overwrite=True)
    assert read(form, path).sizes["point"] == study.points.sizes["point"]
    assert [entry.name for entry in path.parent.iterdir()] == ["points"]


@pytest.mark.parametrize("form", WRITERS)
def test_what_no_export_made_is_never_replaced(answers: Answers, tmp_path: Path, form: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="choose another path"):
        export(answers, form, tmp_path / "folder", overwrite=True)
    with pytest.raises(ExportError, match="choose another path"):
        export(answers, form, answers._store.uri, overwrite=True)
    (tmp_path / "file").write_text("mine")
    if form == "zarr":
        with pytest.raises(ExportError, match="is no earlier export"):
            export(answers, form, tmp_path / "file", overwrite=True)
    with pytest.raises(ExportError, match="expected a name"):
        export(answers, form, "/")
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("there", [False, True])
def test_an_export_that_fails_leaves_nothing_or_what_was_there(
    answers: Answers, tmp_path: Path, form: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "points"
    if there:
        export(answers, form, path)
    before = read(form, path) if there else None

    write = WRITERS[form]

    def full(points: xr.Dataset, partial: Path) -> None:
        write(points, partial)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "WRITERS", {**WRITERS, form: full})
    with pytest.raises(OSError, match="No space left"):
        export(answers, form, path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == (["points"] if there else [])
    if before is not None:
        assert read(form, path).equals(before)


def test_a_rename_that_fails_puts_the_earlier_export_back(
    answers: Answers, study: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export(answers, "zarr", tmp_path / "points")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target == path and self.name == "points":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        export(study, "zarr", path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["points"]
    assert read("zarr", path).sizes["point"] == answers.points.sizes["point"]


def test_a_killed_export_leaves_nothing_at_its_path_and_the_next_one_goes_through(
    answers: Answers, tmp_path: Path
) -> None:
    program = (
        "import sys; from tasks.results.export import export; from tasks.results import Answers; from tasks.store import Store\n"
        "export(Answers(Store.open(sys.argv[1])), 'zarr', sys.argv[2])"
    )
    path = tmp_path / "points.zarr"
    command = [sys.executable, "-c", program, answers._store.uri, str(path)]
    killed = subprocess.run(command, env={**os.environ, "DIFFATLAS_FAILPOINT": "export"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert read("zarr", export(answers, "zarr", path)).sizes["point"] == answers.points.sizes["point"]


@pytest.mark.parametrize("form", WRITERS)
def test_a_store_without_points_exports_as_none(tmp_path: Path, form: str) -> None:
    empty = Answers(Store.create(str(tmp_path / "store")))
    found = read(form, export(empty, form, tmp_path / "points", samples=form != "parquet"))
    assert found["point_id"].values.tolist() == []
    assert "steps" in found.variables


@pytest.mark.parametrize("form", WRITERS)
def test_errors_in_any_script_and_names_of_metrics_with_parameters_come_through(tmp_path: Path, form: str) -> None:
    store = Store.create(str(tmp_path / "store"))
    metric = "sliced-w2(projections=64;points=100)"
    rows = [
        {"point_id": f"{i:020d}", "status": "failed", "error": text, metric: 0.5, f"{metric}_floor": 0.1}
        for i, text in enumerate(["", "Größe ≠ 3\n\tσ", "x" * 5000])
    ]
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=rows), "three", {})
    found = read(form, export(Answers(store), form, tmp_path / "points"))
    assert found["error"].values.tolist() == [row["error"] for row in rows]
    assert found[metric].values.tolist() == [0.5] * 3
