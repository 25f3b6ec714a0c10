"""The files that a newcomer reads to follow one step: `docs/architecture.md` names them, and
running code agrees.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Self

import pytest
import torch

from diffusion.datasets import Uniform
from diffusion.formulations import ElucidatedDM
from diffusion.models import counted
from diffusion.samplers import NoiseStreams, samplers
from diffusion.schedules import EDM
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import levels_of
from diffusion.training import Member, Training, train

ROOT = Path(__file__).resolve().parents[1]
MOST = {"a sampler step": 4, "a training step": 6, "a study": 15}


def named(way: str) -> list[str]:
    """The files that the page lists under a way, in its order."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    _, _, section = page.partition(f"### The way of {way}\n")
    section = section.partition("\n#")[0]
    return re.findall(r"^\d+\. `([\w/.]+)`", section, flags=re.MULTILINE)


class Passed:
    """The project's files whose functions are called, in the order of their first call, while
    `wanted` says so.
    """

    def __init__(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        self.files: list[str] = []
        self._wanted = wanted

    def __enter__(self) -> Self:
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event != "call" or not self._wanted(frame.f_code.co_name) or not path.is_relative_to(ROOT):
            return
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("diffusion/", "tasks/", "flows/")) and name not in self.files:
            self.files.append(name)


@pytest.mark.parametrize("way", MOST)
def test_a_way_names_files_that_are_there_and_few(way: str) -> None:
    files = named(way)
    assert 0 < len(set(files)) == len(files) <= MOST[way]
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_a_sampler_step_passes_through_the_files_that_the_page_names() -> None:
    levels = levels_of([EDM()], [grids.create("edm")], 5)
    x = torch.randn(1, 10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rule = samplers.create("heun")
    denoiser, counter = counted(lambda x, _alpha, _sigma: 0 * x)
    noise = NoiseStreams([("way",)], 10, 2)
    with Passed() as passed:
        rule.step(denoiser, x, levels[0], levels[1], noise)
    assert counter.nfe == 2
    assert sorted(passed.files) == sorted(named("a sampler step"))


def test_a_training_step_passes_through_the_files_that_the_page_names() -> None:
    """One step between two evaluations of the loss, its batch already drawn."""
    losses = 0

    def between(function: str) -> bool:
        nonlocal losses
        losses += function == "losses"
        return losses == 2

    formulation = ElucidatedDM()
    member = Member(Uniform(), formulation, formulation.own_schedule(), "way")
    data = torch.rand(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with Passed(between) as passed:
        train([member], [data], Training(steps=640, batch=8, width=8, depth=1, data=50))
    assert losses == 640
    assert sorted(passed.files) == sorted(named("a training step"))
