"""Shards as a GPU computes them, on the host: buckets, and memory that runs out.

Only where a stack is placed is said otherwise than by the device; what follows from it is the work
itself.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
import torch

import tasks.failpoints
import tasks.work.shard
from diffusion.devices import HOST
from diffusion.training.placement import Placement, bucket_of
from tasks.plain import Spec
from tasks.plan import Job, Shard, make_plan
from tasks.results.rows import trained_rows
from tasks.study import Study
from tasks.work import Requests, SweepAnswer, TrainingAnswer, data_key, placing, sweep_shard, train_shard, training_sets
from tasks.work.child import TrainingPart
from tasks.work.guilty import train_apart
from tasks.work.placing import GPU_SHARE, Bucket, device_of_worker, gpu_label, with_room
from tasks.work.sampling import states
from tasks.work.shard import placed
from tasks.work.stacks import train_jobs

SPEC: Spec = {
    "name": "room",
    "datasets": ["uniform"],
    "formulations": ["edm", "flow", "vp"],
    "seeds": 3,
    "training": {"steps": 6, "batch": 16, "width": 16, "depth": 2, "data": 60},
    "samplers": ["heun", "ancestral", {"name": "rk45", "rtol": 1e-2, "atol": 1e-2}],
    "steps": [2],
    "samples": 64,
    "metrics": ["w1"],
}
RAN_OUT, REMEDY = "the GPU's memory ran out in ", "use smaller networks or batches, fewer samples, or --device cpu"


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.from_spec(SPEC)


@pytest.fixture(scope="module")
def jobs(study: Study) -> list[Job]:
    return [job for job in make_plan(study, {}, ()).jobs if job.cell.training]


@pytest.fixture
def in_buckets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stacks lie on the host as they would on a GPU, with the host's noise: numbers can be compared."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(Placement, "on", lambda _, members: Placement(HOST, bucket=bucket_of(members)))
    yield
    torch.set_num_threads(threads)


def trained(jobs: list[Job]) -> TrainingAnswer:
    return train_shard(Shard(tuple(jobs)), training_sets({data_key(job.cell): job.cell for job in jobs}))


def swept(jobs: list[Job], study: Study, weights: dict[str, bytes]) -> SweepAnswer:
    answer = sweep_shard(Shard(tuple(jobs)), weights, Requests(study.metrics, True, frozenset()))
    answer.points.sort(key=lambda one: one.point.id)
    return answer


def same(one: SweepAnswer, other: SweepAnswer) -> None:
    for a, b in zip(one.points, other.points, strict=True):
        assert (a.point.id, a.error, a.nfe, a.metrics) == (b.point.id, b.error, b.nfe, b.metrics)
        assert a.samples is not None
        assert b.samples is not None
        assert a.samples.tobytes() == b.samples.tobytes()


@pytest.fixture(scope="module")
def plain(study: Study, jobs: list[Job]) -> tuple[dict[str, bytes], SweepAnswer]:
    """As the host computes it."""
    weights = trained(jobs).weights
    return weights, swept(jobs, study, weights)


@pytest.mark.usefixtures("in_buckets")
def test_a_shard_in_buckets_gives_what_it_gives_without(
    study: Study, jobs: list[Job], plain: tuple[dict[str, bytes], SweepAnswer]
) -> None:
    assert trained(jobs).weights == plain[0]
    same(swept(jobs, study, plain[0]), plain[1])


@pytest.mark.usefixtures("in_buckets")
def test_a_question_is_answered_by_a_whole_bucket(
    study: Study, jobs: list[Job], plain: tuple[dict[str, bytes], SweepAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(points: Any, *more: Any) -> Any:
        asked.append(len(points))
        return states(points, *more)

    monkeypatch.setattr(tasks.work.shard, "states", counted)
    assert len(swept(jobs, study, plain[0]).points) == 27
    assert sorted(asked) == [1] * 9 + [32] * 2  # the adaptive one is asked point by point


def test_a_question_is_put_in_the_bucket_of_those_who_ask_it_but_for_exact_and_adaptive_ones(study: Study) -> None:
    plan, gpu = make_plan(study, {}, ()), torch.device("meta")
    for job in plan.jobs:
        for point in job.points:
            expected = None if job.cell.training is None or point.sampler.adaptive else 32
            assert placed([point] * 9, gpu).bucket == expected
            assert placed([point] * 9, HOST) == Placement()


@pytest.mark.usefixtures("in_buckets")
def test_memory_that_runs_out_is_tried_for_in_the_next_smaller_bucket_and_recorded(
    study: Study,
    jobs: list[Job],
    plain: tuple[dict[str, bytes], SweepAnswer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(jobs) == 9
    fails_at(monkeypatch, "train.memory:3")
    data = training_sets({data_key(job.cell): job.cell for job in jobs})
    told: list[float] = []
    answers, bucket = train_jobs(jobs, data, lambda seconds, *_: told.append(seconds), Placement.on(HOST, 9))
    assert bucket == Bucket(8, 32)
    assert {answer.cell.id: answer.weights for answer in answers} == plain[0]
    assert min(told) >= 0
    assert sum(told) == pytest.approx(sum(job.training_work() for job in jobs))

    fails_at(monkeypatch, "sweep.memory:2")
    same(swept(jobs, study, plain[0]), plain[1])
    assert gpu_label("A GPU", [bucket, Bucket(8), bucket, Bucket()]) == (
        f"A GPU, torch {torch.__version__}, CUDA {torch.version.cuda}, bucket 8 (out of memory in 32), bucket 8"
    )


@pytest.mark.usefixtures("in_buckets")
@pytest.mark.parametrize(
    ("count", "passages", "where"), [(9, "1,2", "buckets of 32 and of 8"), (2, "1", "a bucket of 8")]
)
def test_memory_that_runs_out_again_fails_the_cells_and_says_where(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch, count: int, passages: str, where: str
) -> None:
    fails_at(monkeypatch, f"train.memory:{passages}")
    answer = trained(jobs[:count])
    assert not answer.weights
    errors = {cell.error for cell in answer.cells} | {point.error for point in answer.points}
    assert errors == {f"training failed: {RAN_OUT}{where} members (failpoint train.memory): {REMEDY}"}
    assert len(answer.cells) == count


@pytest.mark.usefixtures("in_buckets")
def test_a_question_that_finds_no_memory_fails_and_the_others_are_answered(
    study: Study, jobs: list[Job], plain: tuple[dict[str, bytes], SweepAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at(monkeypatch, "sweep.memory:1,2")
    found = swept(jobs, study, plain[0])
    failed = [point for point in found.points if point.error]
    assert len(failed) == 9
    assert len({point.point.labels["sampler"] for point in failed}) == 1
    assert all(
        point.error.startswith(f"sampling failed: {RAN_OUT}buckets of 32 and of 8") for point in failed if point.error
    )


class Here:
    """Stands for processes apart: more than five trainings at once end them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def do(self, part: TrainingPart, _: object, progress: Any, heard: Callable[[TrainingAnswer], None]) -> str | None:
        if len(part.shard.jobs) > 5:
            return "ended"
        part.do(progress, heard)  # type: ignore[arg-type] # it is told of trainings alone
        return None


@pytest.mark.usefixtures("in_buckets")
def test_cells_that_are_trained_apart_each_have_the_bucket_of_their_own_part(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusion.training.placement.BUCKETS", (4, 8, 16))
    monkeypatch.setattr("tasks.work.guilty.Apart", Here)
    monkeypatch.setattr(tasks.work.shard, "label", lambda _, buckets: gpu_label("A GPU", buckets))
    answer = train_apart(Shard(tuple(jobs)), 600.0, lambda *_: None, "cpu")
    small, large = (gpu_label("A GPU", [Bucket(size)]) for size in (4, 8))
    assert answer.device == f"{small}; {large}"
    expected = {job.cell.id: small if m < 4 else large for m, job in enumerate(jobs)}
    assert {row["cell_id"]: row["device"] for row in trained_rows(answer).cells} == expected


def fails_at(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    tasks.failpoints.passed.clear()
    monkeypatch.setenv(tasks.failpoints.VARIABLE, place)


def test_work_without_a_bucket_is_not_tried_again() -> None:
    def full(place: Placement) -> None:  # noqa: ARG001
        raise torch.OutOfMemoryError("as it is")

    with pytest.raises(torch.OutOfMemoryError, match=r"^as it is$"):
        with_room(full, Placement())


class Circle:
    """Something that holds itself, and what was drawn."""

    def __init__(self) -> None:
        self.itself, self.drawn = self, torch.ones(2)


def test_the_second_attempt_starts_without_what_the_first_one_held() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work(place: Placement) -> list[bool]:
        alive = [one() is not None for one in held]
        circle = Circle()
        held.append(weakref.ref(circle.drawn))
        if place.bucket == 32:
            raise torch.OutOfMemoryError("full")
        return alive

    gc.disable()
    try:
        assert with_room(work, Placement(bucket=32)) == ([False], Bucket(8, 32))
    finally:
        gc.enable()


FLAGS = """
import os, torch
from diffusion.devices import reproducible_cuda, unreproducible
torch.set_float32_matmul_precision("medium"); torch.backends.cudnn.allow_tf32 = True; torch.backends.cudnn.benchmark = True
os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
assert len(unreproducible()) == 5, unreproducible()
reproducible_cuda()
assert unreproducible() == []
assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
assert torch.backends.cuda.matmul.allow_tf32 is False
if hasattr(torch.backends.cudnn, "conv"):
    finer = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    torch.backends.fp32_precision = "tf32"  # of everything that says nothing itself
    assert {one.fp32_precision for one in finer} == {"ieee"}
    assert unreproducible() == []
    torch.backends.cudnn.allow_tf32 = False  # alone it leaves convolutions to what was said of everything
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert unreproducible() == ["convolutions are in TF32"], unreproducible()
    reproducible_cuda()
    assert {one.fp32_precision for one in finer} == {"ieee"}
    assert unreproducible() == []
from tasks.work.placing import device_of_worker
assert device_of_worker("cpu").type == "cpu"
try:
    device_of_worker("cuda")
except ValueError as error:
    print(error)
"""


def test_what_equal_bits_need_is_set_and_each_lack_of_it_is_seen() -> None:
    environment = {**os.environ, GPU_SHARE: "0.25"}  # which is no matter for the host
    done = subprocess.run([sys.executable, "-c", FLAGS], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    if not torch.cuda.is_available():
        assert "there is no GPU here that torch can use" in done.stdout


@pytest.mark.parametrize(("share", "expected"), [("0.25", [(0.25, "cuda:0")]), ("1", []), ("", [])])
def test_of_a_gpu_that_others_share_torch_takes_no_more_than_the_workers_part(
    share: str, expected: list[tuple[float, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[float, str]] = []
    monkeypatch.setattr(placing, "reproducible_cuda", lambda: None)
    monkeypatch.setattr(placing, "device_named", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda part, device: taken.append((part, str(device)))
    )
    monkeypatch.setenv(GPU_SHARE, share)
    assert device_of_worker("cuda") == torch.device("cuda", 0)
    assert taken == expected
