"""The store: whole or not at all, one writer, every snapshot readable."""

import multiprocessing
import os
import threading

import numpy as np
import pytest

from tasks.results import Answers, UnknownStudy
from tasks.store import Rows, Store, StoreUnavailable, WrongReference


def point(i: int, **more):
    return {
        "point_id": f"{i:020d}",
        "cell_id": "c" * (1 + i % 20),
        "status": "ok",
        "steps": i,
        "w1": float(i),
        "w1_floor": 0.5,
        **more,
    }


@pytest.fixture
def uri(tmp_path) -> str:
    return str(tmp_path / "store")


def test_rows_come_back_as_they_were_written_and_grow_by_commits(uri):
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0), point(1, error="ein langer Grund " * 40)]), "two", {})
        coordinator.commit(Rows(points=[point(2, ks=0.25, ks_floor=0.1)]), "a third, with a new metric", {})
    points = Answers(Store.open(uri)).points
    assert points["steps"].values.tolist() == [0, 1, 2]
    assert points["error"].values[1] == "ein langer Grund " * 40
    np.testing.assert_array_equal(points["ks"].values, [np.nan, np.nan, 0.25])
    assert points["cell_id"].values.tolist() == ["c", "cc", "ccc"]


def test_a_row_computed_again_replaces_the_old_one_and_the_old_snapshot_keeps_it(uri):
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        before = coordinator.commit(Rows(points=[point(0, status="failed"), point(1)]), "first", {})
        coordinator.commit(Rows(points=[point(0, w1=9.0)]), "again", {})
    assert Answers(store).points["w1"].values.tolist() == [9.0, 1.0]
    assert Answers(store).points["status"].values.tolist() == ["ok", "ok"]
    assert Answers(store, as_of=before).points["status"].values.tolist() == ["failed", "ok"]


def test_large_arrays_come_back_bit_for_bit(uri):
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
    np.testing.assert_array_equal(answers.samples(name).values, draws)
    trajectory = answers.trajectory(name)
    np.testing.assert_array_equal(trajectory.values, path[0])
    np.testing.assert_array_equal(trajectory["sigma"].values, path[1][2])
    assert answers.weights("c") == b"weights"
    assert answers.losses().values.tolist() == [[3.0, 2.0]]


def test_a_commit_that_fails_leaves_nothing_behind(uri):
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0)]), "good", {})
        with pytest.raises(ValueError, match="could not convert"):
            coordinator.commit(Rows(points=[point(1), point(2, w1="not a number")]), "bad", {})
        assert Answers(Store.open(uri)).points.sizes["point"] == 1
        coordinator.commit(Rows(points=[point(1)]), "good again", {})
    assert Answers(Store.open(uri)).points["w1"].values.tolist() == [0.0, 1.0]


def _hold(uri: str, held, release) -> None:
    with Store.open(uri).coordinate():
        held.set()
        release.wait()


def test_a_second_coordinator_is_refused_and_the_first_is_named(uri):
    Store.create(uri)
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(uri, held, release))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(StoreUnavailable, match=f"process {other.pid}"), Store.open(uri).coordinate():
            pass
    finally:
        release.set()
        other.join()
    with Store.open(uri).coordinate():  # free again
        pass


def test_the_lock_of_a_killed_coordinator_is_free(uri):
    Store.create(uri)
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(uri, held, release))
    other.start()
    assert held.wait(60)
    other.kill()
    other.join()
    with Store.open(uri).coordinate():
        pass


def test_a_reader_sees_whole_commits_only(uri):
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


def test_what_is_not_a_store_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreUnavailable, match="is not a store"):
        Store.create(str(tmp_path))
    with pytest.raises(StoreUnavailable, match="no store here"):
        Store.open(str(tmp_path))
    with pytest.raises(WrongReference, match="expected a folder or s3"):
        Store.open("ftp://host/x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "none").exists()
    assert not Store.exists(str(tmp_path / "none"))


def test_an_unknown_study_names_those_there_are(uri):
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit_study("one", {"metrics": []}, [], Rows(), {})
    with pytest.raises(UnknownStudy, match="it holds: one"):
        Answers(store, "two")


def test_history_is_newest_first_and_a_time_finds_the_snapshot_of_then(uri):
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
def test_a_folder_that_cannot_be_written_gives_one_clear_error(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StoreUnavailable, match="cannot create it"):
        Store.create(str(tmp_path / "closed" / "store"))
