"""What a worker does with a shard: nothing that it answers depends on what else it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion.metrics import NegativeLogLikelihood
from diffusion.training import TrainedStack, train
from tasks.plain import Spec
from tasks.plan import Job, Shard, make_plan
from tasks.results import open_results
from tasks.results.stored import plan_against
from tasks.store import Store
from tasks.study import Study
from tasks.work import Requests, data_key, sweep_shard
from tasks.work.data import generate
from tests.tasks import tiny_store
from tests.tasks.in_one_process import ShardAnswer, run_shard

SPEC: Spec = {
    "name": "work",
    "datasets": ["gaussian_mixture", "uniform"],
    "formulations": ["edm", "flow", "edm2", {"name": "denoising", "parametrization": "v", "noise_label": "angle"}],
    "seeds": 2,
    "training": {"steps": 6, "batch": 16, "width": 16, "depth": 2, "data": 60},
    "samplers": [
        {"name": "rk45", "rtol": 1e-3, "atol": 1e-3},
        "dpmpp-2m-sde",
        "churn",
        {"name": "heun", "schedule": "vp-cosine"},
        {"name": "ddim", "grid": {"name": "uniform-t"}},
    ],
    "steps": [3],
    "samples": 70,
    "metrics": ["w1", "energy", "score-error", {"name": "score-error", "count": 3}, {"name": "mmd", "points": 50}],
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def answers(shard: Shard, study: Study) -> ShardAnswer:
    data = {
        data_key(job.cell): generate(job.cell.dataset, job.cell.seed, 60) for job in shard.jobs if job.cell.training
    }
    return run_shard(shard, data, {}, Requests(study.metrics, True, frozenset()))


def outcomes_of(answer: ShardAnswer) -> dict[str, tuple[object, ...]]:
    """Everything said of each point but the time it took, samples byte for byte."""
    return {
        a.point.id: (
            a.error,
            a.nfe,
            json.dumps(a.metrics, sort_keys=True),
            None if a.samples is None else a.samples.tobytes(),
        )
        for a in answer.points
    }


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.from_spec(SPEC)


def jobs_of(study: Study) -> list[Job]:
    plan = make_plan(study, {}, ())
    return [job for job in plan.jobs if job.cell.seed == 0 or job.cell.training]


def test_answers_do_not_depend_on_packing(study: Study) -> None:
    """Adaptive, stochastic and multistep samplers, swapped schedules, learned uncertainty: alone as
    in company.
    """
    jobs = [job for job in jobs_of(study) if job.cell.training]
    whole = outcomes_of(answers(Shard(tuple(jobs)), study))
    assert all(error is None for error, *_ in whole.values())
    for some in (jobs[:1], jobs[3:4], jobs[::-1][:5]):
        for point, said in outcomes_of(answers(Shard(tuple(some)), study)).items():
            assert said == whole[point]


def test_cells_of_one_training_set_learn_from_one_copy_of_it(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job for job in jobs_of(study) if job.cell.training]
    held: list[int] = []

    def spied(members: Any, data: Any, *rest: Any) -> TrainedStack:
        held.append(len({one.data_ptr() for one in data}))
        return train(members, data, *rest)

    monkeypatch.setattr("tasks.work.stacks.train", spied)
    answers(Shard(tuple(job for job in jobs if job.cell.dataset.label() == "uniform")), study)
    assert held == [2]  # one for each seed


def test_two_metrics_of_the_network_with_different_parameters_are_two_answers(study: Study) -> None:
    jobs = [job for job in jobs_of(study) if job.cell.training][:2]
    for answer in answers(Shard(tuple(jobs)), study).points:
        assert answer.metrics["score-error"] != answer.metrics["score-error(count=3)"]


def test_what_is_told_of_a_sweep_adds_up_to_its_work() -> None:
    """Two metrics that share a flow among them, one of which finds it done: it takes and tells nothing."""
    asked = Study.from_spec(
        {**SPEC, "datasets": ["gaussian"], "formulations": ["edm"], "samplers": ["euler"], "seeds": 1, "samples": 20}
        | {"metrics": ["nll", "bits-per-dim", {"name": "mmd", "points": 50}]}
    )
    shard = Shard(tuple(job for job in make_plan(asked, {}, ()).jobs if not job.cell.training))
    told: list[float] = []
    answer = sweep_shard(shard, {}, Requests(asked.metrics, False, frozenset()), lambda work, *_: told.append(work))
    assert answer.points[0].metrics["bits-per-dim"] == pytest.approx(
        answer.points[0].metrics["nll"] / (answer.points[0].point.cell.dataset.dim * np.log(2))
    )
    assert sum(told) == pytest.approx(shard.work())


def test_every_exact_answer_has_its_limit_and_the_score_of_the_exact_denoiser_no_error(study: Study) -> None:
    jobs = [job for job in jobs_of(study) if not job.cell.training]
    found = answers(Shard(tuple(jobs)), study)
    for answer in found.points:
        assert answer.error is None
        for name in ("w1", "energy", "mmd(points=50)"):
            assert np.isfinite(answer.metrics[f"{name}_limit"])
            assert np.isfinite(answer.metrics[f"{name}_floor"])
        assert answer.metrics["score-error"] < 1e-15
    for levels, errors in found.profiles.values():
        assert len(levels) == len(errors) > 1


def test_the_limit_of_a_cell_is_the_same_for_each_of_its_questions_on_one_schedule(study: Study) -> None:
    (job, *_) = [job for job in jobs_of(study) if not job.cell.training]
    found = answers(Shard((job,)), study)
    limits: dict[str, set[float]] = {}
    for answer in found.points:
        limits.setdefault(answer.point.schedule.label(), set()).add(answer.metrics["w1_limit"])
    assert len(limits) == 2  # the cell's own schedule and the one that is swapped in
    assert all(len(values) == 1 for values in limits.values())


def test_cells_that_ask_for_one_limit_have_it_and_it_does_not_depend_on_packing() -> None:
    """The exact cells of two schedules, sampled on a third; two seeds are two limits, and quantiles
    one.
    """
    spec: Spec = {
        "name": "limits",
        "datasets": ["uniform"],
        "formulations": ["exact"],
        "schedules": ["edm", "vp-linear"],
        "seeds": 2,
        "samplers": ["heun", {"name": "ddim", "schedule": "vp-cosine"}],
        "steps": [2],
        "samples": 12,
        "metrics": ["w1"],
    }
    study = Study.from_spec(spec)
    jobs = make_plan(study, {}, ()).jobs
    whole = answers(Shard(tuple(jobs)), study)
    swapped = {a.point.cell.seed: set[float]() for a in whole.points}
    for answer in whole.points:
        if answer.point.sampling_schedule:
            swapped[answer.point.cell.seed].add(answer.metrics["w1_limit"])
    assert all(len(limits) == 1 for limits in swapped.values())
    assert len(set.union(*swapped.values())) == 2
    for job in jobs[:2]:
        for point, said in outcomes_of(answers(Shard((job,)), study)).items():
            assert said == outcomes_of(whole)[point]
    quantiles = make_plan(Study.from_spec({**spec, "start": "quantiles"}), {}, ()).points
    assert len({point.flow for point in quantiles}) == 3


def test_an_adaptive_sampler_counts_its_own_evaluations(study: Study) -> None:
    jobs = [job for job in jobs_of(study) if job.cell.training]
    counts = {
        answer.point.cell.id: answer.nfe
        for answer in answers(Shard(tuple(jobs)), study).points
        if answer.point.sampler.adaptive
    }
    assert len(counts) == len(jobs)
    assert len(set(counts.values())) > 1


def _lost(*_: object) -> float:
    raise ValueError("nll: the solver gave up")


@pytest.mark.parametrize("fault", [_lost, lambda *_: float("inf")], ids=["raises", "infinite"])
def test_a_metric_of_the_denoiser_that_cannot_be_measured_costs_nothing_else(
    study: Study, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., float]
) -> None:
    jobs = [job for job in jobs_of(study) if job.cell.training][:2]
    plain = outcomes_of(answers(Shard(tuple(jobs)), study))
    requested: list[object] = []

    def evaluate(*of: object) -> float:
        requested.append(of)
        return fault(*of)

    monkeypatch.setattr(NegativeLogLikelihood, "evaluate", evaluate)
    found = answers(Shard(tuple(jobs)), Study.from_spec({**SPEC, "metrics": [*SPEC["metrics"], "nll"]}))
    assert len(requested) == len(jobs)  # once for a cell, whatever is asked of it
    assert len(found.unanswered) == len(jobs)
    for job, line in zip(jobs, found.unanswered, strict=True):
        assert line.startswith(f"metric nll of {job.cell}: ValueError: ")
    for answer in found.points:
        assert answer.error is None
        assert np.isnan(answer.metrics.pop("nll"))
        assert np.isnan(answer.metrics.pop("nll_floor"))
        assert answer.metrics.pop("nll_version") == NegativeLogLikelihood.version
    assert outcomes_of(found) == plain


def test_what_cannot_be_measured_is_tried_again_only_for_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, spec = str(tmp_path / "results"), {**tiny_store.SPEC, "seeds": 1, "metrics": ["w1", "nll"]}
    monkeypatch.setattr(NegativeLogLikelihood, "evaluate", _lost)
    first = tiny_store.answer(uri, spec)
    assert first.missing == len(first.points)
    points = open_results(uri, "tiny")
    assert set(points["status"].values) == {"ok"}
    assert np.isfinite(points["w1"].values).all()
    assert np.isnan(points["nll"].values).all()

    opened, study = Store.open(uri), Study.from_spec(spec)
    assert plan_against(opened, study).missing == 0
    again = plan_against(opened, study, retry_failed=True)
    assert again.missing == len(again.points)
    assert set(again.reasons.values()) == {"nll not measured"}
    monkeypatch.setattr(NegativeLogLikelihood, "version", NegativeLogLikelihood.version + 1)
    assert plan_against(opened, study).missing == len(again.points)
    monkeypatch.undo()
    tiny_store.answer(uri, spec, retry_failed=True)
    assert np.isfinite(open_results(uri, "tiny")["nll"].values).all()
