"""What tests see in a browser, kept for whoever wants to look: files in the folder that
`DIFFATLAS_SCREENSHOTS` names, by default `build/screenshots`, each over the one of the run before.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("DIFFATLAS_SCREENSHOTS") or Path(__file__).parents[1] / "build" / "screenshots")


def keep(page: Any, name: str, **how: Any) -> bytes:
    """The picture of a page, of what is in sight of it or as `how` says, kept as `name`.png."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    picture: bytes = page.screenshot(path=FOLDER / f"{name}.png", **how)
    return picture
