"""What a command costs before it does anything: its processor time over that of importing what it
cannot do without. Both find their modules compiled, as those of an installed package are, and each
command what the one before has kept.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.pairs import Ratio
from tests.tasks.tiny_store import SPEC, answer

ROUNDS = 5
_SET = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
_UNSET = {"PYTHONDONTWRITEBYTECODE", "DIFFATLAS_CACHE_MB"}


def _seconds(folder: str, *arguments: str) -> float:
    """Processor time of a Python process and of all that it started and waited for."""
    own = {"PYTHONPYCACHEPREFIX": f"{folder}/compiled", "DIFFATLAS_HOME": f"{folder}/home"}
    environment = {name: value for name, value in os.environ.items() if name not in _UNSET} | _SET | own
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def over_imports(command: list[str], imports: str, more: float = 0.0) -> Ratio:
    """A command on a small finished study over importing some libraries, alternately, after `more`
    seconds are taken off the command.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer(f"{folder}/results", SPEC)
        (Path(folder) / "tiny.yaml").write_text(json.dumps(SPEC))
        (Path(folder) / "reports").mkdir()
        (Path(folder) / "reports" / "tiny.html").touch()
        pairs = [
            (_seconds(folder, "-m", "flows", *command), _seconds(folder, "-c", f"import {imports}"))
            for _ in range(1 + ROUNDS)
        ][1:]
        ratios = [(asked - more) / imported for asked, imported in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


MEASURES = (
    (
        "query --study / import pandas, zarr, icechunk (1.5)",
        lambda: over_imports(["query", "--study", "tiny"], "pandas, zarr, icechunk"),
    ),
    ("plan, less a second / import torch (1.3)", lambda: over_imports(["plan", "tiny.yaml"], "torch", 1.0)),
    (
        "run of a finished study, less a second / import torch (1.3)",
        lambda: over_imports(["run", "tiny.yaml"], "torch", 1.0),
    ),
    (
        "run of a wrong study, less a second / import torch (1.3)",
        lambda: over_imports(["run", "tiny.yaml", "--set", "steps=many"], "torch", 1.0),
    ),
)
"""With the most that each should be."""
