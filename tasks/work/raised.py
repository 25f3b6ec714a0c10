"""What the work of a stage raises, told apart from what a machine or a service does to it.

A class of the user's own may raise anything, also what Ray's or Prefect's client would raise, and
errors that cannot be sent from process to process. So whose fault an error is cannot be read off
its type: it is the work's if it was raised within the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.work.answers import reason_of


class WorkRaised(Exception):
    """What was computed has raised an error; the text says which, and where."""


@contextmanager
def of_the_work() -> Iterator[None]:
    """Raise what the block raises as `WorkRaised`, which can be sent to any process.

    A module that is not there stays what it is: whether a machine lacks it, or everybody, is only
    known elsewhere. So does the request to leave, by which Ray ends its workers.
    """
    try:
        yield
    except (ModuleNotFoundError, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is no answer
        raise WorkRaised(reason_of(error)) from None
