"""A study of forward processes and of likelihood, planned, answered, stored and drawn."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from diffusion.datasets import FourPoints, GaussianMixture
from tasks.plan import keeps_trajectory, make_plan
from tasks.report.lookup.targets import Target
from tasks.report.page.draw import draw_report
from tasks.results.models import ModelledAnswers
from tasks.results.rows import skipped_rows
from tasks.results.stored import record
from tasks.store import Store
from tasks.study import Study
from tasks.work import PointAnswer, Requests, data_key
from tasks.work.data import generate
from tests.tasks.in_one_process import run_shard

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.plan import Plan
    from tests.tasks.in_one_process import ShardAnswer

SPEC: dict[str, Any] = {
    "name": "forward",
    "datasets": ["four_points"],
    "formulations": ["ddpm", {"name": "exact", "schedule": "vp-constant"}],
    "seeds": 1,
    "training": {"steps": 4, "batch": 8, "width": 8, "depth": 1, "data": 60},
    "samplers": ["forward-chain", "forward-sde", "ddim"],
    "steps": [10, 100],
    "samples": 300,
    "metrics": ["w1", "ks", {"name": "nll", "batch": 8}],
    "keep": {"samples": True, "trajectories": ["forward-chain@100"]},
}


@cache
def answered() -> tuple[Study, Plan, list[ShardAnswer]]:
    study = Study.from_spec(SPEC)
    plan = make_plan(study, {}, ())
    kept = frozenset(point.id for point in plan.points if keeps_trajectory(study, point))
    data = {data_key(job.cell): generate(FourPoints(), 0, 60) for job in plan.jobs if job.train}
    wanted = Requests(study.metrics, True, kept)
    return study, plan, [run_shard(shard, data, {}, wanted) for shard in plan.shards(1)]


def points() -> list[PointAnswer]:
    return [point for answer in answered()[2] for point in answer.points]


def test_exact_rows_answer_and_trained_ones_are_skipped_with_the_reason() -> None:
    _, plan, _ = answered()
    found = {reason for point_id, reason in plan.impossible.items()}
    assert any(
        "'forward-chain' asks a model for the law of the data, and 'ddpm' gives none" in reason for reason in found
    )
    requested = [p for p in points() if p.point.sampler.registered_name.startswith("forward")]
    assert requested
    assert {p.point.labels["formulation"] for p in requested} == {"exact"}
    assert all(p.error is None and p.nfe == 0 for p in requested)


def test_the_last_state_is_compared_with_the_exact_law_there_and_has_no_limit_of_the_flow() -> None:
    """The chain lies at the floor, within five times: both are of 500 samples of a law in units of
    about one.
    """
    for expected in points():
        if expected.point.sampler.registered_name == "forward-chain":
            assert isinstance(expected.point.target, GaussianMixture)  # four bells, no atoms
            assert expected.metrics["w1"] < 5 * expected.metrics["w1_floor"]
            assert expected.metrics["ks"] < 5 * expected.metrics["ks_floor"]
            assert not any(name.endswith("_limit") for name in expected.metrics)


def test_kept_trajectories_count_applied_steps_from_the_data_on() -> None:
    (found,) = [p for p in points() if p.trajectory is not None and p.point.schedule.registered_name == "vp-constant"]
    assert found.trajectory is not None
    values, levels = found.trajectory
    assert values.shape == (101, 300, 1)
    assert set(values[0].ravel().tolist()) == {-15.0, -5.0, 1.0, 10.0}
    time, alpha, sigma = levels if levels.shape[0] == 3 else levels.T
    assert time[0] == sigma[0] == 0
    assert alpha[0] == 1
    np.testing.assert_allclose(sigma**2, 1 - 0.96**time, rtol=0, atol=1e-12)


def test_likelihood_stands_beside_the_entropy_of_the_noised_target() -> None:
    for expected in points():
        assert expected.error is None, expected.error
        column = next(
            name
            for name in expected.metrics
            if name.startswith("nll") and "floor" not in name and "version" not in name
        )
        value, floor = expected.metrics[column], expected.metrics[f"{column}_floor"]
        assert math.isfinite(value)
        if expected.point.labels["formulation"] == "exact":
            assert value == pytest.approx(floor, abs=0.4)  # what is left at t_max of data at +-15 is no normal law
        else:
            assert value > floor + 1  # four steps of training


def test_such_a_study_is_stored_and_drawn(tmp_path: Path) -> None:
    study, plan, answers = answered()
    store = Store.create(str(tmp_path / "results"))
    with store.coordinate() as coordinator:
        record(coordinator, plan, {"study": study.name})
        for answer in answers:
            for rows in answer.rows():
                coordinator.commit(rows, "shard", {})
    page = draw_report(ModelledAnswers(store, study.name))
    assert "level 0 is the data, level k has been through k moves" in page
    assert "forward-chain" in page


def test_a_row_says_what_its_samples_set_out_from() -> None:
    """By which rankings tell those that know more from those that make samples from noise."""
    study = Study.from_spec(
        {
            "name": "begun",
            "datasets": ["moons"],
            "formulations": ["exact", {"name": "indi", "degradation": {"name": "mask"}}],
            "samplers": [
                "heun",
                "forward-chain",
                {"name": "langevin", "start_from": "data"},
                {"name": "langevin", "start_from": "box"},
                {"name": "mala", "nsr": 0.5},
            ],
            "steps": [2],
            "seeds": 1,
            "samples": 10,
            "metrics": ["energy"],
        }
    )
    found = {
        (
            str(row["formulation"]).partition("(")[0],
            str(row["sampler"]).partition("(")[0],
            "start_from=data" in str(row["sampler"]),
        ): row["start"]
        for row in skipped_rows((point, "") for point in make_plan(study, {}, ()).points).points
    }
    assert found["exact", "heun", False] == "random"
    assert found["exact", "langevin", False] == "random"
    assert found["exact", "langevin", True] == "data"
    assert found["exact", "forward-chain", False] == "data"
    assert {start for (formulation, _, _), start in found.items() if formulation == "indi"} == {"observation: mask"}


@pytest.mark.parametrize("sigma", [0.0, 1e-5, 0.3])
def test_the_exact_density_of_atoms_keeps_its_mass_in_bins_of_any_width(sigma: float) -> None:
    """Erratum S3-3: read at its centres, a bell narrower than a bin integrates to 398.94 or to
    nothing.
    """
    edges = np.linspace(-20, 20, 401)
    density = Target("four_points", FourPoints("code")).density(edges, 1.0, sigma)
    assert density is not None
    assert float((density * np.diff(edges)).sum()) == pytest.approx(1, abs=1e-6)
