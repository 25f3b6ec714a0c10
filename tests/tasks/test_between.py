"""Flow matching between two data sets through plan, work and store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffatlas as da
from diffusion.errors import WrongValue
from diffusion.formulations import ExactBetween
from tasks.columns import GENERATION
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


def test_quantiles_of_a_source_on_the_line_are_its_start() -> None:
    source = da.dataset("gaussian_mixture")
    model = da.train("uniform", da.formulation("flow-between", source=source), steps=2, width=8, depth=1)
    one, other = (model.sample("euler", steps=1, n=9, seed=seed, start="quantiles") for seed in (0, 1))
    assert np.array_equal(one.numpy(), other.numpy())
