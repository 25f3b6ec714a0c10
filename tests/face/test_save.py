"""A model as a file: the same bits, what it was made for, and nothing that runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import diffatlas as da

SETTINGS: dict[str, Any] = {"steps": 5, "batch": 16, "width": 8, "depth": 2}


def points() -> torch.Tensor:
    return torch.randn(200, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:.*does not end in noise")  # as ncsn says of its own schedule
@pytest.mark.parametrize("name", ["edm", "vp", "ddpm", "flow", "vae", "action-matching", "indi", "ncsn"])
def test_a_trained_model_comes_back_to_the_bit(name: str, tmp_path: Path) -> None:
    model = da.train("moons", name, data=300, seed=2, **SETTINGS)
    path = model.save(tmp_path / "deep" / "model.safetensors")
    back = da.load(path)
    steps = 1 if name == "vae" else 3
    assert torch.equal(back.sample(steps=steps, n=20), model.sample(steps=steps, n=20))
    assert back.cell == model.cell
    assert back.cell.id == model.cell.id
    assert list(path.parent.iterdir()) == [path]


def test_a_model_of_points_of_ones_own_comes_back_without_them(tmp_path: Path) -> None:
    labels = (points()[:, 0] > 0).long()
    model = da.train(points(), "class-conditional", labels=labels, **SETTINGS)
    back = da.load(model.save(tmp_path / "model"))
    assert torch.equal(back.sample(n=20), model.sample(n=20))
    guided: dict[str, Any] = {"n": 20, "guidance": {"name": "classifier-free", "labels": 1, "weight": 2.0}}
    assert torch.equal(back.sample(**guided), model.sample(**guided))
    assert back.dataset.std == model.dataset.std
    with pytest.raises(da.WrongValue, match="are not here: a saved model has their mean and deviation alone"):
        back.dataset.sample(3, torch.Generator())
    with safe_open(tmp_path / "model", framework="pt") as file:
        assert not any(file.get_tensor(name).shape == points().shape for name in file.keys())  # noqa: SIM118


def test_exact_models_come_back_with_what_they_are_exact_about(tmp_path: Path) -> None:
    for target in ("torus", points(), points().numpy()[:, 0]):
        model = da.exact(target, "vp-cosine")
        back = da.load(model.save(tmp_path / "model"))
        assert torch.equal(back.sample("ddim", n=20), model.sample("ddim", n=20))
        assert back.schedule == model.schedule


def test_the_file_says_in_json_what_the_model_was_made_for(tmp_path: Path) -> None:
    path = da.train("uniform", "edm", data=50, **SETTINGS).save(tmp_path / "model")
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["diffatlas"])
    assert document["cell"]["formulation"]["name"] == "edm"
    assert document["cell"]["training"]["width"] == 8


def test_what_is_no_saved_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        da.load(tmp_path / "nothing")
    (tmp_path / "text").write_text("no model")
    np.save(tmp_path / "array.npy", np.zeros(3))
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name in ("text", "array.npy", "other.safetensors"):
        with pytest.raises(da.WrongValue, match="is no model that was saved here"):
            da.load(tmp_path / name)


def test_a_model_of_other_versions_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = da.train("uniform", "edm", data=50, **SETTINGS).save(tmp_path / "model")
    monkeypatch.setattr(type(da.formulation("edm")), "version", 7)
    with pytest.raises(da.DiffatlasError, match="was made by other versions of its parts"):
        da.load(path)


def test_a_function_is_not_written_down(tmp_path: Path) -> None:
    with pytest.raises(da.WrongValue, match="a function of one's own cannot be saved"):
        da.model(lambda x, _: x, dim=1).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = da.train("uniform", "edm", data=50, **SETTINGS)
    path = model.save(tmp_path / "model")
    before = path.read_bytes()

    def full(_path: Path, _content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        model.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
