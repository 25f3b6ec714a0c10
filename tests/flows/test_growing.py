"""A study that grows: what it asks, what each look records, and that a second call only looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from flows.direct_growth import grow
from flows.growing import Growth, design_of, grown
from flows.request import RunRequest
from tasks.query.growing import look_at, read_margin, read_question
from tasks.results.stored import looks_recorded
from tasks.statistics.sequential import Design, Margin, all_pairs, verdicts
from tasks.store import Store
from tasks.study import Study, StudyError, load_study
from tasks.where.language import QueryError
from tests.tasks.test_query import points_of
from tests.tasks.test_query_ranking import values_of
from tests.tasks.tiny_store import answer

if TYPE_CHECKING:
    from collections.abc import Callable

STUDY = """
name: growing
datasets: [uniform]
formulations: [edm]
seeds: 2
training: {steps: 10, batch: 16, width: 8, depth: 1, data: 50}
samplers: [euler, heun]
steps: [3]
samples: 200
metrics: [w1]
"""


def test_a_question_names_an_axis_and_a_condition() -> None:
    question = read_question(" best(sampler) at nfe<=20 and steps > 1 ")
    assert (question.of, question.at, question.by) == ("sampler", "nfe<=20 and steps > 1", ("dataset", "formulation"))
    assert read_question("best(dataset)").by == ("formulation",)
    assert (read_margin("2%"), read_margin(" 0.001 ")) == (Margin(0.02), Margin(0.001, False))


@pytest.mark.parametrize("text", ["", "sampler", "worst(sampler)", "best(sampler) nfe<=20", "best(sampler) at nfe <"])
def test_a_question_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="--until"):
        read_question(text)


@pytest.mark.parametrize("text", ["two", "-1%", "200%", "1 %%"])
def test_a_margin_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="--margin"):
        read_margin(text)


def test_a_look_tells_each_rival_against_the_best() -> None:
    draw = np.random.default_rng(6)
    shared = draw.normal(size=10)
    means = {"heun": 10.0, "ddim": 10.001, "euler": 14.0, "sde": 10.4}
    noise = {"heun": 0.01, "ddim": 0.01, "euler": 0.1, "sde": 2.0}
    values = {name: (m + shared + noise[name] * draw.normal(size=10)).tolist() for name, m in means.items()}
    points = points_of(values_of(values, dataset="moons", formulation="edm"), "w1")
    question, design = read_question("best(sampler)"), Design((5, 10))
    found = look_at(points, question, design, tuple(range(10)), 1)
    verdicts = {row["rival"]: row["verdict"] for row in found.rows}
    (near,) = {"heun", "ddim"} - {found.rows[0]["best"]}
    assert verdicts == {near: "equivalent", "euler": "apart", "sde": "open"}
    assert not found.decided
    euler = next(row for row in found.rows if row["rival"] == "euler")
    assert euler["since"] == 5
    assert euler["low"] < euler["difference"] < euler["high"]
    assert look_at(points, question, design, tuple(range(10)), 0).seeds == 5
    with pytest.raises(QueryError, match="nothing to compare"):
        look_at(points, read_question("best(sampler) at sampler == 'heun'"), design, tuple(range(10)), 0)


def looked(
    values: dict[str, list[float]], looks: tuple[int, ...], metric: str = "w1"
) -> dict[object, tuple[object, object]]:
    """The verdict on each rival, and since when."""
    points = points_of(values_of(values, dataset="moons", formulation="edm"), metric)
    found = look_at(points, read_question("best(sampler)"), Design(looks), tuple(range(looks[-1])), len(looks) - 1)
    assert found.decided is all(row["verdict"] in ("apart", "equivalent") for row in found.rows)
    return {row["rival"]: (row["verdict"], row["since"]) for row in found.rows}


def test_a_rival_is_apart_only_where_it_was_told_to_be_worse() -> None:
    a = [1.0, 1.1, 0.9, 1.05, 0.95, *[9.0] * 5]
    b = [2.0, 2.15, 1.9, 2.0, 1.95, *[2.0] * 5]
    assert looked({"euler": a[:5], "heun": b[:5]}, (5,)) == {"heun": ("apart", 5)}
    assert looked({"euler": a, "heun": b}, (5, 10)) == {"euler": ("contradicted", 5)}  # heun leads by its mean
    often = {"euler": [1.0, 1.01] * 9 + [1.0, 100.0], "heun": [4.0, 4.01] * 10}
    assert looked(often, (20,)) == {"euler": ("contradicted", 20)}  # logarithms say the opposite of means


def test_a_verdict_is_shown_as_it_was_first_reached() -> None:
    draw = np.random.default_rng(2)
    x = 10 + draw.normal(size=40)
    near = x + 0.06 + np.append([0.06, -0.06, 0.03, -0.03, 0.0], 0.01 * draw.normal(size=35))
    both = verdicts(np.array([x, near]), all_pairs(np.array([0, 1]), np.array([0, 0])), Design((5, 40)))
    assert (both.equivalent[0], both.apart[0]) == (0, 1)
    assert looked({"heun": x.tolist(), "euler": near.tolist()}, (5, 40)) == {"euler": ("equivalent", 5)}


def test_what_is_left_out_is_told_with_its_reason() -> None:
    draw = np.random.default_rng(4)
    values = {name: (m + 0.01 * draw.normal(size=5)).tolist() for name, m in {"heun": 1.0, "euler": 2.0}.items()}
    rows = values_of(
        {**values, "ddim": [1.0, float("nan"), 1.0, 1.0, 1.0], "sde": [0.9] * 5, "rk4": [0.5] * 5}, dataset="moons"
    )
    rows = [{**row, "process": "dynamics" if row["sampler"] == "rk4" else "generation"} for row in rows]
    rows = [{**row, "status": "failed"} if (row["sampler"], row["seed"]) == ("sde", 3) else row for row in rows]
    points = points_of(rows, "w1")
    found = look_at(points, read_question("best(sampler)"), Design((5,)), tuple(range(5)), 0)
    assert [(row["rival"], row["verdict"]) for row in found.rows] == [("euler", "apart")]
    told = {row["sampler"]: row["reason"] for row in found.left_out}
    assert told["ddim"] == "no value of w1 at seed 1"
    assert told["sde"] == "failed at seed 3"
    assert "sets out from data" in str(told["rk4"])
    assert found.value()["left_out"] == list(found.left_out)
    asked = look_at(points, read_question("best(sampler) at sampler != 'sde'"), Design((5,)), tuple(range(5)), 0)
    assert {row["sampler"] for row in asked.left_out} == {"ddim", "rk4"}  # of what was not asked nothing is left out


def never(request: RunRequest) -> None:
    raise AssertionError(f"{request.study} was run")


@pytest.mark.parametrize(
    ("until", "by", "metric", "change", "says"),
    [
        ("best(smapler)", ("formulation",), None, "", "did you mean 'sampler'"),
        ("best(sampler)", ("formulatoin",), None, "", "did you mean 'formulation'"),
        ("best(sampler)", ("formulation",), "ks", "", "metric 'ks' is unknown"),
        ("best(sampler)", ("formulation",), None, "metrics=[ks, energy]", "--metric NAME is needed"),
        ("best(sampler) at nef<=20", ("formulation",), None, "", "did you mean 'nfe'"),
        ("best(sampler) at steps == 'three'", ("formulation",), None, "", "compares a text with a number"),
        ("best(sampler)", ("formulation",), None, "samplers=[heun]", "nothing to compare"),
        ("best(sampler) at nfe<=3", ("formulation",), None, "", "nothing to compare"),
        ("best(sampler)", ("formulation",), None, "datasets=[uniform, moons]", "different data sets"),
        ("best(sampler)", ("formulation",), None, "exclude=[{sampler: euler, seed: 4}]", "seed 4"),
        ("best(sampler)", ("formulation",), None, "grids=[{seeds: 3}, {steps: [4]}]", r"grids\[0\].seeds"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_the_first_run(
    tmp_path: Path, until: str, by: tuple[str, ...], metric: str | None, change: str, says: str
) -> None:
    (tmp_path / "growing.yaml").write_text(STUDY)
    store = tmp_path / "store"
    request = RunRequest(str(tmp_path / "growing.yaml"), str(store), (change,) if change else ())
    said: list[str] = []
    with pytest.raises((QueryError, StudyError), match=says):
        grown(request, read_question(until, by, metric), design_of(Margin(), 6), never, announce=said.append)
    assert said == []
    assert not store.exists()


def test_a_loaded_study_is_run_as_it_is_and_takes_no_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study.from_spec(yaml.safe_load(STUDY))
    (tmp_path / study.name).write_text(STUDY.replace("[3]", "[7]"))  # another study, in a file of that name
    with pytest.raises(StudyError, match="found a loaded study"):
        grow(study, "store", overrides=["steps=[4]"])
    asked: list[Study] = []

    def run(request: RunRequest) -> None:
        asked.append(load_study(request.study, request.overrides))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grown(
            RunRequest(study.name, "store"), read_question("best(sampler)"), design_of(Margin(), 6), run, loaded=study
        )
    assert asked == [study.model_copy(update={"seeds": (0, 1, 2, 3, 4)})]


def ran(uri: str, calls: list[int], stop_at: int = 99) -> Callable[[RunRequest], None]:
    """What a run does, in this process; the last one that is allowed is interrupted before its end."""

    def run(request: RunRequest) -> None:
        study = load_study(request.study, request.overrides)
        calls.append(len(study.seeds))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        answer(uri, study.spec())

    return run


def grow_here(
    folder: Path,
    store: str,
    calls: list[int],
    stop_at: int = 99,
    margin: str = "0.0001%",
    said: list[str] | None = None,
) -> Growth:
    alike = STUDY.replace("[euler, heun]", "[ancestral, dpmpp-2m-sde]")  # which five seeds do not tell apart
    (folder / "growing.yaml").write_text(alike)
    uri = str(folder / store)
    request = RunRequest(str(folder / "growing.yaml"), uri, wait=2, force_unlock=True)
    design = design_of(read_margin(margin), 6)  # nothing is as alike as is the default, so that both looks are made
    question, run = read_question("best(sampler)", ("formulation",)), ran(uri, calls, stop_at)
    return grown(request, question, design, run, warn=(said if said is not None else []).append)


def decisions(growth: Growth) -> list[object]:
    return [look.value() for look in growth.looks]


def test_each_look_is_recorded_and_a_second_call_only_looks(tmp_path: Path) -> None:
    calls: list[int] = []
    first = grow_here(tmp_path, "one", calls)
    assert calls == [5, 6]
    store = Store.open(str(tmp_path / "one"))
    recorded = looks_recorded(store, "growing")
    assert [json.loads(text)["seeds"] for text in recorded] == [look.seeds for look in first.looks]
    assert json.loads(recorded[0])["rule"] == 2
    snapshot = store.snapshot()
    again = grow_here(tmp_path, "one", calls)
    assert len(calls) == len(first.looks)
    assert decisions(again) == decisions(first)
    assert Store.open(str(tmp_path / "one")).snapshot() == snapshot

    said: list[str] = []
    grow_here(tmp_path, "one", calls, said=said)
    assert said == []
    grow_here(tmp_path, "one", calls, margin="50%", said=said)
    (other,) = said
    assert "another design: best(sampler) by formulation, w1, margin 0.0001%, at 5, 6 seeds" in other

    killed: list[int] = []
    assert len(first.looks) == 2
    with pytest.raises(KeyboardInterrupt):
        grow_here(tmp_path, "two", killed, 2)
    assert looks_recorded(Store.open(str(tmp_path / "two")), "growing") == recorded[:1]
    resumed = grow_here(tmp_path, "two", killed)
    assert decisions(resumed) == decisions(first)
    assert looks_recorded(Store.open(str(tmp_path / "two")), "growing") == recorded


def test_recording_a_look_waits_and_unlocks_as_the_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr("flows.growing.record_look", lambda *_, **options: asked.append(options))
    grow_here(tmp_path, "store", [], margin="50%")
    assert [(options["force_unlock"], options["wait"]) for options in asked][:1] == [(True, 120)]
