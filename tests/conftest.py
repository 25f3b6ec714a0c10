"""What every test relies on: tests that share services run one after the other, those of a file in
one process, signals end what they are sent to, and nothing is kept in the user's cache folder.
"""

import os
import signal
from collections.abc import Generator

import pytest

from tests.temporary import shared_folders_in

SERVICES = "services"  # the longest group


def pytest_configure(config: pytest.Config) -> None:
    """Heed signals: who starts the tests in the background has them, and every process they start,
    ignore some. Let no test write to the user's cache folder; those of the cache have one of their
    own. And begin with what is put first, not with the groups of the most tests.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ["DIFFATLAS_CACHE_MB"] = "0"
    config.option.loadscopereorder = False


@pytest.fixture(scope="session", autouse=True)
def _shared_folders(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    with shared_folders_in(tmp_path_factory.mktemp("shared")):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, object, object]:
    """Keep the tests of a file together: what they share is then made once and not by each worker.
    And begin with the long ones: no worker is left alone with them at the end.

    Refuses to run where pytest-xdist cannot keep a group on one worker: it would only tell by
    failures under load.
    """
    if not getattr(config.option, "loadgroup", False):
        return (yield)
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    long = {_group(item) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (_group(item) != SERVICES, _group(item) not in long))
    result = yield
    if loose := [item.nodeid for item in items if "@" not in item.nodeid]:
        raise pytest.UsageError(f"this pytest and pytest-xdist do not keep groups of tests together: {loose[0]}")
    return result


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    return str(marker.args[0])
