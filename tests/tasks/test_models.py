"""A stored cell can be taken out and asked: weights, samples and specs lead back to the same
numbers.
"""

from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest
import torch

from diffusion.datasets import datasets
from diffusion.datasets.degradations import Mask
from diffusion.formulations import ActionMatching, Exact, InDI, Trained, formulations
from diffusion.models import ExactDenoiser
from diffusion.randomness import stream
from diffusion.samplers import Heun
from diffusion.schedules import DDPMLinear, Flow, schedules
from diffusion.training import Training, train
from tasks.models import CannotBeMade, Model, cell_of
from tasks.plan import Cell
from tasks.results import Answers, open_results, open_samples
from tasks.results.models import open_model
from tasks.store import NotStored, Store
from tasks.work.stacks import member_of
from tests.diffusion.taught import served
from tests.tasks.tiny_store import SPEC, answer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("models") / "results")
    answer(uri, {**SPEC, "seeds": 1})
    return uri


def test_a_stored_cell_gives_the_samples_that_the_sweep_stored_to_the_last_bit(store: str) -> None:
    points = open_results(store)
    for row in range(points.sizes["point"]):
        point = points.isel(point=row)
        model = open_model(store, str(point["cell_id"].values))
        samples = model.sample(str(point["sampler"].values), int(point["steps"].values), n=400)
        stored = open_samples(store, str(point["point_id"].values))
        assert torch.equal(samples.float(), torch.from_numpy(stored.values))


def test_a_stored_cell_is_a_denoiser(store: str) -> None:
    points = open_results(store)
    exact = points.isel(point=points["formulation"].values == "exact")
    model = open_model(store, str(exact["cell_id"].values[0]))
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None]
    target = model.cell.dataset
    assert torch.equal(model.denoise(x, 0.5), target.denoise(x, torch.tensor(1.0), torch.tensor(0.5)))


def test_a_stored_cell_tells_the_likelihood_of_points(store: str) -> None:
    points = open_results(store)
    exact = points.isel(point=points["formulation"].values == "exact")
    model = open_model(store, str(exact["cell_id"].values[0]))
    schedule, target = model.cell.schedule, model.cell.dataset
    level = [part(torch.tensor(schedule.t_min, dtype=torch.float64)) for part in (schedule.alpha, schedule.sigma)]
    x = level[0] * target.sample(20, stream("stored likelihood"))
    assert torch.allclose(model.log_likelihood(x), target.log_density(x, *level), rtol=0, atol=0.05)


def test_what_is_not_there_or_does_not_serve_is_told(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError, match="holds no cell 'nothing'"):
        open_model(store, "nothing")
    with pytest.raises(NotStored, match="no weights of cell 'nothing'"):  # the store is not damaged
        Answers(Store.open(store)).weights("nothing")
    points = open_results(store)
    cell = str(points["cell_id"].values[points["formulation"].values == "edm"][0])
    model = open_model(store, cell)
    elsewhere = model.sample({"name": "heun", "grid": "uniform-t"}, 3)  # an entry as in a study
    assert torch.equal(elsewhere, model.sample("heun", 3, grid="uniform-t"))
    assert not torch.equal(elsewhere, model.sample("heun", 3))
    with pytest.raises(ValueError, match="order"):
        open_model(store, cell).sample({"name": "heun", "order": 3}, 3)
    monkeypatch.setattr(formulations.find("edm"), "version", 7)
    with pytest.raises(CannotBeMade, match="other versions"):
        open_model(store, cell)


def test_a_model_without_a_bound_says_so(store: str) -> None:
    points = open_results(store)
    x = torch.zeros(3, 1, dtype=torch.float64)
    for name in ("edm", "exact"):
        cell = str(points["cell_id"].values[points["formulation"].values == name][0])
        with pytest.raises(ValueError, match="'edm' is not one"):
            open_model(store, cell).elbo(x)
    unbalanced = Cell(datasets.create("uniform"), ActionMatching("unbalanced"), DDPMLinear(), 0, Training(steps=10))
    stack = train([member_of(unbalanced)], [unbalanced.dataset.sample(50, stream("unbalanced"))], Training(steps=1))
    with pytest.raises(ValueError, match="neither a bound nor a denoiser, only the gradient of an action"):
        Model.of(unbalanced, stack.model).elbo(x)


def test_what_knows_data_and_their_observation_has_no_likelihood_of_data_in_noise() -> None:
    restoring = Cell(datasets.create("moons"), InDI(Mask()), Flow(), 0, Training(steps=10))
    with pytest.raises(ValueError, match="this model knows data and their observation"):
        Model.of(restoring, ExactDenoiser([restoring.dataset])).log_likelihood(torch.zeros(3, 2, dtype=torch.float64))


def test_the_version_of_a_sampler_is_no_part_of_a_cell(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = str(open_results(store)["cell_id"].values[0])
    monkeypatch.setattr(Heun, "version", 9)
    assert open_model(store, cell).cell.id == cell


CELLS = [
    *(
        Cell(served(f, datasets.create("uniform")), f, f.own_schedule(), 0, Training(steps=10))
        for f in (formulations.create(e.name) for e in formulations if issubclass(e.cls, Trained) and e.has_defaults)
    ),
    *(
        Cell(datasets.create(e.name), Exact(schedules.create("edm")), schedules.create("edm"), 1, None)
        for e in datasets
        if e.has_defaults
    ),
    *(
        Cell(datasets.create("uniform"), Exact(s), s, 1, None)
        for s in (schedules.create(e.name) for e in schedules if e.has_defaults)
    ),
]


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_canonical_spec_leads_back_to_the_cell_whatever_its_parts(cell: Cell) -> None:
    assert cell_of(cell.spec) == cell
    assert cell_of(cell.spec).id == cell.id


def test_a_stored_autoencoder_encodes_decodes_samples_and_tells_its_bound(tmp_path: Path) -> None:
    uri = str(tmp_path / "results")
    spec = {**SPEC, "seeds": 1, "formulations": ["vae", "ddpm-elbo"], "samplers": ["heun"], "steps": [2]}
    answer(uri, {**spec, "metrics": ["w1", "score-error"]})
    points = open_results(uri)
    rows = {name: points.isel(point=points["formulation"].values == name) for name in ("vae", "ddpm-elbo", "exact")}
    requested = rows["vae"]
    assert requested["sampler"].values.tolist() == [
        "decode"
    ]  # one question in one step, whatever the study's samplers are
    assert requested["steps"].values.tolist() == requested["nfe"].values.tolist() == [1]
    assert requested["status"].values.tolist() == ["ok"]
    assert np.isfinite(requested["w1"].values).all()
    assert np.isnan(requested["score-error"].values).all()  # it gives no denoiser
    assert set(rows["exact"]["schedule"].values.tolist()) == {"ddpm-linear"}  # none for the autoencoder's sake

    model = open_model(uri, str(requested["cell_id"].values[0]))
    stored = open_samples(uri, str(requested["point_id"].values[0]))
    assert torch.equal(model.sample("decode", 1, n=400).float(), torch.from_numpy(stored.values))
    x = model.cell.dataset.sample(50, stream("stored autoencoder"))
    mean, std = model.encode(x)
    assert mean.shape == std.shape == (50, 2)
    assert (std > 0).all()
    assert model.decode(mean).shape == x.shape
    assert not torch.equal(
        model.sample({"name": "decode", "noise": False}, 1, n=400).float(), torch.from_numpy(stored.values)
    )
    one, again, many = model.elbo(x), model.elbo(x), model.elbo(x, draws=200)
    assert torch.equal(one.bound, again.bound)
    assert one.consistency.shape == (0, 50)
    torch.testing.assert_close(many.prior, one.prior)  # no randomness in it
    assert float((many.bound - model.elbo(x, draws=200, seed=1).bound).std()) < float((one.bound - many.bound).std())

    chain = open_model(uri, str(rows["ddpm-elbo"]["cell_id"].values[0]))
    terms = chain.elbo(x)
    assert terms.consistency.shape == (99, 50)
    assert torch.isfinite(terms.bound).all()
    with pytest.raises(ValueError, match="accepted: posterior, transition"):
        chain.elbo(x, variance=cast("Literal['posterior']", "best"))
    with pytest.raises(ValueError, match="draws must be 1 or more"):
        chain.elbo(x, draws=0)
    with pytest.raises(ValueError, match="no encoder"):
        chain.encode(x)
    exact = open_model(uri, str(rows["exact"]["cell_id"].values[0]))
    assert float(exact.elbo(x).bound.mean()) > float(terms.bound.mean())
    with pytest.raises(ValueError, match="no autoencoder"):
        exact.decode(mean)
