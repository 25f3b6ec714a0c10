"""Who is at fault when a task run ends without an answer, and how often what is tried again."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import httpx
import pytest
import torch
from ray import exceptions as of_ray
from torch import Tensor

from diffusion.datasets import Uniform
from diffusion.objectives.weightings import Weighting
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from flows.attempts import (
    TRIES,
    Attempt,
    NotComputed,
    NothingEnded,
    module_lacked,
    of_a_machine,
    of_other_code,
    reason_of,
)
from flows.exit_codes import UNAVAILABLE, exit_code_of
from tasks.plan import Shard, make_plan
from tasks.stages import Opaque, generate_data, train
from tasks.study import Study
from tasks.work import Requests, data_key, lost_sweep, lost_training, sweep_shard, train_shard, training_sets
from tasks.work.code import OtherCode, code_here
from tasks.work.deadline import limit_of
from tasks.work.raised import WorkRaised, of_the_work

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
        (raised(ModuleNotFoundError("No module named 'is_nowhere'", name="is_nowhere")), False),  # not here either
        (raised(ModuleNotFoundError("No module named 'torch'", name="torch")), True),
        (raised(OtherCode("other sources")), True),
        (of_ray.NodeDiedError("gone"), True),
        (of_ray.LocalRayletDiedError(), True),
        (of_ray.ObjectLostError("00" * 28, None, ""), True),
        (of_ray.OwnerDiedError("00" * 28, None, ""), True),
        (raised(of_ray.RaySystemError("No module named 'mine'")), True),  # what was sent cannot be read
        (NothingEnded("for an hour"), True),
        (httpx.ConnectError("of Prefect's client"), True),
        (WorkRaised("ConnectError: of somebody's sampler"), False),
    ],
)
def test_whose_fault_it_is(error: Exception, machine: bool) -> None:
    assert of_a_machine(error) is machine
    assert of_other_code(error) is isinstance(error, OtherCode)


def asks_a_server() -> NoReturn:
    """What a class of one's own may do, which the same package tells of as Prefect's client."""
    request = httpx.Request("GET", "http://data.example/weights")
    httpx.Response(503, request=request).raise_for_status()
    raise AssertionError


@dataclass(frozen=True)
class AskingWeight(Weighting):
    """Raised in training, where nothing else is asked."""

    def weight(self, nsr: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:  # noqa: ARG002
        asks_a_server()


@dataclass(frozen=True)
class AskingSampler(Sampler):
    """Raised in a sweep."""

    order: ClassVar[int] = 1

    def step(self, denoiser: Any, x: Tensor, now: Any, then: Any, noise: Any) -> Tensor:  # noqa: ARG002
        asks_a_server()


@dataclass(frozen=True)
class AskingUniform(Uniform):
    """Raised when data are drawn."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        asks_a_server()


class Silent:
    """Nobody follows the work."""

    def begin(self) -> None:
        pass

    def __call__(self, seconds: float, cells: int, points: int, doing: str = "", /) -> None:
        pass


def asking(**changes: Any) -> Shard:
    spec = {**STUDY.spec(), "name": "asking", "seeds": 2, **changes}
    return Shard(tuple(job for job in make_plan(Study.from_spec(spec), {}, ()).jobs if job.train))


@pytest.fixture
def own_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", __name__)


@pytest.mark.usefixtures("own_classes")
def test_an_own_class_whose_request_fails_has_failed_itself_and_no_machine() -> None:
    """Of the same error, which cannot even be sent to another process, each stage tells what it can: a
    data set or a sampler that raises has an answer, and all else that does is the work's.
    """
    weighted = asking(
        formulations=[{"name": "denoising", "schedule": "edm", "weighting": f"{__name__}:AskingWeight"}],
    )
    sets = training_sets({data_key(job.cell): job.cell for job in weighted.jobs})
    with pytest.raises(WorkRaised, match=r"HTTPStatusError: .*503") as raised_here:
        train.fn("x", Opaque(weighted), [Opaque(sets)], Opaque(Silent()), Opaque(code_here()), "cpu", 600.0)
    arrived = pickle.loads(pickle.dumps(raised_here.value))  # noqa: S301 - our own
    assert not of_a_machine(raised(arrived))
    assert not of_a_machine(arrived)
    assert "HTTPStatusError" in reason_of(arrived)
    assert "WorkRaised" not in reason_of(arrived)

    sampled = asking(samplers=["euler", f"{__name__}:AskingSampler"])
    sets = training_sets({data_key(job.cell): job.cell for job in sampled.jobs})
    trained = train_shard(sampled, sets)
    swept = sweep_shard(sampled, trained.weights, Requests(STUDY.metrics, False, frozenset()))
    failed = {str(answer.point.labels["sampler"]) for answer in swept.points if answer.error}
    assert failed == {f"{__name__}:AskingSampler"}
    assert all("HTTPStatusError" in answer.error for answer in swept.points if answer.error)

    drawn = asking(datasets=[f"{__name__}:AskingUniform"])
    answers = generate_data.fn(
        "x", Opaque({data_key(job.cell): job.cell for job in drawn.jobs}), Opaque(code_here()), 600.0
    )
    assert all("HTTPStatusError" in str(answer) for answer in answers.content.values())


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (
            "sampling failed: ModuleNotFoundError: No module named 'json.decoder' (step, line 5 of mine.py)",
            "json.decoder",
        ),
        ("exit status 1; its log ends: import x / ModuleNotFoundError: No module named 'torch')", "torch"),
        ("sampling failed: ModuleNotFoundError: No module named 'is_nowhere' (step, line 5 of mine.py)", None),
        ("sampling failed: ModuleNotFoundError: No module named 'json.nothing'; 'json' is not a package", None),
        ("sampling failed: ArithmeticError: no", None),
    ],
)
def test_a_module_that_is_here_and_not_there_is_the_machines_fault_wherever_it_was_missed(
    said: str, name: str | None
) -> None:
    """In a sampler, in training or when its data were drawn, in a metric; alone, or among sound points."""
    swept = lost_sweep(SHARD, said)
    measured = replace(lost_sweep(SHARD, "diverged"), unanswered=(f"metric mine:Own of a cell: {said}",))
    among = replace(swept, points=[replace(swept.points[0], error=None), *swept.points])
    for answer in (swept, measured, among, lost_training(SHARD, said)):
        found = module_lacked(answer)
        assert (found and found.name) == name
        if found is not None:
            assert of_a_machine(found)
            assert (
                reason_of(found)
                == f"its node lacks a module that the run was started with (No module named {name!r}); `--allow-plugins "
                f"{str(name).partition('.')[0]}` sends it, if it is not installed here"
            )


def test_whether_a_module_is_here_is_told_without_importing_what_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "loud_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "part.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = module_lacked(lost_sweep(SHARD, "ModuleNotFoundError: No module named 'loud_package.part'"))
    assert found is not None
    assert found.name == "loud_package.part"
    assert "loud_package" not in sys.modules
    assert module_lacked(lost_sweep(SHARD, "ModuleNotFoundError: No module named 'no_package.part'")) is None


@pytest.mark.parametrize(
    ("error", "stays"),
    [(ModuleNotFoundError("no", name="torch"), True), (SystemExit(1), True), (KeyboardInterrupt(), False)],
)
def test_what_only_a_machine_knows_passes_the_work_as_it_is(error: BaseException, stays: bool) -> None:
    with pytest.raises(type(error) if stays else WorkRaised), of_the_work():
        raise error


@pytest.mark.parametrize("error", [of_ray.WorkerCrashedError(), of_ray.LocalRayletDiedError(), ValueError("x" * 5000)])
def test_a_reason_is_bounded_and_names_no_file_that_goes_with_ray(error: Exception) -> None:
    reason = reason_of(error)
    assert reason.startswith(f"the worker ended without an answer ({type(error).__name__}")
    assert len(reason) < 400
    assert ".log" not in reason
    assert ".out" not in reason


def test_of_what_ray_never_ran_no_worker_is_said_to_have_ended() -> None:
    assert reason_of(NothingEnded("nothing ended within 240 s")) == "Ray did not answer (nothing ended within 240 s)"


def test_what_ray_could_not_read_for_want_of_a_module_is_told_by_the_module() -> None:
    """As Ray 2.60 tells of it: what it says of the error names no module."""
    error = of_ray.RaySystemError("No module named 'json.decoder'", "Traceback (most recent call last):\n  ...")
    text = "At least one of the input arguments for this task could not be computed:\n..."
    met = of_ray.RayTaskError("sweep", text, error, "ray::sweep", 1, "127.0.0.1").as_instanceof_cause()
    assert of_a_machine(met)
    assert reason_of(met).startswith(
        "its node lacks a module that the run was started with (No module named 'json.decoder')"
    )
    other = of_ray.RaySystemError("cannot be read", "Traceback (most recent call last):\n  ...")
    met = of_ray.RayTaskError("sweep", text, other, "ray::sweep", 1, "127.0.0.1").as_instanceof_cause()
    assert reason_of(met).startswith("the worker ended without an answer (RaySystemError: System error: cannot be read")


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
