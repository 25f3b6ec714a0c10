"""Nothing of a run is left behind, whatever ended it. Real processes, real signals."""

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from flows.services import orphans
from tests.flows.services.child import WITH_RAY, child, until_ready
from tests.flows.services.processes import descendants, healthy, remaining

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes through /proc"),
]
PEM = b"PREFECT_API_SSL_CERT_FILE="


@pytest.mark.parametrize("how", ["exception", "SIGINT", "SIGTERM"])
def test_nothing_is_left_after(how: str, home: Path) -> None:
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


def test_after_sigkill_the_server_ends_itself_and_the_next_run_ends_the_rest_in_silence(home: Path) -> None:
    process = child(home, WITH_RAY)
    until_ready(process)
    started = descendants(process.pid)
    servers = {entry for entry in started if b"server_process" in Path(f"/proc/{entry[0]}/cmdline").read_bytes()}
    assert len(servers) == 1
    own = {line for pid, _ in started for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}
    (authority,) = (Path(os.fsdecode(line[len(PEM) :])) for line in own if line.startswith(PEM))
    assert authority.exists()
    process.kill()
    process.communicate()
    assert not remaining(servers, 5)

    following = child(home, WITH_RAY, "from tests.flows.services.sample_flow import sample_flow; sample_flow(2)")
    until_ready(following)
    assert not remaining(started, 0)
    assert not authority.parent.exists()
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
    folders = orphans.short_temporary_directory().glob(f"{orphans.RUN_PREFIX}*")
    assert not [folder for folder in folders if orphans.is_abandoned(folder)]


def test_a_process_without_our_mark_or_with_a_living_owner_is_spared(home: Path) -> None:  # noqa: ARG001
    unmarked = subprocess.Popen(["sleep", "60"])
    with orphans.run_folder() as folder:
        marked = subprocess.Popen(["sleep", "60"], env={orphans.MARK: str(folder), "PATH": os.environ["PATH"]})
        try:
            orphans.end_orphans()
            assert marked.poll() is None
            (folder / "owner.json").write_text(
                f'{{"pid": {unmarked.pid}, "start": "1", "namespace": "{orphans.pid_namespace()}"}}'
            )
            assert orphans.end_orphans() == [marked.pid]
            assert unmarked.poll() is None
        finally:
            for process in (marked, unmarked):
                process.kill()
                process.wait()
