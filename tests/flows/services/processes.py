"""What the tests of the services see of processes: through /proc, the kernel's own account of them."""

import time
import urllib.request
from pathlib import Path

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def processes() -> dict[int, tuple[int, str]]:
    """Return every living process: its parent, and when it started."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(stat.parent.name)] = int(fields[1]), fields[19]
    return found


def descendants(pid: int) -> set[tuple[int, str]]:
    everything = processes()
    found, fresh = set(), {pid}
    while fresh:
        fresh = {child for child, (parent, _) in everything.items() if parent in fresh}
        found |= {(child, everything[child][1]) for child in fresh}
    return found


def remaining(expected_gone: set[tuple[int, str]], seconds: float) -> set[tuple[int, str]]:
    deadline = time.monotonic() + seconds
    while True:
        alive = expected_gone & {(pid, start) for pid, (_, start) in processes().items()}
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.1)


def listening_addresses(pids: set[int]) -> set[str]:
    """Return the addresses, as the kernel writes them, on which processes accept TCP connections."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(descriptor.readlink()))
            except OSError:
                continue
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:] + Path("/proc/net/tcp6").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
            return bool(answer.read() == b"true")
    except OSError:
        return False
