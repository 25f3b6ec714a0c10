"""Where the process of a run may be: a job of Ray, within the cluster, and a client outside of it. A
real head with a token, its job server and its client's server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.results import open_results
from tasks.store import Store
from tests.flows.services.test_nodes import ROOT, STUDY
from tests.flows.services.test_token import OURS, end, free_port

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """Where its servers are, and the environment of somebody who has its token."""

    jobs: str
    client: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    user = tmp_path_factory.mktemp("user")
    (user / ".ray").mkdir()
    (user / ".ray" / "auth_token").write_text(OURS)
    gcs, client, jobs, agent = (free_port() for _ in range(4))
    command = [RAY, "start", "--head", "--block", "--num-cpus=1", "--node-ip-address=127.0.0.1", f"--port={gcs}"]
    command += [f"--ray-client-server-port={client}", "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-port={jobs}", f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats"]
    command += ["--object-store-memory=100000000"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(user), "PYTHONPATH": ROOT, "PREFECT_API_URL": server, "RAY_AUTH_MODE": "token"}
    log = user / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{jobs}/api/version"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield Head(f"http://127.0.0.1:{jobs}", f"ray://127.0.0.1:{client}", environment)
    finally:
        end(process, signal.SIGTERM)


def answers(address: str) -> bool:
    """Whether what is asked for comes, with the token of the head."""
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {OURS}"})  # noqa: S310
    with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False


def complete(store: Path) -> None:
    points = open_results(str(store), "small")
    assert points.sizes["point"] == 2
    assert set(points["status"].values) == {"ok"}
    with Store.open(str(store)).coordinate():  # its lock is free
        pass


def test_a_run_is_left_to_the_cluster_as_the_guide_has_it(head: Head, tmp_path: Path) -> None:
    """The folder goes with the job; the store is elsewhere."""
    folder, store = tmp_path / "folder", tmp_path / "results"
    folder.mkdir()
    (folder / "small.yaml").write_text(STUDY)
    asked = [sys.executable, "-m", "flows", "run", "small.yaml", "--store", str(store), "--ray", "auto"]
    job = [RAY, "job", "submit", "--address", head.jobs, "--working-dir", ".", "--", *asked]
    ended = subprocess.run(
        job, cwd=folder, env=head.environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    complete(store)
    assert list(folder.iterdir()) == [folder / "small.yaml"]


def test_a_run_goes_through_rays_client(head: Head, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    command = [sys.executable, "-m", "flows", "run", "small.yaml", "--ray", head.client]
    ended = subprocess.run(
        command, cwd=tmp_path, env=head.environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    complete(tmp_path / "results")
