"""Every registered sampler of a flow has the order it declares, and the law it leads to is the
right one.

With a linear denoiser (Gaussian data) a trajectory is an affine map of its start and its noises, so
that mean and variance of what it ends in are exact numbers: weak orders are measured without Monte
Carlo. All schedules that a sampler serves are run as one stack.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.checks.samplers import MEAN, STD, STEPS, measured_on_a_mixture, measured_on_a_normal_law
from diffusion.datasets import Uniform
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
    NoiseStreams,
    PredictorCorrector,
    ReverseSDE,
    Sampler,
)
from diffusion.schedules import EDM, DDPMLinear, Flow, Schedule, VELinear, VPExponential, VPLinear
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import Level, level_at, levels_of
from tests.diffusion import sampler_kit as kit

FOLLOWING, SCHEDULES, SILENCE, BIMODAL = kit.FOLLOWING, kit.SCHEDULES, kit.SILENCE, kit.BIMODAL
run, served, own_levels, smooth_levels = kit.run, kit.served, kit.own_levels, kit.smooth_levels
affine, marginal, slope, gaussian, uniform, standard = (
    getattr(kit, name) for name in ("affine", "marginal", "slope", "gaussian", "uniform", "standard")
)

# Two defaults do not converge within a few hundred steps, as they say: churn with s_churn = 40
# lifts by tens of per cent until N exceeds it many times over, and Langevin steps of finite length
# have a bias that no number of steps removes.
CONVERGING = [s for s in FOLLOWING.values() if s.stochastic and not isinstance(s, Churn | PredictorCorrector)] + [
    Churn(s_churn=5.0),
    Churn(s_churn=5.0, s_min=0.0, s_max=math.inf),
    PredictorCorrector(snr=1e-4),
]
DETERMINISTIC = [s for s in FOLLOWING.values() if not s.stochastic and not s.adaptive]
every_deterministic = pytest.mark.parametrize("sampler", DETERMINISTIC, ids=lambda s: s.label())
every_converging = pytest.mark.parametrize("sampler", CONVERGING, ids=lambda s: s.label())


def chosen_for(sampler: Sampler) -> tuple[Schedule, ...]:
    return tuple(served(sampler))


# --- the flow -------------------------------------------------------------------------------------


@every_deterministic
def test_error_on_gaussian_data_falls_with_the_declared_order(sampler: Sampler) -> None:
    """On every schedule at least; symmetric cases, such as the midpoint rule where noise is time,
    may do better.
    """
    measured = measured_on_a_normal_law(sampler)
    assert sampler.order is not None
    assert min(measured.values()) == pytest.approx(sampler.order, abs=0.16 if sampler.order > 2 else 0.08), measured


@every_deterministic
def test_error_on_a_two_component_mixture_falls_with_the_declared_order(sampler: Sampler) -> None:
    """Against the exact flow: the quantile of every particle stays what it was (A20)."""
    measured, declared = measured_on_a_mixture(sampler), sampler.order
    assert declared is not None
    assert max(abs(order - declared) for order in measured.values()) < 0.1, measured


@every_deterministic
def test_the_flow_is_found_from_pure_noise(sampler: Sampler) -> None:
    """`flow` starts at alpha = 0, lambda = -infinity. Order 2 at most: there log-snr steps are long
    however many there are.
    """
    if sampler.refuses(Flow()) is not None:
        assert isinstance(sampler, ExponentialEuler | LevelOne)
        return
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[None, :, None]
    errors = []
    for steps in STEPS:
        times = torch.linspace(1, 0.1, steps + 1, dtype=torch.float64)
        levels = [level_at([Flow()], t[None]) for t in times]
        assert float(levels[0].alpha) == 0
        mean, variance = marginal(levels[-1], MEAN, STD)
        end = run(sampler, gaussian(MEAN, STD), z, levels)
        errors.append(float((end - mean - torch.sqrt(variance) * z).abs().max()))
    # where log N rises beside a power of N, the slope is a little less
    assert sampler.order is not None
    assert slope(STEPS, errors) > min(sampler.order, 2) - 0.2


@pytest.mark.parametrize("schedule", [EDM(), VELinear(), VPLinear()], ids=lambda s: s.registered_name)
@every_deterministic
def test_more_steps_on_the_schedule_s_own_grid_come_closer_to_the_flow(sampler: Sampler, schedule: Schedule) -> None:
    mean, std = 0.2, 0.5
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[None, :, None]
    errors = []
    for steps in (64, 256):
        levels = own_levels(schedule, steps)[:-1]
        start, end = (
            level.alpha * mean + torch.sqrt(level.alpha**2 * std**2 + level.sigma**2) * z
            for level in (levels[0], levels[-1])
        )
        errors.append(float((run(sampler, gaussian(mean, std), start, levels) - end).abs().max()))
    assert sampler.order is not None
    assert errors[1] <= errors[0] / 4 ** (sampler.order - 0.4)


@pytest.mark.parametrize("schedule", [EDM(), VPLinear(), Flow()], ids=lambda s: s.registered_name)
@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10])
def test_the_adaptive_sampler_keeps_its_tolerance(schedule: Schedule, tolerance: float) -> None:
    """Errors of single steps add up: to no more than thirty tolerances here."""
    levels = own_levels(schedule, 5)[:-1]
    sampler = DormandPrince(rtol=tolerance, atol=tolerance)
    z = torch.linspace(-2, 2, 21, dtype=torch.float64)[None, :, None]
    (m0, v0), (m1, v1) = (marginal(level, MEAN, STD) for level in (levels[0], levels[-1]))
    end = run(sampler, gaussian(MEAN, STD), m0 + torch.sqrt(v0) * z, levels)
    assert float((end - m1 - torch.sqrt(v1) * z).abs().max()) < 30 * tolerance


@pytest.mark.parametrize("schedule", [EDM(), VELinear(), VPLinear(), Flow()], ids=lambda s: s.registered_name)
def test_the_flow_keeps_quantiles_and_forward_then_backward_is_the_identity(schedule: Schedule) -> None:
    """A20, on U[0, 1]: F_t(x_t) is constant, and the way back leads where the way forth began."""
    sampler = DormandPrince(rtol=1e-9, atol=1e-10)
    ratios = torch.logspace(math.log10(0.03), math.log10(3), 4, dtype=torch.float64)
    levels = [level_at([schedule], t[None]) for t in schedule.time_of(ratios)]
    low = levels[0]
    data = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)[None, :, None] * low.alpha
    forth = list(sampler.trajectory(uniform, data, levels, SILENCE))
    back = run(sampler, uniform, forth[-1], levels[::-1])
    assert float((back - data).abs().max()) < 1e-6

    def quantile(x: Tensor, level: Level) -> Tensor:
        return Uniform().noised_cdf(x, level.alpha[:, None], level.sigma[:, None])

    at_start = quantile(data, low)
    for x, level in zip(forth, levels[1:], strict=True):
        assert float((quantile(x, level) - at_start).abs().max()) < 1e-6


# --- the law of stochastic samplers ---------------------------------------------------------------


def errors_of_the_law(sampler: Sampler, levels: list[Level]) -> Tensor:
    """Larger of the errors of mean and standard deviation at the last level, started from the exact
    law ``[members]``.
    """
    mean, variance = affine(sampler, gaussian(MEAN, STD), levels).of_normal(*marginal(levels[0], MEAN, STD))
    true_mean, true_variance = marginal(levels[-1], MEAN, STD)
    return torch.maximum((mean - true_mean).abs(), (torch.sqrt(variance) - torch.sqrt(true_variance)).abs())


@every_converging
def test_mean_and_variance_converge_with_the_declared_weak_order_on_every_schedule(sampler: Sampler) -> None:
    measured = measured_on_a_normal_law(sampler)
    assert sampler.order is not None
    assert min(measured.values()) == pytest.approx(sampler.order, abs=0.1), measured


@pytest.mark.parametrize(
    "sampler",
    [
        *(ReverseSDE(scale) for scale in (0.0, 0.5, 1.0, 2.0)),
        Churn(s_churn=5.0),
        Churn(s_churn=5.0, s_min=0.3, s_max=3),
    ],
    ids=lambda s: s.label(),
)
def test_any_amount_of_noise_leads_to_the_same_law(sampler: Sampler) -> None:
    """A21, S0-14: extrapolated to infinitely many steps, mean and variance are those of the data's
    noised law.
    """
    chosen = chosen_for(sampler)
    found = []
    for steps in STEPS:
        levels = smooth_levels(chosen, steps)
        found.append(
            torch.stack(affine(sampler, gaussian(MEAN, STD), levels).of_normal(*marginal(levels[0], MEAN, STD)))
        )
    first = [2 * b - a for a, b in itertools.pairwise(found)]  # without the terms in 1/N
    limit = (4 * first[1] - first[0]) / 3  # and 1/N^2
    truth = torch.stack(marginal(levels[-1], MEAN, STD))
    assert float((limit - truth).abs().max()) < 1e-3
    if sampler.order == 1 and sampler.stochastic:
        assert float((found[-1] - truth).abs().max()) > 2e-3  # what extrapolation had to remove


@every_converging
def test_the_law_is_found_from_pure_noise(sampler: Sampler) -> None:
    """On `flow` from alpha = 0; weak order 1 at least, less a logarithm."""
    if sampler.refuses(Flow()) is not None:
        assert isinstance(sampler, EulerMaruyama | ReverseSDE | LevelOne) or sampler == Ancestral("transition")
        return
    errors = []
    for steps in STEPS:
        times = torch.linspace(1, 0.1, steps + 1, dtype=torch.float64)
        levels = levels_at(Flow(), times)
        errors.append(float(errors_of_the_law(sampler, levels)))
    assert slope(STEPS, errors) > 0.85
    assert errors[-1] < 0.01


def levels_at(schedule: Schedule, times: Tensor) -> list[Level]:
    return [level_at([schedule], t[None]) for t in times]


@pytest.mark.parametrize("sampler", [DPMSolver2MSDE(), DPMSolver2MSDE(0.5)], ids=lambda s: s.label())
def test_second_weak_order_holds_for_a_mixture_too(sampler: Sampler) -> None:
    """The second moment of 8000 samples after 8, 16 and 32 moves against 128, driven by the same
    paths.

    The three differences have standard errors of 4, 7 and 12 %, their slope one of 0.1: false
    alarms 1e-4. First-order rules show 1.0 to 1.2.
    """
    n, schedule = 8000, VPLinear()
    levels = {steps: smooth_levels((schedule,), steps) for steps in (8, 16, 32, 128)}
    first = levels[8][0]
    start = first.alpha * kit.drawn_from(BIMODAL, n, "weak") + first.sigma * standard((n,), "weak, noise")
    moments = {
        steps: run(sampler, BIMODAL, start[None, :, None], levels[steps], NoiseStreams([("weak",)], n, 1)).square()
        for steps in levels
    }
    errors = [abs(float((moments[steps] - moments[128]).mean())) for steps in (8, 16, 32)]
    assert slope((8, 16, 32), errors) > 1.6


@pytest.mark.parametrize(
    "sampler", [s for s in CONVERGING if not isinstance(s, PredictorCorrector)], ids=lambda s: s.label()
)
def test_paths_converge_when_the_steps_are_refined(sampler: Sampler) -> None:
    """Strongly: each sample against its own path in 256 moves. The noise does not depend on x, so
    that the order is 1.

    Not so for Langevin corrections, whose draws belong to no path.
    """
    samples, ends = 40, {}
    for steps in (8, 16, 32, 64, 256):
        levels = smooth_levels((VPLinear(),), steps)
        x = standard((1, samples, 1), "strong") * torch.sqrt(levels[0].sigma ** 2 + levels[0].alpha ** 2)
        ends[steps] = run(sampler, BIMODAL, x, levels, NoiseStreams([("strong",)], samples, 1))
    errors = [float((ends[steps] - ends[256]).square().mean().sqrt()) for steps in (8, 16, 32, 64)]
    assert slope((8, 16, 32, 64), errors) > 0.75, errors
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    "sampler",
    [Ancestral(), Ancestral("transition"), EulerMaruyama(), Churn(), DPMSolver2MSDE(), PredictorCorrector()],
    ids=lambda s: s.label(),
)
def test_variance_of_samples_is_that_of_the_exact_recursion(sampler: Sampler) -> None:
    """40 000 samples, mean and variance within 4.5 standard errors of the affine map's: false
    alarms 8e-5 in all.
    """
    n, schedule = 40_000, VPLinear()
    levels = own_levels(schedule, 20)
    mean, variance = affine(sampler, gaussian(MEAN, STD), levels).of_normal(number := kit.number(0.0), number + 1)
    x = NoiseStreams([("variance, start",)], n, 1).fresh()
    end = run(sampler, gaussian(MEAN, STD), x, levels, NoiseStreams([("variance",)], n, 1))
    assert abs(float(end.mean() - mean)) < 4.5 * math.sqrt(float(variance) / n)
    assert float(end.var() / variance) == pytest.approx(1, abs=4.5 * math.sqrt(2 / n))


# --- chains ---------------------------------------------------------------------------------------


def gains(sampler: Sampler, denoiser: object, now: Level, then: Level) -> tuple[float, float]:
    """For a linear denoiser without shift a step is x -> k x + w z: the two factors."""
    found = affine(sampler, denoiser, [now, then])
    return float(found.gain), float(found.weights.sum())


def chain_variances(chain: DDPMLinear, s: float, kind: str) -> list[float]:
    """The recursion in the chain's own terms: mean of the posterior with D = c x, variance as in
    the two choices.
    """
    square = np.concatenate([[1.0], np.cumprod(1 - chain.betas)])
    v, found = 1 - square[-1], []
    for k in range(chain.levels, 0, -1):
        beta = chain.betas[k - 1]
        c = math.sqrt(square[k]) * s * s / (square[k] * s * s + 1 - square[k])
        gain = (
            math.sqrt(1 - beta) * (1 - square[k - 1]) / (1 - square[k])
            + math.sqrt(square[k - 1]) * beta / (1 - square[k]) * c
        )
        added = beta if kind == "transition" else beta * (1 - square[k - 1]) / (1 - square[k])
        v = gain * gain * v + (added if k > 1 else 0)
        found.append(float(v))
    return found


@pytest.mark.parametrize("s", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        (Ancestral(), "posterior"),
        (Ancestral("transition"), "transition"),
        (LevelOne(), "posterior"),
        (LevelOne("transition"), "transition"),
        (DDIM(1.0), "posterior"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.label(),
)
def test_variance_on_gaussian_data_follows_the_closed_recursion(sampler: Sampler, kind: str, s: float) -> None:
    """A5, A7."""
    chain = DDPMLinear(levels=100)
    levels = own_levels(chain, 100)
    v, found = float(levels[0].sigma) ** 2, []
    for now, then in itertools.pairwise(levels):
        k, w = gains(sampler, gaussian(0, s), now, then)
        v = k * k * v + w * w
        found.append(v)
    assert found == pytest.approx(chain_variances(chain, s, kind), rel=1e-11)


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES.values() if s.variance_preserving], ids=lambda s: s.label())
@pytest.mark.parametrize("steps", [2, 7, 50, 100])
def test_transition_variance_keeps_unit_variance_exactly_at_every_level(schedule: Schedule, steps: int) -> None:
    """Data N(0, 1) on a variance-preserving schedule: k^2 + w^2 = 1 whatever the pair of levels
    (A7).
    """
    for now, then in itertools.pairwise(own_levels(schedule, steps)[:-1]):
        k, w = gains(Ancestral("transition"), gaussian(), now, then)
        assert k * k + w * w == pytest.approx(1, abs=1e-12)


# --- the corrector --------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [EDM(), VPLinear(), Flow()], ids=lambda s: s.registered_name)
@pytest.mark.parametrize("snr", [0.1, 0.16, 0.5])
def test_corrections_keep_a_law_that_is_as_much_too_wide_as_theory_says(schedule: Schedule, snr: float) -> None:
    """Many corrections at one level: variance V / (1 - e/2V), e = 2 (snr sigma)^2, whatever the
    predictor did; mean exact.
    """
    levels = levels_at(schedule, schedule.time_of(torch.tensor([1.5, 1.0], dtype=torch.float64)))
    m, v = (float(value) for value in marginal(levels[1], MEAN, STD))
    square = (snr * float(levels[1].sigma)) ** 2
    corrections = math.ceil(-20 / math.log1p(-2 * square / v))  # after which exp(-20) of the start is left
    found = affine(PredictorCorrector(snr, corrections), gaussian(MEAN, STD), levels)
    mean, variance = (float(value) for value in found.of_normal(*marginal(levels[0], MEAN, STD)))
    assert variance == pytest.approx(v / (1 - square / v), rel=1e-8)
    assert mean == pytest.approx(m, abs=1e-8)
    assert variance - v == pytest.approx(square, rel=1.1 * square / v + snr**2)  # to first order


@pytest.mark.parametrize("schedule", [EDM(), VPLinear(), Flow()], ids=lambda s: s.registered_name)
def test_the_bias_of_the_corrections_ends_with_the_noise(schedule: Schedule) -> None:
    """Four times the steps leave it what it was halfway, about (snr sigma)^2, and take a quarter of
    the error at the end.
    """
    denoiser = gaussian(MEAN, STD)
    halfway: list[float] = []
    end: list[float] = []
    for steps in (100, 400):
        levels = own_levels(schedule, steps)[:-1]
        half = 1 + next(i for i, level in enumerate(levels) if float(level.nsr) < 1)
        for part, errors in ((levels[:half], halfway), (levels, end)):
            _, variance = affine(PredictorCorrector(), denoiser, part).of_normal(*marginal(levels[0], MEAN, STD))
            errors.append(float(variance - marginal(part[-1], MEAN, STD)[1]))
    assert halfway[1] == pytest.approx((0.16 * float(levels[half - 1].sigma)) ** 2, rel=0.5)
    assert abs(end[1]) < 0.35 * abs(end[0])


# --- forwards -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [0.1, 0.01])
def test_euler_maruyama_forwards_has_the_stationary_variance_of_the_corrected_slides(dt: float) -> None:
    """A11, S0-1: f = -1, g = sqrt 2 for alpha = exp(-t), stationary variance 2 / (2 - dt); the
    slides' g = 2 gives twice that.
    """
    level = level_at([VPExponential()], torch.tensor([0.7], dtype=torch.float64))
    f, g_squared = float(level.drift), float(level.diffusion_squared)
    assert f == pytest.approx(-1, rel=1e-12)
    assert g_squared == pytest.approx(2, rel=1e-12)
    v, as_printed = 1.0, 1.0
    for _ in range(round(20 / dt)):
        v = (1 + f * dt) ** 2 * v + g_squared * dt
        as_printed = (1 - dt) ** 2 * as_printed + 4 * dt
    assert v == pytest.approx(2 / (2 - dt), rel=1e-12)
    assert as_printed == pytest.approx(4 / (2 - dt), rel=1e-12)


# --- which order belongs to whom ------------------------------------------------------------------


def test_declared_orders() -> None:
    declared: dict[type[Sampler], int] = {
        **dict.fromkeys((Euler, DDIM, Ancestral, LevelOne, ExponentialEuler, EulerMaruyama, ReverseSDE), 1),
        PredictorCorrector: 1,
        **dict.fromkeys((Heun, RK2, Churn, DPMSolver2M, DPMSolver2MSDE), 2),
        DPMSolver3M: 3,
        DormandPrince: 5,
    }
    assert {type(s): s.order for s in FOLLOWING.values()} == declared
    assert not grids.create("edm").refuses(EDM())
    assert len(levels_of([EDM()], [grids.create("edm")], 3)) == 4
