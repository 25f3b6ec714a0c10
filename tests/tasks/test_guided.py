"""Guidance in a study: read with its place, planned with ids of its own, compared with the
conditioned law.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from diffusion.datasets import EightGaussians
from diffusion.guidance import ClassLabel
from diffusion.metrics import EnergyDistance
from tasks.models import cell_of
from tasks.plan import Job, Point, Shard, make_plan, points_of
from tasks.study import Study, StudyError, load_study
from tasks.work import Requests, data_key, training_set
from tests.tasks.in_one_process import ShardAnswer, run_shard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BASE: dict[str, Any] = {
    "name": "guided",
    "datasets": ["eight_gaussians"],
    "formulations": ["exact"],
    "samplers": ["heun", {"name": "heun", "guidance": "class-label"}],
    "steps": [3],
    "samples": 200,
    "metrics": ["energy", "mode-coverage"],
}
CHAIN = {"name": "exact", "schedule": "ddpm-linear"}
REQUESTED = {"name": "class-label", "labels": [2, 3], "weight": 1.5}


def study(**changes: Any) -> Study:
    return Study.from_spec({**BASE, **changes})


def guided(of: Study) -> list[Point]:
    return [point for point in points_of(of) if point.guidance]


def answers(of: Study) -> ShardAnswer:
    (shard,) = make_plan(of, {}, ()).shards(1)
    return run_shard(shard, {}, {}, Requests(of.metrics, True, frozenset()))


def test_a_sampler_takes_guidance_beside_grid_and_schedule() -> None:
    loaded = study(samplers=[{"name": "heun", "schedule": "vp-cosine", "grid": "log-snr", "guidance": REQUESTED}])
    (choice,) = loaded.blocks()[0].samplers
    assert choice.guidance == ClassLabel((2, 3), 1.5)
    assert Study.from_spec(json.loads(json.dumps(loaded.spec()))) == loaded
    (point,) = points_of(loaded)
    assert point.labels["sampler"] == "heun | class-label(labels=(2, 3),weight=1.5) on vp-cosine"
    assert point.labels["dataset"] == "eight_gaussians | labels 2,3"
    assert point.target == EightGaussians().of_classes((2, 3))


@pytest.mark.parametrize(
    ("guidance", "place", "expected"),
    [
        ("class-lable", "at samplers[0].guidance", "unknown guidance 'class-lable'; did you mean 'class-label'?"),
        ("{name: class-label, label: 2}", "at samplers[0].guidance.label", "did you mean 'labels'?"),
        ("{name: class-label, labels: -1}", "at samplers[0].guidance", "labels from 0 on"),
        ("{name: class-label, labels: two}", "at samplers[0].guidance.labels", "found 'two'"),
        ("{name: class-label, weight: .inf}", "at samplers[0].guidance.weight", "a finite number"),
        (
            "{name: class-label, labels: 8}",
            "at samplers[0].guidance",
            "'class-label' can guide no model of the study: dataset 'eight_gaussians' has no label 8 (accepted: 0 to 7, all)",
        ),
        ("3", "at samplers[0].guidance", "expected the name of a guidance"),
    ],
)
def test_what_is_wrong_with_a_guidance_is_told_with_its_place(
    tmp_path: Path, guidance: str, place: str, expected: str
) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: s\ndatasets: [eight_gaussians]\nformulations: [exact]\nsteps: [3]\nmetrics: [energy]\n"
        f"samplers:\n- name: heun\n  guidance: {guidance}\n"
    )
    with pytest.raises(StudyError) as refused:
        load_study(tmp_path / "s.yaml")
    assert expected in str(refused.value)
    assert re.search(rf"s.yaml:8:\d+, {re.escape(place)}: ", str(refused.value))


def test_data_without_labels_and_metrics_that_see_nothing_of_the_conditioned_law_are_refused() -> None:
    with pytest.raises(StudyError, match="can guide no model of the study: dataset 'torus' has no labels"):
        study(datasets=["torus"], samplers=[{"name": "heun", "guidance": "class-label"}], metrics=["energy"])
    with pytest.raises(StudyError, match="'mode-coverage' can serve no dataset of the study"):
        study(samplers=[{"name": "heun", "guidance": "class-label"}])
    some = study(datasets=["torus", "eight_gaussians"], metrics=["energy"])
    reasons = {p.labels["dataset"]: p.impossible() for p in points_of(some) if p.guidance}
    assert reasons == {"torus | label 0": "dataset 'torus' has no labels", "eight_gaussians | label 0": None}


def test_guidance_is_part_of_a_points_id_only_where_there_is_one() -> None:
    plain = {point.id for point in points_of(study(samplers=["heun"]))}
    both = points_of(study())
    assert plain == {point.id for point in both if point.guidance is None}
    assert all("guidance" not in point.spec for point in both if point.guidance is None)
    other = guided(study(samplers=[{"name": "heun", "guidance": REQUESTED}]))
    assert {point.id for point in guided(study())}.isdisjoint(point.id for point in other)
    assert {point.cell.id for point in both} == {point.cell.id for point in other}


def test_exclusions_may_speak_of_guidance() -> None:
    assert not guided(study(exclude=[{"guidance": "class-label", "dataset": "eight_gaussians"}]))
    assert len(points_of(study(exclude=[{"guidance": "none"}]))) == len(guided(study()))


def test_guided_answers_are_measured_against_the_conditioned_law() -> None:
    """Against the whole ring, samples of one bump score more than one."""
    found = {a.point.labels["dataset"]: a for a in answers(study(steps=[20])).points}
    one = found["eight_gaussians | label 0"]
    assert one.error is None
    assert "mode-coverage" not in one.metrics
    assert one.metrics["energy"] < 0.1
    assert one.metrics["energy_limit"] < 0.1
    assert one.samples is not None
    whole = EnergyDistance()
    assert whole.evaluate(torch.from_numpy(one.samples).double(), EightGaussians()) > 1
    assert one.metrics["energy_floor"] < found["eight_gaussians"].metrics["energy_floor"]
    assert found["eight_gaussians"].metrics["mode-coverage_floor"] > 0
    assert one.nfe == found["eight_gaussians"].nfe  # the exact classifier asks no network


def test_metrics_of_the_denoiser_itself_are_not_filed_under_the_conditioned_law() -> None:
    found = answers(study(metrics=["energy", "score-error", "nll", "elbo"], formulations=[CHAIN])).points
    assert len(found) == 2
    for answer in found:
        assert answer.error is None
        columns = {name for name in answer.metrics if "_" not in name}
        own = set() if answer.point.guidance else {"score-error", "nll", "elbo"}
        assert columns == {"energy", *own}
    (point,) = (answer.point for answer in found if answer.point.guidance)
    assert {point.refuses(metric) for metric in study(metrics=["score-error", "nll"]).metrics} == {
        "it looks at the denoiser itself, without guidance"
    }


def test_guided_and_plain_points_start_from_the_same_noise_and_do_not_share_a_question() -> None:
    """With weight 0 the numbers are those without guidance."""
    nothing = {"name": "class-label", "weight": 0.0}
    found = answers(study(samplers=["heun", {"name": "heun", "guidance": nothing}], metrics=["energy"])).points
    assert [a.point.guidance is None for a in found] == [True, False]
    np.testing.assert_array_equal(found[0].samples, found[1].samples)


# --- models that are conditioned on labels ------------------------------------------------------------

CONDITIONAL: dict[str, Any] = {
    **BASE,
    "formulations": ["class-conditional", "edm", {"name": "class-conditional", "of": "flow", "drop": 0.3}],
    "training": {"steps": 12, "batch": 16, "width": 16, "depth": 2, "data": 80},
    "samplers": [
        "heun",
        {"name": "heun", "guidance": {"name": "classifier-free", "labels": 3, "weight": 2.0}},
        {"name": "ddim", "guidance": {"name": "observation", "values": 0.5, "likelihood": "moments"}},
        {"name": "dpmpp-2m", "guidance": {"name": "inpainting", "values": 0.5}},
        {"name": "ddim", "guidance": {"name": "trained-classifier", "steps": 5, "batch": 8, "width": 8, "depth": 1}},
    ],
    "seeds": 2,
    "samples": 60,
    "metrics": ["energy"],
}


def outcomes_of(answer: ShardAnswer) -> dict[str, tuple[Any, ...]]:
    """Everything said of each point but the time it took."""
    return {
        a.point.id: (a.error, a.nfe, a.metrics, a.samples is not None and a.samples.tobytes()) for a in answer.points
    }


def answered(jobs: Sequence[Job], of: Study, weights: dict[str, bytes] | None = None) -> ShardAnswer:
    data = {data_key(job.cell): training_set(job.cell) for job in jobs if job.train}
    return run_shard(Shard(tuple(jobs)), data, weights or {}, Requests(of.metrics, True, frozenset()))


def conditional_jobs(of: Study) -> list[Job]:
    plan = make_plan(of, {}, ())
    return [job for job in plan.jobs if job.cell.formulation.registered_name == "class-conditional"]


def test_what_a_model_is_not_told_is_skipped_with_the_reason() -> None:
    loaded = Study.from_spec(CONDITIONAL)
    reasons = {point.impossible() for point in points_of(loaded)}
    assert reasons == {
        None,
        "'edm' is not conditioned on the label; needed: a formulation that is, 'class-conditional'",
    }
    with pytest.raises(
        StudyError, match="'classifier-free' can guide no model of the study: 'edm' is not conditioned on the label"
    ):
        study(formulations=["edm"], samplers=[{"name": "heun", "guidance": "classifier-free"}], metrics=["energy"])
    with pytest.raises(StudyError, match=r"'class-conditional' can serve no dataset of the study.*'uniform' has none"):
        study(datasets=["uniform"], formulations=["class-conditional"], samplers=["heun"], metrics=["energy"])
    with pytest.raises(StudyError, match=re.escape("formulations[0].of: unknown formulation 'edn'")):
        study(formulations=[{"name": "class-conditional", "of": "edn"}])


def test_labels_travel_beside_the_same_data() -> None:
    """Under a key of their own; what is not labelled keeps its data."""
    cells = {
        point.cell for point in points_of(Study.from_spec(CONDITIONAL)) if point.cell.training and point.cell.seed == 0
    }
    plain = next(cell for cell in cells if cell.formulation.registered_name == "edm")
    found = next(cell for cell in cells if cell.formulation.registered_name == "class-conditional")
    assert data_key(plain)[:4] == ("eight_gaussians", 0, 80, "")
    assert data_key(found)[:4] == ("eight_gaussians", 0, 80, "labelled")
    assert data_key(found) != data_key(plain)
    x, labels = training_set(found)[:, :-1], training_set(found)[:, -1]
    np.testing.assert_array_equal(x, training_set(plain))
    np.testing.assert_array_equal(
        labels, EightGaussians().mode_of(torch.from_numpy(x)).numpy()
    )  # bumps that are far apart


def test_guided_answers_of_trained_models_do_not_depend_on_packing_and_resume_from_their_weights() -> None:
    loaded = Study.from_spec(CONDITIONAL)
    jobs = [job for job in conditional_jobs(loaded) if job.cell.labels["formulation"] == "class-conditional"]
    first = answered(jobs, loaded)
    whole = outcomes_of(first)
    assert len(whole) == 10
    assert all(error is None for error, *_ in whole.values())
    for some in (jobs[:1], jobs[::-1]):
        for point, said in outcomes_of(answered(some, loaded)).items():
            assert said == whole[point]
    weights = {cell.cell.id: cell.weights for cell in first.cells if cell.weights is not None}
    assert len(weights) == 2
    again = [Job(job.cell, job.points, train=False) for job in jobs]
    assert outcomes_of(answered(again, loaded, weights)) == whole


def test_evaluations_of_the_network_are_counted_whoever_asks() -> None:
    loaded = Study.from_spec(CONDITIONAL)
    nfe = {
        str(a.point.labels["sampler"]).partition("(")[0]: a.nfe
        for a in answered(conditional_jobs(loaded)[:1], loaded).points
    }
    assert nfe == {
        "heun": 5,
        "heun | classifier-free": 10,
        "ddim | observation": 3,
        "dpmpp-2m | inpainting": 3,
        "ddim | trained-classifier": 3,
    }


def test_the_specs_of_conditional_cells_come_back() -> None:
    for job in conditional_jobs(Study.from_spec(CONDITIONAL)):
        assert cell_of(json.loads(json.dumps(job.cell.spec))).id == job.cell.id
