"""What every test relies on: tests that share services run one after the other, and signals end
what they are sent to.
"""

import signal

import pytest


def pytest_configure() -> None:
    """Heed signals: who starts the tests in the background has them, and every process they start,
    ignore some.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run where pytest-xdist cannot keep a group on one worker: it would only tell by
    failures under load.
    """
    if not getattr(config.option, "loadgroup", False):
        return
    loose = [item.nodeid for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if loose:
        raise pytest.UsageError(f"this pytest and pytest-xdist do not keep groups of tests together: {loose[0]}")
