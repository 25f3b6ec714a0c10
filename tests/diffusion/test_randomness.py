"""Every draw has a name; samples do not see each other's, and a path is one path however often it
is looked at.
"""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import kstest

from diffusion.randomness import BrownianPath, SampleNoise, clock, stream
from diffusion.samplers import NoiseStreams
from diffusion.schedules import EDM, Flow, Schedule, VPLinear, schedules
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import levels_of

SCHEDULES = [entry.cls() for entry in schedules]


# --- streams --------------------------------------------------------------------------------------


def test_a_stream_is_its_name() -> None:
    one, same, other = (torch.randn(5, generator=stream(*name)) for name in (("a", 1), ("a", 1), ("a", 2)))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    # known numbers: streams are part of every stored result, and may not change silently
    assert torch.rand(2, generator=stream("a", 1), dtype=torch.float64).tolist() == pytest.approx(
        [0.9803648810081075, 0.7931369596818275], abs=1e-15
    )
    assert SampleNoise(("a", 1), 1, 2).draw(3, 1)[0].tolist() == pytest.approx(
        [0.739390400432975, 0.8246220051530336], abs=1e-14
    )


def test_the_parts_of_a_name_do_not_run_together() -> None:
    drawn = [torch.rand(1, generator=stream(*name)).item() for name in (("ab", "c"), ("a", "bc"), ("abc",))]
    assert len(set(drawn)) == 3


def numpy_state() -> NDArray[np.uint32]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    return np.asarray(state["state"]["key"])


def test_the_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state(), numpy_state(), random.getstate()
    NoiseStreams([("x",)], 10, 2).fresh()
    BrownianPath(SampleNoise(("x",), 10, 2)).at(0.3)
    torch.rand(3, generator=stream("x"))
    after = torch.get_rng_state(), numpy_state(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]


# --- numbers of samples ---------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 3])
def test_more_samples_only_append_rows(dim: int) -> None:
    few, many = (SampleNoise(("rows",), n, dim) for n in (7, 1000))
    for number, purpose in itertools.product((0, 1, 12345), (0, 1)):
        assert torch.equal(few.draw(number, purpose), many.draw(number, purpose)[:7])


def test_draws_are_standard_normal_and_independent_of_each_other() -> None:
    """Kolmogorov-Smirnov at 1e-4 for each of six draws, correlations within 4.5 / sqrt(n): false
    alarms 7e-4 in all.
    """
    n = 20_000
    noise, other = SampleNoise(("normal",), n, 1), SampleNoise(("other",), n, 1)
    draws = [noise.draw(0), noise.draw(1), noise.draw(2**40), noise.draw(0, 1), noise.draw(1, 1), other.draw(0)]
    for draw in draws:
        assert kstest(draw[:, 0].numpy(), "norm").pvalue > 1e-4
    for a, b in itertools.combinations(draws, 2):
        assert abs(float((a * b).mean())) < 4.5 / math.sqrt(n)
    neighbours = draws[0][:-1] * draws[0][1:]
    assert abs(float(neighbours.mean())) < 4.5 / math.sqrt(n)


# --- the path -------------------------------------------------------------------------------------


def test_the_clock_runs_from_data_to_noise() -> None:
    ratios = [0.0, *np.logspace(-6, 8, 200), math.inf]
    ticks = [clock(float(ratio)) for ratio in ratios]
    assert ticks[0] == 0
    assert ticks[-1] == 1
    assert all(a < b for a, b in itertools.pairwise(ticks))


def test_a_path_does_not_depend_on_where_it_has_been_looked_at() -> None:
    """Nor on what it has forgotten: 300 places need more midpoints than it remembers."""
    places = np.random.default_rng(5).random(300).tolist()
    noise = SampleNoise(("order",), 20, 2)
    path = BrownianPath(noise)
    forwards = {c: path.at(c) for c in sorted(places)}
    shuffled = BrownianPath(noise)
    for c in places:
        assert torch.equal(shuffled.at(c), forwards[c])
    for c in places[::37]:
        assert torch.equal(BrownianPath(noise).at(c), forwards[c])
        assert torch.equal(path.at(c), forwards[c])


def test_a_path_has_the_covariance_of_brownian_motion() -> None:
    """``E W(a) W(b) = min(a, b)`` for 45 pairs, each within 4.5 standard errors: false alarms 3e-4
    in all.
    """
    n = 20_000
    places = [1e-4, 0.01, 0.2, 0.25, 0.3, 0.3001, 0.5, 0.77, 1.0]
    path = BrownianPath(SampleNoise(("covariance",), n, 1))
    values = [path.at(c)[:, 0] for c in places]
    for (a, x), (b, y) in itertools.combinations_with_replacement(zip(places, values, strict=True), 2):
        error = math.sqrt((a * b + min(a, b) ** 2) / n)
        assert abs(float((x * y).mean()) - min(a, b)) < 4.5 * error
    assert torch.equal(path.at(0.0), torch.zeros(n, 1, dtype=torch.float64))


def test_increments_of_a_path_are_normal_and_independent() -> None:
    """Sixteen moves of unequal length; Kolmogorov-Smirnov at 1e-5 and correlations within 5 /
    sqrt(n): 3e-4 in all.
    """
    n = 20_000
    places = np.sort(np.random.default_rng(3).random(17))
    path = BrownianPath(SampleNoise(("increments",), n, 1))
    values = [path.at(float(c))[:, 0] for c in places]
    moves = [(y - x) / math.sqrt(b - a) for (a, x), (b, y) in itertools.pairwise(zip(places, values, strict=True))]
    for move in moves:
        assert kstest(move.numpy(), "norm").pvalue > 1e-5
    for one, other in itertools.combinations(moves, 2):
        assert abs(float((one * other).mean())) < 5 / math.sqrt(n)


def test_a_path_is_continuous() -> None:
    """Over a millionth of the clock no one of 1000 samples moves by 6 standard deviations: false
    alarms 1e-5.
    """
    path = BrownianPath(SampleNoise(("continuous",), 1000, 1))
    for c in (0.1, 0.25, 0.3, 0.5, 0.7317, 0.999):  # across the ends of intervals as well
        assert float((path.at(c + 1e-6) - path.at(c - 1e-6)).abs().max()) < 6 * math.sqrt(2e-6 + 2**-18)


# --- streams of samplers --------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.registered_name)
def test_a_divided_move_is_the_sum_of_its_parts(schedule: Schedule) -> None:
    steps = 8
    levels = levels_of([schedule], [grids.create(schedule.own_grid)], steps)
    noise = NoiseStreams([("parts",)], 5, 2)
    times = [clock(float(level.nsr)) for level in levels]
    parts = sum(math.sqrt(times[i] - times[i + 1]) * noise.between(levels[i], levels[i + 1]) for i in range(1, steps))
    whole = noise.between(levels[1], levels[steps])
    torch.testing.assert_close(parts, math.sqrt(times[1] - times[steps]) * whole, rtol=0, atol=1e-13)


def test_noise_of_a_move_is_standard_normal_from_pure_noise_to_clean_data() -> None:
    """Kolmogorov-Smirnov at 1e-4, one member's numbers after the other's: false alarms 4e-4 in all."""
    chosen = [Flow(), EDM()]
    levels = levels_of(chosen, [grids.create(s.own_grid) for s in chosen], 4)
    noise = NoiseStreams([("flow",), ("edm",)], 10_000, 2)
    for now, then in itertools.pairwise(levels):
        assert kstest(noise.between(now, then).reshape(-1).numpy(), "norm").pvalue > 1e-4


def test_samples_and_members_have_streams_of_their_own() -> None:
    chosen = [VPLinear(), EDM(), VPLinear()]
    levels = levels_of(chosen, [grids.create(s.own_grid) for s in chosen], 5)
    keys = [("a", 0), ("a", 1), ("a", 0)]
    together = NoiseStreams(keys, 6, 2)
    moves = [(levels[i], levels[i + 1]) for i in range(5)]
    stacked = [(together.between(*move), together.fresh()) for move in moves]
    for between, fresh in stacked:
        assert torch.equal(between[0], between[2])  # one key and one schedule
        assert torch.equal(fresh[0], fresh[2])
        assert not torch.equal(fresh[0], fresh[1])
    for m in range(3):
        own = levels_of(chosen[m : m + 1], [grids.create(chosen[m].own_grid)], 5)
        for samples in (6, 3):
            alone = NoiseStreams(keys[m : m + 1], samples, 2)
            for i in range(5):
                assert torch.equal(alone.between(own[i], own[i + 1])[0], stacked[i][0][m, :samples])
                assert torch.equal(alone.fresh()[0], stacked[i][1][m, :samples])


def test_fresh_draws_differ_from_each_other_and_from_the_path() -> None:
    levels = levels_of([EDM()], [grids.create("edm")], 3)
    noise = NoiseStreams([("fresh",)], 4, 1)
    drawn = [noise.fresh(), noise.between(levels[0], levels[1]), noise.fresh(), noise.between(levels[1], levels[2])]
    numbers = torch.cat([draw.reshape(-1) for draw in drawn]).tolist()
    assert len(set(numbers)) == 16


def test_moves_below_the_paths_resolution_are_normal_and_independent() -> None:
    """Neighbouring levels whose clocks differ by less than a bisection's interval, or not at all
    (4.5 standard errors).
    """
    n = 100_000
    path = BrownianPath(SampleNoise(("fine",), n, 1))
    for levels in ([1.0, 1 - 1e-7, 1 - 2e-7, 1 - 3e-7], [1e90, 1e89, 1e88, 1e87], [math.inf, 1e300, 1e200, 1.0]):
        moves = torch.cat([path.move(a, b) for a, b in itertools.pairwise(levels)], dim=1)
        covariance = moves.T @ moves / n
        expected = torch.eye(3, dtype=torch.float64)
        assert ((covariance - expected).abs() <= 4.5 * torch.sqrt(1 + expected) / math.sqrt(n)).all()
    assert torch.equal(path.move(1.0, 1 - 1e-7), path.move(1.0, 1 - 1e-7))
