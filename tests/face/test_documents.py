"""Every block of Python in the README, the guides and the documents runs as it stands, and imports
the public face alone.
"""

import ast
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tasks.store import Store
from tests.tasks.tiny_store import SPEC, answer

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALLOWED = {"diffatlas", "torch", "numpy", "xarray", "zarr", "icechunk", "dataclasses", "typing", "math"}
INSIDE = {"CONTRIBUTING.md": {"diffusion"}}  # who adds a component to the package itself

STUDIES: list[dict[str, Any]] = [  # what the documents open, small
    {**SPEC, "name": "uniform", "steps": [5, 100], "samples": 100, "keep": {"samples": True}},
    {**SPEC, "name": "nightly", "formulations": ["edm", "vp"], "samples": 100, "keep": {}},
    {**SPEC, "name": "line", "steps": [2, 5], "samples": 100, "keep": {}},
    {
        **SPEC,
        "name": "first",
        "datasets": ["moons"],
        "formulations": ["edm", "flow"],
        "samplers": ["heun", "dpmpp-2m"],
        "steps": [3, 12],
        "samples": 100,
        "metrics": ["energy"],
        "keep": {"samples": True},
    },
    {
        **SPEC,
        "name": "digits",
        "datasets": ["digits"],
        "samplers": ["heun"],
        "steps": [18],
        "samples": 10,
        "seeds": 1,
        "metrics": ["energy"],
        "keep": {"samples": True},
    },
]


def blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def of_root(document: Path) -> str:
    return str(document.relative_to(ROOT))


WITH_CODE = [document for document in DOCUMENTS if blocks(document)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store that the documents open; its snapshot with the tag that they name has
    the last studies not yet.
    """
    where = tmp_path_factory.mktemp("documents")
    uri = str(where / "results")
    for study in STUDIES:
        answer(uri, {**study, "seeds": 1})
    Store.open(uri).tag("march")
    for study in STUDIES:
        answer(uri, study)
    return where


@pytest.fixture
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Where a document's code runs: a module, because classes look theirs up."""
    monkeypatch.chdir(folder)
    made = types.ModuleType("a_document")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def test_the_documents_with_code_are_found() -> None:
    names = {document.name for document in WITH_CODE}
    assert {"README.md", "CONTRIBUTING.md", "comparing.md", "errors.md", "query.md", "store.md"} <= names


@pytest.mark.parametrize("document", WITH_CODE, ids=of_root)
def test_documents_import_the_public_face_alone(document: Path) -> None:
    for code in blocks(document):
        tree = ast.parse(code)
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in modules} <= ALLOWED | INSIDE.get(document.name, set())


@pytest.mark.parametrize("document", [d for d in WITH_CODE if d.name not in INSIDE], ids=of_root)
def test_the_code_of_a_document_runs_block_after_block(document: Path, module: types.ModuleType) -> None:
    for number, code in enumerate(blocks(document)):
        exec(compile(code, f"{document.name}, block {number + 1}", "exec"), vars(module))  # noqa: S102 - it is ours


def test_the_code_of_the_guide_for_contributors_runs(folder: Path) -> None:
    """In a process of its own: it registers a name."""
    code = "\n".join(blocks(ROOT / "CONTRIBUTING.md"))
    (folder / "guide.py").write_text(code)
    requested = (
        "import diffatlas as da, guide; print(len(da.sample(da.dataset('uniform'), guide.HalfEuler(part=1.0), n=7)))"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1"}
    completed = subprocess.run(
        [sys.executable, "-c", requested], env=environment, capture_output=True, text=True, check=False
    )
    assert completed.stdout == "7\n", completed.stderr


def test_the_first_code_of_the_readme_has_at_most_ten_lines() -> None:
    first = blocks(ROOT / "README.md")[0]
    assert len(first.strip().splitlines()) <= 10
    assert "da.train" in first
    assert "da.sample" in first
