"""A process that does parts of a shard in children of its own, for one that watches them:
`tasks.work.apart`.

It imports what the work needs, once, and forks for each part, so that a child is there at once. A
part lies in a folder: what to do in `work`; the child writes to `answers` what it finds, as it
finds it, and to `log` what it says. On stdin come folders, on stdout go the child's process id and
how it ended.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.plan import Shard
from tasks.work.answers import Progress, Requests, SweepAnswer, TrainingAnswer
from tasks.work.data import data_key, training_sets
from tasks.work.shard import sweep_parts, train_shard

WORK, ANSWERS, LOG = "work", "answers", "log"
LENGTH = 8  # bytes before each message that say how long it is

Heard = Callable[[TrainingAnswer | SweepAnswer], None]


@dataclass(frozen=True)
class TrainingPart:
    """Train the cells of a shard, on data that are made here."""

    shard: Shard
    device: str

    def do(self, progress: Progress, heard: Heard) -> None:
        """Tell the answer."""
        cells = {data_key(job.cell): job.cell for job in self.shard.jobs if job.train}
        heard(train_shard(self.shard, training_sets(cells), progress, self.device))


@dataclass(frozen=True)
class SweepPart:
    """Ask the questions of a shard."""

    shard: Shard
    weights: Mapping[str, bytes]
    requests: Requests
    device: str

    def do(self, progress: Progress, heard: Heard) -> None:
        """Tell the answer to each question when it is there."""
        for part in sweep_parts(self.shard, self.weights, self.requests, progress, self.device):
            heard(part)


def main(folder: Path) -> None:
    """Serve until whoever watches is gone; then remove the folder of all parts."""

    def leave(*_: object) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)  # the child ends with this process

    signal.signal(signal.SIGTERM, leave)
    ends_with_its_parent(signal.SIGTERM)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a child that is asked where it is before it listens does not end
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _work(Path(line.rstrip("\n")))
        print(pid, flush=True)  # noqa: T201 - for whoever watches
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)  # noqa: T201 - as above
    shutil.rmtree(folder, ignore_errors=True)


def ends_with_its_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have the system send this process a signal when its parent is gone, where the system can."""
    try:
        ctypes.CDLL(None).prctl(1, by)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return


def _work(folder: Path) -> None:
    """What a child does; it ends here, with 0 if everything is answered."""
    status = 1
    try:
        ends_with_its_parent()
        log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1, all_threads=False)  # asks where it is
        work: TrainingPart | SweepPart = pickle.loads((folder / WORK).read_bytes())  # noqa: S301 - of the one that watches
        with (folder / ANSWERS).open("wb") as answers:

            def tell(message: object) -> None:
                content = pickle.dumps(message)
                answers.write(len(content).to_bytes(LENGTH, "big") + content)
                answers.flush()

            work.do(lambda *done: tell(done), tell)
        status = 0
    except BaseException:  # noqa: BLE001 - it has no one to raise it to
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
