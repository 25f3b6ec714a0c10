"""No command waits for what it does not use: which of the large libraries each has imported when it
ends. And none of these listens to anybody, as SECURITY.md says.

Commands share a process, those that need least first: what one imports the next one has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tasks.golden_stores import unpacked
from tests.tasks.store_kit import python
from tests.tasks.tiny_store import SPEC, answer

STORE = {"icechunk", "zarr"}
TABLES = STORE | {"pandas", "xarray"}
QUANTILES = TABLES | {"scipy"}
NETWORKS = {"torch"}
LARGE = QUANTILES | NETWORKS | {"h5netcdf", "jinja2", "matplotlib", "plotly", "prefect", "ray", "sklearn"}

_PROGRAM = """
import contextlib, io, json, os, socket, sys
heard, listen = [], socket.socket.listen
def listens(self, *given):
    heard.append(str(self.getsockname()))
    return listen(self, *given)
socket.socket.listen = listens
from flows.command_line import app
from tests.flows.services.processes import descendants, listening_addresses
ended = []
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = app(arguments, standalone_mode=False)
    ended.append([code or 0, said.getvalue(), sorted(set(json.loads(sys.argv[2])) & sys.modules.keys())])
ours = {os.getpid(), *(pid for pid, _ in descendants(os.getpid()))}
there = sorted(listening_addresses(ours)) if os.path.exists("/proc/net/tcp") else []
print(json.dumps([ended, heard + there]))
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    said: str
    imported: set[str]


def run(*commands: list[str], **environment: str) -> list[Ended]:
    """Give one command after the other, in one process."""
    with python(_PROGRAM, json.dumps(commands), json.dumps(sorted(LARGE)), env=environment) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    ended, listening = json.loads(out)
    assert listening == []
    return [Ended(code, said, set(imported)) for code, said, imported in ended]


def test_reading_waits_for_nothing_that_computes(tmp_path: Path) -> None:
    store = ["--store", unpacked("run-3", tmp_path)]
    study = [*store, "--study", "run"]
    listed = run(
        ["history", *store],
        ["tag", "kept", *store],
        ["gc", "--dry-run", *store],
        ["status", *store],
        ["backup", store[1], str(tmp_path / "copy")],
        ["query", *study, "--by", "guidance,sampling_schedule", "--metric", "energy"],
        ["query", *study, "--pareto", "energy,nfe", "--by", "dataset"],
        ["query", *study, "--where", "process == 'forward' and status == 'ok'"],
        ["query", *study, "--by", "sampler", "--metric", "gone_parts:Hits", "--stat", "best,count"],
        ["export", *study, "--out", str(tmp_path / "points")],
        ["export", *study, "--format", "parquet", "--out", str(tmp_path / "points.parquet")],
        ["query", *study, "--best", "sampling_schedule", "--by", "dataset", "--metric", "energy"],
        ["query", *study, "--stat", "ci95"],
        ["diff", "kept", *study, "--by", "guidance,sampling_schedule"],
        ["export", *study, "--format", "netcdf", "--samples", "--out", str(tmp_path / "points.nc")],
    )
    assert [(one.code, one.said) for one in listed if one.code] == []
    imported = [one.imported for one in listed]
    assert imported == [STORE] * 5 + [STORE | {"pandas"}] * 4 + [TABLES] * 2 + [QUANTILES] * 3 + [
        QUANTILES | {"h5netcdf"}
    ]
    expected = {
        5: "vp-linear",
        6: "energy_mean",
        7: "forward-chain",
        8: "gone_parts:Hits_best",
        11: "behind",
        13: "same to the last bit",
    }
    assert {number: text for number, text in expected.items() if text not in listed[number].said} == {}


def test_whatever_its_options_reading_waits_for_nothing_that_computes(tmp_path: Path) -> None:
    store = ["--store", unpacked("run-3", tmp_path)]
    study = [*store, "--study", "run"]
    asked = ["query", *study, "--metric", "energy", "--by", "dataset"]
    light = [
        ["history", *store, "--json"],
        ["status", *store, "--json"],
        ["tag", "kept", *store],
        ["tag", "gone", *store],
        ["tag", "gone", "--delete", *store],
        ["gc", *store, "--older-than", "90d", "--json"],
        ["backup", store[1], str(tmp_path / "copy")],
        ["restore", str(tmp_path / "copy"), str(tmp_path / "again")],
    ]
    answers = [
        ["query", *study, "--as-of", "kept"],
        ["query", "--store", "atlas:", "--metric", "w1", "--by", "formulation", "--stat", "count"],
        *(
            [*asked, "--format", kind, "--out", str(tmp_path / kind)]
            for kind in ("csv", "json", "latex", "markdown", "parquet")
        ),
    ]
    compared = [
        ["diff", "kept", *study, "--exit-code", "--json"],
        ["diff", "kept", *study, "--metric", "energy", "--level", "0.9"],
        ["diff", "kept", *store],
    ]
    ended = run(
        *light,
        *answers,
        ["export", *study, "--format", "zarr", "--samples", "--out", str(tmp_path / "zarr")],
        *compared,
        ["diff", "--against", store[1], *study],  # which names the points of another store anew: it plans
        ["doctor", *store],  # which asks for Prefect's server
    )
    assert [(one.code, one.said) for one in ended if one.code] == []
    expected = [STORE] * len(light) + [STORE | {"pandas"}] * len(answers) + [TABLES] + [QUANTILES] * len(compared)
    planned = QUANTILES | NETWORKS
    assert [one.imported for one in ended] == [*expected, planned, planned | {"prefect"}]


def test_what_looks_names_up_starts_no_service_and_reads_no_data(tmp_path: Path) -> None:
    store = ["--store", unpacked("run-3", tmp_path)]
    (tmp_path / "tiny.yaml").write_text(json.dumps(SPEC))
    study = str(tmp_path / "tiny.yaml")
    schema, wrong, mistaken, catalog, checked, page = run(
        ["schema"],
        ["check", "no-such-name"],
        ["grow", study, "--until", "no question"],
        ["catalog", "--json"],
        ["check", "heun"],
        ["report", *store, "--study", "run", "--out", str(tmp_path / "page.html")],
    )
    assert [one.code for one in (schema, wrong, mistaken, catalog, checked, page)] == [0, 2, 2, 0, 0, 0]
    assert [one.imported for one in (schema, wrong)] == [NETWORKS] * 2
    assert "--until 'no question'" in mistaken.said
    assert mistaken.imported == NETWORKS | STORE | {"pandas"}
    assert catalog.imported == mistaken.imported
    assert checked.imported == catalog.imported | {"scipy"}  # a sampler between the levels of chains: their spline
    assert page.imported == QUANTILES | NETWORKS | {"jinja2", "plotly"}


def test_the_list_of_figures_draws_no_page_and_starts_no_service() -> None:
    (listed,) = run(["figure", "--list"])
    assert listed.code == 0, listed.said
    assert "flow-fields" in listed.said
    assert not listed.imported & {"plotly", "jinja2", "prefect", "ray", "sklearn"}


def test_a_mistake_a_plan_and_a_finished_study_start_no_service_and_draw_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer("results", SPEC)
    Path("tiny.yaml").write_text(json.dumps(SPEC))
    Path("reports").mkdir()
    Path("reports/tiny.html").write_text("the page of before")
    wrong, planned, explained, idle = run(
        ["run", "tiny.yaml", "--set", "steps=many"],
        ["plan", "tiny.yaml", "--json"],
        ["plan", "tiny.yaml", "--set", "steps=[1,2,3]", "--explain"],
        ["run", "tiny.yaml"],
    )
    assert (wrong.code, wrong.imported) == (2, NETWORKS)
    assert "steps" in wrong.said
    assert (planned.code, planned.imported, json.loads(planned.said)["points"]["missing"]) == (0, NETWORKS | STORE, 0)
    assert (explained.code, explained.imported) == (0, NETWORKS | STORE)
    assert (idle.code, idle.imported) == (0, NETWORKS | TABLES)
    assert "nothing to compute" in idle.said
    assert Path("reports/tiny.html").read_text() == "the page of before"


_EXPLORE = """
import contextlib, io, json, os, signal, sys, threading, urllib.request
from flows.command_line import app
imported = {}
def ask(address):
    try:
        for path in ["", *json.loads(sys.argv[2])]:
            with urllib.request.urlopen(address + path) as answer:
                answer.read()
            imported[path.partition("?")[0]] = sorted(set(json.loads(sys.argv[3])) & sys.modules.keys())
    finally:
        os.kill(os.getpid(), signal.SIGINT)
class Said(io.StringIO):
    def write(self, text):
        if "http" in text:
            threading.Thread(target=ask, args=[text.split()[2]]).start()
        return super().write(text)
with contextlib.redirect_stdout(Said()):
    imported["code"] = app(["explore", "--store", sys.argv[1], "--no-browser", "--port", "0"], standalone_mode=False)
print(json.dumps(imported))
"""


def test_the_explorer_imports_what_a_click_needs(tmp_path: Path) -> None:
    asked = [
        "api/now",
        "api/choices",
        "api/view?metric=energy",
        "api/row?metric=energy&row=seed%20==%200",
        "api/compare?metric=energy&tick=seed%20>=%200&tick=nfe%20>%200",
        "plotly.js",
    ]
    store = unpacked("run-3", tmp_path)
    with python(_EXPLORE, store, json.dumps(asked), json.dumps(sorted(LARGE)), env={}) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    found = {name: value if name == "code" else set(value) for name, value in json.loads(out).items()}
    assert found == {
        "": STORE | {"pandas"},
        "api/now": STORE | {"pandas"},
        "api/choices": STORE | {"pandas"},
        "api/view": STORE | {"pandas"},
        "api/row": STORE | {"pandas"},
        "api/compare": STORE | {"pandas", "scipy"},
        "plotly.js": STORE | {"pandas", "scipy", "plotly"},
        "code": 130,
    }
