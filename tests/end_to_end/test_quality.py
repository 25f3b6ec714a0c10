"""How good the shipped studies' answers are, by the studies' own settings."""

import numpy as np
import pytest

from tasks.plan import make_plan
from tasks.study import Study, load_study
from tasks.work import PointAnswer, Requests, data_key, training_set
from tests.tasks.in_one_process import run_shard

pytestmark = pytest.mark.slow


def answers_of(name: str, *overrides: str) -> list[PointAnswer]:
    """The trained answers of a shipped study, cut down; by the same functions that the flow calls."""
    return answers(load_study(name, overrides))


def answers(study: Study) -> list[PointAnswer]:
    plan = make_plan(study, {}, ())
    found: list[PointAnswer] = []
    for shard in plan.shards(1):
        data = {data_key(job.cell): training_set(job.cell) for job in shard.jobs if job.cell.training}
        found += run_shard(shard, data, {}, Requests(study.metrics, False, frozenset())).points
    assert not [answer.error for answer in found if answer.error]
    return found


def test_edm_with_heun_in_100_steps_is_within_three_floors_of_the_uniform_law_and_near_its_exact_curve() -> None:
    """The shipped study with a third of its training.

    Measured: 0.0100 in 20 steps and 0.0052 in 100, of the exact denoiser 0.0108 and 0.0041.
    """
    cut = ("formulations=[edm]", "samplers=[heun]", "steps=[20, 100]", "training.steps=1000")
    found = answers_of("uniform", *cut)
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


@pytest.mark.timeout(1500)  # three networks of images are trained
def test_digits_are_near_the_data_and_those_asked_for_are_what_was_asked() -> None:
    """The shipped study with networks of half the width, a third of their steps and one seed: EDM in
    18 steps, labels with the weight 1.5; and the autoencoder as it is.

    Measured: 4.2 and 2.3 where the floor is 1.3, and 0.986; the autoencoder 38. The study itself
    reaches more: see docs/images.md.
    """
    shipped = load_study("digits").spec()
    by_name = {block["formulations"][0]["name"]: block for block in shipped["grids"] if "formulations" in block}
    exact = [{"formulation": "exact"}]
    blocks = [
        {"formulations": ["edm"], "samplers": ["heun"], "exclude": exact},
        {**by_name["class-conditional"], "samplers": by_name["class-conditional"]["samplers"][1:]},
        by_name["vae"],
    ]
    training = {**shipped["training"], "width": 16, "learning_rate": 0.004, "steps": 900}
    cut = {
        "seeds": 1,
        "steps": [18],
        "training": training,
        "grids": blocks,
        "metrics": ["fid-digits", "label-accuracy"],
    }
    study = Study.from_spec({**shipped, **cut, "keep": {"samples": False}})
    found = {}
    for answer in answers(study):
        key = answer.point.cell.formulation.registered_name, getattr(answer.point.guidance, "weight", None)
        found[key] = answer.metrics
    edm, vae = found["edm", None]["fid-digits"], found["vae", None]["fid-digits"]
    guided, floor = found["class-conditional", 1.5], found["edm", None]["fid-digits_floor"]
    assert edm < vae
    assert edm <= 4 * floor
    assert guided["fid-digits"] <= 3 * floor
    assert guided["label-accuracy"] >= 0.95


def test_edm_samples_of_the_torus_lie_on_it_and_are_spread_as_its_area_is() -> None:
    """The shipped study with a third of its training and one seed; measured: 0.025 and 0.004."""
    cut = ("seeds=1", "samplers=[heun]", "steps=[50]", "training.steps=2000")
    found = [a for a in answers_of("torus", *cut) if a.point.cell.training is not None]
    assert len(found) == 1
    assert found[0].metrics["torus-distance"] <= 0.05
    assert found[0].metrics["torus-moment"] <= 0.02
