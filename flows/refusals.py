"""Errors of ours in Prefect's log: one line that says what to do, where Prefect would show the
traceback of its engine.
"""

from __future__ import annotations

import logging

from diffusion.errors import DiffatlasError


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


_IN_ONE_LINE, _SAID_ALREADY = _InOneLine(), _SaidAlready()  # adding one twice does nothing


def tell_in_one_line() -> None:
    """Have this process's Prefect log refusals so; Prefect's own loggers have to be there."""
    logging.getLogger("prefect.flow_runs").addFilter(_IN_ONE_LINE)
    logging.getLogger("prefect.engine").addFilter(_SAID_ALREADY)
