"""A flow that Ray workers can import, for the tests of the services."""

import os

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.task_runner import TellingRayTaskRunner


@task(cache_policy=NO_CACHE, log_prints=False)
def nothing(index: int) -> tuple[int, int, str | None]:
    get_run_logger().info("task %d", index)
    return index, os.getpid(), os.environ.get("PREFECT_API_URL")


@flow(task_runner=TellingRayTaskRunner(), name="sample-flow")
def sample_flow(count: int) -> list[tuple[int, int, str | None]]:
    get_run_logger().info("a line for the server, not for the console")
    return [future.result() for future in nothing.map(range(count))]
