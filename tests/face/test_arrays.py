"""Numbers of one's own, in whatever they are held: the same answer at every door, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import diffatlas as da
from tasks.plan import make_plan
from tasks.study import Study

POINTS = np.round(np.random.default_rng(1).normal(size=(12, 2)), 2)
LEVEL: Any = (1.0, 0.5)
SPEC: dict[str, Any] = {
    "name": "arrays",
    "formulations": ["exact"],
    "samplers": ["heun"],
    "steps": [2],
    "samples": 10,
    "metrics": ["energy"],
}

HELD: dict[str, Callable[[np.ndarray], Any]] = {
    "backwards": lambda x: x[::-1].copy()[::-1],
    "by columns": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
    "of the other byte order": lambda x: x.astype(">f8"),
    "of the other byte order in single": lambda x: x.astype(">f4"),
    "long": lambda x: x.astype("longdouble"),
    "objects": lambda x: x.astype(object),
    "read-only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    "a data frame": lambda x: pd.DataFrame(x, columns=["a", "b"]),
    "a labelled array": lambda x: xr.DataArray(x, dims=("n", "dim")),
    "lists": lambda x: x.tolist(),
    "a tensor": torch.as_tensor,
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("held", HELD)
def test_points_are_the_same_however_they_are_held(held: str) -> None:
    given = HELD[held](POINTS)
    exactly: Any = POINTS.astype("f4").astype("f8") if "single" in held else POINTS
    plain, found = da.dataset(exactly), da.dataset(given)
    assert found == plain
    assert torch.equal(found.points, torch.from_numpy(exactly))  # type: ignore[attr-defined]
    assert da.dataset("standardised", of=given) == da.dataset("standardised", of=exactly)
    assert da.evaluate(given, exactly, "energy") == da.evaluate(exactly, exactly, "energy")
    assert torch.equal(da.exact(given).denoise(given, 0.5), da.exact(exactly).denoise(exactly, 0.5))
    assert torch.equal(found.denoise(given, *LEVEL), plain.denoise(torch.from_numpy(exactly), *LEVEL))
    if held != "lists":  # of which a study has its own
        study = Study.from_spec({**SPEC, "datasets": [given]})
        assert study == Study.from_spec({**SPEC, "datasets": [exactly]})
        assert make_plan(study, {}, ()).points


def test_training_takes_them_too_with_labels_of_any_whole_type() -> None:
    small: dict[str, Any] = {"steps": 2, "batch": 8, "width": 8, "depth": 1}
    labels = np.arange(12) % 3
    plain = da.train(POINTS, "class-conditional", labels=labels, **small)
    for given in (labels.astype(">i2"), labels[::-1].copy()[::-1], labels.astype(object).astype("u1"), labels.tolist()):
        found = da.train(POINTS[::-1].copy()[::-1], "class-conditional", labels=given, **small)
        assert torch.equal(found.sample("heun", steps=2, n=3), plain.sample("heun", steps=2, n=3))


def test_whole_numbers_and_halves_are_points_as_in_a_file(tmp_path: Path) -> None:
    for kind in ("i1", "u2", "u8", "i8", "f2"):
        values = np.array([[3, 1], [4, 1], [5, 9]], dtype=kind)
        np.save(tmp_path / "of.npy", values)
        assert torch.equal(da.dataset(values).points, da.dataset("from_file", path=str(tmp_path / "of.npy")).points)  # type: ignore[attr-defined]


NO_POINTS: dict[str, Any] = {
    "masked": np.ma.masked_less(POINTS, -1.0),
    "masked by nobody": np.ma.masked_array(POINTS),
    "texts": np.array([["1.0", "2.0"], ["3.0", "4.0"]]),
    "texts as objects": np.array([["1.0", "2.0"], ["3.0", "4.0"]], dtype=object),
    "complex": POINTS + 1j,
    "a complex tensor": torch.from_numpy(POINTS + 1j),
    "dates": np.array([["2020-01-01", "2021-01-01"]] * 3, dtype="datetime64[D]"),
    "a data frame with a name": pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}),
    "none among them": np.array([[1.0, None], [2.0, 3.0]], dtype=object),
    "of two lengths": np.array([[1.0], [2.0, 3.0]], dtype=object),
}
DOORS: dict[str, Callable[[Any], Any]] = {
    "dataset": da.dataset,
    "of": lambda given: da.dataset("standardised", of=given),
    "train": da.train,
    "exact": da.exact,
    "samples": lambda given: da.evaluate(given, "moons", "energy"),
    "target": lambda given: da.evaluate(POINTS, given, "energy"),
    "denoise": lambda given: da.exact("moons").denoise(given, 0.5),
    "a data set's denoiser": lambda given: da.dataset("moons").denoise(given, *LEVEL),
    "a study": lambda given: Study.from_spec({**SPEC, "datasets": [given]}),
    "a study's of": lambda given: Study.from_spec({**SPEC, "datasets": [{"name": "standardised", "of": given}]}),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("given", NO_POINTS)
def test_what_holds_no_points_is_refused_in_one_sentence_at_every_door(given: str, door: str) -> None:
    if given == "none among them" and door in {"denoise", "a data set's denoiser"}:
        pytest.skip("not a number in, not a number out")
    with pytest.raises(da.WrongValue) as error:
        DOORS[door](NO_POINTS[given])
    text = str(error.value)
    assert "\n" not in text
    if given != "none among them":
        assert "found" in text
        assert "accepted" in text
    if "masked" in given:
        assert "masked array of shape [12, 2]" in text


def test_a_name_that_is_a_text_of_numpy_is_a_name() -> None:
    name = np.array(["moons"])[0]
    assert type(name) is np.str_
    assert da.dataset(name) == da.dataset("moons")
    assert Study.from_spec({**SPEC, "datasets": [name]}) == Study.from_spec({**SPEC, "datasets": ["moons"]})


def test_a_level_may_be_held_in_anything_too_and_is_a_number_of_its_own() -> None:
    model, x = da.exact("moons"), torch.zeros(3, 2, dtype=torch.float64)
    plain = model.denoise(x, 0.5)
    for sigma in (
        np.float32(0.5),
        np.array(0.5, ">f8"),
        np.array([0.5], object),
        np.longdouble(0.5),
        torch.tensor(0.5),
    ):
        assert torch.equal(model.denoise(x, sigma), plain)  # type: ignore[arg-type]
    for wrong in (np.ma.masked_array([0.5], mask=[True]), np.array(["0.5"]), 0.5j, None):
        with pytest.raises(da.WrongValue, match=r"sigma: found .*accepted: a number"):
            model.denoise(x, wrong)  # type: ignore[arg-type]
