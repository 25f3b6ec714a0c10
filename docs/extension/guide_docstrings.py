"""Docstrings as the guide shows them: formulas that stand by themselves keep their lines, tables
are tables, and an error leads to the page of errors.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

SECTIONS = ("Args:", "Returns:", "Raises:", "Attributes:")


def shown(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText."""
    return list(_shown(lines))


def _shown(lines: list[str]) -> Iterator[str]:
    inside = False  # of a formula
    for i, line in enumerate(lines):
        if line.startswith("|") and line.endswith("|"):
            if not lines[i - 1].startswith("|") or i == 0:
                yield from _table(lines[i:])
            continue
        if any(heading in lines[:i] for heading in SECTIONS):
            yield line
            continue
        indented, after_blank = line.startswith("    "), i > 0 and not lines[i - 1].strip()
        if indented and after_blank and not inside:
            inside = True
            yield from (".. code-block:: text", "")
        elif line.strip() and not indented:
            inside = False
        yield line


def _table(lines: list[str]) -> Iterator[str]:
    """The Markdown table that the lines begin with."""
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    yield from (".. list-table::", *(["   :header-rows: 1"] if any(rows[0]) else []), "")
    for number, row in enumerate(rows):
        if number != 1 and any(row):
            yield from (f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row))
    yield ""


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    lines[:] = shown(lines)


@cache
def _errors(page: Path) -> frozenset[str]:
    """The classes that the page of errors lists; a test holds the list to the code."""
    return frozenset(re.findall(r"^\| `[\w-]+` \| `(\w+)`", page.read_text(encoding="utf-8"), re.MULTILINE))


def _error(app: Sphinx, env: BuildEnvironment, node: Any, content: nodes.Element) -> nodes.Node | None:
    """A reference to an error of ours, which the page of errors tells about."""
    if node.get("reftype") != "exc" or node["reftarget"] not in _errors(Path(env.doc2path("errors"))):
        return None
    address = app.builder.get_relative_uri(node["refdoc"], "errors")
    return nodes.reference("", "", content, internal=True, refuri=address)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", _docstring, priority=100)  # before napoleon
    app.connect("missing-reference", _error)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
