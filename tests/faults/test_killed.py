"""A process killed at any named place leaves a store that opens, holds whole snapshots only, and is
gone on from.

Each place is passed by several commands, some many times; of more than ten passages ten are drawn
evenly, the first and the last among them. What the killed command should have left, and how often it passes
each place, is found by giving it undisturbed.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from tasks.failpoints import FAILPOINTS
from tasks.store import FACTS, Store
from tests.faults.scenarios import FORMS, SCENARIOS, act, exported, in_a_process, prepare, take_census, uri
from tests.faults.whole import Contents, Row, contents, snapshots

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults-killed")]
TIMES = 10


@dataclass(frozen=True)
class Undisturbed:
    """A scenario, as it is when nothing goes wrong."""

    before: Path  # the folder before the command
    history: list[str]  # of the store in it
    newest: Contents | None  # of its snapshots
    after: Path
    final: Contents
    rows: dict[str, set[Row]]  # every version of every row, by id
    studies: set[tuple[str, str, tuple[str, ...]]]
    passages: dict[str, int]
    exports: tuple[dict[str, str], dict[str, str]]  # before and after


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    return {name: _undisturbed(name, tmp_path_factory.mktemp(name)) for name in SCENARIOS}


def _undisturbed(name: str, folder: Path) -> Undisturbed:
    before, after, census = folder / "before", folder / "after", folder / "census.json"
    before.mkdir()
    assert in_a_process(prepare, name, before) == 0
    shutil.copytree(before, after)
    assert in_a_process(take_census, name, after, folder / "log", census) == 0
    versions: dict[str, set[Row]] = {}
    studies = set()
    known = dict(snapshots(Store.open(uri(after))))
    if Store.exists(uri(before)):  # and those that the command has collected
        known |= snapshots(Store.open(uri(before)), known)
    for found in known.values():
        for key, row in {**found.points, **found.cells}.items():
            versions.setdefault(key, set()).add(row)
        studies |= {(study, *expected) for study, expected in found.studies.items()}
    history = _history(before)
    newest, final = known[history[0]] if history else None, known[_history(after)[0]]
    assert final.statuses() <= {"ok", "failed", "skipped"}
    passages = json.loads(census.read_text())
    return Undisturbed(
        before, history, newest, after, final, versions, studies, passages, (_exports(before), _exports(after))
    )


def _history(folder: Path) -> list[str]:
    return [entry["snapshot"] for entry in Store.open(uri(folder)).history()] if Store.exists(uri(folder)) else []


def _passages(undisturbed: dict[str, Undisturbed], place: str) -> list[tuple[str, int]]:
    """Where processes are killed at a place: scenarios, and how often each comes there before. Ten
    at most, and none twice.
    """
    all_of_them = [
        (name, k + 1) for name, expected in undisturbed.items() for k in range(expected.passages.get(place, 0))
    ]
    assert all_of_them, f"no scenario passes {place}: add one to tests/faults/scenarios.py"
    drawn = [all_of_them[(time * (len(all_of_them) - 1)) // (TIMES - 1)] for time in range(TIMES)]
    return list(dict.fromkeys(drawn))


def test_an_undisturbed_run_gives_every_metric_of_every_point_that_is_ok(undisturbed: dict[str, Undisturbed]) -> None:
    for expected in undisturbed.values():
        ok = [dict(row) for row in expected.final.points.values() if dict(row)["status"] == "ok"]
        assert all("w1" in row or "energy" in row for row in ok)
        assert all((f"{metric}_floor" in row) == (metric in row) for row in ok for metric in ("w1", "ks", "energy"))
    measured = [dict(row) for row in undisturbed["measured"].final.points.values()]
    assert all({"w1", "ks", "energy"} <= set(row) for row in measured)


@pytest.mark.parametrize("place", FAILPOINTS)
def test_a_killed_run_leaves_whole_snapshots_and_the_next_repeats_nothing_that_was_committed(
    undisturbed: dict[str, Undisturbed], tmp_path: Path, place: str
) -> None:
    for name, passage in _passages(undisturbed, place):
        own = tmp_path / f"{name}-{passage}"
        own.mkdir()
        _check_kill(undisturbed[name], name, own, f"{place}:{passage}")


def _check_kill(reference: Undisturbed, name: str, own: Path, failpoint: str) -> None:
    place, folder = failpoint.partition(":")[0], own / "folder"
    shutil.copytree(reference.before, folder)

    assert in_a_process(act, name, folder, own / "killed", failpoint) == -signal.SIGKILL

    left = _history(folder)
    assert left or (name == "new" and place in ("lock.taken", "create.before-commit"))
    known = [] if name == "collected" else reference.history  # those of which no file may have changed
    at_kill = _check_snapshots(folder, reference, [s for s in left if s not in known]) or reference.newest
    if name == "collected":
        assert left[0] == reference.history[0]
        assert set(left) <= set(reference.history)
        assert contents(Store.open(uri(folder)), "kept") == contents(Store.open(uri(reference.before)), "kept")
    else:
        assert left[len(left) - len(reference.history) :] == reference.history
        _check_files_are_kept(reference.before, folder)
    if name == "exported":
        _check_exports(folder, reference)

    assert in_a_process(act, name, folder, own / "again") == 0

    history = _history(folder)
    final = _check_snapshots(folder, reference, [s for s in history if s not in left]) or at_kill
    assert final is not None
    assert final == reference.final
    _check_counts(at_kill, final, _counted(own / "again"))
    assert not Path(uri(folder) + ".coordinator.json").exists()
    if name == "collected":
        assert history == _history(reference.after)
        assert _files(folder) == _files(reference.after)
    else:
        assert history[len(history) - len(left) :] == left
    if name == "exported":
        assert _exports(folder) == reference.exports[1]


def _check_snapshots(folder: Path, reference: Undisturbed, chosen: list[str]) -> Contents | None:
    """Each holds only rows and studies of the undisturbed run; the contents of the first of them."""
    first = None
    if not chosen:
        return None
    store = Store.open(uri(folder))
    empty = store.history()[-1]["snapshot"]
    for snapshot in chosen:
        if snapshot == empty:
            continue
        found = contents(store, snapshot)
        for key, row in {**found.points, **found.cells}.items():
            assert row in reference.rows[key]
        assert found.statuses() <= {"ok", "failed", "skipped"}
        assert {(study, *expected) for study, expected in found.studies.items()} <= reference.studies
        first = first or found
    return first


def _files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in (folder / "results").rglob("*") if file.is_file()}


def _check_files_are_kept(before: Path, now: Path) -> None:
    """What the snapshots of before are made of is there, byte for byte."""
    for file in (before / "results").rglob("*"):
        if file.is_file() and file.parts[-2] != "branch.main":
            assert (now / file.relative_to(before)).read_bytes() == file.read_bytes(), file


def _counted(log: Path) -> Counter[tuple[str, str]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter((kind, key) for kind, key in (line.split(" ", 1) for line in lines))


def _check_counts(at_kill: Contents | None, final: Contents, counts: Counter[tuple[str, str]]) -> None:
    """What was missing when the first run ended was computed once, and nothing else."""

    def lacking(of: Callable[[Contents], dict[str, Row]], unlike: Callable[[Row], object]) -> set[str]:
        before = of(at_kill) if at_kill else {}
        return {key for key, row in of(final).items() if key not in before or unlike(before[key]) != unlike(row)}

    def computed(row: Row) -> Row:
        """Without what the next commit to a store of an older schema says of its rows."""
        return tuple((name, value) for name, value in row if name not in FACTS)

    points = {p for p in lacking(lambda c: c.points, computed) if dict(final.points[p])["status"] != "skipped"}
    failed = {p for p in points if "training diverged" in str(dict(final.points[p])["error"])}
    cells = lacking(lambda c: c.cells, lambda row: dict(row).get("weights"))
    networks = {cell for cell in cells if '"training": {' in str(dict(final.cells[cell])["spec"])}
    assert {key for kind, key in counts if kind == "ask"} == points - failed
    assert {key for kind, key in counts if kind == "train"} == networks
    assert sum(kind == "generate" for kind, _ in counts.elements()) == len(networks)
    assert {times for (kind, _), times in counts.items() if kind != "generate"} <= {1}


def _exports(folder: Path) -> dict[str, str]:
    """What the exported files hold, in full; empty for one that is not there."""
    found = {}
    for form, path in {form: exported(folder, form) for form in FORMS}.items():
        if not path.exists():
            found[form] = ""
        elif form == "parquet":
            found[form] = repr(pd.read_parquet(path).to_dict())
        else:
            with xr.open_datatree(path, engine={"zarr": "zarr", "netcdf": "h5netcdf"}[form]) as tree:
                found[form] = repr({name: data.to_dict() | {"attrs": {}} for name, data in tree.to_dict().items()})
    return found


def _check_exports(folder: Path, reference: Undisturbed) -> None:
    """Each exported file is as it was, or as it will be."""
    before, after = reference.exports
    for form, found in _exports(folder).items():
        assert found in (before[form], after[form]), form
