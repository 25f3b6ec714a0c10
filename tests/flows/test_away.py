"""Object storage that does not answer for a while: a real S3 server behind a proxy that cuts connections."""

import threading
import time

import pytest

import flows.listeners
from flows.events import Event, Hindered
from flows.listeners import Committer
from tasks.results import Answers
from tasks.store import Rows, Store, StoreUnavailable
from tasks.work.code import code_here
from tests.tasks.test_store_s3 import cut_off, point, s3, server

__all__ = ["s3", "server"]  # fixtures


def test_a_commit_waits_for_a_server_that_comes_back_and_is_refused_by_one_that_does_not(
    s3: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.listeners, "_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(flows.listeners, "AWAY_SECONDS", 20.0)
    told: list[Event] = []
    with cut_off(server) as (address, switch):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        store = Store.create(s3)
        with store.coordinate() as coordinator:
            committer = Committer("any", (), store, coordinator, {}, code_here(), {}, told.append)
            switch(True)
            back = threading.Timer(4.0, switch, [False])
            back.start()
            made = committer.patiently(lambda: coordinator.commit(Rows(points=[point(0)]), "waited", {}))
            assert back.finished.is_set()
            assert made == store.snapshot()
            (warning,) = told
            assert isinstance(warning, Hindered)
            assert "look whether the server answers" in warning.reason
            assert "the commit is tried again" in warning.reason

            monkeypatch.setattr(flows.listeners, "AWAY_SECONDS", 1.0)
            switch(True)
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="look whether the server answers"):
                committer.patiently(lambda: coordinator.commit(Rows(points=[point(1)]), "in vain", {}))
            assert time.monotonic() - began < 60
            switch(False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)
    assert Answers(Store.open(s3)).points["w1"].values.tolist() == [0.0]
