"""Who holds a store: host, process, when that process started, and since when; the note that a
second coordinator reads.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

_PROC = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """One coordinator.

    `machine` tells the boot and the process namespace in which `pid` counts, `birth` its process
    from a later one of the same number, `token` the holder from all others.
    """

    host: str
    pid: int
    since: str
    started: str = ""
    machine: str = ""
    birth: str = ""
    token: str = ""

    @classmethod
    def me(cls) -> Holder:
        """This process, from now on."""
        pid, now = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
        birth, started = _birth(pid) or ("", "")
        return cls(platform.node(), pid, now, started, _machine(), birth, uuid4().hex)

    @classmethod
    def parse(cls, text: str | bytes) -> Holder | None:
        """The holder that a note names, or None if it cannot be read; notes of older versions tell
        less.
        """
        try:
            fields = json.loads(text)
            more = {name: str(fields.get(name, "")) for name in ("started", "machine", "birth", "token")}
            return cls(str(fields["host"]), int(fields["pid"]), str(fields["since"]), **more)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def note(self) -> str:
        """The text that `parse` reads."""
        return json.dumps(asdict(self))

    @property
    def here(self) -> bool:
        """Whether it ran where this process can see it: on this host, since its last boot, among
        the same processes.
        """
        return self.host == platform.node() and bool(self.machine) and self.machine == _machine()

    @property
    def gone(self) -> bool:
        """Whether its process is known to have ended."""
        if not self.here:
            return False
        now = _birth(self.pid)
        return now is None or bool(self.birth and now[0] != self.birth)

    def __str__(self) -> str:
        began = f", started {self.started}" if self.started else ""
        return f"host {self.host}, process {self.pid}{began}, since {self.since}"


def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return platform.platform()


def _birth(pid: int) -> tuple[str, str] | None:
    """What only this process of that number has, and when it started; None if there is no such
    process any more.
    """
    if (_PROC / "self/stat").exists():
        try:
            state, *fields = (_PROC / f"{pid}/stat").read_text().rsplit(")", 1)[1].split()
            boot = next(line for line in (_PROC / "stat").read_text().splitlines() if line.startswith("btime"))
        except (OSError, StopIteration):
            return None
        ticks = fields[18]
        seconds = int(boot.split()[1]) + int(ticks) / os.sysconf("SC_CLK_TCK")
        return None if state in "ZX" else (ticks, datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds"))
    completed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return (completed.stdout.strip(), completed.stdout.strip()) if completed.stdout.strip() else None
