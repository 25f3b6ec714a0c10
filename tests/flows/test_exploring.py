"""The server of `diffatlas explore`, a real one on this machine's own address: whom it answers and
whom it refuses, and how the command ends.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from flows.command_line import app
from flows.exploring import LOOPBACK, application, listening
from tasks.explorer.opened import OpenedStore
from tests.tasks.golden_stores import unpacked

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = OpenedStore(unpacked("run-3", tmp_path_factory.mktemp("exploring")))
    with listening(0) as found:
        server = uvicorn.Server(uvicorn.Config(application(store), log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
        thread.start()
        yield f"http://{LOOPBACK}:{found.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def test_the_page_and_its_parts_come_from_here_and_may_load_nothing_from_elsewhere(address: str) -> None:
    for path in ("/", "/explore.css", "/explore.js", "/controls.js", "/pictures.js", "/tables.js", "/details.js"):
        answer = httpx.get(address + path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "http" not in policy
        assert "access-control-allow-origin" not in answer.headers
        assert "https://" not in answer.text
    assert b"plotly.js" in httpx.get(f"{address}/plotly.js").content[:200]


def test_a_view_is_answered_as_json_and_a_refusal_says_its_sentence(address: str) -> None:
    found = httpx.get(f"{address}/api/view", params={"by": "sampler", "metric": "energy"})
    assert (found.status_code, found.json()["view"]) == (200, "curves")
    refused = httpx.get(f"{address}/api/view", params={"where": "smapler == 'heun'"})
    assert refused.status_code == 400
    assert refused.json()["error"]["kind"] == "unknown-column"
    assert "did you mean 'sampler'?" in refused.json()["error"]["message"]
    assert httpx.get(f"{address}/api/choices", params={"study": "none"}).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.test"},
        {"Host": "evil.test:80"},
        {"Host": "127.0.0.1.evil.test"},
        {"Host": ""},
        {"Host": "evil.test@127.0.0.1"},
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "https://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/view", "/plotly.js"])
def test_whoever_is_not_this_machines_own_page_is_refused(address: str, path: str, headers: dict[str, str]) -> None:
    answer = httpx.get(address + path, headers=headers)
    assert answer.status_code in (400, 403)
    assert "energy" not in answer.text


def test_its_own_page_and_a_link_to_it_are_answered(address: str) -> None:
    own = {"Origin": address, "Sec-Fetch-Site": "same-origin"}
    assert httpx.get(f"{address}/api/choices", headers=own).status_code == 200
    port = address.rpartition(":")[2]
    assert httpx.get(f"{address}/", headers={"Host": f"localhost:{port}"}).status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert httpx.get(f"{address}/", headers=link).status_code == 200
    assert httpx.get(f"{address}/api/choices", headers=link).status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_answers_get_alone(address: str, method: str) -> None:
    answer = httpx.request(method, f"{address}/api/view")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/..%2fexplore.css", "/%2e%2e/explore.css", "//etc/passwd", "/api/.."],
)
def test_no_path_is_made_of_a_name(address: str, path: str) -> None:
    with socket.create_connection((LOOPBACK, int(address.rpartition(":")[2]))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split()[1] == b"404"


def test_only_this_machine_reaches_it(address: str) -> None:
    port = int(address.rpartition(":")[2])
    listed = Path("/proc/net/tcp").read_text().split("\n")[1:-1]
    local = [line.split()[1] for line in listed if line.split()[3] == "0A"]
    assert [one for one in local if int(one.partition(":")[2], 16) == port] == [f"0100007F:{port:04X}"]


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows", "explore", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_port_that_is_taken_is_named_with_what_to_do(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = address.rpartition(":")[2]
    store = unpacked("run-3", tmp_path)
    assert app(["explore", "--store", store, "--no-browser", "--port", port], standalone_mode=False) == 3
    said = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 cannot be had (Address already in use)" in said
    assert "--port 0" in said


def test_no_store_is_told_before_a_page_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["explore", "--store", str(tmp_path / "none"), "--port", "0"], standalone_mode=False) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "there is no store here" in said.err


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    store = unpacked("run-3", tmp_path)
    process = command("--store", store, "--no-browser", "--port", "0")
    assert process.stdout is not None
    address = process.stdout.readline().split()[2]
    with httpx.Client() as client:  # which keeps its connection
        assert client.get(f"{address}api/choices").status_code == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=5)
    assert process.returncode == 130
    assert said == "ended\n"
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((LOOPBACK, int(address.rpartition(":")[2].strip("/"))))
