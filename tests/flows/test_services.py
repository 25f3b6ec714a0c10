"""The services of a run are found or started, and never left behind. Real processes, real signals."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flows import services
from flows.services import ServiceUnavailable, Terminated, prefect_server, ray_cluster, terminate_as_interrupt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes through /proc"),
    # Ray leaves the pipes and logs of its daemons to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HOLD = """
import sys, time
sys.path.insert(0, {folder!r})
from flows.services import prefect_server, quiet_environment, ray_cluster, terminate_as_interrupt
quiet_environment()
def hold():
    print("READY", flush=True)
    {then}
with terminate_as_interrupt(), prefect_server() as url:
    print(url, flush=True)
    {body}
"""
WITH_RAY = """with ray_cluster(None, 2, {}):
        hold()"""


def child(home: Path, body: str, then: str = "time.sleep(600)") -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if k not in {"PREFECT_API_URL", "RAY_ADDRESS"}}
    program = HOLD.format(folder=str(Path(__file__).parent), body=body, then=then)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment | {"DIFFATLAS_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_ready(process: "subprocess.Popen[str]") -> str:
    """Return the server's address."""
    lines = []
    while (line := process.stdout.readline().strip()) != "READY":
        lines.append(line)
        assert line, process.communicate()
    return lines[0]


def processes() -> dict[int, tuple[int, str]]:
    """Return every living process: its parent, and when it started."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(stat.parent.name)] = int(fields[1]), fields[19]
    return found


def descendants(pid: int) -> set[tuple[int, str]]:
    everything = processes()
    found, fresh = set(), {pid}
    while fresh:
        fresh = {child for child, (parent, _) in everything.items() if parent in fresh}
        found |= {(child, everything[child][1]) for child in fresh}
    return found


def remaining(expected_gone: set[tuple[int, str]], seconds: float) -> set[tuple[int, str]]:
    deadline = time.monotonic() + seconds
    while True:
        alive = expected_gone & {(pid, start) for pid, (_, start) in processes().items()}
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.1)


def listening_addresses(pids: set[int]) -> set[str]:
    """Return the addresses, as the kernel writes them, on which processes accept TCP connections."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(descriptor.readlink()))
            except OSError:
                continue
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:] + Path("/proc/net/tcp6").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
            return answer.read() == b"true"
    except OSError:
        return False


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFATLAS_HOME", str(path))
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.syspath_prepend(str(Path(__file__).parent))
        yield path


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:  # noqa: ARG001
    with prefect_server() as url:
        yield url
    assert not healthy(url)
    assert "PREFECT_API_URL" not in os.environ


@pytest.fixture(scope="module")
def ray_address(server: str) -> Iterator[str]:  # noqa: ARG001
    before = signal.getsignal(signal.SIGTERM)
    with ray_cluster(None, 2, {"DIFFATLAS_TEST": "passed on"}) as address:
        assert signal.getsignal(signal.SIGTERM) is before
        started = descendants(os.getpid())
        yield address
    # The server is still there: it belongs to the fixture around this one.
    assert len(remaining(started, 5)) <= 1


# First the runs of others, while no server of this process holds the database.


@pytest.mark.parametrize("how", ["exception", "SIGINT", "SIGTERM"])
def test_nothing_is_left_after(how: str, home: Path):
    process = child(home, WITH_RAY, "time.sleep(2); raise OSError" if how == "exception" else "time.sleep(600)")
    try:
        url = until_ready(process)
        started = descendants(process.pid)
        assert len(started) > 5
        if how != "exception":
            process.send_signal(getattr(signal, how))
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "***" not in errors  # Ray's stack trace on SIGTERM
        assert not remaining(started, 1)
        assert not healthy(url)
    finally:
        process.kill()
        process.communicate()


def test_after_sigkill_the_server_ends_itself_and_the_next_run_ends_the_rest_in_silence(home: Path):
    process = child(home, WITH_RAY)
    until_ready(process)
    started = descendants(process.pid)
    servers = {entry for entry in started if b"uvicorn" in Path(f"/proc/{entry[0]}/cmdline").read_bytes()}
    assert len(servers) == 1
    process.kill()
    process.communicate()
    assert not remaining(servers, 5)

    following = child(home, WITH_RAY, "import sample_flow; sample_flow.sample_flow(2)")
    until_ready(following)
    assert not remaining(started, 0)
    begin = time.monotonic()
    output, errors = following.communicate(timeout=120)
    assert (following.returncode, output, errors) == (0, "", "")
    assert time.monotonic() - begin < 45  # Prefect waits a minute for a server that has gone before its last lines
    (database,) = home.glob("prefect/*/prefect.db")
    with closing(sqlite3.connect(database)) as connection:
        states = connection.execute("select state_type from task_run").fetchall()
        lines = connection.execute("select message from log").fetchall()
    assert states == [("COMPLETED",)] * 2
    assert ("a line for the server, not for the console",) in lines
    assert ("Finished in state Completed()",) in lines
    folders = services._short_temporary_directory().glob(f"{services.RUN_PREFIX}*")
    assert not [folder for folder in folders if services._is_abandoned(folder)]


def test_importing_the_services_imports_neither_prefect_nor_ray():
    program = "import sys, flows.services; print(*({'prefect', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b""


def test_a_variable_that_is_set_wins_over_quiet(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ICECHUNK_LOG", "debug")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    services.quiet_environment()
    assert os.environ["ICECHUNK_LOG"] == "debug"
    assert os.environ["DO_NOT_TRACK"] == "1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_signal_is_an_interrupt(number: signal.Signals):
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as raised, terminate_as_interrupt():
        signal.raise_signal(number)
    assert isinstance(raised.value, KeyboardInterrupt)
    assert raised.value.number == number
    assert signal.getsignal(number) is before


def test_a_server_starts_on_loopback_and_answers(server: str, home: Path):
    import prefect.settings

    assert healthy(server)
    assert os.environ["PREFECT_API_URL"] == server == prefect.settings.PREFECT_API_URL.value()
    (database,) = home.glob("prefect/*/prefect.db")
    (pid,) = services._processes_of(database.parent)
    assert listening_addresses({pid}) == {"0100007F"}


def test_a_server_that_runs_is_used_and_left_running(server: str):
    with prefect_server() as url:
        assert url == server
    assert healthy(server)


def test_a_configured_server_that_is_dead_is_reported(server: str, monkeypatch: pytest.MonkeyPatch):  # noqa: ARG001
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with (
        temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ServiceUnavailable, match=r"http://127.0.0.1:9/api does not answer.*PREFECT_API_URL"),
        prefect_server(),
    ):
        pass
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:9/api"


def test_a_server_that_does_not_start_is_reported_with_its_log(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    (database,) = home.glob("prefect/*")
    damaged = tmp_path / "prefect" / database.name
    damaged.mkdir(parents=True)
    (damaged / "prefect.db").write_text("this is no database" * 1000)
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(ServiceUnavailable, match=r"(?s)ended with exit code.*file is not a database"),
        prefect_server(),
    ):
        pass


def test_a_second_run_has_a_server_of_its_own(server: str, home: Path):
    process = child(home, "hold()")
    try:
        url = until_ready(process)
        assert url != server
        assert healthy(url)
        assert healthy(server)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert not healthy(url)
        assert healthy(server)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nonsense"])
def test_an_address_without_ray_is_reported_soon(address: str):
    begin = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=address), ray_cluster(address, 2, {}):
        pass
    assert time.monotonic() - begin < 20


def test_an_address_of_something_else_is_reported_soon(server: str):
    address = server.removeprefix("http://").removesuffix("/api")
    begin = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="is not Ray"), ray_cluster(f"ray://{address}", 2, {}):
        pass
    assert time.monotonic() - begin < 20


def test_two_workers_are_two_processes_of_one_thread_with_the_environment(ray_address: str, server: str):  # noqa: ARG001
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


def test_ray_listens_on_loopback_only(ray_address: str):
    assert ray_address.startswith("127.0.0.1:")
    pids = {os.getpid()} | {pid for pid, _ in descendants(os.getpid())}
    found = listening_addresses(pids)
    assert found
    assert found <= LOOPBACK


def test_tasks_run_on_ray_and_are_recorded(ray_address: str, server: str):  # noqa: ARG001
    from prefect.client.orchestration import get_client
    from sample_flow import sample_flow

    state = sample_flow(10, return_state=True)
    results = state.result()
    assert [index for index, *_ in results] == list(range(10))
    assert {url for *_, url in results} == {server}
    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:  # task runs are recorded from events, a moment later
            flow_run = client.read_flow_run(state.state_details.flow_run_id)
            states = [run.state_type.value for run in client.read_task_runs() if run.flow_run_id == flow_run.id]
            if states == ["COMPLETED"] * 10 or time.monotonic() > deadline:
                break
            time.sleep(0.5)
    assert flow_run.state_type.value == "COMPLETED"
    assert states == ["COMPLETED"] * 10


def test_a_process_without_our_mark_or_with_a_living_owner_is_spared(home: Path):  # noqa: ARG001
    unmarked = subprocess.Popen(["sleep", "60"])
    with services._run_folder() as folder:
        marked = subprocess.Popen(["sleep", "60"], env={services.MARK: str(folder), "PATH": os.environ["PATH"]})
        try:
            services.end_orphans()
            assert marked.poll() is None
            (folder / "owner.json").write_text(
                f'{{"pid": {unmarked.pid}, "start": "1", "namespace": "{services._pid_namespace()}"}}'
            )
            assert services.end_orphans() == [marked.pid]
            assert unmarked.poll() is None
        finally:
            for process in (marked, unmarked):
                process.kill()
                process.wait()
