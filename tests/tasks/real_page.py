"""One real study with a target of each kind: what pages are drawn from in tests. It is run once in
a process, and its page drawn once; files that need it say so by `together`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tasks.report import draw_report
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tests.tasks.tiny_store import answer
from tests.temporary import shared_folder

together = pytest.mark.xdist_group("page of all kinds")

SPEC: dict[str, Any] = {
    "name": "all-kinds",
    "description": "On the line, in the plane, in space, and of images; guided, too.",
    "formulations": ["edm", "vp"],
    "training": {"steps": 30, "batch": 32, "width": 16, "depth": 1, "data": 200},
    "samplers": ["heun", "ddim"],
    "steps": [1, 3, 10],
    "samples": 60,
    "metrics": ["w1", "ks", "score-error", "sliced-w2", "torus-distance", "mode-coverage"],
    "keep": {"samples": True, "trajectories": ["heun@10"]},
    "grids": [
        {"datasets": ["uniform"], "seeds": 3},
        {
            "datasets": ["eight_gaussians"],
            "formulations": ["edm"],
            "samplers": ["heun", {"name": "heun", "guidance": {"name": "class-label", "labels": [2, 3]}}],
        },
        {"datasets": ["torus"], "formulations": ["edm"], "samplers": ["heun"], "steps": [10]},
        {"datasets": ["digits"], "formulations": ["edm"], "samplers": ["heun"], "steps": [3, 10]},
    ],
}


@cache
def all_kinds() -> ModelledAnswers:
    """The answers to `SPEC`."""
    uri = str(shared_folder("all-kinds") / "store")
    answer(uri, SPEC)
    return ModelledAnswers(Store.open(uri), SPEC["name"])


@cache
def page_of_all_kinds() -> str:
    """Their page."""
    return draw_report(all_kinds())
