"""Own numbers beside those of another store: what it has of a study's questions, and how the two
compare.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import diffatlas as da
from flows.command_line import app
from flows.command_line.beside import print_beside
from tasks.results import open_results
from tasks.results.beside import held_elsewhere, points_beside
from tasks.study import Study
from tasks.where.language import QueryError
from tests.tasks.tiny_store import SPEC, answer

OTHER: dict[str, Any] = {**SPEC, "training": {**SPEC["training"], "steps": 12}}
LESS: dict[str, Any] = {**SPEC, "steps": [1], "metrics": ["w1"], "keep": {}}
THIRD: dict[str, Any] = {**OTHER, "name": "third", "training": {**SPEC["training"], "steps": 14}}
OF_KS: dict[str, Any] = {**LESS, "metrics": ["ks"]}
FAILS: dict[str, Any] = {**LESS, "training": {**SPEC["training"], "learning_rate": 1e30}}
STRANGER: dict[str, Any] = {**SPEC, "name": "stranger", "datasets": ["four_points"]}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study, its store, and others with the same, with one otherwise trained, with
    less, and with nothing of it.
    """
    folder = tmp_path_factory.mktemp("beside")
    for name, spec in {"tiny": SPEC, "less": LESS, "fails": FAILS}.items():
        (folder / f"{name}.yaml").write_text(json.dumps(spec))
    stores = {"own": SPEC, "same": SPEC, "other": OTHER, "less": LESS, "stranger": STRANGER, "of [ks]": OF_KS}
    for name, spec in {**stores, "twins": OTHER, "failed": FAILS}.items():
        answer(str(folder / name), spec)
    answer(str(folder / "twins"), THIRD)
    return folder


@pytest.fixture(autouse=True)
def _there(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stores)
    monkeypatch.setenv("COLUMNS", "140")


def counts(name: str) -> tuple[int, int, int, int]:
    """Answered, different, failed, absent."""
    held = held_elsewhere(Study.from_spec(SPEC), name)
    assert held.asked == 16  # euler and heun in 1 and 3 steps, of edm and of exact, two seeds each
    return held.answered, held.different, held.failed, held.absent


def test_what_another_store_has_is_counted_and_what_differs_is_said() -> None:
    assert counts("same") == (16, 0, 0, 0)
    assert counts("stranger") == (0, 0, 0, 16)
    assert counts("other") == (8, 8, 0, 0)
    (why,) = held_elsewhere(Study.from_spec(SPEC), "other").differing
    assert why.text == "changed: training.steps 12 -> 10"
    assert counts("less") == (0, 8, 0, 8)
    (lacking,) = held_elsewhere(Study.from_spec(SPEC), "less").differing
    assert lacking.text == "ks not measured"  # samples are not asked for, which it did not keep


def test_the_points_beside_are_those_of_the_same_questions() -> None:
    own = open_results("own", "tiny")
    for name, same_ids, size in (("same", 16, 16), ("other", 8, 16), ("less", 8, 8), ("stranger", 0, 0)):
        found = points_beside(own, name)
        assert found.sizes["point"] == size
        assert np.isin(found["point_id"].values, own["point_id"].values).sum() == same_ids


def said(*arguments: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == code, found.output
    return " ".join((found.stdout if code == 0 else found.stderr).split())


def test_plan_tells_what_another_store_has() -> None:
    told = said("plan", "tiny.yaml", "--store", "none", "--against", "other")
    assert "other has 8 of 16 points; 8 stand there in another form, 0 failed there, 0 are not there" in told
    assert "other differs in 8 points: changed: training.steps 12 -> 10" in told
    values = json.loads(said("plan", "tiny.yaml", "--store", "none", "--against", "less", "--json"))["against"]
    assert values["points"] == {"asked": 16, "answered": 0, "different": 8, "failed": 0, "absent": 8}
    assert values["differences"][0]["reason"] == "ks not measured"
    assert not Path("none").exists()


def test_from_python_both_return_what_the_other_store_has() -> None:
    made, held = da.plan("tiny.yaml", "none", against="other")
    assert (len(made.points), held.answered, held.different, held.absent) == (16, 8, 8, 0)
    assert isinstance(da.plan("tiny.yaml", "none"), da.Plan)
    points, moved = da.run("tiny.yaml", "own", report="page.html", beside="other")  # it is finished
    assert points.sizes["point"] == 16
    told = json.loads(said("diff", "--store", "own", "--study", "tiny", "--against", "other", "--json"))
    assert sorted(moved.groups["verdict"]) == sorted(row["verdict"] for row in told["groups"])
    assert sorted(moved.groups["after"]) == pytest.approx(sorted(row["after"] for row in told["groups"]))
    assert isinstance(da.run("tiny.yaml", "own", report="page.html"), xr.Dataset)
    for ask in (
        lambda: da.plan("tiny.yaml", against="stranger"),
        lambda: da.run("tiny.yaml", "new", beside="stranger"),
    ):
        with pytest.raises(QueryError, match=r"(against|beside) stranger: it has none of the points of tiny"):
            ask()
    with pytest.raises(QueryError, match=r"nothing can be compared: of \[ks\] measured ks, and here it is w1"):
        da.run("less.yaml", "less", report="page.html", beside="of [ks]")
    assert not Path("new").exists()


def test_run_shows_both_beside_each_other_with_what_diff_says() -> None:
    """Of a study that is finished, which starts nothing."""
    same = said("run", "tiny.yaml", "--store", "own", "--report", "page.html", "--beside", "same")
    assert "here beside same, the means over the seeds that both have" in same
    assert same.count(" unchanged") == 16  # a line for each configuration and metric
    assert "all points are in both" in same
    both = said("run", "tiny.yaml", "--store", "own", "--report", "page.html", "--beside", "other")
    assert both.count(" unchanged") == 8  # the exact rows
    less = said("run", "tiny.yaml", "--store", "own", "--report", "page.html", "--beside", "less")
    assert less.count(" unchanged") == 4
    assert "8 points are here alone" in less


def test_what_cannot_be_put_beside_is_told() -> None:
    twins = said("run", "tiny.yaml", "--store", "own", "--report", "page.html", "--beside", "twins")
    assert twins.count(" unchanged") == 8  # the exact rows
    told = "8 points of here not compared: 24 points of both share labels and seed with others of their store"
    assert told in twins
    none = said("run", "less.yaml", "--store", "less", "--report", "page.html", "--beside", "of [ks]")
    assert "nothing can be compared: of [ks] measured ks, and here it is w1" in none
    assert "all points are in both" not in none
    marked = said("run", "tiny.yaml", "--store", "own", "--report", "page.html", "--beside", "of [ks]")
    assert marked.count("of [ks]") == 2  # in the title and above its column


def test_the_path_of_the_page_and_failures_are_told_before_another_store_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def gone(study: Study, points: xr.Dataset, store: str) -> None:
        opened.append(store)
        print_beside(study, points, "nowhere")  # what was there when the run began

    monkeypatch.setattr("flows.command_line.run.print_beside", gone)
    for store, study, code in (("failed", "fails.yaml", 1), ("less", "less.yaml", 3)):
        found = CliRunner().invoke(app, ["run", study, "--store", store, "--report", "page.html", "--beside", "same"])
        assert found.exit_code == code, found.output
        assert "report: page.html" in found.stdout
        assert "there is no store here" in " ".join(found.stderr.split())
        assert ("failed" in found.stderr) is (code == 1)
    assert opened == ["same", "same"]


def test_the_numbers_are_those_of_either_store() -> None:
    told = json.loads(
        said("diff", "--store", "own", "--study", "tiny", "--against", "other", "--metric", "w1", "--json")
    )
    own, other = (
        open_results(name, "tiny").to_dataframe().groupby(["formulation", "sampler", "steps"])["w1"].mean()
        for name in ("own", "other")
    )
    assert len(told["groups"]) == 8
    for row in told["groups"]:
        at = row["formulation"], row["sampler"], row["steps"]
        if row["scale"] == "linear":
            assert (row["after"], row["before"]) == pytest.approx((own[at], other[at]))
        assert (row["verdict"] == "unchanged") is (row["formulation"] == "exact")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ("plan", "tiny.yaml", "--against", "stranger"),
            2,
            "it has none of the points of tiny (its studies: stranger)",
        ),
        (("run", "tiny.yaml", "--store", "own", "--beside", "stranger"), 2, "it has none of the points of tiny"),
        (("diff", "--store", "own", "--against", "stranger"), 2, "it has none of the points of own"),
        (("diff", "--store", "own"), 2, "found neither a snapshot A nor --against URI"),
        (("run", "tiny.yaml", "--store", "own", "--beside", "nowhere"), 3, "there is no store here"),
        (("plan", "tiny.yaml", "--against", "atlas"), 3, "the answers that came with diffatlas are 'atlas:'"),
        (("run", "documents", "--store", "own", "--beside", "same"), 2, "documents names several studies"),
    ],
)
def test_what_cannot_be_held_against_another_is_refused_in_a_sentence(
    arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    assert sentence in said(*arguments, code=code)
    assert not Path("results").exists()
