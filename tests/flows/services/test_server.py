"""A Prefect server is found or started, answers on loopback, and its absence is told. Real servers."""

import logging
import os
import signal
import time
from pathlib import Path
from uuid import uuid4

import pytest

from flows.services import ServiceUnavailable, orphans, prefect_server
from tests.flows.services.child import child, until_ready
from tests.flows.services.processes import healthy, listening_addresses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes through /proc"),
]


def test_a_server_starts_on_loopback_and_answers(server: str, home: Path) -> None:
    import prefect.settings

    assert healthy(server)
    assert os.environ["PREFECT_API_URL"] == server == prefect.settings.PREFECT_API_URL.value()
    (database,) = home.glob("prefect/*/prefect.db")
    (pid,) = orphans.processes_of(database.parent)
    assert listening_addresses({pid}) == {"0100007F"}


def test_a_server_that_runs_is_used_and_left_running(server: str) -> None:
    with prefect_server() as url:
        assert url == server
    assert healthy(server)


def test_a_configured_server_that_is_dead_is_reported(server: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with (
        temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ServiceUnavailable, match=r"http://127.0.0.1:9/api does not answer.*PREFECT_API_URL"),
        prefect_server(),
    ):
        pass
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:9/api"


def test_a_server_that_does_not_start_is_reported_with_its_log(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
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


def test_a_run_whose_slot_the_server_does_not_know_goes_on(server: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """As it is with a server that was started again. Prefect's own engine ends such a run."""
    import prefect
    from prefect.concurrency import _leases

    import flows.run_study

    assert flows.run_study  # which is what sees to it
    for name in ("_RENEWAL_RETRY_BASE_DELAY", "_RENEWAL_RETRY_MAX_DELAY"):  # Prefect would be patient for seconds
        monkeypatch.setattr(_leases, name, 0.01)

    @prefect.flow
    def holds() -> str:
        with _leases.maintain_concurrency_lease(uuid4(), 0.1, raise_on_lease_renewal_failure=True):
            end = time.monotonic() + 2.0
            while time.monotonic() < end:
                time.sleep(0.01)
        return "went on"

    said: list[str] = []
    hears = logging.Handler()
    monkeypatch.setattr(hears, "emit", lambda record: said.append(record.getMessage()))
    logger = logging.getLogger("prefect.flow_runs")
    logger.addHandler(hears)
    try:
        assert holds() == "went on"
    finally:
        logger.removeHandler(hears)
    warned = [line for line in said if "does not renew this run's slot of its deployment" in line]
    assert len(warned) == 1, said
    assert "(PrefectHTTPStatusError)" in warned[0]


def test_a_second_run_has_a_server_of_its_own(server: str, home: Path) -> None:
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
