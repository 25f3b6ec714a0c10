"""Who is told of what: the shipped file is one that Prefect takes, its messages are sound, and what
is wrong with another is said before anything is changed. That messages arrive is shown in
`tests/end_to_end/test_scheduled.py`.
"""

import email
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from email import policy
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from types import SimpleNamespace as Object
from typing import Any
from uuid import uuid4

import pytest
from ruamel.yaml import YAML

from deployments.automations import SHIPPED_AUTOMATIONS, Told, read_automations
from deployments.schedules import ScheduleError
from flows.request import RunRequest
from flows.telling import FAILED, FINISHED, MOVED, end_told

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Prefect's, which is imported and not used

GOOD = {"name": "mine", "trigger": {"type": "event", "expect": [FAILED]}, "subject": "s", "text": "t"}


def test_the_shipped_ones_expect_what_runs_tell() -> None:
    expected = {event for entry in read_automations() for event in entry.trigger["expect"]}
    assert {FINISHED, FAILED, MOVED} <= expected
    switch = next(entry for entry in read_automations() if entry.trigger["posture"] == "Proactive")
    assert (switch.trigger["expect"], switch.trigger["within"]) == ([FINISHED], 26 * 3600)
    assert (
        switch.trigger["after"][0] == FINISHED
    )  # else its windows follow one another, and it is told up to twice as late


@pytest.mark.parametrize("entry", read_automations(), ids=lambda entry: str(entry.name))
def test_what_a_webhook_receives_is_json_whatever_names_and_reasons_hold(entry: Told) -> None:
    reason = 'no "such" file: {{ mine }}\n\\ <b>&amp; é'
    payload = {"study": "mine", "store": "s", "reason": reason, "text": reason, "summary": "1 moved", "before": "A"}
    told = rendered(entry, Object(event=FAILED, payload=payload, resource={}))
    assert told["subject"].startswith("diffatlas: ")
    assert told["payload"] == payload
    if "payload" in entry.text:
        assert reason in told["text"]
    assert rendered(entry, None)["payload"] == {}  # a switch that has never seen an event


def test_of_a_process_that_died_the_message_says_what_prefect_says() -> None:
    resource = {"prefect.resource.name": "nightly", "prefect.state-message": "exited with status code -9"}
    entry = next(one for one in read_automations() if FAILED in one.trigger["expect"])
    told = rendered(entry, Object(event="prefect.flow-run.Crashed", payload={}, resource=resource))
    assert (told["subject"], told["text"]) == ("diffatlas: nightly failed", "exited with status code -9")


def rendered(entry: Told, event: Any) -> dict[str, Any]:
    from prefect.server.utilities.user_templates import render_user_template_sync

    automation = entry.automation(uuid4(), webhook=True)
    template = automation.model_dump()["actions"][0]["payload"]
    found: dict[str, Any] = json.loads(render_user_template_sync(template, {"automation": automation, "event": event}))
    return found


class Letterbox(StreamRequestHandler):
    """A mail server that keeps what it is given: who sends, to whom, and the letter."""

    letters: list[tuple[bytes, bytes]]

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        told = b""
        for line in self.rfile:
            if line.upper().startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.letters.append((told, b"".join(line.removeprefix(b".") for line in lines)))
            told += line
            self.wfile.write(b"250 good\r\n")


def test_the_guides_program_makes_letters_of_messages() -> None:
    """With a mail server on loopback, and the text of a message as Prefect's server posts it."""
    guide = (SHIPPED_AUTOMATIONS.parents[1] / "docs" / "scheduling.md").read_text(encoding="utf-8")
    found = re.search(r"^```\n(import json, os, smtplib\n.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    assert found
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = found[1].replace('("127.0.0.1", 8025)', f'("127.0.0.1", {port})')
    assert str(port) in program
    reason = "no <file> \N{MULTIPLICATION SIGN} 3\n. a line of its own\n.\nthe last"
    payload = {"study": "mine", "reason": reason}
    entry = next(one for one in read_automations() if FAILED in one.trigger["expect"])
    message = rendered(entry, Object(event=FAILED, payload=payload, resource={}))
    letters: list[tuple[bytes, bytes]] = []
    with ThreadingTCPServer(("127.0.0.1", 0), type("Box", (Letterbox,), {"letters": letters})) as box:
        Thread(target=box.serve_forever, daemon=True).start()
        given = {"MAIL_FROM": "atlas@here", "MAIL_TO": "me@there", "MAIL_SERVER": f"127.0.0.1:{box.server_address[1]}"}
        with subprocess.Popen([sys.executable, "-c", program], env=os.environ | given, stderr=subprocess.PIPE) as mail:
            try:
                until_it_listens(mail, port)
                post = urllib.request.Request(f"http://127.0.0.1:{port}", json.dumps(message).encode())
                with urllib.request.urlopen(post, timeout=20) as answer:  # noqa: S310
                    assert answer.status == 204
            finally:
                mail.kill()
        box.shutdown()
    ((envelope, text),) = letters
    assert b"<atlas@here>" in envelope
    assert b"<me@there>" in envelope
    letter = email.message_from_bytes(text, policy=policy.default)
    assert (letter["From"], letter["To"], letter["Subject"]) == ("atlas@here", "me@there", "diffatlas: mine failed")
    body = letter.get_body()
    assert body is not None
    assert body.get_content().splitlines() == reason.splitlines()


def until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"trigger": {"type": "event", "posture": "Proactive", "within": 5}},
            "entry 1 (mine): trigger.event: .*10 seconds",
        ),
        ({"trigger": {"type": "event", "exspect": [FAILED]}}, "trigger: unknown key exspect .there are: .*expect"),
        ({"trigger": {"type": "never"}}, "trigger: "),
        ({"text": "{{ event.payload"}, "text: not a template"),
        ({"subject": ""}, "subject: "),
        ({"url": "https://hooks.example/secret"}, "url: Extra inputs"),
    ],
)
def test_what_is_wrong_is_told_with_its_entry(change: dict[str, object], expected: str, tmp_path: Path) -> None:
    file = tmp_path / "automations.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump([GOOD | change, GOOD, GOOD], stream)
    with pytest.raises(ScheduleError, match=expected.replace("(mine)", ".mine.")) as raised:
        read_automations(file)
    assert "'mine' names 2 entries" in str(raised.value)


def test_without_a_server_it_is_said_how_to_start_one(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    outcome = subprocess.run(
        [sys.executable, str(SHIPPED_AUTOMATIONS.with_suffix(".py"))],
        env=environment | {"PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert outcome.returncode == 3
    assert "prefect server start" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_what_cannot_be_told_fails_no_run() -> None:
    from prefect.logging import disable_run_logger

    no_outcome: Any = object()
    with disable_run_logger(), end_told(RunRequest("smoke")) as tell:
        tell(no_outcome)
