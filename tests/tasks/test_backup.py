"""A store is copied whole while another process writes to it, and the copy is a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.results import Answers
from tasks.store import Rows, Store, StoreDamaged, StoreLocked, StoreUnavailable, backup, lock
from tasks.store.backup import copy
from tasks.store.lock import Held
from tasks.store.storage import Place
from tasks.store.whole import check
from tests.faults.whole import contents, snapshots
from tests.tasks.store_kit import held_by_another_process, point, python, small_store

_WRITE = """
import sys
from tasks.store import Rows, Store
from tests.tasks.store_kit import point
with Store.open(sys.argv[1]).coordinate() as coordinator:
    for number in range(100, 100_000):
        coordinator.commit(Rows([point(number)], weights={f"c{number}": bytes(50_000)}), f"number {number}", {})
        print(number, flush=True)
"""


def test_a_copy_has_every_snapshot_and_tag_and_goes_on_being_written(tmp_path: Path) -> None:
    source, target = str(tmp_path / "store"), str(tmp_path / "elsewhere" / "copy")
    store, _ = small_store(source)
    store.tag("first", store.history()[1]["snapshot"])
    copied = copy(source, target)
    assert (copied.held.studies, copied.held.points, copied.held.cells) == (1, 4, 1)
    there = Store.open(target)
    assert there.history() == store.history()
    assert dict(snapshots(there)) == dict(snapshots(store))
    assert copied.files == sum(path.is_file() for path in Path(source).rglob("*"))
    with there.coordinate() as coordinator:
        coordinator.commit(Rows([point(9)]), "more", {})
    assert Answers(Store.open(target)).points.sizes["point"] == 5
    assert Answers(Store.open(source)).points.sizes["point"] == 4
    assert copy(target, str(tmp_path / "again")).held.points == 5


def test_a_copy_made_while_a_process_commits_is_one_of_its_snapshots(tmp_path: Path) -> None:
    source = str(tmp_path / "store")
    small_store(source)
    with python(_WRITE, source) as writer:
        assert writer.stdout is not None
        for number in range(3):
            assert writer.stdout.readline() == f"{100 + number}\n", writer.stderr and writer.stderr.read()
            copied = copy(source, str(tmp_path / f"copy{number}"))
            assert writer.poll() is None
        writer.kill()
    store = Store.open(source)
    history = [entry["snapshot"] for entry in store.history()]
    assert copied.held.snapshot in history
    assert history.index(copied.held.snapshot) > 0  # it went on
    for number in range(3):
        there = Store.open(str(tmp_path / f"copy{number}"))
        newest = there.snapshot()
        assert contents(there) == contents(store, newest)
        assert [entry["snapshot"] for entry in there.history()] == history[history.index(newest) :]
        with there.coordinate() as coordinator:
            coordinator.commit(Rows([point(5)]), "more", {})


@pytest.mark.parametrize("what", ["file", "store", "itself", "missing", "locked"])
def test_what_cannot_be_a_target_is_refused_and_stays_as_it_is(tmp_path: Path, what: str) -> None:
    source, target = str(tmp_path / "store"), tmp_path / "target"
    small_store(source)
    if what == "file":
        target.mkdir()
        (target / "mine").write_text("mine")
    if what == "store":
        small_store(str(target))
    if what == "itself":
        target = Path(source)
    if what == "missing":
        source = str(tmp_path / "nowhere")
    reason = {"itself": "this is the store itself", "missing": "there is no store here"}
    before = sorted(target.rglob("*"))
    if what == "locked":
        Store.create(str(target))
        with held_by_another_process(str(target)), pytest.raises(StoreLocked, match=r"in use by .*, or end it$"):
            copy(source, str(target))
        with pytest.raises(StoreUnavailable, match="something is there"):
            copy(source, str(target))
        return
    with pytest.raises(StoreUnavailable, match=reason.get(what, "something is there")):
        copy(source, str(target))
    assert sorted(target.rglob("*")) == before


def test_what_somebody_else_copied_there_just_before_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies to one place: the second has the lock when the first gives it back."""
    source, target = str(tmp_path / "store"), tmp_path / "target"
    small_store(source)

    @contextmanager
    def after_another(place: Place) -> Iterator[Held]:
        small_store(str(target))
        with lock.hold(place) as held:
            yield held

    monkeypatch.setattr(backup, "hold", after_another)
    with pytest.raises(StoreUnavailable, match="something is there"):
        copy(source, str(target))
    assert len(Store.open(str(target)).history()) == len(Store.open(source).history())
    assert Store.open(str(target)).snapshot() != Store.open(source).snapshot()


def test_an_object_that_only_tried_a_server_is_nothing_that_is_there(tmp_path: Path) -> None:
    source, target = str(tmp_path / "store"), tmp_path / "target"
    small_store(source)
    target.mkdir()
    (target / f"probe-{0:032x}").write_text("1")  # of somebody who was ended then
    assert copy(source, str(target)).held.points == 4
    other = tmp_path / "other"
    other.mkdir()
    (other / "probe-of-mine").write_text("mine")
    with pytest.raises(StoreUnavailable, match="something is there"):
        copy(source, str(other))


def test_a_damaged_store_is_not_copied_unseen_and_what_was_copied_is_removed(tmp_path: Path) -> None:
    source, target = str(tmp_path / "store"), tmp_path / "target"
    store, _ = small_store(source)
    chunk = max((tmp_path / "store" / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreDamaged):
        check(store)
    with pytest.raises(StoreDamaged):
        copy(source, str(target))
    assert [path for path in target.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(os.getuid() == 0 and not Path("/dev/full").exists(), reason="needs a place that cannot be written")
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    source = str(tmp_path / "store")
    small_store(source)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file"):
        copy(source, str(tmp_path / "file" / "below"))


def files(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def grow(source: str, number: int) -> Store:
    store = Store.open(source)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows([point(number)], weights={f"c{number}": os.urandom(50_000)}), f"number {number}", {})
    return store


def test_a_second_copy_copies_what_the_first_lacks_and_a_third_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "store", tmp_path / "copy"
    store, _ = small_store(str(source))
    first, old = copy(str(source), str(target), onward=True), files(source)
    assert (first.files, first.files_before) == (len(old), 0)
    store.tag("first")
    grow(str(source), 50)
    new = files(source)
    lacking = {name for name, data in new.items() if old.get(name) != data}
    assert 0 < len(lacking) < len(new)
    second = copy(str(source), str(target), onward=True)
    assert (second.files, second.bytes) == (len(lacking), sum(len(new[name]) for name in lacking))
    assert (second.files_before, second.bytes_before) == (
        len(new) - len(lacking),
        sum(len(data) for name, data in new.items() if name not in lacking),
    )
    assert second.bytes > 50_000
    assert files(target) == new
    assert dict(snapshots(Store.open(str(target)))) == dict(snapshots(store))
    third = copy(str(source), str(target), onward=True)
    assert (third.files, third.bytes, third.files_before) == (0, 0, len(new))
    with pytest.raises(StoreUnavailable, match="something is there"):
        copy(str(source), str(target))


def test_a_copy_follows_a_store_that_has_let_go_of_old_snapshots_and_tags(tmp_path: Path) -> None:
    source, target = str(tmp_path / "store"), str(tmp_path / "copy")
    store, _ = small_store(source)
    store.tag("gone")
    copy(source, target)
    store.tag("base")
    grow(source, 50)
    store.untag("gone")
    before = len(store.history())
    store.gc(datetime.now(UTC) + timedelta(seconds=1), youngest=-timedelta(minutes=1))
    assert len(store.history()) < before
    copy(source, target, onward=True)
    assert Store.open(target).history() == store.history()
    assert files(tmp_path / "store").items() <= files(tmp_path / "copy").items()


def test_a_store_that_went_on_by_itself_is_no_earlier_copy(tmp_path: Path) -> None:
    source, target = str(tmp_path / "store"), str(tmp_path / "copy")
    small_store(source)
    copy(source, target)
    grow(target, 60)
    before = files(tmp_path / "copy")
    grow(source, 50)
    with pytest.raises(StoreUnavailable, match=r"newest snapshot .* this one does not have, so it is no earlier copy"):
        copy(source, target, onward=True)
    assert files(tmp_path / "copy") == before


def test_a_second_copy_that_fails_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "store", tmp_path / "copy"
    small_store(str(source))
    copy(str(source), str(target))
    old = files(source)
    grow(str(source), 50)
    before = files(target)
    chunk = max((path for path in (source / "chunks").iterdir() if f"chunks/{path.name}" not in old), key=_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreDamaged):
        copy(str(source), str(target), onward=True)
    assert files(target) == before
    assert check(Store.open(str(target))).points == 4


def _size(path: Path) -> int:
    return path.stat().st_size
