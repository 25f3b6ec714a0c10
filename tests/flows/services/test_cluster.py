"""A Ray is found or started, on loopback, and its absence is told. Real clusters."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from flows.services import ServiceUnavailable, ray_cluster
from flows.services.cluster import _runtime_environment
from flows.services.orphans import RUN_PREFIX
from tests.flows.services.processes import LOOPBACK, descendants, listening_addresses, remaining

if TYPE_CHECKING:
    from ray.runtime_env import RuntimeEnv

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes through /proc"),
    # Ray leaves the pipes and logs of its daemons to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def ray_address(server: str) -> Iterator[str]:  # noqa: ARG001
    handler, before = signal.getsignal(signal.SIGTERM), descendants(os.getpid())
    with ray_cluster(None, 2, {"DIFFATLAS_TEST": "passed on"}) as address:
        assert signal.getsignal(signal.SIGTERM) is handler
        started = descendants(os.getpid()) - before
        yield address
    assert not remaining(started, 5)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nonsense"])
def test_an_address_without_ray_is_reported_soon(address: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=address), ray_cluster(address, 2, {}):
        pass
    assert time.monotonic() - begin < 20


def test_an_address_of_something_else_is_reported_soon(server: str) -> None:
    address = server.removeprefix("http://").removesuffix("/api")
    begin = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="is not Ray"), ray_cluster(f"ray://{address}", 2, {}):
        pass
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("modules", [{}, {"py_modules": []}, {"py_modules": ["s3://bucket/theirs.zip"]}])
def test_what_a_job_of_ray_brings_itself_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: dict[str, list[str]]
) -> None:
    """Ray refuses what its job and we both give: held against Ray's own rule."""
    from ray.runtime_env.runtime_env import _merge_runtime_env

    (tmp_path / "beside_a_job.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", "beside_a_job")
    given = {"env_vars": {"OMP_NUM_THREADS": "2", "THEIRS": "1"}, **modules}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": given}))
    ours = _runtime_environment({"OMP_NUM_THREADS": "1", "OURS": "1"})
    merged = _merge_runtime_env(cast("RuntimeEnv", given), cast("RuntimeEnv", ours))  # which are dictionaries
    assert merged == {
        "env_vars": {"OMP_NUM_THREADS": "2", "THEIRS": "1", "OURS": "1"},
        "py_modules": modules.get("py_modules", [str(tmp_path / "beside_a_job.py")]),
    }


def test_two_workers_are_two_processes_of_one_thread_with_the_environment(ray_address: str, server: str) -> None:  # noqa: ARG001
    import ray

    @ray.remote(num_cpus=1)
    def look() -> tuple[int, int, str | None, str | None]:
        import torch

        time.sleep(0.5)
        variables = os.environ.get("DIFFATLAS_TEST"), os.environ.get("PREFECT_API_URL")
        return os.getpid(), torch.get_num_threads(), *variables

    seen = ray.get([look.remote() for _ in range(4)])
    assert len({pid for pid, *_ in seen}) == 2
    assert os.getpid() not in {pid for pid, *_ in seen}
    assert {tuple(rest) for _, *rest in seen} == {(1, "passed on", server)}


def test_ray_listens_on_loopback_only(ray_address: str) -> None:
    assert ray_address.startswith("127.0.0.1:")
    pids = {os.getpid()} | {pid for pid, _ in descendants(os.getpid())}
    found = listening_addresses(pids)
    assert found
    assert found <= LOOPBACK


def test_nobody_else_gets_into_the_folder_of_a_run(ray_address: str) -> None:  # noqa: ARG001
    import ray

    session = Path(ray.get_runtime_context().worker.node.get_session_dir_path()).resolve()
    (folder,) = [one for one in session.parents if one.name.startswith(RUN_PREFIX)]
    assert folder.stat().st_mode & 0o077 == 0


def test_a_local_ray_has_a_token_that_nobody_else_can_read(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.services.token import FILE, MODE, check_token

    file = Path(os.environ[FILE])
    assert os.environ[MODE] == "token"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    check_token(ray_address)
    stranger = "import sys; from flows.services.token import check_token; check_token(sys.argv[1])"
    monkeypatch.delenv(FILE)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not that one")
    done = subprocess.run([sys.executable, "-c", stranger, ray_address], capture_output=True, text=True, check=False)
    assert "does not accept our token" in done.stderr


def test_a_local_ray_has_no_monitors(ray_address: str) -> None:  # noqa: ARG001
    """Nobody adds machines to it, and nobody shows what its workers print."""
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid, _ in descendants(os.getpid())]
    assert any(b"gcs_server" in command for command in commands)
    assert [command for command in commands if b"monitor.py" in command] == []


def test_prefects_clients_in_workers_read_one_authority(ray_address: str) -> None:  # noqa: ARG001
    import ray

    @ray.remote
    def authorities() -> int:
        import ssl

        from prefect.settings import PREFECT_API_SSL_CERT_FILE

        return len(ssl.create_default_context(cafile=PREFECT_API_SSL_CERT_FILE.value()).get_ca_certs())

    assert ray.get(authorities.remote()) == 1


def test_tasks_run_on_ray_and_are_recorded(ray_address: str, server: str) -> None:  # noqa: ARG001
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType

    from tests.flows.services.sample_flow import sample_flow

    state = sample_flow(10, return_state=True)
    results = state.result()
    assert [index for index, *_ in results] == list(range(10))
    assert {url for *_, url in results} == {server}
    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:  # task runs are recorded from events, a moment later
            assert state.state_details.flow_run_id is not None
            flow_run = client.read_flow_run(state.state_details.flow_run_id)
            states = [run.state_type for run in client.read_task_runs() if run.flow_run_id == flow_run.id]
            if states == [StateType.COMPLETED] * 10 or time.monotonic() > deadline:
                break
            time.sleep(0.5)
    assert flow_run.state_type is StateType.COMPLETED
    assert states == [StateType.COMPLETED] * 10


def test_no_socket_of_a_local_run_leads_beyond_this_machine(ray_address: str, server: str) -> None:
    """After tasks have run: this process, the server, Ray and its workers, as SECURITY.md says."""
    import psutil  # Ray brings it

    here = psutil.Process()
    listening, beyond = set(), []
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            for one in process.net_connections("inet"):
                ends = [end for end in (one.laddr, one.raddr) if end]
                beyond += [
                    (process.name(), end) for end in ends if not ip_address(end.ip.removeprefix("::ffff:")).is_loopback
                ]
                if one.status == psutil.CONN_LISTEN:
                    listening.add(one.laddr.port)
    assert beyond == []
    assert {int(server.split(":")[2].split("/", maxsplit=1)[0]), int(ray_address.split(":")[1])} <= listening
    assert "a port of the system's choice on 127.0.0.1" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
