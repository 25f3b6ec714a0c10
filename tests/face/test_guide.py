"""What the guide shows is so: its commands are commands of the real command line, its YAML are
studies, its notebooks run, and no public name is missing from it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import diffatlas
from deployments.schedules import read_schedules
from flows.command_line import app
from tasks.study.catalogue import REGISTRIES
from tasks.study.model import KEYS, Study
from tasks.study.schema import study_schema
from tests.face.test_documents import DOCUMENTS, ROOT, STUDIES
from tests.tasks.tiny_store import answer

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SYNOPSIS = re.compile(r"\[(--|[A-Z])|\.\.\.")
COMMANDS: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SCHEMA = study_schema()


def fenced(document: Path, *languages: str) -> list[str]:
    """The fenced blocks of a document in one of the languages."""
    found = re.findall(r"^```([\w{}-]*)\n(.*?)^```$", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def commands(document: Path) -> list[list[str]]:
    """The lines of a document that one is to type, but for synopses."""
    lines = [
        line.removeprefix("$ ")
        for block in fenced(document, "", "bash", "console", "shell")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    typed = [line for line in lines if line.startswith("diffatlas ") and not SYNOPSIS.search(line)]
    return [shlex.split(re.split(r" [|>] | {3,}", line)[0], comments=True)[1:] for line in typed]


def names(documents: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in documents]


@pytest.mark.parametrize("document", names([path for path in DOCUMENTS if commands(path)]))
def test_every_command_of_a_document_is_one(document: str) -> None:
    for name, *arguments in commands(ROOT / document):
        COMMANDS[name].make_context(name, list(arguments))  # which reads them and runs nothing


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(Exception, match="--stroe"):
        COMMANDS["query"].make_context("query", ["--stroe", "results"])
    assert len(commands(ROOT / "docs" / "start" / "first-study.md")) >= 4


def check_yaml(value: Any, folder: Path) -> None:
    """As a study, as part of one, or as a list of schedules."""
    if isinstance(value, list):
        (folder / "schedules.yaml").write_text("", encoding="utf-8")
        YAML().dump(value, folder / "schedules.yaml")
        assert read_schedules(folder / "schedules.yaml")
        return
    if set(value) <= set(KEYS) and {"name", "datasets", "metrics"} <= set(value):
        Study.from_spec(value)
    part = {**SCHEMA["$defs"]["study"], "required": [], "anyOf": [{}]}
    whole = SCHEMA["$defs"]["list-of-studies"] if "studies" in value else part
    jsonschema.Draft202012Validator({**whole, "$defs": SCHEMA["$defs"]}).validate(value)


@pytest.mark.parametrize("document", names([path for path in DOCUMENTS if fenced(path, "yaml")]))
def test_every_piece_of_yaml_is_a_study_or_a_part_of_one(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in fenced(ROOT / document, "yaml"):
        try:
            pieces = [YAML(typ="safe").load(block)]
        except YAMLError:  # ways to write one key, a line each
            pieces = [YAML(typ="safe").load(line) for line in block.splitlines()]
        for piece in pieces:
            check_yaml(piece, tmp_path)


def test_the_programs_that_documents_start_are_there() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    started = set(re.findall(r"^python (\w+/[\w/]+\.py)", text, re.MULTILINE))
    assert started >= {"deployments/serve.py", "deployments/automations.py"}
    assert {name for name in started if not (ROOT / name).is_file()} == set()


def test_every_public_name_is_on_the_page_of_the_python_face() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE))
    assert told == set(diffatlas.__all__) - {"analysis"}  # whose rooms are named one by one


def test_every_kind_of_name_has_a_page() -> None:
    pages = {
        path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference" / "names").glob("*.md")
    }
    assert set(pages) == {"index", *(f"{registry.kind}s" for registry in REGISTRIES)}
    assert all(f"```{{registry}} {name[:-1]}\n" in text for name, text in pages.items() if name != "index")


RUN = """
import sys, nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=120, resources={"metadata": {"path": sys.argv[2]}}).execute()
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """In a kernel of its own, two folders below the store that it asks, as in a checkout. What it
    shows in the guide is kept in the file, and was made by the same way: `jupyter execute
    --inplace`.
    """
    folder = tmp_path / "docs" / "notebooks"
    folder.mkdir(parents=True)
    if notebook.stem == "asking":
        answer(str(tmp_path / "results"), next(study for study in STUDIES if study["name"] == "first"))
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    completed = subprocess.run(
        [sys.executable, "-c", RUN, str(notebook), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    kept = json.loads(notebook.read_text(encoding="utf-8"))
    cells = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []
