"""docs/systems.md names every system with where it is and what shows it; this test keeps those
names true.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

from tasks.study.catalogue import catalogue
from tasks.study.document import shipped_studies

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "systems.md"

SYSTEMS = [f"A{n}" for n in range(1, 64)]
FAILING = {"S0": (1, 2, 3, 4, 5, 6, 7, 9, 12, 16), "S1": (2, 8), "S2": (5, 10), "S3": (1, 2, 3), "S4": (4, 6, 10)}
ERRATA = [f"{document}-{n}" for document, numbers in FAILING.items() for n in numbers]  # code built on these fails


@functools.cache
def rows() -> dict[str, list[str]]:
    """The cells of each row of both tables, by its first cell."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if re.match(r"\| (A|S\d-)\d", line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert len(cells) == 5, line
            assert cells[0] not in found, f"{cells[0]} is there twice"
            found[cells[0]] = cells[1:]
    return found


def named(cell: str) -> list[str]:
    """What stands in backticks; nothing else may, but commas."""
    assert re.sub(r"`[^`]+`", "", cell).strip(", ") == "", cell
    names = re.findall(r"`([^`]+)`", cell)
    assert len(set(names)) == len(names), cell
    return names


@functools.cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]
    inside: list[ast.Module | ast.ClassDef] = [tree, *classes]
    return {node.name for part in inside for node in part.body if isinstance(node, ast.FunctionDef)}


@functools.cache
def known() -> dict[str, set[str]]:
    """Names of the catalogue by kind, in the singular, and of the shipped studies."""
    entries = {kind.removesuffix("s"): {entry["name"] for entry in listed} for kind, listed in catalogue().items()}
    return {**entries, "study": set(shipped_studies())}


def test_every_system_and_every_failing_formula_has_its_row_in_order() -> None:
    assert list(rows()) == SYSTEMS + ERRATA


@pytest.mark.parametrize("row", SYSTEMS + ERRATA)
def test_every_row_says_what_it_is_and_names_a_test_that_exists(row: str) -> None:
    what, formula, *_, shown = rows()[row]
    assert what
    assert formula
    tests = named(shown)
    assert tests
    for test in tests:
        file, _, name = test.partition("::")
        assert re.fullmatch(r"([a-z_]+/)?test_\w+\.py", file), test
        assert name.startswith("test_"), test
        assert name in names_in(file), test


@pytest.mark.parametrize("row", SYSTEMS)
def test_every_system_is_somewhere(row: str) -> None:
    """As a study, as an entry of the catalogue or as something to call."""
    places = named(rows()[row][2])
    assert places
    for place in places:
        kind, _, name = place.partition(" ")
        if name:
            assert name in known()[kind], place
        else:
            assert callable(found_at(place)) or isinstance(found_at(place), property), place


def found_at(path: str) -> object:
    """What a dotted path leads to: a module's attribute, or an attribute of that."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise AssertionError(f"{path}: no such module")


@pytest.mark.parametrize("study", [name for name in shipped_studies() if name.startswith("documents/")])
def test_every_study_of_a_document_shows_some_system(study: str) -> None:
    assert any(f"study {study}" in named(rows()[row][2]) for row in SYSTEMS)


def test_the_page_names_the_documents_as_the_catalogue_does() -> None:
    """S0 to S4, and nothing of the files they lie in."""
    text = PAGE.read_text(encoding="utf-8")
    documents = {entry.get("seed", "") for listed in catalogue().values() for entry in listed}
    mentioned = {mark for document in documents for mark in re.findall(r"\bS\d\b", document)}
    assert mentioned <= {"S0", "S1", "S2", "S3", "S4"}
    assert all(f"({mark})" in text for mark in ("S0", "S1", "S2", "S3", "S4"))
