"""Folders for what a process makes once and several of its tests read. They lie among pytest's own:
those of tests that were killed go with a later session's, too.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_bases: list[Path] = []


@contextmanager
def shared_folders_in(base: Path) -> Iterator[None]:
    """New shared folders lie in this one, which is removed at the end."""
    _bases.append(base)
    try:
        yield
    finally:
        _bases.remove(base)
        shutil.rmtree(base, ignore_errors=True)


def shared_folder(name: str) -> Path:
    """A new folder that stays until the tests of this process have ended."""
    made = Path(tempfile.mkdtemp(prefix=f"diffatlas-{name}-", dir=_bases[-1] if _bases else None))
    if not _bases:  # no test asks: a benchmark, or a module that is imported
        atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
