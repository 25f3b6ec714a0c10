"""What Prefect has queued for its server: log lines, and events, of which it makes the states of
task runs. Delivered while somebody waits for it, and then given up.

Prefect itself delivers it when the interpreter ends. A temporary server of ours is gone by then,
and for one that does not answer the interpreter would wait for minutes.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.services.signals import signals_deferred


def deliver(seconds: float) -> bool:
    """Send what is queued, for as long as that; whether all of it was sent."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    deadline = time.monotonic() + seconds
    unsent = 0
    for queue in (EventsWorker, APILogWorker):
        answer: Any = queue.drain_all(timeout=max(deadline - time.monotonic(), 0.1))
        unsent += len(answer[1])
    return not unsent


def _critical(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.CRITICAL


@contextmanager
def delivered(seconds: float) -> Iterator[None]:
    """Deliver at the end of a block what is queued, for as long as that, and drop the rest.

    What cannot be sent is not told on stderr, where Prefect would tell it line by line.
    """
    from prefect._internal.concurrency import services

    active: Any = services._active_services  # noqa: SLF001 - there is no other way to give up
    logging.raiseExceptions, before = False, logging.raiseExceptions
    _quiet()
    try:
        yield
    finally:
        with signals_deferred():
            queues = list(active)
            if deliver(seconds):
                logging.raiseExceptions = before
            else:
                for queue in queues:
                    _give_up(queue)


def deliver_at_exit(seconds: float) -> None:
    """The same for a process of a run that Prefect starts, which has no such block: when its
    interpreter ends it waits no longer than that for each queue.
    """
    from prefect._internal.concurrency import services

    def leave(queue: Any) -> None:
        try:
            queue._drain(at_exit=True).result(seconds)  # noqa: SLF001 - there is no other way
        except TimeoutError:
            _give_up(queue)

    place: Any = services._QueueServiceBase  # noqa: SLF001 - as above
    place._at_exit = leave  # noqa: SLF001
    _quiet()


def _quiet() -> None:
    for name in ("EventsWorker", "APILogWorker", "prefect._internal.concurrency"):
        logging.getLogger(name).addFilter(_critical)  # its level Prefect sets anew when a flow begins


def _give_up(queue: Any) -> None:
    if queue._loop is not None and queue._done_event is not None:  # noqa: SLF001 - there is no other way
        queue._loop.call_soon_threadsafe(queue._done_event.set)  # noqa: SLF001
