"""Levels of noise-conditional score networks: geometric, and chosen from the data by the published
rules where these have a solution.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import norm

from diffusion.datasets import FourPoints, Gaussian, Uniform
from diffusion.randomness import stream
from diffusion.schedules import EDM, NCSN, Schedule
from diffusion.schedules.geometric import largest_distance, overlap_ratio
from diffusion.schedules.grids import grids


def test_levels_are_geometric_and_are_the_only_times() -> None:
    schedule = NCSN(levels=10, sigma_max=1.0, sigma_min=0.01)
    levels = schedule.noise_levels
    assert (levels[0], levels[-1], len(levels)) == (1.0, pytest.approx(0.01), 10)
    np.testing.assert_allclose(levels[:-1] / levels[1:], 100 ** (1 / 9), rtol=1e-12)
    t = schedule.level_times
    assert torch.equal(schedule.sigma(t), t)
    assert torch.equal(schedule.alpha(t), torch.ones_like(t))
    assert torch.equal(grids.create("discrete").times(schedule, 10)[:-1], t)
    assert grids.create("discrete").times(schedule, 1).tolist() == [1.0, 0.0]
    assert "fewer than 11 steps" in str(grids.create("discrete").refuses_steps(schedule, 11))


@pytest.mark.parametrize(
    ("dim", "gamma"), [(8, 4.0), (16, 2.13), (32, 1.602), (64, 1.362), (256, 1.154), (784, 1.082), (3072, 1.040)]
)
def test_the_overlap_rule_gives_the_published_ratios(dim: int, gamma: float) -> None:
    """As told to three digits, and by the other term being one: gamma = r / (r - 3) with r = sqrt(2
    D).
    """
    found = overlap_ratio(dim)
    assert found == pytest.approx(gamma, rel=2e-3)
    assert found is not None
    root = math.sqrt(2 * dim)
    assert found == pytest.approx(root / (root - 3), rel=1e-9)
    a = root * (found - 1)
    assert norm.cdf(a + 3 * found) - norm.cdf(a - 3 * found) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_in_few_dimensions_any_two_levels_overlap_and_the_rule_has_no_solution(dim: int) -> None:
    gamma = np.geomspace(1.0, 1e6, 4000)
    a = math.sqrt(2 * dim) * (gamma - 1)
    overlap = norm.cdf(a + 3 * gamma) - norm.cdf(a - 3 * gamma)
    assert overlap.min() > 0.5
    assert overlap_ratio(dim) is None
    if dim == 2:
        assert overlap.min() == pytest.approx(0.9973, abs=5e-5)


def test_levels_are_chosen_from_the_data() -> None:
    line = NCSN().fitted(Uniform(low=-3, high=4))
    assert isinstance(line, NCSN)
    assert (line.levels, line.sigma_min) == (10, 0.01)
    assert line.sigma_max == pytest.approx(7, rel=0.01)  # the range of 2000 draws
    assert largest_distance(FourPoints()) == 25.0
    space = NCSN().fitted(Gaussian(dim=64))
    assert isinstance(space, NCSN)
    ratio = overlap_ratio(64)
    assert ratio is not None
    assert space.levels == 1 + math.ceil(math.log(space.t_max / 0.01) / math.log(ratio))
    x = Gaussian(dim=64).sample(2000, stream("another"))
    assert space.sigma_max == pytest.approx(float(torch.pdist(x).max()), rel=0.05)


def test_what_a_study_says_is_not_chosen_and_choosing_twice_changes_nothing() -> None:
    given = NCSN(levels=7, sigma_max=2.0)
    assert given.fitted(Uniform()) is given
    assert NCSN(levels=7).fitted(FourPoints()) == NCSN(levels=7, sigma_max=25.0)
    assert NCSN(sigma_max=2.0).fitted(FourPoints()) == NCSN(levels=10, sigma_max=2.0)
    once = NCSN().fitted(Uniform())
    assert once.fitted(Gaussian(dim=3)) == once
    assert EDM().fitted(Uniform()) == EDM()
    small = NCSN().fitted(Uniform(high=1e-3))  # data below the least noise: levels all the same
    assert small == NCSN(levels=10, sigma_max=0.1)


def test_impossible_levels_are_refused() -> None:
    cases: tuple[tuple[Callable[[], Schedule], str], ...] = (
        (lambda: NCSN(levels=1), "2 to 100000 levels, found 1"),
        (lambda: NCSN(sigma_max=0.001), "0 < sigma_min < sigma_max"),
    )
    for make, expected in cases:
        with pytest.raises(ValueError, match=expected):
            make()
