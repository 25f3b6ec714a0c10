"""Damage: whatever is lost or changed beneath is told, never returned as an answer, and costs
nothing else.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from tasks.results import Answers
from tasks.store import (
    NotStored,
    Rows,
    Store,
    StoreDamaged,
    StoreUnavailable,
    read_cells,
    read_curves,
    read_points,
    read_samples,
    read_study,
    read_trajectory,
    read_weights,
)
from tasks.store.checks import row_checks
from tests.tasks.store_kit import kept_samples, point, small_store


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def everything(uri: str) -> dict[str, str]:
    """All that a store made by `small_store` answers, in words; raises what readers of each part
    would see.
    """
    store = Store.open(uri)
    with store.reading("all of it"):
        root = store.group()
        points = read_points(root)
        ids = points["point_id"].tolist()
        parts = {
            "points": points,
            "specs": read_points(root, ["spec"]),
            "cells": read_cells(root, ["cell_id", "spec", "status", "train_seconds"]),
            "curves": read_curves(root),
            "samples": [part.tolist() for name in ids if (part := read_samples(root, name)) is not None],
            "trajectory": [values.tolist() for values in read_trajectory(root, ids[1]) or ()],
            "weights": read_weights(root, "c"),
            "study": [read_study(root, "small")[0], read_study(root, "small")[1].tolist()],
        }
    return {name: repr(part) for name, part in parts.items()}


def _files(uri: str, *kinds: str) -> list[Path]:
    kinds = kinds or ("refs", "snapshots", "transactions", "manifests", "chunks")
    return sorted(p for p in Path(uri).rglob("*") if p.is_file() and p.relative_to(uri).parts[0] in kinds)


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)


def test_a_flipped_byte_anywhere_never_changes_an_answer(uri: str) -> None:
    """In every file of the store, at two places; some bytes (of old snapshots, say) matter to
    nobody.

    The names in the files are other ones in each run, so the seed fixes the places and not what is
    there.
    """
    small_store(uri)
    good, choose, found = everything(uri), np.random.default_rng(20261122), 0
    for path in _files(uri):
        data = path.read_bytes()
        for _ in range(2):
            at, bit = int(choose.integers(len(data))), int(choose.integers(8))
            path.write_bytes(_flipped(data, at, bit))
            try:
                assert everything(uri) == good, f"{path}: bit {bit} of byte {at}"
            except StoreUnavailable:
                found += 1
        path.write_bytes(data)
    assert found > len(_files(uri, "chunks")) > 0
    assert everything(uri) == good


def test_a_file_that_is_lost_cut_or_exchanged_never_changes_an_answer(uri: str) -> None:
    """Every file of the store, damaged in two of four ways chosen with a fixed seed."""
    small_store(uri)
    good, choose, found = everything(uri), np.random.default_rng(20261122), 0
    files = _files(uri)
    for path, other in zip(files, files[1:] + files[:1], strict=True):
        data = path.read_bytes()
        ways = [None, b"", data[: len(data) // 2], other.read_bytes()]
        for damaged in (ways[way] for way in choose.permutation(4)[:2]):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            try:
                assert everything(uri) == good, (path, damaged)
            except StoreUnavailable:
                found += 1
            path.write_bytes(data)
    assert found > len(_files(uri, "chunks")) > 0
    assert everything(uri) == good


@pytest.mark.parametrize("change", ["lost", "swapped"])
@pytest.mark.parametrize("name", ["id", "labels", "integers", "numbers"])
def test_a_chunk_that_storage_loses_or_misplaces_is_told_by_the_rows_checksums(
    uri: str, name: str, change: str
) -> None:
    """As a damaged manifest would read: every chunk is sound, and not where it belongs."""
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(i, dataset=f"d{i}") for i in range(4)]), "four", {})
    session, root, _ = store._repository.begin()
    block = root[f"points/{name}"]
    assert isinstance(block, zarr.Array)
    values = np.asarray(block[:])
    block[:] = np.full_like(values, block.fill_value) if change == "lost" else values[::-1].copy()
    session.commit("as if a manifest were damaged")
    with pytest.raises(
        StoreDamaged, match=r"points: 4 of 4 rows are not what was written, first row 0.*put the file back"
    ):
        _ = Answers(Store.open(uri)).points


def test_the_checksum_of_a_row_sees_every_single_change_and_ignores_new_columns() -> None:
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 256, (50, 24), dtype=np.uint8)
    blocks: dict[str, np.ndarray] = {
        "labels": draw.integers(-1, 9, (50, 9), dtype=np.int32),
        "integers": draw.integers(-1, 2**40, (50, 12)),
        "numbers": draw.normal(size=(50, 6)),
    }
    good = row_checks(ids, blocks)
    wider = np.concatenate([blocks["numbers"], np.full((50, 3), np.nan)], axis=1)
    np.testing.assert_array_equal(row_checks(ids, blocks | {"numbers": wider}), good)
    for kind, block in blocks.items():
        for column in range(1, block.shape[1]):
            changed = block.copy()
            bits = changed[:, column].copy().view(np.uint8).reshape(50, -1)
            bits[:, draw.integers(bits.shape[1])] ^= 1 << int(draw.integers(8))
            changed[:, column] = bits.reshape(-1).view(block.dtype)
            assert (row_checks(ids, blocks | {kind: changed}) != good).all()
    assert (row_checks(ids[:, ::-1], blocks) != good).all()


def test_a_lost_chunk_of_samples_costs_those_samples_and_nothing_else(uri: str) -> None:
    store, samples = small_store(uri)
    ids = list(samples)
    before = set(_files(uri, "chunks"))
    with store.coordinate() as coordinator:
        values = {"x": np.random.default_rng(1).normal(size=(50_000, 1)).astype(np.float32)}
        coordinator.commit(Rows([{"point_id": "x", "samples": 50_000, "dim": 1}], samples=values), "more", {})
    new = max(set(_files(uri, "chunks")) - before, key=lambda path: path.stat().st_size)
    kept = new.read_bytes()
    new.unlink()
    answers = Answers(Store.open(uri))
    with pytest.raises(StoreDamaged, match=r"cannot read the samples of point x: .*put the file back.*--as-of"):
        answers.samples("x")
    with pytest.raises(StoreDamaged, match="cannot read the samples of 2 points"):
        answers.samples_of([ids[0], "x"])
    np.testing.assert_array_equal(kept_samples(answers, ids[0]).values, samples[ids[0]])
    assert answers.points.sizes["point"] == 5
    with store.coordinate() as coordinator:  # the run goes on, and computing the point again repairs it
        coordinator.commit(Rows([{"point_id": "x", "samples": 50_000}], samples=values), "again", {})
    np.testing.assert_array_equal(kept_samples(Answers(Store.open(uri)), "x").values, values["x"])
    new.write_bytes(kept)
    assert Answers(Store.open(uri)).points.sizes["point"] == 5


def test_samples_that_are_read_together_are_those_of_each_point_and_are_checked(uri: str) -> None:
    store = Store.create(uri)
    draw = np.random.default_rng(3)
    samples = {f"p{i}": draw.normal(size=(40 + 10 * (i % 2), 2)).astype(np.float32) for i in range(9)}
    rows = [{"point_id": name, "samples": len(values), "dim": 2} for name, values in samples.items()]
    with store.coordinate() as coordinator:
        coordinator.commit(Rows([*rows, {"point_id": "none", "samples": 40, "dim": 2}], samples=samples), "all", {})
    answers = Answers(Store.open(uri))
    wanted = ["p7", "none", "p0", "p4", "p1"]
    found = answers.samples_of(wanted)
    assert set(found) == {*wanted} - {"none"}
    for name, values in found.items():
        np.testing.assert_array_equal(values, samples[name])
    with pytest.raises(NotStored, match="no point 'p99' here"):
        answers.samples_of(["p1", "p99"])
    session, root, _ = store._repository.begin()
    block = root["samples/40x2"]
    assert isinstance(block, zarr.Array)
    block[:] = np.asarray(block[:])[::-1].copy()
    session.commit("as if a manifest were damaged")
    with pytest.raises(StoreDamaged, match="is not what was written"):
        Answers(Store.open(uri)).samples_of(["p0", "p4", "p1"])


def test_a_table_that_cannot_be_read_is_not_written_to_and_the_run_goes_on_once_it_is_repaired(uri: str) -> None:
    store = Store.create(uri)
    many = [point(i, w2=float(i) ** 0.5, w2_floor=0.1) for i in range(300)]
    with store.coordinate() as coordinator:
        last = coordinator.commit(Rows(points=many), "many", {})
        largest = max(_files(uri, "chunks"), key=lambda path: path.stat().st_size)
        data = largest.read_bytes()
        largest.write_bytes(_flipped(data, len(data) // 2, 3))
        with pytest.raises(StoreDamaged, match=r"cannot write to it: .*the store is damaged"):
            coordinator.commit(Rows(points=[point(300)]), "not this", {})
        with pytest.raises(StoreDamaged, match="cannot read its points"):
            _ = Answers(Store.open(uri)).points
        assert store.snapshot() == last
        largest.write_bytes(data)
        coordinator.commit(Rows(points=[point(300)]), "this", {})
    assert read_points(Store.open(uri).group())["w1"].tolist() == [float(i) for i in range(301)]


def test_an_older_snapshot_answers_where_the_newest_is_damaged(uri: str) -> None:
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        before = coordinator.commit(Rows(points=[point(0)]), "sound", {})
        known = set(_files(uri, "snapshots", "manifests", "chunks"))
        coordinator.commit(Rows(points=[point(1)]), "damaged", {})
    for path in set(_files(uri, "manifests", "chunks")) - known:
        path.unlink()
    with pytest.raises(StoreDamaged, match="--as-of"):
        _ = Answers(Store.open(uri)).points
    assert read_points(Store.open(uri).group(before))["w1"].tolist() == [0.0]


def test_a_snapshot_whose_file_holds_another_one_is_told(uri: str) -> None:
    store, _ = small_store(uri)
    newest, before = (Path(uri) / "snapshots" / entry["snapshot"] for entry in store.history()[:2])
    newest.write_bytes(before.read_bytes())
    with pytest.raises(
        StoreDamaged, match=rf"the file of snapshot {newest.name} holds snapshot {before.name}.*--as-of"
    ):
        everything(uri)


@contextlib.contextmanager
def _mounted(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a disk of a known size cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """The folder, for now, as a disk would be that the kernel has made read-only under running
    programs.
    """
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        _remount(folder, "bind,ro")
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_loses_the_commit_in_flight_only_and_the_run_goes_on_once_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with _mounted(disk, "3m"):
        store, samples = small_store(str(disk / "store"))
        good = everything(store.uri)
        large = {"big": np.random.default_rng(0).normal(size=(1_000_000, 1)).astype(np.float32)}
        rows = Rows([{"point_id": "big", "samples": 1_000_000, "dim": 1}], samples=large)
        with store.coordinate() as coordinator:
            with pytest.raises(StoreUnavailable, match=r"cannot write to it: .*\(make room on that disk"):
                coordinator.commit(rows, "too much", {})
            assert everything(store.uri) == good
            _remount(disk, "size=60m")
            coordinator.commit(rows, "with room", {})
        np.testing.assert_array_equal(read_samples(Store.open(store.uri).group(), "big"), large["big"])
        assert len(samples) == 4


def test_a_read_only_disk_is_read_and_a_run_on_it_is_refused_with_what_to_do(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with _mounted(disk, "20m"):
        store, _ = small_store(str(disk / "store"))
        good = everything(store.uri)
        with store.coordinate() as coordinator:
            with _read_only(disk / "store"):
                with pytest.raises(
                    StoreUnavailable, match=r"cannot write to it: .*\(make it writable, or use another store\)"
                ):
                    coordinator.commit(Rows(points=[point(9)]), "refused", {})
                assert everything(store.uri) == good
            coordinator.commit(Rows(points=[point(9)]), "goes on", {})
        _remount(disk, "ro")
        with (
            pytest.raises(StoreUnavailable, match=r"cannot lock it: .*\(make it writable, or use another store\)"),
            Store.open(store.uri).coordinate(),
        ):
            pass
        with pytest.raises(StoreUnavailable, match=r"cannot create it: .*\(make it writable"):
            Store.create(str(disk / "new"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads what it may not")
def test_a_folder_that_may_not_be_read_is_refused_with_what_to_do(uri: str) -> None:
    small_store(uri)
    Path(uri).chmod(0)
    try:
        with pytest.raises(StoreUnavailable, match="make it"):
            Store.open(uri)
    finally:
        Path(uri).chmod(0o700)


def test_documents_on_standard_output_are_not_mixed_with_a_damaged_stores_log(
    uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    small_store(uri)
    for path in _files(uri, "snapshots"):
        data = path.read_bytes()
        path.write_bytes(_flipped(data, len(data) // 2, 1))
    with contextlib.suppress(StoreUnavailable):
        everything(uri)
    assert capfd.readouterr().out == ""
