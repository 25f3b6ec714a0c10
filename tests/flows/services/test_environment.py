"""Prefect, Ray and Icechunk are offline and quiet, unless somebody asked for the noise."""

import os
import subprocess
import sys

import pytest

from flows.services import quiet_environment


def test_importing_the_services_imports_neither_prefect_nor_ray() -> None:
    program = "import sys, flows.services; print(*({'prefect', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b""


def test_a_variable_that_is_set_wins_over_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICECHUNK_LOG", "debug")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    quiet_environment()
    assert os.environ["ICECHUNK_LOG"] == "debug"
    assert os.environ["DO_NOT_TRACK"] == "1"
