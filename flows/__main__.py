"""``python -m flows`` is ``diffatlas``."""

from flows.command_line import main

main()
