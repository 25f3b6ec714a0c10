"""What tests see in a browser, kept for whoever wants to look: files in the folder that
`DIFFATLAS_SCREENSHOTS` names, by default `build/screenshots`, each over the one of the run before.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(os.environ.get("DIFFATLAS_SCREENSHOTS") or Path(__file__).parents[1] / "build" / "screenshots")


def keep(page: Any, name: str, **how: Any) -> bytes:
    """The picture of a page, of what is in sight of it or as `how` says, kept as `name`.png."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    picture: bytes = page.screenshot(path=FOLDER / f"{name}.png", **how)
    return picture


def pixels_of(picture: bytes) -> NDArray[np.uint8]:
    """The colours of a picture, ``[row, column, 3]`` from 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(picture), formats=["PNG"]).convert("RGB"))


def colours_in(picture: bytes, places: Sequence[tuple[float, float]]) -> NDArray[np.int64]:
    """The colours at some places, each from the left and from the top."""
    at = np.rint(np.array(places)).astype(int).reshape(-1, 2)
    found: NDArray[np.int64] = pixels_of(picture)[at[:, 1], at[:, 0]].astype(np.int64)
    return found
