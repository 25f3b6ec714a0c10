"""How good the shipped studies' answers are, by the studies' own settings."""

import numpy as np
import pytest

from tasks.plan import make_plan
from tasks.study import load_study
from tasks.work import Wanted, generate, run_shard

pytestmark = pytest.mark.slow


def answers_of(name: str, *overrides: str):
    """The trained answers of a shipped study, cut down; by the same functions that the flow calls."""
    study = load_study(name, overrides)
    plan = make_plan(study, {}, ())
    found = []
    for shard in plan.shards(1):
        keys = {(j.cell.dataset, j.cell.seed, j.cell.training.data) for j in shard.jobs if j.cell.training}
        data = {(d.label(), seed, size): generate(d, seed, size) for d, seed, size in keys}
        found += run_shard(shard, data, {}, Wanted(study.metrics, False, frozenset())).points
    assert not [answer.error for answer in found if answer.error]
    return found


def test_edm_with_heun_in_100_steps_is_within_three_floors_of_the_uniform_law_and_near_its_exact_curve():
    found = answers_of("uniform", "formulations=[edm]", "samplers=[heun]", "steps=[20, 100]")
    scores = {
        (trained, steps): np.mean([
            a.metrics["w1"]
            for a in found
            if (a.point.cell.training is not None) == trained and a.point.steps == steps
        ])
        for trained in (True, False)
        for steps in (20, 100)
    }  # fmt: skip
    floor = found[0].metrics["w1_floor"]
    assert floor == pytest.approx(0.003133, rel=1e-3)
    assert scores[True, 100] <= 3 * floor
    for steps in (20, 100):
        assert abs(scores[True, steps] - scores[False, steps]) <= floor


def test_edm_samples_of_the_torus_lie_on_it_and_are_spread_as_its_area_is():
    found = [
        a for a in answers_of("torus", "seeds=1", "samplers=[heun]", "steps=[50]") if a.point.cell.training is not None
    ]
    assert len(found) == 1
    assert found[0].metrics["torus-distance"] <= 0.05
    assert found[0].metrics["torus-moment"] <= 0.02
