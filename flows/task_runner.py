"""Ray as the task runner of our flows: it answers when Prefect has been told of the task run."""

from __future__ import annotations

from typing import Any

from prefect_ray import RayTaskRunner

from flows.scale import TOLD_SECONDS
from flows.services.queues import deliver

TOLD_AGAIN_SECONDS = 0.5
"""The same for a worker whose last attempt was in vain: work does not wait for a server that is
gone.
"""


_patience = TOLD_SECONDS


class TellingRayTaskRunner(RayTaskRunner):  # type: ignore[misc] # prefect-ray has no types
    """A `RayTaskRunner` whose workers send their events and log lines before they give an answer.

    A worker queues what it tells Prefect, and Ray ends its workers at once when the flow has its
    last answer. What was queued by then would be lost, and the task run seem to go on for ever.
    """

    @staticmethod
    def _run_prefect_task(*upstream_ray_obj_refs: Any, **arguments: Any) -> Any:
        state = RayTaskRunner._run_prefect_task(*upstream_ray_obj_refs, **arguments)  # noqa: SLF001 - what is extended
        global _patience  # noqa: PLW0603 - of this worker's process, whatever task it runs
        _patience = TOLD_SECONDS if deliver(_patience) else TOLD_AGAIN_SECONDS
        return state
