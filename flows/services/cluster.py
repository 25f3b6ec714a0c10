"""A Ray to compute on: a cluster that runs already, or a local one on loopback that ends with its
block.

A local Ray ends with `ray.shutdown()` in `finally`, and what is left of its processes is ended with
the run's folder. After SIGKILL its daemons end by themselves within three seconds, but for two
agents: see `orphans`.

`ray` is not imported with this module: it reads its environment when imported.
"""

import inspect
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from diffusion import plugins
from flows.services.environment import FOR_GPUS, ONE_THREAD, quiet_environment, temporary_environment
from flows.services.errors import ANSWER_SECONDS, ServiceUnavailable
from flows.services.orphans import MARK, end_orphans, run_folder
from flows.services.signals import own_signal_handlers, signals_deferred
from flows.services.token import check_token, own_token, token_found
from flows.services.trust import few_authorities

OBJECT_STORE_BYTES = 512 * 2**20
"""Shards return metrics and a few samples; Ray's default is 30 % of the machine's memory."""

HEAD_SECONDS = 20.0
"""How long a distant head may be away; Ray ends this process after a minute."""

_LOOK_SECONDS, _PROBE_SECONDS, _AGAIN_SECONDS = 5.0, 2.0, 0.5


@contextmanager
def ray_cluster(address: str | None, workers: int | None, environment: Mapping[str, str]) -> Iterator[str]:
    """Connect this process to Ray, and yield the address of its control service.

    With an `address` (`host:port`, `ray://host:port`, `auto`; or `RAY_ADDRESS`) the cluster there
    is used as it is, and `workers` says nothing about it. Without one (or with `local`) a Ray of
    our own starts, on loopback, with `workers` CPUs, by default the cores this process may use;
    nothing can join it, and it ends with the block.

    Workers compute with one thread each and have `environment` in theirs, as well as the present
    `PREFECT_API_URL`, without which each would start a Prefect server of its own: enter
    `prefect_server` first. A flow's `RayTaskRunner()` then uses this Ray.

    A cluster is sent the modules that studies name and that are not installed here
    (`diffusion.plugins.carried`).

    Locally the workers inherit the environment from the daemon. A runtime environment would do the
    same, but the workers that Ray starts in advance would not have it, and the first tasks would
    wait for others.

    Entered within a block of its own, it gives that block's Ray again: the studies of one command
    share it.

    Raises:
        ServiceUnavailable: nothing, or no Ray, at the address; Ray does not start; or the cluster
            has other machines, from which a Prefect server on 127.0.0.1 cannot be reached; or this
            process is connected to a Ray already.
    """
    if _held:
        yield _held[-1].address
        return
    quiet_environment()
    import ray

    if ray.is_initialized():
        raise ServiceUnavailable("This process is connected to a Ray already. Leave that one first (`ray.shutdown()`).")
    variables = {**ONE_THREAD, **FOR_GPUS, **environment}
    if url := os.environ.get("PREFECT_API_URL"):
        variables.setdefault("PREFECT_API_URL", url)
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    start = _local_ray(workers, variables) if target == "local" else _distant_ray(target, variables)
    with few_authorities() if target == "local" else nullcontext(), start as found:
        _held.append(_Held(found, ours=target == "local"))
        try:
            yield found
        finally:
            _held.pop()


@dataclass
class _Held:
    address: str
    ours: bool
    looked: float = 0.0
    missing_since: float | None = None


_held: list[_Held] = []
"""The Ray that an open block of `ray_cluster` in this process holds."""


def ray_is_ours() -> bool:
    """Whether the Ray of the open block of `ray_cluster` is a local one that the block has started."""
    return _held[-1].ours


def check_ray() -> None:
    """Look whether the head of the Ray of the open block still lives, and the daemon through which
    this process reaches it.

    Asked for while a run waits for its workers: Ray itself says nothing for a minute, and then ends
    this process. One of our own is known to be dead at once; a distant one that does not answer may
    be started again for `HEAD_SECONDS`, and is looked at every five seconds.

    Raises:
        ServiceUnavailable: it is gone.
    """
    held = _held[-1]
    if held.ours or time.monotonic() - held.looked >= _LOOK_SECONDS:
        _look(held)


def await_ray() -> None:
    """Wait until the head answers, if it does not.

    Asked for before anything is handed over: that would wait for the head within Ray, where nothing
    can be said any more when Ray ends this process.

    Raises:
        ServiceUnavailable: it is gone.
    """
    held = _held[-1]
    while not _look(held):
        time.sleep(_AGAIN_SECONDS)


def _look(held: _Held) -> bool:
    """Whether the daemons answer now; raises `ServiceUnavailable` if they have not for too long."""
    now = time.monotonic()
    dead = _dead_daemons() if held.ours else _silent_daemons(held.address)
    held.looked = now
    if not dead:
        held.missing_since = None
        return True
    held.missing_since = now if held.missing_since is None else held.missing_since
    if held.ours or now - held.missing_since >= HEAD_SECONDS:
        waited = "" if held.ours else f" for {now - held.missing_since:.0f} s"
        raise ServiceUnavailable(
            f"The head of the Ray cluster at {held.address} is gone ({dead}{waited}). What is committed stays; run the same "
            "command again to go on" + ("." if held.ours else ", when the cluster is there again.")
        )
    return False


def _dead_daemons() -> str:
    from ray._private.worker import global_worker

    node: Any = global_worker.node
    return ", ".join(f"{name} ended" for name, _ in node.dead_processes() if name in {"gcs_server", "raylet"})


def _silent_daemons(address: str) -> str:
    from ray._private.worker import global_worker

    host, _, port = address.rpartition(":")
    node: Any = global_worker.node  # None for a client (ray://), whose server looks after the rest
    places: dict[str, Any] = {f"{address} does not answer": (host.strip("[]"), int(port))} if node is not None else {}
    if node is not None:
        places["the raylet of this machine does not answer"] = node.raylet_socket_name.removeprefix("unix://")
    found = []
    for what, place in places.items():
        family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.settimeout(_PROBE_SECONDS)
            try:
                probe.connect(place)
            except OSError:
                found.append(what)
    return ", ".join(found)


@contextmanager
def _local_ray(workers: int | None, variables: Mapping[str, str]) -> Iterator[str]:
    end_orphans()
    with run_folder() as folder, own_token(folder):
        try:
            # Also read by Ray's daemons, which is why it is set although `loopback` is given.
            marked = {**variables, MARK: str(folder), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
            with temporary_environment(marked), _loopback(), _few_processes():
                found = _connect(
                    address="local",
                    num_cpus=_available_cores() if workers is None else workers,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(folder / "ray"),  # which Ray opens to everybody, so not the folder itself
                    _node_ip_address="127.0.0.1",
                )
            yield found
        finally:
            _disconnect()


@contextmanager
def _distant_ray(address: str, variables: Mapping[str, str]) -> Iterator[str]:
    target = _resolved(address)
    _check_ray_answers(target, address)
    with token_found(target):
        check_token(target)
        try:
            found = _connect(address=target, runtime_env=_runtime_environment(variables))
            _check_reachable_from_workers({**variables, **_variables_of_the_job()}.get("PREFECT_API_URL"))
            yield found
        finally:
            _disconnect()


def _runtime_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    """What workers of a cluster have besides their own: our variables, and what a study names that
    lies beside it, or where the command is called, for machines that do not have it.

    Where a job of Ray says itself which variables or modules it brings, those are left to it: Ray
    refuses what is given twice.
    """
    given = _variables_of_the_job()
    ours: dict[str, Any] = {"env_vars": {name: value for name, value in variables.items() if name not in given}}
    paths = [str(path) for path in plugins.carried()]
    return {**ours, "py_modules": paths} if paths and "py_modules" not in _of_the_job() else ours


def _variables_of_the_job() -> dict[str, str]:
    return _of_the_job().get("env_vars") or {}


def _of_the_job() -> dict[str, Any]:
    """The runtime environment of the job of Ray in which this process is; empty if it has none."""
    return json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}").get("runtime_env") or {}


def _available_cores() -> int:
    """Count the cores this process may use, which batch systems and containers restrict."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _loopback() -> Iterator[None]:
    """Keep a local Ray off the network also when `ray` was imported before we could set its
    environment variable.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


_UNUSED = {"no_monitor": True, "include_log_monitor": False}
"""Processes of a head node that do nothing for a Ray of one machine whose workers' output is not
shown: one adds machines, the other passes output on. `ray.init` has no word for them.
"""


@contextmanager
def _few_processes() -> Iterator[None]:
    """Have Ray start what is used only, as far as this version of it can do without the rest."""
    from ray._private import parameter

    place: Any = parameter  # where `ray.init` looks for the class
    before = place.RayParams
    known = inspect.signature(before).parameters
    place.RayParams = partial(before, **{name: value for name, value in _UNUSED.items() if name in known})
    try:
        yield
    finally:
        place.RayParams = before


def _connect(**arguments: Any) -> str:
    import ray

    try:
        with own_signal_handlers():
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
            f"The Ray cluster at {where} refused the connection. Is it of our version of Ray? {'; '.join(reasons)}",
            f"on all its machines: pip install ray=={version('ray')}, and start Ray again",
        ) from error


def _disconnect() -> None:
    import ray

    with signals_deferred(), own_signal_handlers():
        ray.shutdown()


def _resolved(address: str) -> str:
    """Return what Ray makes of an address: `auto` is looked up, and localhost becomes this
    machine's own address.
    """
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
    """Say within seconds that there is no Ray at an address; `ray.init` takes two minutes and then
    ends the process.

    Both of Ray's ports speak gRPC, which is HTTP/2: the answer to its greeting starts with a
    SETTINGS frame (RFC 9113, 3.4). With `RAY_USE_TLS` only the connection is tried.
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
    """Refuse a cluster whose other machines would look for the Prefect server on their own loopback
    interface.
    """
    import ray

    list_nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    if url is None or urlsplit(url).hostname not in {"127.0.0.1", "localhost", "::1"}:
        return
    nodes = {str(node["NodeManagerAddress"]) for node in list_nodes() if node["Alive"]}
    others = sorted(node for node in nodes if not _is_this_machine(node))
    if others:
        raise ServiceUnavailable(
            f"The Ray cluster has machines ({', '.join(others[:3])}) that cannot reach the Prefect server at {url}. "
            "Start one that they reach (`prefect server start --host 0.0.0.0`) and set PREFECT_API_URL to its address.",
            "prefect server start --host 0.0.0.0; export PREFECT_API_URL=http://ADDRESS:4200/api",
        )


def _is_this_machine(address: str) -> bool:
    """Whether an address belongs to an interface of this machine: only then can a socket be bound
    to it.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
