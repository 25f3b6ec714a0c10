"""A store with any one of its files deleted, cut short or with a flipped byte: the answers of
before, or exit code 3.

Never a traceback, never a number that was not stored; and with the file put back everything answers
as before. Numbers have checksums of ours; what Icechunk writes beside a snapshot (message, time,
versions) has none, so a flip there may be shown.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner

from flows.command_line import app
from tasks.store import Store, StoreDamaged
from tests.tasks.tiny_store import SPEC, answer

pytestmark = pytest.mark.slow

STUDY = {**SPEC, "datasets": ["gaussian"], "seeds": 1, "samples": 40, "samplers": ["heun"]}

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "deleted": lambda _: None,
    "cut short": lambda data: data[: len(data) // 2],
    "flipped at its begin": lambda data: _flipped(data, len(data) // 5),
    "flipped in its middle": lambda data: _flipped(data, len(data) // 2),
}
QUICK = ("query", "history", "plan")  # `report` and `export` take longer, and are asked after two of the damages
THOROUGH = ("deleted", "flipped in its middle")

_PROVENANCE = (
    r'(?s)<span>time <b>.*?</span>|<footer id="provenance">.*?</table>'  # as in the history, from beside a snapshot
)


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


class Commands:
    """The commands of a user who only reads, and what each answers."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.uri, self.folder = uri, folder
        (folder / "tiny.yaml").write_text(json.dumps(STUDY))
        self.commands: dict[str, list[str]] = {
            "query": ["query", "--format", "json"],
            "history": ["history", "--json"],
            "plan": ["plan", str(folder / "tiny.yaml"), "--json"],
            "export": ["export", "--format", "netcdf", "--samples", "--overwrite", "--out", str(folder / "points.nc")],
            "report": ["report", "--out", str(folder / "page.html")],
        }

    @property
    def files(self) -> list[Path]:
        """Those of the store."""
        return [file for file in sorted(Path(self.uri).rglob("*")) if file.is_file()]

    def reads(self, name: str) -> frozenset[Path]:
        """Files of the store that an answer comes from, by the times at which they were last read; all
        of them where the file system keeps no such times.
        """
        for file in self.files:
            os.utime(file, ns=(0, file.stat().st_mtime_ns))
        self.ask(name)
        return frozenset(file for file in self.files if file.stat().st_atime_ns) or frozenset(self.files)

    def ask(self, name: str) -> tuple[int, str]:
        """Exit code and answer, or its one message."""
        result = CliRunner().invoke(app, [*self.commands[name], "--store", self.uri])
        assert result.exception is None or isinstance(result.exception, SystemExit), (name, result.exc_info)
        assert "Traceback" not in result.output
        if result.exit_code:
            return result.exit_code, result.output
        if name == "export":
            with xr.open_datatree(self.folder / "points.nc", engine="h5netcdf") as tree:
                return 0, repr({group: data.to_dict() | {"attrs": {}} for group, data in tree.to_dict().items()})
        if name == "history":
            return 0, json.dumps(json.loads(result.stdout), sort_keys=True)
        if name == "report":
            return 0, re.sub(_PROVENANCE, "", (self.folder / "page.html").read_text())
        return 0, result.stdout


@dataclass(frozen=True)
class Whole:
    """A small store, what it answers, and from which of its files."""

    commands: Commands
    answers: dict[str, tuple[int, str]]
    read: dict[str, frozenset[Path]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    answer(str(folder / "results"), STUDY)
    commands = Commands(folder, str(folder / "results"))
    read = {name: commands.reads(name) for name in commands.commands}
    answers = {name: commands.ask(name) for name in commands.commands}
    assert {code for code, _ in answers.values()} == {0}
    assert answers == {name: commands.ask(name) for name in commands.commands}  # each always answers the same
    return Whole(commands, answers, read)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_told_or_not_needed_and_put_back_all_is_well(whole: Whole, damage: str) -> None:
    """Commands are asked that read the file; the quick ones also without one that they do not read."""
    commands, expected, files = whole.commands, whole.answers, whole.commands.files
    assert {"chunks", "manifests", "refs", "snapshots", "transactions"} <= {
        file.relative_to(commands.uri).parts[0] for file in files
    }
    result, wrong = set(), []
    for file in files:
        data, kind = file.read_bytes(), file.relative_to(commands.uri).parts[0]
        damaged = DAMAGES[damage](data)
        if damaged is None:
            file.unlink()
        else:
            file.write_bytes(damaged)
        asked = [name for name in (commands.commands if damage in THOROUGH else QUICK) if file in whole.read[name]]
        for name in dict.fromkeys((*QUICK, *asked)) if damaged is None else asked:
            code, found = commands.ask(name)
            clear = found.startswith(f"store {commands.uri}: ") and len(found.strip().splitlines()) == 1
            same = found == expected[name][1] or (name == "history" and kind == "snapshots")
            if not (clear if code == 3 else code == 0 and same):
                wrong.append(f"{name} after {file.relative_to(commands.uri)}: {code} {found[:300]}")
            if code == 3:
                result.add(kind)
        file.write_bytes(data)
    assert not wrong
    needed = {"manifests", "snapshots"} | (
        {"chunks"} if damage in THOROUGH else set()
    )  # samples, which the quick ones leave
    assert needed <= result
    assert {name: commands.ask(name) for name in commands.commands} == expected


def test_a_store_that_lost_the_name_of_its_newest_snapshot_is_not_taken_for_none(whole: Whole, tmp_path: Path) -> None:
    shutil.copytree(whole.commands.uri, tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / "refs")
    damaged = Commands(tmp_path, str(tmp_path / "results"))
    assert {name: damaged.ask(name)[0] for name in damaged.commands} == dict.fromkeys(damaged.commands, 3)
    with pytest.raises(StoreDamaged, match="damaged"):
        Store.create(damaged.uri)
