"""Flow matching between two data sets through plan, work and store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import diffatlas as da
from diffusion.datasets.noised import Noised
from diffusion.errors import WrongValue
from diffusion.formulations import ExactBetween, FlowBetween
from tasks.columns import GENERATION
from tasks.data.from_file import FromFile
from tasks.models import Model
from tasks.models.cells import cell_of
from tasks.plan import make_plan
from tasks.results import Answers, open_results
from tasks.results.models import open_model
from tasks.store import Store
from tasks.study import Study
from tests.tasks import tiny_store
from tests.tasks.store_kit import kept_samples

RING = {"name": "eight_gaussians", "radius": 5.0, "stds": 0.3}
SPEC: dict[str, Any] = {
    "name": "between",
    "datasets": ["moons", "streaked_moons", "swiss_roll"],
    "formulations": [{"name": "flow-between", "source": RING}, {"name": "exact-between", "source": RING}],
    "seeds": 2,
    "training": {"steps": 10, "batch": 16, "width": 8, "depth": 1, "data": 50},
    "samplers": ["euler", "heun", "ancestral"],
    "steps": [1, 2],
    "samples": 60,
    "metrics": ["energy", "score-error", "w2"],
    "keep": {"samples": True},
}


def test_both_run_as_a_study_and_no_exact_rows_from_noise_stand_beside_them(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    plan = tiny_store.answer(uri, SPEC)
    found = open_results(uri).load()
    table = found[
        ["dataset", "formulation", "sampler", "steps", "status", "nfe", "start", "process", "w2"]
    ].to_dataframe()
    answered = table[table.status == "ok"]
    assert set(answered.sampler) == {"euler", "heun"}
    assert set(answered.nfe[answered.sampler == "heun"]) == {1, 3}
    assert set(answered.start) == {"draws: eight_gaussians(radius=5.0,stds=0.3)"}
    assert set(answered.process) == {GENERATION}
    served = {(d, f) for d, f in zip(answered.dataset, answered.formulation, strict=True) if "exact" in f}
    assert {d for d, _ in served} == {"moons", "swiss_roll"}
    refused = set(plan.impossible.values())
    assert any("'ancestral' adds the noise of a schedule" in reason for reason in refused)
    assert any("target 'streaked_moons' has no exact denoiser" in reason for reason in refused)
    once = answered[(answered.steps == 1) & (answered.sampler == "euler") & (answered.dataset == "moons")]
    exact = once[once.formulation.str.contains("exact")]
    assert np.allclose(exact.w2**2, 2 * 0.706820**2, rtol=0.25)  # of 60 points; the mean stands still


def test_cells_of_both_are_remade_from_what_a_store_holds_of_them() -> None:
    study = Study.from_spec(SPEC)
    for cell in {point.cell.id: point.cell for point in make_plan(study, {}, ()).points}.values():
        remade = cell_of(cell.spec)
        assert remade.id == cell.id
        assert isinstance(remade.formulation, ExactBetween) == (cell.training is None)


def test_a_stored_cell_of_each_is_a_model_again_with_the_samples_that_the_store_keeps(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    tiny_store.answer(uri, SPEC | {"datasets": ["moons"], "seeds": 1, "steps": [2], "samplers": ["heun"]})
    found = open_results(uri).load()
    assert len(found.point) == 2
    for cell_id, point_id in zip(found.cell_id.values, found.point_id.values, strict=True):
        model = open_model(uri, str(cell_id))
        kept = kept_samples(Answers(Store.open(uri)), str(point_id))
        again = model.sample("heun", steps=2, n=60)
        assert np.array_equal(again.float().numpy(), kept.values)
        saved = Model.load(model.save(tmp_path / f"{cell_id}.safetensors"))
        assert np.array_equal(saved.sample("heun", steps=2, n=60).numpy(), again.numpy())
        with pytest.raises(WrongValue, match="between two data sets"):
            model.log_likelihood(again)
        with pytest.raises(WrongValue, match=r"'.*-between' gives no score: .* between two data sets"):
            model.score(again, 0.5)


def test_the_exact_answer_between_two_data_sets_is_asked_from_python() -> None:
    model = da.exact("moons", formulation={"name": "exact-between", "source": RING})
    assert model.schedule == da.schedule("flow")
    one = model.sample("euler", steps=1, n=4)
    assert np.allclose(one.numpy(), np.broadcast_to(model.dataset.mean, (4, 2)))  # Euler's step from t = 1
    with pytest.raises(
        WrongValue, match=r"no network; .* \(without one: da.exact\(target, formulation='exact-between'\)\)"
    ):
        da.train("moons", "exact-between")
    with pytest.raises(WrongValue, match=r"exact: 'edm' has a network; accepted: .* without one"):
        da.exact("moons", formulation="edm")
    with pytest.raises(WrongValue, match="does not reach it"):
        da.exact("moons", "vp-cosine", formulation="exact-between")
    assert da.exact("moons").cell == da.exact("moons", "edm", formulation="exact").cell


def test_a_source_may_be_points_of_ones_own() -> None:
    points = np.random.default_rng(0).normal(3.0, 0.5, [40, 2])
    by_name = da.formulation("flow-between", source=points)
    assert by_name == da.formulation("flow-between", source=da.dataset(points))
    assert by_name == da.formulation({"name": "flow-between", "source": points.tolist()})
    assert by_name == da.formulation(FlowBetween, source=points)
    nested = da.formulation("flow-between", source={"name": "noised", "of": points})
    assert nested == da.formulation("flow-between", source=da.dataset("noised", of=points))
    model = da.train("moons", by_name, steps=2, width=8, depth=1, data=50)
    start = next(model.states(da.sampler("euler"), steps=1, n=30))
    assert {tuple(row) for row in start.tolist()} <= {tuple(row) for row in points.tolist()}
    with pytest.raises(WrongValue, match=r"the data have shape \[3\]|coordinates"):
        da.train("moons", da.formulation("flow-between", source=np.arange(3.0)), steps=2)


def test_so_it_may_in_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path))
    points = np.random.default_rng(0).normal(3.0, 0.5, [40, 2])
    other_block = {"formulations": [{"name": "flow-between", "source": {"name": "noised", "of": points}}]}
    study = Study.from_spec(
        SPEC | {"formulations": [{"name": "flow-between", "source": points}], "grids": [{}, other_block]}
    )
    assert Study.from_spec(study.spec()) == study
    one, other = (cast("FlowBetween", f).source for block in study.blocks() for f in block.formulations)
    assert isinstance(one, FromFile)
    assert np.array_equal(one.points.numpy(), points)
    assert isinstance(other, Noised)
    assert other.of == one


def test_points_for_the_name_of_an_array_are_told_to_be_a_data_set() -> None:
    points = np.zeros([3, 2])
    for wrong in ({"array": points}, {"path": points}, {"path": "no.npy", "array": points}):
        with pytest.raises(WrongValue, match=r"points in memory are a data set themselves, da.dataset\(points\)"):
            da.dataset("from_file", **wrong)


def test_quantiles_of_a_source_on_the_line_are_its_start() -> None:
    source = da.dataset("gaussian_mixture")
    model = da.train("uniform", da.formulation("flow-between", source=source), steps=2, width=8, depth=1)
    one, other = (model.sample("euler", steps=1, n=9, seed=seed, start="quantiles") for seed in (0, 1))
    assert np.array_equal(one.numpy(), other.numpy())
