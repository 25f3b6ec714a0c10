"""Samplers that must coincide do; rules written out once more, from their papers, give the same
numbers.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from torch import Tensor

from diffusion.datasets import Uniform
from diffusion.models import counted
from diffusion.samplers import (
    DDIM,
    RK2,
    Ancestral,
    Churn,
    DormandPrince,
    DPMSolver2M,
    DPMSolver2MSDE,
    DPMSolver3M,
    Euler,
    EulerMaruyama,
    ExponentialEuler,
    Heun,
    LevelOne,
    PredictorCorrector,
    ReverseSDE,
    Sampler,
)
from diffusion.schedules import EDM, IDDPM, DDPMLinear, Flow, Schedule, SubVP, VELinear, VPLinear
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import Level, level_at, levels_of
from tests.diffusion import sampler_kit as kit

SCHEDULES, SILENCE = kit.SCHEDULES, kit.SILENCE
run, own_levels, own_stack, number = kit.run, kit.own_levels, kit.own_stack, kit.number
uniform, gaussian, standard, drawn = kit.uniform, kit.gaussian, kit.standard, kit.drawn

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
few_and_many = pytest.mark.parametrize("steps", [1, 2, 3, 20])


def paths(one: Sampler, other: Sampler, levels: list[Level], shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """All states of two samplers from the same start with the same noise, in units of the first
    level's noise.
    """
    scale = levels[0].sigma[:, None, None]
    x = standard(shape, "identity") * scale
    found = [torch.stack(list(s.trajectory(uniform, x, levels, drawn(shape, "same noise")))) for s in (one, other)]
    return found[0] / scale, found[1] / scale


# --- samplers that coincide -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Churn(s_churn=0.0), Heun()),
        (ReverseSDE(0.0), Euler()),
        (DPMSolver2MSDE(0.0), DPMSolver2M()),
    ],
    ids=lambda s: s.label(),
)
@few_and_many
def test_without_noise_the_stochastic_rule_is_the_deterministic_one_to_the_last_bit(
    one: Sampler, other: Sampler, steps: int
) -> None:
    chosen = list(SCHEDULES.values())
    found = paths(one, other, own_stack(chosen, steps), (len(chosen), 50, 1))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ReverseSDE(1.0), EulerMaruyama()),
        (RK2(1.0), Heun()),
        (ExponentialEuler("noise"), DDIM()),
        (Ancestral(), DDIM(1.0)),
        (LevelOne(), Ancestral()),
        (LevelOne("transition"), Ancestral("transition")),
    ],
    ids=lambda s: s.label(),
)
@few_and_many
@every_schedule
def test_two_names_of_one_rule_agree_to_rounding(one: Sampler, other: Sampler, steps: int, schedule: Schedule) -> None:
    """`level-1` divides by alpha_t / alpha_s what it has just subtracted, and loses the digits that
    alpha_t / alpha_s has.
    """
    if one.refuses(schedule) or other.refuses(schedule):
        assert one.refuses(schedule)
        return
    levels = own_levels(schedule, min(steps, schedule.max_steps or steps))
    ratio = min(float(now.alpha / then.alpha) for now, then in itertools.pairwise(levels))
    found = paths(one, other, levels, (1, 50, 1))
    size = max(1.0, float(found[1].abs().max()))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12 * size / (ratio if isinstance(one, LevelOne) else 1))


@pytest.mark.parametrize("schedule", [EDM(), IDDPM()], ids=lambda s: s.registered_name)
@few_and_many
def test_ddim_is_euler_where_noise_is_time(schedule: Schedule, steps: int) -> None:
    torch.testing.assert_close(*paths(DDIM(), Euler(), own_levels(schedule, steps), (1, 50, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [DPMSolver2M(), DPMSolver3M(), DPMSolver2MSDE(0.0)], ids=lambda s: s.label())
@pytest.mark.parametrize("steps", [1, 2])
@every_schedule
def test_multistep_rules_without_a_past_are_ddim(sampler: Sampler, steps: int, schedule: Schedule) -> None:
    """One step, or two: the first has no past, the last does not look at it. (The parabola's first
    step is corrected, but with two steps the end is the estimate that was made before the
    correction.)
    """
    found = paths(sampler, DDIM(), own_levels(schedule, steps), (1, 50, 1))
    torch.testing.assert_close(found[0][-1], found[1][-1], rtol=0, atol=1e-12)
    if not isinstance(sampler, DPMSolver3M):
        torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-12)


@every_schedule
def test_the_first_step_of_the_multistep_sde_is_ancestral(schedule: Schedule) -> None:
    found = paths(DPMSolver2MSDE(), Ancestral(), own_levels(schedule, 10), (1, 50, 1))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-12)


@few_and_many
@pytest.mark.parametrize("sampler", [Euler(), DDIM()], ids=lambda s: s.label())
def test_indi_is_euler_on_the_straight_line(sampler: Sampler, steps: int) -> None:
    """A49: x_{t-tau} = (tau/t) D + (1 - tau/t) x_t; from pure noise, one step gives the mean of the
    data.
    """
    levels = own_levels(Flow(), steps)
    x = standard((1, 50, 1), "indi")
    for state, (now, then) in zip(
        sampler.trajectory(uniform, x.clone(), levels, SILENCE), itertools.pairwise(levels), strict=True
    ):
        share = float((now.time - then.time) / now.time)
        x = share * uniform(x, now.alpha, now.sigma) + (1 - share) * x
        torch.testing.assert_close(state, x, rtol=0, atol=1e-12)
    if steps == 1:
        torch.testing.assert_close(x, torch.full_like(x, 0.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "sampler",
    [DDIM(), DDIM(1.0), Ancestral(), LevelOne(), DPMSolver2M(), DPMSolver2MSDE(), DPMSolver3M()],
    ids=lambda s: s.label(),
)
@every_schedule
def test_marginal_rules_find_data_at_one_point_in_a_single_step(sampler: Sampler, schedule: Schedule) -> None:
    if sampler.refuses(schedule):
        assert isinstance(sampler, LevelOne)
        return
    x = standard((1, 50, 1), "atom") * schedule.sigma(number(schedule.t_max))
    end = run(sampler, lambda x, _a, _s: torch.full_like(x, 0.4), x, own_levels(schedule, 1))
    accuracy = 1e-14 * schedule.terminal_nsr if isinstance(sampler, LevelOne) else 1e-12
    torch.testing.assert_close(end, torch.full_like(end, 0.4), rtol=max(accuracy, 1e-12), atol=0)


@pytest.mark.parametrize(
    "sampler",
    [*(DDIM(eta) for eta in (0.0, 0.5, 1.0)), *(DPMSolver2MSDE(eta) for eta in (0.3, 1.0, 4.0))],
    ids=lambda s: s.label(),
)
@every_schedule
def test_any_eta_keeps_the_noise_level_for_data_at_one_point(sampler: Sampler, schedule: Schedule) -> None:
    """x_s given x_0 has mean alpha_s x_0 and standard deviation sigma_s for every eta; D is then
    x_0, whatever x.
    """
    point = 0.4

    def atom(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG001
        return torch.full_like(x, point)

    for now, then in itertools.pairwise(own_levels(schedule, 9)[:-1]):
        found = kit.affine(sampler, atom, [now, then])
        mean, variance = found.of_normal(now.alpha * point, now.sigma**2)
        assert float(mean) == pytest.approx(float(then.alpha) * point, rel=1e-11)
        assert float(variance) == pytest.approx(float(then.sigma) ** 2, rel=1e-9)


# --- rules written out ----------------------------------------------------------------------------


def karras(x: Tensor, t: list[float], noise: list[Tensor], churn: Churn) -> Tensor:
    """Algorithm 2 of Karras et al. 2022, line by line, for alpha = 1, sigma = t; no level is raised
    above the first.
    """
    steps = len(t) - 1
    for i in range(steps):
        gamma = min(churn.s_churn / steps, math.sqrt(2) - 1) if churn.s_min <= t[i] <= churn.s_max else 0.0
        raised = min(t[i] + gamma * t[i], t[0])
        if raised > t[i]:
            x = x + math.sqrt(raised**2 - t[i] ** 2) * churn.s_noise * noise.pop(0)
        d = (x - uniform(x, number(1.0), number(raised))) / raised
        moved = x + (t[i + 1] - raised) * d
        if t[i + 1] != 0:
            later = (moved - uniform(moved, number(1.0), number(t[i + 1]))) / t[i + 1]
            moved = x + (t[i + 1] - raised) * (d / 2 + later / 2)
        x = moved
    return x


@pytest.mark.parametrize(
    "sampler",
    [
        Churn(s_churn=0.0),
        Churn(),
        Churn(s_churn=4.0, s_noise=1.007),
        Churn(s_churn=80.0, s_min=0.0, s_max=math.inf, s_noise=1.003),
    ],
    ids=lambda s: s.label(),
)
@pytest.mark.parametrize("steps", [1, 2, 18])
def test_churn_and_heun_are_algorithms_2_and_1_of_karras(sampler: Churn, steps: int) -> None:
    x = standard((1, 50, 1), "karras") * 80
    levels = own_levels(EDM(), steps)
    noise = [standard((1, 50, 1), "karras", i) for i in range(steps)]
    expected = karras(x, [float(level.time) for level in levels], list(noise), sampler)
    torch.testing.assert_close(run(sampler, uniform, x, levels, kit.Drawn(iter(noise))), expected, rtol=0, atol=1e-11)
    if not sampler.stochastic:
        torch.testing.assert_close(run(Heun(), uniform, x, levels), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("schedule", [EDM(), VELinear(), VPLinear(), SubVP(), Flow()], ids=lambda s: s.registered_name)
def test_churn_raises_the_noise_to_signal_ratio_on_any_schedule(schedule: Schedule) -> None:
    """What the denoiser sees at the beginning of a step is x/alpha with the noise that lifts nsr to
    (1 + gamma) nsr.
    """
    sampler, steps, shape = Churn(s_churn=3.0, s_min=0.1, s_max=10.0, s_noise=1.01), 10, (1, 20, 1)
    levels, requested = own_levels(schedule, steps), []

    def remember(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        requested.append((x / alpha if float(alpha) else x, float(sigma / alpha)))
        return uniform(x, alpha, sigma)

    x = standard(shape, "raise") * levels[0].sigma
    draws = kit.Drawn(standard(shape, "raise", i) for i in itertools.count())
    states = [x, *sampler.trajectory(remember, x, levels, draws)]
    churned = 0
    for i in range(steps):
        seen, ratio = requested[2 * i]
        now = float(levels[i].nsr)
        if i > 0 and 0.1 <= now <= 10:
            assert ratio == pytest.approx(min(1.3 * now, float(levels[0].nsr)), rel=1e-9)
            z = standard(shape, "raise", churned)
            expected = states[i] / levels[i].alpha + 1.01 * math.sqrt(ratio**2 - now**2) * z
            torch.testing.assert_close(seen, expected, rtol=1e-9, atol=1e-9)
            churned += 1
        else:
            assert ratio == now
    assert churned > 0


def test_rk2_is_the_general_rule_of_karras() -> None:
    """Appendix D.2: d + (1/2a) (d' - d) with the second stage at t + a h, for the midpoint and for
    Ralston's rule.
    """
    levels = own_levels(EDM(), 12)
    t = [float(level.time) for level in levels]
    for a in (0.5, 2 / 3, 0.9):
        x = y = standard((1, 50, 1), "rk2") * 80
        for now, then in itertools.pairwise(t):
            d = (y - uniform(y, number(1.0), number(now))) / now
            if then > 0:
                stage = now + a * (then - now)
                inner = y + a * (then - now) * d
                later = (inner - uniform(inner, number(1.0), number(stage))) / stage
                d = (1 - 1 / (2 * a)) * d + later / (2 * a)
            y = y + (then - now) * d
        torch.testing.assert_close(run(RK2(a), uniform, x, levels), y, rtol=0, atol=1e-11)


@pytest.mark.parametrize("schedule", [EDM(), VPLinear(), Flow()], ids=lambda s: s.registered_name)
def test_the_adaptive_sampler_is_that_of_scipy(schedule: Schedule) -> None:
    """From the first level to the last noisy one, in the schedule's own time; then Euler."""
    levels = own_levels(schedule, 2)
    x = standard((1, 30, 1), "scipy") * levels[0].sigma

    h = float(levels[1].time - levels[0].time)

    def field(u: float, flat: np.ndarray) -> np.ndarray:  # time as a share of the way, on which the first step depends
        level = levels[0].at(levels[0].time + (u - 1) * h)
        state = torch.from_numpy(flat).reshape(x.shape)
        denoised = uniform(state, level.alpha, level.sigma)
        slope = level.alpha_dot * denoised + level.sigma_dot * (state - level.alpha * denoised) / level.sigma
        return h * slope.numpy().ravel()

    model, counter = counted(uniform)
    solved = solve_ivp(field, (1, 2), x.numpy().ravel(), method="RK45", rtol=1e-6, atol=1e-6)
    reached, end = DormandPrince(rtol=1e-6, atol=1e-6).trajectory(model, x, levels, SILENCE)
    assert counter.nfe == solved.nfev
    torch.testing.assert_close(reached, torch.from_numpy(solved.y[:, -1]).reshape(x.shape), rtol=0, atol=1e-12)
    torch.testing.assert_close(end, Euler().step(uniform, reached, levels[1], levels[2], SILENCE), rtol=0, atol=1e-12)


def test_predictor_corrector_is_a_reverse_diffusion_step_and_a_langevin_step() -> None:
    """Written with scores, for alpha = 1: the ancestral mean is x + B^2 score, and e = 2 (snr
    sigma)^2.
    """
    levels = own_levels(EDM(), 10)
    x = y = standard((1, 50, 1), "pc") * 80
    noise = [standard((1, 50, 1), "pc", i) for i in range(40)]
    draws = iter(noise)

    def score(x: Tensor, level: Level) -> Tensor:
        return Uniform().score(x, level.alpha[:, None], level.sigma[:, None])

    for now, then in itertools.pairwise(levels):
        square = float(now.sigma**2 - then.sigma**2)
        y = y + square * score(y, now)
        if float(then.sigma) > 0:
            y = y + math.sqrt(square) * float(then.sigma / now.sigma) * next(draws)
            for _ in range(2):
                e = 2 * (0.2 * float(then.sigma)) ** 2
                y = y + e * score(y, then) + math.sqrt(2 * e) * next(draws)
    found = run(PredictorCorrector(snr=0.2, corrector_steps=2), uniform, x, levels, kit.Drawn(iter(noise)))
    torch.testing.assert_close(found, y, rtol=0, atol=1e-10)


def test_noise_of_ddim_is_that_of_the_paper() -> None:
    """Song et al. 2021, eq. 16: c^2 = eta^2 (1 - a_s)/(1 - a_t) (1 - a_t/a_s), a the squared
    amplitudes.
    """
    chain = DDPMLinear()
    square = np.cumprod(1 - chain.betas)
    for eta in (0.5, 1.0):
        for now, then in itertools.pairwise(own_levels(chain, 20)[:-1]):
            a_t, a_s = (square[int(level.time) - 1] for level in (now, then))
            c = eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))
            assert float(kit.affine(DDIM(eta), gaussian(), [now, then]).weights.sum()) == pytest.approx(c, rel=1e-10)


# --- multistep ------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [EDM(), VPLinear()], ids=lambda s: s.registered_name)
def test_the_parabola_is_integrated_exactly(schedule: Schedule) -> None:
    """dpmpp-3m against quadrature of e^lambda P(lambda), P fitted through the last three estimates
    by linear algebra.
    """
    levels = levels_of([schedule], [grids.create("edm")], 9)
    lambdas = [-math.log(float(level.nsr)) for level in levels[:-1]]
    estimates = []

    def remember(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        estimates.append(uniform(x, alpha, sigma))
        return estimates[-1]

    x = standard((1, 5, 1), "parabola") * levels[0].sigma
    states = [x, *DPMSolver3M().trajectory(remember, x, levels, SILENCE)]
    for i in range(1, 8):
        known = slice(max(0, i - 2), i + 1)
        at = np.array(lambdas[known]) - lambdas[i]
        coefficients = np.linalg.solve(
            np.vander(at, increasing=True), torch.stack(estimates[known])[:, 0, :, 0].numpy()
        )
        h = lambdas[i + 1] - lambdas[i]
        moments = [quad(lambda u, k=k: math.exp(u - h) * u**k, 0, h, epsabs=0, epsrel=1e-13)[0] for k in range(len(at))]  # noqa: B023
        aim = torch.from_numpy(np.array(moments) @ coefficients)[None, :, None]
        expected = levels[i + 1].sigma / levels[i].sigma * states[i] + levels[i + 1].alpha * aim
        torch.testing.assert_close(states[i + 1], expected, rtol=0, atol=1e-9)


def test_the_first_step_of_the_parabola_is_corrected_with_the_estimate_at_its_end() -> None:
    """UniPC's corrector of order two: the integral of a straight line through both estimates, the
    second at the prediction.
    """
    levels = own_levels(EDM(), 9)
    x = standard((1, 5, 1), "corrected") * 80
    first, second = levels[:2]
    h = math.log(float(first.nsr / second.nsr))
    estimate = uniform(x, first.alpha, first.sigma)
    predicted = run(DDIM(), uniform, x, [first, second])
    slope = (uniform(predicted, second.alpha, second.sigma) - estimate) / h
    expected = predicted + (h - 1 + math.exp(-h)) * slope
    torch.testing.assert_close(
        next(DPMSolver3M().trajectory(uniform, x, levels, SILENCE)), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("sampler", [DPMSolver2M(), DPMSolver2MSDE(), DPMSolver3M()], ids=lambda s: s.label())
def test_an_estimate_made_from_pure_noise_bends_no_polynomial(sampler: Sampler) -> None:
    """It lies infinitely far away: the second step is of order one, the third of order two."""
    levels, seen = own_levels(Flow(), 6), []

    def remember(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        seen.append(uniform(x, alpha, sigma))
        return seen[-1]

    x, shape = standard((1, 20, 1), "pure noise"), (1, 20, 1)
    states = list(sampler.trajectory(remember, x, levels, drawn(shape, "pure noise")))
    alone = list(
        sampler.trajectory(uniform, states[0], levels[1:], kit.Drawn(iter([standard(shape, "pure noise", 1)] * 9)))
    )
    if isinstance(sampler, DPMSolver3M):  # alone, it would correct its first step
        expected = levels[2].alpha * seen[1] + levels[2].sigma / levels[1].sigma * (
            states[0] - levels[1].alpha * seen[1]
        )
    else:
        expected = alone[0]
    torch.testing.assert_close(states[1], expected, rtol=0, atol=1e-12)


# --- the exponential integrator -------------------------------------------------------------------


@pytest.mark.parametrize("held", ["score", "noise"])
@every_schedule
def test_the_exponential_rule_solves_the_flow_with_one_part_held(
    held: Literal["score", "noise"], schedule: Schedule
) -> None:
    """Variation of constants: x_s/alpha_s = x_t/alpha_t - integral of g^2/(2 alpha sigma) eps_t du,
    where for a held score sigma stays sigma_t, too; by adaptive quadrature of the schedule's own g.
    """
    sampler, levels, eps = ExponentialEuler(held), own_levels(schedule, 4), 0.3
    if sampler.refuses(schedule):
        assert float(levels[0].alpha) == 0
        return

    def denoiser(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x - eps * sigma) / alpha

    for now, then in itertools.pairwise(levels[:-1]):
        if float(now.alpha) == 0:
            continue
        x = 1.7 * float(now.sigma)

        def rate(t: float) -> float:
            g_squared, alpha, sigma = (
                float(part(number(t))) for part in (schedule.diffusion_squared, schedule.alpha, schedule.sigma)
            )
            return 0.5 * g_squared / (alpha * (float(now.sigma) if held == "score" else sigma))  # noqa: B023

        # t_max - t in geometric pieces: g^2 may grow fast towards the end of a schedule
        s, t = float(then.time), float(now.time)
        cuts = [t - (t - s) * 0.5**k for k in range(8)] + [t]
        total = sum(quad(rate, a, b, epsabs=0, epsrel=1e-9, limit=200)[0] for a, b in itertools.pairwise(cuts))
        expected = float(then.alpha) * (x / float(now.alpha) - eps * total)
        found = sampler.step(denoiser, torch.full((1, 1, 1), x, dtype=torch.float64), now, then, SILENCE)
        size = abs(x * float(then.alpha / now.alpha)) + abs(eps * total * float(then.alpha))
        assert float(found) == pytest.approx(expected, abs=1e-7 * size)


# --- posteriors and fields ------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 50, 100])
def test_the_posterior_is_that_of_bayes_on_a_grid(k: int) -> None:
    """A6: mean and variance of q(x_{k-1} | x_k, x_0) from prior times likelihood on a fine grid."""
    chain, point, x = DDPMLinear(levels=100), 0.3, 0.9
    now, then = (level_at([chain], number(float(level))) for level in (k, k - 1))
    beta = float(chain.betas[k - 1])
    width = math.sqrt(beta)
    centre = x / math.sqrt(1 - beta)
    y = np.linspace(centre - 40 * width, centre + 40 * width, 400_001)
    y = y[np.abs(y - float(then.alpha) * point) < 40 * float(then.sigma)]
    log = -0.5 * (x - math.sqrt(1 - beta) * y) ** 2 / beta
    log -= 0.5 * (y - float(then.alpha) * point) ** 2 / float(then.sigma) ** 2
    weight = np.exp(log - log.max())
    mean = float((weight * y).sum() / weight.sum())
    variance = float((weight * (y - mean) ** 2).sum() / weight.sum())

    def known(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG001
        return torch.full_like(x, point)

    for sampler in (Ancestral(), LevelOne(), DDIM(1.0)):
        found = kit.affine(sampler, known, [now, then])
        assert float(found.gain * x + found.shift) == pytest.approx(mean, abs=1e-12)
        assert float(found.weights.square().sum()) == pytest.approx(variance, abs=1e-12)


@pytest.mark.parametrize("sampler", [Ancestral(), LevelOne(), DDIM(1.0)], ids=lambda s: s.label())
def test_the_posterior_of_the_first_level_is_the_datum_itself(sampler: Sampler) -> None:
    """A6, k = 1."""
    chain = DDPMLinear(levels=100)
    first, clean = (level_at([chain], number(time)) for time in (1.0, 0.0))
    x = standard((1, 20, 1), "k = 1")
    end = sampler.step(lambda x, _a, _s: torch.full_like(x, 0.3), x, first, clean, SILENCE)
    torch.testing.assert_close(end, torch.full_like(x, 0.3), rtol=0, atol=1e-14)


def test_field_of_the_flow_has_the_value_of_the_closed_form() -> None:
    """A23, A24, S0-13: U[0, 1] on vp at x = 0.7, t = 0.3 has -0.291136248, in three forms; ddim's
    field is the same one.
    """
    schedule, x = VPLinear(), torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    t = number(0.3)
    now, then = level_at([schedule], t), level_at([schedule], t - 1e-3)
    by_step = (run(Euler(), uniform, x, [now, then]) - x) / -1e-3
    assert float(by_step) == pytest.approx(-0.291136248, abs=1e-9)
    score = Uniform().score(x, now.alpha[:, None], now.sigma[:, None])
    by_score = now.drift * x - 0.5 * now.diffusion_squared * score
    assert float(by_score) == pytest.approx(-0.291136248, abs=1e-9)
    # the ODE of Karras et al.: (sigma'/sigma + s'/s) x - sigma' s / sigma D(x / s; sigma), sigma =
    # nsr and s = alpha
    rate = float(now.diffusion_squared / (2 * now.sigma**2))  # sigma'/sigma
    denoised = float(uniform(x / now.alpha, torch.ones_like(t), now.nsr))
    by_edm = (rate + float(now.drift)) * 0.7 - rate * float(now.alpha) * denoised
    assert by_edm == pytest.approx(-0.291136248, abs=1e-9)
    # -s^2 sigma' sigma times the score at x/s, read as a gradient in its first argument, lacks 1/s
    s, ratio = float(now.alpha), float(now.nsr)
    inner = float(Uniform().score(x / s, torch.ones(1, 1, dtype=torch.float64), now.nsr[:, None]))
    assert float(now.drift) * 0.7 - s * rate * ratio**2 * inner == pytest.approx(-0.291136248, abs=1e-9)
    assert float(now.drift) * 0.7 - s**2 * rate * ratio**2 * inner != pytest.approx(-0.291136248, abs=1e-2)
    for sampler in (DDIM(), DPMSolver2M(), DPMSolver3M()):
        near = level_at([schedule], t - 1e-6)
        assert float((run(sampler, uniform, x, [now, near]) - x) / -1e-6) == pytest.approx(-0.291136, abs=1e-4)


def test_one_step_of_a_rule_that_is_written_as_a_trajectory_is_its_first_state() -> None:
    levels = own_levels(EDM(), 4)
    x = standard((1, 5, 1), "step") * 80
    for sampler in (DPMSolver2M(), DPMSolver3M(), Churn(s_churn=0.0), DormandPrince()):
        first = next(sampler.trajectory(uniform, x, levels[:2], SILENCE))
        assert torch.equal(sampler.step(uniform, x, levels[0], levels[1], SILENCE), first)
