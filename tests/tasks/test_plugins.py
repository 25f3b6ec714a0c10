"""What a name may import: a module says so itself, by a file that it leaves when it is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from diffusion import plugins
from diffusion.errors import WrongValue
from diffusion.registry import NotAllowed
from diffusion.samplers import samplers
from tasks.models import CannotBeMade
from tasks.report.lookup.requested import requested_in
from tasks.results import Answers, open_results
from tasks.results.models import model_of
from tasks.store import Store
from tasks.study import Study, StudyError
from tasks.study.typed import load_study
from tests.tasks.store_kit import ROOT
from tests.tasks.tiny_store import SPEC, answer

OWN = """
from dataclasses import dataclass
from pathlib import Path
from diffusion.samplers import Sampler

Path(__file__).with_name("imported").touch()

@dataclass(frozen=True)
class Still(Sampler):
    order = 1

    def step(self, denoiser, x, now, then, noise):
        return x

def alpha(t):
    return 1 - t

def load():
    Path(__file__).with_name("called").touch()
    return denoised

def denoised(x, t):
    return 0 * x
"""
GIVEN = {"name": "given", "module": "MODULE:load", "predicts": "x0", "schedule": "edm"}
NAMED = {"samplers": ["heun", "MODULE:Still"]}
CALLED = {"schedules": [{"name": "user", "alpha": "MODULE:alpha", "sigma": "t", "t_min": 0.001, "t_max": 0.999}]}

COMMANDS = """
import contextlib, io, json, sys
from flows.command_line import app
ended = []
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = app(arguments, standalone_mode=False)
        except Exception as error:
            code = f"{type(error).__name__}: {error}"
    ended.append([code or 0, said.getvalue()])
print(json.dumps(ended))
"""


@dataclass(frozen=True)
class Place:
    """A folder of somebody's own, with a module in it."""

    folder: Path
    module: str

    @property
    def imported(self) -> bool:
        return (self.folder / "imported").exists()

    @property
    def called(self) -> bool:
        return (self.folder / "called").exists()

    def study(self, given: Mapping[str, object]) -> dict[str, object]:
        """A study that names the module."""
        text = json.dumps({**SPEC, "keep": {}, **given}).replace("MODULE", self.module)
        return dict(json.loads(text))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Place:
    monkeypatch.setenv(plugins.VARIABLE, "")  # and put back afterwards
    folder = tmp_path / "modules"
    folder.mkdir()
    module = f"own_{abs(hash(request.node.name))}"
    (folder / f"{module}.py").write_text(OWN)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    return Place(folder, module)


def environment(place: Place) -> dict[str, str]:
    """Of a process that would find the module."""
    return {"PYTHONPATH": f"{ROOT}:{place.folder}", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def commands(place: Place, cwd: Path, *given: list[str], **variables: str) -> list[tuple[object, str]]:
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(given)],
        cwd=cwd,
        env={**environment(place), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return [(code, said) for code, said in json.loads(done.stdout)]


@pytest.mark.parametrize("given", [NAMED, CALLED], ids=["class", "function"])
def test_what_a_store_or_a_deployment_names_is_not_imported(place: Place, given: dict[str, object]) -> None:
    with pytest.raises(StudyError) as refused:
        Study.from_spec(place.study(given))
    assert f"the module '{place.module}' is not imported" in str(refused.value)
    assert f"--allow-plugins {place.module}" in str(refused.value)
    assert place.module not in sys.modules
    assert not place.imported


def test_what_is_allowed_by_name_or_by_its_package_is_imported(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = place.folder / "package_of_mine"
    inner.mkdir()
    (inner / "steps.py").write_text(OWN)
    with pytest.raises(NotAllowed, match=r"the module .package_of_mine\.steps. is not imported"):
        samplers.find("package_of_mine.steps:Still")
    assert not (inner / "imported").exists()
    monkeypatch.setenv(plugins.VARIABLE, f"other, package_of_mine, {place.module}")
    assert samplers.find("package_of_mine.steps:Still").order == 1
    assert Study.from_spec(place.study({**NAMED, **CALLED})).samplers
    assert place.imported


def test_a_permission_is_for_that_name_and_what_is_in_it(place: Place) -> None:
    plugins.allow([place.module[:-1], f"{place.module}.inner"])
    with pytest.raises(NotAllowed):
        samplers.find(f"{place.module}:Still")
    for wrong in ("os system", "../mine", "", "mine:Still"):
        with pytest.raises(WrongValue, match="expected the name of a module"):
            plugins.allow([wrong])


def test_what_is_loaded_or_not_there_needs_no_permission(place: Place) -> None:
    for name in ("os:system", "subprocess:Popen", f"{__name__}:Place"):
        with pytest.raises(LookupError, match="must be a frozen dataclass"):
            samplers.find(name)
    with pytest.raises(LookupError, match=r"module 'os' has no attribute 'nothing'"):
        samplers.find("os:nothing")
    with pytest.raises(LookupError, match="No module named 'nowhere_at_all'"):
        samplers.find("nowhere_at_all:Still")
    for name in ("os:system", "shutil:rmtree", "builtins:exec", "diffusion.plugins:os.abort"):
        call = {"name": "user", "alpha": name, "sigma": "t", "t_min": 0.001, "t_max": 0.999}
        with pytest.raises(
            StudyError, match=r"is not imported, because nobody has allowed it|is nothing of this package"
        ):
            Study.from_spec(place.study({"schedules": [call]}))


@pytest.mark.parametrize(
    "name",
    [
        "os:getpid",
        "tasks.store.errors:StoreUnavailable",
        "diffusion.plugins:typed",
        "__main__:main",
        f"{__name__}:Place",
    ],
)
def test_that_a_module_is_loaded_or_ours_lets_nobody_call_what_is_in_it(place: Place, name: str) -> None:
    """As ``os:abort`` would be, by a page of a store that names it."""
    with pytest.raises(StudyError) as refused:
        Study.from_spec(place.study({"formulations": [GIVEN | {"module": name}]}))
    assert f"nothing in the module {name.partition(':')[0]!r} is called, because nobody has allowed it" in str(
        refused.value
    )
    call = {"name": "user", "alpha": "__main__:main", "sigma": "t", "t_min": 0.001, "t_max": 0.999}
    with pytest.raises(StudyError, match="is not imported, because nobody has allowed it"):
        Study.from_spec(place.study({"schedules": [call]}))


def test_who_reads_a_store_calls_no_network_that_it_names(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although its module is imported already; and what is read is whole."""
    uri = str(place.folder / "results")
    plugins.allow([place.module])
    answer(uri, place.study({"formulations": [GIVEN], "samplers": ["euler"], "seeds": 1, "training": {}}))
    assert place.called
    (place.folder / "called").unlink()
    monkeypatch.setenv(plugins.VARIABLE, "")
    answers = Answers(Store.open(uri))
    models = {requested.formulation.name: requested.formulation for requested in requested_in(answers)}
    assert "nobody has allowed it" in models["given"].missing
    (cell_id,) = (cell_id for cell_id, spec in answers.cell_specs.items() if spec["formulation"]["name"] == "given")
    with pytest.raises(CannotBeMade, match="nobody has allowed it"):
        model_of(answers, cell_id)
    assert len(open_results(uri)["w1"]) == 4
    assert not place.called


def test_the_installed_command_finds_what_lies_where_it_is_started_and_beside_the_study(
    place: Place, tmp_path: Path
) -> None:
    """Neither folder is on its path; the one that is used comes last and is told to its children."""
    (place.folder / "mine.yaml").write_text(json.dumps(place.study({**NAMED, **CALLED})))
    begin = "import sys; sys.argv[0] = 'diffatlas'; from flows.command_line import main; main()"
    checked = subprocess.run(
        [sys.executable, "-P", "-c", begin, "check", f"{place.module}:Still", "--kind", "grid"],
        cwd=place.folder,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "which is none of these: grid" in checked.stderr  # so it was found
    safe = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    far, beside = commands(
        place, tmp_path, ["check", f"{place.module}:Still"], ["plan", "modules/mine.yaml", "--json"], **safe
    )
    assert (far[0], "No module named" in far[1]) == (2, True)
    assert beside[0] == 0, beside[1]
    near = f"""
import os, subprocess, sys
from diffusion import plugins
last = sys.path[-1]
with plugins.typed({str(place.folder / "mine.yaml")!r}):
    assert plugins.why_not("json") and plugins.why_not({place.module!r}) is None
assert sys.path[-2:] == [last, {str(place.folder)!r}]
import {place.module}
end = "import diffusion.plugins, sys; assert sys.path[-1] == {str(place.folder)!r}"
subprocess.run([sys.executable, "-P", "-c", end], check=True)
"""
    subprocess.run([sys.executable, "-P", "-c", near], cwd=tmp_path, env=safe, check=True)


def test_an_installed_package_allows_its_modules_by_an_entry_point(place: Place) -> None:
    metadata = place.folder / "mine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[diffatlas.plugins]\nmine = {place.module}\n")
    assert Study.from_spec(place.study(NAMED)).samplers
    assert place.imported


def test_at_the_terminal_what_lies_beside_the_study_is_imported_and_nothing_else(place: Place, tmp_path: Path) -> None:
    name = "mine.yaml"
    (tmp_path / name).write_text(json.dumps(place.study({**NAMED, **CALLED})))
    refused, wrong, allowed = commands(
        place,
        tmp_path,
        ["plan", name],
        ["plan", name, "--allow-plugins", "a,b c"],
        ["plan", name, "--json", "--allow-plugins", f"else,{place.module}"],
    )
    assert refused[0] == 2
    assert f"--allow-plugins {place.module}" in refused[1]
    assert "BadParameter: found 'b c', expected the name of a module" in str(wrong[0])
    assert allowed[0] == 0, allowed[1]
    ((code, said),) = commands(place, place.folder, ["plan", str(tmp_path / name), "--json"])
    assert code == 0, said  # the module lies where the command was started
    beside = place.folder / name
    beside.write_text((tmp_path / name).read_text())
    assert load_study(beside).samplers


def test_commands_and_python_import_nothing_that_a_store_names(place: Place, tmp_path: Path) -> None:
    """Wherever they are started, also beside the module; and what they answer is whole."""
    uri = str(tmp_path / "results")
    plugins.allow([place.module])
    answer(uri, place.study({**NAMED, "formulations": ["exact"], "seeds": 1}))
    (place.folder / "imported").unlink()
    opened = "import sys, diffatlas as da; da.open_results(sys.argv[1]); da.plan('smoke', sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", opened, uri], cwd=place.folder, env=environment(place), check=False)
    assert done.returncode == 0
    asked, told, status = commands(
        place,
        place.folder,
        ["query", "--store", uri, "--by", "sampler", "--metric", "w1"],
        ["report", "--store", uri, "--json", "--out", str(tmp_path / "page.html")],
        ["status", "--store", uri],
    )
    assert [asked[0], told[0], status[0]] == [0, 0, 0], (asked, told, status)
    assert f"{place.module}:Still" in asked[1]
    assert f"{place.module}:Still" in (tmp_path / "page.html").read_text()
    assert not place.imported
