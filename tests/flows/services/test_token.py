"""Whom Ray and Prefect let in: a real head with a token, and a real server with an authentication
string.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flows.doctor import services
from flows.services import ServiceUnavailable, prefect_server, ray_cluster
from flows.services.token import FILE, MODE, TOKEN
from tasks.work.code import code_here
from tests.flows.services.processes import healthy
from tests.homes import migrated

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

OURS = "4f" * 32
GIVE_IT = "export RAY_AUTH_TOKEN=..."


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def end(process: subprocess.Popen[bytes], *numbers: signal.Signals) -> None:
    """End a process and its children, which have a session of their own."""
    for number in (*numbers, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@pytest.fixture(scope="module")
def head(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: ARG001
    """A head as `ray start --head` starts it for somebody whose home has a token."""
    user = tmp_path_factory.mktemp("user")
    (user / ".ray").mkdir()
    (user / ".ray" / "auth_token").write_text(OURS)
    port, client = free_port(), free_port()
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=1"]
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={client}"]
    command += ["--include-dashboard=false", "--object-store-memory=100000000", "--disable-usage-stats"]
    log = user / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**environment, "HOME": str(user)}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 90
        while b"--block" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port} 127.0.0.1:{client}"
    finally:
        end(process, signal.SIGTERM)


@pytest.fixture
def somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Somebody whose home has no token."""
    for name in (MODE, TOKEN, FILE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def test_a_head_that_turns_tokens_on_is_followed(head: str, tmp_path: Path, somebody: pytest.MonkeyPatch) -> None:
    import ray

    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(OURS)
    with ray_cluster(head.split(maxsplit=1)[0], None, {}):
        assert ray.cluster_resources()["CPU"] == 1
    assert MODE not in os.environ
    (tmp_path / ".ray" / "auth_token").unlink()
    somebody.setenv(TOKEN, OURS)
    found = list(services.ray(head.split(maxsplit=1)[0]))
    assert [(one.of, one.level) for one in found] == [("ray", "ok"), ("ray", "ok"), ("clocks", "ok")], found
    assert "(1 CPUs)" in found[0].text
    assert code_here().digest in found[1].text


@pytest.mark.parametrize("client", [False, True], ids=["driver", "client"])
@pytest.mark.parametrize(
    ("variables", "reason", "remedy"),
    [
        ({}, r"wants a token, and there is none here\. .*`export RAY_AUTH_TOKEN=\.\.\.`", GIVE_IT),
        ({TOKEN: "another" * 8}, r"does not accept our token \(RAY_AUTH_TOKEN\)\.", GIVE_IT),
        ({TOKEN: OURS, MODE: "disabled"}, r"RAY_AUTH_MODE=disabled keeps ours back\. Unset it", "unset RAY_AUTH_MODE"),
        ({MODE: "token"}, "RAY_AUTH_MODE=token, and there is no Ray token here", GIVE_IT),
    ],
)
def test_who_lacks_the_token_is_told_in_one_line_and_soon(
    head: str,
    somebody: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    client: bool,
    variables: dict[str, str],
    reason: str,
    remedy: str,
) -> None:
    for name, value in variables.items():
        somebody.setenv(name, value)
    address = f"ray://{head.split()[1]}" if client else head.split(maxsplit=1)[0]
    begin = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=reason) as refused, ray_cluster(address, None, {}):
        pass
    assert time.monotonic() - begin < 10
    assert "\n" not in str(refused.value)
    (found,) = services.ray(address)
    assert (found.level, found.text, found.remedy) == ("problem", str(refused.value), remedy)
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server with an authentication string."""
    folder, port = tmp_path_factory.mktemp("protected"), free_port()
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_SERVER_API_AUTH_STRING": "admin:secret", "PREFECT_HOME": str(migrated(folder / "home"))}
    environment |= {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not healthy(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield url
    finally:
        end(process)


@pytest.mark.parametrize(
    ("given", "reason"),
    [(None, "wants one, and there is none here"), ("admin:wrong", "does not accept ours"), ("admin:secret", None)],
)
def test_prefects_authentication_is_checked_before_anything_starts(
    protected: str, monkeypatch: pytest.MonkeyPatch, given: str | None, reason: str | None
) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", protected)
    updates = {PREFECT_API_URL: protected} | ({PREFECT_API_AUTH_STRING: given} if given else {})
    with temporary_settings(updates=updates):
        if reason is None:
            with prefect_server() as url:
                assert url == protected
            found = list(services.prefect())
            assert [(one.of, one.level) for one in found] == [("prefect", "ok"), ("clocks", "ok")], found
            return
        (missing,) = services.prefect()
        assert missing.remedy == "export PREFECT_API_AUTH_STRING=..."
        begin = time.monotonic()
        with (
            pytest.raises(ServiceUnavailable, match=f"authentication string and {reason}") as refused,
            prefect_server(),
        ):
            pass
        assert time.monotonic() - begin < 10
        assert "`export PREFECT_API_AUTH_STRING=...`" in str(refused.value)
        assert "wrong" not in str(refused.value)
