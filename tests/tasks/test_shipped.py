"""The studies that are shipped: each is valid, asks what can be answered, and each really runs."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from diffusion.metrics import metrics as known_metrics
from tasks.columns import MetricColumns
from tasks.plan import Job, Plan, keeps_trajectory, make_plan
from tasks.study import Study
from tasks.study.collection import CollectedStudy, load_collection
from tasks.study.document import SHIPPED, shipped_studies
from tasks.work import PointAnswer, Requests, data_key, training_set
from tests.tasks.in_one_process import run_shard

LITTLE = {"steps": 4, "batch": 8, "width": 8, "depth": 1, "data": 60}  # what trains in no time
ROUGH = {"batch": 2, "tolerance": 0.1, "epochs": 3}  # of a likelihood and a classifier


def studies_of_the_documents() -> list[str]:
    return [name for name in shipped_studies() if name.startswith("documents/")]


@functools.cache
def members(name: str) -> tuple[CollectedStudy, ...]:
    return load_collection(name, ()).members


@functools.cache
def plan_of(name: str) -> Plan:
    (member,) = members(name)
    return make_plan(member.study, {}, ())


@pytest.mark.parametrize("name", shipped_studies())
def test_a_shipped_study_is_valid_says_what_it_is_and_is_called_as_its_file(name: str) -> None:
    collection = load_collection(name)
    assert collection.description
    called = collection.name or collection.members[0].study.name
    assert called == name.rpartition("/")[2]
    comment = (SHIPPED / f"{name}.yaml").read_text().splitlines()[0]
    assert comment.startswith("# ")


each = pytest.mark.parametrize("name", [name for name in shipped_studies() if name != "documents"])


@each
def test_what_a_shipped_study_asks_can_be_answered(name: str) -> None:
    """Those of the documents ask nothing that is impossible; others may cross axes of which some do
    not go together, with the reason, as long as most of it can be answered and every model is of
    some use.
    """
    plan = plan_of(name)
    assert plan.points
    if name in studies_of_the_documents():
        assert dict(Counter(plan.impossible.values())) == {}
    assert all(plan.impossible.values())
    assert len(plan.impossible) < len(plan.points) / 2
    assert {job.cell.id for job in plan.jobs} >= {i for i, cell in plan.cells.items() if cell.training}


@each
def test_every_shipped_study_asks_for_the_likelihood_where_a_model_has_one(name: str) -> None:
    (member,) = members(name)
    plan = plan_of(name)
    likelihood = known_metrics.create("nll")
    has_one = any(point.refuses(likelihood) is None for point in plan.points if point.id not in plan.impossible)
    asked = "nll" in {metric.registered_name for metric in member.study.metrics}
    if name == "posteriors":  # its points are held against published rows, whose measure is c2st, within half an hour
        assert not asked
        return
    assert has_one == asked
    assert has_one or member.study.name in {
        "restoration",
        "tutorial-indi",
        "couplings",
    }  # what restores knows data and their observation, and what starts from a data set, data on the way to it


@each
def test_every_comparison_in_the_plane_or_of_digits_has_an_autoencoder_as_its_baseline(name: str) -> None:
    """Where models are trained whose samples are made from noise; what is steered or restored, or
    starts from a data set, answers another question, and an autoencoder does not learn from
    simulations.
    """
    compared = [
        point
        for point in plan_of(name).points
        if point.cell.training and (point.cell.dataset.dim == 2 or point.cell.dataset.registered_name == "digits")
    ]
    baselines = {point.cell.dataset.label() for point in compared if point.cell.formulation.registered_name == "vae"}
    compared = [point for point in compared if not getattr(point.cell.formulation, "simulates", False)]
    compared = [point for point in compared if point.cell.formulation.start_distribution is None]
    if any(point.guidance is None and not point.cell.formulation.restores for point in compared):
        assert baselines == {point.cell.dataset.label() for point in compared}
    else:
        assert not baselines


def test_the_list_of_the_documents_has_all_their_studies() -> None:
    assert [member.source for member in members("documents")] == sorted(studies_of_the_documents(), key=_document)


_DOCUMENTS = ("slides", "notes", "tutorial", "notebook", "talk")


def _document(name: str) -> tuple[int, int]:
    """The order of the list: document by document, within one as it is written there."""
    listed = [member.source for member in members("documents")]
    return _DOCUMENTS.index(name.removeprefix("documents/").partition("-")[0]), listed.index(name)


def small(study: Study) -> Study:
    """The same questions of one seed, to models that are hardly trained, with few samples, at its
    two least step counts.
    """
    spec = study.spec()
    for axes in (spec, *spec["grids"]):
        for choice in axes.get("samplers") or ():
            if "batch" in (guidance := choice.get("guidance") or {}):  # it trains
                guidance |= {key: value for key, value in LITTLE.items() if key in guidance}
        if axes.get("training"):
            axes["training"] |= LITTLE
        if axes.get("steps"):
            axes["steps"] = sorted(axes["steps"])[:2]
        if axes.get("seeds"):
            axes["seeds"] = axes["seeds"][:1]
    kept = {name.partition("@")[0] for name in spec["keep"]["trajectories"]}
    steps = {steps for axes in (spec, *spec["grids"]) for steps in axes.get("steps") or ()}
    spec["keep"]["trajectories"] = [f"{name}@{n}" for name in sorted(kept) for n in sorted(steps)]
    for metric in spec["metrics"]:
        metric |= {key: value for key, value in ROUGH.items() if key in metric}
    return Study.from_spec({**spec, "samples": 30})


def covering(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Those that have a target, a formulation, a schedule, a sampler or a step count that none
    before has.
    """
    kept, seen = [], set[tuple[str, object]]()
    for job in jobs:
        values = {item for point in job.points for item in point.labels.items()}
        values = {(f"exact {axis}" if job.cell.exact else axis, value) for axis, value in values}
        if not values <= seen:
            kept.append(job)
            seen |= values
    return tuple(kept)


@pytest.mark.slow
@each
def test_every_shipped_study_runs_when_it_is_made_small(name: str) -> None:
    """By the functions that the flow calls, in this process: every answer that is possible is
    there, with what was asked of it. Where targets, formulations and schedules are crossed, each of
    them is there, and not each of their pairs.
    """
    (member,) = members(name)
    study = small(member.study)
    plan = make_plan(study, {}, ())
    plan = replace(plan, jobs=covering(plan.jobs))
    kept = frozenset(point.id for point in plan.points if keeps_trajectory(study, point))
    assert bool(kept) == bool(study.keep.trajectories)
    wanted, answered = Requests(study.metrics, study.keep.samples, kept), set()
    threads = torch.get_num_threads()
    try:
        for shard in plan.shards(1):
            data = {data_key(job.cell): training_set(job.cell) for job in shard.jobs if job.train}
            found = run_shard(shard, data, {}, wanted)
            assert not found.unanswered
            assert not [cell.error for cell in found.cells if cell.error]
            for answer in found.points:
                answered.add(answer.point.id)
                _is_answered(answer, study, wanted)
    finally:
        torch.set_num_threads(threads)
    assert answered == {point.id for job in plan.jobs for point in job.points}


def _is_answered(answer: PointAnswer, study: Study, wanted: Requests) -> None:
    """With a finite value and floor of each metric that is not refused, and of no other; with all
    that the study keeps.
    """
    point = answer.point
    found = (point.cell, point.labels["sampler"], point.steps, answer.metrics)
    assert answer.error is None, (*found, answer.error)
    assert answer.nfe >= 0, found
    requested = {metric.column for metric in study.metrics if point.refuses(metric) is None}
    columns = [MetricColumns(name) for name in requested]
    always = {name for of in columns for name in (of.name, of.floor, of.version)}
    assert always <= set(answer.metrics) <= always | {of.limit for of in columns}, found
    assert all(math.isfinite(answer.metrics[name]) for name in requested), found
    for name in requested:
        unknown = name == "restoration-error" and point.cell.formulation.least_error(point.cell.dataset) is None
        assert math.isfinite(answer.metrics[MetricColumns(name).floor]) != unknown, (name, *found)
    assert (answer.samples is not None) == wanted.samples
    assert (answer.trajectory is not None) == (point.id in wanted.trajectories)
