"""What a look at something has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CLOCKS_SECONDS = 5.0
"""How far two clocks may be apart: times of commits, and the ages that `gc` takes, are read from
them.
"""


@dataclass(frozen=True)
class Finding:
    """One sentence about a part of what a run needs. A `note` stands in nobody's way; a `problem`
    has a `remedy`, most often a command.
    """

    of: str
    level: Literal["ok", "note", "problem"]
    text: str
    remedy: str = ""


def clock(of: str, ahead: float, doubt: float = 0.0) -> Finding:
    """A clock that is `ahead` of ours, in seconds, known to `doubt`."""
    if abs(ahead) <= CLOCKS_SECONDS + doubt:
        return Finding("clocks", "ok", f"{of}: within {max(CLOCKS_SECONDS, doubt):.0f} s of this machine's")
    side = "ahead of" if ahead > 0 else "behind"
    text = f"the clock of {of} is {abs(ahead):.0f} s {side} this machine's"
    return Finding("clocks", "problem", text, "set both by a time server: timedatectl set-ntp true")
