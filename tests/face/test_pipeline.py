"""The same question gives the same bits, asked through the public face and through a study."""

from pathlib import Path
from typing import Any

import pytest
import torch

import diffatlas as da
from diffusion.datasets import Uniform
from diffusion.formulations import ElucidatedDM
from tests.tasks.tiny_store import SPEC, answer

SETTINGS: dict[str, Any] = SPEC["training"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("pipeline") / "results")
    answer(uri)
    return uri


def test_samples_and_scores_of_a_study_are_those_of_the_face(store: str) -> None:
    points = da.open_results(store)
    models = {
        (formulation, seed): da.exact("uniform", seed=seed)
        if formulation == "exact"
        else da.train("uniform", "edm", seed=seed, **SETTINGS)
        for formulation in ("exact", "edm")
        for seed in (0, 1)
    }
    assert points.sizes["point"] == 16
    for row in range(points.sizes["point"]):
        point = points.isel(point=row)
        model = models[str(point["formulation"].values), int(point["seed"].values)]
        assert model.cell.id == str(point["cell_id"].values)
        x = model.sample(str(point["sampler"].values), int(point["steps"].values), n=400)
        stored = da.open_samples(store, str(point["point_id"].values))
        assert torch.equal(x.float(), torch.from_numpy(stored.values))
        for name, score in da.evaluate(x, "uniform", ["w1", "ks"]).items():
            assert score == (float(point[name]), float(point[f"{name}_floor"]))


def test_a_trajectory_ends_in_the_samples(store: str) -> None:
    points = da.open_results(store)
    kept = points.isel(point=(points["sampler"].values == "heun") & (points["steps"].values == 3))
    point = str(kept["point_id"].values[0])
    states = da.open_trajectory(store, point)
    assert states.dims == ("level", "sample", "coordinate")
    assert states.sizes["level"] == 4
    assert (states.isel(level=-1).values == da.open_samples(store, point).values).all()
    with pytest.raises(KeyError, match="was not kept"):
        da.open_trajectory(store, str(points["point_id"].values[0]))


def test_a_stored_model_is_the_one_that_was_trained_here(store: str, tmp_path: Path) -> None:
    model = da.train("uniform", "edm", seed=1, **SETTINGS)
    stored = da.open_model(store, model.cell.id)
    x = torch.linspace(-1, 2, 40, dtype=torch.float64)[:, None]
    assert torch.equal(model.denoise(x, 0.3), stored.denoise(x, 0.3))
    assert torch.equal(stored.sample("heun", 3, n=50), da.load(stored.save(tmp_path / "m")).sample("heun", 3, n=50))


def test_names_mappings_objects_and_classes_mean_the_same() -> None:
    requested: dict[str, Any] = {"sampler": "ddim", "steps": 4, "n": 30}
    expected = da.sample(Uniform(-1.0, 1.0), **requested)
    for target in (
        da.dataset("uniform", low=-1.0, high=1.0),
        da.dataset({"name": "uniform", "low": -1.0, "high": 1.0}),
        da.dataset(Uniform, low=-1.0, high=1.0),
        da.dataset("diffusion.datasets:Uniform", low=-1.0, high=1.0),
    ):
        assert torch.equal(da.sample(target, **requested), expected)
    for formulation in ("edm", ElucidatedDM, ElucidatedDM(), {"name": "edm"}):
        assert da.train("uniform", formulation, **SETTINGS).cell.id == da.train("uniform", **SETTINGS).cell.id
    twelve = da.sample(Uniform(), {"name": "ddim", "eta": 0.5}, n=30, steps=4)
    assert torch.equal(twelve, da.sample(Uniform(), da.sampler("ddim", eta=0.5), n=30, steps=4))


def test_scores_and_likelihoods_of_a_function_are_those_in_closed_form() -> None:
    line = da.dataset("gaussian", means=0.5, stds=0.7)
    own = da.model(lambda x, sigma: 0.5 + 0.49 / (0.49 + sigma**2) * (x - 0.5), dim=1, schedule="vp-linear")
    x = torch.linspace(-2, 3, 20, dtype=torch.float64)[:, None]
    t_min = own.schedule.t_min
    alpha, sigma = own.schedule.alpha(t_min), own.schedule.sigma(t_min)  # type: ignore[arg-type]
    torch.testing.assert_close(own.score(x, 0.4), line.score(x, 1.0, 0.4), rtol=1e-10, atol=1e-10)  # type: ignore[arg-type]
    torch.testing.assert_close(own.score(x, 0.4, alpha=0.8), line.score(x, 0.8, 0.4), rtol=1e-9, atol=1e-9)  # type: ignore[arg-type]
    torch.testing.assert_close(own.log_likelihood(x), line.log_density(x, alpha, sigma), rtol=0, atol=0.02)
    exact = da.exact(line, "vp-linear")  # which knows its divergence; a function is differentiated
    torch.testing.assert_close(own.log_likelihood(x), exact.log_likelihood(x), rtol=0, atol=1e-4)
    torch.testing.assert_close(exact.log_density(x, 0.4), line.log_density(x, 1.0, 0.4), rtol=0, atol=0)  # type: ignore[arg-type]


def test_the_face_has_the_settings_of_a_study_with_its_defaults() -> None:
    import dataclasses
    import inspect

    from diffusion.training import Training

    parameters = inspect.signature(da.train).parameters
    for field in dataclasses.fields(Training):
        if field.name != "network":
            assert parameters[field.name].default == field.default
