"""The page as a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tasks.report.page.draw import draw_report

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.results.models import ModelledAnswers


def write_report(answers: ModelledAnswers, page: Path) -> None:
    """Draw the page; an older one is replaced only by a whole one.

    Raises:
        OSError: the page cannot be written.
    """
    if page.exists() and not page.is_file():
        raise OSError(f"{page} is there and is not a regular file")
    page.parent.mkdir(parents=True, exist_ok=True)
    part = page.with_name(f".{page.name}.{os.getpid()}")
    try:
        part.write_text(draw_report(answers), encoding="utf-8")
        part.replace(page)
    finally:
        part.unlink(missing_ok=True)
