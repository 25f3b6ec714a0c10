"""Every registered schedule is what it says it is; the constants are those of the papers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import kstest, norm
from torch import Tensor

from diffusion.datasets import Uniform
from diffusion.grids import grids
from diffusion.metrics import metrics
from diffusion.randomness import stream
from diffusion.samplers import Ancestral
from diffusion.schedules import (
    EDM,
    IDDPM,
    DDPMLinear,
    Level,
    Schedule,
    VariancePreserving,
    VELinear,
    VPLinear,
    schedules,
)

VARIANTS: dict[str, Schedule] = {
    **{entry.name: entry.cls() for entry in schedules},
    "vp-linear, slow": VPLinear(beta_d=3.0, beta_min=0.5),
    "ddpm-linear, 1000 levels": DDPMLinear(levels=1000),
    "ddpm-linear, unscaled": DDPMLinear(scaled=False),
    "ddpm-linear, constant beta": DDPMLinear(beta_max=1e-4, levels=10),
    "ve-linear, narrow": VELinear(0.5, 2.0),
    "iddpm, few levels": IDDPM(levels=50, j0=3),
}
every = pytest.mark.parametrize("schedule", VARIANTS.values(), ids=VARIANTS.keys())


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def inner_times(schedule: Schedule) -> Tensor:
    """Forty times between t_min and t_max, geometric; half-way between the levels of a spline."""
    t = torch.logspace(math.log10(schedule.t_min), math.log10(0.98 * schedule.t_max), 40, dtype=torch.float64)
    return torch.floor(t) + 0.5 if isinstance(schedule, DDPMLinear) else t


def slope(function: object, t: Tensor) -> Tensor:
    """Derivative by central differences of the eighth order."""
    assert callable(function)
    h = (1e-2 * t).clamp(max=0.1)
    weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    total = torch.zeros_like(t)
    for j, weight in enumerate(weights, 1):
        total = total + weight * (function(t + j * h) - function(t - j * h))
    return total / h


# --- every schedule ---------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("part", ["alpha", "sigma"])
def test_stated_derivatives_are_the_derivatives(schedule: Schedule, part: str) -> None:
    t = inner_times(schedule)
    function = getattr(schedule, part)
    stated = getattr(schedule, f"{part}_dot")(t)
    assert ((stated - slope(function, t)) * t).abs().max() <= 1e-9 * function(t).abs().max()


@every
def test_stated_derivatives_are_those_of_automatic_differentiation(schedule: Schedule) -> None:
    if isinstance(schedule, DDPMLinear):
        pytest.skip("its spline is numpy's")
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
    assert float(schedule.alpha(zero)) == 1
    assert float(schedule.nsr(zero)) == 0
    assert float(schedule.time_of(zero)) == 0
    assert 0 < schedule.t_min < schedule.t_max


@every
def test_noise_to_signal_ratio_is_sigma_over_alpha_and_rises_with_time(schedule: Schedule) -> None:
    t = torch.linspace(schedule.t_min, schedule.t_max, 500, dtype=torch.float64)
    torch.testing.assert_close(schedule.nsr(t), schedule.sigma(t) / schedule.alpha(t), rtol=1e-11, atol=0)
    assert (schedule.nsr(t).diff() > 0).all()
    assert (schedule.sigma_dot(t) > 0).all()
    assert (schedule.alpha_dot(t) <= 0).all()


@every
def test_time_of_is_the_inverse_of_the_noise_to_signal_ratio(schedule: Schedule) -> None:
    t = torch.linspace(schedule.t_min, schedule.t_max, 300, dtype=torch.float64)
    if schedule.max_steps is None:
        t = torch.cat([times(1e-3, 0.01, 0.3) * schedule.t_min, t])
    torch.testing.assert_close(schedule.time_of(schedule.nsr(t)), t, rtol=1e-10, atol=0)
    nsr = schedule.nsr(t)
    torch.testing.assert_close(schedule.nsr(schedule.time_of(nsr)), nsr, rtol=1e-10, atol=0)


@every
def test_variance_preserving_means_that_the_squares_sum_to_one(schedule: Schedule) -> None:
    t = torch.linspace(schedule.t_min, schedule.t_max, 100, dtype=torch.float64)
    total = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    assert bool(((total - 1).abs() <= 1e-14).all()) is schedule.variance_preserving


@every
def test_drift_and_diffusion_follow_from_the_two_amplitudes(schedule: Schedule) -> None:
    """f = alpha'/alpha, d(sigma^2)/dt = 2 f sigma^2 + g^2 and g^2 = alpha^2 d(sigma^2/alpha^2)/dt."""
    t = inner_times(schedule)
    f, g2 = schedule.drift(t), schedule.diffusion_squared(t)
    assert (g2 > 0).all()
    assert ((f - slope(lambda u: schedule.alpha(u).log(), t)) * t).abs().max() <= 1e-9 * max(
        1, float((f * t).abs().max())
    )
    variance = schedule.sigma(t) ** 2
    rate = slope(lambda u: schedule.sigma(u) ** 2, t)
    torch.testing.assert_close(2 * f * variance + g2, rate, rtol=1e-8, atol=0)
    by_ratio = schedule.alpha(t) ** 2 * slope(lambda u: schedule.nsr(u) ** 2, t)
    torch.testing.assert_close(g2, by_ratio, rtol=1e-7, atol=0)


@every
def test_moments_of_the_sde_are_the_marginals(schedule: Schedule) -> None:
    """Integrate m' = f m and v' = 2 f v + g^2 from t_min to t_max, in the logarithm of time."""
    start = times(schedule.t_min)

    def rates(log_t: float, y: np.ndarray) -> list[float]:
        t = times(math.exp(log_t))
        f, g2 = float(schedule.drift(t)), float(schedule.diffusion_squared(t))
        return [float(t) * f * y[0], float(t) * (2 * f * y[1] + g2)]

    first = [float(schedule.alpha(start)), float(schedule.sigma(start)) ** 2]
    span = (math.log(schedule.t_min), math.log(schedule.t_max))
    m, v = solve_ivp(rates, span, first, rtol=1e-8, atol=1e-14).y[:, -1]
    end = times(schedule.t_max)
    assert m == pytest.approx(float(schedule.alpha(end)), rel=1e-5)
    assert v == pytest.approx(float(schedule.sigma(end)) ** 2, rel=1e-6)


@every
def test_small_times_keep_their_digits(schedule: Schedule) -> None:
    """1 - exp(-B) would have lost all of them: sigma^2 there is proportional to t (or t^2) to the last digits."""
    if isinstance(schedule, DDPMLinear):
        pytest.skip("a chain has no times before its first level")
    t = schedule.t_min * times(1e-12, 2e-12)
    low, high = (schedule.sigma(t) ** 2).tolist()
    power = 1 if isinstance(schedule, VariancePreserving | VELinear) else 2
    assert high / low == pytest.approx(2**power, rel=1e-9)


def test_impossible_parameters_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="beta_d > 0"):
        VPLinear(beta_d=-1.0)
    with pytest.raises(ValueError, match=r"the last beta is 2, it must be below 1: use more levels \(found 10\)"):
        DDPMLinear(levels=10)
    with pytest.raises(ValueError, match="2 to 1000000 levels, found 1"):
        DDPMLinear(levels=1)
    with pytest.raises(ValueError, match="0 < beta_min <= beta_max"):
        DDPMLinear(beta_min=0.0)
    for schedule in (EDM, VELinear):
        with pytest.raises(ValueError, match=r"0 < sigma_min < sigma_max is needed, found 3\.0 and 2\.0"):
            schedule(3.0, 2.0)
    with pytest.raises(ValueError, match="0 <= j0 < levels - 1"):
        IDDPM(levels=10, j0=9)
    with pytest.raises(ValueError, match="0 < c1 < 1"):
        IDDPM(c1=0.0)
    with pytest.raises(ValueError, match="continuous: it has no levels of its own"):
        EDM().own_times(3)


# --- constants of Table 1 of Karras et al. (2022) ---------------------------------------------------------------------


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


# --- the forward chain ------------------------------------------------------------------------------------------------

CHAINS = {
    "100 levels": DDPMLinear(),
    "1000 levels": DDPMLinear(levels=1000),
    "100 levels, unscaled": DDPMLinear(scaled=False),
}
every_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


@every_chain
def test_variance_of_the_chain_telescopes(chain: DDPMLinear) -> None:
    """Var[x_k | x_0] = A_k^2 Var[x_{k-1} | x_0] + B_k^2 = 1 - product of A_i^2."""
    k = torch.arange(1, chain.levels + 1, dtype=torch.float64)
    variance, amplitude, chain_variance, chain_amplitude = 0.0, 1.0, [], []
    for beta in chain.betas:
        variance = (1 - beta) * variance + beta
        amplitude *= math.sqrt(1 - beta)
        chain_variance.append(variance)
        chain_amplitude.append(amplitude)
    torch.testing.assert_close(chain.sigma(k) ** 2, times(*chain_variance), rtol=0, atol=1e-12)
    torch.testing.assert_close(chain.alpha(k), times(*chain_amplitude), rtol=1e-12, atol=0)
    torch.testing.assert_close(chain.sigma(k) ** 2, times(*(1 - np.cumprod(1 - chain.betas))), rtol=0, atol=1e-12)


@every_chain
def test_noise_of_one_step_added_to_the_noise_so_far_is_the_noise_of_one_shot(chain: DDPMLinear) -> None:
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
    """E[eps_k eps] = B_k / sigma_k for sigma_k eps = A_k sigma_{k-1} eps' + B_k eps_k; 4.5 standard errors (7e-6)."""
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
        assert variance == pytest.approx(1, abs=1e-10)
    chain = DDPMLinear(levels=2000, beta_min=0.02, beta_max=0.02, scaled=False)
    assert float(chain.sigma(times(2000.0))) == 1


# --- what lecture notes get wrong: the printed formula fails, ours holds ----------------------------------------------


@dataclass(frozen=True)
class Exponential(VariancePreserving):
    """alpha = exp(-t)."""

    t_min = 1e-3
    t_max = 5.0

    def integrated_beta(self, t: Tensor) -> Tensor:
        return 2 * t

    def beta(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 2.0)

    def time_of_integrated_beta(self, b: Tensor) -> Tensor:
        return b / 2


def test_s0_1_alpha_exp_minus_t_has_diffusion_root_two_and_not_two() -> None:
    g2 = float(Exponential().diffusion_squared(times(0.7)))
    assert g2 == pytest.approx(2, rel=1e-14)
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
    schedule = VELinear(0.01, 50.0)
    levels = torch.logspace(math.log10(0.01), math.log10(50), 1000, dtype=torch.float64)
    chain = float((levels**2).diff().sum())
    assert chain == pytest.approx(2499.9999, rel=1e-9)
    ours = float(schedule.sigma(times(schedule.t_max))) ** 2
    assert ours - float(schedule.sigma(times(schedule.t_min))) ** 2 == pytest.approx(chain, rel=1e-12)
    printed = 50.0**2  # beta_t = sigma^2(t) as a standard deviation
    assert printed**2 == pytest.approx(6.25e6)


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
    """The factor B_k / sigma_k that the loss absorbs is missing in the printed sampler. With noise, 4 sd of W1."""
    w1 = metrics.create("w1")
    collapsed = _last_sample(DDPMLinear(), "B", "none")
    assert (collapsed - 0.5).abs().max() < 1e-3
    assert w1.evaluate(collapsed, Uniform()) == pytest.approx(0.25, abs=1e-4)
    noisy = _last_sample(DDPMLinear(), "B", "B")
    assert w1.evaluate(noisy, Uniform()) == pytest.approx(0.0538, abs=4 * 0.0015)
    corrected = _last_sample(DDPMLinear(), "B^2/sigma", "B")
    assert w1.evaluate(corrected, Uniform()) == pytest.approx(0.00412, abs=4 * 0.0016)


def test_s0_6_the_corrected_sampler_is_the_ancestral_one() -> None:
    chain, k = DDPMLinear(), 37
    x = torch.randn(1, 100, 1, generator=stream("level 1"), dtype=torch.float64)
    t = times(float(k), float(k - 1))
    now, then = (
        Level(*(f(t[i : i + 1]) for f in (lambda u: u, chain.alpha, chain.sigma, chain.alpha_dot, chain.sigma_dot)))
        for i in range(2)
    )
    sampler = Ancestral("transition")
    ours = sampler.step(lambda x, a, s: _denoised(x, a[:, None], s[:, None]), x, now, then, lambda: torch.zeros_like(x))
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
    """p(x_{k-1} | x_k) has the variance of the posterior plus that of x_0 given x_k, carried over; k = 2 of 100."""
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
    w1 = metrics.create("w1")
    z = torch.as_tensor(norm.ppf((np.arange(20_000) + 0.5) / 20_000))[:, None]
    mismatch = {}
    for chain in (unscaled, scaled):
        alpha, sigma = chain.alpha(end), chain.sigma(end)
        # from N(0, 1), the prior of the lecture; the exact flow keeps quantiles, and that of U[0, 1] is the identity
        mismatch[chain.scaled] = w1.evaluate(Uniform().noised_cdf(z, alpha, sigma)[:, None], Uniform())
    assert mismatch[False] == pytest.approx(0.0923, rel=0.01)
    assert mismatch[True] < 0.001
