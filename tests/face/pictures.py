"""The pictures of the report and of the explorer in the README and the guide, taken anew:

    python -m tests.face.pictures UNIFORM FIRST

with the stores of two studies, the demo's (`diffatlas run uniform --store UNIFORM`) and that of the
guide's first study. Look at them before they are committed, and hold the sentences beside them
against what they say now (README.md, docs/start/page.md, docs/exploring.md).
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from tasks.report import draw_report
from tasks.results.models import ModelledAnswers
from tasks.store import Store

DOCS = Path(__file__).parents[2] / "docs"


def main(uniform: str, first: str) -> None:
    """Take all three."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, uri, place, height in (
            ("uniform", uniform, DOCS / "report.png", 685),
            ("first", first, DOCS / "start" / "page.png", 690),
        ):
            page = browser.new_page(viewport={"width": 1200, "height": height})
            path = Path(folder) / f"{name}.html"
            path.write_text(draw_report(ModelledAnswers(Store.open(uri), name)), encoding="utf-8")
            page.goto(path.as_uri())
            while not page.evaluate("document.documentElement.dataset.drawn > 0"):
                page.wait_for_timeout(50)
            keep(page, place)
        (Path(folder) / "results").symlink_to(Path(uniform).resolve())
        explored(browser, folder)
        browser.close()


def explored(browser: Any, folder: str) -> None:
    """The explorer as it opens, on the store `results` of a folder."""
    command = [sys.executable, "-m", "flows", "explore", "--store", "results", "--no-browser", "--port", "0"]
    with subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(DOCS.parent)}, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        page = browser.new_page(viewport={"width": 1300, "height": 820})
        page.goto(server.stdout.readline().split()[2])
        page.wait_for_selector("html[data-shown]")
        keep(page, DOCS / "exploring.png")
        server.terminate()


def keep(page: Any, place: Path) -> None:
    """What is in sight, in 256 colours: a third of the bytes, and no colour is far from its own (of the
    other ways to choose them, some turned one curve's colour into another's).
    """
    page.wait_for_timeout(1000)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    few = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    apart = int(np.asarray(ImageChops.difference(picture, few.convert("RGB"))).max())
    if apart > 24:
        raise RuntimeError(f"{place}: 256 colours do not do here, a pixel is off by {apart} of 255")
    few.save(place, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
