"""The commands that look at a store's history and take things out of it, in process: no services
needed.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from typer.testing import CliRunner, Result

import tasks.accessor  # noqa: F401 - points.atlas
from diffusion.metrics import Wasserstein1
from flows.command_line import app
from tasks.results import open_results
from tests.tasks.tiny_store import SPEC, answer

runner = CliRunner()


def ask(*arguments: object, code: int = 0) -> Result:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two snapshots of one study: in the second `w1` is worse, by about a half and not for every
    seed the same; `ks` is as it was.
    """
    uri = str(tmp_path_factory.mktemp("keeping") / "results")
    spec = {**SPEC, "seeds": 4, "formulations": ["exact"]}
    answer(uri, spec)
    ask("tag", "before", "--store", uri)
    honest = Wasserstein1._measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Wasserstein1, "version", 2)
        patch.setattr(Wasserstein1, "_measure", lambda self, x, d: honest(self, x, d) + 0.5 + float(x.mean()))
        answer(uri, spec)
    return uri


def test_a_tag_names_a_snapshot_for_every_command_that_takes_one(store: str) -> None:
    tagged = next(entry for entry in json.loads(ask("history", "--store", store, "--json").stdout) if entry["tags"])
    assert tagged["tags"] == ["before"]
    assert open_results(store, as_of="before").attrs["snapshot"] == tagged["snapshot"]
    result = ask("tag", "before", "--store", store, code=2)
    assert tagged["snapshot"] in result.output
    assert ask("tag", "../up", "--store", store, code=2).output.startswith("tag '../up'")
    ask("tag", "for-now", tagged["snapshot"][:6], "--store", store)
    ask("tag", "for-now", "--delete", "--store", store)
    assert "there is no tag 'for-now'" in ask("tag", "for-now", "--delete", "--store", store, code=2).output


def test_diff_tells_what_moved_and_ends_with_1_only_if_asked_to(store: str) -> None:
    document = json.loads(ask("diff", "before", "--store", store, "--metric", "w1,ks", "--json").stdout)
    moved = [row for row in document["groups"] if row["verdict"] == "worse"]
    assert moved
    assert {row["metric"] for row in moved} == {"w1"}
    assert all(row["change"] > 0.4 for row in moved)
    ask("diff", "before", "--store", store)
    ask("diff", "before", "--store", store, "--exit-code", code=1)
    ask("diff", "before", "--store", store, "--metric", "ks", "--exit-code")
    backwards = json.loads(ask("diff", document["after"]["snapshot"], "before", "--store", store, "--json").stdout)
    assert len(moved) == sum(row["verdict"] == "better" for row in backwards["groups"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("diff", "never"), "neither a snapshot, a tag nor a time"),
        (("diff", "before", "--metric", "w2"), "w2"),
        (("diff", "before", "--level", "2"), "level"),
        (("gc", "--older-than", "soon"), "expected an age such as 30d"),
        (("gc", "--older-than", "1m"), "younger"),
        (("export", "--format", "excel", "--out", "x"), "excel"),
        (("query", "--best", "sampler", "--pareto", "w1,nfe"), "one at a time"),
        (("query", "--at", "nfe < 3"), "--best"),
        (("query", "--best", "taste"), "taste"),
        (("query", "--pareto", "w1,price"), "price"),
        (("query", "--best", "sampler", "--stat", "mean"), "--stat"),
        (("query", "--best", "sampler", "--metric", "w1,ks"), "one metric"),
    ],
)
def test_a_question_that_makes_no_sense_exits_2_and_says_why(
    store: str,
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    assert expected in ask(*arguments, "--store", store, code=2).output


def test_rank_and_front_are_tables_like_any_other(store: str) -> None:
    best = json.loads(
        ask(
            "query", "--store", store, "--best", "sampler", "--at", "nfe <= 3", "--metric", "ks", "--format", "json"
        ).stdout
    )
    assert {row["sampler"] for row in best} == {"euler", "heun"}
    assert all(row["nfe"] <= 3 for row in best)
    assert [row["rank"] for row in best] == [1, 2]
    front = json.loads(ask("query", "--store", store, "--pareto", "ks,nfe", "--format", "json").stdout)
    values = [(row["ks_mean"], row["nfe"]) for row in front]
    assert values == sorted(values)
    assert [nfe for _, nfe in values] == sorted((nfe for _, nfe in values), reverse=True)


def test_an_export_opens_without_this_package(store: str, tmp_path: Path) -> None:
    points = open_results(store)
    for form, name in (("zarr", "p.zarr"), ("netcdf", "p.nc"), ("parquet", "p.parquet")):
        ask("export", "--store", store, "--format", form, "--out", tmp_path / name)
    assert "exists" in ask("export", "--store", store, "--out", tmp_path / "p.zarr", code=2).output
    for opened in (xr.open_zarr(tmp_path / "p.zarr"), xr.open_dataset(tmp_path / "p.nc")):
        np.testing.assert_array_equal(opened["w1"].values, points["w1"].values)
        assert list(opened["sampler"].values) == list(points["sampler"].values)
    np.testing.assert_array_equal(pd.read_parquet(tmp_path / "p.parquet")["w1"].to_numpy(), points["w1"].values)


def test_plan_explains_and_force_chooses_by_the_same_language(store: str, tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump({**SPEC, "seeds": 4, "formulations": ["exact"]}))
    document = json.loads(ask("plan", study, "--store", store, "--explain", "--json").stdout)
    assert {reason["reason"]: reason["points"] for reason in document["reasons"]} == {
        "version of w1 changed from 2 to 1": 16
    }
    forced = json.loads(
        ask("plan", study, "--store", store, "--force", "steps == 3 and seed in [0, 1]", "--explain", "--json").stdout
    )
    assert {reason["reason"]: reason["points"] for reason in forced["reasons"]}["forced"] == 4
    assert "no point" in ask("plan", study, "--store", store, "--force", "steps == 4", code=2).output
    assert "stps" in ask("plan", study, "--store", store, "--force", "stps == 4", code=2).output


def test_gc_keeps_what_is_young_and_tells_what_would_go(store: str) -> None:
    document = json.loads(ask("gc", "--store", store, "--older-than", "90m", "--dry-run", "--json").stdout)
    assert document["snapshots"] == []
    assert document["dry_run"]


def test_a_reader_that_has_had_enough_is_no_error(store: str) -> None:
    command = [sys.executable, "-m", "flows", "query", "--store", store, "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        text = process.stderr.read()
    assert (process.returncode, text) == (0, b"")


@pytest.mark.parametrize(("form", "name"), [("zarr", "x.zarr"), ("netcdf", "x.nc"), ("parquet", "x.parquet")])
def test_overwrite_replaces_an_earlier_export_and_nothing_else(
    store: str, tmp_path: Path, form: str, name: str
) -> None:
    mine = tmp_path / name
    arguments = ("export", "--store", store, "--format", form, "--out", mine)
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(mine, zarr_format=3, consolidated=False) if form == "zarr" else None
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(mine, engine="h5netcdf") if form == "netcdf" else None
    pd.DataFrame({"a": [1.0]}).to_parquet(mine) if form == "parquet" else None
    before = {file: file.read_bytes() for file in [mine, *mine.rglob("*")] if file.is_file()}
    assert "no earlier export" in ask(*arguments, "--overwrite", code=2).output
    assert {file: file.read_bytes() for file in [mine, *mine.rglob("*")] if file.is_file()} == before
    text = tmp_path / "thesis"
    text.write_text("years of work")
    ask("export", "--store", store, "--format", form, "--out", text, "--overwrite", code=2)
    assert text.read_text() == "years of work"
    other = tmp_path / f"other-{name}"
    ask(*arguments[:-1], other)
    ask(*arguments[:-1], other, code=2)
    ask(*arguments[:-1], other, "--overwrite")


def test_a_mean_over_differently_trained_networks_is_told(tmp_path: Path) -> None:
    uri = str(tmp_path / "results")
    answer(uri, {**SPEC, "seeds": 1})
    question = ("query", "--store", uri, "--by", "formulation,sampler,steps", "--metric", "w1")
    assert "warning" not in ask(*question).stderr
    answer(uri, {**SPEC, "seeds": 1, "training": {**SPEC["training"], "steps": 12}})
    text = ask(*question).stderr
    assert "4 configurations are there several times with the same seed" in text
    assert "warning" not in ask(*question, "--study", "tiny").stderr
    assert "warning" not in ask(*question[:-3], "formulation,sampler,steps,cell_id", "--metric", "w1").stderr
    assert "warning" not in ask(*question, "--where", "formulation == 'exact'").stderr


def test_a_path_that_is_kept_in_vain_is_told(tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump({**SPEC, "keep": {"trajectories": ["heun@3", "heun@9"]}}))
    document = json.loads(ask("plan", study, "--store", tmp_path / "none", "--json").stdout)["warnings"]
    assert [line for line in document if "heun" in line] == [
        "keep.trajectories: 'heun@9' is of no point of the study: its samplers and steps have no such pair"
    ]


def test_the_sampler_that_the_guide_shows_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    shown = next(code for code in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "class HalfEuler" in code)
    (tmp_path / "from_the_guide.py").write_text(shown)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", "from_the_guide")
    own = {"name": "from_the_guide:HalfEuler", "part": 1.0}
    answer(str(tmp_path / "results"), {**SPEC, "formulations": ["exact"], "samplers": ["ddim", own], "keep": {}})
    w1 = open_results(str(tmp_path / "results")).atlas.cube("w1").squeeze()
    ddim, euler = (w1.sel(sampler=name).values for name in ("ddim", "from_the_guide:HalfEuler(part=1.0)"))
    np.testing.assert_allclose(ddim, euler, rtol=1e-9)
