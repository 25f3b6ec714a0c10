"""Places where a test may end the process as a power cut would. Without its environment variable
this does nothing.

``DIFFATLAS_FAILPOINT=commit.before`` kills the process with SIGKILL when it first comes to that
place, ``DIFFATLAS_FAILPOINT=write.array:3`` when it comes there for the third time. At places that
stand for an error it is raised instead, ``train.memory:1,5`` at the first time and at the fifth.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "DIFFATLAS_FAILPOINT"

FAILPOINTS = (
    "lock.taken",  # the lock is held, nothing else is done
    "lock.released",  # after the last commit, the lock is given back
    "create.before-commit",  # the repository exists, the layout is not committed
    "create.after-commit",
    "migrate.before-commit",
    "migrate.after-commit",
    "train.begin",  # the data are drawn, no network is trained
    "train.middle",  # about half of the training steps are done
    "train.end",  # a stack is trained, its weights are not committed
    "sweep.begin",  # weights are committed, no question is asked
    "sweep.end",  # every question is answered, no answer is committed
    "write.begin",  # a transaction is open, nothing is written
    "write.array",  # before each array of a transaction
    "commit.before",  # all arrays are written, the commit is not
    "commit.after",  # committed, and the coordinator does not know it yet
    "gc.before-expire",
    "gc.before-collect",  # snapshots are expired, their files still lie there
    "gc.after-collect",
    "export",  # the new file is whole, and not in its place
)

RAISING = (
    "train.memory",  # the GPU's memory runs out between two steps of training
    "sweep.memory",  # the same between two states of a sampler
)

passed: Counter[str] = Counter()
"""How often each place was come to since the variable was set, whichever place it names."""


def failpoint(name: str, error: type[BaseException] | None = None) -> None:
    """End this process here if the environment asks for it, or raise an error that the place stands
    for.
    """
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    passed[name] += 1
    place, _, counts = wanted.partition(":")
    if place == name and str(passed[name]) in (counts or "1").split(","):
        if error is not None:
            raise error(f"failpoint {name}")
        os.kill(os.getpid(), signal.SIGKILL)
