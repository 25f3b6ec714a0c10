"""Makes the answers that ship: ``python deployments/atlas.py [--results FOLDER]``.

Runs what `STUDIES` lack in a store (``build/atlas``, or FOLDER), and copies their rows, without
samples and weights, to ``deployments/atlas``, which is ``atlas:`` to every command that reads. An
earlier one is replaced. Commit the folder; `tests/tasks/test_atlas.py` holds it to the studies as
they are.

Exit codes: those of ``diffatlas run``, if it does not end with 0.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "deployments" / "atlas"

STUDIES = ("uniform", "smoke", "reference", "restoration", "action-matching", "torus", "guidance")
"""Those that ship; which do not, and why, stands in `docs/query.md`."""


def main() -> None:
    """Run, then copy."""
    from tasks.results.shipping import ship
    from tasks.store import Store

    parser = argparse.ArgumentParser(description="Make the answers that ship.")
    parser.add_argument(
        "--results", default=str(ROOT / "build" / "atlas"), help="a store, in which the studies are run"
    )
    results = parser.parse_args().results
    for study in STUDIES:
        run = ["run", study, "--store", results, "--report", str(ROOT / "build" / f"{study}.html")]
        ended = subprocess.run([sys.executable, "-m", "diffatlas", *run], cwd=ROOT, check=False)  # noqa: S603 - ours
        if ended.returncode:
            sys.exit(ended.returncode)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / TARGET.name
        ship(Store.open(results), Store.create(str(made)), STUDIES)
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(made, TARGET)


if __name__ == "__main__":
    main()
