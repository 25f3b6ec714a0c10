"""The real command line against real services: one Prefect server for all of these tests, Ray and
stores per run.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.study import load_study
from tests.homes import new_home
from tests.tasks.tiny_store import answer

SMALL = """
name: small
datasets: [uniform]
formulations: [edm, ddpm]
seeds: 2
training: {steps: 120, batch: 64, width: 32, depth: 2, data: 2000}
samplers: [heun, ancestral]
steps: [2, 5]
samples: 300
metrics: [w1, ks]
keep: {samples: true, trajectories: [heun@5]}
"""

_HOLD_A_SERVER = """
import sys
from flows.services import prefect_server
with prefect_server() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server held by a process of its own, and ended with the tests, so that this one's environment
    and settings stay as they are.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    home = new_home(tmp_path_factory.mktemp("home"))
    environment["DIFFATLAS_HOME"] = str(home)
    with (home / "holder.log").open("w") as log:
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLD_A_SERVER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        url = holder.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (home / "holder.log").read_text()
        yield url
        holder.stdin.close()


@dataclass
class Command:
    """Runs `diffatlas` in a folder of its own, as a person would."""

    folder: Path
    url: str

    def answer_here(self, study: str, store: str = "results", *overrides: str, retry_failed: bool = False) -> None:
        """Compute a study in this process, without services: what it is to begin with, or to be
        compared with. The bits are those of a run.
        """
        answer(str(self.folder / store), load_study(self.folder / study, overrides).spec(), retry_failed=retry_failed)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """One worker, if nothing is said of them: a second one costs its imports."""
        alone = ["--workers", "1"] if arguments[0] == "run" and "--workers" not in arguments else []
        return self._started(["-m", "flows", *arguments, *alone], environment)

    def python(self, program: str, *arguments: str, code: int = 0, **environment: str) -> "tuple[str, str]":
        """What a program of a few lines says on stdout and stderr, in the same folder and with the
        same services.
        """
        process = self._started(["-c", program, *arguments], environment)
        out, err = process.communicate(timeout=240)
        assert process.returncode == code, f"exit {process.returncode}, expected {code}\n{out}\n{err}"
        return out, err

    def _started(self, arguments: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PREFECT_API_URL": self.url, "COLUMNS": "120", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(
        self, *arguments: str, code: int = 0, seconds: float = 240, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # else its pipes are missed in a test long after
            raise
        assert process.returncode == code, f"exit {process.returncode}, expected {code}\n{out}\n{err}"
        assert "Traceback" not in out + err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def diffatlas(tmp_path: Path, prefect_url: str) -> Command:
    return Command(tmp_path, prefect_url)


@dataclass(frozen=True)
class Once:
    """The small study under the name `once`, and what the command that ran it said."""

    diffatlas: Command
    said: "subprocess.CompletedProcess[str]"

    @property
    def store(self) -> Path:
        return self.diffatlas.folder / "results"


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Once:
    """Run by two workers, for all tests that look at what a run leaves; none may change it."""
    command = Command(tmp_path_factory.mktemp("once"), prefect_url)
    (command.folder / "once.yaml").write_text(SMALL.replace("name: small", "name: once"))
    return Once(command, command("run", "once.yaml", "--workers", "2"))


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def processes(words: Sequence[str]) -> list[int]:
    """Processes whose command line or title holds one of the words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if any(word in line for word in words):
                found.append(int(entry.name))
    return found
