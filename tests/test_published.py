"""Published numbers stand in the guide as they stand in the file of their source."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from tasks.study import load_study

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
    text = (DOCS / "posteriors.md").read_text(encoding="utf-8")
    rows = ROW.findall(text)
    assert (
        len(rows) == len(re.findall(r"^\| *`?\w+`? *\| *[\d,]+ *\| *\d+ *\|", text, re.MULTILINE)) > 0
    )  # each is read
    for task, simulations, observation, *numbers in rows:
        run = "corrected" if task == "gaussian_mixture" else "paper"
        for algorithm, number in zip(ALGORITHMS, numbers, strict=True):
            value = known[task, simulations.replace(",", ""), observation, run, algorithm]
            assert number == f"{float(value):.3f}", (task, simulations, observation, algorithm)


def test_the_published_distances_stand_in_the_guide_and_in_no_other_way() -> None:
    """Both in the sentence and in the table of docs/couplings.md; the study has as many seeds."""
    lines = (DOCS / "published" / "c2ot.csv").read_text(encoding="utf-8").splitlines()
    rows = {row["solver"]: f"{row['mean']} ± {row['standard_deviation']}" for row in csv.DictReader(lines[1:])}
    assert {*rows} == {"euler 1 step", "adaptive"}
    text = (DOCS / "couplings.md").read_text(encoding="utf-8")
    cells = [[cell.strip(" `") for cell in line.split("|")] for line in text.splitlines()]
    table = {row[1]: row[5] for row in cells if len(row) > 6}
    told = {name: table[name] for name in ("euler`, 1 step", "adaptive")}
    assert told == {"euler`, 1 step": rows["euler 1 step"], "adaptive": rows["adaptive"]}
    assert all(f"{number}" in " ".join(text.partition("## ")[0].split()) for number in rows.values())
    assert len(load_study("couplings").seeds) == 10
