"""A home of its own for each file of these tests, and a temporary server in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.services import prefect_server
from tests.flows.services.processes import healthy
from tests.homes import new_home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = new_home(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFATLAS_HOME", str(path))
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield path


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:  # noqa: ARG001
    with prefect_server() as url:
        yield url
    assert not healthy(url)
    assert "PREFECT_API_URL" not in os.environ
