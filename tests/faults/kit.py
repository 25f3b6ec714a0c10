"""What a round of a fault is made of: a folder of its own, a run in it that is listened to, services
that can be hurt, and what is left of all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from tasks.store import Store, StoreMissing, StoreUnavailable
from tests.faults.whole import Contents, contents
from tests.homes import migrated

MARK = "DIFFATLAS_ROUND"
"""Environment variable of everything that is started in a round: its folder."""

ROOT = str(Path(__file__).resolve().parents[2])
GONE_SECONDS = 30.0  # after which what is still there is left behind
CLUSTER = """
import json, sys
from flows.services import quiet_environment
quiet_environment()
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path}) for path in sys.argv[1:]]
print(json.dumps([cluster.address, *(n.all_processes["raylet"][0].process.pid for n in nodes)]), flush=True)
sys.stdin.read()
cluster.shutdown()
"""


class RoundFailed(AssertionError):
    """Something in a round was not as it has to be; the text says what."""


class Run:
    """`diffatlas run` in a session of its own; what it says is kept as it comes."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows", "run", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def until(self, found: Callable[[], Any], what: str, seconds: float = 600) -> Any:
        """The first true value of `found`, while the run goes on."""
        deadline = time.monotonic() + seconds
        while not (value := found()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RoundFailed(f"no {what}: {self.said[-1500:]}")
            time.sleep(0.05)
        return value

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.said, repr(text))

    def end(self, seconds: float = 900) -> int:
        """Its exit code."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RoundFailed(f"no end within {seconds} s: {self.said[-1500:]}") from None
        self._reader.join(10)
        return self.process.returncode

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Round:
    """One fault, once."""

    folder: Path
    server: str  # the address of the Prefect server
    home: Path
    study: str
    jitter: float  # 0 to 1
    store: str = "results"
    root: str = ROOT  # of our packages
    paths: tuple[str, ...] = ()  # besides ours
    variables: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    services: ExitStack = field(default_factory=ExitStack)
    later: ExitStack = field(default_factory=ExitStack)  # what the store needs, also when it is looked at

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir(parents=True)
        (self.folder / "study.yaml").write_text(self.study)

    @property
    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "RAY_"))}
        own = {"PYTHONPATH": os.pathsep.join([self.root, *self.paths]), "TMPDIR": str(self.folder / "tmp")}
        services = {"PREFECT_API_URL": self.server, "DIFFATLAS_HOME": str(self.home), "COLUMNS": "200"}
        return {**clean, **own, **services, MARK: str(self.folder), "RAY_AUTH_MODE": "disabled", **self.variables}

    @property
    def uri(self) -> str:
        return self.store if "://" in self.store else str(self.folder / self.store)

    def start(self, *arguments: str) -> Run:
        self.runs.append(Run(["study.yaml", "--store", self.uri, *arguments], self.folder, self.environment))
        return self.runs[-1]

    def resume(self, *arguments: str) -> Run:
        """The same command, undisturbed, to its end."""
        run = self.start(*arguments)
        if (code := run.end()) != 0:
            raise RoundFailed(f"the resume ended with {code}: {run.said[-1500:]}")
        return run

    def cluster(self, *paths: str) -> tuple[str, list[int]]:
        """A cluster of a head and of a node for each path of modules: its address, and the raylets."""
        short = tempfile.mkdtemp(prefix="r", dir="/tmp")
        self.services.callback(shutil.rmtree, short, ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, *paths],
            env=self.environment | {"RAY_TMPDIR": short},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

        def end() -> None:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # nodes whose head is gone
            process.wait()

        self.services.callback(end)
        assert process.stdout is not None
        address, *raylets = json.loads(process.stdout.readline())
        return address, raylets

    def own_server(self) -> PrefectServer:
        """A Prefect server for this round alone."""
        found = PrefectServer(migrated(self.folder / "prefect"), self.environment)
        self.services.callback(found.kill)
        found.start()
        self.server = found.url
        return found

    def ask(self, what: str) -> Any:
        """What the round's Prefect server has of a kind."""
        asked = urllib.request.Request(  # noqa: S310 - on loopback
            f"{self.server}/{what}", b"{}", {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    def processes(self, *words: str) -> list[int]:
        """Those of this round whose command line or title holds one of the words."""
        return [pid for pid in marked(self.folder, self._owned()) if any(word in _line(pid) for word in words)]

    def _owned(self) -> list[Path]:
        """Temporary folders of the runs."""
        pids = {run.process.pid for run in self.runs}
        found = []
        for folder in Path("/tmp").glob("diffatlas-*"):  # noqa: S108 - where runs make theirs
            with suppress(OSError, ValueError, KeyError):
                if json.loads((folder / "owner.json").read_text())["pid"] in pids:
                    found.append(folder)
        return found

    def left_behind(self) -> dict[str, int]:
        """What is there when all has ended: processes, ports they listen on, a lock, folders."""
        deadline = time.monotonic() + GONE_SECONDS
        while (left := marked(self.folder, self._owned())) and time.monotonic() < deadline:
            time.sleep(0.2)
        locks = 0
        try:
            with Store.open(self.uri).coordinate() as coordinator:
                locks = int(coordinator.before is not None)
        except StoreMissing:
            locks = 0  # the run was ended before it made one
        except StoreUnavailable:
            locks = 1
        folders = len(self._owned()) + len(list((self.folder / "tmp").glob("diffatlas-*")))
        return {"processes": len(left), "ports": _ports(left), "locks": locks, "folders": folders}


class PrefectServer:
    """One that can be stopped, killed and started again where it was."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        from tests.end_to_end.test_scheduled import free_port

        self._port, self._home, self._environment = free_port(), home, environment
        self.url = f"http://127.0.0.1:{self._port}/api"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        more = {"PREFECT_HOME": str(self._home), "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        clean = {k: v for k, v in self._environment.items() if k != "PREFECT_API_URL"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(self._port), "--no-ui"],
            env=clean | more,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while not self._answers():
            if time.monotonic() > deadline:
                raise RoundFailed("no Prefect server")
            time.sleep(0.2)

    def send(self, number: int) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
        return False


def state(uri: str) -> tuple[list[str], Contents]:
    """The history of a store, newest first, and what it holds."""
    store = Store.open(uri)
    return [entry["snapshot"] for entry in store.history()], contents(store)


def marked(folder: Path, owned: list[Path]) -> list[int]:
    """Living processes that were started in a round, or have files open in its runs' folders."""
    wanted = f"{MARK}={folder}".encode()
    return [pid for pid in _pids() if _is_marked(Path(f"/proc/{pid}"), wanted, owned)]


def _pids() -> Iterator[int]:
    return (
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()
    )


def _is_marked(process: Path, wanted: bytes, owned: list[Path]) -> bool:
    try:
        if (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        if wanted in (process / "environ").read_bytes().split(b"\0"):
            return True
        links = list((process / "fd").iterdir()) if owned else []
    except OSError:
        return False
    for link in links:
        with suppress(OSError):
            if str(link.readlink()).startswith(tuple(f"{one}/" for one in owned)):
                return True
    return False


def _line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _ports(pids: list[int]) -> int:
    """On how many ports they listen."""
    inodes = set()
    for pid in pids:
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    inodes.add(str(link.readlink()))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return sum(row[3] == "0A" and f"socket:[{row[9]}]" in inodes for row in rows)


@contextmanager
def shared_server(folder: Path) -> Iterator[str]:
    """One Prefect server for all rounds that leave it alone."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "RAY_"))}
    found = PrefectServer(migrated(folder / "prefect"), environment)
    found.start()
    try:
        yield found.url
    finally:
        found.kill()
