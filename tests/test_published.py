"""Published numbers stand in the guide as they stand in the file of their source."""

from __future__ import annotations

import csv
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
ROW = re.compile(
    r"^\| `(\w+)` \| ([\d,]+) \| (\d+) \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE
)
ALGORITHMS = ("NPE", "SNPE", "NLE", "SNLE")


def test_every_published_number_of_the_guide_is_that_of_the_file() -> None:
    with (DOCS / "published" / "c2st.csv").open(newline="") as file:
        known = {
            (r["task"], r["simulations"], r["observation"], r["run"], r["algorithm"]): r["c2st"]
            for r in csv.DictReader(file)
        }
    rows = ROW.findall((DOCS / "posteriors.md").read_text(encoding="utf-8"))
    assert rows
    for task, simulations, observation, *numbers in rows:
        run = "corrected" if task == "gaussian_mixture" else "paper"
        for algorithm, number in zip(ALGORITHMS, numbers, strict=True):
            value = known[task, simulations.replace(",", ""), observation, run, algorithm]
            assert number == f"{float(value):.3f}", (task, simulations, observation, algorithm)
