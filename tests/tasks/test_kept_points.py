"""Arrays that a study is given: kept under their digest, never trusted by their name, found again
wherever the study is opened.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion.datasets import datasets
from tasks.data.from_file import FromFile
from tasks.models import CannotBeMade, cell_of
from tasks.plan import make_plan
from tasks.results.models import open_model
from tasks.study import Study, StudyError
from tasks.study.components import build
from tests.tasks import tiny_store

POINTS = np.random.default_rng(3).normal(size=(50, 2))
SPEC: dict[str, Any] = {
    "name": "kept",
    "datasets": [POINTS],
    "formulations": ["exact"],
    "samplers": ["euler"],
    "steps": [2],
    "samples": 20,
    "metrics": ["energy"],
}


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that they are kept in."""
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "points"


def target_of(study: Study) -> FromFile:
    (found,) = study.blocks()[0].datasets
    assert isinstance(found, FromFile)
    return found


def test_a_kept_file_that_was_changed_or_cut_off_is_written_again(kept: Path) -> None:
    study = Study.from_spec(SPEC)
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    other = POINTS.copy()
    other[7, 1] += 1e-9
    for damage in (lambda: np.save(file, other), lambda: file.write_bytes(whole[:-100]), lambda: file.write_bytes(b"")):
        damage()
        assert torch.equal(target_of(Study.from_spec(SPEC)).points, torch.from_numpy(POINTS))
        assert Study.from_spec(SPEC) == study
        assert file.read_bytes() == whole
    assert [one.name for one in kept.iterdir()] == [file.name]


def test_a_study_says_which_points_it_means_and_refuses_others_of_the_same_name(kept: Path) -> None:
    study = Study.from_spec(SPEC)
    (file,) = kept.iterdir()
    (entry,) = study.spec()["datasets"]
    assert entry["digest"] == target_of(study).digest
    assert file.name == f"points-{entry['digest'][:16]}.npy"
    np.save(file, POINTS + 1)
    with pytest.raises(StudyError, match="has changed since"):
        Study.from_spec(study.spec())


def test_a_stored_study_finds_its_points_in_another_cache_folder_once_they_are_given_there(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan, its ids, and the target of a cell that is made again from what a store holds."""
    first = tiny_store.answer(str(tmp_path / "store"), SPEC)
    spec = first.study.spec()
    held = {**first.points[0].cell.spec, "dataset": first.points[0].cell.dataset.spec()}
    shutil.rmtree(kept)
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(
        StudyError,
        match=r"from_file: '.*points-\w{16}\.npy' cannot be read: .* \(a study was given it as an array: give",
    ):
        Study.from_spec(spec)
    given = Study.from_spec({**SPEC, "name": "another"})
    assert str(tmp_path / "elsewhere") in target_of(given).path
    again = Study.from_spec(spec)
    assert again == first.study
    assert torch.equal(target_of(again).points, torch.from_numpy(POINTS))
    assert [p.id for p in make_plan(again, {}, ()).points] == [p.id for p in first.points]
    assert cell_of(held).id == first.points[0].cell.id
    assert tiny_store.answer(str(tmp_path / "store"), spec).jobs == ()


def test_what_lies_under_the_digest_is_read_only_if_it_has_it(tmp_path: Path, kept: Path) -> None:
    np.save(tmp_path / "own.npy", POINTS)
    target = FromFile(str(tmp_path / "own.npy"))
    (tmp_path / "own.npy").unlink()
    kept.mkdir(parents=True)
    np.save(kept / f"points-{target.digest[:16]}.npy", POINTS[:10])
    with pytest.raises(ValueError, match=r"own\.npy' cannot be read"):
        build(datasets, target.spec())
    np.save(kept / f"points-{target.digest[:16]}.npy", POINTS)
    assert build(datasets, target.spec()) == target


def test_a_stored_cell_of_an_array_is_a_model_again_once_the_array_is_given_again(tmp_path: Path, kept: Path) -> None:
    """A cell has the digest alone, whatever stands around the points."""
    np.save(tmp_path / "own.npy", POINTS[:30])
    own = {"name": "from_file", "path": str(tmp_path / "own.npy")}
    uri = str(tmp_path / "store")
    plan = tiny_store.answer(uri, {**SPEC, "datasets": [POINTS, own, {"name": "standardised", "of": own}]})
    for point in plan.points:
        model = open_model(uri, point.cell.id)
        assert model.dataset == point.cell.dataset
        assert torch.isfinite(model.denoise(torch.zeros(2, 2, dtype=torch.float64), 0.5)).all()
    shutil.rmtree(kept)
    np.save(tmp_path / "own.npy", POINTS[:29])
    for point in plan.points:
        with pytest.raises(CannotBeMade):
            open_model(uri, point.cell.id)
    Study.from_spec({**SPEC, "datasets": [POINTS, POINTS[:30]]})
    for point in plan.points:
        assert torch.equal(open_model(uri, point.cell.id).dataset.law.points, point.cell.dataset.law.points)  # type: ignore[attr-defined]
