"""Golden stores unpacked, for tests that read them."""

from __future__ import annotations

import tarfile
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def unpacked(name: str, folder: Path) -> str:
    """The address of a golden store, unpacked into a folder of its own; `name` such as ``run-3``."""
    place = folder / name
    with tarfile.open(GOLDEN / f"{name}.tar.gz") as packed:
        packed.extractall(place, filter="data")
    return str(place / "store")
