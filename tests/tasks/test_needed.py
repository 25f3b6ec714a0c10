"""Models of points in files, out of a store and out of a file of their own, wherever the points are
now; and the one sentence where they are nowhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import diffatlas as da
from tasks.models import CannotBeMade, cell_of
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tests.tasks import tiny_store

TINY: dict[str, Any] = {"steps": 5, "batch": 16, "width": 8, "depth": 1}
STUDY: dict[str, Any] = {
    "name": "own",
    "seeds": 1,
    "training": {**TINY, "data": 50},
    "samplers": ["heun"],
    "steps": [2],
    "samples": 50,
    "metrics": ["energy"],
    "keep": {"samples": True},
}


def ring(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal([1.0, -1.0], 0.4, [40, 2])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def ring_file(tmp_path: Path) -> Path:
    np.save(tmp_path / "ring.npy", ring())
    return tmp_path / "ring.npy"


def cells(uri: str) -> list[tuple[str, str]]:
    """Each answered cell with a point of it."""
    points = da.open_results(uri).load()
    ok = points.status.values == "ok"
    return list(zip(points.cell_id.values[ok].tolist(), points.point_id.values[ok].tolist(), strict=True))


def check_all_open(uri: str, count: int) -> None:
    """Every cell gives the bits that the store keeps of it."""
    found = cells(uri)
    assert len(found) == count
    for cell_id, point_id in found:
        again = da.open_model(uri, cell_id).sample("heun", steps=2, n=50)
        assert np.array_equal(again.float().numpy(), da.open_samples(uri, point_id).values)


def test_stored_models_of_points_in_a_file_open_where_the_file_is_still_there(tmp_path: Path, ring_file: Path) -> None:
    uri, file = str(tmp_path / "store"), {"name": "from_file", "path": str(ring_file)}
    near = {"name": "linear_subspace", "of": file, "dim": 3}
    datasets = [file, {"name": "standardised", "of": near}, ring(1)]
    tiny_store.answer(uri, STUDY | {"datasets": datasets, "formulations": ["edm", "exact"]})
    check_all_open(uri, 6)
    answers = ModelledAnswers(Store.open(uri))
    assert all(answers.model(cell_id) is not None for cell_id, _ in cells(uri))


def test_so_do_models_that_start_from_points_in_a_file(tmp_path: Path, ring_file: Path) -> None:
    uri, source = str(tmp_path / "store"), {"name": "from_file", "path": str(ring_file)}
    np.save(tmp_path / "other.npy", ring(1))
    target = {"name": "from_file", "path": str(tmp_path / "other.npy")}
    formulations = [{"name": "flow-between", "source": source}, {"name": "exact-between", "source": "eight_gaussians"}]
    tiny_store.answer(uri, STUDY | {"datasets": [target], "formulations": formulations})
    check_all_open(uri, 2)


def test_of_a_file_that_has_moved_one_sentence_tells_and_the_new_place_can_be_named(
    tmp_path: Path, ring_file: Path
) -> None:
    uri = str(tmp_path / "store")
    file = {"name": "from_file", "path": str(ring_file)}
    between = {"name": "flow-between", "source": file}
    tiny_store.answer(uri, STUDY | {"datasets": ["moons"], "formulations": [between]})
    ((cell_id, point_id),) = cells(uri)
    moved = da.dataset("from_file", path=str(ring_file.rename(tmp_path / "moved.npy")))
    with pytest.raises(CannotBeMade) as refused:
        da.open_model(uri, cell_id)
    digest = moved.spec()["digest"]
    assert str(refused.value) == (
        f"the points with the digest {digest[:12]}... are needed: from_file: {str(ring_file)!r} cannot be read: "
        "No such file or directory; put the file back, or name its place with data=da.dataset('from_file', path=...)"
    )
    again = da.open_model(uri, cell_id, data=moved).sample("heun", steps=2, n=50)
    assert np.array_equal(again.float().numpy(), da.open_samples(uri, point_id).values)
    np.save(ring_file, ring(5))  # another content at the old place
    with pytest.raises(CannotBeMade, match=r"has changed since: its digest is .*; put the file back"):
        da.open_model(uri, cell_id)
    other = da.dataset("from_file", path=str(ring_file))
    with pytest.raises(CannotBeMade, match=r"'.*ring.npy' has the digest .*has changed since"):
        da.open_model(uri, cell_id, data=[other])
    with pytest.raises(da.WrongValue, match=r"data: found ring@.*, which the model was not made for; .*: moved@"):
        da.open_model(uri, cell_id, data=[moved, other])
    with pytest.raises(da.WrongValue, match="data: found str; accepted: a data set of a file"):
        da.open_model(uri, cell_id, data="moved.npy")  # type: ignore[arg-type]


def test_a_store_without_the_study_says_that_nothing_tells_the_place(ring_file: Path) -> None:
    model = da.exact(da.dataset("from_file", path=str(ring_file)))
    with pytest.raises(CannotBeMade, match="are needed: nothing tells in which file they were; name"):
        cell_of(model.cell.spec)
    assert cell_of(model.cell.spec, [model.dataset]).id == model.cell.id


def test_what_cannot_be_made_is_told_without_the_validators_own_words() -> None:
    spec = da.exact("moons").cell.spec
    with pytest.raises(CannotBeMade) as refused:
        cell_of({**spec, "dataset": {"name": "noised", "of": {"name": "moons", "noise": "much"}}})
    assert "of.noise: found 'much', expected a number" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "pydantic" not in str(refused.value)


def nested() -> list[Any]:
    points = torch.from_numpy(ring())
    return [da.dataset(name, of=points) for name in ("linear_subspace", "noised", "standardised")] + [points]


def test_a_saved_model_of_points_within_another_law_comes_back(tmp_path: Path) -> None:
    for i, target in enumerate(nested()):
        for model in (da.train(target, **TINY), da.exact(target)):
            back = da.load(model.save(tmp_path / f"{i}"))
            assert torch.equal(back.sample(steps=3, n=20), model.sample(steps=3, n=20))
            assert back.cell == model.cell
            again = da.load(back.save(tmp_path / "again"))
            assert torch.equal(again.sample(steps=3, n=20), model.sample(steps=3, n=20))


def test_a_saved_model_keeps_the_points_that_its_samples_start_from(tmp_path: Path, ring_file: Path) -> None:
    target = torch.from_numpy(ring(1))
    for source in (da.dataset(ring()), da.dataset("from_file", path=str(ring_file)), da.dataset("noised", of=ring())):
        model = da.train(target, da.formulation("flow-between", source=source), **TINY)
        back = da.load(model.save(tmp_path / "model"))
        assert torch.equal(back.sample(steps=3, n=20), model.sample(steps=3, n=20))
        assert back.cell == model.cell


def test_a_saved_model_of_a_file_that_has_moved_takes_the_new_place(tmp_path: Path, ring_file: Path) -> None:
    model = da.train(da.dataset("from_file", path=str(ring_file)), **TINY)
    path = model.save(tmp_path / "model")
    moved = da.dataset("from_file", path=str(ring_file.rename(tmp_path / "moved.npy")))
    with pytest.raises(CannotBeMade, match=r"'.*ring.npy' cannot be read: .*; put the file back, or name its place"):
        da.load(path)
    assert torch.equal(da.load(path, data=moved).sample(n=20), model.sample(n=20))


def test_a_file_of_the_first_form_is_still_read(tmp_path: Path) -> None:
    """As it was written before points had their digests beside them."""
    model = da.exact(ring())
    path = model.save(tmp_path / "model")
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()["diffatlas"])
        (held,) = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - no mapping
    save_file({"points": held}, path, {"diffatlas": json.dumps({**said, "form": 1})})
    assert torch.equal(da.load(path).sample(n=20), model.sample(n=20))
    save_file({"points": held + 1}, path, {"diffatlas": json.dumps({**said, "form": 1})})
    with pytest.raises(da.WrongValue, match="its points are not those that it tells of"):
        da.load(path)
