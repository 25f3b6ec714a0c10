"""Ids of what the shipped studies ask are what they were: a store made earlier is found again.

`golden/plan_ids.json` holds for each study how many cells and points it has, and a digest of all
ids in their order. Whoever changes a study, or raises the version of a component, writes the file
anew (`python -m tests.tasks.test_plan_ids`) and says why; whoever only moves code does not.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import pytest

from tasks.plan import make_plan
from tasks.study import load_study, shipped_studies
from tasks.study.collection import load_collection

GOLDEN = Path(__file__).with_name("golden") / "plan_ids.json"


@functools.cache
def single() -> dict[str, str]:
    """The shipped files of one study each, by the study's name."""
    alone = [name for name in shipped_studies() if not load_collection(name).name]
    return {name.rpartition("/")[2]: name for name in alone}


def digest(name: str) -> list[int | str]:
    plan = make_plan(load_study(name), {}, ())
    text = "\n".join(f"{point.cell.id} {point.id}" for point in plan.points)
    return [len(plan.cells), len(plan.points), hashlib.sha256(text.encode()).hexdigest()[:20]]


KEPT: dict[str, list[int | str]] = json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_ids_of_every_shipped_study_are_kept() -> None:
    assert KEPT.keys() == single().keys()


@pytest.mark.parametrize("name", [name for name in shipped_studies() if name.rpartition("/")[2] in KEPT])
def test_a_shipped_study_asks_under_the_ids_that_it_always_had(name: str) -> None:
    assert digest(name) == KEPT[name.rpartition("/")[2]]


if __name__ == "__main__":
    lines = [f'  "{name}": {json.dumps(digest(source))}' for name, source in sorted(single().items())]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
