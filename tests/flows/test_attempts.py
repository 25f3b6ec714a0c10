"""Who is at fault when a task run ends without an answer, and how often what is tried again."""

from __future__ import annotations

import pytest
from ray import exceptions as of_ray

from flows.attempts import TRIES, Attempt, NotComputed, NothingEnded, of_a_machine, of_other_code, reason_of
from flows.exit_codes import UNAVAILABLE, exit_code_of
from tasks.plan import Shard, make_plan
from tasks.study import Study
from tasks.work.code import OtherCode
from tasks.work.deadline import limit_of

STUDY = Study.from_spec(
    {
        "name": "attempts",
        "datasets": ["uniform"],
        "formulations": ["edm"],
        "seeds": 3,
        "training": {"steps": 6, "batch": 16, "width": 16, "depth": 1, "data": 50},
        "samplers": ["euler"],
        "steps": [2, 3],
        "samples": 40,
        "metrics": ["w1"],
    }
)
SHARD = Shard(tuple(job for job in make_plan(STUDY, {}, ()).jobs if job.train))


def raised(error: Exception) -> Exception:
    """As the coordinator meets what a worker has raised."""
    found: Exception = of_ray.RayTaskError(
        "sweep", "traceback", error, "ray::sweep", 1, "127.0.0.1"
    ).as_instanceof_cause()
    return found


@pytest.mark.parametrize(
    ("error", "machine"),
    [
        (of_ray.WorkerCrashedError(), False),
        (of_ray.OutOfMemoryError("node low on memory"), False),
        (of_ray.TaskCancelledError(), False),
        (raised(MemoryError()), False),
        (raised(ArithmeticError("of somebody's sampler")), False),
        (raised(ModuleNotFoundError("No module named 'mine'", name="mine")), False),  # not here either
        (raised(ModuleNotFoundError("No module named 'torch'", name="torch")), True),
        (raised(OtherCode("other sources")), True),
        (of_ray.NodeDiedError("gone"), True),
        (of_ray.LocalRayletDiedError(), True),
        (of_ray.ObjectLostError("00" * 28, None, ""), True),
        (of_ray.OwnerDiedError("00" * 28, None, ""), True),
        (raised(of_ray.RaySystemError("No module named 'mine'")), True),  # what was sent cannot be read
        (NothingEnded("for an hour"), True),
    ],
)
def test_whose_fault_it_is(error: Exception, machine: bool) -> None:
    assert of_a_machine(error) is machine
    assert of_other_code(error) is isinstance(error, OtherCode)


@pytest.mark.parametrize("error", [of_ray.WorkerCrashedError(), of_ray.LocalRayletDiedError(), ValueError("x" * 5000)])
def test_a_reason_is_bounded_and_names_no_file_that_goes_with_ray(error: Exception) -> None:
    reason = reason_of(error)
    assert reason.startswith(f"the worker ended without an answer ({type(error).__name__}")
    assert len(reason) < 400
    assert ".log" not in reason
    assert ".out" not in reason


@pytest.mark.parametrize("training", [True, False])
def test_the_own_fault_of_a_shard_is_looked_for_apart_and_then_in_halves_until_one_is_left(training: bool) -> None:
    shard = SHARD if training else SHARD.asking(SHARD.questions)
    (apart,) = Attempt(0, shard).after("died", machine=False, training=training)
    assert apart.apart
    assert apart.shard == shard
    left, alone, runs = [apart], [], 0
    while left:
        attempt = left.pop()
        runs += 1
        following = attempt.after("died again", machine=False, training=training)
        left += following
        if not following:
            alone.append(attempt)
            assert len(attempt.ends) <= 4  # one, and the halvings
    parts = 3 if training else 6  # cells, or points
    assert (len(alone), runs) == (parts, 2 * parts - 1)
    assert all(len(one.shard.jobs) == 1 and one.shard.trained == int(training) for one in alone)
    assert sorted(p.id for one in alone for p in one.shard.questions) == sorted(p.id for p in shard.questions)


def test_what_machines_lose_is_tried_a_few_times_and_nothing_of_it_fails() -> None:
    attempt, runs = Attempt(0, SHARD), 1
    while following := attempt.after("gone", machine=True, training=True):
        (attempt,) = following
        assert attempt.shard == SHARD
        runs += 1
    assert runs == TRIES
    assert exit_code_of(NotComputed("gone")) == UNAVAILABLE


def test_a_limit_is_far_more_than_what_is_planned() -> None:
    assert limit_of(0.0) == 600.0
    assert limit_of(120.0) == 1200.0
