"""What Prefect's own loops do while its server is away, and how its log tells of that."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from types import ModuleType

import httpx
import pytest
from prefect._internal.concurrency import services

from flows.patience import ask_on
from flows.refusals import tell_in_one_line
from flows.services import ServiceUnavailable

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Prefect's, which is imported and not used

REQUEST = httpx.Request("GET", "http://127.0.0.1:9/api")


def status(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(code))


def told(*answers: Exception | None) -> list[str]:
    """What a loop of ours says, whose server answers so, one after the other, and then ends the loop."""
    room, said, coming = ModuleType("room"), list[str](), iter(answers)
    ask_on(room, said.append)

    async def workload() -> None:
        answer = next(coming, asyncio.CancelledError())
        if answer is not None:
            raise answer

    asyncio.run(room.critical_service_loop(workload=workload, interval=0.0, run_once=False, jitter_range=0.3))
    return said


def test_a_server_that_is_away_is_asked_on_and_each_absence_is_said_once() -> None:
    gone = httpx.ConnectError("refused")
    assert told(None, None) == []
    first, back, second = told(gone, gone, gone, gone, status(503), None, None, httpx.ReadTimeout("slow"))
    assert first.startswith("Prefect's server does not answer (ConnectError): runs that are going on go on")
    assert back == "Prefect's server answers again"
    assert "(ReadTimeout)" in second
    with pytest.raises(httpx.HTTPStatusError):  # what it refuses is no absence
        told(status(401))


def test_prefect_has_its_loops_where_they_are_replaced() -> None:
    from prefect._internal import observers
    from prefect.concurrency import _leases
    from prefect.runner import _scheduled_run_poller

    for room in (observers, _scheduled_run_poller):
        assert callable(room.critical_service_loop)
    assert callable(_leases._renew_concurrency_lease_with_retries)


@pytest.mark.parametrize(
    ("logger", "error", "told"),
    [
        (
            "runner.state_proposer",
            httpx.ConnectError("All attempts failed\nmore"),
            "no (ConnectError: All attempts failed)",
        ),
        ("flow_runs", httpx.ReadTimeout("slow"), "no (ReadTimeout: slow)"),
        ("FlowRunSuspendingObserver", ConnectionRefusedError(111, "no"), "no (ConnectionRefusedError: [Errno 111] no)"),
        ("flow_runs", ServiceUnavailable("It is gone."), "service-unavailable: It is gone."),
        ("flow_runs", FileNotFoundError("mine.npy"), None),
        ("runner", ValueError("mine"), None),
        ("engine", ServiceUnavailable("It is gone."), ""),  # the flow's log has said it
    ],
)
def test_of_what_is_known_the_log_has_a_line_and_of_the_rest_a_traceback(
    logger: str, error: Exception, told: str | None
) -> None:
    tell_in_one_line()
    lines: list[str] = []

    class Hears(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    found, hears = logging.getLogger(f"prefect.{logger}"), Hears()
    found.addHandler(hears)
    try:
        try:
            raise error
        except type(error):
            found.error("%s", "no", exc_info=sys.exc_info(), extra={"send_to_api": False})
    finally:
        found.removeHandler(hears)
    if told is None:
        assert "Traceback" in lines[0]
    else:
        assert lines == ([told] if told else [])


def test_what_prefect_does_at_its_end_still_goes_by_the_name_that_is_replaced() -> None:
    """By its source: the attribute itself is there once we have put it there."""
    source = inspect.getsource(services)
    assert "_register_atexit(self._at_exit)" in source
    assert "def _at_exit(self) -> None:" in source
