"""What an exact answer about points costs is planned as its arithmetic is. Here the elements are
counted that operations go over, and no second is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusion.datasets import Dataset, LinearSubspace, Noised, PointSet, Standardised
from diffusion.datasets.own import own_points
from diffusion.formulations import Exact
from diffusion.randomness import stream
from diffusion.schedules import EDM
from diffusion.schedules.grids import grids
from tasks.plan import Cell, Job, make_plan
from tasks.plan.cost import seconds_per_evaluation
from tasks.study import Study

FASTEST, SLOWEST = 0.25e-9, 5e-9
"""Seconds of a core for an element that an operation goes over: of any machine, and of products and
exponentials alike."""


STARTED = 1500
"""So many elements cost as much as the start of an operation."""


class _Elements(TorchDispatchMode):
    """Counts the elements of the largest tensor of each operation, and its start, views aside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            sizes = (x.numel() for x in tree_leaves((args, found)) if isinstance(x, Tensor))
            self.count += STARTED + max(sizes, default=0)
        return found


def points_of(count: int, dim: int) -> PointSet:
    return own_points(torch.randn(count, dim, generator=stream("points", count, dim), dtype=torch.float64))


def gone_over(law: PointSet) -> float:
    """Elements for one sample, in the mean over every third level of 18 steps of EDM."""
    samples = 40 if law.dim > 15 else 160  # a block, where they do not go one by one
    schedule = EDM()
    generator = stream("asked")
    law.denoise(law.points[:1], 1.0, 1.0)  # type: ignore[arg-type] # what is computed once
    with _Elements() as elements:
        levels = grids.create(schedule.own_grid).times(schedule, 18)[:-1:3]
        for sigma in levels.tolist():
            clean = law.points[torch.randint(len(law.points), (samples,), generator=generator)]
            noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
            level = torch.full((samples,), sigma, dtype=torch.float64)
            law.denoise(clean + sigma * noise, torch.ones_like(level), level)
    return float(elements.count) / (samples * len(levels))


def planned(law: Dataset) -> float:
    """Seconds of a core for one sample."""
    schedule = EDM()
    return seconds_per_evaluation(Cell(law, Exact(schedule), schedule, 0, None))


@pytest.mark.parametrize(("dim", "tolerance"), [(1, 0.1), (2, 0.1), (3, 0.1), (8, 0.1), (64, 0.4)])
def test_an_exact_answer_is_planned_to_grow_with_the_points_as_its_arithmetic_does(dim: int, tolerance: float) -> None:
    laws = [points_of(count, dim) for count in (400, 1600)]
    counted, said = [gone_over(law) for law in laws], [planned(law) for law in laws]
    for elements, seconds in zip(counted, said, strict=True):
        assert FASTEST < seconds / elements < SLOWEST
    assert said[1] / said[0] == pytest.approx(counted[1] / counted[0], rel=tolerance)


def test_coordinates_cost_what_their_arithmetic_does() -> None:
    """In few dimensions an answer goes over all pairs once more, and again, for each of them."""
    few, many = (points_of(1200, dim) for dim in (2, 8))
    assert planned(many) / planned(few) == pytest.approx(gone_over(many) / gone_over(few), rel=0.3)


def test_a_law_around_points_costs_no_less_than_they_do() -> None:
    points = points_of(2000, 2)
    bare = planned(points)
    assert planned(Noised(points, sigma=0.1)) == planned(LinearSubspace(points, dim=5)) == bare
    assert planned(Standardised(points)) == bare
    assert planned(Noised(points_of(4000, 2), sigma=0.1)) > 1.9 * bare


def exact_job(folder: Path, count: int) -> Job:
    """The exact cell of a study on a file of so many points of the plane."""
    path = folder / f"{count}.npy"
    np.save(path, points_of(count, 2).points.numpy())
    spec: dict[str, Any] = {
        "name": "own",
        "datasets": [{"name": "from_file", "path": str(path)}],
        "formulations": ["edm"],
        "seeds": 1,
        "training": {"steps": 10, "batch": 16, "width": 8, "depth": 1, "data": 50},
        "samplers": ["heun"],
        "steps": [18],
        "samples": 10_000,
        "metrics": ["energy"],
    }
    (job,) = (job for job in make_plan(Study.from_spec(spec), {}, ()).jobs if job.cell.exact)
    return job


def test_the_work_of_an_exact_cell_grows_with_the_file(tmp_path: Path) -> None:
    sizes = (500, 1000, 2000, 4000)
    jobs = [exact_job(tmp_path, count) for count in sizes]
    work = [job.work() for job in jobs]
    slopes = [(work[i + 1] - work[i]) / (sizes[i + 1] - sizes[i]) for i in range(3)]
    assert slopes == pytest.approx([slopes[0]] * 3, rel=1e-6)
    assert work[3] / work[2] > 1.9  # the points are nearly all of it
    (point,) = jobs[2].points
    evaluations = point.sampler.evaluations(18) * point.samples * 2000
    assert 5e-9 < point.work() / evaluations < 1e-7  # seconds for a pair of a sample and a point
