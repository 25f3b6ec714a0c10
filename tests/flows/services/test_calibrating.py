"""A worker is asked how fast its device is, before work is packed for it. A real Ray, whose processor
stands for a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flows.calibrating import asked_of, calibrated, samples_of
from flows.events import Event, Hindered, Waiting
from flows.resources import Claims
from flows.services import ray_cluster
from tasks.plan import Job, make_plan
from tasks.plan.shards import stack_key
from tasks.study import Study
from tasks.work.code import code_here
from tests.tasks.tiny_store import SPEC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ON_PROCESSORS = Claims({}, {"train": "cpu", "sweep": "cpu"})


@pytest.fixture(scope="module")
def ray_of_ours(home: Path) -> Iterator[Any]:  # noqa: ARG001
    with ray_cluster(None, 1, {}):
        import ray

        yield ray


def jobs() -> tuple[Job, ...]:
    return make_plan(Study.from_spec(SPEC), {}, ()).jobs


def test_a_worker_measures_every_kind_of_a_plan_and_what_it_says_is_steady(ray_of_ours: Any, home: Path) -> None:  # noqa: ARG001
    kinds = samples_of(jobs(), 1)
    assert kinds.keys() == {stack_key(job.cell) for job in jobs()}
    said: list[Event] = []
    found = asked_of("sweep", kinds, ON_PROCESSORS, code_here(), said.append, 120)
    assert said == [Waiting("cpu is asked how fast it works, for at most 120 s")]
    assert found.keys() == kinds.keys()
    assert all(pace == pace.steady() for pace in found.values())
    assert any(pace.train != 1 for pace in found.values())
    assert len(list((home / "paces").glob("*.json"))) == len(kinds)
    plan = make_plan(Study.from_spec(SPEC), {}, ())
    asked = [job.cell.id for shard in plan.shards(1, found) for job in shard.jobs]
    assert sorted(asked) == sorted(job.cell.id for job in plan.jobs)


def test_a_device_that_does_not_answer_in_time_is_taken_as_planned(ray_of_ours: Any) -> None:  # noqa: ARG001
    said: list[Event] = []
    assert asked_of("train", samples_of(jobs(), 1), ON_PROCESSORS, code_here(), said.append, 0.0) == {}
    assert said[1:] == [Hindered("cpu was not measured (GetTimeoutError): shards are sized as planned")]


def test_processors_are_not_measured() -> None:
    said: list[Event] = []
    assert calibrated(jobs(), ON_PROCESSORS, code_here(), said.append) == {}
    assert said == []
