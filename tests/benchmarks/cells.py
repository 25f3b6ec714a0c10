"""What a cell costs beside its arithmetic: planned, trained for a step, asked once, committed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffusion.analysis.flow_limit import flow_limits
from diffusion.datasets import Uniform
from diffusion.models import ExactDenoiser
from diffusion.schedules import EDM
from tasks.plan import make_plan
from tasks.plan.cell import digest
from tasks.results.rows import swept_rows, trained_rows
from tasks.store import Store
from tasks.study import Study
from tasks.work import Requests, data_key, sweep_shard, train_shard, training_sets
from tests.benchmarks.pairs import Ratio, paired


def trivial(cells: int, **changes: Any) -> Study:
    return Study.from_spec(
        {
            "name": "trivial",
            "datasets": ["uniform"],
            "formulations": ["edm"],
            "seeds": cells,
            "training": {"steps": 1, "batch": 8, "width": 8, "depth": 1, "data": 16},
            "samplers": ["euler"],
            "steps": [1],
            "samples": 16,
            "metrics": ["w1"],
            "exclude": [{"formulation": "exact"}],
            **changes,
        }
    )


def _of_one(ratio: Ratio, times: int) -> Ratio:
    middle, low, high = ratio
    return middle / times, low / times, high / times


def planning() -> Ratio:
    """A plan of 10,000 cells with ten questions each over the hashes of its specs alone."""
    study = trivial(10_000, steps=list(range(1, 11)))
    specs = [point.spec for point in make_plan(trivial(100, steps=list(range(1, 11))), {}, ()).points]
    hashed = paired(lambda: make_plan(study, {}, ()), lambda: [digest(spec) for spec in specs], 3, time.process_time)
    return _of_one(hashed, 100)


def planning_grows() -> Ratio:
    """A cell of a plan of 10,000 over one of a plan of 1,000."""
    large, small = trivial(10_000), trivial(1_000)
    return _of_one(paired(lambda: make_plan(large, {}, ()), lambda: make_plan(small, {}, ()), 3, time.process_time), 10)


def _carried_through(study: Study) -> None:
    """Generated, trained, swept and committed, without Prefect and Ray."""
    requests = Requests(study.metrics, False, frozenset())
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(str(Path(folder) / "store"))
        with store.coordinate() as coordinator:
            for shard in make_plan(study, {}, ()).shards(2):
                trained = train_shard(shard, training_sets({data_key(job.cell): job.cell for job in shard.jobs}))
                coordinator.commit(trained_rows(trained), "trained", {})
                swept = sweep_shard(shard, trained.weights, requests)
                coordinator.commit(swept_rows(swept, {}), "swept", {})


def cells_grow() -> Ratio:
    """A trivial cell among 2,000 over one among 200, from its data to the store."""
    large, small = trivial(2_000), trivial(200)
    return _of_one(paired(lambda: _carried_through(large), lambda: _carried_through(small), 3, time.process_time), 10)


def limits_together() -> Ratio:
    """The limits of 32 seeds of 16 samples followed as one stack over one by one."""
    target, schedule, seeds = Uniform(), EDM(), 32
    generator = torch.Generator().manual_seed(1)
    start = schedule.prior_std * torch.randn(seeds, 16, 1, generator=generator, dtype=torch.float64)

    def together() -> None:
        flow_limits(ExactDenoiser([target] * seeds), start, [schedule] * seeds, [target.std] * seeds)

    def one_by_one() -> None:
        for one in start:
            flow_limits(ExactDenoiser([target]), one[None], [schedule], [target.std])

    return paired(together, one_by_one, 3, time.process_time)


MEASURES: tuple[tuple[str, Callable[[], Ratio]], ...] = (
    ("planning 100,000 points of 10,000 cells / hashing their specs", planning),
    ("planning a cell: among 10,000 / among 1,000", planning_grows),
    ("a trivial cell, data to store: among 2,000 / among 200", cells_grow),
    ("limits of 32 exact cells of 16 samples: together / one by one", limits_together),
)
"""Lines for the table of `tests.benchmarks.run`."""
