"""Guidance in a study: read with its place, planned with ids of its own, compared with the conditioned law."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from diffusion.datasets import EightGaussians, GaussianMixture
from diffusion.guidance import ClassLabel
from diffusion.metrics import EnergyDistance
from tasks.plan import Point, make_plan, points_of
from tasks.report.targets import target_of
from tasks.study import Study, StudyError, load_study
from tasks.work import ShardAnswer, Wanted, run_shard

if TYPE_CHECKING:
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
ASKED = {"name": "class-label", "labels": [2, 3], "weight": 1.5}


def study(**changes: Any) -> Study:
    return Study.from_spec({**BASE, **changes})


def guided(of: Study) -> list[Point]:
    return [point for point in points_of(of) if point.guidance]


def answers(of: Study) -> ShardAnswer:
    (shard,) = make_plan(of, {}, ()).shards(1)
    return run_shard(shard, {}, {}, Wanted(of.metrics, True, frozenset()))


def test_a_sampler_takes_guidance_beside_grid_and_schedule() -> None:
    loaded = study(samplers=[{"name": "heun", "schedule": "vp-cosine", "grid": "log-snr", "guidance": ASKED}])
    (choice,) = loaded.blocks()[0].samplers
    assert choice.guidance == ClassLabel((2, 3), 1.5)
    assert Study.from_spec(json.loads(json.dumps(loaded.spec()))) == loaded
    (point,) = points_of(loaded)
    assert point.labels["sampler"] == "heun | class-label(labels=(2, 3),weight=1.5) on vp-cosine"
    assert point.labels["dataset"] == "eight_gaussians | labels 2,3"
    assert point.target == EightGaussians().of_classes((2, 3))


@pytest.mark.parametrize(
    ("guidance", "place", "told"),
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
    tmp_path: Path, guidance: str, place: str, told: str
) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: s\ndatasets: [eight_gaussians]\nformulations: [exact]\nsteps: [3]\nmetrics: [energy]\n"
        f"samplers:\n- name: heun\n  guidance: {guidance}\n"
    )
    with pytest.raises(StudyError) as refused:
        load_study(tmp_path / "s.yaml")
    assert told in str(refused.value)
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
    other = guided(study(samplers=[{"name": "heun", "guidance": ASKED}]))
    assert {point.id for point in guided(study())}.isdisjoint(point.id for point in other)
    assert {point.cell.id for point in both} == {point.cell.id for point in other}


def test_exclusions_may_speak_of_guidance() -> None:
    assert not guided(study(exclude=[{"guidance": "class-label", "dataset": "eight_gaussians"}]))
    assert len(points_of(study(exclude=[{"guidance": "none"}]))) == len(guided(study()))


def test_guided_answers_are_measured_against_the_conditioned_law() -> None:
    """Against the whole ring, samples of one bump score more than one."""
    told = {a.point.labels["dataset"]: a for a in answers(study(steps=[20])).points}
    one = told["eight_gaussians | label 0"]
    assert one.error is None
    assert "mode-coverage" not in one.metrics
    assert one.metrics["energy"] < 0.1
    assert one.metrics["energy_limit"] < 0.1
    assert one.samples is not None
    whole = EnergyDistance()
    assert whole.evaluate(torch.from_numpy(one.samples).double(), EightGaussians()) > 1
    assert one.metrics["energy_floor"] < told["eight_gaussians"].metrics["energy_floor"]
    assert told["eight_gaussians"].metrics["mode-coverage_floor"] > 0
    assert one.nfe == told["eight_gaussians"].nfe  # the exact classifier asks no network


def test_guided_and_plain_points_start_from_the_same_noise_and_do_not_share_a_question() -> None:
    """With weight 0 the numbers are those without guidance."""
    nothing = {"name": "class-label", "weight": 0.0}
    found = answers(study(samplers=["heun", {"name": "heun", "guidance": nothing}], metrics=["energy"])).points
    assert [a.point.guidance is None for a in found] == [True, False]
    np.testing.assert_array_equal(found[0].samples, found[1].samples)


def test_the_report_finds_the_conditioned_law() -> None:
    spec = study(samplers=["heun", {"name": "heun", "guidance": ASKED}]).spec()
    law = target_of("eight_gaussians | labels 2,3", spec).law
    assert isinstance(law, GaussianMixture)
    assert len(law.weights) == 2
    assert target_of("eight_gaussians | label 7", spec).missing == "no guidance of the study is called 'label 7'"
    assert target_of("eight_gaussians", spec).law == EightGaussians()
