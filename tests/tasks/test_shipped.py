"""The studies that are shipped: each is valid, asks what can be answered, and those of the seed documents really run."""

from __future__ import annotations

import math
import time
from collections import Counter

import pytest
import torch

from diffusion.metrics import metrics as known_metrics
from tasks.collection import Member, load_collection
from tasks.plan import make_plan
from tasks.study import Study, load_study
from tasks.study_file import SHIPPED, shipped_studies
from tasks.work import Wanted, data_key, run_shard, training_set

SMALL = ("seeds=1", "samples=40", "training.steps=4", "training.batch=8", "training.width=8", "training.data=60")
SMALLER = {  # what takes its time beside the networks
    "seeds/notes-guidance": ("grids[0].samplers[4].guidance.steps=4",),
    "seeds/slides-likelihood": (
        "formulations=[edm]",
        "metrics=[{name: nll, batch: 8}, {name: bits-per-dim, batch: 8}]",
    ),
}


def seed_studies() -> list[str]:
    return [name for name in shipped_studies() if name.startswith("seeds/")]


def members(name: str, *overrides: str) -> tuple[Member, ...]:
    return load_collection(name, overrides).members


@pytest.mark.parametrize("name", shipped_studies())
def test_a_shipped_study_is_valid_says_what_it_is_and_is_called_as_its_file(name: str) -> None:
    collection = load_collection(name)
    assert collection.description
    called = collection.name or collection.members[0].study.name
    assert called == name.rpartition("/")[2]
    comment = (SHIPPED / f"{name}.yaml").read_text().splitlines()[0]
    assert comment.startswith("# ")


@pytest.mark.parametrize("name", [name for name in shipped_studies() if name != "seeds"])
def test_what_a_shipped_study_asks_can_be_answered(name: str) -> None:
    """Those of the seed documents ask nothing that is impossible; others may cross axes of which some do not go together, with the
    reason, as long as most of it can be answered and every model is of some use.
    """
    (member,) = members(name)
    plan = make_plan(member.study, {}, ())
    assert plan.points
    if name in seed_studies():
        assert dict(Counter(plan.impossible.values())) == {}
    assert all(plan.impossible.values())
    assert len(plan.impossible) < len(plan.points) / 2
    assert {job.cell.id for job in plan.jobs} >= {i for i, cell in plan.cells.items() if cell.training}


@pytest.mark.parametrize("name", [name for name in shipped_studies() if name != "seeds"])
def test_every_shipped_study_asks_for_the_likelihood_where_a_model_has_one(name: str) -> None:
    (member,) = members(name)
    plan = make_plan(member.study, {}, ())
    likelihood = known_metrics.create("nll")
    has_one = any(point.refuses(likelihood) is None for point in plan.points if point.id not in plan.impossible)
    assert has_one == ("nll" in {metric.registered_name for metric in member.study.metrics})
    assert has_one or member.study.name in {
        "restoration",
        "tutorial-indi",
    }  # what restores knows data and their observation


@pytest.mark.parametrize("name", [name for name in shipped_studies() if name not in {"seeds", *seed_studies()}])
def test_every_comparison_in_the_plane_or_of_digits_has_an_autoencoder_as_its_baseline(name: str) -> None:
    """Where models are trained whose samples are made from noise; what is steered or restored answers another question."""
    (member,) = members(name)
    compared = [
        point
        for point in make_plan(member.study, {}, ()).points
        if point.cell.training and (point.cell.dataset.dim == 2 or point.cell.dataset.registered_name == "digits")
    ]
    baselines = {point.cell.dataset.label() for point in compared if point.cell.formulation.registered_name == "vae"}
    if any(point.guidance is None and not point.cell.formulation.restores for point in compared):
        assert baselines == {point.cell.dataset.label() for point in compared} or name == "guidance"
    else:
        assert not baselines


def test_the_list_of_seed_studies_is_all_of_them() -> None:
    assert [member.source for member in members("seeds")] == sorted(seed_studies(), key=_document)


_DOCUMENTS = ("slides", "notes", "tutorial", "notebook", "talk")


def _document(name: str) -> tuple[int, int]:
    """The order of the list: document by document, within one as it is written there."""
    listed = [member.source for member in members("seeds")]
    return _DOCUMENTS.index(name.removeprefix("seeds/").partition("-")[0]), listed.index(name)


@pytest.mark.slow
def test_every_seed_study_runs_when_it_is_made_small() -> None:
    """By the functions that the flow calls, in this process; every answer is there and is a number."""
    threads, began = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(1)
    try:
        for member in members("seeds"):
            _run(member.source, load_study(member.source, (*SMALL, *SMALLER.get(member.source, ()))))
    finally:
        torch.set_num_threads(threads)
    assert time.monotonic() - began < 600  # a hang, not a benchmark


def _run(source: str, study: Study) -> None:
    plan = make_plan(study, {}, ())
    for shard in plan.shards(1):
        data = {data_key(job.cell): training_set(job.cell) for job in shard.jobs if job.cell.training}
        answer = run_shard(shard, data, {}, Wanted(study.metrics, study.keep.samples, frozenset()))
        errors = {told.error for told in answer.points if told.error}
        assert not errors, (source, errors)
        for told in answer.points:
            assert all(map(math.isfinite, told.metrics.values())), (source, told.point.labels, told.metrics)
