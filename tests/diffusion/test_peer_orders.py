"""The orders that docs/peers.md tells of every name are those measured, and what stochastic rules give
is the law that they aim at.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import pytest
from torch import Tensor

from diffusion.models import Denoiser
from diffusion.samplers import DPMSolver2M, EulerMaruyama, Noise
from diffusion.schedules.levels import Level
from tests.diffusion.peer_orders import (
    OrderShown,
    distance_from_the_law,
    drawn_order,
    ends_of,
    order_shown,
)
from tests.diffusion.test_peers import NAMES, Spec, name_of, peer
from tests.tasks.store_kit import ROOT

ROW = re.compile(r"^\| ([\w-]+) \| `(\w+)` \| (\d) \| ([\d.]+) \| ([\d.]+)(?: ± ([\d.]+))? \|$", re.MULTILINE)
SHORT = 0.2  # of the claimed order, at these numbers of steps: as the page of a study has it


def told() -> dict[str, OrderShown]:
    found = ROW.findall((ROOT / "docs" / "peers.md").read_text(encoding="utf-8"))
    return {
        f"{library}-{name}": OrderShown(int(claimed), float(normal), float(mixture), float(error) if error else None)
        for library, name, claimed, normal, mixture, error in found
    }


def test_every_name_has_a_row_and_those_that_fall_short_have_a_section() -> None:
    assert [*told()] == [name_of(case) for case in NAMES]
    text = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    sections = text.partition("Names that fall short of what they claim")[2]
    for name, row in told().items():
        if min(row.normal, row.mixture + 2 * (row.error or 0)) < row.claimed - SHORT:
            assert f"`{name.split('-')[-1]}`" in sections, name


@pytest.mark.parametrize("case", NAMES, ids=name_of)
def test_the_order_of_a_row_is_the_one_measured_and_drawn_samples_follow_the_mixture(case: tuple[str, Spec]) -> None:
    """Drawn orders from an eighth of the samples where the row has several blocks: 4.5 standard errors of
    both; elsewhere the same numbers but for rounding. The law at the end by means of four functions of
    80,000 samples, what the steps leave taken off: chi-square, a false alarm in 10^6 of each rule.
    """
    sampler = peer(case[0], **case[1])
    row, found = told()[name_of(case)], order_shown(sampler)
    assert found.claimed == row.claimed
    assert found.normal == pytest.approx(row.normal, abs=0.03)
    assert (found.error is None) == (row.error is None)
    errors = 4.5 * math.hypot(found.error or 0, row.error or 0) if row.claimed > 1 else 0
    assert found.mixture == pytest.approx(row.mixture, abs=0.03 + errors)
    if found.error is not None:
        assert distance_from_the_law(ends_of(sampler.showing_order(), 1), max(round(row.mixture), 1)) < 33.4


def test_there_are_stochastic_rules_of_all_three() -> None:
    drawn = [case for case in NAMES if told()[name_of(case)].error is not None]
    assert {library for library, _ in drawn} == {"azula", "diffusers", "k-diffusion"}


class Quieter:
    """Noise of which a twentieth is missing."""

    def __init__(self, noise: Noise) -> None:
        self._noise = noise

    def between(self, now: Level, then: Level) -> Tensor:
        return 0.95 * self._noise.between(now, then)

    def fresh(self) -> Tensor:
        return 0.95 * self._noise.fresh()


@dataclass(frozen=True)
class Quiet(EulerMaruyama):
    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return super().step(denoiser, x, now, then, Quieter(noise))


def test_the_measurement_knows_the_orders_of_our_own_rules_and_tells_another_law() -> None:
    ends = ends_of(EulerMaruyama(), 1)
    order, error = drawn_order(ends)
    assert abs(order - 1) < 3 * error + 0.1
    assert distance_from_the_law(ends, 1) < 33.4
    assert drawn_order(ends_of(DPMSolver2M()))[0] == pytest.approx(2, abs=0.3)
    assert distance_from_the_law(ends_of(Quiet()), 1) > 100
