"""A run in a process of its own: it starts the services, says READY, and holds them."""

import os
import subprocess
import sys
from pathlib import Path

HOLD = """
import sys, time
sys.path.insert(0, {folder!r})
from flows.services import prefect_server, quiet_environment, ray_cluster, terminate_as_interrupt
quiet_environment()
def hold():
    print("READY", flush=True)
    {then}
with terminate_as_interrupt(), prefect_server() as url:
    print(url, flush=True)
    {body}
"""
WITH_RAY = """with ray_cluster(None, 2, {}):
        hold()"""


def child(home: Path, body: str, then: str = "time.sleep(600)") -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if k not in {"PREFECT_API_URL", "RAY_ADDRESS"}}
    program = HOLD.format(folder=str(Path(__file__).parents[3]), body=body, then=then)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment | {"DIFFATLAS_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_ready(process: "subprocess.Popen[str]") -> str:
    """Return the server's address."""
    assert process.stdout is not None
    lines: list[str] = []
    while (line := process.stdout.readline().strip()) != "READY":
        lines.append(line)
        assert line, process.communicate()
    return lines[0]
