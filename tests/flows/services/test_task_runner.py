"""Prefect is told what became of a task run before the flow has the answer."""

import os
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

ANSWER_AND_END = """
import os, sys
sys.path.insert(0, {folder!r})
from uuid import UUID
from flows.services import quiet_environment
quiet_environment()
from flows.task_runner import TellingRayTaskRunner
from tests.flows.services.sample_flow import nothing
state = TellingRayTaskRunner._run_prefect_task(
    task=nothing, task_run_id=UUID({task_run!r}), context={{}}, parameters={{"index": 3}}
)
os._exit(0 if state.is_completed() else 1)
"""


def test_a_worker_that_ends_with_its_answer_has_told_it(server: str) -> None:
    task_run = uuid4()
    program = ANSWER_AND_END.format(folder=str(Path(__file__).parents[3]), task_run=str(task_run))
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PREFECT_API_URL": server},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    deadline = time.monotonic() + 30  # the server has it, and records it in its own time
    while (state := recorded(task_run)) is None or not state.is_final():
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    assert state.is_completed()


def recorded(task_run: UUID) -> "State[object] | None":
    with get_client(sync_client=True) as client:
        try:
            return client.read_task_run(task_run).state
        except ObjectNotFound:
            return None
