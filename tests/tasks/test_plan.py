"""What is to be done is a pure function of study and store; ids depend on content only."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.metrics import ClassifierTwoSample
from diffusion.networks import Perceptron
from diffusion.objectives import LogitNormal, MinSignalToNoise, VariationalBound
from diffusion.objectives.parametrizations import Velocity
from tasks.plain import Plain, Spec
from tasks.plan import StoredPoint, make_plan, points_of
from tasks.study import Study

BASE: Spec = {
    "name": "plan",
    "datasets": ["uniform"],
    "formulations": ["edm", "ddpm"],
    "seeds": 2,
    "training": {"steps": 10, "batch": 16, "width": 8, "depth": 1, "data": 50},
    "samplers": ["heun", {"name": "ddim", "eta": 0.5}],
    "steps": [1, 3],
    "samples": 100,
    "metrics": ["w1"],
}


def study(**changes: Plain) -> Study:
    return Study.from_spec({**BASE, **changes})


def ids(of: Study) -> list[str]:
    return [point.id for point in points_of(of)]


def known(of: Study, **fields: Plain) -> dict[str, StoredPoint]:
    values = {"status": "ok", "metrics": {"w1": 1, "ks": 1}, "samples": True, "trajectory": True, **fields}
    return {i: StoredPoint(**values) for i in ids(of)}


def test_exact_rows_are_added_once_for_each_schedule_in_the_study() -> None:
    cells = {
        p.cell.id: p.cell for p in points_of(study(formulations=["edm", "ve", {"name": "exact", "schedule": "edm"}]))
    }
    exact = [c.labels["schedule"] for c in cells.values() if c.labels["formulation"] == "exact" and c.seed == 0]
    assert sorted(exact) == ["edm", "ve-linear"]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_ids_depend_neither_on_the_order_of_axes_nor_of_keys(data: st.DataObject) -> None:
    shuffled = {key: BASE[key] for key in data.draw(st.permutations(list(BASE)))}
    for axis in ("formulations", "samplers", "steps"):
        shuffled[axis] = data.draw(st.permutations(BASE[axis]))
    shuffled["seeds"] = data.draw(st.permutations([0, 1]))
    assert sorted(ids(Study.from_spec(shuffled))) == sorted(ids(study()))


@pytest.mark.parametrize(
    "change",
    [
        {"datasets": [{"name": "uniform", "low": 0, "high": 1.0}]},
        {"formulations": [{"name": "edm", "p_mean": -1.2}, {"name": "ddpm"}]},
        {"samplers": [{"name": "heun", "grid": "own"}, {"eta": 0.5, "name": "ddim"}]},
        {"training": {**BASE["training"], "learning_rate": 0.004}},
        {"name": "another", "description": "told otherwise", "metrics": ["ks"]},
    ],
)
def test_ids_do_not_change_when_a_default_is_spelled_or_a_study_renamed(change: Spec) -> None:
    assert ids(study(**change)) == ids(study())


@pytest.mark.parametrize(
    "change",
    [
        {"datasets": [{"name": "uniform", "low": -1.0}]},
        {"formulations": [{"name": "edm", "p_mean": -1.0}, "ddpm"]},
        {"training": {**BASE["training"], "steps": 11}},
        {"samples": 101},
        {"start": "quantiles"},
        {"samplers": ["euler", {"name": "ddim", "eta": 0.4}]},
        {"seeds": [5, 6]},
    ],
)
def test_ids_change_with_what_is_asked(change: Spec) -> None:
    other, same = set(ids(study(**change))), set(ids(study()))
    if "formulations" in change or "training" in change:  # the exact rows and the other formulation stay
        assert 0 < len(other - same) < len(same)
    else:
        assert not other & same


def test_a_new_component_version_is_a_new_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusion.samplers import Heun

    before = set(ids(study()))
    monkeypatch.setattr(Heun, "version", 2)
    after = set(ids(study()))
    assert len(before & after) == len(before) / 2  # the ddim half


def test_only_what_is_missing_is_planned() -> None:
    plan = make_plan(study(), {}, ())
    assert plan.missing == len(plan.points) == 2 * 2 * 2 * 2 * 2
    assert sum(job.train for job in plan.jobs) == 4
    stored = known(study())
    weights = {job.cell.id for job in plan.jobs if job.train}
    assert make_plan(study(), stored, weights).jobs == ()
    grown = make_plan(study(steps=[1, 3, 7]), stored, weights)
    assert {p.steps for job in grown.jobs for p in job.points} == {7}
    assert not any(job.train for job in grown.jobs)
    without_weights = make_plan(study(steps=[1, 3, 7]), stored, ())
    assert sum(job.train for job in without_weights.jobs) == 4


def test_a_stored_point_that_lacks_what_the_study_wants_is_asked_again() -> None:
    weights = {point.cell.id for point in points_of(study())}
    assert make_plan(study(metrics=["w1", "ks"]), known(study(), metrics={"w1": 1}), weights).missing == 32
    assert make_plan(study(keep={"samples": True}), known(study(), samples=False), weights).missing == 32
    assert make_plan(study(), known(study(), samples=False), weights).missing == 0
    wants_path = study(keep={"trajectories": ["heun@3"]})
    assert make_plan(wants_path, known(study(), trajectory=False), weights).missing == 8


def test_failed_points_are_left_alone_unless_asked_for() -> None:
    stored = known(study(), status="failed")
    assert make_plan(study(), stored, ()).missing == 0
    assert len(make_plan(study(), stored, ()).failed) == 32
    assert make_plan(study(), stored, (), retry_failed=True).missing == 32


def test_impossible_points_carry_their_reason_and_excluded_ones_do_not_exist() -> None:
    made = make_plan(study(steps=[1, 101]), {}, ())
    reasons = {p.cell.schedule.registered_name: made.impossible[p.id] for p in made.points if p.id in made.impossible}
    assert reasons == {"ddpm-linear": "schedule 'ddpm-linear' has 100 levels, fewer than 101 steps"}
    fewer = make_plan(study(exclude=[{"formulation": "ddpm", "steps": [3]}]), {}, ())
    assert len(fewer.points) == 32 - 4


def test_blocks_are_a_union_of_crosses() -> None:
    union = study(grids=[{"formulations": ["edm"]}, {"formulations": ["edm", "ddpm"], "seeds": [1]}])
    assert set(ids(union)) < set(ids(study()))
    # edm and its exact rows with seeds 0 and 1; ddpm and its exact rows with seed 1 only; two
    # samplers, two step counts
    assert len(ids(union)) == (2 * 2 + 2 * 1) * 2 * 2


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 100])
def test_shards_hold_every_job_once_whatever_the_number_of_workers(workers: int) -> None:
    plan = make_plan(study(), {}, ())
    shards = plan.shards(workers)
    requested = [point.id for shard in shards for job in shard.jobs for point in job.points]
    assert sorted(requested) == sorted(point.id for point in plan.points)
    assert all(len({job.cell.training for job in shard.jobs}) == 1 for shard in shards)


def test_metrics_that_take_long_are_part_of_the_work_of_every_point() -> None:
    plain, long = (make_plan(study(metrics=metrics), {}, ()).jobs for metrics in (["w1"], ["w1", "c2st"]))
    for one, other in zip(plain, long, strict=True):
        seconds = sum(ClassifierTwoSample().seconds(point.target, point.samples) for point in one.points)
        assert seconds > 0.5 * len(one.points)
        seconds += sum(  # each exact flow is measured once more, where it ends
            ClassifierTwoSample().seconds(point.target, point.samples)
            for point in {point.flow: point for point in one.points if one.cell.exact and point.has_limit}.values()
        )
        assert other.work() - one.work() == pytest.approx(seconds)


def test_likelihoods_that_follow_from_one_flow_are_counted_once() -> None:
    def work(*metrics: Plain) -> float:
        return sum(job.work() for job in make_plan(study(metrics=["w1", *metrics]), {}, ()).jobs)

    none, alone = work(), work("nll")
    assert alone > 2 * none
    assert work("nll", "ks", "bits-per-dim") == pytest.approx(alone)
    assert work("bits-per-dim", {"name": "bits-per-dim", "scale": 2.0}) == pytest.approx(alone)
    assert work("nll", {"name": "bits-per-dim", "batch": 512}) - none > 2 * (alone - none)


def test_specs_are_plain_json() -> None:
    for point in points_of(study()):
        assert json.loads(json.dumps(point.spec)) == point.spec
        assert json.loads(json.dumps(point.cell.spec)) == point.cell.spec


# --- another schedule after training --------------------------------------------------------------


def test_a_network_may_be_sampled_on_another_schedule_within_the_noise_it_knows() -> None:
    choice = [{"name": "heun", "schedule": "edm"}, {"name": "heun", "schedule": "ve-geometric"}, "heun"]
    points = points_of(study(formulations=["vp"], samplers=choice, steps=[3], seeds=1))
    trained = {p.labels["sampler"]: p for p in points if p.cell.training}
    assert set(trained) == {"heun on edm", "heun on ve-geometric", "heun"}
    assert len({p.cell.id for p in trained.values()}) == 1  # one network answers all three
    assert len({p.id for p in trained.values()}) == 3
    assert trained["heun"].impossible() is None
    assert trained["heun on edm"].impossible() is None
    exact = {p.labels["sampler"]: p for p in points if not p.cell.training}
    assert exact["heun on ve-geometric"].impossible() is None


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [("edm", "ve-linear", "to 100;"), ("ve", "ve-geometric", "from sigma/alpha = 0.000131")],
)
def test_noise_outside_of_what_a_network_was_trained_on_is_impossible_at_either_end(
    own: str, other: str, expected: str
) -> None:
    points = points_of(study(formulations=[own], samplers=[{"name": "heun", "schedule": other}], steps=[3], seeds=1))
    (reason,) = {p.impossible() for p in points if p.cell.training}
    assert expected in str(reason)


def test_a_pair_that_a_formulation_refuses_is_recorded_as_impossible() -> None:
    points = points_of(study(formulations=["vp", "edm"], schedules=["vp-linear", "edm"], steps=[2]))
    reasons = {p.labels["schedule"]: p.impossible() for p in points if p.labels["formulation"] == "vp"}
    assert reasons["vp-linear"] is None
    assert "variance-preserving" in str(reasons["edm"])


@pytest.mark.parametrize("part", [Velocity, MinSignalToNoise, LogitNormal])
def test_raising_the_version_of_a_part_changes_the_ids_of_what_is_made_with_it(
    part: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"parametrization": "v", "weighting": "min-snr", "noise_levels": "logit-normal", "schedule": "vp-linear"}
    requested = study(formulations=[{"name": "denoising", **parts}, "v-prediction", "edm"], steps=[2], seeds=1)
    before = {p.labels["formulation"]: p.cell.id for p in points_of(requested)}
    monkeypatch.setattr(part, "version", 2)
    after = {p.labels["formulation"]: p.cell.id for p in points_of(requested)}
    changed = {str(name).partition("(")[0] for name in before if before[name] != after[name]}
    assert changed == ({"denoising", "v-prediction"} if part is Velocity else {"denoising"})


@pytest.mark.parametrize(("part", "changed"), [(Perceptron, {"edm", "vae"}), (VariationalBound, {"vae"})])
def test_raising_the_version_of_a_network_or_an_objective_changes_the_ids_of_what_is_trained_with_it(
    part: type, changed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = study(datasets=["eight_gaussians"], metrics=["energy"], formulations=["edm", "vae"], steps=[2], seeds=1)
    before = {p.labels["formulation"]: p.cell.id for p in points_of(requested)}
    monkeypatch.setattr(part, "version", 2)
    after = {p.labels["formulation"]: p.cell.id for p in points_of(requested)}
    assert {name for name in before if before[name] != after[name]} == changed
    assert before["exact"] == after["exact"]


def test_points_on_the_line_have_the_networks_second_version_and_others_its_first() -> None:
    versions = {}
    for dataset in ("uniform", "torus"):
        requested = study(datasets=[dataset], metrics=["energy"], formulations=["edm"], steps=[2], seeds=1)
        (spec,) = {json.dumps(p.cell.spec["training"], sort_keys=True) for p in points_of(requested) if p.cell.training}
        versions[dataset] = json.loads(spec).get("network", {}).get("version", 1)
    assert versions == {"uniform": 2, "torus": 1}


def test_what_changes_no_number_changes_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("points.npy", np.arange(6.0).reshape(3, 2))
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "same.npy", np.arange(6.0).reshape(3, 2))
    cells = [
        {p.cell.id for p in points_of(study(datasets=[{"name": "from_file", "path": path}], metrics=["energy"]))}
        for path in ("points.npy", "./points.npy", str(tmp_path / "points.npy"), "other/same.npy")
    ]
    assert all(found == cells[0] for found in cells)
    zeros = [ids(study(datasets=[{"name": "uniform", "low": low}])) for low in (0.0, -0.0)]
    assert zeros[0] == zeros[1]
    spelled = [{"name": "denoising", "schedule": "ve-linear"}, "denoising"]
    one, other = (ids(study(formulations=[f], schedules=["edm"])) for f in spelled)
    assert one == other


def test_a_network_of_discrete_levels_cannot_be_sampled_between_them() -> None:
    points = points_of(study(formulations=["ddpm"], samplers=[{"name": "ddim", "schedule": "vp-linear"}], steps=[3]))
    (reason,) = {p.impossible() for p in points if p.cell.training}
    assert "knows the discrete levels of 'ddpm-linear' only" in str(reason)


def test_naming_a_models_own_schedule_changes_nothing() -> None:
    spelled = study(formulations=["edm"], samplers=[{"name": "heun", "schedule": "edm", "grid": "edm"}])
    assert ids(spelled) == ids(study(formulations=["edm"], samplers=["heun"]))


def test_more_steps_than_a_grid_has_levels_are_impossible_and_say_so() -> None:
    points = points_of(study(formulations=["ddpm"], samplers=[{"name": "ddim", "grid": "quadratic"}], steps=[2, 99]))
    reasons = {p.steps: p.impossible() for p in points if p.cell.training}
    assert reasons[2] is None
    assert "99 steps" in str(reasons[99])


def test_a_model_with_a_way_of_its_own_is_asked_in_it_as_the_study_writes_it() -> None:
    spec = {"name": "own", "datasets": ["torus"], "formulations": ["vae"], "steps": [5, 9]}
    means = {"name": "decode", "noise": False}
    plain, written = (
        points_of(Study.from_spec({**spec, "samplers": ["heun", *more], "metrics": ["energy"]}))
        for more in ([], [means])
    )
    requested = [[(p.sampler.label(), p.steps) for p in points if p.cell.training] for points in (plain, written)]
    assert requested == [[("decode", 1)], [("decode(noise=False)", 1)]]
