"""What a flow does when Prefect's server goes for good: a real one, killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes through /proc"),
]
ROOT = Path(__file__).parents[3]

FLOW = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from flows.services import prefect_server, quiet_environment
quiet_environment()
with prefect_server() as url:
    from prefect import flow
    from prefect.artifacts import create_markdown_artifact
    from flows import pages as room
    room.PATIENCE_SECONDS = room.AGAIN_SECONDS = 3.0
    warned = []
    @flow
    def works():
        pages = room.Pages()
        pages.warn_with(lambda event: warned.append(event.reason))
        tell = lambda name: pages.tell(name, lambda: create_markdown_artifact("text", key=name))
        tell("one")
        assert not pages._pending
        for entry in os.listdir("/proc"):  # the server
            if entry.isdigit() and b"server_process.py" in open(f"/proc/{{entry}}/cmdline", "rb").read():
                if open(f"/proc/{{entry}}/stat").read().rpartition(")")[2].split()[1] == str(os.getpid()):
                    os.kill(int(entry), signal.SIGKILL)
        for number in range(3):
            tell(f"more-{{number}}")
        pages.close()
        print(len(warned), len(pages._pending), bool(pages.untold))
        pages.end_with("outcome")
    try:
        works()
    except room.ServerGone as gone:
        print(gone.ended)
"""


LOOKS = """
import os, signal, sys, threading, time
sys.path.insert(0, {root!r})
from flows.services import quiet_environment
quiet_environment()
from flows.request import RunRequest
from flows.start import starting_once

def servers():
    for entry in os.listdir("/proc"):
        if entry.isdigit() and b"server_process.py" in open(f"/proc/{{entry}}/cmdline", "rb").read():
            if open(f"/proc/{{entry}}/stat").read().rpartition(")")[2].split()[1] == str(os.getpid()):
                yield int(entry)

def kill_the_server():
    from tasks.store import Store
    while not Store.exists("results") or not any("swept" in one["message"] for one in Store.open("results").history()):
        time.sleep(0.05)
    for server in servers():
        os.kill(server, signal.SIGKILL)

if __name__ == "__main__":
    from flows import pages
    pages.PATIENCE_SECONDS = pages.AGAIN_SECONDS = 3.0
    threading.Thread(target=kill_the_server, daemon=True).start()
    with starting_once() as run:
        for steps in ("[1, 2]", "[1, 2, 3]"):
            outcome = run(RunRequest("looks.yaml", workers=1, overrides=(f"steps={{steps}}",), quiet=True))
            print(outcome.computed, bool(outcome.untold), len(list(servers())), flush=True)
"""
STUDY = """
name: looks
datasets: [uniform]
formulations: [exact]
samplers: [heun]
steps: [1]
samples: 50
metrics: [w1]
"""


EARLY = """
import os, signal, sys
sys.path.insert(0, {root!r})
from flows.services import quiet_environment
quiet_environment()
import flows.orchestration

def kill_the_server():
    for entry in os.listdir("/proc"):
        if entry.isdigit() and b"server_process.py" in open(f"/proc/{{entry}}/cmdline", "rb").read():
            if open(f"/proc/{{entry}}/stat").read().rpartition(")")[2].split()[1] == str(os.getpid()):
                os.kill(int(entry), signal.SIGKILL)

load = flows.orchestration.load_study

def lost_within_the_flow(*given):
    kill_the_server()
    return load(*given)

flows.orchestration.load_study = lost_within_the_flow
sys.argv = ["diffatlas", "run", "looks.yaml", "--workers", "1"]
from flows.command_line import app
app()
"""


def test_a_server_that_is_lost_before_there_is_work_is_told_in_one_sentence(home: Path, tmp_path: Path) -> None:
    (tmp_path / "looks.yaml").write_text(STUDY)
    own = {"DIFFATLAS_HOME": str(home), "PREFECT_CLIENT_MAX_RETRIES": "0"}  # Prefect's patience is not looked at here
    ended = subprocess.run(
        [sys.executable, "-c", EARLY.format(root=str(ROOT))],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | own,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    preparing, reason = ended.stderr.splitlines()
    assert preparing == "study looks: getting Prefect and Ray ready"
    assert "stopped answering (ConnectError: " in reason
    assert "run the same command again to go on" in reason


def test_after_a_look_that_lost_the_server_the_next_has_another(home: Path, tmp_path: Path) -> None:
    (tmp_path / "looks.yaml").write_text(STUDY)
    own = {"DIFFATLAS_HOME": str(home), "PREFECT_CLIENT_MAX_RETRIES": "1"}  # Prefect's patience is not looked at here
    ended = subprocess.run(
        [sys.executable, "-c", LOOKS.format(root=str(ROOT))],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | own,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["2 True 0", "1 False 1"]
    assert "Traceback" not in ended.stderr


def test_a_flow_goes_on_without_its_server_and_says_what_it_came_to(home: Path) -> None:
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", FLOW.format(root=str(ROOT))],
        env={k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | {"DIFFATLAS_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["1 3 True", "outcome"]
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - begun < 150
