"""A schedule fires on a real Prefect server, and what a person then sees in its pages is there.
Real processes: PostgreSQL below the server where it is installed, and an authentication string.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from prefect.exceptions import PrefectHTTPStatusError

from deployments.automations import SHIPPED_AUTOMATIONS
from flows.services import end_orphans
from flows.services.token import FILE, MODE
from flows.telling import FAILED, FINISHED, MOVED
from tasks.results import open_results
from tasks.store import Store
from tasks.study import load_study
from tests.flows.services.processes import LOOPBACK, descendants, listening_addresses
from tests.homes import migrated
from tests.postgres import ask, postgres, why_not
from tests.tasks.tiny_store import answer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SERVE = Path(__file__).parents[2] / "deployments" / "serve.py"
SERVING = [sys.executable, str(SERVE), "--schedules", "schedules.yaml"]
AUTOMATIONS = SERVE.with_name("automations.py")
ACCESS = {"PREFECT_API_AUTH_STRING": "atlas:correct-horse"}
SECRET = "hunter2"  # noqa: S105 - part of the webhook's address
_STAGES = {"trained": "train", "swept": "sweep"}  # as snapshots tell it: the task run
BOOM = """
from dataclasses import dataclass
from diffusion.samplers import Sampler

@dataclass(frozen=True)
class Boom(Sampler):
    def step(self, denoiser, x, now, then, noise):
        raise ArithmeticError("no, not this one")
"""
SIZE = """
from dataclasses import dataclass
from typing import ClassVar
from diffusion.metrics import Metric

@dataclass(frozen=True)
class Size(Metric):
    version: ClassVar[int] = VERSION

    def refuses(self, dataset):
        return None

    def _measure(self, samples, dataset):
        return VALUE

    def _floor(self, dataset, n):
        return 0.0
"""
WAITS = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from diffusion.samplers import Sampler

if room := sys.modules.get("flows.pages"):  # in the process of the run: a minute's patience is long for a test
    room.PATIENCE_SECONDS = room.AGAIN_SECONDS = 3.0

@dataclass(frozen=True)
class Waits(Sampler):
    def step(self, denoiser, x, now, then, noise):
        Path(FOLDER, "begun").touch()
        while not Path(FOLDER, "killed").exists():
            time.sleep(0.05)
        return denoiser(x, now.alpha, now.sigma)
"""
TEAM = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block
message = {"subject": "{{subject}}", "text": "{{body}}", "event": "by a block", "automation": "", "payload": {"study": "failing"}}
Block(name="team", url=sys.argv[1], json_data=message).save("team", overwrite=True)
"""  # as the guide makes one of Slack's
BY_BLOCK = f"""
- name: by a block
  trigger: {{type: event, posture: Reactive, expect: [{MOVED}], match: {{prefect.resource.id: diffatlas.study.failing}}}}
  subject: "{{{{ event.payload.study }}}} moved"
  text: "{{{{ event.payload.summary }}}}"
"""
LISTENS = "0100007F"  # 127.0.0.1, where Prefect's runner speaks with the processes of its runs
FAILURE = "uniform edm, boom:Boom, seed 0: sampling failed: ArithmeticError: no, not this one"
TINY = ["formulations=[vp, edm]", "training.steps=20", "samples=200", "steps=[2]", "keep.trajectories=[]"]


def until(found: Callable[[], Any], seconds: float, log: Path, what: str) -> Any:
    """Return the first true value of `found`."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, (
            f"no {what} within {seconds} s; the end of {log}:\n{log.read_text()[-4000:]}"
        )
        time.sleep(0.5)
    return value


@contextmanager
def process(arguments: list[str], folder: Path, log: Path, patience: float, **environment: str) -> Iterator[Any]:
    """A program in a session of its own, which ends with the block: politely, then with all that it
    started.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_") and k != "RAY_ADDRESS"}
    with log.open("wb") as output:
        started = subprocess.Popen(
            arguments, cwd=folder, env=clean | environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield started
    finally:
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(patience)
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scheduled")


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def database() -> Iterator[str | None]:
    """A PostgreSQL server, if there can be one: else Prefect has its file."""
    if why_not():
        yield None
    else:
        with postgres(free_port()) as address:
            yield address


@pytest.fixture(scope="module")
def prefect(folder: Path, database: str | None) -> Iterator[tuple[str, Any]]:
    """The address of a server, and its process, which leads a group of its own."""
    port = free_port()
    address, log = f"http://127.0.0.1:{port}/api", folder / "server.log"

    def healthy() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
        return False

    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    more = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    more |= {"PREFECT_SERVER_API_AUTH_STRING": ACCESS["PREFECT_API_AUTH_STRING"], **ACCESS}
    if database:
        more["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"postgresql+asyncpg://{database}"
    with process(command, folder, log, 10, PREFECT_HOME=str(migrated(folder / "prefect")), **more) as started:
        until(healthy, 90, log, "answer of the server")
        yield address, started


@pytest.fixture(scope="module")
def url(prefect: tuple[str, Any]) -> str:
    return prefect[0]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    from prefect.client.orchestration import SyncPrefectClient

    with SyncPrefectClient(url, auth_string=ACCESS["PREFECT_API_AUTH_STRING"]) as found:
        yield found


@pytest.fixture(scope="module")
def messages() -> Iterator[list[dict[str, Any]]]:
    """What a webhook on this machine has received."""
    received: list[dict[str, Any]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        received.append({"address": f"http://127.0.0.1:{server.server_port}/{SECRET}"})
        yield received
        server.shutdown()


@pytest.fixture(scope="module")
def automations(folder: Path, url: str, messages: list[dict[str, Any]]) -> Callable[..., list[str]]:
    """Puts a file of automations on the server, and returns what was said of each. One message goes
    through a notification block as well.
    """
    address = messages.pop()["address"]
    home = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": url, **ACCESS}

    def applied(file: Path = SHIPPED_AUTOMATIONS, *options: str, **more: str) -> list[str]:
        command = [sys.executable, str(AUTOMATIONS), "--file", str(file), *options]
        done = subprocess.run(command, env=os.environ | home | more, capture_output=True, text=True, check=True)
        assert SECRET not in done.stdout + done.stderr
        return done.stderr.splitlines()[:-1]

    assert all(line.startswith("made: ") for line in applied(DIFFATLAS_WEBHOOK=address))
    subprocess.run([sys.executable, "-c", TEAM, address], env=os.environ | home, check=True)
    (folder / "by-block.yaml").write_text(BY_BLOCK)
    assert applied(folder / "by-block.yaml", "--block", "custom-webhook/team") == ["made: by a block"]
    return applied


@pytest.fixture(scope="module")
def serving(folder: Path, url: str, automations: Any) -> Iterator[Any]:  # noqa: ARG001
    """The list is served; its cron line fires every minute, for the first time in about 20 seconds."""
    second = (datetime.now(UTC) + timedelta(seconds=20)).second
    overrides = "".join(f"    - {override!r}\n" for override in TINY)
    entry = f"- study: smoke\n  store: answers\n  cron: '* * * * * {second}'\n  name: tiny\n  overrides:\n{overrides}"
    chained = f"- study: smoke\n  store: answers\n  after: tiny\n  name: chained\n  overrides:\n{overrides}"
    (folder / "schedules.yaml").write_text(f"{entry}\n{chained}")
    try:
        with process(SERVING, folder, folder / "serve.log", 40, **home_of(folder, url)) as started:
            yield started
    finally:
        end_orphans()


def home_of(folder: Path, url: str) -> dict[str, str]:
    """The environment of a serving process."""
    home = {"PREFECT_HOME": str(folder / "prefect"), "DIFFATLAS_HOME": str(folder), "PREFECT_API_URL": url, **ACCESS}
    home["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    home["DIFFATLAS_ALLOW_PLUGINS"] = "boom,size,waits"  # a deployment names it: nothing is imported for that alone
    home["PREFECT_RUNNER_POLL_FREQUENCY"] = "2"  # sooner than a run ends, for the one that overlaps
    return home


@pytest.fixture(scope="module")
def serve_log(folder: Path, serving: Any) -> Path:  # noqa: ARG001
    return folder / "serve.log"


@pytest.fixture(scope="module")
def scheduled(client: Any, serve_log: Path) -> Any:
    """The first flow run that the schedule has started, when it runs; no later one will start."""

    def running() -> Any:
        runs = [run for run in client.read_flow_runs() if run.auto_scheduled and run.state_type.value == "RUNNING"]
        return runs[0] if runs else None

    found = until(running, 120, serve_log, "scheduled flow run")
    client.pause_deployment(found.deployment_id)
    return found


def ended(client: Any, run: Any, log: Path) -> Any:
    return until(lambda: (now := client.read_flow_run(run.id)).state.is_final() and now, 120, log, f"end of {run.name}")


def test_a_run_that_is_due_while_the_one_before_runs_is_cancelled(client: Any, scheduled: Any, serve_log: Path) -> None:
    second = client.create_flow_run_from_deployment(scheduled.deployment_id)
    outcome = ended(client, second, serve_log)
    assert outcome.state_type.value == "CANCELLED"
    assert "concurrency limit" in outcome.state.message
    assert client.read_flow_run(scheduled.id).state_type.value == "RUNNING"


def test_what_no_run_could_mean_is_refused_when_it_is_asked_for(client: Any, scheduled: Any) -> None:
    for wrong in ({"device": "gpu"}, {"wait": -1}, {"workers": 0}):
        with pytest.raises(PrefectHTTPStatusError, match=next(iter(wrong))):
            client.create_flow_run_from_deployment(scheduled.deployment_id, parameters=scheduled.parameters | wrong)


def test_the_schedule_fires_and_its_pages_are_filled(
    client: Any, scheduled: Any, folder: Path, serve_log: Path
) -> None:
    uri = str(folder / "answers")
    assert scheduled.parameters == {"study": "smoke", "store": uri, "overrides": TINY}

    def stages() -> list[str]:
        """The task runs that the snapshots tell of."""
        messages = [entry["message"] for entry in Store.open(uri).history()] if Store.exists(uri) else []
        names = [message.removeprefix("study smoke: ") for message in messages if message.startswith("study smoke: ")]
        done = [name.split(" ", 1) for name in names if not name.endswith(("points asked", "point asked"))]
        return [f"{_STAGES[stage]}: {shard}" for stage, shard in done]

    until(stages, 150, serve_log, "snapshot")
    outcome = ended(client, scheduled, serve_log)
    assert (outcome.state_type.value, outcome.auto_scheduled, outcome.name) == ("COMPLETED", True, "tiny")
    assert re.fullmatch(r"[\d,]+ points? computed, [\d,]+ cells? trained, [\d,]+ commits?", outcome.state.message)

    def recorded() -> dict[str, str] | None:  # task runs are recorded from events, a moment later
        runs = client.read_task_runs()
        found = {run.name: run.state_type.value for run in runs if run.name in stages()}
        return found if set(found) == set(stages()) and set(found.values()) == {"COMPLETED"} else None

    names = list(until(recorded, 30, serve_log, "record of every stage"))
    assert len(stages()) == len(names)
    assert all(name.startswith(("train: uniform: ", "sweep: uniform: ")) for name in names)
    assert [run.name for run in client.read_flow_runs() if run.parent_task_run_id] == []

    follower = until(lambda: chained(client), 60, serve_log, "run after this one")[0]  # before the next tests use it
    assert (follower.state_type.value, follower.state.message.split(",")[0]) == ("COMPLETED", "0 points computed")
    assert set(follower.tags) >= {"diffatlas", "smoke"}

    made_by = Store.open(uri).history()[0]["metadata"]
    assert (made_by["started_by"], made_by["deployment"], made_by["flow_run"]) == ("schedule", "tiny", "tiny")

    artifacts = {artifact.key: artifact for artifact in client.read_artifacts()}
    assert artifacts["smoke-progress"].data == 100
    assert artifacts["smoke-summary"].type == "table"
    assert '"formulation": "edm"' in str(artifacts["smoke-summary"].data)
    about = events(client, FINISHED, "smoke")[0]
    assert about["store"] == uri
    assert (about["snapshot"], about["report"]) == (Store.open(uri).snapshot(), str(Path("reports/smoke.html")))
    counts = "{computed:,} points computed, {trained} cells trained, {committed} commits".format(**about)
    assert counts == outcome.state.message
    assert (about["failed"], about["moved"]) == (0, "")

    address = re.search(r"\((file://.*)\)", artifacts["smoke-report"].data)
    assert address
    page = Path(unquote(urlsplit(address[1]).path))
    assert page == folder / "reports" / "smoke.html"
    assert page.stat().st_size > 10_000


def events(client: Any, event: str, study: str) -> list[dict[str, Any]]:
    """The payloads of the events of a study, the first one first, as Prefect's server has them."""
    wanted = {"event": {"name": [event]}, "resource": {"id": [f"diffatlas.study.{study}"]}, "order": "ASC"}

    def found() -> Any:
        answer = client.request("POST", "/events/filter", json={"filter": wanted})
        return [one["payload"] for one in answer.json()["events"]]

    deadline = time.monotonic() + 60
    while not (payloads := found()):
        assert time.monotonic() < deadline, f"no event {event} of {study}"
        time.sleep(0.5)
    return list(payloads)


def test_what_was_scheduled_lies_in_postgresql(database: str | None, client: Any, scheduled: Any) -> None:
    if database is None:
        pytest.skip(str(why_not()))
    assert ask(database, f"select name from flow_run where id = '{scheduled.id}'") == scheduled.name  # noqa: S608
    assert int(ask(database, "select count(*) from flow_run")) >= len(client.read_flow_runs())


def test_a_run_on_a_store_that_is_in_use_fails_with_its_holder_and_writes_nothing(
    client: Any, scheduled: Any, folder: Path, serve_log: Path
) -> None:
    ended(client, scheduled, serve_log)
    store = Store.open(str(folder / "answers"))
    before = store.history()
    changed = {"study": "smoke", "store": store.uri, "overrides": [*TINY, "seeds=3"]}
    with store.coordinate():
        run = client.create_flow_run_from_deployment(scheduled.deployment_id, parameters=changed)
        outcome = ended(client, run, serve_log)
    assert outcome.state_type.value == "FAILED"
    assert f"store {store.uri}: in use by another run" in outcome.state.message
    assert f"process {os.getpid()}," in outcome.state.message
    assert store.history() == before
    said = serve_log.read_text()
    assert f"store-locked: store {store.uri}: in use by another run" in said
    assert "Traceback" not in said


def chained(client: Any) -> list[Any]:
    """The runs of the entry that follows another one, as far as they have ended."""
    return [run for run in client.read_flow_runs() if run.name == "chained" and run.state.is_final()]


def test_a_run_whose_entry_waits_completes_when_the_store_is_free(
    client: Any, scheduled: Any, folder: Path, serve_log: Path
) -> None:
    ended(client, scheduled, serve_log)
    store, said, followed = Store.open(str(folder / "answers")), len(serve_log.read_text()), len(chained(client))
    waits = {"study": "smoke", "store": store.uri, "overrides": [*TINY, "name=waits"], "wait": 10}
    with store.coordinate():
        run = client.create_flow_run_from_deployment(scheduled.deployment_id, parameters=waits)
        until(lambda: f"waiting: store {store.uri}" in serve_log.read_text()[said:], 120, serve_log, "word of waiting")
        assert client.read_flow_run(run.id).state_type.value == "RUNNING"
    outcome = ended(client, run, serve_log)
    assert (outcome.state_type.value, outcome.state.message.split(",")[0]) == ("COMPLETED", "0 points computed")
    assert "waits" in {str(entry["metadata"].get("study")) for entry in store.history()}
    until(lambda: len(chained(client)) > followed, 60, serve_log, "run after this one")  # the next tests use the store


def test_failed_points_are_told_by_name_and_reason_and_without_a_traceback(
    client: Any,
    scheduled: Any,
    folder: Path,
    serve_log: Path,
    url: str,
    messages: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what moved reaches a webhook once: in the first of two nights a metric has another version
    than when its values were stored, and gives others. The entry that follows does not begin.
    """
    ended(client, scheduled, serve_log)
    followed = len(chained(client))
    (folder / "boom.py").write_text(BOOM)
    failing = [*TINY, "formulations=[edm]", "samplers=[heun]", 'metrics=["size:Size"]', "name=failing"]
    (folder / "size.py").write_text(SIZE.replace("VERSION", "1").replace("VALUE", "float(samples.abs().mean())"))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", "size,boom")
    answer(str(folder / "answers"), load_study("smoke", failing).spec())
    (folder / "size.py").write_text(SIZE.replace("VERSION", "2").replace("VALUE", "9 * float(samples.square().mean())"))
    failing.append('samplers=[heun,"boom:Boom"]')
    for night in (1, 2):  # the second run computes nothing, and tells the same
        before = len(serve_log.read_text())
        if night == 1:
            message = backfilled(folder, url, failing[len(TINY) :])
        else:
            changed = {"study": "smoke", "store": str(folder / "answers"), "overrides": failing}
            run = client.create_flow_run_from_deployment(scheduled.deployment_id, parameters=changed)
            outcome = ended(client, run, serve_log)
            assert outcome.state_type.value == "FAILED"
            message = outcome.state.message
        assert re.match(r"\d+ points? failed; \d+ points? computed", message)
        assert FAILURE in serve_log.read_text()[before:]
        until(lambda: len(about(messages, "failing", FAILED)) == night, 30, serve_log, "message")  # noqa: B023
        assert len(about(messages, "failing", MOVED)) == 1
    said = serve_log.read_text()
    assert "Traceback" not in said
    assert "TypeError" not in said
    failed = about(messages, "failing", FAILED)[0]
    assert failed["subject"] == "diffatlas: failing failed"
    assert "sampling failed: ArithmeticError: no, not this one" in failed["text"]
    moved = about(messages, "failing", MOVED)[0]
    assert moved["subject"] == "diffatlas: numbers of failing moved"
    what = next(one for one in moved["payload"]["moved"] if one["at"]["formulation"] == "edm")
    assert (what["metric"], what["at"]["sampler"], what["at"]["steps"]) == ("size:Size", "heun", 2)
    assert 3 * what["old"] < what["new"]
    assert (what["verdict"], moved["payload"]["more"]) == ("worse", 0)
    assert what["p_corrected"] < 0.05
    assert moved["payload"]["after"] in {entry["snapshot"] for entry in Store.open(str(folder / "answers")).history()}
    (by_block,) = about(messages, "failing", "by a block")
    assert (by_block["subject"], by_block["text"]) == ("failing moved", moved["payload"]["summary"])
    assert about(messages, "smoke", MOVED) == []  # a first night moves nothing
    (locked,) = about(messages, "smoke", FAILED)
    assert "in use by another run" in locked["text"]
    assert len(chained(client)) == followed
    assert sum(run.name == "chained" for run in client.read_flow_runs()) == followed


def backfilled(folder: Path, url: str, changes: list[str]) -> str:
    """What was said of the one run that was lacking, and has failed."""
    home = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": url, **ACCESS}
    home["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(SERVE.with_name("backfill.py")), "--schedules", "schedules.yaml"]
    for each in ("name=same formulations=[edm,vp]", " ".join(changes)):
        command += ["--each", each]
    command += ["--entry", "tiny"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | home, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 1, done.stderr
    first, last = (line.split(": ", 1)[1] for line in done.stderr.splitlines() if line.startswith("1/1 tiny "))
    assert first == "8 points are lacking"
    return last


def about(messages: list[dict[str, Any]], study: str, event: str) -> list[dict[str, Any]]:
    return [one for one in messages if one["event"] == event and one["payload"].get("study") == study]


def program(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    return b""


def test_when_serving_stops_its_run_is_cancelled_and_nothing_is_left(
    client: Any,
    scheduled: Any,
    folder: Path,
    serving: Any,
    serve_log: Path,
) -> None:
    """And while it computes, all that listens does so on loopback, and Ray wants a token."""
    store = str(folder / "other")
    long = {"study": "smoke", "store": store, "overrides": [*TINY, "training.steps=1000000"]}
    run = client.create_flow_run_from_deployment(scheduled.deployment_id, parameters=long)

    def training() -> bool:
        mine = [task for task in client.read_task_runs() if task.flow_run_id == run.id]
        return any(task.name.startswith("train: ") and task.state_type.value == "RUNNING" for task in mine)

    until(training, 240, serve_log, "training")
    everything = {pid for pid, _ in descendants(serving.pid)}
    assert {LISTENS} <= listening_addresses({serving.pid, *everything}) <= LOOPBACK
    (raylet,) = (pid for pid in everything if program(pid).endswith(b"/raylet"))
    variables = dict(one.split("=", 1) for one in Path(f"/proc/{raylet}/environ").read_text().split("\0") if one)
    assert variables[MODE] == "token"
    token = Path(variables[FILE])
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    serving.terminate()
    assert serving.wait(60) == 0
    assert "stopped" in serve_log.read_text()
    assert client.read_flow_run(run.id).state_type.value == "CANCELLED"
    assert end_orphans() == []
    with Store.open(store).coordinate():  # its lock is free
        pass


def test_that_a_serving_process_was_killed_is_told_once_by_the_dead_mans_switch(
    client: Any,
    folder: Path,
    url: str,
    automations: Callable[..., list[str]],
    messages: list[dict[str, Any]],
) -> None:
    """With half a minute in the place of 26 hours, after the end of a run of the schedule."""
    soon, log = folder / "automations.yaml", folder / "killed.log"
    soon.write_text(SHIPPED_AUTOMATIONS.read_text().replace("within: 93600", "within: 30"))
    assert [line.split(":")[0] for line in automations(soon)] == ["unchanged", "unchanged", "changed"]
    answer(str(folder / "quiet"), load_study("smoke", TINY).spec())
    overrides = "".join(f"    - {override!r}\n" for override in TINY)
    entry = f"- study: smoke\n  store: quiet\n  cron: '0 0 1 1 *'\n  name: quiet\n  overrides:\n{overrides}"
    (folder / "quiet.yaml").write_text(entry)

    def served() -> Any:
        return next((found for found in client.read_deployments() if found.name == "quiet"), None)

    def told() -> list[str]:
        return [one["subject"] for one in messages if "no run has finished" in one["automation"]]

    with process([*SERVING[:-1], "quiet.yaml"], folder, log, 5, **home_of(folder, url)) as serving:
        run = client.create_flow_run_from_deployment(until(served, 90, log, "deployment").id)
        assert ended(client, run, log).state_type.value == "COMPLETED"
        assert listening_addresses({serving.pid, *(pid for pid, _ in descendants(serving.pid))}) == {LISTENS}  # idle
        serving.kill()
        assert serving.wait() == -signal.SIGKILL
    until(told, 120, log, "message of the switch")
    time.sleep(5)
    assert told() == ["diffatlas: no run has finished in time"]


def test_the_list_is_deployed_to_a_pool_and_its_schedule_fires_and_is_told(
    client: Any, folder: Path, url: str, automations: Any, messages: list[dict[str, Any]]
) -> None:
    """A worker's process finds the flow; all points but those of a sampler that raises are there."""
    del automations  # as the tests before: whatever listens is told
    home = home_of(folder, url)
    (folder / "boom.py").write_text(BOOM)
    pooled = [*TINY, "formulations=[edm]", "samplers=[heun]", "name=pooled"]
    answer(str(folder / "deployed"), load_study("smoke", pooled).spec())
    pooled.append('samplers=[heun,"boom:Boom"]')
    overrides = "".join(f"    - {override!r}\n" for override in pooled)
    second = (datetime.now(UTC) + timedelta(seconds=30)).second
    entry = f"- study: smoke\n  store: deployed\n  cron: '* * * * * {second}'\n  name: pooled\n  overrides:\n"
    (folder / "pool.yaml").write_text(entry + overrides)
    command = [sys.executable, str(SERVE.with_name("deploy.py")), "--schedules", "pool.yaml"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | home, capture_output=True, text=True, timeout=120, check=True
    )
    assert f"work pool diffatlas made at {url}" in done.stderr
    (deployment,) = (found for found in client.read_deployments() if found.name == "pooled")
    log = folder / "worker.log"

    def running() -> Any:
        runs = [run for run in client.read_flow_runs() if run.deployment_id == deployment.id]
        return next((run for run in runs if run.state_type.value in ("RUNNING", "FAILED", "COMPLETED")), None)

    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "diffatlas", "--limit", "1"]
    with process(worker, folder, log, 60, **home) as working:
        run = until(running, 180, log, "scheduled flow run")
        client.pause_deployment(deployment.id)
        running_tree = {working.pid, *(pid for pid, _ in descendants(working.pid))}
        assert {LISTENS} <= listening_addresses(running_tree) <= LOOPBACK
        outcome = ended(client, run, log)
        until(lambda: not descendants(working.pid), 60, log, "end of the process")
        assert listening_addresses({working.pid}) <= {LISTENS}  # idle
    assert (outcome.state_type.value, outcome.auto_scheduled, outcome.name) == ("FAILED", True, "pooled")
    assert re.match(r"\d+ points? failed; \d+ points? computed", outcome.state.message)
    said = log.read_text()
    assert FAILURE in said
    assert "Traceback" not in said
    until(lambda: about(messages, "pooled", FAILED), 30, log, "message")
    (told,) = about(messages, "pooled", FAILED)
    assert told["subject"] == "diffatlas: pooled failed"


def test_a_served_run_whose_server_is_gone_for_good_does_its_work_and_says_so(
    client: Any, folder: Path, prefect: tuple[str, Any]
) -> None:
    """The last of these tests: the server is killed while a sampler waits for that. What serves goes on
    asking, where Prefect's own would end itself and its run.
    """
    url, server = prefect
    log = folder / "gone.log"
    (folder / "waits.py").write_text(WAITS.replace("FOLDER", repr(str(folder))))
    asked = [*TINY, "formulations=[edm]", 'samplers=[heun,"waits:Waits"]', "name=gone"]
    overrides = "".join(f"    - {override!r}\n" for override in asked)
    entry = f"- study: smoke\n  store: gone\n  cron: '0 0 1 1 *'\n  name: gone\n  overrides:\n{overrides}"
    (folder / "gone.yaml").write_text(entry)

    def served() -> Any:
        return next((found for found in client.read_deployments() if found.name == "gone"), None)

    impatient = home_of(folder, url) | {"PREFECT_CLIENT_MAX_RETRIES": "0"}
    try:
        with process([*SERVING[:-1], "gone.yaml"], folder, log, 5, **impatient) as serving:
            client.create_flow_run_from_deployment(until(served, 90, log, "deployment").id)
            until((folder / "begun").exists, 120, log, "sampler")
            os.killpg(server.pid, signal.SIGKILL)
            (folder / "killed").touch()
            until(lambda: "server-gone: " in log.read_text(), 120, log, "word of the server")
            until(lambda: "exited with status code: 1" in log.read_text(), 60, log, "end of the run")
            assert serving.poll() is None
    finally:
        end_orphans()
    said = log.read_text()
    assert f"server-gone: Prefect's server at {url}" in said
    assert said.count("runs that are going on go on") == 1
    assert "Traceback" not in said
    points = open_results(str(folder / "gone"), "gone")
    assert set(points["status"].values) == {"ok"}
    assert set(points["sampler"].values) == {"heun", "waits:Waits"}
