"""The house as `docs/architecture.md` tells it: every room is there, and none has outgrown a
reading.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("diffusion", "tasks", "flows", "deployments")
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LONGEST = 400  # lines of a file
WIDEST = 100  # columns of prose


def files() -> list[str]:
    """Python files and templates of the packages, from the root."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.*")]
    return sorted(str(path.relative_to(ROOT)) for path in found if path.suffix in {".py", ".j2", ".js", ".css"})


def rooms() -> set[str]:
    """What lies directly in a package: a folder, or a file on its own."""
    parts = {tuple(name.split("/")[:2]) for name in files() if name.split("/")[0] != "deployments"}
    return {"/".join(part) for part in parts if not part[1].startswith("__")}


def test_the_page_names_every_room_and_no_other() -> None:
    found = set(re.findall(r"`((?:diffusion|tasks|flows)/[\w./]+)`", PAGE))
    assert rooms() - found == set()
    assert {name for name in found if not (ROOT / name).exists()} == set()


def test_a_class_name_means_one_thing() -> None:
    """Names with an underscore are a file's own."""
    places: dict[str, list[str]] = {}
    for name in (name for name in files() if name.endswith(".py")):
        for found in re.findall(r"^class ([A-Z]\w*)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE):
            places.setdefault(found, []).append(name)
    assert {found: where for found, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("name", files())
def test_no_file_is_longer_than_a_reading(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= LONGEST


def prose(text: str) -> Iterator[str]:
    """Lines of docstrings and of comments on lines of their own, but for tables and formulas."""
    tree = ast.parse(text)
    bodies = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    lines = text.splitlines()
    found = [line for line in lines if line.lstrip().startswith("# ")]
    for node in bodies:
        if ast.get_docstring(node) is not None:
            found += lines[node.body[0].lineno - 1 : node.body[0].end_lineno]
    set_apart = re.compile(r"\s*\||\s*>>> |.*\S {2,}\S|\s{4,}.* (=|->|~) ")
    return (line for line in found if not set_apart.match(line))


@pytest.mark.parametrize("name", [name for name in files() if name.endswith(".py")])
def test_prose_has_a_hundred_columns_and_closing_quotes_at_most(name: str) -> None:
    assert [line for line in prose((ROOT / name).read_text(encoding="utf-8")) if len(line) > WIDEST + len('"""')] == []


def test_every_change_is_told_in_a_file_that_the_next_version_can_use() -> None:
    found = [path for path in (ROOT / "changes").iterdir() if path.name != "README.md"]
    assert all(re.fullmatch(r"\+[\w-]+\.(added|changed|fixed|removed)\.md", path.name) for path in found)
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0"]
    draft = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    draft = " ".join(draft.split())
    assert all(" ".join(path.read_text(encoding="utf-8").split()) in draft for path in found)
