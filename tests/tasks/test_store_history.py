"""Snapshots by tag, id, beginning of an id and time; names that stay inside; what gc lets go of and
what it keeps.
"""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.store import (
    Rows,
    Store,
    StoreLocked,
    WrongReference,
    read_points,
    read_samples,
    read_study,
    study_names,
)
from tasks.store.schema import key_of_study, study_of_key
from tests.tasks.store_kit import point, small_store

SOON = -timedelta(minutes=1)  # also what is younger than the call may go


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def steps(store: Store, as_of: str | None) -> list[int]:
    return [int(value) for value in read_points(store.group(as_of))["steps"]]


def three_commits(uri: str) -> tuple[Store, list[str], list[datetime]]:
    """A store, the ids of three snapshots of one, two and three points, and a time just after each."""
    store, ids, times = Store.create(uri), [], []
    with store.coordinate() as coordinator:
        for i in range(3):
            ids.append(coordinator.commit(Rows(points=[point(i)]), f"commit {i}", {}))
            times.append(datetime.now(UTC))
            time.sleep(0.01)
    return store, ids, times


def test_a_snapshot_is_found_by_tag_id_beginning_of_its_id_and_time(uri: str) -> None:
    store, ids, times = three_commits(uri)
    assert store.tag("draft", ids[0]) == ids[0]
    assert store.tag("v1.0") == ids[2]
    assert steps(store, "draft") == [0]
    assert steps(store, "v1.0") == [0, 1, 2]
    assert steps(store, ids[1]) == [0, 1]
    assert steps(store, times[1].isoformat()) == [0, 1]
    assert store.snapshot(times[0].isoformat()) == ids[0]
    assert steps(store, ids[1][:12]) == [0, 1]
    assert {tag for entry in store.history() for tag in entry["tags"]} == {"draft", "v1.0"}
    assert store.history()[0]["tags"] == ["v1.0"]


def test_a_beginning_that_fits_several_snapshots_names_them(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _, _ = three_commits(uri)
    real = list(store._repository.ancestry())
    alike = [type(info)("ABCD" + info.id[4:], info.time, info.message, info.metadata) for info in real]
    monkeypatch.setattr(store._repository, "ancestry", lambda: iter(alike))
    with pytest.raises(WrongReference, match="'ABCD' begins 5 snapshots: ABCD"):
        store.snapshot("ABCD")


@pytest.mark.parametrize("wrong", ["nosuchtag", "0000", "0" * 20, "", "Z" * 20, "yesterday", "../main", "main"])
def test_what_names_no_snapshot_is_refused_with_what_would_be_accepted(uri: str, wrong: str) -> None:
    store, _, _ = three_commits(uri)
    with pytest.raises(WrongReference, match=r"neither a snapshot, a tag nor a time|nothing is older"):
        store.snapshot(wrong)


def test_a_tag_is_for_good_and_a_name_is_used_once(uri: str) -> None:
    store, ids, _ = three_commits(uri)
    store.tag("paper", ids[0])
    with pytest.raises(WrongReference, match=f"already, of snapshot {ids[0]}; tags do not move: choose another name"):
        store.tag("paper", ids[1])
    store.untag("paper")
    assert not any(entry["tags"] for entry in store.history())
    assert steps(store, ids[0]) == [0]
    with pytest.raises(WrongReference, match="belonged to a tag that was deleted"):
        store.tag("paper", ids[1])
    with pytest.raises(WrongReference, match="there is no tag 'paper'; there are: none"):
        store.untag("paper")
    with pytest.raises(WrongReference, match="neither a snapshot"):
        store.tag("late", "nosuchthing")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "ü", "a b", "x\n", "x\0", "-x", "a" * 65])
def test_a_tag_that_could_leave_the_folder_or_be_misread_is_refused(uri: str, name: str) -> None:
    store = Store.create(uri)
    with pytest.raises(WrongReference, match="expected 1 to 64 letters"):
        store.tag(name)


@pytest.mark.parametrize("name", ["2026-03-03", "20260303", "0123456789ABCDEFGHJK"])
def test_a_tag_that_reads_as_a_time_or_a_snapshot_is_refused(uri: str, name: str) -> None:
    with pytest.raises(WrongReference, match="choose another name"):
        Store.create(uri).tag(name)


AWKWARD = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", ".", "..", "../..", "a/b", "/etc/passwd", "zarr.json", "__x", "c/0", "%", "%2F", "\0", "\n", "ü", "\ud800"]
    ),
)


@given(AWKWARD, AWKWARD)
def test_every_name_of_a_study_is_one_path_segment_and_comes_back(one: str, two: str) -> None:
    key = key_of_study(one)
    assert study_of_key(key) == one
    assert key
    assert all(c.isalnum() or c in "-%" for c in key)
    assert key.isascii()
    assert (key == key_of_study(two)) == (one == two)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=AWKWARD.filter(lambda text: text.isprintable() or text.isascii()), cell=AWKWARD, tag=AWKWARD)
@example("../../study", "../cell", "../tag")
@example("zarr.json", "a/b", "x\0y")
def test_no_name_leaves_the_folder_of_the_store(tmp_path: Path, name: str, cell: str, tag: str) -> None:
    place = tmp_path / f"n{len(list(tmp_path.iterdir()))}"
    store = Store.create(str(place / "store"))
    with store.coordinate() as coordinator:
        coordinator.commit_study(name, {"name": "any"}, ["p"], Rows(), {})
        with contextlib.suppress(ValueError):  # an id that is none
            coordinator.commit(Rows(weights={cell: b"weights"}, points=[point(0, dataset="x/../y")]), "cell", {})
    with contextlib.suppress(WrongReference):
        store.tag(tag)
    assert {entry.name for entry in place.iterdir()} <= {"store", "store.lock"}
    known = {"refs", "snapshots", "transactions", "manifests", "chunks", "config.yaml"}
    assert {entry.name for entry in (place / "store").iterdir()} <= known
    root = Store.open(str(place / "store")).group()
    assert study_names(root) == [name]
    assert read_study(root, name)[1].tolist() == ["p"]


def _sizes(uri: str) -> dict[Path, int]:
    return {path: path.stat().st_size for path in Path(uri).rglob("*") if path.is_file()}


def _later() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


def test_gc_keeps_the_newest_and_the_tagged_and_tells_what_it_removed(uri: str) -> None:
    store, ids, _ = three_commits(uri)
    store.tag("kept", ids[0])
    created = next(entry["snapshot"] for entry in store.history() if entry["message"] == "create the store")
    before = repr(read_points(store.group()))
    found = store.gc(_later(), dry_run=True, youngest=SOON)
    assert found.snapshots == (ids[1], created)
    assert found.dry_run
    assert len(store.history()) == 5
    sizes = _sizes(uri)
    removed = store.gc(_later(), youngest=SOON)
    assert removed.snapshots == (ids[1], created)
    gone = [size for path, size in sizes.items() if not path.exists()]
    assert (removed.files, removed.bytes) == (len(gone), sum(gone))
    assert gone
    again = Store.open(uri)
    assert repr(read_points(again.group())) == before
    assert steps(again, "kept") == [0]
    assert ids[1] not in [entry["snapshot"] for entry in again.history()]
    with pytest.raises(WrongReference, match="neither a snapshot"):
        again.snapshot(ids[1])
    with again.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(3)]), "goes on", {})
    assert steps(Store.open(uri), None) == [0, 1, 2, 3]
    assert store.gc(_later(), dry_run=True, youngest=SOON).snapshots == (ids[2],)


def test_gc_keeps_the_state_of_its_time_however_old_it_was_then(uri: str) -> None:
    store, ids, times = three_commits(uri)
    root = store.group(ids[1])  # somebody opened it when it was the newest
    removed = store.gc(times[1], youngest=SOON)
    assert ids[0] in removed.snapshots
    assert not {ids[1], ids[2]} & set(removed.snapshots)
    assert read_points(root)["steps"].tolist() == [0, 1]
    assert steps(Store.open(uri), times[1].isoformat()) == [0, 1]
    assert steps(Store.open(uri), None) == [0, 1, 2]
    with pytest.raises(WrongReference, match=r"neither a snapshot, a tag nor a time"):
        Store.open(uri).snapshot(ids[0])


def test_gc_refuses_what_someone_may_still_be_reading(uri: str) -> None:
    store, ids, _ = three_commits(uri)
    with pytest.raises(
        WrongReference, match=r"younger than an hour, since someone may be reading it; .*expected .* or before"
    ):
        store.gc(datetime.now(UTC) - timedelta(minutes=59))
    with pytest.raises(WrongReference, match="has no zone"):
        store.gc(datetime(2020, 1, 1))  # noqa: DTZ001 - the point of the test
    assert store.gc(datetime.now(UTC) - timedelta(minutes=61)).snapshots == ()
    assert [steps(store, snapshot) for snapshot in ids] == [[0], [0, 1], [0, 1, 2]]


def test_gc_removes_what_a_killed_or_failed_transaction_left(uri: str) -> None:
    store, samples = small_store(uri)
    before = set(_sizes(uri))
    with store.coordinate():
        session, root, _ = store._repository.begin()
        numbers = root["points/numbers"]
        assert isinstance(numbers, zarr.Array)
        numbers.resize((4096, numbers.shape[1]))
        numbers[:] = 1.5
        session.commit  # noqa: B018 - never called: as if the process had ended here
    left = set(_sizes(uri)) - before
    assert left
    store.gc(_later(), youngest=SOON)
    assert not [path for path in left if path.exists()]
    root = Store.open(uri).group()
    for name, values in samples.items():
        np.testing.assert_array_equal(read_samples(root, name), values)


def test_gc_is_refused_while_a_run_holds_the_store(uri: str) -> None:
    store, _, _ = three_commits(uri)
    with store.coordinate(), pytest.raises(StoreLocked, match="in use by another run"):
        store.gc(datetime.now(UTC) - timedelta(hours=2))


def test_a_reader_keeps_its_snapshot_while_others_are_committed(uri: str) -> None:
    store, ids, _ = three_commits(uri)
    root = store.group()
    with Store.open(uri).coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0, w1=9.0), point(7)]), "later", {})
    assert read_points(root)["w1"].tolist() == [0.0, 1.0, 2.0]
    assert read_points(store.group())["w1"].tolist() == [9.0, 1.0, 2.0, 7.0]
    assert store.snapshot(ids[2]) == ids[2]
