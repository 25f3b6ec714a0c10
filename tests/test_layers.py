"""The house has no circles: neither files nor rooms of a package import one another in a ring.

Imports inside functions and under `TYPE_CHECKING` count: whoever reads a file has to know the files
that it names, whenever Python loads them. A room is a folder of a package, or a file beside the
folders.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("diffusion", "tasks", "flows", "deployments")
MOST_LINES = 400

Graph = Mapping[str, frozenset[str]]


def modules(package: str) -> dict[str, Path]:
    """Dotted names of the files of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules among the known ones that a file names in import statements, wherever these
    stand.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in (inner if inner in known else node.module,) if name in known)


def graph_of(package: str) -> Graph:
    known = modules(package)
    return {name: frozenset(imported(path, known)) - {name} for name, path in known.items()}


def rooms_of(graph: Graph) -> Graph:
    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    return {
        one: frozenset(room(there) for here, names in graph.items() if room(here) == one for there in names) - {one}
        for one in map(room, graph)
        if "." in one
    }


def circle_in(graph: Graph) -> list[str]:
    """The names of one circle, or none: leave out what imports nothing that is left until nothing
    changes.
    """
    left = {name: set(names) & graph.keys() for name, names in graph.items()}
    while leaves := {name for name, names in left.items() if not names & left.keys()}:
        left = {name: names for name, names in left.items() if name not in leaves}
    if not left:
        return []
    path = [min(left)]
    while (following := min(left[path[-1]] & left.keys())) not in path:
        path.append(following)
    return [*path[path.index(following) :], following]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_files_import_one_another_in_a_ring(package: str) -> None:
    assert circle_in(graph_of(package)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_rooms_import_one_another_in_a_ring(package: str) -> None:
    assert circle_in(rooms_of(graph_of(package))) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_is_longer_than_one_can_keep_in_mind(package: str) -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules(package).items()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_a_ring_is_found_where_there_is_one() -> None:
    ring = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set[str]()}
    assert circle_in({name: frozenset(names) for name, names in ring.items()}) == ["b", "c", "b"]
    assert circle_in({"a": frozenset({"b"}), "b": frozenset()}) == []


def test_imports_count_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from house.kitchen import Stove\n"
        "def light():\n    import house.attic\n    from house import cellar\n"
    )
    known = dict.fromkeys(("house", "house.kitchen", "house.attic", "house.cellar"), file)
    assert sorted(imported(file, known)) == ["house.attic", "house.cellar", "house.kitchen"]
