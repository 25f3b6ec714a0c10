"""A grid spends exactly N steps, from the noise to the data."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffusion.grids import Grid, PowerLaw, grids
from diffusion.schedules import EDM, IDDPM, DDPMLinear, Schedule, VELinear, VPLinear, schedules

GRIDS: dict[str, Grid] = {**{entry.name: entry.cls() for entry in grids}, "edm, rho 1": PowerLaw(1.0)}
SCHEDULES: dict[str, Schedule] = {
    **{entry.name: entry.cls() for entry in schedules},
    "ddpm-linear, 1000 levels": DDPMLinear(levels=1000),
    "ddpm-linear, 21 levels": DDPMLinear(levels=21),
    "iddpm, 50 levels": IDDPM(levels=50, j0=3),
    "vp-linear, slow": VPLinear(beta_d=1.0, beta_min=0.01),
}
PAIRS = {
    f"{grid} on {schedule}": (GRIDS[grid], SCHEDULES[schedule])
    for grid, schedule in itertools.product(GRIDS, SCHEDULES)
}
SERVED = {name: pair for name, pair in PAIRS.items() if pair[0].refuses(pair[1]) is None}
REFUSED = {name: pair for name, pair in PAIRS.items() if name not in SERVED}
STEPS = (1, 2, 3, 4, 5, 7, 10, 18, 21, 33, 47, 64, 100, 257, 992, 1000)

every_pair = pytest.mark.parametrize(("grid", "schedule"), SERVED.values(), ids=SERVED.keys())
every_refused_pair = pytest.mark.parametrize(("grid", "schedule"), REFUSED.values(), ids=REFUSED.keys())


def possible(schedule: Schedule) -> list[int]:
    return [steps for steps in STEPS if schedule.max_steps is None or steps <= schedule.max_steps]


@every_pair
def test_n_steps_are_n_plus_one_falling_levels_from_the_start_noise_to_zero(grid: Grid, schedule: Schedule) -> None:
    for steps in possible(schedule):
        t = grid.times(schedule, steps)
        assert t.shape == (steps + 1,)
        assert t.dtype == torch.float64
        assert (t.diff() < 0).all()
        assert float(t[-1]) == 0
        assert float(t[0]) == pytest.approx(schedule.t_max, rel=1e-12)


@every_pair
def test_last_noisy_level_is_the_smallest_one_of_the_schedule(grid: Grid, schedule: Schedule) -> None:
    """From two steps on; a chain's rule spreads its moves down to level 0, so that there it needs all of its levels."""
    for steps in possible(schedule):
        if steps == 1:
            continue
        last = float(grid.times(schedule, steps)[-2])
        if isinstance(schedule, DDPMLinear):
            assert last == round(schedule.levels / steps)
        else:
            assert last == pytest.approx(schedule.t_min, rel=1e-9)


@every_pair
def test_no_level_is_noisier_than_the_start_beyond_rounding(grid: Grid, schedule: Schedule) -> None:
    for steps in possible(schedule):
        t = grid.times(schedule, steps)
        assert (t <= schedule.t_max * (1 + 1e-12)).all()
        for part in (schedule.alpha, schedule.sigma):
            assert torch.isfinite(part(t)).all()
        for part in (schedule.alpha_dot, schedule.sigma_dot):
            assert torch.isfinite(part(t[:-1])).all()


@every_refused_pair
def test_a_refusal_names_the_schedule_and_says_why(grid: Grid, schedule: Schedule) -> None:
    reason = grid.refuses(schedule)
    assert reason is not None
    assert schedule.registered_name in reason
    assert ("discrete" in reason) if schedule.max_steps else ("continuous" in reason)
    with pytest.raises(ValueError, match="schedule"):
        grid.times(schedule, 3)


@pytest.mark.parametrize("schedule", [DDPMLinear(), IDDPM(), IDDPM(levels=50, j0=3)], ids=lambda s: s.label())
def test_more_steps_than_levels_are_refused(schedule: Schedule) -> None:
    grid, most = grids.create("discrete"), schedule.max_steps
    assert most is not None
    assert len(grid.times(schedule, most)) == most + 1
    with pytest.raises(ValueError, match=f"has {most} levels, fewer than {most + 1} steps"):
        grid.times(schedule, most + 1)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_every_schedule_is_served_by_its_own_grid(schedule: Schedule) -> None:
    assert grids.create(schedule.own_grid).refuses(schedule) is None


def test_every_number_of_steps_of_a_chain_visits_distinct_whole_levels() -> None:
    grid, chain = grids.create("discrete"), DDPMLinear()
    for steps in range(1, 101):
        t = grid.times(chain, steps)
        assert (t.diff() <= -1).all()
        assert torch.equal(t, t.round())
    assert torch.equal(grid.times(chain, 100), torch.arange(100, -1, -1, dtype=torch.float64))


def test_every_number_of_steps_of_iddpm_visits_distinct_levels_of_its_own() -> None:
    grid, schedule = grids.create("discrete"), IDDPM()
    own = set(schedule.noise_levels.tolist())
    for steps in [*range(1, 101), 500, 991, 992]:
        noisy = grid.times(schedule, steps)[:-1].tolist()
        assert len(set(noisy)) == steps
        assert own.issuperset(noisy)


def test_iddpm_takes_the_levels_of_the_papers_rule() -> None:
    """Level floor(j_0 + (M - 1 - j_0) i / (N - 1) + 1/2)."""
    u = IDDPM().noise_levels
    expected = [u[int(np.floor(8 + 991 * i / 9 + 0.5))] for i in range(10)]
    assert grids.create("discrete").times(IDDPM(), 10).tolist() == [*expected, 0.0]


def test_steps_are_equal_in_the_quantity_the_grid_is_named_for() -> None:
    vp, ve = VPLinear(), VELinear()

    def even(values: torch.Tensor) -> bool:
        return bool((values.diff().diff().abs() <= 1e-9 * values.diff().abs().max()).all())

    assert even(grids.create("uniform-t").times(vp, 20)[:-1])
    for schedule in (vp, ve, EDM()):
        assert even(schedule.nsr(grids.create("log-snr").times(schedule, 20)[:-1]).log())
        for rho in (1.0, 7.0):
            assert even(schedule.nsr(PowerLaw(rho).times(schedule, 20)[:-1]) ** (1 / rho))


def test_ve_steps_are_those_of_the_paper() -> None:
    """Table 1: t_i = sigma_max^2 (sigma_min^2 / sigma_max^2)^(i / (N - 1))."""
    i = torch.arange(10, dtype=torch.float64)
    expected = 1e4 * (0.02**2 / 1e4) ** (i / 9)
    torch.testing.assert_close(grids.create("log-snr").times(VELinear(), 10)[:-1], expected, rtol=1e-11, atol=0)


def test_a_power_law_that_is_none_is_refused() -> None:
    for rho in (0.0, -1.0):
        with pytest.raises(ValueError, match="rho must be positive"):
            PowerLaw(rho)
