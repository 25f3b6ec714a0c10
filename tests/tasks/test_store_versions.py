"""Stores of older versions are read as they lie and migrated whole; those of newer ones are refused."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from tasks.results import Answers
from tasks.store import SCHEMA, Rows, Store, StoreUnavailable, read_points, read_study, trained_cells
from tasks.store.schema import READABLE
from tests.tasks.store_kit import ROOT, point, python

GOLDEN = Path(__file__).parent / "golden"
IDS = [f"{i:020x}" for i in (*range(8), 9)]
CELL = "c0ffee0000000000c0de"


@pytest.fixture(params=sorted(GOLDEN.glob("schema-*.tar.gz")), ids=lambda path: path.name.split(".")[0])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path, filter="data")
    return str(tmp_path / "store")


@pytest.fixture
def oldest(tmp_path: Path) -> str:
    with tarfile.open(GOLDEN / "schema-1.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    return str(tmp_path / "store")


def everything(uri: str) -> dict[str, object]:
    """All that a golden store answers, as plain values."""
    answers = Answers(Store.open(uri), "golden")
    whole = Answers(Store.open(uri))
    points = read_points(Store.open(uri).group())
    order = np.argsort(points["point_id"])
    table = {name: values[order].tolist() for name, values in points.items()}
    return {
        "table": {name: [None if v != v else v for v in values] for name, values in table.items()},
        "specs": read_points(Store.open(uri).group(), ["spec"])["spec"][order].tolist(),
        "study": answers.study,
        "asked": answers.points["point_id"].values.tolist(),
        "samples": [None if (s := whole.samples(name)) is None else s.values.tolist() for name in IDS],
        "trajectory": whole.trajectory(IDS[1]).values.tolist(),
        "levels": whole.trajectory(IDS[1])["sigma"].values.tolist(),
        "weights": {cell: whole.weights(cell) for cell in whole.trained()},
        "cells": whole.cell_specs,
        "losses": whole.losses().values.tolist(),
    }


def test_there_is_a_golden_store_of_every_schema_that_is_read() -> None:
    assert {path.name for path in GOLDEN.glob("*.tar.gz")} == {f"schema-{schema}.tar.gz" for schema in READABLE}
    assert max(READABLE) == SCHEMA


def test_a_store_of_any_version_answers_the_same_without_being_written_to(golden: str) -> None:
    files = {path: path.read_bytes() for path in Path(golden).rglob("*") if path.is_file()}
    told = everything(golden)
    table = told["table"]
    assert table["point_id"] == IDS
    assert table["dim"] == [1, 1, 1, 1, 1, 1, 3, 3, 3]
    assert table["w1"][:6] == [0.5, 0.25, 0.125, 0.5, 0.25, 0.125]
    assert table["status"][6:] == ["failed", "ok", "skipped"]
    assert table["error"][8] == "heun cannot take 0 steps \u2014 ein Grund"
    assert table["steps"] == [1, 2, 4, 1, 2, 4, 1, 2, 1]
    assert [None if s is None else np.shape(s) for s in told["samples"]] == [(5, 1)] * 6 + [None, (5, 3), None]
    assert told["levels"] == [6.0, 7.0, 8.0]
    assert told["weights"] == {CELL: bytes(range(200))}
    assert told["losses"] == [[3.0, 2.0, 1.5]]
    assert told["study"]["name"] == "golden"
    assert told["asked"] == IDS[:6]
    assert {path: path.read_bytes() for path in Path(golden).rglob("*") if path.is_file()} == files


def test_the_next_coordinator_migrates_in_one_commit_and_nothing_changes(golden: str) -> None:
    before, length = everything(golden), len(Store.open(golden).history())
    old = Store.open(golden).group().attrs["schema"] < SCHEMA
    with Store.open(golden).coordinate():
        pass
    assert everything(golden) == before
    store = Store.open(golden)
    assert store.group().attrs["schema"] == SCHEMA
    assert len(store.history()) == length + old
    if old:
        assert "migrate from schema 1 to 2" in store.history()[0]["message"]
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(99), {"point_id": IDS[0], "w1": 7.0}]), "goes on", {})
    table = read_points(Store.open(golden).group())
    assert table["w1"][table["point_id"] == IDS[0]].tolist() == [7.0]
    assert len(table["w1"]) == 10


def test_snapshots_from_before_a_migration_stay_readable(oldest: str) -> None:
    before = Store.open(oldest).snapshot()
    with Store.open(oldest).coordinate() as coordinator:
        coordinator.commit(Rows(points=[{"point_id": IDS[0], "w1": 7.0}]), "later", {})
    points = Answers(Store.open(oldest), "golden", as_of=before).points
    assert points["w1"].values[0] == 0.5
    assert Answers(Store.open(oldest), as_of=before).weights(CELL) == bytes(range(200))
    assert Answers(Store.open(oldest), as_of=before).samples(IDS[7]).shape == (5, 3)


@pytest.mark.parametrize("place", ["migrate.before-commit", "write.array:5", "migrate.after-commit"])
def test_a_migration_that_is_cut_short_is_made_by_the_next_coordinator(oldest: str, place: str) -> None:
    code = "import sys\nfrom tasks.store import Store\nwith Store.open(sys.argv[1]).coordinate():\n    pass"
    before = everything(oldest)
    with python(code, oldest, env={"DIFFATLAS_FAILPOINT": place}) as run:
        assert run.wait() == -9
    assert everything(oldest) == before
    with Store.open(oldest).coordinate():
        pass
    assert everything(oldest) == before
    assert Store.open(oldest).group().attrs["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (SCHEMA + 1, "upgrade diffatlas"),
        (None, "not a store of diffatlas"),
        ("2", "not a store"),
        (0, "not a store"),
        (True, "not a store"),
    ],
)
def test_a_schema_that_is_not_known_is_refused_with_what_to_do(tmp_path: Path, schema, told: str) -> None:
    store = Store.create(str(tmp_path / "store"))
    session, root, _ = store._repository.begin()
    root.attrs["schema"] = schema
    session.commit("from elsewhere")
    with pytest.raises(StoreUnavailable, match=told):
        Store.open(store.uri)
    with pytest.raises(StoreUnavailable, match=told), store.coordinate():
        pass
    assert Store(store.uri, store._repository).history()[0]["message"] == "from elsewhere"


def test_the_format_is_what_the_documentation_says_to_plain_zarr_and_xarray(tmp_path: Path) -> None:
    """Read with neither `tasks.store` nor `tasks.results`, as docs/store.md shows."""
    with tarfile.open(GOLDEN / f"schema-{SCHEMA}.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    text = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    assert "tasks" not in code
    names: dict[str, object] = {}
    exec(code.replace('"results"', repr(str(tmp_path / "store"))), names)  # noqa: S102 - the page's own example
    table = names["table"]
    ours = read_points(Store.open(str(tmp_path / "store")).group())
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
