"""Errors of ours in Prefect's log, and a server that does not answer: one line that says what it is,
where Prefect would show tracebacks of its engine and of its client.
"""

from __future__ import annotations

import logging

from diffusion.errors import DiffatlasError

_OF_THE_WIRE = ("httpcore", "httpx", "websockets")  # packages
_MEET_THE_SERVER = (
    "FlowRunCancellingObserver",
    "FlowRunSuspendingObserver",
    "engine",
    "flow_runs",
    "runner",
    "runner.cancellation_manager",
    "runner.state_proposer",
)
"""Loggers of Prefect's that would show how its client has failed."""


class _InOneLine(logging.Filter):
    """Takes the traceback off the record of an error of ours, and leaves its message."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DiffatlasError):
            record.msg, record.args, record.exc_info = f"{error.kind}: {error}", (), None
        return True


class _SaidAlready(logging.Filter):
    """Drops the record of an error of ours: the log of the flow run has it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], DiffatlasError))


class _NoAnswer(logging.Filter):
    """Takes the traceback off the record of a server that cannot be reached, and says that it is."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in _OF_THE_WIRE:
            first = (str(error).splitlines() or [""])[0]
            record.msg, record.args = f"{record.getMessage()} ({type(error).__name__}: {first})", ()
            record.exc_info = record.exc_text = None
        return True


_IN_ONE_LINE, _SAID_ALREADY, _NO_ANSWER = _InOneLine(), _SaidAlready(), _NoAnswer()  # adding one twice does nothing


def tell_in_one_line() -> None:
    """Have this process's Prefect log refusals so; Prefect's own loggers have to be there."""
    logging.getLogger("prefect.flow_runs").addFilter(_IN_ONE_LINE)
    logging.getLogger("prefect.engine").addFilter(_SAID_ALREADY)
    for name in _MEET_THE_SERVER:
        logging.getLogger(f"prefect.{name}").addFilter(_NO_ANSWER)
