"""The two services a run needs, Prefect's API and Ray, found or started and never left behind.

A run starts nothing that is already there: a configured Prefect server or Ray cluster is used as it is, after a check
that it answers. Otherwise one temporary Prefect server and one local Ray are started, both on 127.0.0.1 only, and they
end with us, whatever ends us:

| what happens to us      | the server                               | Ray                                           |
|-------------------------|------------------------------------------|-----------------------------------------------|
| return, exception       | stopped in `finally`                     | `ray.shutdown()` in `finally`, the rest ended |
| SIGINT, SIGTERM, SIGHUP | the same, see `terminate_as_interrupt`   | the same                                      |
| SIGKILL, out of memory  | sees a pipe close and ends within 2 s    | the next start ends what is left of it        |

A pipe and not `PR_SET_PDEATHSIG` tells the server that we are gone: the signal is sent when the *thread* that started
the child ends, is lost when we die before the child asked for it, and exists on Linux only. A closing pipe has none of
these gaps; against a forked child of ours that keeps the other end open, the server also watches its parent's id.

Ray's daemons cannot be told anything of the kind. On SIGKILL all of them end by themselves within three seconds but two
agents, so what we start is marked, and `end_orphans` finds it. The mark is an environment variable *and* open files in
the run's own folder, since the agents overwrite their environment when they change their title. A process is ended only
if it carries the mark of a run of ours and that run's process (id and start time, in the same PID namespace) is gone.

Neither `prefect` nor `ray` is imported with this module: both read their environment when imported, and
`quiet_environment` has to come first.
"""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import filelock
import platformdirs

__all__ = [
    "ServiceUnavailable",
    "Terminated",
    "end_orphans",
    "prefect_server",
    "quiet_environment",
    "ray_cluster",
    "terminate_as_interrupt",
]

SERVER_START_SECONDS = 90.0
"""The migrations of a fresh database take 5 s on a calm machine and half a minute on a loaded one."""

ANSWER_SECONDS = 10.0
"""How long a configured service may take to answer before we call it unavailable."""

STOP_SECONDS = 5.0
"""How long a service may take to end by itself before it is ended."""

OBJECT_STORE_BYTES = 512 * 2**20
"""Shards return metrics and a few samples; Ray's default is 30 % of the machine's memory."""

MARK = "DIFFATLAS_RUN"
"""Environment variable of the processes we start: the folder of the run they belong to."""

RUN_PREFIX = "diffatlas-"

QUIET_ENVIRONMENT: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    # Only the console handler: the level of the loggers stays, so that the API receives every line.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": "1",  # without a limit, a shard that does not fit into memory is tried for ever
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "GRPC_VERBOSITY": "NONE",
    "ICECHUNK_LOG": "error",
}
"""What keeps Prefect, Ray and Icechunk offline and off the console."""

ONE_THREAD: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""One worker, one thread: results then do not depend on how cells are packed, and n workers keep n cores busy."""

_SERVER_PROGRAM = """
import os, select, signal, socket, sys, threading, time

parent, descriptor = int(sys.argv[1]), int(sys.argv[2])

def outlive_nobody():
    while os.getppid() == parent:
        if select.select([0], [], [], 1.0)[0] and not os.read(0, 1):
            break
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(2.0)
    os._exit(1)

threading.Thread(target=outlive_nobody, daemon=True).start()
import uvicorn

config = uvicorn.Config(
    "prefect.server.api.server:create_app", factory=True, lifespan="on", log_level="error", timeout_graceful_shutdown=1
)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])
"""


class ServiceUnavailable(RuntimeError):
    """A service that the run needs does not answer or does not start; the text says what to do."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised in the main thread so that every `finally` runs as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def quiet_environment() -> None:
    """Keep Prefect, Ray and Icechunk offline and quiet; call it before the first `import prefect` or `import ray`.

    A variable that is already set wins: whoever debugs may ask for the noise. Prefect's log lines leave the console,
    where our own progress is shown, but still reach its API.
    """
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


# Signals


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Terminated`, a `KeyboardInterrupt`, until the block ends.

    A signal that is ignored stays ignored (`nohup`). Outside the main thread nothing can be handled, and nothing is.
    """

    def handler(number: int, _frame: FrameType | None) -> None:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Hold signals back while something is taken down, so that a second Ctrl-C does not leave half of it behind.

    What is done inside is bounded in time. The first signal that came is delivered afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, previous in before.items():
        if previous is not signal.SIG_IGN:
            signal.signal(number, lambda received, _frame: arrived.append(received))
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Undo what `ray.init` does to SIGTERM.

    It installs a handler that calls `sys.exit(15)`, and its C++ part one that prints a stack trace. A signal that
    arrives meanwhile is handed to the handler that was in force.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as exit_:
        if exit_.code == signal.SIGTERM and callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


# The environment and the folder of a run


@contextmanager
def _environment(updates: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the duration of a block and put back what was there."""
    before = {name: os.environ.get(name) for name in updates}
    os.environ.update(updates)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _home() -> Path:
    configured = os.environ.get("DIFFATLAS_HOME")
    return Path(configured).expanduser().absolute() if configured else platformdirs.user_cache_path("diffatlas")


def _short_temporary_directory() -> Path:
    """`/tmp` where possible: the path of a Unix socket has 107 bytes, and Ray appends 68 to the folder it is given."""
    plain = Path("/tmp")  # noqa: S108 - folders in it are made by mkdtemp, for us alone
    return plain if plain.is_dir() and os.access(plain, os.W_OK) else Path(tempfile.gettempdir())


def _start_of(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; None if it is gone, a zombie, or unknowable."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


@contextmanager
def _run_folder() -> Iterator[Path]:
    """Yield a temporary folder that names its owner, so that a later run can tell whether the owner is gone."""
    folder = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=_short_temporary_directory()))
    try:
        owner = {"pid": os.getpid(), "start": _start_of(os.getpid()), "namespace": _pid_namespace()}
        (folder / "owner.json").write_text(json.dumps(owner))
        yield folder
    finally:
        with _signals_deferred():
            _end_processes_of(folder, STOP_SECONDS)
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether a run folder is ours and its owner is certainly gone; in doubt (another container) it is not."""
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False
        owner = json.loads((folder / "owner.json").read_text())
        pid, start, namespace = int(owner["pid"]), owner["start"], owner["namespace"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return namespace is not None and namespace == _pid_namespace() and start != _start_of(pid)


def _belongs_to(pid: int, folder: Path) -> bool:
    """Whether a process carries the mark of a run: our environment variable, or a file open in the run's folder."""
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


def _processes_of(folder: Path) -> list[int]:
    """Return the processes that belong to a run, without ourselves. Empty where there is no /proc."""
    try:
        names = [entry.name for entry in Path("/proc").iterdir()]
    except OSError:
        return []
    pids = [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]
    return [pid for pid in pids if _start_of(pid) is not None and _belongs_to(pid, folder)]


def _end_processes_of(folder: Path, grace: float) -> list[int]:
    """Wait `grace` seconds for a run's processes to end, then end the rest; return those that had to be ended.

    Each is held by a handle and looked at again before the signal, so that a number given anew is never hit.
    """
    deadline = time.monotonic() + grace
    while (remaining := _processes_of(folder)) and time.monotonic() < deadline:
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
        remaining = _processes_of(folder)
    return sorted(set(ended))


@contextmanager
def _process_handle(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def end_orphans() -> list[int]:
    """End what earlier runs of this user left behind when they were killed, and remove their folders.

    Returns the processes ended. Runs before every start of a service; does nothing where there is no /proc (macOS).
    """
    ended: list[int] = []
    for folder in _short_temporary_directory().glob(f"{RUN_PREFIX}*"):
        if _is_abandoned(folder):
            ended += _end_processes_of(folder, grace=0.0)
            shutil.rmtree(folder, ignore_errors=True)
    return ended


# Prefect


@contextmanager
def prefect_server() -> Iterator[str]:
    """Yield the URL of a Prefect API that answers; start a temporary server if none is configured.

    `PREFECT_API_URL` or the active Prefect profile names one: it is used, never started or stopped. Otherwise exactly
    one server starts on 127.0.0.1, on a port of the system's choice, with the database
    `<home>/prefect/<Prefect's version>/prefect.db` (home: `DIFFATLAS_HOME`, or the user's cache folder), so that
    migrations are paid once and the history of runs stays. Two versions of Prefect do not share a database, because the
    older could not open what the newer has migrated.

    The database belongs to one run at a time, by a lock that the kernel releases. A run that finds it taken gets an
    empty one of its own in a temporary folder, deleted with the run. It does not share the other run's server, which
    may end first. Nothing is lost by that: what is done is known from our store, not from Prefect's history.

    The temporary server has no web pages and no authentication: any user of this machine can reach it. For either,
    start a server of your own (`prefect server start`) and set `PREFECT_API_URL`.

    For the duration, the URL is in `os.environ` and in Prefect's settings.

    Raises:
        ServiceUnavailable: the configured server does not answer, or the temporary one does not start.
    """
    quiet_environment()
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings

    configured = PREFECT_API_URL.value() or os.environ.get("PREFECT_API_URL")
    with ExitStack() as stack:
        url = configured or stack.enter_context(_temporary_server())
        updates = {"PREFECT_API_URL": url}
        if configured is None:
            updates |= _without_proxy("127.0.0.1")
        stack.enter_context(_environment(updates))
        stack.enter_context(
            temporary_settings(updates={PREFECT_API_URL: url, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False})
        )
        if configured is None:
            stack.callback(_deliver_logs_and_events)
        else:
            _check_configured_server(url)
        yield url


def _without_proxy(host: str) -> dict[str, str]:
    """Return the variables that keep requests to `host` from going through a configured proxy."""
    names = ("no_proxy", "NO_PROXY")
    return {name: ",".join(filter(None, (os.environ.get(name), host))) for name in names}


def _deliver_logs_and_events() -> None:
    """Send what Prefect has queued while its server is still there.

    Prefect would do so when the interpreter ends, when our server is gone: the last lines and states would be lost,
    with a complaint on stderr, after more than a minute of attempts.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    with _signals_deferred():
        EventsWorker.drain_all(timeout=STOP_SECONDS)
        APILogWorker.drain_all(timeout=STOP_SECONDS)


def _check_configured_server(url: str) -> None:
    """Ask the configured server for its health, with the authentication and certificates of Prefect's own client."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, temporary_settings

    error: Exception | None
    with temporary_settings(updates={PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS}):
        try:
            with get_client(sync_client=True) as client:
                error = client.api_healthcheck()
        except Exception as raised:  # noqa: BLE001 - whatever the client could not do, the server is not usable
            error = raised
    if error is not None:
        raise ServiceUnavailable(
            f"The Prefect server at {url} does not answer ({type(error).__name__}: {error}). It is configured by "
            "PREFECT_API_URL or the active Prefect profile (`prefect config view`). Start it, correct the address, or "
            "unset it (`unset PREFECT_API_URL`, `prefect config unset PREFECT_API_URL`) to have a temporary server."
        )


@contextmanager
def _temporary_server() -> Iterator[str]:
    end_orphans()
    shared = _home() / "prefect" / version("prefect")
    with ExitStack() as stack:
        folder = shared
        try:
            shared.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(shared / "server.lock", blocking=False))
        except (filelock.Timeout, OSError):  # taken by another run, or a read-only home
            folder = stack.enter_context(_run_folder())
        log = folder / "server.log"
        process, url = _start_server(folder, log)
        try:
            _wait_until_healthy(process, url, log)
            yield url
        finally:
            with _signals_deferred():
                _stop_server(process)


def _start_server(home: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server in a session of its own: Ctrl-C is then ours, and the last states can still be recorded.

    We bind the socket and hand it over, so that no other process can take the port in between. Nothing of the user's
    Prefect configuration applies (a `PREFECT_SERVER_DATABASE_CONNECTION_URL` is meant for a server of their own).
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {name: value for name, value in QUIET_ENVIRONMENT.items() if name.startswith("PREFECT_")}
    environment |= {
        MARK: str(home),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT__SERVER_EPHEMERAL": "1",  # as Prefect starts its own: no scheduler, but task runs are recorded
        "PREFECT__SERVER_FINAL": "1",
    }
    with closing(socket.socket()) as listener, log.open("wb") as output:
        listener.bind(("127.0.0.1", 0))
        descriptor = listener.fileno()
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-c", _SERVER_PROGRAM, str(os.getpid()), str(descriptor)],
            stdin=subprocess.PIPE,  # never written to: it closes when we end, however we end
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[descriptor],
            start_new_session=True,
        )
        return process, f"http://127.0.0.1:{listener.getsockname()[1]}/api"


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + SERVER_START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), closing(direct.open(f"{url}/health", timeout=ANSWER_SECONDS)) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    reason = (
        f"did not answer within {SERVER_START_SECONDS:.0f} s"
        if process.poll() is None
        else f"ended with exit code {process.returncode} before it answered"
    )
    tail = "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-20:]) or "  (nothing)"
    raise ServiceUnavailable(
        f"The temporary Prefect server at {url} {reason}. Its database is {log.parent / 'prefect.db'}: if it is "
        f"damaged, delete it. Or start a server yourself (`prefect server start`) and set PREFECT_API_URL.\n"
        f"The end of {log}:\n{tail}"
    )


def _stop_server(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# Ray


@contextmanager
def ray_cluster(address: str | None, workers: int | None, environment: Mapping[str, str]) -> Iterator[str]:
    """Connect this process to Ray, and yield the address of its control service.

    With an `address` (`host:port`, `ray://host:port`, `auto`; or `RAY_ADDRESS`) the cluster there is used as it is, and
    `workers` says nothing about it. Without one (or with `local`) a Ray of our own starts, on loopback, with `workers`
    CPUs, by default the cores this process may use; nothing can join it, and it ends with the block.

    Workers compute with one thread each and have `environment` in theirs, as well as the present `PREFECT_API_URL`,
    without which each would start a Prefect server of its own: enter `prefect_server` first. A flow's `RayTaskRunner()`
    then uses this Ray.

    Locally the workers inherit the environment from the daemon. A runtime environment would do the same, but the
    workers that Ray starts in advance would not have it, and the first tasks would wait for others.

    Entered within a block of its own, it gives that block's Ray again: the studies of one command share it.

    Raises:
        ServiceUnavailable: nothing, or no Ray, at the address; Ray does not start; or the cluster has other machines,
            from which a Prefect server on 127.0.0.1 cannot be reached.
        RuntimeError: this process is connected to a Ray already.
    """
    if _held:
        yield _held[-1]
        return
    quiet_environment()
    import ray

    if ray.is_initialized():
        raise RuntimeError("This process is connected to a Ray already. Leave that one first (`ray.shutdown()`).")
    variables = {**ONE_THREAD, **environment}
    if url := os.environ.get("PREFECT_API_URL"):
        variables.setdefault("PREFECT_API_URL", url)
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    start = _local_ray(workers, variables) if target == "local" else _distant_ray(target, variables)
    with start as found:
        _held.append(found)
        try:
            yield found
        finally:
            _held.pop()


_held: list[str] = []
"""The address of the Ray that an open block of `ray_cluster` in this process holds."""


@contextmanager
def _local_ray(workers: int | None, variables: Mapping[str, str]) -> Iterator[str]:
    end_orphans()
    with _run_folder() as folder:
        try:
            # Also read by Ray's daemons, which is why it is set although `loopback` has been told.
            marked = {**variables, MARK: str(folder), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
            with _environment(marked), _loopback():
                found = _connect(
                    address="local",
                    num_cpus=_available_cores() if workers is None else workers,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(folder),
                    _node_ip_address="127.0.0.1",
                )
            yield found
        finally:
            _disconnect()


@contextmanager
def _distant_ray(address: str, variables: Mapping[str, str]) -> Iterator[str]:
    target = _resolved(address)
    _check_ray_answers(target, address)
    try:
        found = _connect(address=target, runtime_env={"env_vars": dict(variables)})
        _check_reachable_from_workers(variables.get("PREFECT_API_URL"))
        yield found
    finally:
        _disconnect()


def _available_cores() -> int:
    """Count the cores this process may use, which batch systems and containers restrict."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _loopback() -> Iterator[None]:
    """Keep a local Ray off the network also when `ray` was imported before we could set its environment variable."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _connect(**arguments: Any) -> str:
    import ray

    try:
        with _own_signal_handlers():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
            return str(ray.get_runtime_context().gcs_address)
    except (Exception, SystemExit) as error:  # Ray ends with SystemExit when its control service does not answer
        reasons: list[str] = []
        cause: BaseException | None = error
        while cause is not None:
            reasons.append(f"{type(cause).__name__}: {cause}")
            cause = cause.__cause__
        where = arguments["address"]
        if where == "local":
            raise ServiceUnavailable(f"A local Ray did not start. {'; '.join(reasons)}") from error
        raise ServiceUnavailable(
            f"The Ray cluster at {where} refused the connection. Does it want a token (RAY_AUTH_MODE=token, and "
            f"RAY_AUTH_TOKEN or ~/.ray/auth_token), and is it of our version of Ray? {'; '.join(reasons)}"
        ) from error


def _disconnect() -> None:
    import ray

    with _signals_deferred(), _own_signal_handlers():
        ray.shutdown()


def _resolved(address: str) -> str:
    """Return what Ray makes of an address: `auto` is looked up, and localhost becomes this machine's own address."""
    from ray._private import services

    if "://" in address:
        return address
    try:
        return str(services.canonicalize_bootstrap_address(address, None))
    except ConnectionError as error:
        raise ServiceUnavailable(
            "There is no running Ray on this machine to find with `auto`. Start one (`ray start --head`), give its "
            "address, or give none to have a local one."
        ) from error
    except ValueError as error:
        raise _no_address(address) from error


def _no_address(text: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"{text!r} is no address of a Ray cluster. Give host:port, ray://host:port or auto.")


def _check_ray_answers(address: str, given: str) -> None:
    """Say within seconds that there is no Ray at an address; `ray.init` takes two minutes and then ends the process.

    Both of Ray's ports speak gRPC, which is HTTP/2: the answer to its greeting starts with a SETTINGS frame (RFC 9113,
    3.4). With `RAY_USE_TLS` only the connection is tried.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port or (10001 if parts.scheme == "ray" else None)
    except ValueError:
        host = port = None
    if not host or port is None:
        raise _no_address(address)
    name = given if given == address else f"{given}, which is {address},"
    advice = "Start it (`ray start --head`), correct --ray or RAY_ADDRESS, or leave both out to have a local Ray."
    greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            connection.sendall(greeting)
            speaks = connection.makefile("rb").read(4)[3:] == b"\4"
    except OSError as error:
        raise ServiceUnavailable(f"No Ray cluster answers at {name} ({error}). {advice}") from error
    if not speaks:
        raise ServiceUnavailable(f"What answers at {name} is not Ray. {advice}")


def _check_reachable_from_workers(url: str | None) -> None:
    """Refuse a cluster whose other machines would look for the Prefect server on their own loopback interface."""
    import ray

    list_nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    if url is None or urlsplit(url).hostname not in {"127.0.0.1", "localhost", "::1"}:
        return
    nodes = {str(node["NodeManagerAddress"]) for node in list_nodes() if node["Alive"]}
    others = sorted(node for node in nodes if not _is_this_machine(node))
    if others:
        raise ServiceUnavailable(
            f"The Ray cluster has machines ({', '.join(others[:3])}) that cannot reach the Prefect server at {url}. "
            "Start one that they reach (`prefect server start --host 0.0.0.0`) and set PREFECT_API_URL to its address."
        )


def _is_this_machine(address: str) -> bool:
    """Whether an address belongs to an interface of this machine: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
