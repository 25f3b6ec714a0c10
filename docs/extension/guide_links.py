"""Pages are read in a checkout and in the guide: of what lies outside of docs/, the guide has pages
of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGES = {"SECURITY.md": "security.md", "CONTRIBUTING.md": "contributing.md", "examples/": "examples.md"}
FETCHED = re.compile(r"""<(?:script|img|iframe)[^>]*\ssrc=["'](https?:[^"']*)|<link[^>]*\shref=["'](https?:[^"']*)""")
logger = logging.getLogger(__name__)
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def inside(text: str, up: str) -> str:
    """The text of a page with links out of docs/ turned to the guide's pages, and to plain text
    where it has none.

    Args:
        text: the page's Markdown.
        up: what leads from the page to docs/: "" or "../".
    """

    def turned(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        out = f"{up}../"
        if not target.startswith(out):
            return match[0]
        target = target.removeprefix(out)
        if target.startswith("docs/"):
            return f"[{label}]({up}{target.removeprefix('docs/')}{anchor})"
        return f"[{label}]({up}{PAGES[target]}{anchor})" if target in PAGES else f"`{target}`"

    return LINK.sub(turned, text)


def _page(app: Sphinx, name: str, source: list[str]) -> None:  # noqa: ARG001 - as Sphinx calls it
    source[0] = inside(source[0], "../" * name.count("/"))


def _included(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:  # noqa: ARG001 - as Sphinx calls it
    """What lies at the root names its links from there."""
    if len(path.parts) == 2 and path.suffix == ".md":
        content[0] = inside(LINK.sub(lambda m: m[0].replace(f"({m[2]}", f"(../{m[2]}", 1), content[0]), "")


def _nothing_from_elsewhere(app: Sphinx, error: Exception | None) -> None:
    """Whoever opens a page asks no other machine for anything."""
    if error is not None or app.builder.name != "html":
        return
    for page in sorted(Path(app.outdir).rglob("*.html")):
        for found in FETCHED.findall(page.read_text(encoding="utf-8")):
            logger.warning("%s fetches %s", page.relative_to(app.outdir), "".join(found))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", _page)
    app.connect("include-read", _included)
    app.connect("build-finished", _nothing_from_elsewhere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
