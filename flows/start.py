"""A run of a study in this process, with the services that it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from flows.request import Outcome, PointsHaveFailed, RunRequest
from flows.services import prefect_server, ray_cluster


def start(request: RunRequest) -> Outcome:
    """Run the flow with a Prefect server found or started.

    Raises:
        DiffatlasError: whatever ended the flow, if it is an error of ours; any other exception that
            ended it as it is. `ServerGone` if Prefect's server was lost before the flow began: what
            asks it then cannot go on without.
    """
    with prefect_server(_import_the_flow) as url:
        from httpx import TransportError

        from flows.pages import ServerGone

        try:
            return _carried_out(request, url)
        except TransportError as error:
            first = (str(error).splitlines() or [""])[0]
            raise ServerGone(
                f"Prefect's server at {url} stopped answering ({type(error).__name__}: {first}). What is committed "
                "stays; run the same command again to go on, when the server is there",
                None,
            ) from None


def _carried_out(request: RunRequest, url: str) -> Outcome:
    from flows.pages import ServerGone, lacking
    from flows.run_study import run_study

    try:
        state: Any = run_study(**request.parameters(), return_state=True)
    except ServerGone as gone:  # the engine could not tell how the flow ended
        if isinstance(gone.ended, BaseException):
            raise gone.ended from None
        if gone.ended is None:
            raise
        return replace(gone.ended, untold=lacking(url))
    result = state.result(raise_on_failure=False)
    if isinstance(result, Outcome):
        return result
    if isinstance(result, PointsHaveFailed):
        return result.outcome
    if isinstance(result, BaseException):
        raise result
    raise RuntimeError(f"the flow ended as {state.name}: {state.message}")


@contextlib.contextmanager
def starting_once() -> Iterator[Callable[[RunRequest], Outcome]]:
    """`start` for the runs of one command, which share their services: these start with the first of
    them, if there is one, and end with the block. After a run that lost Prefect's server the next one
    starts them anew.
    """
    with contextlib.ExitStack() as services:
        entered: list[str] = []

        def run(request: RunRequest) -> Outcome:
            if not entered:
                services.enter_context(prefect_server(_import_the_flow))
                entered.append(services.enter_context(ray_cluster(request.ray_address, request.workers, {})))
            outcome = start(request)
            if outcome.untold:  # Ray's workers have the server's address too
                services.close()
                entered.clear()
            return outcome

        yield run


def _import_the_flow() -> None:
    """Prefect, Ray and what a run needs: seconds, in which its server starts."""
    import flows.orchestration
    import flows.run_study  # noqa: F401
