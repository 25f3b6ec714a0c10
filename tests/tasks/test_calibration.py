"""Work is measured on the device that will do it, and packed by what it takes there.

A processor stands for the device: what is measured of it is what training and sampling take.
"""

from __future__ import annotations

import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch

from diffusion.devices import HOST
from diffusion.errors import WrongValue
from diffusion.models import ExactDenoiser
from diffusion.training import train
from flows.calibrating import samples_of
from tasks.plan import Plan, make_plan
from tasks.plan.cost import CELL_SECONDS, POINT_SECONDS, seconds_per_call, seconds_per_evaluation
from tasks.plan.pace import AS_PLANNED, Pace
from tasks.plan.shards import LEAST_SECONDS, stack_key
from tasks.study import Study
from tasks.work import calibration
from tasks.work.calibration import Sample, measured, paces_on
from tasks.work.code import code_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPEC: Any = {
    "name": "calibration",
    "datasets": ["uniform", "eight_gaussians"],
    "formulations": ["edm", "vp"],
    "seeds": 12,
    "training": {"steps": 3000, "batch": 256, "width": 64, "depth": 2, "data": 500},
    "samplers": ["heun"],
    "steps": [18],
    "samples": 2000,
    "metrics": ["w1", "energy"],
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def plan_of(**changes: Any) -> Plan:
    return make_plan(Study.from_spec({**SPEC, **changes}), {}, ())


def kinds_of(plan: Plan) -> list[str]:
    return list(dict.fromkeys(stack_key(job.cell) for job in plan.jobs))


def test_planted_paces_cut_shards_of_equal_seconds_whatever_the_device_is_good_at() -> None:
    """Training a thousand times faster, sweeps of one kind three times slower: no shard is longer
    than the aim and one job, and a kind that takes nothing is one stack.
    """
    plan = plan_of()
    first, *others = kinds_of(plan)
    paces = {first: Pace(0.5, 3.0), **dict.fromkeys(others, Pace(1e-6, 1e-6))}
    workers = 4
    shards = plan.shards(workers, paces)
    asked = [job.cell.id for shard in shards for job in shard.jobs]
    assert sorted(asked) == sorted(job.cell.id for job in plan.jobs)
    assert all(len([shard for shard in shards if shard.kind == kind]) == 1 for kind in others)
    slow = [shard.seconds(paces) for shard in shards if shard.kind == first]
    longest = max(paces[first].seconds(job) for job in plan.jobs if stack_key(job.cell) == first)
    aim = max(sum(slow) / workers, LEAST_SECONDS)
    assert len(slow) >= workers
    assert max(slow) <= aim + longest
    assert max(slow) - min(slow) <= longest
    seconds = [shard.seconds(paces) for shard in shards[1:]]
    assert seconds == sorted(seconds, reverse=True)


def test_without_paces_shards_are_what_they_were() -> None:
    plan = plan_of()
    planned = [[job.cell.id for job in shard.jobs] for shard in plan.shards(3)]
    same = dict.fromkeys(kinds_of(plan), AS_PLANNED)
    assert [[job.cell.id for job in shard.jobs] for shard in plan.shards(3, same)] == planned


def test_a_pace_is_rounded_to_what_a_second_measurement_mostly_has_too() -> None:
    for value in (1e-4, 0.37, 1.0, 5.0):
        steady = Pace(value, 1 / value).steady()
        assert 2**-0.25 <= steady.train / value <= 2**0.25
        assert 2**-0.25 <= steady.sweep * value <= 2**0.25
        assert steady.steady() == steady


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_measured_times_what_is_planned_is_what_the_work_takes(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By planted clocks: each step of training and each sample of a sweep advances one, so that no
    second of this machine decides.
    """
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    per_step, per_sample, once = 0.25, 1e-3, 7.0

    def timed(members: Any, data: Any, settings: Any, device: Any) -> Any:
        now[0] += once + settings.steps * per_step
        return train(members, data, settings, device=device)

    monkeypatch.setattr(calibration, "train", timed)
    plan = plan_of(datasets=["uniform"], samples=100, training={**SPEC["training"], "data": 50, "batch": 8, "width": 8})
    job = next(job for job in plan.jobs if job.cell.exact == exact)
    answers = ExactDenoiser.__call__

    def exactly(self: Any, x: Any, *level: Any) -> Any:
        now[0] += per_sample * x.shape[0] * x.shape[1]
        return answers(self, x, *level)

    monkeypatch.setattr(ExactDenoiser, "__call__", exactly)
    pace = measured(Sample(job.cell, 3, 100), HOST)
    if exact:
        assert pace.train == 1.0
        (point,) = job.points
        calls = point.sampler.evaluations(point.steps)
        assert pace.sweep * (point.work() - POINT_SECONDS) == pytest.approx(calls * per_sample * 100)
    else:
        a_step = (job.training_work() - CELL_SECONDS) / SPEC["training"]["steps"]
        assert pace.train * 3 * a_step == pytest.approx(per_step)


def test_a_processor_that_is_asked_measures_itself_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real steps and answers; the second time they are read, and a kind that fails is left out."""
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path))
    small = {**SPEC["training"], "batch": 8, "width": 8, "depth": 1, "data": 20}
    jobs = {stack_key(job.cell): job for job in plan_of(training=small).jobs}
    kinds = {kind: Sample(job.cell, 2, 50) for kind, job in jobs.items()}
    found = paces_on("cpu", kinds, code_here())
    assert found.keys() == kinds.keys()
    assert all(math.isfinite(value) and value > 0 for pace in found.values() for value in (pace.train, pace.sweep))
    assert len(list((tmp_path / "paces").glob("*.json"))) == len(kinds)
    monkeypatch.setattr(calibration, "measured", _refuses)
    assert paces_on("cpu", kinds, code_here()) == found
    other = {kind: Sample(sample.cell, 3, 50) for kind, sample in kinds.items()}
    assert paces_on("cpu", other, code_here()) == {}


WRONG_PACES = {
    "not a number": '{"train": NaN, "sweep": 1.0}',
    "infinite": '{"train": 1.0, "sweep": Infinity}',
    "beyond every number": '{"train": 1e999, "sweep": 1.0}',
    "nothing": '{"train": 0, "sweep": 1.0}',
    "negative": '{"train": 1.0, "sweep": -2.0}',
    "a text": '{"train": "fast", "sweep": 1.0}',
    "null": '{"train": null, "sweep": 1.0}',
    "true": '{"train": true, "sweep": 1.0}',
    "half of it": '{"train": 1.0}',
    "of another kind": "[1.0, 1.0]",
    "cut off": '{"train": 1.0, "sw',
    "empty": "",
}


@pytest.mark.parametrize("wrong", WRONG_PACES)
def test_a_kept_pace_that_is_none_is_measured_again(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "measured", lambda sample, place: Pace(0.25, 4.0))  # noqa: ARG005
    kinds = {"kind": Sample(plan_of().jobs[0].cell, 2, 50)}
    assert paces_on("cpu", kinds, code_here()) == {"kind": Pace(0.25, 4.0)}
    (file,) = (tmp_path / "paces").iterdir()
    file.write_text(WRONG_PACES[wrong], encoding="utf-8")
    assert paces_on("cpu", kinds, code_here()) == {"kind": Pace(0.25, 4.0)}
    assert json.loads(file.read_text(encoding="utf-8")) == {"train": 0.25, "sweep": 4.0}


def test_a_pace_is_kept_for_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path))
    kinds = {"kind": Sample(plan_of().jobs[0].cell, 2, 50)}
    for days, then in ((0.0, 1.0), (6.9, 1.0), (7.1, 3.0), (0.0, 3.0)):
        monkeypatch.setattr(calibration, "measured", lambda sample, place, then=then: Pace(then, then))  # noqa: ARG005
        for file in (tmp_path / "paces").glob("*"):
            os.utime(file, (time.time() - days * 86400,) * 2)
        assert paces_on("cpu", kinds, code_here()) == {"kind": Pace(then, then)}


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, "1", None, True])
def test_a_pace_is_a_finite_number_above_zero(wrong: Any) -> None:
    for pace in ({"train": wrong}, {"sweep": wrong}):
        with pytest.raises(WrongValue, match=r"pace: .* accepted: a finite number above 0"):
            Pace(**pace)


SOURCE = {"name": "gaussian_mixture", "weights": [0.5, 0.5], "means": [-1.0, 1.0], "stds": [0.5, 0.5]}


def test_every_kind_of_work_that_needs_no_given_network_is_a_sample_to_be_measured() -> None:
    formulations = [
        "edm",
        "exact",
        {"name": "exact-between", "source": SOURCE},
        {"name": "flow-between", "source": SOURCE},
    ]
    plan = plan_of(datasets=["uniform"], formulations=formulations, samplers=["euler"], seeds=2)
    found = samples_of(plan.jobs, 1)
    assert found.keys() == set(kinds_of(plan))
    assert {sample.cell.formulation.registered_name for sample in found.values()} == {
        "edm",
        "exact",
        "exact-between",
        "flow-between",
    }


@pytest.mark.parametrize("formulation", ["exact", {"name": "exact-between", "source": SOURCE}])
def test_untrained_models_are_asked_as_a_sweep_asks_them(formulation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of data in coordinates of their own those of the model, and twice for a source of two
    components: by a clock that each answer of a target advances.
    """
    now, asked = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    answers = ExactDenoiser.__call__

    def exactly(self: Any, x: Any, *level: Any) -> Any:
        now[0] += 1.0
        asked.extend(self.targets())
        return answers(self, x, *level)

    monkeypatch.setattr(ExactDenoiser, "__call__", exactly)
    normal: Any = {"name": "gaussian", "means": 50.0, "stds": 3.0}
    target = {"name": "standardised", "of": normal} if formulation == "exact" else normal
    plan = plan_of(datasets=[target], formulations=[formulation], samplers=["euler"], seeds=1)
    cell = plan.jobs[0].cell
    pace = measured(Sample(cell, 3, 100), HOST)
    assert set(asked) == {cell.dataset.working}
    components = 1 if formulation == "exact" else 2
    assert pace.sweep * 3 * (100 * seconds_per_evaluation(cell) + seconds_per_call(cell)) == pytest.approx(components)
    assert pace.train == 1.0


def test_samples_are_measured_on_a_processor_whatever_device_draws_them() -> None:
    slow = {"name": "c2st", "points": 500}
    for formulations in (["exact"], ["edm"]):
        (job, *_) = plan_of(datasets=["moons"], formulations=formulations, seeds=1, metrics=[slow]).jobs
        (quick, *_) = plan_of(datasets=["moons"], formulations=formulations, seeds=1, metrics=["energy"]).jobs
        assert job.measuring_work() == pytest.approx(job.work() - quick.work())
        assert job.measuring_work() > 1
        assert Pace(0.5, 0.01).seconds(job) == pytest.approx(Pace(0.5, 0.01).seconds(quick) + job.measuring_work())
        assert Pace().seconds(job) == job.work()


def _refuses(sample: Sample, place: torch.device) -> Pace:
    raise RuntimeError(f"{sample.members} on {place}")
