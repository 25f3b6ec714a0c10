"""Parts of a shard done apart: in processes that may end in any way, and are watched.

Whoever watches learns what no library tells: the exit status or the signal, what was answered
before, where it hung, and the end of what it said.
"""

from __future__ import annotations

import os
import pickle
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

from tasks.work.answers import Progress, SweepAnswer, TrainingAnswer
from tasks.work.child import ANSWERS, LENGTH, LOG, WORK, Heard, SweepPart, TrainingPart

_PREFIX = "diffatlas-apart-"
_POLL_SECONDS = 0.1
_LOG_LETTERS = 300  # of its end, in a reason
_LINES = 3
_LAST_SECONDS = 0.5  # to say where it is, or to answer after all


class Apart:
    """Does one part after the other, each in a process of its own. A context."""

    def __enter__(self) -> Self:
        run = os.environ.get("DIFFATLAS_RUN", "")  # the folder of a run on this machine: what lies in it goes with it
        place = run if run and Path(run).is_dir() else tempfile.gettempdir()
        _remove_abandoned(Path(place))
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_namespace()}-{os.getpid()}-", dir=place))
        self._parts = 0
        path = os.pathsep.join(entry for entry in sys.path if entry)  # own modules are found as they are here
        self._server = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, "-m", "tasks.work.child", str(self._folder)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # a line that is read takes no other with it, which `select` would then wait for
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()  # its child ends with it
        self._server.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def do(
        self, work: TrainingPart | SweepPart, limit: Callable[[], float], progress: Progress, heard: Heard
    ) -> str | None:
        """Do a part; None if it was done, else why not.

        Args:
            work: what is to be done.
            limit: how long its next answer may take, in seconds.
            progress: is told of work done.
            heard: is handed each answer as it comes.
        """
        self._parts += 1
        folder = self._folder / str(self._parts)
        folder.mkdir()
        (folder / WORK).write_bytes(pickle.dumps(work))
        (folder / ANSWERS).touch()
        assert self._server.stdin is not None  # noqa: S101 - a pipe
        assert self._server.stdout is not None  # noqa: S101 - as above
        self._server.stdin.write(f"{folder}\n".encode())
        pid = int(self._server.stdout.readline())
        since, asked, over = time.monotonic(), 0.0, 0.0
        with (folder / ANSWERS).open("rb") as answers, selectors.DefaultSelector() as ended:
            ended.register(self._server.stdout, selectors.EVENT_READ)
            while True:
                gone = bool(ended.select(_POLL_SECONDS))
                while (message := _message(answers)) is not None:
                    if isinstance(message, TrainingAnswer | SweepAnswer):
                        heard(message)
                        since, asked = time.monotonic(), 0.0
                    else:
                        progress(*message)
                if gone:
                    break
                late = time.monotonic() - since > limit()
                if late and not asked:
                    asked = time.monotonic()
                    _send(pid, signal.SIGUSR1)  # where it is
                elif late and not over and time.monotonic() - asked > _LAST_SECONDS:
                    over = limit()
                    _send(pid, signal.SIGKILL)
        status = int(self._server.stdout.readline())
        reason = None if status == 0 else _reason(status, over, folder / LOG)
        shutil.rmtree(folder)
        return reason


def _namespace() -> int:
    """The number of the namespace in which this process has its id; 0 where it is unknowable."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _remove_abandoned(place: Path) -> None:
    """Remove the folders of workers that were killed, and with them whoever would remove these."""
    for folder in place.glob(f"{_PREFIX}{_namespace()}-*-*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[1]
        if _namespace() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)  # somebody else's stays


def _send(pid: int, what: signal.Signals) -> None:
    """Signal a child that may have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, what)


def _message(answers: BufferedReader) -> Any:
    """The next one, if the whole of it is there."""
    start = answers.tell()
    length = int.from_bytes(answers.read(LENGTH), "big")
    content = answers.read(length) if length else b""
    if not length or len(content) < length:
        answers.seek(start)
        return None
    return pickle.loads(content)  # noqa: S301 - of our own process


def _reason(status: int, over: float, log: Path) -> str:
    """Why a process gave no answer, with the end of its log."""
    if over:
        how = f"no answer within {over:.0f} s, its limit"
    elif status < 0:
        how = f"ended by {signal.Signals(-status).name}"
        how += ", as the system does when memory runs out" if -status == signal.SIGKILL else ""
    else:
        how = f"exit status {status}"
    said = _end_of(log)
    return f"the worker ended without an answer ({how}{'; its log ends: ' + said if said else ''})"


def _end_of(log: Path) -> str:
    """The last lines of a log as one; of a dump of Python's stack its innermost lines, which come
    first.
    """
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    dumps = [number for number, line in enumerate(lines) if line.endswith("(most recent call first):")]
    if dumps:
        lines = [*lines[max(0, dumps[-1] - 1) : dumps[-1]], *lines[dumps[-1] + 1 : dumps[-1] + 1 + _LINES]][:_LINES]
    text = " / ".join(lines[-_LINES:])
    if len(text) <= _LOG_LETTERS:
        return text
    return f"{text[:_LOG_LETTERS]} ..." if dumps else f"... {text[-_LOG_LETTERS:]}"
