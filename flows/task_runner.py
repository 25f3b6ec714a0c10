"""Ray as the task runner of our flows: it answers when Prefect has been told of the task run."""

from __future__ import annotations

from typing import Any

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect_ray import RayTaskRunner

TOLD_SECONDS = 5.0
"""How long a worker tries to tell Prefect what became of a task run, before it gives its answer all
the same.
"""


class TellingRayTaskRunner(RayTaskRunner):  # type: ignore[misc] # prefect-ray has no types
    """A `RayTaskRunner` whose workers send their events and log lines before they give an answer.

    A worker queues what it tells Prefect, and Ray ends its workers at once when the flow has its
    last answer. What was queued by then would be lost, and the task run seem to go on for ever.
    """

    @staticmethod
    def _run_prefect_task(*upstream_ray_obj_refs: Any, **arguments: Any) -> Any:
        state = RayTaskRunner._run_prefect_task(*upstream_ray_obj_refs, **arguments)  # noqa: SLF001 - what is extended
        EventsWorker.drain_all(timeout=TOLD_SECONDS)
        APILogWorker.drain_all(timeout=TOLD_SECONDS)
        return state
