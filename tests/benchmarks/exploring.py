"""How long the explorer's answers take with 100,000 stored points, through the server that the
command starts: by the clock, and by the server's own processor time, which other work on the machine
does not lengthen (`python -m tests.benchmarks.exploring`).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from tests.benchmarks.query import make_store

VIEWS = {
    "curves": "",
    "curves of a filter": "?where=steps+%3C%3D+50",
    "every seed": "?each=1",
    "heat map": "?view=heat",
    "scatter": "?view=scatter&x=nfe",
    "scatter of all points": "?view=scatter&x=nfe&each=1",
}
TIMES = 9


def main(points: int = 100_000) -> None:
    """Measure and print: the first answer; then the median and the least of some more, and the mean
    of what the processor did for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(f"{folder}/store", points)
        command = [sys.executable, "-m", "flows", "explore", "--store", store, "--no-browser", "--port", "0"]
        root = Path(__file__).parents[2]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split()[2]
            for name, asked in VIEWS.items():
                first, before = _milliseconds(f"{address}api/view{asked}"), _processor(server.pid)
                more = [_milliseconds(f"{address}api/view{asked}") for _ in range(TIMES)]
                own = (_processor(server.pid) - before) / TIMES
                print(  # noqa: T201
                    f"{name}: first {first:.0f} ms, then {statistics.median(more):.0f} ms (least {min(more):.0f}); "
                    f"{own:.0f} ms of processor"
                )
            server.terminate()


def _milliseconds(address: str) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(address) as answer:  # noqa: S310  # this machine's own
        answer.read()
    return 1e3 * (time.perf_counter() - began)


def _processor(process: int) -> float:
    """Milliseconds that a process has computed so far."""
    spent = psutil.Process(process).cpu_times()
    return 1e3 * float(spent.user + spent.system)


if __name__ == "__main__":
    main()
