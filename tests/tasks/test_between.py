"""Flow matching between two data sets through plan, work and store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffusion.formulations import ExactBetween
from tasks.columns import GENERATION
from tasks.models.cells import cell_of
from tasks.plan import make_plan
from tasks.results import open_results
from tasks.study import Study
from tests.tasks import tiny_store

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
