"""Whether a machine computes with the code of the run: sources and versions, compared by real
processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import diffusion
import tasks
from tasks.study import Study
from tasks.work.code import COMPUTE_NOTHING, Code, OtherCode, check, code_here, own_modules
from tests.tasks.tiny_store import SPEC
from tests.test_layers import ROOT, imported, modules

CODE = """
import json, sys
from tasks.work.code import code_here
found = code_here(tuple(sys.argv[1:]))
print(json.dumps([found.digest, found.versions, found.sources]))
"""


def copied(folder: Path) -> Path:
    for package in (diffusion, tasks):
        (source,) = package.__path__
        shutil.copytree(source, folder / package.__name__, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def code_in(folder: Path, *own: str) -> Code:
    """What a process says that finds our packages in a folder."""
    said = subprocess.run(
        [sys.executable, "-c", CODE, *own],
        env=os.environ | {"PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    digest, versions, sources = json.loads(said.stdout)
    found = Code(own, tuple(map(tuple, versions)), tuple(map(tuple, sources)))
    assert found.digest == digest
    return found


def test_what_is_changed_or_missing_in_a_copy_is_named_and_nothing_else(tmp_path: Path) -> None:
    """A library of another version, too. What draws and tells may differ: a node never needs it."""
    folder = copied(tmp_path)
    changed = folder / "diffusion" / "samplers" / "ode.py"
    changed.write_text(changed.read_text() + "\n# another line\n")
    (folder / "tasks" / "stages.py").unlink()
    (folder / "tasks" / "more.py").touch()
    (folder / "mine.py").write_text("first = 1")
    for room in COMPUTE_NOTHING:
        path = folder / room
        for one in (path,) if path.is_file() else path.rglob("*.py"):
            one.write_text(one.read_text() + "\n# another line\n")
    (folder / "scipy-0.1.dist-info").mkdir()
    (folder / "scipy-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: scipy\nVersion: 0.1\n")
    (folder / "tasks" / "explorer" / "page" / "later.py").touch()
    (folder / "tasks" / "figures" / "flow.py").unlink()
    other = code_in(folder, "mine")
    assert code_here().differences(other) == [
        f"scipy is 0.1, not {dict(code_here().versions)['scipy']}",
        "diffusion/samplers/ode.py is another one",
        "module mine is another one",
        "tasks/more.py is another one",
        "tasks/stages.py is not there",
    ]
    assert other.digest != code_here().digest


def test_a_file_of_any_room_that_a_worker_needs_counts_and_none_of_the_others_is_imported_there() -> None:
    """Imports within functions and for type checkers count, too."""
    known = {**modules("diffusion"), **modules("tasks")}
    needed, new = set(), {name for name in known if name.startswith(("tasks.work", "tasks.data", "diffusion."))}
    new -= {name for name in new if name.startswith("diffusion.checks")}  # which only `diffatlas check` needs
    while new:
        needed |= new
        new = {there for name in new for there in imported(known[name], known)} - needed
    files = {str(known[name].relative_to(ROOT)) for name in needed}
    assert files - {name for name, _ in code_here().sources} == set()
    rooms = {f"{Path(name).parts[0]}/{Path(name).parts[1]}" for name in files}
    assert rooms & COMPUTE_NOTHING == set()
    assert all((ROOT / room).exists() for room in COMPUTE_NOTHING)


OWN = """
from dataclasses import dataclass
from diffusion.samplers import Sampler

@dataclass(frozen=True)
class Still(Sampler):
    def step(self, denoiser, x, now, then, noise):
        return x

def alpha(t):
    return 1 - t
"""


def test_a_study_names_its_own_modules_wherever_it_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("steps_of_mine", "levels_of_mine"):
        (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", "steps_of_mine,levels_of_mine")
    user = {"name": "user", "alpha": "levels_of_mine:alpha", "sigma": "t", "t_min": 0.001, "t_max": 0.999}
    named = {"samplers": ["euler", "steps_of_mine:Still"], "schedules": [user]}
    assert own_modules(Study.from_spec({**SPEC, "keep": {}, **named})) == ("levels_of_mine", "steps_of_mine")
    assert own_modules(Study.from_spec(SPEC)) == ()


def test_a_worker_refuses_to_compute_for_a_run_with_other_code() -> None:
    here = code_here()
    check(here)
    version = dict(here.versions) | {"scipy": "0.1"}
    with pytest.raises(OtherCode, match=r"other code than the run was started with: scipy is .*, not 0\.1$"):
        check(replace(here, versions=tuple(version.items())))
    with pytest.raises(OtherCode, match="module nowhere is not there"):
        check(replace(here, own=("nowhere",), sources=(*here.sources, ("module nowhere", "0123"))))
