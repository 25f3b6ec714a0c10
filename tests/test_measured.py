"""The table of speeds in the README has the names of what is measured, and comes out of one run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.run import MEASURES, main, markdown

README = (Path(__file__).parents[1] / "README.md").read_text()
ROW = re.compile(r"^\| (?P<what>.+) \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$", re.MULTILINE)


def test_every_line_of_the_readmes_table_is_measured_by_that_name() -> None:
    _, _, table = README.partition("| what | ratio | from | to |")
    rows = [found["what"] for found in ROW.finditer(table.partition("\n\n")[0])]
    assert len(rows) >= 20
    assert [row for row in rows if row not in dict(MEASURES)] == []
    assert len(set(rows)) == len(rows)


def test_the_table_is_made_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (name, _), (other, _), (third, _), *_ = MEASURES
    ratios: list[dict[str, Any]] = [
        {"what": name, "ratio": 13.64, "from": 2.5, "to": 20.0},
        {"what": other, "ratio": None, "from": None, "to": None},
        {"what": third, "ratio": 0.0748, "from": 0.35, "to": 1.114},
    ]
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"machine": {}, "ratios": ratios}))
    main(["--markdown", str(file)])
    assert capsys.readouterr().out.splitlines() == [
        "| what | ratio | from | to |",
        "|---|---|---|---|",
        f"| {name} | 13.6 | 2.50 | 20.0 |",
        f"| {third} | 0.075 | 0.35 | 1.11 |",
    ]
    rows = [found["what"] for found in ROW.finditer(markdown(ratios))]
    assert rows == [name, third]
