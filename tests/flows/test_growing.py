"""A study that grows: what it asks, what each look records, and that a second call only looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flows.growing import Growth, design_of, grown
from flows.request import RunRequest
from tasks.query.growing import look_at, read_margin, read_question
from tasks.results.stored import looks_recorded
from tasks.statistics.sequential import Design, Margin
from tasks.store import Store
from tasks.study import load_study
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


def ran(uri: str, calls: list[int], stop_at: int = 99) -> Callable[[RunRequest], None]:
    """What a run does, in this process; the last one that is allowed is interrupted before its end."""

    def run(request: RunRequest) -> None:
        study = load_study(request.study, request.overrides)
        calls.append(len(study.seeds))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        answer(uri, study.spec())

    return run


def grow_here(folder: Path, store: str, calls: list[int], stop_at: int = 99) -> Growth:
    (folder / "growing.yaml").write_text(STUDY)
    uri = str(folder / store)
    request = RunRequest(str(folder / "growing.yaml"), uri)
    design = design_of(read_margin("0.0001%"), 6)  # nothing is that alike: both looks are made
    return grown(request, read_question("best(sampler)", ("formulation",)), design, ran(uri, calls, stop_at))


def decisions(growth: Growth) -> list[object]:
    return [look.value() for look in growth.looks]


def test_each_look_is_recorded_and_a_second_call_only_looks(tmp_path: Path) -> None:
    calls: list[int] = []
    first = grow_here(tmp_path, "one", calls)
    assert calls == [5, 6][: len(first.looks)]
    store = Store.open(str(tmp_path / "one"))
    recorded = looks_recorded(store, "growing")
    assert [json.loads(text)["seeds"] for text in recorded] == [look.seeds for look in first.looks]
    assert json.loads(recorded[0])["rule"] == 1
    snapshot = store.snapshot()
    again = grow_here(tmp_path, "one", calls)
    assert len(calls) == len(first.looks)
    assert decisions(again) == decisions(first)
    assert Store.open(str(tmp_path / "one")).snapshot() == snapshot

    killed: list[int] = []
    if len(first.looks) == 2:
        with pytest.raises(KeyboardInterrupt):
            grow_here(tmp_path, "two", killed, 2)
        assert looks_recorded(Store.open(str(tmp_path / "two")), "growing") == recorded[:1]
    resumed = grow_here(tmp_path, "two", killed)
    assert decisions(resumed) == decisions(first)
    assert looks_recorded(Store.open(str(tmp_path / "two")), "growing") == recorded
