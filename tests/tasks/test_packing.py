"""No bit of a model or of an answer depends on the shard it lay in, nor on whether its weights were
stored on the way.

Of every registered trained formulation, with a sampler of its own kind, as a perceptron on points
of the plane and with each network for images on digits. The studies are made from the registries,
so that a new name is asked by being there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch

from diffusion.formulations import Trained, formulations
from diffusion.models import ExactDenoiser
from diffusion.networks import architectures
from diffusion.samplers import samplers
from diffusion.training import Training, train
from tasks.data import Digits
from tasks.plan import Cell, Job, Plan, Shard, make_plan
from tasks.study import Study
from tasks.work import Requests, data_key, stack_of, training_set
from tasks.work.stacks import member_of
from tests.tasks.in_one_process import run_shard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

pytestmark = pytest.mark.slow

FORMULATIONS: list[Any] = [
    e.name
    for e in formulations
    if issubclass(e.cls, Trained) and e.has_defaults and not e.cls.simulates  # these: test_posteriors
]
VARIANTS: list[Any] = [
    {"name": "action-matching", "kind": "entropic", "probes": 1},
    {"name": "action-matching", "kind": "unbalanced"},
    {"name": "indi", "degradation": {"name": "mask", "noise": 0.1}, "perturbation": 0.5},
    {"name": "class-conditional", "of": "edm2"},
    {"name": "implicit-score-matching", "trace": "hutchinson"},
]
OF_A_KIND = [e.name for e in samplers if not issubclass(ExactDenoiser, e.cls.needs) and e.has_defaults]
PLANE: dict[str, Any] = {
    "name": "packing",
    "datasets": ["eight_gaussians", "moons"],
    "formulations": [*FORMULATIONS, *VARIANTS],
    "seeds": 2,
    "training": {"steps": 5, "batch": 20, "width": 17, "depth": 2, "data": 60},
    "samplers": [
        "heun",
        "dpmpp-2m-sde",
        {"name": "annealed-langevin", "moves": 2},
        *OF_A_KIND,
        {"name": "ddim", "guidance": {"name": "classifier-free", "labels": 1, "weight": 2.0}},
    ],
    "steps": [3],
    "samples": 21,
    "metrics": [
        "energy",
        "restoration-error",
        {"name": "score-error", "count": 2},
    ],
    "exclude": [{"formulation": "exact"}],
}
CHEAPER = {"implicit-score-matching": {"name": "implicit-score-matching", "trace": "hutchinson"}}  # of many coordinates
NETWORKS = [entry.name for entry in architectures if entry.cls.of_images]


def refusal(name: str, network: str) -> str | None:
    """Why a formulation has no model of digits with this network, or None."""
    model, digits = formulations.create(name), Digits()
    training = Training(network=architectures.create(network))
    return Cell(digits, model, model.own_schedule().fitted(digits), 0, training).impossible()


def of_images(network: str) -> dict[str, Any]:
    return {
        **PLANE,
        "datasets": ["digits"],
        "formulations": [CHEAPER.get(name, name) for name in FORMULATIONS if refusal(name, network) is None],
        "training": {"network": network, "steps": 3, "batch": 10, "width": 8, "depth": 1, "data": 60},
        "samples": 5,
        "steps": [2],
        "metrics": ["energy", "restoration-error"],
    }


STUDIES = {"mlp": PLANE, **{network: of_images(network) for network in NETWORKS}}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


Outcomes = dict[str, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Run:
    """All that shards say, but for the time it took: of points by id, of cells by id, and the
    weights.
    """

    points: Outcomes
    cells: Outcomes
    unanswered: frozenset[str]
    weights: dict[str, bytes]


@functools.cache
def plan_of(network: str) -> tuple[Study, Plan]:
    study = Study.from_spec(STUDIES[network])
    return study, make_plan(study, {}, ())


def run(network: str, shards: Iterable[Shard], weights: dict[str, bytes]) -> Run:
    study, _ = plan_of(network)
    points, cells, unanswered, left = {}, {}, set(), {}
    for shard in shards:
        found = run_shard(shard, sets_of(shard.jobs), weights, Requests(study.metrics, True, frozenset()))
        unanswered |= set(found.unanswered)
        for a in found.points:
            samples = None if a.samples is None else a.samples.tobytes()
            points[a.point.id] = (a.error, a.nfe, json.dumps(a.metrics, sort_keys=True), samples)
        for cell in found.cells:
            assert cell.weights is not None, cell.error
            cells[cell.cell.id] = (cell.error, cell.losses, cell.loss_steps, cell.weights)
            left[cell.cell.id] = cell.weights
    return Run(points, cells, frozenset(unanswered), left)


def sets_of(jobs: Iterable[Job]) -> dict[Any, Any]:
    return {data_key(job.cell): training_set(job.cell) for job in jobs if job.train}


@functools.cache
def packed(network: str, way: Literal["together", "apart", "turned"]) -> Run:
    """What the plan puts into one shard; each cell alone; or every third cell, the last first."""
    _, plan = plan_of(network)
    if way == "apart":
        return run(network, [Shard((job,)) for job in plan.jobs], {})
    shards = plan.shards(1)
    if way == "turned":
        shards = [Shard(shard.jobs[i::3][::-1]) for shard in shards for i in range(min(3, len(shard.jobs)))]
    return run(network, shards, {})


@functools.cache
def resumed(network: str, every: int) -> Run:
    """As for one worker, who finds the weights of every so-manieth cell."""
    stored = packed(network, "together").weights
    shards = [
        Shard(tuple(Job(job.cell, job.points, train=i % every != 0) for i, job in enumerate(shard.jobs)))
        for shard in plan_of(network)[1].shards(1)
    ]
    return run(network, shards, stored)


# each network with the formulations that it serves in its study, as they are called there
REQUESTED = list(
    dict.fromkeys(
        (network, cell.formulation.label())
        for network in STUDIES
        for cell in plan_of(network)[1].cells.values()
        if cell.impossible() is None
    )
)
every_model = pytest.mark.parametrize(
    ("network", "formulation"),
    [
        pytest.param(*requested, id="-".join(requested), marks=pytest.mark.xdist_group(f"packing {requested[0]}"))
        for requested in REQUESTED
    ],
)


def of(network: str, formulation: str) -> tuple[list[Job], set[str]]:
    """The jobs of a formulation, and the ids of what is asked of it."""
    jobs = [job for job in plan_of(network)[1].jobs if job.cell.formulation.label() == formulation]
    return jobs, {point.id for job in jobs for point in job.points}


def test_every_trained_formulation_is_asked_and_in_company() -> None:
    """Each on the plane; on images all but those that are refused; and several of them in one
    shard.
    """
    assert {formulations.create(name).label() for name in FORMULATIONS} <= {
        label for n, label in REQUESTED if n == "mlp"
    }
    for network in STUDIES:
        _, plan = plan_of(network)
        assert len([label for n, label in REQUESTED if n == network]) > 12
        assert all(len(shard.jobs) > 1 for shard in plan.shards(1))
        assert max(len({job.cell.formulation for job in shard.jobs}) for shard in plan.shards(1)) > 8


@every_model
def test_models_and_answers_do_not_depend_on_packing(network: str, formulation: str) -> None:
    """All in one shard that can be, each in a shard of its own, and something between in another
    order.
    """
    jobs, points = of(network, formulation)
    whole = packed(network, "together")
    assert points
    assert [whole.points[point][0] for point in points] == [None] * len(points)
    assert len({whole.weights[job.cell.id] for job in jobs}) == len(jobs)
    for way in ("apart", "turned"):
        other = packed(network, way)
        assert {job.cell.id for job in jobs if whole.cells[job.cell.id] != other.cells[job.cell.id]} == set()
        assert {point for point in points if whole.points[point] != other.points[point]} == set()
        assert whole.unanswered == other.unanswered


@every_model
def test_stored_weights_give_the_same_rows_and_answers(network: str, formulation: str) -> None:
    """Where all cells of a shard are read back, and where they stand beside others that are trained
    anew.
    """
    jobs, points = of(network, formulation)
    whole = packed(network, "together")
    for every in (1, 2):
        again = resumed(network, every)
        assert {point for point in points if whole.points[point] != again.points[point]} == set()
        assert whole.unanswered == again.unanswered
    cells: list[Cell] = [job.cell for job in jobs[:2]]
    read, sets, settings = (
        stack_of(cells, [whole.weights[cell.id] for cell in cells]),
        sets_of(jobs[:2]),
        cells[0].training,
    )
    assert settings is not None
    data = [torch.as_tensor(sets[data_key(cell)].copy()) for cell in cells]
    assert torch.equal(read.rows, train([member_of(cell) for cell in cells], data, settings).rows)
