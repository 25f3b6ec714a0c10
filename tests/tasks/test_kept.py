"""Tables of snapshots in the user's cache folder: the same bits as the store's, never another
snapshot's, and never in anybody's way.
"""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from diffusion.errors import WrongValue
from tasks.query import query
from tasks.results import Answers, open_results
from tasks.results.kept import LIMIT, Key, folder
from tasks.results.read import open_columns
from tasks.store import Rows, Store, StoreDamaged
from tasks.store.storage import Place
from tests.tasks.golden_stores import unpacked
from tests.tasks.store_kit import point, small_store
from tests.tasks.tiny_store import answer


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(LIMIT, raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("kept") / "results")
    answer(uri)
    return uri


@pytest.fixture
def uri(tiny: str, tmp_path: Path) -> str:
    """A copy of a small finished study."""
    return str(shutil.copytree(tiny, tmp_path / "results"))


def files() -> list[Path]:
    return sorted(folder().glob("*")) if folder().exists() else []


def bits(points: xr.Dataset) -> dict[str, object]:
    """Everything of a dataset, to the last bit, types and attributes included."""
    found: dict[str, object] = {"attrs": points.attrs, "coords": list(points.coords), "data": list(points.data_vars)}
    for name, variable in points.variables.items():
        values = variable.values
        text = values.tolist() if values.dtype == object else values.tobytes()
        found[f"values of {name}"] = variable.dims, values.dtype.str, text, variable.attrs
    return found


def direct(uri: str, study: str | None = None) -> dict[str, object]:
    """What the store itself answers."""
    return bits(Answers(Store.open(uri), study).points)


def lose(uri: str) -> None:
    """Take away all that the store holds, but for its history."""
    for kind in ("chunks", "manifests"):
        shutil.rmtree(Path(uri) / kind)


@pytest.mark.parametrize("study", [None, "tiny"])
def test_what_is_kept_has_the_bits_of_the_store_and_is_all_that_is_read(uri: str, study: str | None) -> None:
    expected = direct(uri, study)
    assert bits(open_results(uri, study)) == expected
    assert len(files()) == 1
    lose(uri)
    assert bits(open_results(uri, study)) == expected
    columns = open_columns(uri, study)
    asked = query(columns, "steps < 3", ["sampler"], ["w1", "w1_limit"], ["mean", "sem", "best", "count"])
    assert asked.equals(
        query(open_results(uri, study), "steps < 3", ["sampler"], ["w1", "w1_limit"], ["mean", "sem", "best", "count"])
    )
    with pytest.raises(StoreDamaged, match="put the file back"):  # what was not kept is read, and its loss told
        _ = Answers(Store.open(uri), study).points
    with pytest.raises(StoreDamaged):
        open_results(uri, "tiny" if study is None else None)


def test_a_file_that_is_not_what_was_written_is_dropped_and_the_store_read(uri: str) -> None:
    expected = direct(uri)
    open_results(uri)
    (path,) = files()
    data = path.read_bytes()
    choose = np.random.default_rng(20261130)
    flipped = []
    for at in choose.integers(len(data), size=40):
        changed = bytearray(data)
        changed[at] ^= 1 << int(choose.integers(8))
        flipped.append(bytes(changed))
    dropped = 0
    for damaged in (b"", b"ARROW1\0\0", data[: len(data) // 2], data[:-1], data[8:], b"\0" * len(data), *flipped):
        path.unlink(missing_ok=True)
        path.write_bytes(damaged)
        assert bits(open_results(uri)) == expected
        dropped += not path.exists() or path.read_bytes() != damaged
    assert dropped > 10  # the rest is padding, or told twice


def test_a_column_that_is_damaged_after_it_was_opened_comes_from_the_store(uri: str) -> None:
    expected = direct(uri)
    open_results(uri)
    points = open_results(uri)
    (path,) = files()
    with path.open("r+b") as file:  # in place: the file stays mapped
        size = path.stat().st_size
        file.seek(0)
        file.write(b"\xff" * size)
    assert bits(points) == expected
    assert files() == []


def test_the_file_of_another_snapshot_or_study_is_never_believed(uri: str) -> None:
    expected = direct(uri)
    open_results(uri, "tiny")
    (of_study,) = files()
    open_results(uri)
    (whole,) = set(files()) - {of_study}
    shutil.copyfile(of_study, whole)
    assert bits(open_results(uri)) == expected


def test_a_new_snapshot_is_read_and_an_older_one_stays_what_it_was(uri: str) -> None:
    before = bits(open_results(uri))
    store = Store.open(uri)
    first = store.snapshot()
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(1), point(2)]), "two more", {})
    assert open_results(uri).sizes["point"] == 18
    assert bits(open_results(uri)) == direct(uri)
    assert bits(open_results(uri, as_of=first)) == before
    with store.coordinate() as coordinator:  # a point that is computed again keeps its row
        coordinator.commit(Rows(points=[point(1, w1=77.0)]), "again", {})
    assert 77.0 in open_results(uri)["w1"].values


def test_a_folder_that_is_made_again_is_another_store(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    small_store(uri)
    assert open_results(uri).sizes["point"] == 4
    shutil.rmtree(uri)
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(5)]), "one", {})
    assert open_results(uri)["w1"].values.tolist() == [5.0]


def test_places_with_one_name_are_kept_apart(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_results(uri)
    moved = str(shutil.copytree(uri, tmp_path / "moved"))  # the same snapshots at another address
    lose(moved)
    with pytest.raises(StoreDamaged):
        open_results(moved)
    monkeypatch.chdir(tmp_path)
    assert Place("results").address == Place(uri).address == str(tmp_path / "results")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one")
    one = Place("s3://bucket/results").address
    assert one == "http://one//bucket/results"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://two")
    stores = [one, Place("s3://bucket/results").address, Place("bucket/results").address]
    snapshot = Store.open(uri).look()
    assert len({Key(store, snapshot, study).path() for store in stores for study in (None, "", "a")}) == 9


def test_the_least_recently_used_make_room(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(uri)
    with store.coordinate() as coordinator:
        for i in range(3):
            coordinator.commit(Rows(points=[point(100 * i + k) for k in range(100)]), f"commit {i}", {})
    snapshots = [entry["snapshot"] for entry in store.history()[:4]]
    kept = {}
    for snapshot in snapshots[:3]:
        before = set(files())
        open_results(uri, as_of=snapshot)
        (kept[snapshot],) = set(files()) - before
    monkeypatch.setenv(LIMIT, "1")
    assert sum(path.stat().st_size for path in kept.values()) < 1 << 20  # they would all fit
    (folder() / "large.arrow").write_bytes(bytes((1 << 20) - 2 * kept[snapshots[0]].stat().st_size))
    open_results(uri, as_of=snapshots[0])  # the oldest is used again
    open_results(uri, as_of=snapshots[3])
    assert sum(path.stat().st_size for path in files()) <= 1 << 20
    assert kept[snapshots[0]].exists()
    assert not kept[snapshots[1]].exists()


def test_what_a_killed_writer_left_is_removed_after_a_while(uri: str) -> None:
    folder().mkdir(parents=True)
    old, young = folder() / ".old.partial", folder() / ".young.partial"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    open_results(uri)
    assert not old.exists()
    assert young.exists()


def test_it_can_be_switched_off_and_a_nonsensical_size_is_told(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "0")
    open_results(uri)
    assert files() == []
    monkeypatch.setenv(LIMIT, "")
    open_results(uri)
    assert len(files()) == 1
    monkeypatch.setenv(LIMIT, "0")
    lose(uri)
    with pytest.raises(StoreDamaged):
        open_results(uri)
    for nonsense in ("plenty", "-1", "1e3", "9" * 12):
        monkeypatch.setenv(LIMIT, nonsense)
        with pytest.raises(WrongValue, match=f"{LIMIT}: found '{nonsense}', expected a number of megabytes"):
            open_results(uri)


def test_where_nothing_can_be_written_nothing_is_kept(uri: str, home: Path) -> None:
    home.write_text("a file where the folder would be")
    expected = direct(uri)
    assert bits(open_results(uri)) == bits(open_results(uri)) == expected
    home.unlink()
    home.symlink_to("/proc/1/nothing")
    assert bits(open_results(uri)) == expected


def test_an_empty_store_and_a_store_without_exact_rows_are_kept(tmp_path: Path) -> None:
    uri = str(tmp_path / "empty")
    Store.create(uri)
    assert bits(open_results(uri)) == bits(open_results(uri)) == direct(uri)
    assert len(files()) == 1
    small_store(str(tmp_path / "small"))
    expected = direct(str(tmp_path / "small"))
    assert bits(open_results(str(tmp_path / "small"))) == bits(open_results(str(tmp_path / "small"))) == expected


def test_what_is_worked_out_for_an_older_schema_is_not_kept(tmp_path: Path) -> None:
    assert open_results(unpacked("schema-2", tmp_path)).sizes["point"]
    assert files() == []


def test_many_readers_and_writers_agree(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {study: direct(uri, study) for study in (None, "tiny")}
    monkeypatch.setenv(LIMIT, "1")
    folder().mkdir(parents=True)
    stuffing = bytes((1 << 20) - 20_000)  # room for one of the two at most: they drive each other out

    def ask(study: str | None) -> bool:
        (folder() / "stuffing.arrow").write_bytes(stuffing)
        return bits(open_results(uri, study)) == expected[study]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, itertools.islice(itertools.cycle([None, "tiny", None]), 24)))


@pytest.fixture
def opened(uri: str) -> xr.Dataset:
    open_results(uri)
    return open_results(uri)


def test_a_dataset_is_its_own_also_before_it_was_looked_at(opened: xr.Dataset, uri: str) -> None:
    expected = direct(uri)
    assert bits(pickle.loads(pickle.dumps(opened))) == expected  # noqa: S301 - our own bytes
    assert bits(copy.deepcopy(opened)) == bits(opened.copy(deep=True)) == expected
    chosen = opened.isel(point=opened["steps"].values == 3)
    other = open_results(uri)
    other["w1"].values[:] = 7.0
    assert (other["w1"].values == 7.0).all()
    assert bits(open_results(uri)) == bits(opened) == expected
    assert chosen.sizes["point"] == 8
    np.testing.assert_array_equal(chosen["w1"].values, opened["w1"].values[opened["steps"].values == 3])
