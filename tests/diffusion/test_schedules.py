"""Every registered schedule is what it says it is; the constants are those of the papers."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from scipy.stats import kstest, norm
from torch import Tensor

from diffusion import plugins
from diffusion.datasets import Uniform
from diffusion.metrics import Wasserstein1
from diffusion.randomness import stream
from diffusion.samplers import Ancestral
from diffusion.schedules import (
    EDM,
    GAUSSIAN_ENOUGH,
    IDDPM,
    Chain,
    DDPMCosine,
    DDPMLinear,
    DDPMScaledLinear,
    Flow,
    Level,
    Schedule,
    SubVP,
    User,
    VEGeometric,
    VELinear,
    VPConstant,
    VPCosine,
    VPExponential,
    VPLinear,
    VPSigmoid,
    schedules,
    stationary_variance,
)
from diffusion.schedules.formulas import FUNCTIONS, Formula, path_of
from diffusion.schedules.grids import grids


@pytest.fixture(autouse=True, scope="module")
def _allowed() -> Iterator[None]:
    """What these tests name, somebody trusts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(plugins.VARIABLE, "math,sys,torch,a_schedule_of_mine,a_module_that_fails")
        yield


def bell_alpha(t: Tensor) -> Tensor:
    """A user's function."""
    return torch.exp(-(t**2))


def bell_sigma(t: Tensor) -> Tensor:
    """Its noise."""
    return torch.sqrt(-torch.expm1(-2 * t**2))


VARIANTS: dict[str, Schedule] = {
    **{entry.name: entry.cls() for entry in schedules},
    "vp-linear, slow": VPLinear(beta_d=3.0, beta_min=0.5),
    "vp-cosine, s = 0": VPCosine(s=0.0),
    "vp-cosine, to the end": VPCosine(t_max=1.0),
    "vp-cosine, s = 0, to the end": VPCosine(s=0.0, t_max=1.0),
    "vp-sigmoid, sharp": VPSigmoid(start=0.0, end=3.0, tau=0.3),
    "vp-sigmoid, nearly straight": VPSigmoid(start=-0.1, end=0.2, tau=2.0, t_max=0.9),
    "sub-vp, slow": SubVP(beta_d=3.0, beta_min=0.5),
    "ddpm-linear, 1000 levels": DDPMLinear(levels=1000),
    "ddpm-linear, unscaled": DDPMLinear(scaled=False),
    "ddpm-linear, constant beta": DDPMLinear(beta_max=1e-4, levels=10),
    "ddpm-scaled-linear, 50 levels": DDPMScaledLinear(levels=50),
    "ddpm-cosine, 50 levels": DDPMCosine(levels=50),
    "vp-constant, 20 levels": VPConstant(20, 0.5),
    "ve-linear, narrow": VELinear(0.5, 2.0),
    "ve-geometric, narrow": VEGeometric(0.5, 2.0),
    "iddpm, few levels": IDDPM(levels=50, j0=3),
    "flow, cut off": Flow(t_max=0.99),
    "user, straight": User("1 - t", "t", t_max=1.0),
    "user, exploding": User("1", "t**3 + 0.1*t", t_min=0.01, t_max=5.0),
    "user, function": User(bell_alpha, bell_sigma, t_max=2.0),
}
every = pytest.mark.parametrize("schedule", VARIANTS.values(), ids=VARIANTS.keys())


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def inner_times(schedule: Schedule) -> Tensor:
    """Forty times between t_min and t_max, geometric; half-way between the levels of a spline."""
    t = torch.logspace(math.log10(schedule.t_min), math.log10(0.98 * schedule.t_max), 40, dtype=torch.float64)
    return torch.floor(t) + 0.5 if isinstance(schedule, Chain) else t


def finite_times(schedule: Schedule, count: int) -> Tensor:
    """Equally many in equal and in geometric steps from t_min to t_max, or to just before it where
    alpha vanishes there.
    """
    last = schedule.t_max * (0.999 if math.isinf(schedule.terminal_nsr) else 1)
    even = torch.linspace(schedule.t_min, last, count, dtype=torch.float64)
    geometric = torch.logspace(math.log10(schedule.t_min), math.log10(last), count, dtype=torch.float64)
    return torch.cat([even, geometric[1:-1]]).sort().values


def slope(function: object, t: Tensor, last: float = math.inf) -> Tensor:
    """Derivative by central differences of the eighth order, without looking beyond `last`."""
    assert callable(function)
    h = (1e-2 * t).clamp(max=0.1).minimum((last - t) / 64)
    weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    total = torch.zeros_like(t)
    for j, weight in enumerate(weights, 1):
        total = total + weight * (function(t + j * h) - function(t - j * h))
    return total / h


# --- every schedule -------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("part", ["alpha", "sigma"])
def test_stated_derivatives_are_the_derivatives(schedule: Schedule, part: str) -> None:
    t = inner_times(schedule)
    function = getattr(schedule, part)
    stated = getattr(schedule, f"{part}_dot")(t)
    assert ((stated - slope(function, t, schedule.t_max)) * t).abs().max() <= 1e-9 * function(t).abs().max()


@every
def test_stated_derivatives_are_those_of_automatic_differentiation(schedule: Schedule) -> None:
    t = inner_times(schedule).requires_grad_()
    for part in ("alpha", "sigma"):
        value = getattr(schedule, part)(t)
        by_autograd = torch.zeros_like(t)
        if value.requires_grad:  # alpha = 1 does not depend on t at all
            (by_autograd,) = torch.autograd.grad(value.sum(), t)
        stated = getattr(schedule, f"{part}_dot")(t.detach())
        torch.testing.assert_close(stated, by_autograd, rtol=1e-11, atol=1e-15)


@every
def test_there_is_no_noise_at_time_zero(schedule: Schedule) -> None:
    zero = times(0.0)
    assert float(schedule.sigma(zero)) == 0
    assert float(schedule.alpha(zero)) == pytest.approx(1, abs=2.3e-16)
    assert float(schedule.nsr(zero)) == 0
    assert float(schedule.time_of(zero)) == 0
    assert 0 < schedule.t_min < schedule.t_max


@every
def test_noise_to_signal_ratio_is_sigma_over_alpha_and_rises_with_time(schedule: Schedule) -> None:
    t = finite_times(schedule, 500)
    torch.testing.assert_close(schedule.nsr(t), schedule.sigma(t) / schedule.alpha(t), rtol=1e-12, atol=0)
    assert (schedule.nsr(t.unique()).diff() > 0).all()
    assert (schedule.sigma_dot(t) > 0).all()
    assert (schedule.alpha_dot(t) <= 0).all()


@every
def test_time_of_is_the_inverse_of_the_noise_to_signal_ratio(schedule: Schedule) -> None:
    """To 1e-12, except where the ratio rises so steeply that the last digit of t is worth more."""
    t = finite_times(schedule, 300)
    if schedule.max_steps is None:
        t = torch.cat([times(1e-6, 1e-3, 0.01, 0.3) * schedule.t_min, t])
    torch.testing.assert_close(schedule.time_of(schedule.nsr(t)), t, rtol=1e-12, atol=0)
    nsr = schedule.nsr(t)
    steepness = t * (schedule.sigma_dot(t) / schedule.sigma(t) - schedule.alpha_dot(t) / schedule.alpha(t))
    found = schedule.nsr(schedule.time_of(nsr))
    assert ((found - nsr).abs() <= (1e-12 + 4.5e-16 * steepness) * nsr).all()


@every
def test_inverse_keeps_the_shape_it_is_given(schedule: Schedule) -> None:
    t = finite_times(schedule, 4).reshape(3, 2)
    nsr = schedule.nsr(t)
    assert nsr.shape == (3, 2)
    assert torch.equal(schedule.time_of(nsr), schedule.time_of(nsr.reshape(-1)).reshape(3, 2))


@every
def test_variance_preserving_means_that_the_squares_sum_to_one(schedule: Schedule) -> None:
    t = torch.linspace(schedule.t_min, schedule.t_max, 100, dtype=torch.float64)
    total = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    assert bool(((total - 1).abs() <= 1e-14).all()) is schedule.variance_preserving


@every
def test_drift_and_diffusion_follow_from_the_two_amplitudes(schedule: Schedule) -> None:
    """f = alpha'/alpha, d(sigma^2)/dt = 2 f sigma^2 + g^2 and g^2 = alpha^2 d(sigma^2/alpha^2)/dt."""
    t, last = inner_times(schedule), schedule.t_max
    f, g2 = schedule.drift(t), schedule.diffusion_squared(t)
    assert (g2 > 0).all()
    assert ((f - slope(lambda u: schedule.alpha(u).log(), t, last)) * t).abs().max() <= 1e-9 * max(
        1, float((f * t).abs().max())
    )
    variance = schedule.sigma(t) ** 2
    rate = slope(lambda u: schedule.sigma(u) ** 2, t, last)
    scale = (2 * f * variance).abs() + g2  # on sigma = 1 - exp(-B) they nearly cancel
    assert ((2 * f * variance + g2 - rate).abs() <= 1e-8 * scale).all()
    by_ratio = schedule.alpha(t) ** 2 * slope(lambda u: schedule.nsr(u) ** 2, t, last)
    torch.testing.assert_close(g2, by_ratio, rtol=1e-7, atol=0)


@every
def test_moments_of_the_sde_are_the_marginals(schedule: Schedule) -> None:
    """Integrate m' = f m and v' = 2 f v + g^2 from t_min to the end or nsr = 50, in log t (a chain:
    its first levels).
    """
    start, last = times(schedule.t_min), min(schedule.t_max, float(schedule.time_of(times(50.0))))
    if isinstance(schedule, Chain):  # the third derivative of its spline jumps at every level
        last = min(last, 12.0)

    def rates(log_t: float, y: np.ndarray) -> list[float]:
        t = times(math.exp(log_t))
        f, g2 = float(schedule.drift(t)), float(schedule.diffusion_squared(t))
        return [float(t) * f * y[0], float(t) * (2 * f * y[1] + g2)]

    first = [float(schedule.alpha(start)), float(schedule.sigma(start)) ** 2]
    tolerance = {"rtol": 1e-11, "atol": [1e-16, 1e-11 * first[1]]}
    solved = solve_ivp(rates, (math.log(schedule.t_min), math.log(last)), first, method="DOP853", **tolerance)
    end = times(math.exp(solved.t[-1]))
    m, v = solved.y[:, -1]
    assert m == pytest.approx(float(schedule.alpha(end)), rel=1e-8)
    assert v == pytest.approx(float(schedule.sigma(end)) ** 2, rel=1e-8)


Pair = tuple[mp.mpf, mp.mpf]


def _of_beta(b: mp.mpf) -> Pair:
    return mp.exp(-b / 2), mp.sqrt(1 - mp.exp(-b))


def _of_power(power: mp.mpf) -> Pair:
    return mp.sqrt(power), mp.sqrt(1 - power)


def _cosine(s: Schedule, t: mp.mpf) -> Pair:
    assert isinstance(s, VPCosine)
    return _of_power(
        (mp.cos((t + s.s) / (1 + mp.mpf(s.s)) * mp.pi / 2) / mp.cos(s.s / (1 + mp.mpf(s.s)) * mp.pi / 2)) ** 2
    )


def _sigmoid(s: Schedule, t: mp.mpf) -> Pair:
    assert isinstance(s, VPSigmoid)
    start, end, tau = mp.mpf(s.start), mp.mpf(s.end), mp.mpf(s.tau)
    low, now, high = (1 / (1 + mp.exp(-u / tau)) for u in (start, start + t * (end - start), end))
    return _of_power((high - now) / (high - low))


def _linear_beta(s: Schedule, t: mp.mpf) -> mp.mpf:
    assert isinstance(s, VPLinear | SubVP)
    return mp.mpf(s.beta_d) * t**2 / 2 + mp.mpf(s.beta_min) * t


def _geometric(s: Schedule, t: mp.mpf) -> Pair:
    assert isinstance(s, VEGeometric)
    low, ratio = mp.mpf(s.sigma_min), mp.mpf(s.sigma_max) / mp.mpf(s.sigma_min)
    return mp.mpf(1), mp.sqrt((low * ratio**t) ** 2 - low**2)


LITERAL: dict[str, Callable[[Schedule, mp.mpf], Pair]] = {
    "vp-linear": lambda s, t: _of_beta(_linear_beta(s, t)),
    "vp-exponential": lambda _, t: _of_beta(2 * t),
    "vp-cosine": _cosine,
    "vp-sigmoid": _sigmoid,
    "sub-vp": lambda s, t: (mp.exp(-_linear_beta(s, t) / 2), 1 - mp.exp(-_linear_beta(s, t))),
    "ve-linear": lambda _, t: (mp.mpf(1), mp.sqrt(t)),
    "ve-geometric": _geometric,
    "edm": lambda _, t: (mp.mpf(1), t),
    "flow": lambda _, t: (1 - t, t),
    "user": lambda _, t: (mp.cos(mp.pi * t / 2), mp.sin(mp.pi * t / 2)),
}
"""alpha and sigma as the papers write them, differences and all, for 50 digits."""

CONTINUOUS = {
    name: schedule
    for name, schedule in VARIANTS.items()
    if schedule.max_steps is None and (not isinstance(schedule, User) or name == "user")
}
every_continuous = pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS.keys())


@every_continuous
def test_amplitudes_keep_their_digits_from_the_smallest_times_to_the_end(schedule: Schedule) -> None:
    """Against 50 digits; 1 - exp(-B) in float64 would have lost five of sixteen digits at t = 1e-5,
    and all of them earlier.
    """
    tiny = torch.logspace(-16, math.log10(schedule.t_min), 20, dtype=torch.float64)
    for t in torch.cat([tiny, times(1e-5), finite_times(schedule, 20)]):
        with mp.workdps(50):
            alpha, sigma = LITERAL[schedule.registered_name](schedule, mp.mpf(float(t)))
            # what the rounding of pi t or beta t is worth where an amplitude falls steeply
            steep = float(abs(t * schedule.alpha_dot(t[None]) / schedule.alpha(t[None])))
            assert abs(mp.mpf(float(schedule.alpha(t[None]))) / alpha - 1) <= 2e-15 * (1 + steep)
            assert abs(mp.mpf(float(schedule.sigma(t[None]))) / sigma - 1) <= 2e-15


@every_continuous
def test_drift_and_diffusion_are_those_of_the_literal_amplitudes(schedule: Schedule) -> None:
    """f = alpha'/alpha and g^2 = alpha^2 d(sigma^2/alpha^2)/dt, differentiated with 50 digits."""
    literal = LITERAL[schedule.registered_name]
    for t in finite_times(schedule, 6)[1:-1]:
        with mp.workdps(50):
            at = mp.mpf(float(t))
            f = mp.diff(lambda u: mp.log(literal(schedule, u)[0]), at)
            g2 = literal(schedule, at)[0] ** 2 * mp.diff(
                lambda u: (literal(schedule, u)[1] / literal(schedule, u)[0]) ** 2, at
            )
            assert float(schedule.drift(t[None])) == pytest.approx(float(f), rel=1e-13, abs=1e-30)
            assert float(schedule.diffusion_squared(t[None])) == pytest.approx(float(g2), rel=1e-13)


# --- the end --------------------------------------------------------------------------------------

ENDLESS = {name: schedule for name, schedule in VARIANTS.items() if math.isinf(schedule.terminal_nsr)}


@pytest.mark.parametrize("schedule", ENDLESS.values(), ids=ENDLESS.keys())
def test_where_no_data_are_left_nothing_is_undefined(schedule: Schedule) -> None:
    end, infinite = times(schedule.t_max), times(math.inf)
    assert float(schedule.alpha(end)) == 0
    assert float(schedule.sigma(end)) == pytest.approx(1, abs=1e-15)
    assert torch.equal(schedule.nsr(end), infinite)
    assert torch.equal(schedule.time_of(infinite), end)
    assert torch.equal(schedule.time_of(times(1e200)), end)  # the square of it is infinite, too
    assert math.isfinite(float(schedule.alpha_dot(end)))
    assert math.isfinite(float(schedule.sigma_dot(end)))
    assert torch.equal(schedule.drift(end), -infinite)
    assert torch.equal(schedule.diffusion_squared(end), infinite)
    assert schedule.terminal_snr == 0
    assert schedule.end_warning(1e9) is None


def test_the_schedules_meant_to_end_in_nothing_do() -> None:
    assert set(ENDLESS) == {"flow", "vp-cosine, to the end", "vp-cosine, s = 0, to the end", "user, straight"}


@every
def test_terminal_ratios_are_those_at_the_end(schedule: Schedule) -> None:
    end = times(schedule.t_max)
    assert schedule.terminal_snr == pytest.approx(float((schedule.alpha(end) / schedule.sigma(end)) ** 2), rel=1e-12)
    assert schedule.terminal_nsr**-2 == pytest.approx(schedule.terminal_snr, rel=1e-12)


@every
def test_start_noise_is_the_stationary_one_or_that_of_the_end(schedule: Schedule) -> None:
    end = float(schedule.sigma(times(schedule.t_max)))
    assert schedule.prior_std == (1 if schedule.variance_preserving else end)


def test_start_noise_of_the_schedules_is_what_the_papers_say() -> None:
    for schedule, std in (
        (VPLinear(), 1), (DDPMLinear(), 1), (DDPMScaledLinear(), 1), (VPCosine(t_max=1.0), 1), (Flow(), 1), (EDM(), 80),
        (SubVP(), 0.999957), (VELinear(), 100), (VEGeometric(), 50), (IDDPM(), 80.2037),
    ):  # fmt: skip
        assert schedule.prior_std == pytest.approx(std, rel=1e-6)


@every
def test_a_schedule_warns_exactly_if_more_data_are_left_than_the_threshold(schedule: Schedule) -> None:
    if math.isinf(schedule.terminal_nsr):
        pytest.skip("nothing is left")
    limit = GAUSSIAN_ENOUGH * schedule.terminal_nsr
    assert schedule.end_warning(0.999 * limit) is None
    warning = schedule.end_warning(1.001 * limit)
    assert warning is not None
    assert schedule.registered_name in warning
    assert "\n" not in warning


def test_the_papers_ends_are_gaussian_enough_and_that_of_stable_diffusion_is_not() -> None:
    for schedule in (
        EDM(),
        VELinear(),
        VPLinear(),
        DDPMLinear(),
        DDPMLinear(levels=1000),
        IDDPM(),
        VPCosine(),
        VPSigmoid(),
    ):
        for rms in (0.58, 1.0, 1.5):
            assert schedule.end_warning(rms) is None
    for chain in (DDPMScaledLinear(), DDPMLinear(scaled=False)):
        for rms in (0.58, 1.0, 1.5):
            assert chain.end_warning(rms) is not None
    assert VPConstant().end_warning(9.4) is not None  # the notebook's four atoms, of which it leaves a trace


def test_at_the_threshold_start_noise_and_law_differ_by_no_more_than_is_promised() -> None:
    """Total variation of N(0, s^2) from N(a m, s^2), all of the data at one point: the worst case
    of Pinsker's bound.
    """
    shift = GAUSSIAN_ENOUGH  # in units of s
    total_variation = 2 * norm.cdf(shift / 2) - 1
    assert total_variation <= GAUSSIAN_ENOUGH / 2
    assert total_variation == pytest.approx(
        1 / 100, rel=0.01
    )  # one draw in eighty is the bound, one in a hundred is so


# --- parameters -----------------------------------------------------------------------------------


INF, NAN = math.inf, math.nan

IMPOSSIBLE: list[tuple[Callable[[], Schedule], str]] = [
    (lambda: VPLinear(beta_d=-1.0), "beta_d > 0"),
    (lambda: VPLinear(beta_d=NAN), "beta_d > 0"),
    (lambda: VPLinear(beta_d=2000.0), r"beta_d / 2 \+ beta_min <= 700"),
    (lambda: VPLinear(epsilon_s=1.0), "0 < epsilon_s < 1, found 1"),
    (lambda: VPExponential(t_min=0.0), "0 < t_min < t_max <= 350, found t_min=0.0"),
    (lambda: VPExponential(t_max=INF), "t_max=inf"),
    (lambda: VPCosine(s=-0.1), "0 <= s <= 1, found -0.1"),
    (lambda: VPCosine(t_max=1.1), "t_max <= 1, found t_min=0.001, t_max=1.1"),
    (lambda: VPSigmoid(tau=0.0), "tau > 0"),
    (lambda: VPSigmoid(start=3.0), "start < end"),
    (lambda: VPSigmoid(tau=0.01), "-100 tau <= start"),
    (lambda: VPSigmoid(t_max=1.0), "t_max < 1, found t_min=0.001, t_max=1.0"),
    (lambda: SubVP(beta_min=0.0), "beta_min > 0"),
    (lambda: SubVP(t_max=1.5), "t_max <= 1"),
    (lambda: DDPMLinear(levels=10), r"the last beta is 2, it must be below 1: use more levels \(found 10\)"),
    (lambda: DDPMLinear(levels=1), "2 to 1000000 levels, found 1"),
    (lambda: DDPMLinear(beta_min=0.0), "0 < beta_min <= beta_max"),
    (lambda: DDPMLinear(levels=100_000, scaled=False), "float64 cannot hold: use fewer levels"),
    (lambda: DDPMScaledLinear(levels=10), "the last beta is 1.2, it must be below 1"),
    (lambda: DDPMScaledLinear(beta_max=1e-5), "0 < beta_min <= beta_max"),
    (lambda: DDPMCosine(beta_max=1.0), "0 < beta_max < 1"),
    (lambda: DDPMCosine(levels=2_000_000), "2 to 1000000 levels"),
    (lambda: VPConstant(step_noise=1.0), "0 < step_noise < 1"),
    (lambda: VPConstant(levels=100_000), "float64 cannot hold"),
    (lambda: EDM(3.0, 2.0), r"0 < sigma_min < sigma_max is needed, found 3\.0 and 2\.0"),
    (lambda: VELinear(3.0, 2.0), r"0 < sigma_min < sigma_max is needed, found 3\.0 and 2\.0"),
    (lambda: VELinear(sigma_max=1e200), "between 1e-100 and 1e100"),
    (lambda: VEGeometric(3.0, 2.0), r"0 < sigma_min < sigma_max is needed, found 3\.0 and 2\.0"),
    (lambda: VEGeometric(t_max=2.0), "t_max <= 1"),
    (lambda: IDDPM(levels=10, j0=9), "0 <= j0 < levels - 1"),
    (lambda: IDDPM(c1=0.0), "0 < c1 < 1"),
    (lambda: Flow(t_min=0.0), "0 < t_min"),
    (lambda: Flow(t_max=NAN), "t_max <= 1, found t_min=0.001, t_max=nan"),
    (lambda: User(t_max=-1.0), "user needs 0 < t_min < t_max"),
]


@pytest.mark.parametrize(("make", "expected"), IMPOSSIBLE, ids=[expected for _, expected in IMPOSSIBLE])
def test_impossible_parameters_are_refused_in_words(make: Callable[[], Schedule], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()


@pytest.mark.parametrize("entry", list(schedules), ids=schedules.names())
def test_every_schedule_refuses_some_parameters(entry: object) -> None:
    """Each number of each schedule, made negative, is refused (Chen's start and end may be: they
    are places on an axis).
    """
    cls = entry.cls  # type: ignore[attr-defined]
    for field in dataclasses.fields(cls):
        if isinstance(field.default, bool | str) or field.name in {"start", "end"}:
            continue
        with pytest.raises(ValueError, match=r"\w"):
            cls(**{field.name: -1 if isinstance(field.default, int) else -1.0})


@every
def test_levels_are_asked_of_discrete_schedules_only(schedule: Schedule) -> None:
    if schedule.max_steps is None:
        for ask in (lambda: schedule.own_times(3), lambda: schedule.noise_levels, lambda: schedule.level_times):
            with pytest.raises(ValueError, match="continuous: it has no levels of its own"):
                ask()
        return
    t = schedule.level_times
    assert len(t) == schedule.max_steps
    assert float(t[0]) == schedule.t_max
    assert float(t[-1]) == schedule.t_min
    assert (t.diff() < 0).all()
    levels = schedule.noise_levels
    assert (np.diff(levels) < 0).all()
    np.testing.assert_array_equal(levels[-len(t) :], schedule.nsr(t).numpy())
    assert torch.equal(schedule.own_times(len(t)), t)


@every
def test_a_schedule_survives_being_sent_and_copied(schedule: Schedule) -> None:
    if not all(isinstance(getattr(schedule, f.name), str | int | float) for f in dataclasses.fields(schedule)):
        pytest.skip("holds a function without a name")
    t = finite_times(schedule, 5)
    for again in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), dataclasses.replace(schedule)):  # noqa: S301
        assert again == schedule
        assert hash(again) == hash(schedule)
        assert torch.equal(again.sigma(t), schedule.sigma(t))


# --- constants of Table 1 of Karras et al. (2022) -------------------------------------------------


def test_vp_runs_from_152_17_to_0_010486() -> None:
    schedule = VPLinear()
    assert float(schedule.nsr(times(1.0))) == pytest.approx(152.17, rel=5e-5)
    assert float(schedule.nsr(times(1e-3))) == pytest.approx(0.010486, rel=5e-5)


def test_iddpm_levels_are_those_of_the_paper() -> None:
    u = IDDPM().noise_levels
    assert len(u) == 1000
    assert u[0] == pytest.approx(20291, rel=5e-5)
    assert u[8] == pytest.approx(80.20, rel=1e-4)
    assert u[999] == pytest.approx(0.006425, rel=1e-4)
    assert (np.diff(u) < 0).all()


def test_edm_grid_of_18_steps_is_that_of_the_paper() -> None:
    t = grids.create("edm").times(EDM(), 18)
    expected = {0: 80.0, 1: 57.586, 2: 40.786, 3: 28.375, 15: 0.02293, 16: 0.00753, 17: 0.002, 18: 0.0}
    for i, value in expected.items():
        assert float(t[i]) == pytest.approx(value, rel=5e-4)


def test_ve_is_the_heat_equation() -> None:
    t = torch.logspace(-3, 4, 20, dtype=torch.float64)
    torch.testing.assert_close(VELinear().diffusion_squared(t), torch.ones_like(t), rtol=1e-14, atol=0)
    assert (VELinear().drift(t) == 0).all()


def test_vp_has_half_of_beta_as_drift_and_its_root_as_diffusion() -> None:
    schedule = VPLinear()
    t = torch.linspace(1e-3, 1, 50, dtype=torch.float64)
    beta = 0.1 + 19.9 * t
    torch.testing.assert_close(schedule.drift(t), -beta / 2, rtol=1e-13, atol=0)
    torch.testing.assert_close(schedule.diffusion_squared(t), beta, rtol=1e-11, atol=0)


# --- the forward chain ----------------------------------------------------------------------------

CHAINS = {name: schedule for name, schedule in VARIANTS.items() if isinstance(schedule, Chain)}
every_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


@every_chain
def test_variance_of_the_chain_telescopes(chain: Chain) -> None:
    """Var[x_k | x_0] = A_k^2 Var[x_{k-1} | x_0] + B_k^2 = 1 - product of A_i^2, to 1e-14."""
    k = torch.arange(1, chain.levels + 1, dtype=torch.float64)
    variance, amplitude, chain_variance, chain_amplitude = 0.0, 1.0, [], []
    for beta in chain.betas:
        variance = (1 - beta) * variance + beta
        amplitude *= math.sqrt(1 - beta)
        chain_variance.append(variance)
        chain_amplitude.append(amplitude)
    torch.testing.assert_close(chain.sigma(k) ** 2, times(*chain_variance), rtol=0, atol=1e-14)
    torch.testing.assert_close(chain.alpha(k), times(*chain_amplitude), rtol=1e-13, atol=0)  # of up to 1000 products
    torch.testing.assert_close(chain.sigma(k) ** 2, times(*(1 - np.cumprod(1 - chain.betas))), rtol=0, atol=1e-14)


@every_chain
def test_noise_of_one_step_added_to_the_noise_so_far_is_the_noise_of_one_shot(chain: Chain) -> None:
    """The lecture's exercise: A_k sigma_{k-1} eps' + B_k eps_k has the law of sigma_k eps."""
    k = torch.arange(1, chain.levels + 1, dtype=torch.float64)
    beta = torch.as_tensor(chain.betas)
    identity = (1 - beta) * chain.sigma(k - 1) ** 2 + beta
    torch.testing.assert_close(identity, chain.sigma(k) ** 2, rtol=0, atol=1e-14)


def test_chain_and_one_shot_give_the_same_law() -> None:
    """Each of 100 steps drawn; KS against the exact law: false alarms 1e-3 each, the seed is fixed."""
    chain, generator, n = DDPMLinear(), stream("chain"), 20_000
    x0 = Uniform().sample(n, generator)[:, 0]
    x = x0.clone()
    for k, beta in enumerate(chain.betas, 1):
        x = math.sqrt(1 - beta) * x + math.sqrt(beta) * torch.randn(n, generator=generator, dtype=torch.float64)
        if k in {1, 20, 100}:
            alpha, sigma = (f(times(float(k))) for f in (chain.alpha, chain.sigma))

            def cdf(v: np.ndarray, alpha: Tensor = alpha, sigma: Tensor = sigma) -> np.ndarray:
                return np.asarray(Uniform().noised_cdf(torch.as_tensor(v)[:, None], alpha, sigma))

            assert kstest(x.numpy(), cdf).pvalue > 1e-3
            one_shot = alpha * x0 + sigma * torch.randn(n, generator=generator, dtype=torch.float64)
            assert kstest(one_shot.numpy(), cdf).pvalue > 1e-3
            error = 4.5 / math.sqrt(n)
            assert abs(x.mean() - one_shot.mean()) <= error * math.sqrt(2) * x.std()
            assert float(x.var() / one_shot.var()) == pytest.approx(1, abs=2 * error)


def test_innovation_and_total_noise_are_correlated_as_the_exercise_says() -> None:
    """E[eps_k eps] = B_k / sigma_k for sigma_k eps = A_k sigma_{k-1} eps' + B_k eps_k; 4.5 standard
    errors (7e-6).
    """
    chain, n, k = DDPMLinear(), 100_000, 30
    beta = chain.betas[k - 1]
    before, after = (float(chain.sigma(times(float(j)))) for j in (k - 1, k))
    old, new = torch.randn(2, n, generator=stream("exercise"), dtype=torch.float64)
    total = (math.sqrt(1 - beta) * before * old + math.sqrt(beta) * new) / after
    assert abs(float((new * total).mean()) - math.sqrt(beta) / after) <= 4.5 * math.sqrt(2 / n)


def test_the_root_of_one_minus_a_squared_is_the_only_noise_that_keeps_unit_variance() -> None:
    """The limit of x_k = a x_{k-1} + b eps has variance b^2 / (1 - a^2)."""
    for beta in (0.001, 0.04, 0.2):
        a, variance = math.sqrt(1 - beta), 0.0
        for _ in range(200_000):
            variance = a * a * variance + beta
        assert (
            variance == pytest.approx(stationary_variance(a, math.sqrt(beta)), rel=1e-9) == pytest.approx(1, abs=1e-10)
        )
    assert stationary_variance(0.6, 0.4) == pytest.approx(0.16 / 0.64)
    with pytest.raises(ValueError, match="has a limit for -1 < keep < 1 only"):
        stationary_variance(1.0, 0.1)
    chain = DDPMLinear(levels=2000, beta_min=0.02, beta_max=0.02, scaled=False)
    assert float(chain.sigma(times(2000.0))) == 1


def test_ends_of_the_chains_are_the_published_ones() -> None:
    def end(chain: Chain) -> float:
        return float(chain.alpha(times(chain.t_max))) ** 2

    assert end(DDPMLinear(levels=1000)) == pytest.approx(4.036e-5, rel=2e-4)
    for levels, unscaled, scaled in ((50, 0.603, 7.7e-6), (100, 0.364, 2.0390e-5)):
        assert end(DDPMLinear(levels=levels, scaled=False)) == pytest.approx(unscaled, abs=5e-4)
        assert end(DDPMLinear(levels=levels)) == pytest.approx(scaled, rel=0.01)
    assert end(DDPMLinear(levels=10, scaled=False)) == pytest.approx(0.904, abs=5e-4)
    assert end(DDPMScaledLinear()) == pytest.approx(0.00466, abs=5e-6)
    assert end(DDPMCosine()) == pytest.approx(2.4e-9, rel=0.02)
    assert end(VPConstant()) == pytest.approx(0.96**200, rel=1e-12)


def test_noise_levels_of_the_chains_are_the_published_ones() -> None:
    for chain, first, last in (
        (DDPMLinear(levels=1000), 157.4, 0.0100),
        (DDPMScaledLinear(), 14.61, 0.0292),
        (DDPMCosine(), 20291, 0.00643),
    ):
        assert chain.noise_levels[0] == pytest.approx(first, rel=5e-4)
        assert chain.noise_levels[-1] == pytest.approx(last, rel=2e-3)


def test_the_cosine_chain_has_the_levels_of_iddpm() -> None:
    np.testing.assert_allclose(DDPMCosine().noise_levels, IDDPM().noise_levels, rtol=1e-10)


def test_the_cosine_chain_is_the_cosine_schedule_at_its_levels_but_for_the_last() -> None:
    chain, continuous = DDPMCosine(), VPCosine(t_max=1.0)
    k = torch.arange(1, 1000, dtype=torch.float64)
    torch.testing.assert_close(chain.alpha(k), continuous.alpha(k / 1000), rtol=1e-11, atol=0)
    torch.testing.assert_close(chain.sigma(k), continuous.sigma(k / 1000), rtol=1e-11, atol=0)
    assert (chain.betas[:-1] < 0.999).all()
    assert chain.betas[-1] == 0.999


def test_the_notebooks_constant_chain_leaves_what_the_notebook_calls_nothing() -> None:
    """Four atoms, T = 200: alpha_t^2 = 0.96^t; at the end mean -0.038 and variance 1.023 rather
    than 0 and 1.
    """
    chain = VPConstant()
    k = torch.arange(0, 201, dtype=torch.float64)
    torch.testing.assert_close(chain.alpha(k) ** 2, 0.96**k, rtol=1e-12, atol=0)
    alpha, sigma = float(chain.alpha(k[-1:])), float(chain.sigma(k[-1:]))
    atoms = np.array([-15, -5, 1, 10])
    assert alpha * atoms.mean() == pytest.approx(-0.03796, abs=5e-6)
    assert alpha**2 * atoms.var() + sigma**2 == pytest.approx(1.02325, abs=5e-5)


def test_euler_chain_of_the_exponential_schedule_settles_at_two_over_two_minus_dt() -> None:
    """x' = (1 + f dt) x + g sqrt(dt) z: the variance's fixed point; Euler's excess vanishes with
    dt.
    """
    schedule = VPExponential()
    f, g2 = float(schedule.drift(times(1.3))), float(schedule.diffusion_squared(times(1.3)))
    for dt in (0.1, 0.01):
        variance = 0.0
        for _ in range(5000):
            variance = (1 + f * dt) ** 2 * variance + g2 * dt
        assert variance == pytest.approx(2 / (2 - dt), rel=1e-12)


@pytest.mark.parametrize(
    "schedule", [VPLinear(), VPExponential(), SubVP(), VEGeometric(), VELinear(), EDM(), VPCosine()]
)
def test_euler_maruyamas_moments_come_to_the_marginals_at_first_order(schedule: Schedule) -> None:
    """Mean and variance of x' = (1 + f dt) x + g sqrt(dt) z from t_max/2 to 0.8 t_max."""
    low, high = 0.5 * schedule.t_max, 0.8 * schedule.t_max
    ends = times(low, high)
    m0, m1 = schedule.alpha(ends).tolist()
    v0, v1 = (schedule.sigma(ends) ** 2).tolist()
    errors = []
    for n in (400, 1600):
        t = low + (high - low) * torch.arange(n, dtype=torch.float64) / n
        dt, m, v = (high - low) / n, m0, v0
        for f, g2 in zip(schedule.drift(t).tolist(), schedule.diffusion_squared(t).tolist(), strict=True):
            m, v = (1 + f * dt) * m, (1 + f * dt) ** 2 * v + g2 * dt
        errors.append(abs(m / m1 - 1) + abs(v / v1 - 1))
    assert errors[1] < 0.01
    assert errors[1] <= 0.27 * errors[0] + 1e-10  # the heat equation's steps are exact


# --- what lecture notes get wrong: the printed formula fails, ours holds --------------------------


def test_s0_1_alpha_exp_minus_t_has_diffusion_root_two_and_not_two() -> None:
    schedule = VPExponential()
    g2 = float(schedule.diffusion_squared(times(0.7)))
    assert g2 == pytest.approx(2, rel=1e-14)
    assert float(schedule.alpha(times(0.7))) == pytest.approx(math.exp(-0.7), rel=1e-15)
    dt = 0.01
    stationary = {g: g * g * dt / (1 - (1 - dt) ** 2) for g in (2.0, math.sqrt(g2))}
    assert stationary[2.0] == pytest.approx(2.01005, rel=1e-5)
    assert stationary[math.sqrt(g2)] == pytest.approx(1.00503, rel=1e-5)
    assert stationary[math.sqrt(g2)] == pytest.approx(2 / (2 - dt), rel=1e-12)


def test_s0_2_amplitude_of_vp_is_an_exponential_of_minus_the_integral() -> None:
    schedule = VPLinear()
    printed = math.exp(0.5 * 19.9 + 0.1)
    assert printed == pytest.approx(23155.8, rel=1e-5)  # "amplitude squared" above one: the noise would be imaginary
    ours = float(schedule.alpha(times(1.0))) ** 2
    assert ours == pytest.approx(4.3186e-5, rel=1e-4)
    assert ours * printed == pytest.approx(1, rel=1e-12)


def test_s0_3_a_step_of_the_vp_chain_takes_beta_times_dt() -> None:
    schedule, n = VPLinear(), 1000
    beta = schedule.beta((torch.arange(n, dtype=torch.float64) + 1) / n)
    assert bool((1 - beta < 0).any())  # the printed sqrt(1 - b(t)) is the root of -19 at t = 1
    chain = float(torch.log1p(-beta / n).sum().exp())
    assert chain == pytest.approx(3.9956e-5, rel=1e-4)
    fine = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    converged = float(torch.log1p(-schedule.beta(fine) / 1_000_000).sum().exp())
    assert converged == pytest.approx(float(schedule.alpha(times(1.0))) ** 2, rel=1e-3)


def test_s0_4_the_noise_of_ve_is_sigma_and_not_its_square() -> None:
    """The chain's steps sqrt(sigma_{k+1}^2 - sigma_k^2) add up to sigma^2, on both schedules;
    test_samplers_forward runs it.
    """
    levels = torch.logspace(math.log10(0.01), math.log10(50), 1000, dtype=torch.float64)
    chain = float((levels**2).diff().sum())
    assert chain == pytest.approx(2499.9999, rel=1e-9)
    linear, geometric = VELinear(0.01, 50.0), VEGeometric(0.01, 50.0)
    first, last = (float(linear.sigma(times(t))) for t in (linear.t_min, linear.t_max))
    assert last**2 - first**2 == pytest.approx(chain, rel=1e-12)
    assert float(geometric.sigma(times(1.0))) ** 2 == pytest.approx(chain, rel=1e-12)


def test_s0_5_a_variance_that_grows_as_t_has_diffusion_one_and_not_two_t() -> None:
    schedule, n = VELinear(), 4000
    t = 2 * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    ours = float(schedule.diffusion_squared(t).sum() * 2 / n)
    printed = float(((2 * t) ** 2).sum() * 2 / n)
    assert ours == pytest.approx(2, rel=1e-12)
    assert printed == pytest.approx(10.667, rel=1e-4)
    assert float(schedule.sigma(times(2.0))) ** 2 == pytest.approx(ours, rel=1e-12)
    torch.testing.assert_close(EDM().diffusion_squared(t), 2 * t, rtol=1e-14, atol=0)  # where sigma = t: g = sqrt(2 t)


def _denoised(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return Uniform().denoise(x, alpha, sigma)


def _last_sample(chain: DDPMLinear, factor: str, noise: str) -> Tensor:
    """The first lecture's sampler with the ideal E[eps | x]: (x - factor eps) / A + sigma z."""
    n, generator = 10_000, stream("level-1 sampler")
    x = torch.randn(n, 1, generator=generator, dtype=torch.float64) * chain.sigma(times(chain.t_max))
    for k in range(chain.levels, 0, -1):
        alpha, sigma = (f(times(float(k))) for f in (chain.alpha, chain.sigma))
        beta = float(chain.betas[k - 1])
        eps = (x - alpha * _denoised(x, alpha, sigma)) / sigma
        x = (x - (math.sqrt(beta) if factor == "B" else beta / sigma) * eps) / math.sqrt(1 - beta)
        if noise == "B" and k > 1:
            x = x + math.sqrt(beta) * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return x


def test_s0_6_the_first_lectures_sampler_read_literally_collapses_to_one_half() -> None:
    """The factor B_k / sigma_k that the loss absorbs is missing in the printed sampler. With noise,
    4 sd of W1.
    """
    w1 = Wasserstein1()
    collapsed = _last_sample(DDPMLinear(), "B", "none")
    assert (collapsed - 0.5).abs().max() < 1e-3
    assert w1.evaluate(collapsed, Uniform()) == pytest.approx(0.25, abs=1e-4)
    noisy = _last_sample(DDPMLinear(), "B", "B")
    assert w1.evaluate(noisy, Uniform()) == pytest.approx(0.0538, abs=4 * 0.0015)
    corrected = _last_sample(DDPMLinear(), "B^2/sigma", "B")
    assert w1.evaluate(corrected, Uniform()) == pytest.approx(0.00412, abs=4 * 0.0016)


@dataclass(frozen=True)
class Silent:
    """Noise that is zero: what is left of a stochastic move is its mean."""

    x: Tensor

    def between(self, now: Level, then: Level) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(self.x)

    def fresh(self) -> Tensor:
        return torch.zeros_like(self.x)


def test_s0_6_the_corrected_sampler_is_the_ancestral_one() -> None:
    chain, k = DDPMLinear(), 37
    x = torch.randn(1, 100, 1, generator=stream("level 1"), dtype=torch.float64)
    t = times(float(k), float(k - 1))
    now, then = (
        Level(u, chain.alpha(u), chain.sigma(u), chain.alpha_dot(u), chain.sigma_dot(u)) for u in (t[:1], t[1:])
    )
    sampler = Ancestral("transition")
    ours = sampler.step(lambda x, a, s: _denoised(x, a[:, None], s[:, None]), x, now, then, Silent(x))
    beta = chain.betas[k - 1]
    eps = (x - now.alpha * _denoised(x, now.alpha, now.sigma)) / now.sigma
    torch.testing.assert_close(ours, (x - beta / now.sigma * eps) / math.sqrt(1 - beta), rtol=1e-12, atol=1e-12)
    widest = {T: float(DDPMLinear(levels=T).sigma(times(float(k)))) / math.sqrt(DDPMLinear(levels=T).betas[k - 1])
              for T, k in ((1000, 250), (100, 1))}  # fmt: skip
    assert widest[1000] == pytest.approx(9.70, rel=2e-3)  # the absorbed factor is not small
    assert widest[100] == pytest.approx(1, rel=1e-12)


def mean_posterior_variance(alpha: float, sigma: float, target: Uniform | None = None) -> float:
    """E Var[x_0 | x], the least mean square error, by quadrature over x."""
    target = target or Uniform()
    low, high = alpha * target.low - 12 * sigma, alpha * target.high + 12 * sigma
    nodes, weights = np.polynomial.legendre.leggauss(2000)
    x = torch.as_tensor(0.5 * (low + high) + 0.5 * (high - low) * nodes)[:, None]
    a, s = times(alpha)[0], times(sigma)[0]
    density = target.log_density(x, a, s).exp()
    return float((density * target.posterior_variance(x, a, s)) @ torch.as_tensor(weights)) * 0.5 * (high - low)


def test_s0_9_the_reverse_step_is_wider_than_the_posterior_given_the_data() -> None:
    """p(x_{k-1} | x_k) has the variance of the posterior plus that of x_0 given x_k, carried over;
    k = 2 of 100.
    """
    chain = DDPMLinear()
    alpha, sigma = ([float(v) for v in f(times(1.0, 2.0))] for f in (chain.alpha, chain.sigma))
    beta = float(chain.betas[1])
    posterior = sigma[0] ** 2 * beta / sigma[1] ** 2
    carried = (alpha[0] * beta / sigma[1] ** 2) ** 2 * mean_posterior_variance(alpha[1], sigma[1])
    assert posterior == pytest.approx(0.000751, rel=2e-3)
    assert posterior + carried == pytest.approx(0.002759, rel=2e-2)
    assert posterior + carried < beta  # and the transition's variance lies on the other side


def test_s0_12_unit_noise_at_every_level_is_not_the_denoising_loss() -> None:
    assert mean_posterior_variance(1.0, 0.05) == pytest.approx(0.002274, rel=1e-3)
    assert mean_posterior_variance(1.0, 1.0) == pytest.approx(0.0769, rel=2e-3)


def test_s0_16_a_hundred_unscaled_steps_do_not_end_in_noise() -> None:
    unscaled, scaled = DDPMLinear(scaled=False), DDPMLinear()
    end = times(100.0)
    assert float(unscaled.alpha(end)) ** 2 == pytest.approx(0.363563, rel=1e-5)
    assert float(scaled.alpha(end)) ** 2 == pytest.approx(2.0390e-5, rel=1e-4)
    assert 0.5 * float(unscaled.alpha(end)) == pytest.approx(0.30, abs=0.005)  # the mean of "noise"
    w1 = Wasserstein1()
    z = torch.as_tensor(norm.ppf((np.arange(20_000) + 0.5) / 20_000))[:, None]
    mismatch = {}
    for chain in (unscaled, scaled):
        alpha, sigma = chain.alpha(end), chain.sigma(end)
        # from N(0, 1), the prior of the lecture; the exact flow keeps quantiles, and that of U[0,
        # 1] is the identity
        mismatch[chain.scaled] = w1.evaluate(Uniform().noised_cdf(z, alpha, sigma)[:, None], Uniform())
    assert mismatch[False] == pytest.approx(0.0923, rel=0.01)
    assert mismatch[True] < 0.001


def test_s3_6_the_cross_terms_of_the_squared_noise_leave_out_the_diagonal() -> None:
    """x_5 = 0.9 x_4 + eps_5: with i = j among the pairs of the second sum, the variance doubles."""
    a, t = 0.9, 5
    weights = np.array([a ** (t - i) for i in range(1, t + 1)])
    pairs = np.outer(weights, weights)
    moments = np.eye(t)  # E[eps_i eps_j]
    off_diagonal = (pairs * moments).sum() - np.trace(pairs * moments)
    ours, printed = (weights**2).sum() + off_diagonal, (weights**2).sum() + (pairs * moments).sum()
    assert ours == pytest.approx(3.428, abs=5e-4)
    assert ours == pytest.approx((1 - a ** (2 * t)) / (1 - a**2), rel=1e-12)
    assert printed == pytest.approx(6.856, abs=5e-4)
    chain = VPConstant(levels=t, step_noise=math.sqrt(1 - a**2))  # the same weights, in units that keep the variance
    assert float(chain.sigma(times(5.0))) ** 2 == pytest.approx((1 - a**2) * ours, rel=1e-12)


def test_s4_3_the_kernel_shrinks_by_the_exponential_of_half_the_integral_of_beta() -> None:
    """N(x | x_0 xi, 1 - xi^2), xi = exp(-1/2 int beta): neither int (beta tau) nor 1 - xi will do."""
    schedule, end = VPLinear(), 0.6

    def beta(tau: float) -> float:
        return 0.1 + 19.9 * tau

    xi = math.exp(-0.5 * quad(beta, 0, end)[0])
    alpha, variance = float(schedule.alpha(times(end))), float(schedule.sigma(times(end))) ** 2
    assert alpha == pytest.approx(xi, rel=1e-12)
    assert variance == pytest.approx(1 - xi**2, rel=1e-12)
    printed = math.exp(-0.5 * quad(lambda tau: beta(tau) * tau, 0, end)[0])
    assert abs(printed / alpha - 1) > 0.5
    assert abs((1 - xi) / variance - 1) > 0.1

    # v' = beta - beta v, whose solution from 0 is 1 - xi^2; 1 - xi grows at half the rate at first
    rate = 2 * float(schedule.sigma(times(end)) * schedule.sigma_dot(times(end)))
    assert rate == pytest.approx(beta(end) * (1 - variance), rel=1e-11)
    assert abs(0.5 * beta(end) * xi / (beta(end) * xi) - 1) > 0.1


# --- a schedule of one's own ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "shipped"),
    [
        (User("exp(-t)", "sqrt(-expm1(-2*t))", t_min=1e-4, t_max=5.0), VPExponential()),
        (User("1 - t", "t", t_max=1.0), Flow()),
        (User("1", "t", t_min=0.002, t_max=80.0), EDM()),
        (User("exp(-0.5*(9.95*t**2 + 0.1*t))", "-expm1(-(9.95*t**2 + 0.1*t))", t_max=1.0), SubVP()),
        (User("cos(pi*t/2)", "sin(pi*t/2)", t_max=0.9946), VPCosine(s=0.0)),
        (User("1", "0.01*sqrt(expm1(2*log(50/0.01)*t))", t_min=1e-5, t_max=1.0), VEGeometric()),
    ],
    ids=lambda schedule: schedule.registered_name,
)
def test_a_shipped_schedule_written_as_expressions_is_that_schedule(own: User, shipped: Schedule) -> None:
    assert (own.t_min, own.t_max) == (shipped.t_min, shipped.t_max)
    assert own.variance_preserving is shipped.variance_preserving
    t = finite_times(shipped, 50)
    for part in ("alpha", "sigma", "alpha_dot", "sigma_dot", "nsr", "drift", "diffusion_squared"):
        torch.testing.assert_close(getattr(own, part)(t), getattr(shipped, part)(t), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(own.time_of(shipped.nsr(t)), t, rtol=1e-11, atol=0)


def test_expressions_mean_what_arithmetic_says() -> None:
    t = torch.linspace(0.1, 2, 7, dtype=torch.float64)
    for text, value in {
        "-t**2": -(t**2),
        "2**-t": 2**-t,
        "1 - t - 2": -1 - t,
        "+t / 2 / 4": t / 8,
        "t**t**0.5": t ** (t**0.5),
        "(1 + t)*3e-1": (1 + t) * 0.3,
        " .5 + 1.\t": torch.full_like(t, 1.5),
        "pi": torch.full_like(t, math.pi),
        "9**9**9**9": torch.full_like(t, math.inf),
        "1/0": torch.full_like(t, math.inf),
        **{f"{name}(t)": function(t) for name, function in FUNCTIONS.items()},
    }.items():
        torch.testing.assert_close(Formula(text)(t), value, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__[0].__subclasses__()",
        "t.__class__",
        "t.numpy()",
        "open('/etc/passwd')",
        "eval(t)",
        "exec",
        "exp",
        "exp()",
        "exp(t, t)",
        "exp(t)(t)",
        "exp(*t)",
        "exp(**t)",
        "pi(t)",
        "t if t else t",
        "lambda: t",
        "[t]",
        "(t, t)",
        "()",
        "t[0]",
        "t < 1",
        "t and t",
        "t // 1",
        "t % 1",
        "t @ t",
        "t | t",
        "~t",
        "not t",
        "t := 1",
        "t = 1",
        "t; t",
        "t\nt",
        "t #",
        "'t'",
        'f"{t}"',
        "1j",
        "1_000",
        "0x10",
        "01",
        "1e",
        "2t",
        "True",
        "None",
        "...",
        "x",
        "T",
        "e",
        "",
        "   ",
        "(",
        "(t",
        "t)",
        "+",
        "t +",
        "t**",
        "\x00",
        "t\x00",
        "\ud800",
        "\N{GREEK SMALL LETTER PI}",
        "\N{FULLWIDTH LATIN SMALL LETTER T}",
        "t" * 201,
        "(" * 150,
        "-" * 150 + "t",
        "exp(" * 45 + "t" + ")" * 45,
        "t**" * 60 + "t",
        "1" * 201,
        ":",
        "t:",
        ":t",
        "no_such_module_of_anyone:function",
        "math:no_such_function",
        "math:pi",
        "os:system('true')",
        "os:system:true",
        "a" * 300 + ":b",
    ],
)
def test_whatever_is_not_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"accepted|imported|not a function"):
        Formula(text)
    with pytest.raises(ValueError, match=r"^alpha: "):
        User(alpha=text)


def test_a_refused_expression_has_not_been_evaluated(capfd: pytest.CaptureFixture[str]) -> None:
    for text in ("print(1)", "__import__('os').system('echo 1')", "[print(1) for t in (1,)]", "exp(print(1))"):
        with pytest.raises(ValueError, match="accepted"):
            Formula(text)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"alpha": "t"}, "alpha must be 1 at t = 0, found 0.0 of 't'"),
        ({"alpha": "9**9**t"}, "alpha must be 1 at t = 0, found 9.0"),
        ({"sigma": "1"}, "sigma must be 0 at t = 0, and without rounding error, found 1.0 of '1'"),
        ({"sigma": "cos(pi*(1 - t)/2)"}, "without rounding error, found 6.1"),
        ({"sigma": "log(t)"}, "sigma must be 0 at t = 0"),
        ({"sigma": "0*t"}, "sigma must be positive"),
        ({"sigma": "-t"}, "sigma must be positive"),
        ({"alpha": "1 - 2*t"}, "alpha must be positive for t from t_min=0.001 to t_max=0.99, found -"),
        ({"alpha": "1", "sigma": "t*(1.2 - t)"}, "sigma / alpha must rise with t .* at t = 0.60"),
        ({"alpha": "1 + 10*t", "sigma": "t**0.5"}, "sigma / alpha must rise with t .* at t = 0.10"),
        ({"alpha": "1", "sigma": "t + 0.2*sin(20*t)"}, "sigma / alpha must rise with t"),
        ({"alpha": "1", "sigma": "tanh(100*t)"}, "sigma / alpha must rise with t"),
        ({"alpha": "(1-t)**2", "sigma": "t", "t_max": 1.0}, "alpha must not end flat at 0, .* found 0 at t = 1 "),
        ({"alpha": "1/(1 - 2*t)"}, "alpha must be"),
        ({"alpha": "1", "sigma": "exp(1000*t) - 1"}, "sigma must be finite"),
        ({"alpha": "sqrt(1 - t)", "sigma": "sqrt(t)", "t_max": 1.0}, "alpha' must be finite .* found -inf at t = 1"),
        ({"alpha": 3}, "alpha must be an expression, package.module:function or a function, found 3"),
        ({"alpha": None}, "alpha must be an expression"),
        ({"sigma": lambda _: 1.0}, "sigma must return a float64 tensor of the shape of t, .* found float"),
        ({"sigma": lambda t: t.float()}, r"found torch.float32 \[2\]"),
        ({"sigma": lambda t: t.sum()}, r"found torch.float64 \[\]"),
        ({"sigma": lambda t: t / 0 if isinstance(t, int) else 1 / 0}, "sigma failed: .*ZeroDivisionError"),
        ({"sigma": lambda t: torch.as_tensor(t.numpy() + 0.0)}, "sigma has no derivative"),
        ({"alpha": "sys:exit"}, "alpha failed: 'sys:exit': SystemExit"),
        ({"alpha": "math:cos"}, "alpha failed: 'math:cos'"),
    ],
)
def test_amplitudes_that_make_no_schedule_are_refused_in_words(parameters: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        User(**parameters)  # type: ignore[arg-type]


def test_functions_are_named_where_they_can_be_imported_and_have_no_spec_where_they_cannot() -> None:
    assert path_of(os.path.join) == f"{os.path.__name__}:join"
    assert path_of(Schedule.nsr) == "diffusion.schedules.base:Schedule.nsr"
    for function in (lambda t: t, torch.cos, functools.partial(bell_alpha)):
        assert path_of(function) is None
    named = User(bell_alpha, bell_sigma, t_max=2.0)
    assert named.spec()["alpha"] == f"{__name__}:bell_alpha"
    assert schedules.create(**named.spec()) == named
    by_path = User("torch:cos", "torch:sin", t_max=1.5)
    assert by_path.spec() == {"name": "user", "alpha": "torch:cos", "sigma": "torch:sin", "t_min": 1e-3, "t_max": 1.5}
    assert by_path.label() == "user(alpha=torch:cos,sigma=torch:sin,t_max=1.5)"
    assert schedules.create(**by_path.spec()) == by_path
    t = finite_times(by_path, 20)
    torch.testing.assert_close(by_path.alpha_dot(t), -torch.sin(t), rtol=1e-15, atol=0)
    unnamed = User(lambda t: 1 - t, lambda t: t.clone(), t_max=1.0)
    assert torch.equal(unnamed.nsr(times(0.5)), times(1.0))
    with pytest.raises(ValueError, match="alpha of this schedule is a function that cannot be imported by name"):
        unnamed.spec()


def test_a_module_of_ones_own_is_imported_and_its_failures_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_schedule_of_mine.py").write_text(
        "def alpha(t): return 1 - t\n\ndef broken(t): return t.no_such_thing\n"
    )
    (tmp_path / "a_module_that_fails.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    schedule = User("a_schedule_of_mine:alpha", "t", t_max=1.0)
    assert float(schedule.nsr(times(0.5))) == 1
    with pytest.raises(ValueError, match=r"alpha failed: 'a_schedule_of_mine:broken': AttributeError: .*no_such_thing"):
        User("a_schedule_of_mine:broken", "t")
    with pytest.raises(ValueError, match=r"could not be imported: RuntimeError: not today"):
        User("a_module_that_fails:alpha", "t")


def test_derivatives_are_there_whatever_mode_torch_is_in() -> None:
    schedule, t = User(), times(0.3)
    expected = -math.pi / 2 * math.sin(0.15 * math.pi)
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            assert float(schedule.alpha_dot(t)) == pytest.approx(expected, rel=1e-14)
            assert not schedule.alpha_dot(t).requires_grad


def test_the_inverse_of_ones_own_ratio_copes_with_roots_kinks_and_steps() -> None:
    """Slopes that are infinite at 0, vanish inside, or change by four orders of magnitude."""
    for sigma in ("sqrt(t)", "t**9", "(t - 0.5)**3 + 0.125 + 0.01*t", "t + tanh(1000*(t - 0.5)) + tanh(500)", "t**0.1"):
        schedule = User("1", sigma, t_max=1.0)
        t = finite_times(schedule, 200)
        nsr = schedule.nsr(t)
        torch.testing.assert_close(schedule.nsr(schedule.time_of(nsr)), nsr, rtol=1e-12, atol=0)


def test_the_inverse_of_ones_own_ratio_is_found_in_a_few_steps_of_newtons_rule() -> None:
    calls = 0

    def sigma(t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.sin(0.5 * math.pi * t)

    schedule = User("cos(pi*t/2)", sigma)
    t = finite_times(schedule, 500)
    nsr = schedule.nsr(t)
    schedule.time_of(nsr)  # makes the table of brackets
    calls = 0
    torch.testing.assert_close(schedule.time_of(nsr), t, rtol=1e-14, atol=0)
    assert calls <= 2 * 6  # value and slope


PIECES = [*FUNCTIONS, "t", "pi", "x", "0", "1", "2.5", "1e3", "9", "+", "-", "*", "/", "**", "(", ")", "(t)", " ", ".", ",",
          "e", "_", ":", "lambda", "[", "\\", "\n", "#", "'", "1j"]  # fmt: skip


@settings(max_examples=600, deadline=20_000, derandomize=True)
@given(st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=60).map("".join)))
def test_any_text_is_a_schedule_or_a_value_error(text: str) -> None:
    if ":" in text:  # a path would be imported, which is not to be left to chance
        text = text.replace(":", "")
    for parameters in ({"alpha": text}, {"sigma": text}, {"alpha": f"1+0*({text})", "sigma": f"t+0*({text})"}):
        try:
            schedule: Schedule = User(**parameters)  # type: ignore[arg-type]
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either outcome is right
        else:
            assert math.isfinite(float(schedule.sigma(times(0.5))))


ATOMS = st.sampled_from(["t", "pi", "1", "0.5", "2", "7"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda x: f"({x[0]}{x[1]}{x[2]})"),
        st.tuples(inner, st.sampled_from(["2", "3", "t"])).map(lambda x: f"({x[0]})**{x[1]}"),
        st.tuples(st.sampled_from(sorted(FUNCTIONS)), inner).map(lambda x: f"{x[0]}({x[1]})"),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=20_000, derandomize=True)
@given(EXPRESSIONS)
def test_an_expression_has_the_value_that_python_gives_it(text: str) -> None:
    """Python's own arithmetic on numpy's functions; `text` is made of the whitelist, so that eval
    is harmless.
    """
    if len(text) > 200:
        return
    names = {name: getattr(np, name) for name in FUNCTIONS} | {"pi": np.float64(math.pi)}
    with np.errstate(all="ignore"):
        for t in (0.3, 1.7):
            try:
                expected = float(eval(text, {"__builtins__": {}}, {**names, "t": np.float64(t)}))  # noqa: S307
            except (ZeroDivisionError, OverflowError):  # Python's numbers raise where float64 has infinities
                continue
            ours = float(Formula(text)(times(t)))
            assert ours == pytest.approx(expected, rel=1e-9, nan_ok=True) or abs(expected) > 1e290
