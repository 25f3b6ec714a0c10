"""What reads stored numbers waits for no library that computes them: also from Python (commands are
in `tests.flows.test_imports`).
"""

from __future__ import annotations

from pathlib import Path

from tests.tasks.golden_stores import unpacked
from tests.tasks.store_kit import python


def test_comparing_a_store_with_itself_does_without(tmp_path: Path) -> None:
    code = """
import sys
from tasks.compare import compare, summary
from tasks.results import open_results
points = open_results(sys.argv[1], "run")
print(summary(compare(points, points, by=("guidance", "sampling_schedule"))))
assert "torch" not in sys.modules
"""
    with python(code, unpacked("run-3", tmp_path)) as requested:
        out, err = requested.communicate()
    assert requested.returncode == 0, err
    assert "all are the same to the last bit" in out
