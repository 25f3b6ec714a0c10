"""Stores of older versions are read as they lie and migrated whole; those of newer ones are
refused.
"""

import importlib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tasks.plain import Spec
from tasks.results import Answers
from tasks.results.stored import coordinate
from tasks.store import (
    FACTS,
    SCHEMA,
    MetricFacts,
    Rows,
    Store,
    StoreUnavailable,
    read_points,
    read_study,
    trained_cells,
)
from tasks.store.schema import READABLE
from tests.tasks.golden_stores import GOLDEN, unpacked
from tests.tasks.store_kit import ROOT, kept_samples, kept_trajectory, point, python

IDS = [f"{i:020x}" for i in (*range(8), 9)]
CELL = "c0ffee0000000000c0de"


@pytest.fixture(params=[f"schema-{schema}" for schema in READABLE])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return unpacked(request.param, tmp_path)


@pytest.fixture(params=["schema-1", "schema-2"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return unpacked(request.param, tmp_path)


@pytest.fixture(params=[f"run-{schema}" for schema in READABLE])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of a real run, with own classes that cannot be imported any more."""
    return unpacked(request.param, tmp_path)


def schema_of(uri: str) -> int:
    found = Store.open(uri).group().attrs["schema"]
    assert isinstance(found, int)
    return found


def everything(uri: str) -> Spec:
    """All that a golden store answers, as plain values."""
    answers = Answers(Store.open(uri), "golden")
    whole = Answers(Store.open(uri))
    order = np.argsort(whole.table()["point_id"])
    table = {name: values[order].tolist() for name, values in whole.table().items()}
    return {
        "table": {name: [None if v != v else v for v in values] for name, values in table.items()},
        "specs": read_points(Store.open(uri).group(), ["spec"])["spec"][order].tolist(),
        "study": answers.study,
        "asked": answers.points["point_id"].values.tolist(),
        "samples": [None if (s := whole.samples(name)) is None else s.values.tolist() for name in IDS],
        "trajectory": kept_trajectory(whole, IDS[1]).values.tolist(),
        "levels": kept_trajectory(whole, IDS[1])["sigma"].values.tolist(),
        "weights": {cell: whole.weights(cell) for cell in whole.trained()},
        "cells": dict(whole.cell_specs),
        "losses": whole.losses().values.tolist(),
        "metrics": whole.metrics,
    }


def test_there_is_a_golden_store_of_every_schema_that_is_read() -> None:
    names = {f"{kind}-{schema}.tar.gz" for kind in ("schema", "run") for schema in READABLE}
    assert {path.name for path in GOLDEN.glob("*.tar.gz")} == names
    assert max(READABLE) == SCHEMA


def test_a_store_of_any_version_answers_the_same_without_being_written_to(golden: str) -> None:
    files = {path: path.read_bytes() for path in Path(golden).rglob("*") if path.is_file()}
    found = everything(golden)
    table = found["table"]
    assert table["point_id"] == IDS
    assert table["dim"] == [1, 1, 1, 1, 1, 1, 3, 3, 3]
    assert table["w1"][:6] == [0.5, 0.25, 0.125, 0.5, 0.25, 0.125]
    assert table["status"][6:] == ["failed", "ok", "skipped"]
    assert table["error"][8] == "heun cannot take 0 steps \u2014 ein Grund"
    assert table["steps"] == [1, 2, 4, 1, 2, 4, 1, 2, 1]
    assert [None if s is None else np.shape(s) for s in found["samples"]] == [(5, 1)] * 6 + [None, (5, 3), None]
    assert found["levels"] == [6.0, 7.0, 8.0]
    assert found["weights"] == {CELL: bytes(range(200))}
    assert found["losses"] == [[3.0, 2.0, 1.5]]
    assert table["guidance"] == [""] * 9
    assert table["sampling_schedule"] == ["edm"] * 9
    assert table["process"] == ["generation"] * 9
    assert found["metrics"] == {"w1": MetricFacts("samples", "lower", 1, {"name": "w1"})}
    assert found["study"]["name"] == "golden"
    assert found["asked"] == IDS[:6]
    assert {path: path.read_bytes() for path in Path(golden).rglob("*") if path.is_file()} == files


def test_the_next_coordinator_migrates_in_one_commit_and_nothing_changes(golden: str) -> None:
    before, length = everything(golden), len(Store.open(golden).history())
    schema = schema_of(golden)
    with coordinate(Store.open(golden)):
        pass
    assert everything(golden) == before
    store = Store.open(golden)
    assert store.group().attrs["schema"] == SCHEMA
    assert len(store.history()) == length + (schema < SCHEMA)
    if schema < SCHEMA:
        assert f"migrate from schema {schema} to {SCHEMA}" in store.history()[0]["message"]
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(99), {"point_id": IDS[0], "w1": 7.0}]), "goes on", {})
    table = read_points(Store.open(golden).group())
    assert table["w1"][table["point_id"] == IDS[0]].tolist() == [7.0]
    assert len(table["w1"]) == 10


def test_snapshots_from_before_a_migration_stay_readable(older: str) -> None:
    before = Store.open(older).snapshot()
    with coordinate(Store.open(older)) as coordinator:
        coordinator.commit(Rows(points=[{"point_id": IDS[0], "w1": 7.0}]), "later", {})
    points = Answers(Store.open(older), "golden", as_of=before).points
    assert points["w1"].values[0] == 0.5
    assert points["sampling_schedule"].values.tolist() == ["edm"] * 6
    assert Answers(Store.open(older), as_of=before).weights(CELL) == bytes(range(200))
    assert kept_samples(Answers(Store.open(older), as_of=before), IDS[7]).shape == (5, 3)


def test_an_older_store_is_not_written_to_by_whoever_does_not_know_what_its_specs_mean(older: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"tasks\.results\.stored\.coordinate"), Store.open(older).coordinate():
        pass
    assert schema_of(older) < SCHEMA


# --- what rows of older schemas do not say --------------------------------------------------------

GONE = "gone_parts:"  # a module that was there when the runs were made, and is not here
FACTS_OF = {  # by the labels of formulation and sampler
    ("edm", "heun"): ("", "edm", "generation"),
    ("edm", "heun | class-label(labels=(2, 3))"): ("class-label(labels=(2, 3))", "edm", "generation"),
    ("edm", "heun on vp-linear"): ("", "vp-linear", "generation"),
    ("edm", "ddim | class-label(weight=2.0) on flow"): ("class-label(weight=2.0)", "flow", "generation"),
    ("edm", "forward-chain"): ("", "edm", "forward"),
    ("edm", "langevin(nsr=0.5)"): ("", "edm", "dynamics"),
    ("indi", "heun"): ("", "flow", "restoration"),
    ("exact", "heun on vp-linear"): ("", "vp-linear", "generation"),
    ("exact", "ddim | class-label(weight=2.0) on flow"): ("class-label(weight=2.0)", "flow", "generation"),
    ("exact", "forward-chain"): ("", "edm", "forward"),
    ("exact", "langevin(nsr=0.5)"): ("", "edm", "dynamics"),
    ("exact", "tests.tasks.own_parts:HalfHeun"): ("", "edm", "generation"),
}


def facts_in(points: xr.Dataset) -> dict[tuple[str, str], tuple[str, str, str]]:
    columns = [points[name].values.tolist() for name in ("formulation", "sampler", *FACTS)]
    return {(formulation, sampler): tuple(facts) for formulation, sampler, *facts in zip(*columns, strict=True)}


def test_guidance_schedule_and_process_are_told_of_every_run_whatever_it_was_stored_with(run: str) -> None:
    found = facts_in(Answers(Store.open(run), "run").points)
    first = run_of_first(run)
    assert {key: found[key] for key in FACTS_OF if key in found} == {
        key: FACTS_OF[key] for key in FACTS_OF if key in found
    }
    assert len(FACTS_OF.keys() & found.keys()) == (3 if first else len(FACTS_OF))
    with coordinate(Store.open(run)):
        pass
    assert facts_in(Answers(Store.open(run), "run").points) == found
    assert Store.open(run).group().attrs["schema"] == SCHEMA


def run_of_first(uri: str) -> bool:
    return Store.open(uri).group().attrs["schema"] == 1


def test_own_classes_that_cannot_be_imported_any_more_hinder_no_reader(run: str) -> None:
    """Their labels are spelled from their specs; of their metrics only the values are known."""
    answers = Answers(Store.open(run), "run")
    points = answers.points
    theirs = [facts for (_, sampler), facts in facts_in(points).items() if sampler.startswith(GONE)]
    assert {process for *_, process in theirs} <= {"generation", "restoration"}
    if not run_of_first(run):
        assert all(guidance.startswith(f"{GONE}Steer") and on.startswith(f"{GONE}Bent") for guidance, on, _ in theirs)
    assert np.isfinite(points[f"{GONE}Hits"].values[points["formulation"].values == "exact"]).any()
    with pytest.raises(ImportError):
        importlib.import_module(GONE.rstrip(":"))


def test_what_is_known_of_metrics_is_found_in_the_studies_that_ask_for_them(run: str) -> None:
    metrics = Answers(Store.open(run)).metrics
    assert metrics["energy"].of == "samples"
    assert metrics["sliced-w2(projections=8)"].spec["projections"] == 8
    if not run_of_first(run):
        assert {name: facts.of for name, facts in metrics.items() if facts.of != "samples"} == {
            "score-error": "models",
            "restoration-error": "pairs",
        }
    stored = Store.open(run).group().attrs["schema"] == SCHEMA
    assert (metrics[f"{GONE}Hits"].better == "higher") if stored else f"{GONE}Hits" not in metrics


def test_a_store_that_says_less_is_read_as_one_that_says_it(tmp_path: Path) -> None:
    """The same run by the code of schema 2 and of schema 3: all but the classes that are gone has
    the same facts.
    """
    old, new = (Answers(Store.open(unpacked(name, tmp_path)), "run") for name in ("run-2", "run-3"))
    assert old.points["point_id"].values.tolist() == new.points["point_id"].values.tolist()
    here = [not sampler.startswith(GONE) for sampler in new.points["sampler"].values.tolist()]
    for name in FACTS:
        assert old.points[name].values[here].tolist() == new.points[name].values[here].tolist()
    assert {name: facts for name, facts in new.metrics.items() if not name.startswith(GONE)} == old.metrics


@pytest.mark.parametrize("place", ["migrate.before-commit", "write.array:5", "migrate.after-commit"])
def test_a_migration_that_is_cut_short_is_made_by_the_next_coordinator(older: str, place: str) -> None:
    code = (
        "import sys\nfrom tasks.results.stored import coordinate\nfrom tasks.store import Store\n"
        "with coordinate(Store.open(sys.argv[1])):\n    pass"
    )
    before = everything(older)
    with python(code, older, env={"DIFFATLAS_FAILPOINT": place}) as run:
        assert run.wait() == -9
    assert everything(older) == before
    with coordinate(Store.open(older)):
        pass
    assert everything(older) == before
    assert Store.open(older).group().attrs["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (SCHEMA + 1, "upgrade diffatlas"),
        (None, "not a store of diffatlas"),
        (str(SCHEMA), "not a store"),
        (0, "not a store"),
        (True, "not a store"),
    ],
)
def test_a_schema_that_is_not_known_is_refused_with_what_to_do(
    tmp_path: Path, schema: int | str | None, expected: str
) -> None:
    store = Store.create(str(tmp_path / "store"))
    session, root, _ = store._repository.begin()
    root.attrs["schema"] = schema
    session.commit("from elsewhere")
    with pytest.raises(StoreUnavailable, match=expected):
        Store.open(store.uri)
    with pytest.raises(StoreUnavailable, match=expected), store.coordinate():
        pass
    assert Store(store.uri, store._repository).history()[0]["message"] == "from elsewhere"


def test_the_format_is_what_the_documentation_says_to_plain_zarr_and_xarray(tmp_path: Path) -> None:
    """Read with neither `tasks.store` nor `tasks.results`, as docs/store.md shows."""
    uri = unpacked(f"schema-{SCHEMA}", tmp_path)
    text = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    assert "tasks" not in code
    names: Spec = {}
    exec(code.replace('"results"', repr(uri)), names)  # noqa: S102 - the page's own example
    table = names["table"]
    ours = read_points(Store.open(uri).group())
    for name in ("w1", "steps", "status", "cell_id", "error"):
        assert [None if v != v else v for v in table[name].tolist()] == [
            None if v != v else v for v in ours[name].tolist()
        ]
    assert table["point_id"].tolist() == ours["point_id"].tolist()
    assert np.shape(names["samples"]) == (5, 1)


def test_an_empty_study_and_an_unknown_one_are_told_apart(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"))
    with store.coordinate() as coordinator:
        coordinator.commit_study("none", {"a": 1}, [], Rows(), {})
    spec, ids = read_study(store.group(), "none")
    assert spec == {"a": 1}
    assert len(ids) == 0
    with pytest.raises(KeyError, match="no study 'other' here"):
        read_study(store.group(), "other")
    assert trained_cells(store.group()) == set()
