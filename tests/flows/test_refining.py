"""Steps that are refined: what each look records, that a second call only looks, and that none but the
groups that ask get more steps.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from diffusion.plugins import typed
from flows.command_line.grow import _show_steps
from flows.direct_growth import grow
from flows.growing import design_of, grown
from flows.refining import Refinement, checked_looks, refined, steps_of
from flows.request import RunRequest
from tasks.plan import make_plan, points_of
from tasks.plan.more_steps import blocks_with_steps
from tasks.query.growing import read_question
from tasks.query.refining import FLOOR, GROUP, REFINED, GroupSteps, group_of, look_at_steps
from tasks.results.read import open_results
from tasks.results.stored import looks_recorded
from tasks.statistics.bisection import Group, middle, step_tree
from tasks.statistics.sequential import Margin
from tasks.store import Store
from tasks.study import Study, StudyError, load_study
from tasks.where.language import QueryError
from tests.tasks.test_query import points_of as rows_of
from tests.tasks.tiny_store import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

STUDY = """
name: refining
datasets: [uniform]
formulations: [edm]
seeds: 5
training: {steps: 10, batch: 16, width: 8, depth: 1, data: 50}
samplers: [euler, heun]
steps: [1, 6, 24]
samples: 200
metrics: [w1]
"""


def configurations_of(points: xr.Dataset) -> Counter[tuple[Group, int]]:
    """How many points each group has at each number of steps."""
    labels = {name: points[name].values for name in (*GROUP, "steps")}
    rows = [{name: values[i] for name, values in labels.items()} for i in range(points.sizes["point"])]
    return Counter((group_of(row), int(row["steps"])) for row in rows)


def never(request: RunRequest) -> None:
    raise AssertionError(f"{request.study} was run")


def ran(uri: str, calls: list[int], stop_at: int = 99) -> Callable[[RunRequest], None]:
    """What a run does, in this process; the last one that is allowed is interrupted before its end."""

    def run(request: RunRequest) -> None:
        study = load_study(request.study, request.overrides)
        calls.append(len(points_of(study)))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        answer(uri, study.spec())

    return run


def refine_here(folder: Path, store: str, calls: list[int], stop_at: int = 99) -> Refinement:
    (folder / "refining.yaml").write_text(STUDY)
    uri = str(folder / store)
    return refined(RunRequest(str(folder / "refining.yaml"), uri), None, 3, ran(uri, calls, stop_at))


def test_each_look_is_recorded_and_a_second_call_only_looks(tmp_path: Path) -> None:
    calls: list[int] = []
    first = refine_here(tmp_path, "one", calls)
    assert len(calls) == len(first.looks) == 3  # a curve that falls is refined as long as one looks
    store = Store.open(str(tmp_path / "one"))
    recorded = looks_recorded(store, "refining")
    assert [json.loads(text)["pairs"] for text in recorded] == [look.value()["pairs"] for look in first.looks]
    assert json.loads(recorded[0])["rule"] == 1
    snapshot = store.snapshot()
    again = refine_here(tmp_path, "one", calls)
    assert len(calls) == 3
    assert {**again.value(), "store": ""} == {**first.value(), "store": ""}
    assert Store.open(str(tmp_path / "one")).snapshot() == snapshot

    said: list[str] = []  # looks at steps are none at seeds
    request = RunRequest(str(tmp_path / "refining.yaml"), str(tmp_path / "one"))
    grown(request, read_question("best(sampler) at steps == 6"), design_of(Margin(), 5), never, warn=said.append)
    assert said == []

    killed: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        refine_here(tmp_path, "two", killed, 2)
    assert looks_recorded(Store.open(str(tmp_path / "two")), "refining") == recorded[:1]
    resumed = refine_here(tmp_path, "two", killed)
    assert {**resumed.value(), "store": ""} == {**first.value(), "store": ""}
    assert looks_recorded(Store.open(str(tmp_path / "two")), "refining") == recorded

    asked = {(group_of(row), row["middle"]) for look in first.looks for row in look.rows if row["verdict"] == REFINED}
    axes = steps_of(make_plan(load_study(tmp_path / "refining.yaml"), {}, ()))
    own = {(group, steps) for group, axis in axes.items() for steps in axis.steps}
    there = configurations_of(open_results(str(tmp_path / "one"), "refining"))
    assert set(there) == own | asked
    assert all(count == 5 for count in there.values())


def planted(curves: dict[str, dict[int, float]], floor: float, noise: float = 0.001) -> list[dict[str, object]]:
    """Rows of five seeds, whose noise is shared but for a little."""
    draw = np.random.default_rng(3)
    shared = 0.1 * draw.normal(size=5)
    return [
        {"sampler": name, "steps": n, "seed": s, "w1": mean + shared[s] + noise * draw.normal(), "w1_floor": floor}
        for name, curve in curves.items()
        for n, mean in curve.items()
        for s in range(5)
    ]


def test_a_look_refines_where_neighbours_differ_above_two_floors() -> None:
    curves = {
        "heun": {1: 9.0, 4: 5.0, 16: 1.95, 64: 1.0},
        "euler": {1: 9.0, 4: 9.0, 16: 9.0, 64: 9.0},
        "sde": {1: 9.0, 4: 5.0, 16: 3.0, 64: 2.5},
    }
    rows = planted(curves, floor=1.0)
    rows = [
        {**row, "status": "failed"} if (row["sampler"], row["steps"], row["seed"]) == ("sde", 4, 2) else row
        for row in rows
    ]
    points = rows_of(rows, "w1")
    groups = {group: (1, 4, 16, 64) for group, _ in configurations_of(points)}
    axes = {group: GroupSteps(steps, 5, fixed=False, can_ask=lambda _: True) for group, steps in groups.items()}
    for looks in (2, 1):
        tree = step_tree(groups, lambda *_: True, looks)
        found = look_at_steps(points, "w1", tree, 0, tree.pairs[0], axes)
        verdicts = {(row["sampler"], row["from"]): row["verdict"] for row in found.rows}
        further = REFINED if looks == 2 else "open"
        assert verdicts == {
            ("heun", 1): further,
            ("heun", 4): further,
            ("heun", 16): FLOOR,  # both within two floors, though they differ
            **{("euler", n): "alike" for n in (1, 4, 16)},
            ("sde", 16): further,
        }
        assert {(row["sampler"], row["from"]): row["reason"] for row in found.left_out} == {
            ("sde", 1): "4 steps: failed at seed 2",
            ("sde", 4): "4 steps: failed at seed 2",
        }
        assert found.open == (0 if looks == 2 else 3)
        assert {(group[GROUP.index("sampler")], m) for group, more in found.added.items() for m in more} == (
            {("heun", 2), ("heun", 8), ("sde", 32)} if looks == 2 else set()
        )
        (first,) = (row for row in found.rows if (row["sampler"], row["from"]) == ("heun", 1))
        assert first["low"] < first["difference"] < first["high"] < 0


@pytest.mark.parametrize(
    ("metric", "change", "says"),
    [
        (None, "seeds=1", "found one seed"),
        (None, "steps=[1, 2]", "nothing to refine"),
        (None, "steps=[8]", "nothing to refine"),
        ("ks", "", "metric 'ks' is unknown"),
        (None, "metrics=[score-error]", "looks at models, whatever the steps"),
        (
            "tests.tasks.test_query:Hits",
            "metrics=['tests.tasks.test_query:Hits'], datasets=[four_points]",
            "is better the larger it is",
        ),
    ],
)
def test_what_cannot_be_refined_is_refused_before_the_first_run(
    tmp_path: Path, metric: str | None, change: str, says: str
) -> None:
    (tmp_path / "refining.yaml").write_text(STUDY)
    store = tmp_path / "store"
    changes = tuple(change.split(", datasets")) if ", datasets" in change else (change,) if change else ()
    changes = tuple("datasets" + one if one.startswith("=") else one for one in changes)
    request = RunRequest(str(tmp_path / "refining.yaml"), str(store), changes)
    with typed("tests.tasks.test_query:Hits"), pytest.raises(QueryError, match=says):
        refined(request, metric, 3, never)
    assert not store.exists()


def test_seeds_change_nothing_of_facts_so_one_is_enough(tmp_path: Path) -> None:
    change = ("seeds=1", "start=quantiles", "formulations=[exact]", "samplers=[heun]")
    (tmp_path / "refining.yaml").write_text(STUDY)
    uri = str(tmp_path / "store")
    calls: list[int] = []
    found = refined(RunRequest(str(tmp_path / "refining.yaml"), uri, change), None, 2, ran(uri, calls))
    assert [row["verdict"] for row in found.looks[0].rows] == [REFINED, REFINED]
    assert calls == [3, 5]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps_until": "floor", "until": "best(sampler)"}, "--until belongs to seeds"),
        ({"steps_until": "floor", "max_seeds": 5}, "--max-seeds belongs to seeds"),
        ({"steps_until": "floor", "max_seeds": 0}, "--max-seeds belongs to seeds"),
        ({"steps_until": "floor", "by": ""}, "--by belongs to seeds"),
        ({"steps_until": "floor", "by": ()}, "--by belongs to seeds"),
        ({"steps_until": "floor", "until": ""}, "--until belongs to seeds"),
        ({"steps_until": "floor", "margin": ""}, "--margin belongs to seeds"),
        ({"until": ""}, "--until '': "),
        ({"margin": ""}, "--margin '': "),
        ({"max_looks": 2}, "--max-looks belongs to --steps-until floor"),
        ({"steps_until": "zero"}, "--steps-until: found 'zero', expected floor"),
        ({"steps_until": "floor", "max_looks": 0}, "--max-looks: found 0, expected 1 to 10"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, given: dict[str, object], says: str) -> None:
    with pytest.raises(QueryError, match=says):
        grow(Study.from_spec(yaml.safe_load(STUDY)), str(tmp_path / "store"), **given)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()
    assert checked_looks("floor", 10) == 10


def test_a_loaded_study_takes_no_changes(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="found a loaded study"):
        grow(Study.from_spec(yaml.safe_load(STUDY)), str(tmp_path / "s"), steps_until="floor", overrides=["steps=[4]"])


@pytest.mark.parametrize("name", ["formulations", "guidance", "restoration", "samplers", "schedules", "torus"])
def test_a_group_that_gets_more_steps_gets_them_alone(name: str) -> None:
    """Whatever a study is made of: guidance, grids, a discrete chain, blocks of its own."""
    study = load_study(name)
    before = {point.id for point in points_of(study)}
    axes = steps_of(make_plan(study, {}, ()))
    tree = step_tree({group: axis.steps for group, axis in axes.items()}, lambda at, n: axes[at].can_ask(n), 1)
    more = {group: (middle(pairs[-1], axes[group].can_ask) or 0,) for group, pairs in tree.pairs[0].items() if pairs}
    trained = [group for group in more if group[GROUP.index("formulation")] != "exact"]
    exact = [group for group in more if group not in trained]
    chosen = {group: more[group] for part in (trained, exact) for group in part[:: max(1, len(part) // 6)]}
    assert chosen
    assert all(between not in axes[group].steps for group, (between,) in chosen.items())
    blocks = blocks_with_steps(study, chosen, lambda point: group_of(point.labels))
    grown = Study.from_spec({**study.spec(), "grids": blocks})
    points = points_of(grown)
    assert before <= {point.id for point in points}
    new = [point for point in points if point.id not in before]
    asked = {(group, steps) for group, between in chosen.items() for steps in between}
    assert {(group_of(point.labels), point.steps) for point in new} == asked
    assert len(new) == sum(axes[group].seeds for group, _ in asked)


OWN_SEEDS = """
name: own-seeds
datasets: [uniform]
formulations: [edm]
seeds: [0, 1, 2]
training: {steps: 10, batch: 16, width: 8, depth: 1, data: 50}
samplers: [euler, heun]
steps: [4, 64]
samples: 200
metrics: [w1]
grids:
  - seeds: [5, 6, 7]
  - {seeds: [0, 5, 8], samplers: [heun], training: {steps: 20, batch: 16, width: 8, depth: 1, data: 50}}
exclude:
  - {seed: 5, sampler: heun}
  - {seed: 6, steps: 64}
"""


def test_added_steps_have_the_seeds_of_their_group_whichever_block_asks_it() -> None:
    study = Study.from_spec(yaml.safe_load(OWN_SEEDS))
    axes = steps_of(make_plan(study, {}, ()))
    assert {(group[GROUP.index("formulation")], group[GROUP.index("sampler")]) for group in axes} == {
        (formulation, sampler) for formulation in ("edm", "exact") for sampler in ("euler", "heun")
    }
    blocks = blocks_with_steps(study, dict.fromkeys(axes, (16,)), lambda point: group_of(point.labels))
    points = points_of(Study.from_spec({**study.spec(), "grids": blocks}))

    def asked(chosen: Callable[[int], bool]) -> set[tuple[Group, object, int]]:
        # the first training and the second of one group are two ways to ask it
        return {(group_of(p.labels), p.cell.training, p.cell.seed) for p in points if chosen(p.steps)}

    assert asked(lambda steps: steps == 16) == asked(lambda steps: steps != 16)


def test_steps_of_a_block_with_seeds_of_its_own_are_refined_to_the_last_look(tmp_path: Path) -> None:
    changes = ('grids=[{"seeds": [5, 6, 7, 8, 9], "steps": [4, 64]}]', "samplers=[heun]", "formulations=[exact]")
    file = tmp_path / "refining.yaml"
    file.write_text(STUDY)
    request = RunRequest(str(file), str(tmp_path / "store"), changes)
    calls: list[int] = []
    found = refined(request, None, 2, ran(request.store, calls))
    assert calls == [10, 15]  # five seeds each
    assert [len(look.rows) for look in found.looks] == [1, 2]
    assert found.decided == (not found.looks[-1].open)
    assert not any(look.left_out for look in found.looks)


def test_pairs_that_could_not_be_compared_leave_it_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("training.learning_rate=1e30", "samplers=[heun]", "steps=[1, 4]", "seeds=2")  # its trainings fail
    (tmp_path / "refining.yaml").write_text(STUDY)
    request = RunRequest(str(tmp_path / "refining.yaml"), str(tmp_path / "store"), changes)
    found = refined(request, None, 1, ran(request.store, []))
    assert found.failed == 4
    assert {row["formulation"] for row in found.left_out} == {"edm"}
    assert {row["formulation"] for row in found.looks[-1].rows} == {"exact"}
    alone = replace(found, looks=(replace(found.looks[0], rows=()),))  # nothing at all could be compared
    assert alone.looks[-1].open == 0
    assert not alone.decided
    _show_steps(alone)
    said = " ".join(capsys.readouterr().out.split())
    assert "1 pair of neighbours could not be compared after 1 look" in said
    assert "left out: dataset uniform, formulation edm" in said
    whole = replace(found, looks=(replace(found.looks[0], rows=(), left_out=()),))
    assert whole.decided
    _show_steps(whole)
    assert "nothing is left to refine after 1 look" in " ".join(capsys.readouterr().out.split())


def test_looks_by_another_design_are_told(tmp_path: Path) -> None:
    file, uri = tmp_path / "refining.yaml", str(tmp_path / "store")
    file.write_text(STUDY)
    own = ("formulations=[exact]", "samplers=[heun]", "steps=[1, 4]", "seeds=3", "samples=50", "metrics=[w1, ks]")

    def said(metric: str, looks: int, *changes: str) -> list[str]:
        sentences: list[str] = []
        refined(RunRequest(str(file), uri, (*own, *changes)), metric, looks, ran(uri, []), warn=sentences.append)
        return sentences

    assert said("w1", 1) == []
    assert said("w1", 1) == []
    (other,) = said("w1", 2)
    assert "looks at the steps of refining by another design: w1, 3 seeds, at 1 pairs" in other
    assert "of what all of them say any may be false with the sum" in other
    assert len(said("ks", 1)) == 2
    assert len(said("w1", 1, "seeds=4")) == 3
    assert len(said("w1", 1)) == 3
