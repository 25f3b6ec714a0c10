"""The store: whole or not at all, one writer, every snapshot readable."""

import os
import threading
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.plain import Spec
from tasks.results import Answers, UnknownStudy
from tasks.store import Rows, Store, StoreMissing, StoreUnavailable, WrongReference, point_columns, read_points
from tests.tasks.store_kit import kept_samples, kept_trajectory, point


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def test_rows_come_back_as_they_were_written_and_grow_by_commits(uri: str) -> None:
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0), point(1, error="ein langer Grund " * 40)]), "two", {})
        coordinator.commit(Rows(points=[point(2, ks=0.25, ks_floor=0.1)]), "a third, with a new metric", {})
    points = Answers(Store.open(uri)).points
    assert points["steps"].values.tolist() == [0, 1, 2]
    assert points["error"].values[1] == "ein langer Grund " * 40
    np.testing.assert_array_equal(points["ks"].values, [np.nan, np.nan, 0.25])
    assert points["cell_id"].values.tolist() == ["c", "cc", "ccc"]


def test_a_row_computed_again_replaces_the_old_one_and_the_old_snapshot_keeps_it(uri: str) -> None:
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        before = coordinator.commit(Rows(points=[point(0, status="failed"), point(1)]), "first", {})
        coordinator.commit(Rows(points=[point(0, w1=9.0)]), "again", {})
    assert Answers(store).points["w1"].values.tolist() == [9.0, 1.0]
    assert Answers(store).points["status"].values.tolist() == ["ok", "ok"]
    assert Answers(store, as_of=before).points["status"].values.tolist() == ["failed", "ok"]


def test_large_arrays_come_back_bit_for_bit(uri: str) -> None:
    store = Store.create(uri)
    draws = np.random.default_rng(0).normal(size=(5, 1)).astype(np.float32)
    path = (np.random.default_rng(1).normal(size=(3, 4, 1)).astype(np.float32), np.arange(9.0).reshape(3, 3))
    name = point(0)["point_id"]
    cell = {
        "cell_id": "c",
        "spec": '{"dataset": {"name": "uniform", "version": 1}}',
        "losses": [3.0, 2.0],
        "loss_steps": [1, 2],
    }
    with store.coordinate() as coordinator:
        rows = Rows([point(0, samples=5, steps=2, dim=1)], [cell], {"c": b"weights"}, {name: draws}, {name: path})
        coordinator.commit(rows, "all of it", {})
    answers = Answers(store)
    np.testing.assert_array_equal(kept_samples(answers, name).values, draws)
    trajectory = kept_trajectory(answers, name)
    np.testing.assert_array_equal(trajectory.values, path[0])
    np.testing.assert_array_equal(trajectory["sigma"].values, path[1][2])
    assert answers.weights("c") == b"weights"
    assert answers.losses().values.tolist() == [[3.0, 2.0]]


def test_a_commit_that_fails_leaves_nothing_behind(uri: str) -> None:
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0)]), "good", {})
        with pytest.raises(ValueError, match="could not convert"):
            coordinator.commit(Rows(points=[point(1), point(2, w1="not a number")]), "bad", {})
        assert Answers(Store.open(uri)).points.sizes["point"] == 1
        coordinator.commit(Rows(points=[point(1)]), "good again", {})
    assert Answers(Store.open(uri)).points["w1"].values.tolist() == [0.0, 1.0]


def test_a_reader_sees_whole_commits_only(uri: str) -> None:
    store = Store.create(uri)
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            points = Answers(Store.open(uri)).points
            seen.append(points.sizes["point"])
            assert np.isfinite(points["w1"]).all() if "w1" in points else True

    reader = threading.Thread(target=read)
    reader.start()
    with store.coordinate() as coordinator:
        for i in range(0, 100, 10):
            coordinator.commit(Rows(points=[point(j) for j in range(i, i + 10)]), "ten", {})
    stop.set()
    reader.join()
    assert set(seen) <= set(range(0, 101, 10))


def test_what_is_not_a_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreUnavailable, match="is not a store"):
        Store.create(str(tmp_path))
    with pytest.raises(StoreMissing, match="no store here"):
        Store.open(str(tmp_path))
    with pytest.raises(WrongReference, match="expected a folder or s3"):
        Store.open("ftp://host/x")
    for scheme in ("s3", "https"):
        with pytest.raises(WrongReference, match="a user name or a password in the address") as refused:
            Store.open(f"{scheme}://KEY:hunter2@bucket/prefix")
        assert "hunter2" not in str(refused.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "none").exists()
    assert not Store.exists(str(tmp_path / "none"))


def test_an_unknown_study_names_those_there_are(uri: str) -> None:
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit_study("one", {"metrics": []}, [], Rows(), {})
    with pytest.raises(UnknownStudy, match="it holds: one"):
        Answers(store, "two")


def test_history_is_newest_first_and_a_time_finds_the_snapshot_of_then(uri: str) -> None:
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0)]), "first", {"who": "me"})
        newest = coordinator.commit(Rows(points=[point(1)]), "second", {})
    entries = store.history()
    assert [entry["message"] for entry in entries[:2]] == ["second", "first"]
    assert entries[0]["snapshot"] == newest
    assert entries[1]["metadata"] == {"who": "me"}
    with pytest.raises(WrongReference, match="nothing is older"):
        store.group("2001-01-01")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_folder_that_cannot_be_written_gives_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StoreUnavailable, match="cannot create it"):
        Store.create(str(tmp_path / "closed" / "store"))


def test_columns_are_read_by_name_and_rows_by_choice(uri: str) -> None:
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(
            Rows(points=[point(i, spec=f'{{"i": {i}}}', dataset=f"d{i % 2}") for i in range(5)]), "five", {}
        )
    root = store.group()
    assert {"point_id", "dataset", "steps", "w1", "spec"} <= set(point_columns(root))
    assert not [name for name in point_columns(root) if name.endswith("_check")]
    assert list(read_points(root, ["steps", "dataset"], rows=np.array([4, 1]))) == ["dataset", "steps"]
    assert read_points(root, ["steps", "dataset"], rows=np.array([4, 1]))["dataset"].tolist() == ["d0", "d1"]
    assert read_points(root, ["spec"])["spec"].tolist() == [f'{{"i": {i}}}' for i in range(5)]
    assert "spec" not in read_points(root)
    with pytest.raises(KeyError, match="no column nonsense in points; there are point_id, cell_id"):
        read_points(root, ["nonsense"])


def test_two_entries_of_one_point_in_one_commit_are_one_row(uri: str) -> None:
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0, w1=1.0), point(1), point(0, w1=2.0)]), "twice", {})
        coordinator.commit(Rows(points=[point(2), point(1, w1=7.0), point(0, error="late")]), "in any order", {})
    points = read_points(store.group())
    assert points["steps"].tolist() == [0, 1, 2]
    assert points["w1"].tolist() == [0.0, 7.0, 2.0]
    assert points["error"].tolist() == ["late", "", ""]


@pytest.mark.parametrize("wrong", ["", "x" * 25, "ü", "a\0b", 7])
def test_an_id_that_the_tables_cannot_hold_is_refused(uri: str, wrong: str | int) -> None:
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        with pytest.raises(ValueError, match="expected 1 to 24 ASCII characters"):
            coordinator.commit(Rows(points=[point(0, point_id=wrong)]), "wrong", {})
        with pytest.raises(ValueError, match="expected 1 to 24 ASCII characters"):
            coordinator.commit_study("s", {}, [cast("str", wrong)], Rows(), {})
    assert len(store.history()) == 2


ROW = st.fixed_dictionaries(
    {"point_id": st.integers(0, 12).map(lambda i: f"{i:020d}")},
    optional={
        "dataset": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        "error": st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
        "steps": st.integers(-(2**63), 2**63 - 1),
        "w1": st.floats(),
        "ks": st.floats(),
        "spec": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    },
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=st.lists(st.lists(ROW, max_size=6), max_size=4))
def test_a_store_is_a_dictionary_of_rows_whatever_is_committed_in_which_order(
    tmp_path: Path, commits: list[list[Spec]]
) -> None:
    uri = str(tmp_path / f"store{len(list(tmp_path.iterdir()))}")
    expected: dict[str, dict[str, object]] = {}
    with Store.create(uri).coordinate() as coordinator:
        for rows in commits:
            coordinator.commit(Rows(points=rows), "some", {})
            for row in rows:
                expected.setdefault(row["point_id"], {}).update(row)
    root = Store.open(uri).group()
    points = read_points(root, point_columns(root))
    assert points["point_id"].tolist() == list(expected)
    absent = {"dataset": "", "error": "", "steps": -1, "w1": np.nan, "ks": np.nan, "spec": ""}
    for name in set(absent) & set(points):
        values = [row.get(name, absent[name]) for row in expected.values()]
        np.testing.assert_array_equal(points[name], np.array(values, dtype=points[name].dtype))
    assert "w1" in points or not any("w1" in row for row in expected.values())
