"""The real command line against real services: one Prefect server for the whole module, Ray and stores per run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.services import prefect_server


@pytest.fixture(scope="session")
def prefect_url() -> Iterator[str]:
    with prefect_server() as url:
        yield url


@dataclass
class Command:
    """Runs `diffatlas` in a folder of its own, as a person would."""

    folder: Path
    url: str

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments],
            cwd=self.folder,
            env={**os.environ, "PREFECT_API_URL": self.url, "COLUMNS": "120", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == code, f"exit {process.returncode}, expected {code}\n{out}\n{err}"
        assert "Traceback" not in out + err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def diffatlas(tmp_path: Path, prefect_url: str) -> Command:
    return Command(tmp_path, prefect_url)


def wait_for(condition, seconds: float = 60.0) -> None:
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
