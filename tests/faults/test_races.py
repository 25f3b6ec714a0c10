"""Two that write at once, and one that reads while another writes: nothing is lost, doubled, half
seen, or kept waiting.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tasks.results import Answers
from tasks.store import Rows, Store, StoreUnavailable, read_points, writing

pytestmark = pytest.mark.slow
ROUNDS = 200
SIZES = (1, 3, 7, 8, 20, 21)  # points after each commit

_processes = multiprocessing.get_context("forkserver")  # never a fork of a process that has opened a repository
_processes.set_forkserver_preload(["tests.faults.warm"])


@contextmanager
def running(work: Any, *arguments: Any) -> Iterator[Any]:
    """A process that does `work` with one end of a pipe; the other end."""
    here, there = _processes.Pipe()
    process = _processes.Process(target=work, args=(there, *arguments))
    process.start()
    there.close()
    try:
        yield here
        process.join()
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        here.close()


def row(name: str) -> dict[str, Any]:
    return {"point_id": name, "status": "ok", "w1": float(len(name)), "w1_floor": 0.5}


def race(pipe: Any, uri: str, who: str, barrier: Any) -> None:
    """In each round, try to take the lock and to commit one row; tell what came of it."""
    found: list[tuple[str, str | None]] = []
    for i in range(ROUNDS):
        name = f"{who}-{i}"
        barrier.wait()
        try:
            with Store.open(uri).coordinate() as coordinator:
                coordinator.commit(Rows(points=[row(name)]), name, {})
                found.append((name, coordinator.before))
        except StoreUnavailable as error:
            found.append(("", str(error)))
    pipe.send((os.getpid(), found))


def test_of_two_that_race_for_a_store_no_reported_commit_is_lost_and_none_is_doubled(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    store, barrier = Store.create(uri), _processes.Barrier(2)
    with running(race, uri, "a", barrier) as one, running(race, uri, "b", barrier) as other:
        (pid_one, notes_one), (pid_other, notes_other) = one.recv(), other.recv()

    good = [name for name, _ in (*notes_one, *notes_other) if name]
    assert all(
        first[0] or second[0] for first, second in zip(notes_one, notes_other, strict=True)
    )  # one always gets it
    assert sorted(read_points(store.group())["point_id"]) == sorted(good)
    messages = [entry["message"] for entry in store.history()]
    assert sorted(messages[:-2]) == sorted(good)
    assert messages[-2] == "create the store"

    assert not [
        before for name, before in (*notes_one, *notes_other) if name and before
    ]  # nobody looked like a killed one
    refused = {pid_other: [t for name, t in notes_one if not name], pid_one: [t for name, t in notes_other if not name]}
    assert refused[pid_one] or refused[pid_other]
    named = 0
    for pid, texts in refused.items():
        for text in texts:
            assert text.startswith(f"store {uri}: in use by another run")
            found = re.search(r"host (\S+), process (\d+)", text)  # its note may not be written yet, or gone again
            named += found is not None
            assert found is None or found.groups() == (platform.node(), str(pid))
    assert named


def write(pipe: Any, uri: str, after_each: Callable[[], Any]) -> None:
    """Commit rows until there are as many as `SIZES` says."""
    with Store.open(uri).coordinate() as coordinator:
        for before, after in pairwise((0, *SIZES)):
            coordinator.commit(Rows(points=[row(f"point-{i}") for i in range(before, after)]), str(after), {})
            after_each()
    pipe.send("done")


def write_until_seen(pipe: Any, uri: str) -> None:
    """After each commit, wait until the reader has seen it."""
    write(pipe, uri, pipe.recv)


def write_in_steps(pipe: Any, uri: str) -> None:
    """At each named place of a commit, wait until the reader has looked."""

    def wait(place: str) -> None:
        pipe.send(place)
        pipe.recv()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "failpoint", wait)
        write(pipe, uri, lambda: None)


def look(uri: str) -> int:
    """How many points there are; each whole, and the provenance that of the same commit."""
    points = Answers(Store.open(uri)).points
    count = points.sizes["point"]
    assert points["point_id"].values.tolist() == [f"point-{i}" for i in range(count)]
    assert set(points["status"].values.tolist()) <= {"ok"}
    if count:
        assert points["w1"].values.tolist() == [float(len(f"point-{i}")) for i in range(count)]
        assert set(points["w1_floor"].values.tolist()) == {0.5}
    return int(count)


def test_a_reader_in_the_midst_of_every_step_of_a_commit_sees_the_commit_before_it(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    Store.create(uri)
    seen = []
    with running(write_in_steps, uri) as writer:
        sizes = iter((0, *SIZES))
        expected = next(sizes)
        while (place := writer.recv()) != "done":
            if place == "commit.after":
                expected = next(sizes)
            assert look(uri) == expected, place
            seen.append(place)
            writer.send("looked")
    assert look(uri) == SIZES[-1]
    assert {"write.begin", "write.array", "commit.before", "commit.after"} <= set(seen)
    assert seen.count("commit.after") == len(SIZES)


def test_a_reader_that_never_rests_sees_only_whole_commits_in_their_order(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    Store.create(uri)
    seen = [0]
    with running(write_until_seen, uri) as writer:
        for size in SIZES:
            while seen[-1] < size:  # reading all the time while this commit is made
                assert not writer.poll()
                seen.append(look(uri))
                assert seen[-1] in (seen[-2], size)
            writer.send("seen")
        assert writer.recv() == "done"
    assert sorted(set(seen)) == [0, *SIZES]
