"""A flow whose task runs do nothing: what is left is what a task run costs."""

from __future__ import annotations

from typing import Any

from flows.services import quiet_environment

quiet_environment()

import ray
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect_ray.context import remote_options

from flows.task_runner import TellingRayTaskRunner
from tasks.stages import Opaque, commit


@task(name="nothing", task_run_name="nothing: {name}", cache_policy=NO_CACHE, persist_result=False)
def nothing(name: str, content: Opaque[int]) -> Opaque[int]:  # noqa: ARG001 - of the run
    """What it was given."""
    return content


@flow(name="nothing", validate_parameters=False)
def many(count: int, commits: int, at_once: int) -> None:
    """So many task runs on workers, handed over as a run does it, and commits of nothing."""
    waiting: dict[Any, Any] = {}
    with TellingRayTaskRunner() as runner:
        for i in range(count):
            with remote_options(max_retries=0):
                future = runner.submit(nothing, {"name": str(i), "content": Opaque(i)})
            waiting[future.wrapped_future] = future
            while len(waiting) >= at_once or (waiting and i == count - 1):
                ready, _ = ray.wait(list(waiting), num_returns=1)
                for reference in ready:
                    waiting.pop(reference).result()
    for i in range(commits):
        commit(str(i), Opaque(str))
        get_run_logger().info("committed: %d", i)
        get_run_logger().info("shard done: %d", i)
