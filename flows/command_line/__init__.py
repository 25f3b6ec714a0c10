"""The command line ``diffatlas``. Thin: every command reads, calls one function, and shows.

What is meant for eyes goes to stderr or is a table; ``--json`` and ``--format`` print one document on stdout and nothing else.
Exit codes: 0 all good; 1 the run ended with failed points; 2 the input is wrong; 3 the store or a service is unavailable;
130 interrupted.
"""

from flows.command_line import running as _running

# isort: split
from flows.command_line import asking as _asking

# isort: split
from flows.command_line import keeping as _keeping
from flows.command_line.options import app

__all__ = ["app", "main"]
COMMANDS = (_running, _asking, _keeping)  # their import registers the commands, in the order of --help


def main() -> None:
    """Entry point of the console script."""
    app()
