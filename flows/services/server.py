"""A Prefect API to report to: the configured server, or a temporary one on loopback that ends with
its block.

The temporary server ends with us, whatever ends us: it is stopped in `finally`, and after SIGKILL
it ends by itself (see `server_process`).

`prefect` is not imported with this module: it reads its environment when imported.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import filelock

from flows.services import server_process
from flows.services.database import DATABASE, TEMPLATE, begin_with, keep
from flows.services.environment import QUIET_ENVIRONMENT, quiet_environment, temporary_environment
from flows.services.errors import ANSWER_SECONDS, ServiceUnavailable
from flows.services.orphans import MARK, STOP_SECONDS, end_orphans, run_folder
from flows.services.queues import delivered
from flows.services.signals import signals_deferred
from tasks.home import home

DELIVERY_SECONDS = 15.0
"""How long a run waits at its end for a configured server to take what is queued for it."""

SERVER_START_SECONDS = 90.0
"""The migrations of a fresh database take 5 s on a calm machine and half a minute on a loaded one.
"""


def _nothing() -> None:
    """There is nothing to do while a server starts."""


_UNUSED = (
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED",  # automations
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED",  # the feed of events; task runs are recorded from them all the same
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED",  # the same and logs, live, to web pages
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED",
)
"""What a server without web pages does for nobody."""


@contextmanager
def prefect_server(meanwhile: Callable[[], object] = _nothing) -> Iterator[str]:
    """Yield the URL of a Prefect API that answers; start a temporary server if none is configured.

    `PREFECT_API_URL` or the active Prefect profile names one: it is used, never started or stopped.
    Otherwise exactly one server starts on 127.0.0.1, on a port of the system's choice, with the
    database `<home>/prefect/<Prefect's version>/prefect.db` (home: `DIFFATLAS_HOME`, or the user's
    cache folder), so that migrations are paid once and the history of runs stays; as it was before
    the first run it is kept beside it as `template.db`, which other ones begin with. Two versions of
    Prefect do not share a database, because the older could not open what the newer has migrated.

    The database belongs to one run at a time, by a lock that the kernel releases. A run that finds
    it taken gets an empty one of its own in a temporary folder, deleted with the run. It does not
    share the other run's server, which may end first. Nothing is lost by that: what is done is
    known from our store, not from Prefect's history.

    The temporary server has no web pages and no authentication: any user of this machine can reach
    it. For either, start a server of your own (`prefect server start`) and set `PREFECT_API_URL`.

    `meanwhile` is done while a temporary server starts: what takes time, and needs no server.

    For the duration, the URL is in `os.environ` and in Prefect's settings.

    Raises:
        ServiceUnavailable: the configured server does not answer, or the temporary one does not
            start.
    """
    quiet_environment()
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings

    configured = PREFECT_API_URL.value() or os.environ.get("PREFECT_API_URL")
    with ExitStack() as stack:
        url = configured or stack.enter_context(_temporary_server(meanwhile))
        updates = {"PREFECT_API_URL": url}
        if configured is None:
            updates |= _without_proxy("127.0.0.1")
        stack.enter_context(temporary_environment(updates))
        stack.enter_context(
            temporary_settings(updates={PREFECT_API_URL: url, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False})
        )
        stack.enter_context(delivered(STOP_SECONDS if configured is None else DELIVERY_SECONDS))
        if configured is not None:
            check_configured_server(url)
        yield url


def _without_proxy(host: str) -> dict[str, str]:
    """Return the variables that keep requests to `host` from going through a configured proxy."""
    names = ("no_proxy", "NO_PROXY")
    return {name: ",".join(filter(None, (os.environ.get(name), host))) for name in names}


def check_configured_server(url: str) -> None:
    """Ask the configured server for its health, and for something that needs its authentication,
    with that and the certificates of Prefect's own client.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_REQUEST_TIMEOUT, temporary_settings

    error: Exception | None
    with temporary_settings(updates={PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS}):
        try:
            with get_client(sync_client=True) as client:
                error = client.api_healthcheck()
                if error is None:  # whom it answers that it is well, everybody may ask
                    client.hello()
        except Exception as raised:  # noqa: BLE001 - whatever the client could not do, the server is not usable
            error = raised
    if isinstance(error, PrefectHTTPStatusError) and error.response.status_code in (401, 403):
        lacking = "does not accept ours" if PREFECT_API_AUTH_STRING.value() else "wants one, and there is none here"
        raise ServiceUnavailable(
            f"The Prefect server at {url} is protected by an authentication string and {lacking}. Set that of its "
            "PREFECT_SERVER_API_AUTH_STRING here: `export PREFECT_API_AUTH_STRING=...`.",
            "export PREFECT_API_AUTH_STRING=...",
        )
    if error is not None:
        raise ServiceUnavailable(
            f"The Prefect server at {url} does not answer ({type(error).__name__}: {error}). It is configured by "
            "PREFECT_API_URL or the active Prefect profile (`prefect config view`). Start it, correct the address, or "
            "unset it (`unset PREFECT_API_URL`, `prefect config unset PREFECT_API_URL`) to have a temporary server."
        )


@contextmanager
def _temporary_server(meanwhile: Callable[[], object]) -> Iterator[str]:
    end_orphans()
    shared = home() / "prefect" / version("prefect")
    with ExitStack() as stack:
        folder = shared
        try:
            shared.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(shared / "server.lock", blocking=False))
        except (filelock.Timeout, OSError):  # taken by another run, or a read-only home
            folder = stack.enter_context(run_folder())
        log = folder / "server.log"
        migrated = begin_with(shared / TEMPLATE, folder / DATABASE)
        process, url = _start_server(folder, log)
        try:
            meanwhile()
            _wait_until_healthy(process, url, log)
            if not migrated:
                keep(folder / DATABASE, shared / TEMPLATE)
            yield url
        finally:
            with signals_deferred():
                _stop_server(process)


def _start_server(home: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server in a session of its own: Ctrl-C is then ours, and the last states can still
    be recorded.

    We bind the socket and hand it over, so that no other process can take the port in between.
    Nothing of the user's Prefect configuration applies (a `PREFECT_SERVER_DATABASE_CONNECTION_URL`
    is meant for a server of their own).
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {name: value for name, value in QUIET_ENVIRONMENT.items() if name.startswith("PREFECT_")}
    environment |= {
        MARK: str(home),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / DATABASE}",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT__SERVER_EPHEMERAL": "1",  # as Prefect starts its own: no scheduler, but task runs are recorded
        "PREFECT__SERVER_FINAL": "1",
        **dict.fromkeys(_UNUSED, "false"),
    }
    with closing(socket.socket()) as listener, log.open("wb") as output:
        listener.bind(("127.0.0.1", 0))
        descriptor = listener.fileno()
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-P", server_process.__file__, str(os.getpid()), str(descriptor)],
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
        f"The temporary Prefect server at {url} {reason}. Its database is {log.parent / DATABASE}: if it is "
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
