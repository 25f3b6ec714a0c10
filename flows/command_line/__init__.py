"""The command line ``diffatlas``. Thin: every command reads, calls one function, and shows.

What is meant for eyes goes to stderr or is a table; ``--json`` and ``--format`` print one document
on stdout and nothing else. Exit codes: 0 all good; 1 the run ended with failed points; 2 the input
is wrong; 3 the store or a service is unavailable; 130 interrupted.
"""

import gc

from flows.command_line import run as _run

# isort: split
from flows.command_line import grow as _grow

# isort: split
from flows.command_line import query as _query

# isort: split
from flows.command_line import explore as _explore

# isort: split
from flows.command_line import figure as _figure

# isort: split
from flows.command_line import check as _check

# isort: split
from flows.command_line import history as _history

# isort: split
from flows.command_line import status as _status

# isort: split
from flows.command_line import backup as _backup

# isort: split
from flows.command_line import doctor as _doctor
from flows.command_line.options import app

__all__ = ["app", "main"]
COMMANDS = (
    _run,
    _grow,
    _query,
    _explore,
    _figure,
    _check,
    _history,
    _status,
    _backup,
    _doctor,
)  # their import registers the commands, in the order of --help


def main() -> None:
    """Entry point of the console script."""
    gc.set_threshold(50_000, 20, 20)  # imports make many objects and no garbage: looking for it took a tenth of a start
    app()
