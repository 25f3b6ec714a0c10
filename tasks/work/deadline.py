"""How long the work of a shard may take, and a worker that ends itself when it takes longer."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LEAST_SECONDS = 600.0
FACTOR = 10.0
"""A shard may take ten times what was planned for it, and ten minutes at least: far more than a
slow machine needs.
"""

APART_LIMITS = 4.0
"""So many times that for a shard that is done apart, where each of its parts has a limit."""


def limit_of(work: float) -> float:
    """The seconds that planned work of so many seconds may take."""
    return max(LEAST_SECONDS, FACTOR * work)


@contextmanager
def ends_after(seconds: float) -> Iterator[None]:
    """End this process, whatever it does, if the block takes longer; its log then tells where it
    was.

    A thread without Python does it, so that work that never returns from a library is ended too.
    """
    if sys.__stderr__ is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
