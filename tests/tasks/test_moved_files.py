"""A file that lies elsewhere is the same target: one id has one set of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tasks.data  # noqa: F401 - registers all data sets
from diffusion.datasets import Dataset, LinearSubspace, Noised, Standardised, datasets, observed
from diffusion.datasets.classes import EqualClasses, OneClass
from diffusion.datasets.observed import Observation
from diffusion.datasets.own import own_points
from diffusion.datasets.standardised import Moved
from diffusion.metrics import Metric, ModelMetric, metrics
from diffusion.metrics.base import reference_sample
from diffusion.models import ExactDenoiser
from diffusion.registry import identity_text, spec_text, stream_text
from diffusion.schedules import EDM
from tasks.data.from_file import FromFile, Images
from tasks.plan import make_plan
from tasks.study import Study

POINTS = np.random.default_rng(0).normal(size=(60, 2))


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """The same points in two folders."""
    found = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "points.npy", POINTS)
        found.append(str(tmp_path / folder / "points.npy"))
    return found


IN_A_LAW: dict[str, Callable[[Dataset], Dataset]] = {
    "itself": lambda file: file,
    "standardised": Standardised,
    "standardised each": lambda file: Standardised(file, each=True),
    "moved points": lambda file: Standardised(file).working,
    "moved": lambda file: Moved(file, Standardised(file).frame),
    "noised": Noised,
    "twice": lambda file: Noised(LinearSubspace(file, 4)),
    "subspace": lambda file: LinearSubspace(file, 4),
    "observed": lambda file: observed(Noised(file), Observation((0,), (0.0,), 0.5)),
}


@pytest.mark.parametrize("law", IN_A_LAW)
def test_streams_and_the_sample_that_stands_for_a_target_are_those_of_the_content(law: str, places: list[str]) -> None:
    here, there = (IN_A_LAW[law](FromFile(path)) for path in places)
    assert here != there
    assert stream_text(here) == stream_text(there)
    assert not any(path in stream_text(one) for one in (here, there) for path in places)
    assert np.array_equal(reference_sample(here, 50), reference_sample(there, 50))
    other = IN_A_LAW[law](FromFile(moved_by(places[0], 1e-9)))
    assert stream_text(other) != stream_text(here)


def moved_by(path: str, far: float) -> str:
    found = Path(path).with_name("other.npy")
    np.save(found, POINTS + np.array([0.0, far]) * np.arange(60)[:, None])
    return str(found)


def test_images_too_and_an_array_of_a_file_by_its_content(tmp_path: Path, places: list[str]) -> None:
    np.savez(tmp_path / "many.npz", first=POINTS, second=POINTS[:5])
    assert stream_text(FromFile(str(tmp_path / "many.npz"), "first")) == stream_text(FromFile(places[0]))
    np.save(tmp_path / "a.npy", POINTS.reshape(10, 3, 4))
    np.save(tmp_path / "b.npy", POINTS.reshape(10, 3, 4))
    a, b = Images(str(tmp_path / "a.npy")), Images(str(tmp_path / "b.npy"))
    assert stream_text(a) == stream_text(b)


@pytest.mark.parametrize("name", [entry.name for entry in metrics if entry.has_defaults])
def test_every_metric_gives_one_number_and_one_floor_wherever_the_file_lies(name: str, places: list[str]) -> None:
    small = {
        "c2st": {"points": 50, "epochs": 40},
        "elbo": {"batch": 64},
        "nll": {"batch": 16},
        "score-error": {"count": 3},
    }
    metric = metrics.create(name, **small.get(name, {}))
    here, there = (FromFile(path) for path in places)
    if metric.refuses(here):
        assert metric.refuses(here) == metric.refuses(there)
    elif isinstance(metric, Metric):
        x = torch.as_tensor(POINTS[::-1].copy()[:40]) * 1.5
        assert metric.evaluate(x, here) == metric.evaluate(x, there)
        assert metric.floor(here, 40) == metric.floor(there, 40)
    elif isinstance(metric, ModelMetric) and isinstance(ExactDenoiser([here]), metric.needs):
        model, schedule = ExactDenoiser([Noised(here)]), EDM()  # another's, so that there is an error
        found = [metric.evaluate(model, place, schedule) for place in (here, there)]
        assert found[0] == found[1]
        assert not math.isnan(found[0])


def test_ids_are_the_same_in_both_folders_and_not_those_of_the_first_version(places: list[str]) -> None:
    spec: dict[str, Any] = {
        "name": "files",
        "formulations": ["exact"],
        "samplers": ["heun"],
        "steps": [3],
        "samples": 10,
        "metrics": ["energy"],
    }
    here, there = (
        make_plan(Study.from_spec({**spec, "datasets": [{"name": "from_file", "path": path}]}), {}, ())
        for path in places
    )
    assert [point.id for point in here.points] == [point.id for point in there.points]
    assert FromFile(places[0]).identity()["version"] == Images.version == 2


def test_streams_of_other_targets_are_named_as_they_always_were() -> None:
    """By the spec, to the letter: their reference samples and floors are those that stores have."""
    for entry in datasets:
        if entry.has_defaults:
            for one in (entry.cls(), Noised(entry.cls())):
                assert stream_text(one) == spec_text(one)
    assert {entry.name for entry in datasets if entry.cls.stream_spec is not Dataset.stream_spec} == {
        "from_file",
        "images",
    }
    digits = datasets.create("digits")
    for one in (OneClass(digits, 3), EqualClasses(digits, (1, 2))):
        assert stream_text(one) == spec_text(one)


def test_points_in_memory_are_named_by_their_digest_alone() -> None:
    """A model that an earlier version saved has no deviations of each coordinate."""
    own = own_points(torch.as_tensor(POINTS))
    assert stream_text(own) == stream_text(replace(own, stds=None))
    assert stream_text(own) != stream_text(own_points(torch.as_tensor(POINTS[1:])))
    assert identity_text(own) == identity_text(replace(own, stds=None))
