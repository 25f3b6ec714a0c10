"""The lecture's examples and derivations with exact scores: the figures that a correct
implementation shows.

Where nothing else is said, 10 000 samples; statistical statements fix their seed and tell what they
would miss by chance.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm, wasserstein_distance
from torch import Tensor

from diffusion.datasets import Gaussian, GaussianMixture, Torus, Uniform
from diffusion.metrics import Wasserstein1
from diffusion.objectives.parametrizations import Circle, PredictedScore
from diffusion.samplers import Ancestral, EulerMaruyama, Heun, NoiseStreams, ReverseSDE
from diffusion.schedules import EDM, DDPMLinear, Schedule, VELinear, VPExponential, VPLinear
from diffusion.schedules.levels import Level
from tests.diffusion import sampler_kit as kit

own_levels, uniform, number = kit.own_levels, kit.uniform, kit.number

N = 10_000
U = Uniform()


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- U[0, 1] by a chain of a hundred noise steps --------------------------------------------------


@functools.cache
def on_the_way() -> tuple[list[Level], list[np.ndarray]]:
    """Levels and states of the chain with scaled steps, from noise to data, by the ideal denoiser."""
    levels = own_levels(DDPMLinear(levels=100), 100)
    start = NoiseStreams([("lecture", "start")], N, 1).fresh() * levels[0].sigma[:, None, None]
    noise = NoiseStreams([("lecture",)], N, 1)
    states = list(Ancestral("transition").trajectory(uniform, start, levels, noise))
    return levels, [state[0, :, 0].numpy() for state in (start, *states)]


def to_the_normal_law(values: np.ndarray) -> float:
    """W1 to N(0, 1)."""
    quantiles = norm.ppf((np.arange(len(values)) + 0.5) / len(values))
    return float(np.abs(np.sort(values) - quantiles).mean())


def test_the_first_step_is_still_a_unit_normal_law() -> None:
    """A9: W1 of 10 000 normal numbers to their law is .013 on average, above .035 less than once in
    a thousand runs.
    """
    _, states = on_the_way()
    assert to_the_normal_law(states[1]) < 0.035


def test_at_the_fiftieth_step_the_data_are_to_be_seen() -> None:
    """A9: mean .136, standard deviation .965, W1 to N(0, 1) .136; 4.5 standard errors of mean and
    deviation (1.4e-5).
    """
    levels, states = on_the_way()
    halfway = states[50]
    assert halfway.mean() == pytest.approx(0.136, abs=4.5 * 0.965 / math.sqrt(N))
    assert halfway.std() == pytest.approx(0.965, abs=4.5 * 0.965 / math.sqrt(2 * N))
    assert to_the_normal_law(halfway) == pytest.approx(0.136, abs=4.5 * 0.965 / math.sqrt(N))
    # and so the law itself has it, without samples
    mean, std = float(levels[50].alpha) / 2, math.sqrt(float(levels[50].alpha) ** 2 / 12 + float(levels[50].sigma) ** 2)
    assert mean == pytest.approx(0.136, abs=5e-4)
    assert std == pytest.approx(0.965, abs=5e-4)
    assert wasserstein_distance(norm.ppf((np.arange(N) + 0.5) / N), _quantiles(levels[50])) == pytest.approx(
        0.136, abs=1e-3
    )


def _quantiles(level: Level) -> np.ndarray:
    """10 000 quantiles of the exact law of x_t."""
    x = np.linspace(-6, 6, 24_001)
    cdf = U.noised_cdf(torch.from_numpy(x)[:, None], level.alpha, level.sigma).numpy()
    return np.interp((np.arange(N) + 0.5) / N, cdf, x)


def test_unscaled_steps_leave_the_fiftieth_step_elsewhere() -> None:
    """S0-16: a tenth of the noise in each step: the halfway mean is .44 and never was the law a
    unit normal one.
    """
    chain = DDPMLinear(levels=100, scaled=False)
    start, halfway = (float(chain.alpha(number(k))) / 2 for k in (100.0, 50.0))
    assert start == pytest.approx(0.3015, abs=5e-4)
    assert halfway > 0.4


def test_the_last_step_is_near_the_uniform_law() -> None:
    """A9: W1 below .02; the chain's own is .0041 (sd .0016)."""
    _, states = on_the_way()
    assert Wasserstein1().evaluate(torch.from_numpy(states[-1])[:, None], U) < 0.02


def test_histograms_on_the_way_are_the_exact_marginals() -> None:
    """A10: the L1 distance of a histogram of 30 bins from p_t(x), at every level.

    A perfect sample's is about sqrt(2/pi) sum sqrt(p/n), .04 where all bins are filled; the limit
    is .05 on average and .08 for each of the hundred. The chain with the posterior's variance is
    further off at its end.
    """
    levels, states = on_the_way()
    distances = []
    for level, values in zip(levels[:-1], states[:-1], strict=True):
        low, high = np.quantile(values, [0.0005, 0.9995])
        edges = np.linspace(low, high, 31)
        share = np.histogram(values, edges)[0] / N
        cdf = U.noised_cdf(torch.from_numpy(edges)[:, None], level.alpha, level.sigma).numpy()
        distances.append(float(np.abs(share - np.diff(cdf)).sum()))
    assert np.mean(distances) < 0.05
    assert max(distances) < 0.08


# --- the score as a posterior mean ----------------------------------------------------------------

AT = [(0.995, 0.1), (0.8, 0.6), (0.1, 0.995), (1.0, 2.0)]


@pytest.mark.parametrize(("alpha", "sigma"), AT)
@pytest.mark.parametrize("target", [U, GaussianMixture()], ids=lambda d: d.registered_name)
def test_the_score_is_the_posterior_mean_of_the_kernels_score(
    target: Uniform | GaussianMixture, alpha: float, sigma: float
) -> None:
    """A14: E[grad log p(x_t | x_0) | x_t], by quadrature over x_0, is the exact score to 1e-8 of
    its size.
    """
    ends = target.quantile(numbers(0.0, 1.0))
    low, high = (float(e) for e in ends) if torch.isfinite(ends).all() else (-9.0, 9.0)
    for x in (-0.3, 0.2, 0.7, 1.4):

        def weight(x0: float, x: float = x) -> float:
            clean = 1.0 if isinstance(target, Uniform) else _bumps(target, x0)
            return clean * math.exp(-0.5 * ((x - alpha * x0) / sigma) ** 2)

        def pull(x0: float, x: float = x) -> float:
            return weight(x0, x) * (alpha * x0 - x) / sigma**2

        peaks = sorted({min(max(p, low), high) for p in (x / alpha, -2.0, 2.0)})
        cuts = [low, *(p for p in peaks if low < p < high), high]
        above, below = (
            sum(quad(part, a, b, epsabs=1e-13, epsrel=1e-12, limit=400)[0] for a, b in itertools.pairwise(cuts))
            for part in (pull, weight)
        )
        mean = above / below
        score = float(target.score(numbers(x)[:, None], numbers(alpha), numbers(sigma)))
        assert mean == pytest.approx(score, rel=1e-8, abs=1e-8)


def _bumps(target: GaussianMixture, x: float) -> float:
    return sum(
        w * norm.pdf(x, float(m), s)  # type: ignore[arg-type]
        for w, m, s in zip(target.weights, target.means, target.stds, strict=True)
    )


# --- the denoising loss of the score --------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("stds", [(0.5, 2.0), (1.0, 1.0)])
def test_denoising_score_matching_of_normal_data_ends_in_the_noised_laws_score(
    stds: tuple[float, float], sigma: float
) -> None:
    """A15: among linear functions s = A x the loss E|s(x_t) + eps/sigma|^2 is least at A = -(S +
    sigma^2)^-1, where it is d/sigma^2 - tr (S + sigma^2)^-1. The moments of x and eps are exact
    (Gauss-Hermite), the target is the `score` parametrization's.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    grid = list(itertools.product(range(8), repeat=2))
    level = Circle.at(numbers(sigma))
    smallest, whole = 0.0, np.zeros((2, 2))
    for j, s in enumerate(stds):
        x0, eps = (torch.from_numpy(nodes[[g[k] for g in grid]])[:, None] for k in (0, 1))
        weight = torch.from_numpy(np.array([weights[a] * weights[b] for a, b in grid]))[:, None]
        x = s * x0 + sigma * eps
        target = PredictedScore().predict(s * x0, eps, level, s) / sigma  # the network's own is sigma times the score
        torch.testing.assert_close(target, -eps / sigma, rtol=1e-14, atol=1e-14)
        slope = float((weight * x * target).sum() / (weight * x * x).sum())
        smallest += float((weight * (slope * x - target) ** 2).sum())
        whole[j, j] = slope
    variances = np.array(stds) ** 2 + sigma**2
    np.testing.assert_allclose(whole, -np.diag(1 / variances), rtol=1e-12)
    assert smallest == pytest.approx(2 / sigma**2 - (1 / variances).sum(), rel=1e-12)
    distribution, at = Gaussian(stds=stds, dim=2), torch.tensor([[0.3, -1.1]], dtype=torch.float64)
    exact = distribution.score(at, numbers(1.0), numbers(sigma))
    torch.testing.assert_close(exact, at @ torch.from_numpy(whole), rtol=1e-12, atol=0)
    # not the score of the clean data, to which the loss would be led by noise that is none
    assert not np.allclose(np.diag(whole), -1 / np.array(stds) ** 2, rtol=0.05)


# --- one law, many equations ----------------------------------------------------------------------

CONTINUOUS = [VPExponential(), VPLinear(), VELinear(), EDM()]


def density(schedule: Schedule, x: Tensor, t: float) -> Tensor:
    """p_t(x) of U[0, 1]."""
    at = number(t)
    return U.log_density(x[:, None], schedule.alpha(at), schedule.sigma(at)).exp()


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=lambda s: s.registered_name)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.0])
def test_every_member_of_the_family_has_the_marginals_as_its_solution(schedule: Schedule, share: float) -> None:
    """A21, S0-14: with noise lambda = share g, also more than g, the forward drift f x - (g^2 -
    lambda^2)/2 s and the backward one f x - (g^2 + lambda^2)/2 s have p_t as the solution of their
    Fokker-Planck equations, by central differences.

    Forwards: dp/dt = -d(drift p)/dx + lambda^2/2 d^2p/dx^2; backwards in time the sign of the
    diffusion is the other one. The slides' printed g = 2 for alpha = exp(-t) (S0-1) leaves a
    residual a hundred times the tolerance.
    """
    t = float(schedule.time_of(number(0.5)))
    at = number(t)
    f, square = float(schedule.drift(at)), float(schedule.diffusion_squared(at))
    scale = math.hypot(float(schedule.alpha(at)), float(schedule.sigma(at)))
    h, dt = 2e-3 * scale, 1e-3 * t
    x = scale * torch.linspace(-1.5, 2.5, 41, dtype=torch.float64)

    def flux(y: Tensor, sign: int, printed: float) -> Tensor:
        score = U.score(y[:, None], schedule.alpha(at), schedule.sigma(at))[:, 0]
        part = 0.5 * (printed - sign * share**2 * square) * score
        return (f * y - part) * density(schedule, y, t)

    change = (density(schedule, x, t + dt) - density(schedule, x, t - dt)) / (2 * dt)
    spread = (density(schedule, x + h, t) - 2 * density(schedule, x, t) + density(schedule, x - h, t)) / h**2

    def residual(sign: int, printed: float = square) -> float:
        transport = (flux(x + h, sign, printed) - flux(x - h, sign, printed)) / (2 * h)
        return float((change + transport - sign * 0.5 * share**2 * square * spread).abs().max() / change.abs().max())

    assert residual(1) < 1e-3
    assert residual(-1) < 1e-3
    if isinstance(schedule, VPExponential):
        assert residual(1, printed=4.0) > 0.1


def test_reverse_sde_of_the_exponential_schedule_keeps_the_moments_on_its_way() -> None:
    """A13: dx = [f x - g^2 s] dt + g dw backwards: mean and variance at every tenth of 500 levels
    are those of p_t.

    Euler's rule in 500 steps errs by less than .004 there; 4.5 standard errors of 10 000 samples
    besides (7e-6 each).
    """
    schedule = VPExponential()
    levels = own_levels(schedule, 500)
    start = NoiseStreams([("moments", "start")], N, 1).fresh() * levels[0].sigma[:, None, None]
    sampler = EulerMaruyama()
    states = sampler.trajectory(uniform, start, levels, NoiseStreams([("moments",)], N, 1))
    for i, state in enumerate(states, start=1):
        if i % 50 == 0 and i < 500:
            mean = float(levels[i].alpha) / 2
            variance = float(levels[i].alpha) ** 2 / 12 + float(levels[i].sigma) ** 2
            assert float(state.mean()) == pytest.approx(mean, abs=0.004 + 4.5 * math.sqrt(variance / N))
            assert float(state.var()) == pytest.approx(variance, abs=0.004 + 4.5 * variance * math.sqrt(2 / N))


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_law_at_the_end_does_not_depend_on_the_noise(scale: float) -> None:
    """A21: W1 to U[0, 1] of 10 000 samples after 300 steps: below .0125 for half, all and twice the
    noise (a perfect sample's is .0031, with .0014 of deviation; the steps add less than .003):
    false alarms 1e-5.
    """
    levels = own_levels(VPLinear(), 300)
    start = NoiseStreams([("family", "start")], N, 1).fresh() * levels[0].sigma[:, None, None]
    end = kit.run(ReverseSDE(scale), uniform, start, levels, NoiseStreams([("family", scale)], N, 1))
    assert Wasserstein1().evaluate(end[0], U) < 0.0125


# --- the torus ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_few_steps_of_heun_lie_on_the_torus_and_still_miss_its_law() -> None:
    """A30: after 5 steps the mean distance from the surface is 3e-6 and E[x^2 + y^2] is 1.842,
    where 1.24 is right; after 40 it is 1.2518. Of 2000 samples the moment has a standard error of
    .013 at most.
    """
    torus, n = Torus(), 2000

    def exact(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torus.denoise(x, alpha[:, None], sigma[:, None])

    start = 80 * NoiseStreams([("torus",)], n, 3).fresh()
    found = {}
    for steps in (5, 40):
        end = kit.run(Heun(), exact, start, own_levels(EDM(), steps))[0]
        rho = end[:, :2].norm(dim=1)
        distance = (torch.hypot(rho - torus.R, end[:, 2]) - torus.r).abs().mean()
        found[steps] = (float(distance), float((rho**2).mean()))
    assert torus.second_moment == pytest.approx(1.24)
    assert found[5][0] < 1e-4
    assert found[5][1] == pytest.approx(1.842, abs=0.06)
    assert found[40][1] == pytest.approx(1.2518, abs=0.06)


def test_the_last_noise_level_lies_where_a_normal_number_does_from_zero() -> None:
    """S0-17: a smooth flow ends on the surface only as sigma goes to zero: at sigma_min the mean
    distance is sigma sqrt(2/pi).
    """
    torus, sigma, n = Torus(), 0.002, 20_000
    x = torus.sample(n, torch.Generator().manual_seed(5))
    x = x + sigma * torch.randn(n, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    distance = (torch.hypot(x[:, :2].norm(dim=1) - torus.R, x[:, 2]) - torus.r).abs().mean()
    assert float(distance) == pytest.approx(sigma * math.sqrt(2 / math.pi), rel=0.03)
