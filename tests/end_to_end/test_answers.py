"""`query`, `plan`, `report`, `catalog` and bad input, in process: no services needed."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from flows.command_line import app
from tasks.query import QueryError, query, where
from tasks.results import open_results, open_samples
from tasks.store import Store
from tests.tasks.tiny_store import answer

runner = CliRunner()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("answers") / "results")
    answer(uri)
    return uri


def ask(*arguments: str, code: int = 0) -> Result:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def test_query_gives_the_group_columns_and_then_the_statistics(store: str) -> None:
    records = json.loads(
        ask("query", "--store", store, "--by", "formulation,steps", "--metric", "w1", "--stat", "mean,sem,count",
            "--where", "sampler == 'heun'", "--format", "json").stdout
    )  # fmt: skip
    assert [list(r) for r in records] == [["formulation", "steps", "w1_mean", "w1_sem", "w1_count"]] * 4
    points = open_results(store, "tiny")
    expected = points["w1"].values[
        (points["sampler"].values == "heun") & (points["formulation"].values == "edm") & (points["steps"].values == 3)
    ]
    got = next(r for r in records if r["formulation"] == "edm" and r["steps"] == 3)
    assert got["w1_mean"] == pytest.approx(expected.mean(), rel=1e-12)
    assert got["w1_sem"] == pytest.approx(expected.std(ddof=1) / np.sqrt(2), rel=1e-12)
    assert got["w1_count"] == 2


def test_query_without_groups_gives_a_record_per_point_in_every_format(store: str, tmp_path: Path) -> None:
    as_json = json.loads(ask("query", "--store", store, "--format", "json").stdout)
    assert len(as_json) == 16
    ask("query", "--store", store, "--format", "csv", "--out", str(tmp_path / "p.csv"))
    ask("query", "--store", store, "--format", "parquet", "--out", str(tmp_path / "p.parquet"))
    csv, parquet = pd.read_csv(tmp_path / "p.csv"), pd.read_parquet(tmp_path / "p.parquet")
    assert len(csv) == len(parquet) == 16
    np.testing.assert_array_equal(parquet["w1"], [r["w1"] for r in as_json])
    assert ask("query", "--store", store).stdout.count("\n") == 17


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--where", "smapler == 'heun'"], "did you mean 'sampler'"),
        (["--where", "sampler == "], "not understood"),
        (["--where", "__import__('os').system('true')"], "expected a comparison"),
        (["--where", "steps == 'heun'"], "compares a text with a number"),
        (["--by", "formulatoin"], "did you mean 'formulation'"),
        (["--metric", "w2"], "did you mean 'w1'"),
        (["--stat", "meen", "--by", "steps"], "did you mean 'mean'"),
        (["--format", "xml"], "table, csv, json, latex, markdown, parquet"),
        (["--study", "nope"], "no study 'nope'"),
    ],
)
def test_a_question_that_makes_no_sense_exits_2_with_one_message(
    store: str, arguments: list[str], expected: str
) -> None:
    result = ask("query", "--store", store, *arguments, code=2)
    assert expected in result.output
    assert "Traceback" not in result.output


def test_a_missing_store_exits_3_and_a_wrong_reference_2(store: str, tmp_path: Path) -> None:
    assert "no store here" in ask("query", "--store", str(tmp_path / "none"), code=3).output
    (tmp_path / "file").write_text("mine")
    assert "this is a file" in ask("query", "--store", str(tmp_path / "file"), code=3).output
    text = ask("query", "--store", store, "--as-of", "yesterday", code=2).output
    assert "neither a snapshot, a tag nor a time" in text
    assert "nothing is older" in ask("query", "--store", store, "--as-of", "2001-01-01", code=2).output
    assert "expected a folder or s3" in ask("query", "--store", "ftp://a/b", code=2).output


@pytest.mark.parametrize("damage", ["delete", "truncate"])
@pytest.mark.parametrize("kind", ["chunks", "manifests", "snapshots"])
def test_a_damaged_store_gives_one_clear_error_and_exits_3(store: str, tmp_path: Path, kind: str, damage: str) -> None:
    shutil.copytree(store, tmp_path / "copy")
    for file in (tmp_path / "copy" / kind).iterdir():
        if damage == "delete":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:3])
    uri = str(tmp_path / "copy")
    report = ["report", "--out", str(tmp_path / "page.html")]
    # of so small a store only weights and samples have chunks of their own, and the report is what
    # reads them
    for command in [report] if kind == "chunks" else [report, ["query", "--by", "sampler"]]:
        result = ask(*command, "--store", uri, code=3)
        assert f"store {uri}: cannot" in result.output
        assert "Traceback" not in result.output
        assert len(result.output.strip().splitlines()) <= 2, result.output
    assert not (tmp_path / "page.html").exists()


def test_a_device_is_not_replaced_by_a_report(store: str) -> None:
    assert "not a regular file" in ask("report", "--store", store, "--out", "/dev/null", code=2).output


def test_a_question_that_nothing_matches_says_so(store: str) -> None:
    answered = ask("query", "--store", store, "--where", "steps > 1000")
    assert answered.stdout == ""
    assert answered.stderr.startswith(
        "no point matches --where: steps > 1000 holds of none of the 16 points (steps there: "
    )
    assert len(answered.stderr.splitlines()) == 1
    assert json.loads(ask("query", "--store", store, "--where", "steps > 1000", "--format", "json").stdout) == []
    ranked = ask("query", "--store", store, "--best", "sampler", "--at", "nfe < 0")
    assert "no point matches --at: nfe < 0 holds of none of the 16 points (nfe there: " in ranked.stderr


def test_an_older_snapshot_answers_with_what_was_known_then(store: str) -> None:
    snapshots = [entry["snapshot"] for entry in Store.open(store).history()]
    assert open_results(store, as_of=snapshots[0]).sizes["point"] == 16
    assert open_results(store, as_of=snapshots[1]).sizes["point"] == 8
    with pytest.raises(KeyError):
        open_samples(store, "0" * 20)


def test_samples_are_those_that_the_metric_was_computed_from(store: str) -> None:
    from diffusion.datasets import Uniform
    from diffusion.metrics import Wasserstein1

    points = open_results(store, "tiny")
    import torch

    for i in range(4):
        samples = torch.as_tensor(open_samples(store, str(points["point_id"].values[i])).values, dtype=torch.float64)
        again = Wasserstein1().evaluate(samples, Uniform())
        assert again == pytest.approx(float(points["w1"][i]), rel=1e-5)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_no_text_in_where_raises_anything_but_a_query_error(text: str) -> None:
    frame = pd.DataFrame({"steps": [1, 2], "sampler": ["a", "b"]})
    with contextlib.suppress(QueryError):
        assert where(frame, text).shape == (2,)


_names = st.sampled_from(["steps", "w1", "sampler", "torus-distance", "1", "2.5", "'a'", "['a', 'b']", "nonsense"])
_comparison = st.builds(
    lambda a, op, b: f"{a} {op} {b}",
    _names,
    st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in", "is"]),
    _names,
)
_expression = st.recursive(
    _comparison,
    lambda inner: st.one_of(
        st.builds("({}) and ({})".format, inner, inner), st.builds("({}) or not ({})".format, inner, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(_expression)
def test_sentences_of_the_where_language_are_answered_or_refused(text: str) -> None:
    frame = pd.DataFrame({"steps": [1, 2], "w1": [0.1, np.nan], "sampler": ["a", "b"], "torus-distance": [1.0, 2.0]})
    with contextlib.suppress(QueryError):
        assert where(frame, text).dtype == bool


def test_where_means_what_it_says(store: str) -> None:
    points = open_results(store)
    frame = query(points, "(sampler in ['heun'] and steps <= 2) or not formulation == 'exact' and 2 < steps")
    expected = (
        (points["sampler"].values == "heun") & (points["steps"].values <= 2)
    ) | ((points["formulation"].values != "exact") & (points["steps"].values > 2))  # fmt: skip
    assert len(frame) == expected.sum()


def test_the_catalogue_lists_every_registered_name_with_its_source() -> None:
    from tasks.study.catalogue import REGISTRIES

    listed = json.loads(ask("catalog", "--json").stdout)
    for registry in REGISTRIES:
        entries = listed[f"{registry.kind}s"]
        assert [entry["name"] for entry in entries] == registry.names()
        assert all(entry["formula"] and entry["source"] for entry in entries)
    shown = ask("catalog", "samplers").stdout
    assert "heun" in shown
    peers = {entry["name"]: entry["accepted"] for entry in listed["samplers"] if "accepted" in entry}
    assert {name: list(names) for name, names in peers.items()} == {
        "azula": ["sampler"],
        "diffusers": ["scheduler"],
        "k-diffusion": ["sampler"],
    }
    cells = [line.split("│")[2] for line in shown.splitlines() if line.count("│") == 5]
    told = re.sub(r"\s", "", "".join(cells))  # names are folded over lines
    for named in peers.values():
        for parameter, names in named.items():
            assert len(names) > 8
            assert f"{parameter}:oneof{','.join(names)}" in told
    assert "no kind" in ask("catalog", "nonsense", code=2).output


def test_a_report_of_a_store_with_one_study_needs_no_name(store: str, tmp_path: Path) -> None:
    ask("report", "--store", store, "--out", str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert "tiny" in text
    assert "edm" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: x\ndatasets: [unifrom]\nformulations: [edm]\nsamplers: [heun]\nsteps: [1]\nmetrics: [w1]\n",
            "did you mean 'uniform'",
        ),
        (
            "name: x\ndatasets: [uniform]\nformulations: [edm]\nsamplers: [heun]\nsteps: [0]\nmetrics: [w1]\n",
            "expected an integer",
        ),
        ("name: x\ndatasets: [uniform]\nformulations: [edm]\nsamplers: [heun]\nsteps: []\nmetrics: [w1]\n", "steps"),
        ("name: x\nname: y\n", "name"),
        ("\x00\x01", "bad.yaml"),
        ("- a\n- b\n", "bad.yaml"),
        (
            "{name: x, datasets: [uniform], formulations: [edm], steps: [1], metrics: [w1], samplers: [TRANSITION]}",
            "does not preserve variance",
        ),
    ],
)
def test_a_bad_study_exits_2_with_its_place_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(text.replace("TRANSITION", "{name: ancestral, variance: transition}"))
    result = ask("run", "bad.yaml", code=2)
    assert expected in result.output
    assert "bad.yaml" in result.output
    assert "Traceback" not in result.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_missing_study_lists_the_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = ask("run", "unifrom", code=2)
    assert "uniform" in result.output
    assert "torus" in result.output
