"""What a killed run leaves behind: how its processes are marked, found and ended.

On SIGKILL all of Ray's daemons end by themselves within three seconds but two agents, and they
cannot learn that we are gone. So what we start is marked, and `end_orphans` finds it. The mark is
an environment variable *and* open files in the run's own folder, since the agents overwrite their
environment when they change their title. A process is ended only if it carries the mark of a run of
ours and that run's process (id and start time, in the same PID namespace) is gone.
"""

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flows.services.signals import signals_deferred

STOP_SECONDS = 5.0
"""How long a service may take to end by itself before it is ended."""

MARK = "DIFFATLAS_RUN"
"""Environment variable of the processes we start: the folder of the run they belong to."""

RUN_PREFIX = "diffatlas-"


def short_temporary_directory() -> Path:
    """`/tmp` where possible: the path of a Unix socket has 107 bytes, and Ray appends 68 to the
    folder it is given.
    """
    plain = Path("/tmp")  # noqa: S108 - folders in it are made by mkdtemp, for us alone
    return plain if plain.is_dir() and os.access(plain, os.W_OK) else Path(tempfile.gettempdir())


def start_of(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; None if it is gone, a zombie, or
    unknowable.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def pid_namespace() -> str | None:
    """Return the namespace in which this process has its id; None where it is unknowable."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


@contextmanager
def run_folder() -> Iterator[Path]:
    """Yield a temporary folder that names its owner, so that a later run can tell whether the owner
    is gone.
    """
    folder = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=short_temporary_directory()))
    try:
        owner = {"pid": os.getpid(), "start": start_of(os.getpid()), "namespace": pid_namespace()}
        (folder / "owner.json").write_text(json.dumps(owner))
        yield folder
    finally:
        with signals_deferred():
            _end_processes_of(folder, STOP_SECONDS)
            shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(folder: Path) -> bool:
    """Whether a run folder is ours and its owner is certainly gone; in doubt (another container) it
    is not.
    """
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False
        owner = json.loads((folder / "owner.json").read_text())
        pid, start, namespace = int(owner["pid"]), owner["start"], owner["namespace"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return namespace is not None and namespace == pid_namespace() and start != start_of(pid)


def _belongs_to(pid: int, folder: Path) -> bool:
    """Whether a process carries the mark of a run: our environment variable, or a file open in the
    run's folder.
    """
    process = Path(f"/proc/{pid}")
    try:
        if f"{MARK}={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
            return True
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        with suppress(OSError):
            if str(descriptor.readlink()).startswith(f"{folder}/"):
                return True
    return False


def processes_of(folder: Path) -> list[int]:
    """Return the processes that belong to a run, without ourselves. Empty where there is no /proc."""
    try:
        names = [entry.name for entry in Path("/proc").iterdir()]
    except OSError:
        return []
    pids = [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]
    return [pid for pid in pids if start_of(pid) is not None and _belongs_to(pid, folder)]


def _end_processes_of(folder: Path, grace: float) -> list[int]:
    """Wait `grace` seconds for a run's processes to end, then end the rest; return those that had
    to be ended.

    Each is held by a handle and looked at again before the signal, so that a number given anew is
    never hit.
    """
    deadline = time.monotonic() + grace
    while (remaining := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    ended: list[int] = []
    deadline = time.monotonic() + STOP_SECONDS
    while remaining and time.monotonic() < deadline:
        for pid in remaining:
            with suppress(ProcessLookupError), _process_handle(pid) as handle:
                if _belongs_to(pid, folder):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    ended.append(pid)
        time.sleep(0.05)
        remaining = processes_of(folder)
    return sorted(set(ended))


@contextmanager
def _process_handle(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def end_orphans() -> list[int]:
    """End what earlier runs of this user left behind when they were killed, and remove their
    folders.

    Returns the processes ended. Runs before every start of a service; does nothing where there is
    no /proc (macOS).
    """
    ended: list[int] = []
    for folder in short_temporary_directory().glob(f"{RUN_PREFIX}*"):
        if is_abandoned(folder):
            ended += _end_processes_of(folder, grace=0.0)
            shutil.rmtree(folder, ignore_errors=True)
    return ended
