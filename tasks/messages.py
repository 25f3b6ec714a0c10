"""Sentences about what was found: a value on one short line, the known name that was probably
meant.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache

LONGEST_SHOWN = 60


def shown(value: object) -> str:
    """A value as its author wrote it, more or less, on one short line."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**LONGEST_SHOWN:
        return f"an integer of more than {LONGEST_SHOWN} digits"
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError, RecursionError):  # not JSON, a huge integer inside, a value that contains itself
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 4] + " ..."


def counted(n: int, noun: str, nouns: str = "") -> str:
    """``1 seed``, ``3 seeds``, ``2 studies``."""
    return f"{n:,} {noun if n == 1 else nouns or noun + 's'}"


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[near[0]] if near else None


def unknown(what: str, name: object, known: Sequence[str], *, of: str = "", note: str = "") -> str:
    """The line for a name that is not among the known ones."""
    near = nearest(name, known)
    question = f"; did you mean {near!r}?" if near else ""
    accepted = f"accepted: {', '.join(known)}{note}" if known else "there are none"
    return f"unknown {what} {shown(name)}{of}{question} ({accepted})"


@cache
def note_the_new_name(what: str, old: str, new: str) -> None:
    """Say on stderr, once in a process, that something has another name now."""
    sys.stderr.write(f"note: {what} {old} is called {new} now\n")
