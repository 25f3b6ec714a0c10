"""What Prefect sends a worker with every task: no more than the worker needs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import cloudpickle
import pytest
from prefect import Task

from flows.run_study import run_study
from tasks import stages

LOADED = """
import json, pickle, sys
pickle.load(sys.stdin.buffer)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("task", [stages.generate_data, stages.train, stages.sweep], ids=lambda task: task.name)
def test_a_task_and_its_flow_bring_neither_the_store_nor_the_page_nor_the_coordinators_part_of_the_flow(
    task: Task[Any, Any],
) -> None:
    sent = cloudpickle.dumps((task, run_study))
    found = subprocess.run([sys.executable, "-c", LOADED], input=sent, capture_output=True, check=True)
    loaded = set(json.loads(found.stdout))
    assert "tasks.work.shard" in loaded
    assert not {"tasks.store", "tasks.results", "tasks.report", "flows.orchestration", "plotly", "xarray"} & loaded
