"""What a flow does when Prefect's server goes for good: a real one, killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.results import open_results

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
import json, os, signal, sys, threading, time
sys.path.insert(0, {root!r})
from flows.services import quiet_environment
quiet_environment()
from flows.request import RunRequest
from flows.start import starting_once

def servers():
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if b"server_process.py" not in open(f"/proc/{{entry}}/cmdline", "rb").read():
                continue
            if open(f"/proc/{{entry}}/stat").read().rpartition(")")[2].split()[1] == str(os.getpid()):
                yield int(entry)
        except OSError:
            continue  # it has ended meanwhile

def kill_the_server():
    from tasks.store import Store
    while not Store.exists("results") or not any("swept" in one["message"] for one in Store.open("results").history()):
        time.sleep(0.05)
    for server in servers():
        os.kill(server, signal.SIGKILL)

def sweeps():
    from tasks.store import Store
    return sum("swept" in one["message"] for one in Store.open("results").history())

def stop_the_server_for_a_while(before):
    while sweeps() == before:
        time.sleep(0.02)
    for server in servers():
        os.kill(server, signal.SIGSTOP)
        time.sleep(6.0)
        os.kill(server, signal.SIGCONT)

def told():  # what the server knows of the last run
    from prefect.client.orchestration import get_client
    with get_client(sync_client=True) as client:
        last = max(client.read_flow_runs(), key=lambda run: run.created)
        for _ in range(100):  # task runs and logs are recorded a moment later
            tasks = {{one.name: one.state_name for one in client.read_task_runs() if one.flow_run_id == last.id}}
            lines = [line.message for line in client.read_logs() if line.flow_run_id == last.id]
            if len(tasks) > 2 and set(tasks.values()) == {{"Completed"}} and any("does not take what it is told" in line for line in lines):
                break
            time.sleep(0.2)
        pages = {{one.key: one.data for one in client.read_artifacts() if one.flow_run_id == last.id}}
    return [last.state_name, tasks, [line for line in lines if "does not take" in line], pages]

if __name__ == "__main__":
    from flows import pages
    pages.PATIENCE_SECONDS = pages.AGAIN_SECONDS = 3.0
    threading.Thread(target=kill_the_server, daemon=True).start()
    with starting_once() as run:
        for steps in ("[1, 2]", "[1, 2, 3]", "[1, 2, 3, 4]"):
            if steps.count(",") == 3:
                pages.PATIENCE_SECONDS, pages.AGAIN_SECONDS, pages.BRIEF_SECONDS = 60.0, 1.0, 1.0
                threading.Thread(target=stop_the_server_for_a_while, args=[sweeps()], daemon=True).start()
            outcome = run(RunRequest("looks.yaml", workers=1, overrides=(f"steps={{steps}}",), quiet=True))
            print(outcome.computed, bool(outcome.untold), len(list(servers())), flush=True)
        print(json.dumps(told()), flush=True)
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

import flows.pages, flows.start
flows.pages.PATIENCE_SECONDS = flows.pages.AGAIN_SECONDS = 3.0
room, name = (flows.start, "_carried_out") if {before} else (flows.orchestration, "load_study")
following = getattr(room, name)

def lost(*given):
    kill_the_server()
    return following(*given)

setattr(room, name, lost)
sys.argv = ["diffatlas", "run", "looks.yaml", "--workers", "1"]
from flows.command_line import app
app()
"""


def lost_early(home: Path, folder: Path, *, before: bool) -> subprocess.CompletedProcess[str]:
    """A run whose server is killed before its flow begins, or as the first thing within it."""
    (folder / "looks.yaml").write_text(STUDY)
    own = {"DIFFATLAS_HOME": str(home), "PREFECT_CLIENT_MAX_RETRIES": "0"}  # Prefect's patience is not looked at here
    return subprocess.run(
        [sys.executable, "-c", EARLY.format(root=str(ROOT), before=before)],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | own,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_flow_that_loses_the_server_before_it_has_work_does_its_work(home: Path, tmp_path: Path) -> None:
    ended = lost_early(home, tmp_path, before=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "stopped answering: its pages lack the rest of this run" in ended.stderr.replace("\n", " ")
    assert set(open_results(str(tmp_path / "results"), "looks")["status"].values) == {"ok"}


def test_a_server_that_is_lost_before_there_is_a_flow_is_told_in_one_sentence(home: Path, tmp_path: Path) -> None:
    ended = lost_early(home, tmp_path, before=True)
    assert ended.returncode == 3, ended.stderr
    preparing, reason = ended.stderr.splitlines()
    assert preparing == "study looks: getting Prefect and Ray ready"
    assert "stopped answering (ConnectError: " in reason
    assert "run the same command again to go on" in reason


def test_after_a_look_that_lost_the_server_the_next_has_another(home: Path, tmp_path: Path) -> None:
    """And of a third one the server is stopped when its work is committed, for six seconds: its pages are
    whole in the end.
    """
    (tmp_path / "looks.yaml").write_text(STUDY)
    own = {"DIFFATLAS_HOME": str(home), "PREFECT_CLIENT_MAX_RETRIES": "1"}  # Prefect's patience is not looked at here
    ended = subprocess.run(
        [sys.executable, "-c", LOOKS.format(root=str(ROOT))],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | own,
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    *looks, told = ended.stdout.splitlines()
    assert looks == ["2 True 0", "1 False 1", "1 False 1"]
    assert "Traceback" not in ended.stderr
    state, tasks, warned, pages = json.loads(told)
    assert len(warned) == 1, told
    assert (state, set(tasks.values())) == ("Completed", {"Completed"}), told
    assert {name.partition(":")[0] for name in tasks} == {"sweep", "commit", "report"}, told
    assert pages["looks-progress"] == 100
    assert "looks.html" in pages["looks-report"]
    assert [row["steps"] for row in json.loads(pages["looks-summary"])] == [1, 2, 3, 4]


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
