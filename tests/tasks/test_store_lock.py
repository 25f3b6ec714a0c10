"""One coordinator per store: refused, named, recognised when gone, taken over only where that
cannot be known.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from icechunk import Session

from tasks.results.stored import coordinate
from tasks.store import Rows, Store, StoreLocked, StoreMoved, StoreUnavailable, lock, read_points
from tasks.store.holder import Holder
from tests.tasks.store_kit import held_by_another_process, point, python


@pytest.fixture
def uri(tmp_path: Path) -> str:
    Store.create(str(tmp_path / "store"))
    return str(tmp_path / "store")


def note(uri: str) -> Path:
    return Path(uri + ".coordinator.json")


def test_a_store_in_use_is_refused_and_its_holder_named(uri: str) -> None:
    with held_by_another_process(uri) as other:
        document = json.loads(note(uri).read_text())
        assert document["pid"] == other.pid
        expected = f"in use by another run .host {document['host']}, process {other.pid}, started .*, since .*wait for it, or end it"
        with pytest.raises(StoreLocked, match=expected), Store.open(uri).coordinate():
            pass
        # a run that is alive here is never put out
        with (
            pytest.raises(StoreLocked, match="wait for it, or end it"),
            Store.open(uri).coordinate(force_unlock=True),
        ):
            pass
        assert len(read_points(Store.open(uri).group())["point_id"]) == 0  # readers are not kept out
    with Store.open(uri).coordinate() as coordinator:
        assert coordinator.before is None
    assert not note(uri).exists()


def test_who_waits_gets_the_store_when_it_is_free_and_is_refused_when_patience_ends(uri: str) -> None:
    told: list[StoreLocked] = []
    with held_by_another_process(uri) as other:

        def end_it(locked: StoreLocked) -> None:
            told.append(locked)
            other.kill()

        with (
            pytest.raises(StoreLocked, match=r"; wait for it \(--wait MINUTES; .* schedules\), or end it"),
            coordinate(Store.open(uri), wait=0.1, waiting=told.append),
        ):
            pass
        with coordinate(Store.open(uri), wait=60, waiting=end_it) as coordinator:
            assert f"process {other.pid}" in str(coordinator.before)
    assert len(told) == 2
    assert all(f"process {other.pid}" in str(locked) for locked in told)


def test_the_lock_of_a_killed_run_is_free_and_its_end_is_told(uri: str) -> None:
    with held_by_another_process(uri) as other:
        other.kill()
        other.wait()
    with Store.open(uri).coordinate() as coordinator:
        assert f"process {other.pid}" in str(coordinator.before)
        assert "ended without giving the lock back" in str(coordinator.before)
        coordinator.commit(Rows(points=[point(0)]), "goes on", {})
    with Store.open(uri).coordinate() as coordinator:
        assert coordinator.before is None


def test_a_note_that_names_a_later_process_of_the_same_number_is_stale() -> None:
    mine = Holder.me()
    assert mine.here
    assert not mine.gone
    assert replace(mine, birth="1").gone  # the number is in use again, by another process
    assert not replace(mine, host="elsewhere", birth="1").gone  # cannot be known
    assert not replace(mine, machine="before the last boot", birth="1").gone


def test_a_killed_process_that_nobody_has_collected_yet_is_gone() -> None:
    with python("import sys; sys.stdin.read()") as process:
        birth = Path(f"/proc/{process.pid}/stat")
        if not birth.exists():
            pytest.skip("this system has no /proc")
        ticks = birth.read_text().rsplit(")", 1)[1].split()[19]
        holder = replace(Holder.me(), pid=process.pid, birth=ticks)
        assert not holder.gone
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table of processes
        assert holder.gone


def test_a_note_of_another_host_on_a_shared_file_system_needs_force(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    note(uri).write_text(replace(Holder.me(), host="far-away", machine="another", pid=77).note())
    with Store.open(uri).coordinate() as coordinator:  # this disk is only ours, and the kernel's lock was free
        assert "far-away" in str(coordinator.before)
    note(uri).write_text(replace(Holder.me(), host="far-away", machine="another", pid=77).note())
    monkeypatch.setattr(lock, "shared_between_hosts", lambda _: True)
    with (
        pytest.raises(StoreLocked, match=r"names host far-away, process 77.*--force-unlock takes over"),
        Store.open(uri).coordinate(),
    ):
        pass
    with Store.open(uri).coordinate(force_unlock=True) as coordinator:
        assert "far-away" in str(coordinator.before)
        coordinator.commit(Rows(points=[point(0)]), "taken over", {})
    assert not note(uri).exists()


def test_a_lock_that_another_host_has_is_taken_away_by_force_only(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()"
    note(uri).write_text(replace(Holder.me(), host="far-away", machine="another", pid=77).note())
    with python(code, uri + ".lock") as far:  # as a file system that passes locks on would show that host
        assert far.stdout is not None
        assert far.stdout.readline() == "held\n"
        # on a disk of our own somebody here has it
        with (
            pytest.raises(StoreLocked, match=r"wait for it, or end it$"),
            Store.open(uri).coordinate(force_unlock=True),
        ):
            pass
        monkeypatch.setattr(lock, "shared_between_hosts", lambda _: True)
        with (
            pytest.raises(StoreLocked, match=r"host far-away, process 77.*--force-unlock"),
            Store.open(uri).coordinate(),
        ):
            pass
        with Store.open(uri).coordinate(force_unlock=True) as coordinator:
            coordinator.commit(Rows(points=[point(0)]), "taken over", {})
            with pytest.raises(StoreLocked, match=f"process {os.getpid()}"), Store.open(uri).coordinate():
                pass
        far.communicate()


def test_a_run_whose_lock_was_taken_over_commits_nothing_more(uri: str) -> None:
    with Store.open(uri).coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0)]), "mine", {})
        note(uri).write_text(replace(Holder.me(), host="far-away").note())
        with pytest.raises(StoreLocked, match="taken over by host far-away"):
            coordinator.commit(Rows(points=[point(1)]), "too late", {})
    assert len(read_points(Store.open(uri).group())["point_id"]) == 1
    assert "far-away" in note(uri).read_text()  # the other's note is the other's


def test_somebody_who_wrote_without_the_lock_is_noticed_before_anything_is_overwritten(uri: str) -> None:
    with Store.open(uri).coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0)]), "mine", {})
        session, root, _ = Store.open(uri)._repository.begin()
        root.attrs["strange"] = True
        session.commit("theirs")
        with pytest.raises(StoreMoved, match=r"somebody else has committed.*nothing is lost"):
            coordinator.commit(Rows(points=[point(1)]), "too late", {})
    assert Store.open(uri).history()[0]["message"] == "theirs"


def test_a_commit_of_which_nobody_heard_is_recognised_when_it_is_tried_again(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a server that took it and fell silent."""
    with Store.open(uri).coordinate() as coordinator:
        real = coordinator._repository.commit

        def unheard(session: Session, message: str, metadata: dict[str, object]) -> str:
            real(session, message, metadata)
            raise OSError("timed out")

        with monkeypatch.context() as patched:
            patched.setattr(coordinator._repository, "commit", unheard)
            with pytest.raises(StoreUnavailable, match="look whether the server answers"):
                coordinator.commit(Rows(points=[point(0)]), "mine", {"try": "any"})
        made = coordinator.commit(Rows(points=[point(0)]), "mine", {"try": "any"})
        coordinator.commit(Rows(points=[point(1)]), "the next", {})
    store = Store.open(uri)
    assert [entry["message"] for entry in store.history()][:2] == ["the next", "mine"]
    assert store.history()[1]["snapshot"] == made
    assert len(read_points(store.group())["point_id"]) == 2


def test_two_that_create_a_store_at_once_make_one(tmp_path: Path) -> None:
    code = "import sys\nfrom tasks.store import Store\nStore.create(sys.argv[1])"
    both = [python(code, str(tmp_path / "store")) for _ in range(2)]
    found = [process.communicate()[1] for process in both]
    assert sum(process.returncode == 0 for process in both) == 1, found
    assert any("in use by another run" in text or "there is a store already" in text for text in found)
    assert len(Store.open(str(tmp_path / "store")).history()) == 2


@pytest.mark.parametrize("place", ["create.before-commit", "commit.before"])
def test_a_run_killed_at_a_failpoint_leaves_a_store_that_the_next_one_uses(tmp_path: Path, place: str) -> None:
    code = """
import sys
from tasks.results.stored import coordinate
from tasks.store import Rows, Store
with Store.create(sys.argv[1]).coordinate() as coordinator:
    coordinator.commit(Rows(points=[{"point_id": "p", "w1": 1.0}]), "killed", {})
"""
    uri = str(tmp_path / "store")
    with python(code, uri, env={"DIFFATLAS_FAILPOINT": place}) as run:
        assert run.wait() == -9
    assert Store.exists(uri) == (place == "commit.before")
    store = Store.open(uri) if Store.exists(uri) else Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(0)]), "goes on", {})
    assert [entry["message"] for entry in store.history()][:1] == ["goes on"]


def test_a_store_that_was_copied_without_its_lock_is_free(uri: str, tmp_path: Path) -> None:
    with Store.open(uri).coordinate():
        shutil.copytree(uri, tmp_path / "copy")
        with Store.open(str(tmp_path / "copy")).coordinate() as coordinator:
            assert coordinator.before is None


@pytest.mark.parametrize(
    ("mount", "shared"),
    [("ext4", False), ("tmpfs", False), ("nfs4", True), ("fuse.sshfs", True), ("cifs", True), ("overlay", False)],
)
def test_a_file_system_tells_whether_other_hosts_write_to_it(tmp_path: Path, mount: str, shared: bool) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x /data/our\\040store {mount} rw 0 0\n")
    assert lock.shared_between_hosts(Path("/data/our store/results"), mounts) == shared
    assert not lock.shared_between_hosts(Path("/data/others"), mounts)
    assert lock.shared_between_hosts(Path("/data/others"), tmp_path / "none")  # not known
