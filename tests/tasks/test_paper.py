"""Tables for papers: what they say is what the answer says, read back with another library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from deployments.atlas import STUDIES
from flows.command_line import app
from tasks.query import pareto, query, rank
from tasks.query.paper import FORMS, paper_table
from tasks.results import open_results
from tests.tasks.tiny_store import SPEC, answer

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = str(tmp_path_factory.mktemp("paper") / "store")
    answer(where, {**SPEC, "seeds": 3, "samplers": ["heun", "euler", "ddim"]})
    return where


@pytest.fixture(scope="module")
def points(uri: str) -> xr.Dataset:
    return open_results(uri)


def read(text: str) -> list[list[str]]:
    """Titles and rows of a Markdown table, without what makes them bold."""
    cells: list[str] = []
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            cells = []
        elif token.type == "inline" and token.level > 3:
            cells.append("".join(child.content for child in token.children or []))
        elif token.type == "tr_close":
            rows.append(cells)
    return rows


def test_a_ranking_says_what_its_rows_say_with_the_best_in_bold_and_ties_marked(points: xr.Dataset) -> None:
    frame = rank(points, "sampler", "w1")
    text = paper_table(frame, "markdown")
    titles, *rows = read(text)
    common = {str(name) for name in frame if frame[name].nunique() == 1} - {"tied"}
    assert common >= {"dataset", "w1_count"}
    left_out = {"rank", "w1_sem", "behind_sem", "tied"} | common
    assert titles == [str(name).removesuffix("_mean") for name in frame if name not in left_out]
    for name in common:
        assert re.search(rf"In all rows: .*\b{name} {frame[name].iloc[0]}".replace("_", r"\\?_"), text)
    assert len(rows) == len(frame)
    for cells, (_, row) in zip(rows, frame.iterrows(), strict=True):
        value, error = cells[titles.index("w1")].rstrip("†").split(" ± ")
        assert float(value) == pytest.approx(row["w1_mean"], abs=0.051 * row["w1_sem"])
        assert float(error) == pytest.approx(row["w1_sem"], rel=0.051)
        assert cells[titles.index("sampler")] == row["sampler"]
        assert cells[titles.index("w1")].endswith("†") == (row["tied"] is True)
    assert text.count("**") == 2 * int((frame["rank"] == 1).sum())
    assert "Bold: the best of its group." in text
    assert ("† " in text.splitlines()[-1] or "†:" in text.splitlines()[-1]) == bool(frame["tied"].any())


def test_what_was_asked_for_stays_whatever_it_holds(points: xr.Dataset) -> None:
    frame = rank(points, "sampler", "w1")
    titles, *rows = read(paper_table(frame, "markdown", ["dataset", "rank", "w1_count"]))
    assert titles[:2] == ["dataset", "formulation"]
    assert [cells[titles.index("rank")] for cells in rows] == [str(rank) for rank in frame["rank"]]
    assert {cells[titles.index("w1_count")] for cells in rows} == {"3"}
    assert read(paper_table(frame.iloc[:1], "markdown"))[0][0] == "dataset"  # one row has nothing in common with others


def test_a_distance_that_is_rounding_is_none() -> None:
    """Two samplers that are one rule: their means differ in the last bit, or by nothing at all."""
    behind: dict[str, list[Any]] = {
        "behind": [0.0, -2.3e-18, 0.1],
        "behind_sem": [np.nan, 2.4e-18, 0.02],
        "tied": [True, True, False],
    }
    frame = pd.DataFrame({"sampler": ["a", "b", "c"], "rank": [1, 2, 3], "w1_mean": [0.5, 0.5, 0.6], "w1_sem": 0.01})
    titles, *rows = read(paper_table(frame.assign(**behind), "markdown"))
    assert [cells[titles.index("behind")] for cells in rows] == ["0", "0", "0.100 ± 0.020"]


def test_groups_and_fronts_are_tables_as_well(points: xr.Dataset) -> None:
    groups = query(points, None, ["formulation", "steps"], ["w1"], ("mean", "std", "count"))
    titles, *rows = read(paper_table(groups, "markdown"))
    assert titles == ["formulation", "steps", "w1", *(["w1_count"] if groups["w1_count"].nunique() > 1 else [])]
    assert all("±" in cells[2] for cells in rows)
    assert "±: one standard deviation." in paper_table(groups, "markdown")
    front = pareto(points, ["w1", "nfe"], ["formulation"])
    assert len(read(paper_table(front, "markdown"))) == len(front) + 1


@pytest.mark.parametrize("form", FORMS)
def test_each_row_has_all_columns_whatever_the_names_hold(form: str) -> None:
    nasty = r"a&b%c$d#e_f{g}h~i^j|k\l*m`n<o>[p]"
    frame = pd.DataFrame({nasty: [nasty, "plain"], "n": [1, 2]})
    text = paper_table(frame, form)
    if form == "markdown":
        assert read(text) == [[nasty, "n"], [nasty, "1"], ["plain", "2"]]
        return
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == 1
        assert not re.search(r"(?<!\\)[%$#_]|[~^|]", row)
    assert r"k\textbackslash{}l" in text


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0.012345, 0.00067, "0.01234 ± 0.00067"),
        (12345.6, 250.0, "12350 ± 250"),
        (1.5, 0.0996, "1.500 ± 0.100"),
        (3.2e-9, 1.1e-10, "(3.20 ± 0.11)e-9"),
        (0.25, 8.9e-10, "0.25"),
        (1.5, 2e-5, "1.500000 ± 0.000020"),
        (-2.5e-7, 1e-15, "-2.5e-07"),
        (0.5, np.nan, "0.5"),
        (0.5, 0.0, "0.5"),
        (np.nan, 0.1, "-"),
    ],
)
def test_a_mean_is_rounded_as_its_error_is(value: float, error: float, said: str) -> None:
    text = paper_table(pd.DataFrame({"w1_mean": [value], "w1_sem": [error]}), "markdown")
    assert read(text)[1] == [said]
    latex = paper_table(pd.DataFrame({"w1_mean": [value], "w1_sem": [error]}), "latex")
    assert said.partition(" ")[0].strip("(") in latex


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STUDIES)
def test_every_mean_of_the_shipped_answers_has_a_place_in_a_table(name: str, form: str) -> None:
    """Also those that are the same for all seeds but for the last digits."""
    by = ["dataset", "formulation", "schedule", "sampler", "grid", "steps"]
    frame = query(open_results("atlas:", study=name), by=by)
    assert len(paper_table(frame, form).splitlines()) > len(frame) > 0


def test_the_command_writes_them(uri: str, tmp_path: Path) -> None:
    asked = ["query", "--store", uri, "--best", "sampler", "--metric", "w1", "--format", "latex"]
    ended = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "table.tex")])
    assert ended.exit_code == 0, ended.output
    text = (tmp_path / "table.tex").read_text()
    assert text.startswith(r"\begin{tabular}{")
    assert r"\textbf{" in text
    assert text.splitlines()[2].startswith("formulation & sampler & ")
    grouped = ["query", "--store", uri, "--by", "dataset,sampler", "--format", "markdown"]
    assert read(CliRunner().invoke(app, grouped).stdout)[0] == ["dataset", "sampler", "ks", "w1"][:2] + [
        name for name in read(CliRunner().invoke(app, grouped).stdout)[0][2:] if not name.endswith("_count")
    ]
    counted = CliRunner().invoke(app, [*grouped, "--stat", "mean,count", "--metric", "w1"])
    assert read(counted.stdout)[0] == ["dataset", "sampler", "w1_mean", "w1_count"]
    one = "steps == 1 and seed == 0 and formulation == 'exact' and sampler != 'ddim'"  # of one step both are one rule
    same = CliRunner().invoke(app, ["query", "--store", uri, "--where", one, "--metric", "w1", "--format", "markdown"])
    titles, *rows = read(same.stdout)
    assert len({cells[titles.index("w1")] for cells in rows}) == 1
    assert len(rows) == 2
    wrong = CliRunner().invoke(app, [*asked[:-1], "word"])
    assert wrong.exit_code == 2
    assert "there are: table, csv, json, latex, markdown, parquet" in wrong.output
