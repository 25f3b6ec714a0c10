"""The planner says why a point is to be computed."""

from pathlib import Path

import pytest

from diffusion.metrics import Wasserstein1
from diffusion.samplers import Heun
from tasks.plain import Plain, Spec
from tasks.plan import make_plan, points_of
from tasks.query import QueryError
from tasks.results import Answers
from tasks.results.explain import explain, matching
from tasks.results.stored import plan_against
from tasks.store import Store
from tasks.study import Study
from tests.tasks.tiny_store import SPEC, answer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    uri = str(tmp_path_factory.mktemp("explain") / "results")
    answer(uri)
    return Store.open(uri)


def reasons_of(store: Store, changes: Spec | None = None, **requested: Plain) -> dict[str, int]:
    plan = plan_against(store, Study.from_spec({**SPEC, **(changes or {})}), **requested)
    return {reason.text: len(reason.points) for reason in explain(plan, Answers(store))}


def test_without_a_store_everything_is_new() -> None:
    plan = make_plan(Study.from_spec(SPEC), {}, ())
    assert [(reason.text, len(reason.points)) for reason in explain(plan, None)] == [("new", 16)]


def test_a_grown_axis_is_new_and_nothing_else_is_asked(store: Store) -> None:
    assert reasons_of(store) == {}
    assert reasons_of(store, {"steps": [1, 3, 7]}) == {"new": 8}


def test_a_cell_that_was_trained_for_one_study_is_found_by_another(store: Store) -> None:
    other = Study.from_spec({**SPEC, "name": "other", "steps": [3, 7], "keep": {}})
    plan = plan_against(store, other)
    assert {point.steps for job in plan.jobs for point in job.points} == {7}
    assert not any(job.train for job in plan.jobs)
    assert {point.steps for point in plan.points if point.id in plan.done} == {3}


def test_what_the_axes_do_not_show_is_named(store: Store) -> None:
    assert reasons_of(store, {"samples": 500}) == {"changed: samples 400 -> 500": 16}
    assert reasons_of(store, {"training": {**SPEC["training"], "steps": 11}}) == {"changed: training.steps 10 -> 11": 8}


def test_a_component_whose_version_was_raised_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Heun, "version", 2)
    assert reasons_of(store) == {"changed: sampler.version 1 -> 2": 8}


def test_a_metric_whose_version_was_raised_is_measured_again_and_the_other_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "results")
    answer(uri)
    monkeypatch.setattr(Wasserstein1, "version", 2)
    monkeypatch.setattr(Wasserstein1, "evaluate", lambda *_: 7.0)
    assert reasons_of(Store.open(uri)) == {"version of w1 changed from 1 to 2": 16}
    before = Answers(Store.open(uri)).points
    answer(uri)
    after = Answers(Store.open(uri)).points
    assert set(after["w1"].values) == {7.0}
    assert (after["ks"].values == before["ks"].values).all()
    assert reasons_of(Store.open(uri)) == {}


def test_what_was_not_kept_or_measured_is_named(store: Store) -> None:
    changes = {"metrics": ["w1", "ks", "energy"], "keep": {"samples": True, "trajectories": ["heun@3", "euler@3"]}}
    assert reasons_of(store, changes) == {"energy not measured": 12, "energy not measured; trajectory not kept": 4}


def test_forced_points_are_computed_again_and_their_cells_trained(store: Store) -> None:
    points = points_of(Study.from_spec(SPEC))
    forced = matching(points, "formulation == 'edm' and sampler == 'heun' and seed == 1")
    plan = plan_against(store, Study.from_spec(SPEC), forced=forced)
    assert {p.id for job in plan.jobs for p in job.points} == forced
    assert [job.train for job in plan.jobs] == [True]
    assert [reason.text for reason in explain(plan, Answers(store))] == ["forced"]
    with pytest.raises(QueryError, match="smpler"):
        matching(points, "smpler == 'heun'")
