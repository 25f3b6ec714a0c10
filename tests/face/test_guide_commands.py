"""The commands of the guide's first pages are typed as they stand, on a small store of its own first
study; of all other documents the studies, columns and values that commands name are those that exist.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from diffusion.metrics import metrics
from tasks.columns import CONFIGURATION, COORDINATES, DEVICE, FACTS, MetricColumns
from tasks.study import load_study
from tasks.study.catalogue import REGISTRIES
from tasks.study.document import shipped_name
from tasks.where.language import Among, Column, Condition, Constant, Not, QueryError, Relation, Several, named, parse
from tests.face.test_documents import DOCUMENTS, ROOT, STUDIES, blocks
from tests.face.test_guide import COMMANDS, commands, fenced
from tests.tasks.tiny_store import answer

DOCS = ROOT / "docs"
TYPED = [DOCS / "start" / "first-study.md", DOCS / "start" / "ask.md", DOCS / "howto" / "paper.md"]
ELSEWHERE = {"doctor": "looks for services, as its own tests do"}
LESS = {"steps: 600": "steps: 20", "width: 64": "width: 8", "data: 20000": "data: 300", "samples: 2000": "samples: 60"}
"""What makes the guide's study small: nothing that a command or a table of the guide names."""


def the_study() -> str:
    """The guide's first study, as it stands there."""
    return next(text for text in fenced(TYPED[0], "yaml") if text.startswith("name: first\n"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study, small, with a wrong one beside it, and with its store, in which also
    the grown one is answered.
    """
    where = tmp_path_factory.mktemp("guide")
    text = the_study()
    (where / "whole.yaml").write_text(text, encoding="utf-8")
    wrong = text.replace("[moons]", "[mons]").replace("[3, 6, 12, 24]", "[three, 6, 12, 24]")
    (where / "wrong.yaml").write_text(f"# with two mistakes\n{wrong}", encoding="utf-8")
    for whole, less in LESS.items():
        assert text.count(whole) == 1
        text = text.replace(whole, less)
    (where / "first.yaml").write_text(text, encoding="utf-8")
    for more in (["steps=[3,6,12,24,48]"], []):
        answer(str(where / "results"), load_study(where / "first.yaml", more).spec())
    return where


Told = Callable[..., tuple[int, str]]


@pytest.fixture
def told(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Told:
    """Types a command in the folder: its exit code, and all that it says."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "path", list(sys.path))  # to which a command adds the study's folder

    def give(*arguments: str) -> tuple[int, str]:
        if arguments[0] == "run":  # of which all is answered and recorded, so that no service starts
            changes = [text for option, text in itertools.pairwise(arguments) if option == "--set"]
            answer(str(folder / "results"), load_study(folder / arguments[1], changes).spec())
            return typed(folder, *arguments)
        from flows.command_line import app

        capsys.readouterr()
        code = app(list(arguments), standalone_mode=False)
        out, err = capsys.readouterr()
        return code or 0, out + err

    return give


def typed(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "diffatlas", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "http://127.0.0.1:9/api"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def shown(document: Path) -> Iterator[tuple[list[str], str]]:
    """Each command of a document that stands with what it says."""
    for block in fenced(document, "", "console"):
        for part in re.split(r"^\$ diffatlas ", block, flags=re.MULTILINE)[1:]:
            command, _, said = part.partition("\n")
            if said.strip():
                yield shlex.split(command), said


def test_the_study_of_the_guide_is_planned_as_it_says(told: Told) -> None:
    (said,) = (said for command, said in shown(TYPED[0]) if command == ["plan", "first.yaml"])
    code, text = told("plan", "whole.yaml", "--store", "empty")
    assert code == 0
    assert text.strip().splitlines() == said.strip().splitlines()


def test_mistakes_are_answered_as_the_guide_says(told: Told) -> None:
    (said,) = (said for command, said in shown(TYPED[0]) if command == ["plan", "wrong.yaml"])
    code, text = told("plan", "wrong.yaml")
    assert code == 2
    assert re.fullmatch(re.escape(said.strip()).replace(r"\.\.\.", ".*"), text.strip())


@pytest.mark.parametrize("document", TYPED, ids=lambda path: path.stem)
def test_every_command_of_a_page_is_typed_one_after_the_other(document: Path, told: Told, folder: Path) -> None:
    for name, *arguments in commands(document):
        if name in ELSEWHERE or arguments == ["wrong.yaml"]:
            continue
        code, text = told(name, *arguments)
        assert code == 0, (name, arguments, text)
        assert "Traceback" not in text
        if name == "run":
            assert "nothing to compute" in text
        if "--out" in arguments:
            assert (folder / arguments[arguments.index("--out") + 1]).stat().st_size > 100


def columns_of(table: str) -> list[list[str]]:
    """The fields of a table that is written with spaces, line by line."""
    return [line.split() for line in table.strip().splitlines()]


def test_the_tables_that_the_guide_shows_have_these_columns_and_rows(told: Told) -> None:
    """Numbers are those of a larger study; what they are of is the same."""
    tables = 0
    for command, said in shown(DOCS / "start" / "ask.md"):
        wanted, (code, text) = columns_of(said), told(*command)
        found = columns_of(text)
        assert code == 0
        assert found[0] == wanted[0]
        labels = {"dataset", "formulation", "schedule", "steps"} - (
            {"schedule", "steps"} if "--best" in command else set()
        )
        keys = [i for i, name in enumerate(wanted[0]) if name in labels]
        assert [[row[i] for i in keys] for row in found[1:]] == [[row[i] for i in keys] for row in wanted[1:]]
        count = wanted[0].index("energy_count")
        assert {row[count] for row in found[1:]} == {row[count] for row in wanted[1:]} == {"3"}
        tables += 1
    assert tables == 2


def cells(table: str, columns: int) -> list[list[str]]:
    """The first cells of each row of a Markdown table."""
    return [line.split("|")[1 : columns + 1] for line in table.splitlines() if line.startswith("|")]


def test_the_table_for_a_paper_has_these_columns_and_rows(told: Told, folder: Path) -> None:
    page = TYPED[2].read_text(encoding="utf-8")
    (command,) = (one for one in commands(TYPED[2]) if "markdown" in one)
    code, text = told(*command)
    assert code == 0
    found, wanted = cells(text, 3), cells(page, 3)
    assert found == wanted
    assert len(found) == 2 + 8
    assert text.splitlines()[0] == page[page.index("| formulation") :].splitlines()[0]
    (latex,) = (one for one in commands(TYPED[2]) if "latex" in one)
    assert told(*latex)[0] == 0
    assert (folder / "best.tex").read_text(encoding="utf-8").count(r"\toprule") == 1
    (export,) = (one for one in commands(TYPED[2]) if one[0] == "export")
    assert told(*export, "--overwrite")[0] == 0
    assert set(pd.read_parquet(folder / "first.parquet")["formulation"]) == {"edm", "flow", "exact"}


def test_the_sampler_that_the_guide_adds_runs_in_the_study_as_it_says(
    told: Told, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    page = DOCS / "start" / "sampler.md"
    request.addfinalizer(lambda: sys.modules.pop("mine", None))
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", "mine")
    monkeypatch.syspath_prepend(str(folder))
    (folder / "mine.py").write_text(blocks(page)[0], encoding="utf-8")
    (line,) = re.findall(r"^the study, `(samplers: \[.*\])`", page.read_text(encoding="utf-8"), re.MULTILINE)
    text = (folder / "first.yaml").read_text(encoding="utf-8").replace("samplers: [heun, dpmpp-2m]", line)
    assert "mine:Blend" in text
    (folder / "grown.yaml").write_text(text, encoding="utf-8")
    answer(str(folder / "results"), load_study(folder / "grown.yaml", ["steps=[3,6]", "seeds=1"]).spec())
    code, planned = told("plan", "grown.yaml", "--json")
    monkeypatch.delenv("DIFFATLAS_ALLOW_PLUGINS")  # what lies beside the study needs none
    assert code == 0
    assert '"cells_to_train": 0' in planned
    assert commands(page) == [["run", "first.yaml"]]
    code, text = typed(folder, "run", "grown.yaml", "--set", "steps=[3,6]", "--set", "seeds=1")
    assert (code, "nothing to compute" in text) == (0, True), text
    code, text = told("query", "--study", "first", "--best", "sampler", "--at", "steps == 6", "--metric", "energy")
    assert code == 0
    rows = columns_of(text)
    by = {(row[1], row[3]): row[rows[0].index("energy_mean")] for row in rows[1:]}
    assert by["edm", "mine:Blend"] != by["edm", "heun"]


# --- names in the commands of every document ------------------------------------------------------

MISTAKES = {"sampler = 'heun'", "smapler == 'heun'"}
"""What docs/query.md shows the answers to."""
VALUES = {registry.kind: {entry.name for entry in registry} for registry in REGISTRIES}


def asked(document: Path) -> Iterator[dict[str, Any]]:
    """What each command of a document is asked, by its option."""
    for name, *arguments in commands(document):
        yield COMMANDS[name].make_context(name, list(arguments)).params


def studies() -> set[str]:
    """The names of studies that ship, that a document writes down, or whose answers documents open."""
    found = {path.stem for path in (ROOT / "deployments" / "studies").rglob("*.yaml")}
    found |= {study["name"] for study in STUDIES}
    for document in DOCUMENTS:
        for block in fenced(document, "yaml"):
            try:
                value = YAML(typ="safe").load(block)
            except YAMLError:
                continue
            if isinstance(value, dict) and isinstance(value.get("name"), str):
                found.add(value["name"])
    return found


def known(column: str) -> bool:
    """Whether a store can have a column: a coordinate, a fact, a metric, or what stands beside one."""
    if column in {*COORDINATES, *FACTS, DEVICE}:
        return True
    endings = {name.removeprefix("x") for name in MetricColumns("x").beside}
    ending = next((one for one in endings if column.endswith(one)), "")
    return column.removesuffix(ending).partition("(")[0] in {entry.name for entry in metrics}


def compared(condition: Condition) -> Iterator[tuple[str, str]]:
    """Columns and the texts that they are compared with."""
    match condition:
        case Relation(Column(name), _, Constant(str(value))) | Relation(Constant(str(value)), _, Column(name)):
            yield name, value
        case Relation(Column(name), _, Among(values)):
            yield from ((name, value) for value in values if isinstance(value, str))
        case Not(part):
            yield from compared(part)
        case Several(_, parts):
            for part in parts:
                yield from compared(part)


def split(text: str) -> list[str]:
    """Names at commas that stand in no brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text)]


ASKING = [path for path in DOCUMENTS if any(name in {"query", "diff", "report"} for name, *_ in commands(path))]


@pytest.mark.parametrize("document", [str(path.relative_to(ROOT)) for path in ASKING])
def test_studies_columns_and_values_that_commands_name_exist(document: str) -> None:
    there = studies()
    for params in asked(ROOT / document):
        study = params.get("study")
        if isinstance(study, str):
            assert study in there or study.endswith((".yaml", ".toml")) or shipped_name(study), study
        for option in ("by", "metric", "best", "pareto"):
            for name in split(params.get(option) or ""):
                assert not name or known(name), (option, name)
        for option in ("where", "at"):
            expression = params.get(option)
            if not expression:
                continue
            if expression in MISTAKES:
                with_it = None
                try:
                    with_it = parse(expression)
                except QueryError:
                    continue
                assert not all(map(known, named(with_it)))
                continue
            condition = parse(expression)
            assert all(map(known, named(condition))), expression
            for column, value in compared(condition):
                if column in CONFIGURATION:
                    assert value.partition("(")[0] in VALUES[column], (column, value)


def test_a_wrong_name_would_be_found() -> None:
    assert known("w1_floor")
    assert known("sliced-w2(projections=32)")
    assert known("nfe")
    assert not known("smapler")
    assert not known("w3")
    assert list(compared(parse("sampler in ['heun', 'eular'] and not (dataset == 'mons')"))) == [
        ("sampler", "heun"),
        ("sampler", "eular"),
        ("dataset", "mons"),
    ]
    assert "eular" not in VALUES["sampler"]
