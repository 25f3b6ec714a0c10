"""A grid spends exactly N steps, from the noise to the data."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.schedules import (
    EDM,
    IDDPM,
    Chain,
    DDPMLinear,
    DDPMScaledLinear,
    Flow,
    Schedule,
    User,
    VELinear,
    VPCosine,
    VPLinear,
    schedules,
)
from diffusion.schedules.grids import (
    Discrete,
    Grid,
    Leading,
    Linspace,
    PowerLaw,
    Quadratic,
    Trailing,
    UniformLogSNR,
    grids,
)

GRIDS: dict[str, Grid] = {
    **{entry.name: entry.cls() for entry in grids},
    "edm, rho 1": PowerLaw(1.0),
    "leading, offset 1": Leading(1),
}
SCHEDULES: dict[str, Schedule] = {
    **{entry.name: entry.cls() for entry in schedules},
    "ddpm-linear, 1000 levels": DDPMLinear(levels=1000),
    "ddpm-linear, 21 levels": DDPMLinear(levels=21, beta_max=0.01),
    "iddpm, 50 levels": IDDPM(levels=50, j0=3),
    "vp-linear, slow": VPLinear(beta_d=1.0, beta_min=0.01),
    "vp-cosine, to the end": VPCosine(t_max=1.0),
    "flow, cut off": Flow(t_max=0.99),
    "user, to the end": User("1 - t", "t**2", t_max=1.0),
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


def possible(grid: Grid, schedule: Schedule) -> list[int]:
    return [steps for steps in STEPS if grid.refuses_steps(schedule, steps) is None]


@every_pair
def test_n_steps_are_n_plus_one_falling_levels_from_the_start_noise_to_zero(grid: Grid, schedule: Schedule) -> None:
    for steps in possible(grid, schedule):
        t = grid.times(schedule, steps)
        assert t.shape == (steps + 1,)
        assert t.dtype == torch.float64
        assert (t.diff() < 0).all()
        assert float(t[-1]) == 0
        if not (isinstance(grid, Leading) or (isinstance(grid, Linspace) and steps == 1)):
            assert float(t[0]) == pytest.approx(schedule.t_max, rel=1e-12)


@every_pair
def test_few_steps_are_never_refused_and_many_only_by_rounding_or_for_lack_of_levels(
    grid: Grid, schedule: Schedule
) -> None:
    can = possible(grid, schedule)
    assert can[:5] == [1, 2, 3, 4, 5]
    for steps in STEPS:
        text = grid.refuses_steps(schedule, steps)
        if steps in can:
            continue
        assert schedule.max_steps is not None
        assert text is not None
        if steps <= schedule.max_steps:
            assert isinstance(grid, Quadratic) or grid == Leading(1)
        with pytest.raises(ValueError, match="steps") as refusal:
            grid.times(schedule, steps)
        assert str(refusal.value) == text


@every_pair
def test_last_noisy_level_is_the_smallest_one_of_the_schedule(grid: Grid, schedule: Schedule) -> None:
    """From two steps on; rules that spread their moves down to level 0 are there only if they have
    all of the levels.
    """
    for steps in possible(grid, schedule):
        if steps == 1:
            continue
        last = float(grid.times(schedule, steps)[-2])
        most = schedule.max_steps or 0
        number = 1
        if isinstance(grid, Trailing) or (isinstance(grid, Discrete) and isinstance(schedule, Chain)):
            number = round(most / steps)
        elif isinstance(grid, Leading):
            number = 1 + grid.offset
        expected = schedule.t_min if number == 1 else float(schedule.level_times[most - number])
        assert last == pytest.approx(expected, rel=1e-9)


@every_pair
def test_no_level_is_noisier_than_the_start_beyond_rounding(grid: Grid, schedule: Schedule) -> None:
    for steps in possible(grid, schedule):
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
    if schedule.max_steps:
        assert "discrete" in reason
    else:
        assert ("infinite" if math.isinf(schedule.terminal_nsr) and "noise" in reason else "continuous") in reason
    assert grid.refuses_steps(schedule, 3) == reason
    with pytest.raises(ValueError, match="schedule"):
        grid.times(schedule, 3)


@pytest.mark.parametrize(
    "schedule", [Flow(), VPCosine(t_max=1.0), VPCosine(s=0.0, t_max=1.0), SCHEDULES["user, to the end"]]
)
def test_grids_of_the_ratio_refuse_a_schedule_that_ends_without_data_and_the_others_serve_it(
    schedule: Schedule,
) -> None:
    for name in ("uniform-log-snr", "edm"):
        reason = grids.create(name).refuses(schedule)
        assert reason is not None
        assert "ends with alpha = 0" in reason
        assert "smaller t_max" in reason
    for name in ("uniform-t", "quadratic"):
        assert float(grids.create(name).times(schedule, 7)[0]) == schedule.t_max


@pytest.mark.parametrize("schedule", [DDPMLinear(), IDDPM(), IDDPM(levels=50, j0=3)], ids=lambda s: s.label())
@pytest.mark.parametrize("name", ["discrete", "trailing", "leading", "linspace"])
def test_more_steps_than_levels_are_refused(schedule: Schedule, name: str) -> None:
    grid, most = grids.create(name), schedule.max_steps
    assert most is not None
    assert torch.equal(grid.times(schedule, most)[:-1], schedule.level_times)
    with pytest.raises(ValueError, match=f"has {most} levels, fewer than {most + 1} steps"):
        grid.times(schedule, most + 1)
    assert f"has {most} levels" in str(grid.refuses_steps(schedule, most + 1))


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(steps: int) -> None:
    for grid, schedule in SERVED.values():
        assert grid.refuses_steps(schedule, steps) == f"found {steps} steps, at least 1 is needed"


def test_levels_that_rounding_would_make_one_are_refused() -> None:
    narrow = EDM(1.0, 1.0 + 1e-10)
    for name in ("uniform-t", "quadratic", "uniform-log-snr", "edm"):
        grid = grids.create(name)
        assert (grid.times(narrow, 1000).diff() < 0).all()
        text = grid.refuses_steps(narrow, 1_000_000)
        assert text is not None
        assert f"1000000 steps of grid {name} on schedule edm" in text
        assert "use fewer steps or another grid" in text
    assert "do not lead to 5 different levels" in str(PowerLaw(1e-4).refuses_steps(EDM(), 5))  # 80^10000 is infinite
    chain = DDPMLinear(levels=1000)
    assert Quadratic().refuses_steps(chain, 50) is None
    assert "do not lead to 200 different levels" in str(Quadratic().refuses_steps(chain, 200))
    assert "would begin at level 1001" in str(Leading(1).refuses_steps(chain, 1000))
    assert Leading(1).refuses_steps(chain, 999) is None


def test_what_a_grid_of_ones_own_refuses_in_words_is_a_reason() -> None:
    @dataclass(frozen=True)
    class Even(Grid):
        def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
            if steps % 2:
                raise ValueError("even numbers of steps only")
            return torch.linspace(schedule.t_max, schedule.t_min, steps, dtype=torch.float64)

    assert Even().refuses_steps(EDM(), 4) is None
    assert Even().refuses_steps(EDM(), 3) == "even numbers of steps only"
    with pytest.raises(ValueError, match="even numbers of steps only"):
        Even().times(EDM(), 3)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_every_schedule_is_served_by_its_own_grid(schedule: Schedule) -> None:
    assert schedule.own_grid in grids.names()
    assert grids.create(schedule.own_grid).refuses(schedule) is None


def test_every_number_of_steps_of_a_chain_visits_distinct_whole_levels() -> None:
    grid, chain = grids.create("discrete"), DDPMLinear()
    for steps in range(1, 101):
        t = grid.times(chain, steps)
        assert (t.diff() <= -1).all()
        assert torch.equal(t, t.round())
    assert torch.equal(grid.times(chain, 100), torch.arange(100, -1, -1, dtype=torch.float64))


@pytest.mark.parametrize("grid", [Discrete(), Trailing(), Leading(), Linspace()], ids=lambda g: g.label())
def test_every_number_of_steps_of_iddpm_visits_distinct_levels_of_its_own(grid: Grid) -> None:
    schedule = IDDPM()
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


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (Leading(), [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]),
        (Leading(1), [902, 802, 702, 602, 502, 402, 302, 202, 102, 2]),
        (Linspace(), [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1]),
        (Trailing(), [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100]),
    ],
    ids=lambda value: value.label() if isinstance(value, Grid) else None,
)
def test_ten_of_a_thousand_levels_are_those_of_the_published_table(grid: Grid, expected: list[int]) -> None:
    """Lin et al. (2024), Table 2; with Stable Diffusion's offset, one level later."""
    assert grid.times(DDPMScaledLinear(), 10).tolist() == [*expected, 0]


def test_the_libraries_trailing_levels_are_those_of_the_discrete_grid_up_to_ties() -> None:
    chain = DDPMLinear(levels=1000)
    for steps in (*range(1, 60), 333, 999):
        apart = (Trailing().times(chain, steps) - Discrete().times(chain, steps)).abs()
        assert apart.max() <= 1
        assert (apart > 0).sum() <= steps / 8


def test_one_step_begins_where_the_docstrings_say() -> None:
    chain = DDPMLinear(levels=1000)
    first = {
        name: float(grids.create(name).times(chain, 1)[0]) for name in ("discrete", "trailing", "leading", "linspace")
    }
    assert first == {"discrete": 1000, "trailing": 1000, "leading": 1, "linspace": 1}
    left = {
        steps: 1 / float(chain.nsr(Leading().times(chain, steps)[:1])) if steps else 1 / chain.terminal_nsr
        for steps in (0, 10, 2, 1)
    }
    for steps, stated in {0: 0.0064, 10: 0.016, 2: 0.29, 1: 100.0}.items():
        assert left[steps] == pytest.approx(stated, rel=0.03)


def test_steps_are_equal_in_the_quantity_the_grid_is_named_for() -> None:
    vp, ve = VPLinear(), VELinear()

    def even(values: torch.Tensor) -> bool:
        return bool((values.diff().diff().abs() <= 1e-9 * values.diff().abs().max()).all())

    assert even(grids.create("uniform-t").times(vp, 20)[:-1])
    assert even(grids.create("quadratic").times(vp, 20)[:-1].sqrt())
    for schedule in (vp, ve, EDM()):
        assert even(schedule.nsr(grids.create("uniform-log-snr").times(schedule, 20)[:-1]).log())
        for rho in (1.0, 7.0):
            assert even(schedule.nsr(PowerLaw(rho).times(schedule, 20)[:-1]) ** (1 / rho))


def test_quadratic_levels_of_a_chain_are_the_whole_numbers_nearest_to_squares() -> None:
    t = Quadratic().times(DDPMLinear(levels=1000), 20)[:-1]
    assert torch.equal(t, t.round())
    exact = torch.linspace(math.sqrt(1000), 1, 20, dtype=torch.float64) ** 2
    assert ((t - exact).abs() <= 0.5 + 1e-9).all()


def test_ve_steps_are_those_of_the_paper() -> None:
    """Table 1: t_i = sigma_max^2 (sigma_min^2 / sigma_max^2)^(i / (N - 1))."""
    i = torch.arange(10, dtype=torch.float64)
    expected = 1e4 * (0.02**2 / 1e4) ** (i / 9)
    torch.testing.assert_close(grids.create("uniform-log-snr").times(VELinear(), 10)[:-1], expected, rtol=1e-11, atol=0)


def test_the_old_name_of_a_grid_is_understood_and_not_used() -> None:
    assert grids.find("log-snr") is UniformLogSNR
    assert "log-snr" not in grids.names()
    assert grids.create("log-snr").spec() == {"name": "uniform-log-snr"}


def test_parameters_that_are_none_are_refused() -> None:
    for rho in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="rho must be positive"):
            PowerLaw(rho)
    with pytest.raises(ValueError, match="offset must be 0 or more, found -1"):
        Leading(-1)
