"""The Prefect server and the Ray cluster that a run would use."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows.doctor.findings import Finding, clock
from flows.services import ServiceUnavailable, quiet_environment
from flows.services.errors import ANSWER_SECONDS


def prefect() -> Iterator[Finding]:
    """The configured server: whether it answers us, its version, its clock."""
    url = configured_server()
    if url is None:
        text = "no server is configured: each run starts one of its own on 127.0.0.1, without authentication"
        yield Finding("prefect", "ok", text)
        return
    quiet_environment()
    from prefect.client.orchestration import get_client

    from flows.services.server import check_configured_server

    try:
        check_configured_server(url)
        with get_client(sync_client=True) as client:
            found = client.api_version()
    except ServiceUnavailable as error:
        remedy = error.remedy or "prefect config view; then prefect server start, or unset PREFECT_API_URL"
        yield Finding("prefect", "problem", str(error), remedy)
        return
    ours = version("prefect")
    if _minor(found) < _minor(ours):
        text = f"the server at {url} is Prefect {found}, older than {ours} here"
        yield Finding("prefect", "problem", text, f"on the server: pip install prefect=={ours}, and start it again")
    else:
        yield Finding("prefect", "ok", f"the server at {url} answers, Prefect {found} (here {ours})")
    yield from _clock_of(url)


def configured_server() -> str | None:
    """The address of the Prefect server that is named; None: a run starts its own. Prefect is
    imported only where a place of its settings exists.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    places = (
        Path(os.environ.get("PREFECT_PROFILES_PATH") or _prefect_home() / "profiles.toml"),
        Path("prefect.toml"),
        Path(".env"),
        Path("pyproject.toml"),
    )
    if not any(_mentions(place, "api") for place in places):
        return None
    quiet_environment()
    from prefect.settings import PREFECT_API_URL

    found = PREFECT_API_URL.value()
    return None if found is None else str(found)


def _prefect_home() -> Path:
    return Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")


def _mentions(file: Path, word: str) -> bool:
    with suppress(OSError, UnicodeDecodeError):
        text = file.read_text(encoding="utf-8").lower()
        return word in text and "prefect" in text
    return False


def _minor(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _clock_of(url: str) -> Iterator[Finding]:
    begun = time.time()
    with suppress(OSError, ValueError):
        with closing(urllib.request.urlopen(f"{url}/health", timeout=ANSWER_SECONDS)) as answer:  # noqa: S310 - as configured
            date = answer.headers["Date"]
        ahead = parsedate_to_datetime(date or "").timestamp() - time.time()
        yield clock("the Prefect server", ahead, time.time() - begun + 1.0)


def ray(address: str | None) -> Iterator[Finding]:
    """The cluster that is named, or `RAY_ADDRESS`: whether it takes us, its nodes, their code, their
    devices, their clocks.
    """
    target = address or os.environ.get("RAY_ADDRESS")
    if target in (None, "local"):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        yield Finding(
            "ray", "ok", f"no cluster is named: each run starts a Ray of its own, {cores} workers on 127.0.0.1"
        )
        return
    quiet_environment()
    from flows.services import ray_cluster

    try:
        with ray_cluster(target, None, {}) as found:
            yield from _nodes(found)
    except ServiceUnavailable as error:
        remedy = error.remedy or "ray start --head, or correct --ray or RAY_ADDRESS"
        yield Finding("ray", "problem", str(error), remedy)


def _nodes(found: str) -> Iterator[Finding]:
    import ray as library

    from flows.nodes import check_nodes
    from tasks.work.code import code_here

    nodes: list[dict[str, Any]] = [node for node in library.nodes() if node["Alive"]]
    told = ", ".join(f"{node['NodeManagerAddress']} ({_devices(node['Resources'])})" for node in nodes)
    yield Finding("ray", "ok", f"the cluster at {found} answers: {told}; Ray {version('ray')}")
    try:
        code = code_here()
        check_nodes(code)
        yield Finding("ray", "ok", f"all nodes have the code {code.digest}")
    except ServiceUnavailable as error:
        remedy = "on each node: pip install the same diffatlas and versions (constraints.txt), and start Ray again"
        yield Finding("ray", "problem", str(error), remedy)
        return
    for node in nodes:
        if node["Resources"].get("CPU"):
            yield _node_clock(node)


def _devices(resources: dict[str, float]) -> str:
    gpus = f", {resources['GPU']:.0f} GPUs" if resources.get("GPU") else ""
    return f"{resources.get('CPU', 0):.0f} CPUs{gpus}"


def _node_clock(node: dict[str, Any]) -> Finding:
    import ray as library
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
    remote: Any = library.remote(num_cpus=0, max_retries=0)(lambda: time.time())  # noqa: PLW0108 - a builtin cannot be sent
    ask = remote.options(scheduling_strategy=there).remote
    library.get(ask())  # starts its worker
    begun = time.time()
    told = float(library.get(ask()))
    ended = time.time()
    return clock(f"node {node['NodeManagerAddress']}", told - (begun + ended) / 2, (ended - begun) / 2)
