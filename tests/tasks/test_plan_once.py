"""What a plan shares between seeds is what each point would say of itself; shards have bounds; a
target that cannot be sampled costs its own cells.
"""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.datasets import Uniform
from tasks.plan import Cell, Point, SamplingSettings, Shard, make_plan, points_of
from tasks.plan.cell import digest
from tasks.plan.shards import MOST_CELLS, packed
from tasks.study import Study, load_study
from tasks.work import DataKey, Requests, data_key, sweep_shard, train_shard, training_sets


def study(**changes: Any) -> Study:
    spec: dict[str, Any] = {
        "name": "trivial",
        "datasets": ["uniform"],
        "formulations": ["edm"],
        "seeds": 2,
        "training": {"steps": 1, "batch": 4, "width": 4, "depth": 1, "data": 20},
        "samplers": ["euler"],
        "steps": [1],
        "samples": 4,
        "metrics": ["w1"],
        "exclude": [{"formulation": "exact"}],
    }
    return Study.from_spec({**spec, **changes})


@pytest.mark.parametrize("name", ["smoke", "guidance", "schedules", "documents/tutorial-vae", "restoration"])
def test_an_id_is_the_digest_of_the_spec_that_the_point_has_by_itself(name: str) -> None:
    for point in points_of(load_study(name)):
        cell, question = point.cell, point.settings
        alone = Cell(cell.dataset, cell.formulation, cell.schedule, cell.seed, cell.training)
        asked = SamplingSettings(**{f.name: getattr(question, f.name) for f in dataclasses.fields(question)})
        assert alone.spec == cell.spec
        assert list(alone.spec) == list(cell.spec)
        assert digest(alone.spec) == cell.id
        assert digest(Point(alone, asked).spec) == point.id


def test_seeds_share_their_questions_and_differ_in_their_cells() -> None:
    points = points_of(study(seeds=3, steps=[1, 2]))
    assert len({id(point.settings) for point in points}) == 2
    assert len({point.cell.id for point in points}) == 3
    assert len({point.id for point in points}) == 6


def test_a_shard_has_at_most_so_many_cells_and_all_are_in_one() -> None:
    jobs = list(make_plan(study(seeds=2 * MOST_CELLS + 5), {}, ()).jobs)
    shards = list(packed(jobs, target=1e9))
    assert [job for shard in shards for job in shard.jobs] == jobs
    assert max(len(shard.jobs) for shard in shards) == MOST_CELLS
    assert len(shards) == 3


@pytest.mark.parametrize("steps", [1, 10])
def test_a_plan_and_its_shards_hold_a_kilobyte_a_cell_and_less_than_half_of_one_a_point(steps: int) -> None:
    cells = 500
    asked = study(seeds=cells, steps=list(range(1, steps + 1)))
    make_plan(study(steps=list(range(1, steps + 1))), {}, ()).shards(2)  # what is remembered once for all
    tracemalloc.start()
    try:
        plan = make_plan(asked, {}, ())
        shards = plan.shards(2)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(len(shard.questions) for shard in shards) == len(plan.points) == cells * steps
    assert held < 1024 * (cells + 0.4 * len(plan.points))


def test_a_metric_of_the_model_is_work_and_one_of_samples_is_not() -> None:
    def work(*names: str) -> float:
        (job,) = make_plan(study(seeds=1, metrics=["w1", *names]), {}, ()).jobs
        return job.work()

    assert work() == work("ks")
    assert work("nll") > work("score-error") > work()


def test_the_limits_of_exact_flows_are_work_once_for_all_steps() -> None:
    def of(**changes: object) -> tuple[float, float, float]:
        """Work of the exact cell, of its points, and of one limit."""
        jobs = make_plan(study(seeds=1, datasets=["moons"], metrics=["energy"], exclude=[], **changes), {}, ()).jobs
        (job,) = (job for job in jobs if job.cell.exact)
        asked = sum(point.work() + point.measuring_work(job.metrics) for point in job.points)
        limited = [point for point in job.points if point.has_limit]
        return job.work(), asked, limited[0].limit_work() if limited else 0.0

    work, asked, limit = of(samplers=["euler"], steps=[1, 2, 4])
    assert limit > 0
    assert work - asked >= limit
    assert work - asked < 2 * limit  # steps share it


def test_an_exact_assignment_of_many_points_is_work() -> None:
    def work(points: int, dataset: str) -> float:
        metrics = [{"name": "w2", "points": points}]
        (job,) = make_plan(study(seeds=1, datasets=[dataset], samples=4000, metrics=metrics), {}, ()).jobs
        return job.work()

    assert work(4000, "eight_gaussians") - work(2000, "eight_gaussians") > 5  # it grows with the cube
    assert work(4000, "uniform") == work(2000, "uniform")  # sorted


@dataclasses.dataclass(frozen=True)
class Unsampled(Uniform):
    """A target whose points cannot be drawn."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        raise OSError("the instrument is switched off")


def test_a_target_that_cannot_be_sampled_costs_its_own_cells_and_no_others() -> None:
    good = list(make_plan(study(), {}, ()).jobs)
    job = good[0]
    lost_cell = dataclasses.replace(job.cell, dataset=Unsampled(low=-1.0))
    lost = dataclasses.replace(job, cell=lost_cell, points=(Point(lost_cell, job.points[0].settings),))
    shard = Shard((lost, *good))
    cells: Mapping[DataKey, Cell] = {data_key(one.cell): one.cell for one in shard.jobs}
    trained_cells: list[int] = []

    def told(_seconds: float, cells: int, _points: int, _doing: str = "", /) -> None:
        trained_cells.append(cells)

    trained = train_shard(shard, training_sets(cells), told)
    errors = {answer.cell.id: answer.error for answer in trained.cells}
    assert "generating the data failed: OSError: the instrument is switched off" in str(errors.pop(lost_cell.id))
    assert set(errors.values()) == {None}
    assert [answer.point.cell.id for answer in trained.points] == [lost_cell.id]
    alone = train_shard(Shard(tuple(good)), training_sets({data_key(one.cell): one.cell for one in good}))
    assert trained.weights == alone.weights
    assert sum(trained_cells) == 3
    swept = sweep_shard(Shard(tuple(good)), trained.weights, Requests(study().metrics, False, frozenset()))
    assert all(answer.error is None for answer in swept.points)


@dataclasses.dataclass(frozen=True)
class Nameless(Uniform):
    """U[low, high], of which a table says no more than that."""

    def label(self) -> str:
        return "mine"


def test_two_data_sets_of_one_label_have_a_training_set_each() -> None:
    (job, *_) = make_plan(study(seeds=1), {}, ()).jobs
    near, far = (dataclasses.replace(job.cell, dataset=Nameless(low, low + 1)) for low in (0.0, 50.0))
    assert near.labels == far.labels
    sets = training_sets({data_key(cell): cell for cell in (near, far)})
    assert len(sets) == 2
    means = [float(np.mean(np.asarray(sets[data_key(cell)]))) for cell in (near, far)]
    assert means[0] < 1 < 50 < means[1]
    again = dataclasses.replace(job.cell, dataset=Nameless(0.0, 1.0))
    assert data_key(again) == data_key(near)
