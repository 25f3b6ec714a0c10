"""The bound of a diffusion chain: its three terms, where it is tight, what it is below, and the
weights that follow from it.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.analysis.elbo import bound_weights, chain_bound, refuses_bound
from diffusion.analysis.gaussians import divergence
from diffusion.datasets import Dataset, FourPoints, Gaussian, GaussianMixture, Uniform, datasets
from diffusion.formulations import ActionMatching, ChainElbo, VariationalAutoencoder
from diffusion.metrics import NegativeBound
from diffusion.models import Denoiser, EvidenceBound, ExactDenoiser
from diffusion.objectives.parametrizations import Circle
from diffusion.randomness import stream
from diffusion.samplers import Ancestral
from diffusion.schedules import DDPMLinear, Schedule, VPConstant, schedules
from diffusion.schedules.discrete import Chain
from diffusion.schedules.levels import Level, Variance, level_at

SCHEDULES: dict[str, Schedule] = {entry.name: entry.cls() for entry in schedules}
CHAINS = {name: schedule for name, schedule in SCHEDULES.items() if refuses_bound(schedule) is None}
every_chain = pytest.mark.parametrize("schedule", CHAINS.values(), ids=CHAINS.keys())
every_variance = pytest.mark.parametrize("variance", ["posterior", "transition"])


def hermite(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the standard normal law, exact for polynomials of degree 2 n - 1."""
    u, w = np.polynomial.hermite_e.hermegauss(n)
    return torch.as_tensor(u), torch.as_tensor(w / w.sum())


NODES, WEIGHTS = hermite(8)
NODES = NODES[:, None]


def exact(target: Dataset) -> Denoiser:
    return lambda x, alpha, sigma: target.denoise(x, alpha[:, None], sigma[:, None])


def at(x: float, target: Dataset, schedule: Schedule, variance: Variance) -> tuple[float, Tensor, float]:
    """Reconstruction, consistency ``[T - 1]`` and prior matching at one point of the line, by
    Gauss-Hermite quadrature.
    """
    clean = torch.full_like(NODES, x)
    terms = chain_bound(exact(target), clean, itertools.repeat(NODES), schedule, variance)
    return float(terms.reconstruction @ WEIGHTS), terms.consistency @ WEIGHTS, float(terms.prior[0])


def bound_at(x: float, target: Dataset, schedule: Schedule, variance: Variance) -> float:
    reconstruction, consistency, prior = at(x, target, schedule, variance)
    return reconstruction - float(consistency.sum()) - prior


def one_step_variances(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """(beta_t, abar_t) of a chain in the tutorial's terms, t = 1 .. T, from the definition of the
    chain.
    """
    assert isinstance(schedule, Chain)
    betas = np.asarray(schedule.betas)
    return betas, np.cumprod(1 - betas)


@every_chain
@pytest.mark.parametrize("x", [-2.5, 0.0, 0.7])
def test_of_normal_data_the_bound_with_the_forward_variance_is_the_log_likelihood(schedule: Schedule, x: float) -> None:
    """The exact denoiser of N(0, 1) reverses the chain exactly; the integrands are quadratic, so
    that quadrature is exact.
    """
    expected = -0.5 * (x**2 + math.log(2 * math.pi))
    assert bound_at(x, Gaussian(), schedule, "transition") == pytest.approx(expected, abs=1e-9)


@every_chain
def test_the_tutorials_variance_loses_what_its_divergence_says(schedule: Schedule) -> None:
    """1/2 (r - 1 - ln r) a level, r = (1 - abar_t) / (1 - abar_{t-1}), in the mean over N(0, 1).

    The bound is quadratic and even in x, so that its mean is its value at x = 1.
    """
    _, abar = one_step_variances(schedule)
    ratio = (1 - abar[1:]) / (1 - abar[:-1])
    gap = 0.5 * float((ratio - 1 - np.log(ratio)).sum())
    entropy = 0.5 * (1 + math.log(2 * math.pi))
    assert bound_at(1.0, Gaussian(), schedule, "posterior") == pytest.approx(-entropy - gap, abs=1e-9)
    if schedule in (DDPMLinear(), DDPMLinear(levels=1000)):
        assert gap == pytest.approx({100: 1.3465, 1000: 0.4649}[schedule.max_steps or 0], abs=1e-4)


def test_the_loss_of_the_tutorials_variance_does_not_vanish_with_finer_steps() -> None:
    """Near the data r_t = t / (t - 1): in the limit half of Euler's constant, 0.2886."""
    gaps = []
    for step_noise in (0.2, 0.05, 0.02):
        chain = VPConstant(levels=round(8 / step_noise**2), step_noise=step_noise)
        abar = one_step_variances(chain)[1]
        ratio = (1 - abar[1:]) / (1 - abar[:-1])
        gaps.append(0.5 * float((ratio - 1 - np.log(ratio)).sum()))
    assert np.abs(np.array(gaps) - np.euler_gamma / 2)[1:] == pytest.approx(0, abs=5e-3)
    assert (
        bound_at(1.0, Gaussian(), VPConstant(), "posterior")
        < bound_at(1.0, Gaussian(), VPConstant(), "transition") - 0.24
    )


def model_log_density(x: float, target: Gaussian, schedule: Schedule, variance: Variance) -> float:
    """log p_theta(x) of the reverse chain with the exact denoiser of N(m, s^2): a recursion of
    means and variances.
    """
    betas, abar = one_step_variances(schedule)
    before = np.concatenate([[1.0], abar[:-1]])
    m, s2 = target.mean[0], target.std**2
    mean, var = 0.0, 1.0
    for beta, a, a0 in zip(betas[::-1], abar[::-1], before[::-1], strict=True):
        keep = math.sqrt(a) * s2 / (a * s2 + 1 - a)  # D(x) = m + keep (x - sqrt(a) m)
        from_x, from_data = math.sqrt(1 - beta) * (1 - a0) / (1 - a), math.sqrt(a0) * beta / (1 - a)
        slope = from_x + from_data * keep
        mean = slope * mean + from_data * (m - keep * math.sqrt(a) * m)
        added = beta if variance == "transition" or a0 == 1 else beta * (1 - a0) / (1 - a)
        var = slope**2 * var + added
    return -0.5 * ((x - mean) ** 2 / var + math.log(2 * math.pi * var))


@every_variance
@pytest.mark.parametrize("target", [Gaussian(), Gaussian(0.5, 0.3), Gaussian(-1.0, 2.0)], ids=lambda g: g.label())
@pytest.mark.parametrize("schedule", [DDPMLinear(), VPConstant()], ids=lambda s: s.label())
def test_the_bound_lies_below_the_models_own_log_likelihood(
    schedule: Schedule, target: Gaussian, variance: Variance
) -> None:
    """At every x, whatever the variance; equal only where the reverse chain is the forward one
    (N(0, 1), transition).
    """
    for x in (target.mean[0] - 2 * target.std, target.mean[0], target.mean[0] + 0.7 * target.std):
        gap = model_log_density(x, target, schedule, variance) - bound_at(x, target, schedule, variance)
        tight = target == Gaussian() and variance == "transition"
        assert gap == pytest.approx(0, abs=1e-9) if tight else gap > 1e-3


def points_of(target: Dataset, n: int) -> tuple[Tensor, Tensor]:
    """Points on the line and weights that stand for the target's law."""
    if isinstance(target, Uniform):
        u, w = np.polynomial.legendre.leggauss(2 * n)
        return torch.as_tensor((1 + u) / 2), torch.as_tensor(w / 2)
    assert isinstance(target, GaussianMixture)
    nodes, weights = hermite(n)
    centres, stds = target.mixture.means[:, 0], target.mixture.stds
    places = [m + s * nodes for m, s in zip(centres, stds, strict=True)]
    return torch.cat(places), torch.cat([share * weights for share in target.weights])


def mean_bound(target: Dataset, schedule: Schedule, variance: Variance, n: int) -> float:
    """The mean of the bound over the target, by quadrature over data and noise."""
    (clean, share), (eps, weights) = points_of(target, n), hermite(n)
    pairs = torch.cartesian_prod(clean, eps)
    bound = chain_bound(exact(target), pairs[:, :1], itertools.repeat(pairs[:, 1:]), schedule, variance).bound
    return float(bound @ (share[:, None] * weights).flatten())


@every_variance
@pytest.mark.parametrize("target", [Uniform(), GaussianMixture()], ids=lambda t: t.label())
def test_in_the_mean_the_bound_is_at_most_minus_the_entropy(target: Dataset, variance: Variance) -> None:
    """E bound <= E log p_theta <= E log p = -entropy, by more than the quadrature is wrong (tested:
    it settles).
    """
    clean, share = points_of(target, 32)
    one = torch.ones_like(clean)
    entropy = -float(share @ target.log_density(clean[:, None], one, 1e-6 * one))
    assert entropy == pytest.approx(0 if isinstance(target, Uniform) else 1.545, abs=2e-3)
    chain = VPConstant(levels=60, step_noise=0.3)
    bound = mean_bound(target, chain, variance, 16)
    assert bound == pytest.approx(mean_bound(target, chain, variance, 11), abs=4e-3)
    assert -entropy - 2 < bound < -entropy - 0.02


def test_each_consistency_term_is_the_divergence_of_the_two_conditional_laws() -> None:
    """Built here from the tutorial's formulas, with the general divergence; in three dimensions,
    both variances.
    """
    target, schedule = Gaussian((0.2, -1.0, 0.0), (0.5, 1.0, 2.0), 3), VPConstant(levels=10, step_noise=0.4)
    betas, abar = one_step_variances(schedule)
    clean = target.sample(4, stream("consistency"))
    noise = torch.randn(10, 4, 3, generator=stream("consistency, noise"), dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    for variance in ("posterior", "transition"):
        terms = chain_bound(exact(target), clean, noise, schedule, variance)
        assert terms.consistency.shape == (9, 4)
        for t in range(1, 10):
            a, a0, beta = abar[t], abar[t - 1], betas[t]
            x = math.sqrt(a) * clean + math.sqrt(1 - a) * noise[t]
            one = torch.ones(4, dtype=torch.float64)
            denoised = target.denoise(x, math.sqrt(a) * one, math.sqrt(1 - a) * one)

            def mean(x0: Tensor, a: float = a, a0: float = a0, beta: float = beta, x: Tensor = x) -> Tensor:
                top = math.sqrt(1 - beta) * (1 - a0) * x + math.sqrt(a0) * beta * x0
                return top / (1 - a)

            q = beta * (1 - a0) / (1 - a) * eye
            p = beta * eye if variance == "transition" else q
            expected = divergence(mean(clean), q.expand(4, 3, 3), mean(denoised), p.expand(4, 3, 3))
            torch.testing.assert_close(terms.consistency[t - 1], expected, rtol=1e-9, atol=1e-11)
        prior = divergence(
            math.sqrt(abar[-1]) * clean,
            (1 - abar[-1]) * eye.expand(4, 3, 3),
            torch.zeros(4, 3).double(),
            eye.expand(4, 3, 3),
        )
        torch.testing.assert_close(terms.prior, prior, rtol=1e-9, atol=1e-12)


def test_with_the_tutorials_variance_of_the_first_level_nothing_is_reconstructed() -> None:
    """(1 - a_1)(1 - abar_0) / (1 - abar_1) = 0, as abar_0 = 1: log N(x_0; D, 0) is minus infinity.
    beta_1 is what the chain adds.
    """
    schedule, target = DDPMLinear(), Gaussian()
    betas, abar = one_step_variances(schedule)
    zero = betas[0] * (1 - 1.0) / (1 - abar[0])
    assert zero == 0
    clean = torch.full_like(NODES, 0.7)
    x = math.sqrt(abar[0]) * clean + math.sqrt(1 - abar[0]) * NODES
    one = torch.ones(len(x), dtype=torch.float64)
    error = (clean - target.denoise(x, math.sqrt(abar[0]) * one, math.sqrt(1 - abar[0]) * one))[:, 0].square()
    seed = -0.5 * (error / zero + torch.log(torch.tensor(2 * math.pi * zero)))  # -inf + inf: not even a limit
    assert not torch.isfinite(seed).any()
    small = [-0.5 * (float(error @ WEIGHTS) / v + math.log(2 * math.pi * v)) for v in (1e-6, 1e-8, 1e-10)]
    assert small[0] < -100
    assert small[1] < 90 * small[0]
    assert small[2] < 90 * small[1]  # minus infinity like 1 / v
    reconstruction = at(0.7, target, schedule, "posterior")[0]
    expected = -0.5 * (float(error @ WEIGHTS) / betas[0] + math.log(2 * math.pi * betas[0]))
    assert reconstruction == pytest.approx(expected, rel=1e-9)
    assert math.isfinite(reconstruction)


# --- weights --------------------------------------------------------------------------------------


@every_chain
def test_the_weights_are_the_tutorials_and_half_the_falls_of_the_signal_to_noise_ratio(schedule: Schedule) -> None:
    betas, abar = one_step_variances(schedule)
    before = np.concatenate([[1.0], abar[:-1]])
    a = 1 - betas
    variance = (1 - a) * (1 - before) / (1 - abar)
    variance[0] = betas[0]
    x0_form = (1 - a) ** 2 * before / (2 * variance * (1 - abar) ** 2)
    eps_form = (1 - a) ** 2 / (2 * variance * a * (1 - abar))
    weights = bound_weights(schedule).numpy()
    np.testing.assert_allclose(weights, x0_form, rtol=1e-8)
    nsr = schedule.nsr(schedule.level_times.flip(0)).numpy()
    np.testing.assert_allclose(weights * nsr**2, eps_form, rtol=1e-8)
    snr = 1 / nsr**2
    np.testing.assert_allclose(weights[1:], (snr[:-1] - snr[1:]) / 2, rtol=1e-6)
    assert weights[0] == pytest.approx((snr[0] + 1) / 2, rel=1e-8)


def test_dropping_the_weights_is_another_objective() -> None:
    """On DDPM's own chain they span ten orders of magnitude in x_0, and two in the noise: no "minor
    impact".
    """
    chain = DDPMLinear(levels=1000)
    weights = bound_weights(chain)
    assert float(weights[1]) == pytest.approx(2726, abs=1)
    assert float(weights[-1]) == pytest.approx(4.1e-7, rel=0.01)
    of_noise = weights * chain.nsr(chain.level_times.flip(0)) ** 2
    assert float(of_noise.max()) == float(of_noise[1]) == pytest.approx(0.60, abs=0.005)
    assert float(of_noise[499]) == pytest.approx(0.0055, abs=5e-5)
    assert float(of_noise.min()) == pytest.approx(0.00498, abs=5e-6)


def test_the_weighted_errors_are_the_divergences_and_the_first_one_the_reconstruction() -> None:
    """With the posterior variance lambda_t |x_0 - D|^2 is a consistency term; at t = 1 it is -log N
    but for its constant.
    """
    target, schedule = GaussianMixture(), DDPMLinear()
    clean = target.sample(5, stream("weighted"))
    noise = torch.randn(100, 5, 1, generator=stream("weighted, noise"), dtype=torch.float64)
    terms: EvidenceBound = chain_bound(exact(target), clean, noise, schedule)
    levels = schedule.level_times.flip(0)
    weights = bound_weights(schedule)
    for t in (0, 1, 50, 99):
        alpha, sigma = schedule.alpha(levels[t : t + 1]), schedule.sigma(levels[t : t + 1])
        error = (clean - target.denoise(alpha * clean + sigma * noise[t], alpha, sigma)).square().sum(1)
        expected = weights[t] * error
        if t:
            torch.testing.assert_close(terms.consistency[t - 1], expected, rtol=1e-9, atol=0)
        else:
            constant = 0.5 * math.log(2 * math.pi * schedule.betas[0])
            torch.testing.assert_close(-terms.reconstruction, expected + constant, rtol=1e-9, atol=1e-12)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_schedules_without_levels_of_a_preserving_chain_are_refused_by_name(schedule: Schedule) -> None:
    reason = refuses_bound(schedule)
    assert (reason is None) == (schedule.variance_preserving and schedule.max_steps is not None)
    if reason:
        assert schedule.registered_name in reason
        with pytest.raises(ValueError, match="one term for each level"):
            chain_bound(exact(Gaussian()), NODES, itertools.repeat(NODES), schedule)
        with pytest.raises(ValueError, match="one term for each level"):
            bound_weights(schedule)


def test_unknown_variances_and_too_little_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="accepted: posterior, transition"):
        chain_bound(exact(Gaussian()), NODES, itertools.repeat(NODES), DDPMLinear(), "best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fewer than the 100 levels"):
        chain_bound(exact(Gaussian()), NODES, [NODES] * 99, DDPMLinear())


# --- as a training objective ----------------------------------------------------------------------


def wrong(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Nobody's denoiser."""
    return torch.sin(x) / (alpha + sigma)[:, None, None] + 0.1


@pytest.mark.parametrize("denoiser", [exact(GaussianMixture()), wrong], ids=["right", "wrong"])
def test_predicting_the_data_or_the_noise_is_one_loss_of_equal_denoisers(denoiser: Denoiser) -> None:
    """Example by example: both parametrizations with the weighting, and both of the tutorial's
    weights written out.
    """
    chain = DDPMLinear()
    betas, abar = (torch.as_tensor(part) for part in one_step_variances(chain))
    before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    variance = betas * (1 - before) / (1 - abar)
    variance[0] = betas[0]
    clean = GaussianMixture().sample(100, stream("one loss"))[:, 0]
    eps = torch.randn(100, generator=stream("one loss, noise"), dtype=torch.float64)
    x = abar.sqrt() * clean + (1 - abar).sqrt() * eps
    D = torch.cat(
        [
            denoiser(x[k : k + 1, None, None], abar[k : k + 1].sqrt(), (1 - abar[k : k + 1]).sqrt())[0, 0]
            for k in range(100)
        ]
    )
    noise = (x - abar.sqrt() * D) / (1 - abar).sqrt()
    of_data = (betas**2 * before / (2 * variance * (1 - abar) ** 2)) * (clean - D) ** 2
    of_noise = (betas**2 / (2 * variance * (1 - betas) * (1 - abar))) * (eps - noise) ** 2
    torch.testing.assert_close(of_data, of_noise, rtol=1e-8, atol=1e-12)
    level = Circle.of(abar.sqrt(), (1 - abar).sqrt())
    for predicts, answer, target in (("x0", D, clean), ("epsilon", noise, eps)):
        formulation = ChainElbo(predicts)  # type: ignore[arg-type]
        assert torch.equal(formulation.parametrization.predict(clean[:, None], eps[:, None], level, 2.0)[:, 0], target)
        c = formulation.parametrization.coefficients(level, 2.0)
        weights = formulation.weighting.on_target(level.b / level.a, c, chain, 2.0)
        torch.testing.assert_close(weights * (answer - target) ** 2, of_data, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("denoiser", [exact(GaussianMixture()), wrong], ids=["right", "wrong"])
def test_predicting_the_data_or_the_noise_gives_one_sample_of_equal_denoisers(denoiser: Denoiser) -> None:
    """The tutorial's two loops, each written out, on the same noise, and `ancestral`, step by step
    over the whole chain.
    """
    chain = DDPMLinear(levels=30)
    betas, abar = one_step_variances(chain)
    drawn = torch.randn(31, 50, 1, generator=stream("one sample"), dtype=torch.float64)
    from_data = from_noise = ours = drawn[30]
    for k in range(30, 0, -1):
        a, b = abar[k - 1], betas[k - 1]
        a0 = abar[k - 2] if k > 1 else 1.0
        spread = math.sqrt(b * (1 - a0) / (1 - a))  # zero in the last step
        alpha, sigma = torch.tensor([[math.sqrt(a)], [math.sqrt(1 - a)]], dtype=torch.float64)
        D = denoiser(from_data[None], alpha, sigma)[0]
        mean = (math.sqrt(1 - b) * (1 - a0) * from_data + math.sqrt(a0) * b * D) / (1 - a)
        from_data = mean + spread * drawn[k - 1]
        eps = (from_noise - math.sqrt(a) * denoiser(from_noise[None], alpha, sigma)[0]) / math.sqrt(1 - a)
        from_noise = (from_noise - b / math.sqrt(1 - a) * eps) / math.sqrt(1 - b) + spread * drawn[k - 1]
        now, then = (level_at([chain], torch.tensor([float(j)]).double()) for j in (k, k - 1))
        ours = Ancestral().step(denoiser, ours[None], now, then, Given(drawn[k - 1]))[0]
    torch.testing.assert_close(from_data, from_noise, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(from_data, ours, rtol=1e-8, atol=1e-9)


class Given:
    """One draw of noise for every move."""

    def __init__(self, draw: Tensor) -> None:
        self._draw = draw[None]

    def between(self, now: Level, then: Level) -> Tensor:  # noqa: ARG002
        return self._draw

    def fresh(self) -> Tensor:
        return self._draw


# --- as a metric ----------------------------------------------------------------------------------

DENSE = {"uniform", "gaussian", "gaussian_mixture", "eight_gaussians", "checkerboard", "moons", "swiss_roll"}


@pytest.mark.parametrize("name", [entry.name for entry in datasets if entry.has_defaults])
def test_the_bound_is_measured_of_targets_with_a_density(name: str) -> None:
    """Points, surfaces and images have none; of targets that are named here it is known."""
    target = datasets.create(name)
    reason = NegativeBound().refuses(target)
    if name in DENSE:
        assert reason is None
    elif name in {"four_points", "torus", "digits"}:
        assert "density" in str(reason)


@every_variance
def test_of_the_exact_denoiser_of_normal_data_the_metric_is_its_floor_or_above_it_by_the_known_loss(
    variance: Variance,
) -> None:
    """Paired with the floor; 4.5 standard errors of the 4096 differences, whose deviation is below
    1.2 a coordinate.
    """
    target, schedule, n = Gaussian(1.0, 1.0, 2), DDPMLinear(), 4096
    shifted = NegativeBound(batch=n, variance=variance).evaluate(exact(target), target, schedule)
    metric = NegativeBound(batch=n, variance=variance)
    standard = Gaussian(0.0, 1.0, 2)
    above = metric.evaluate(exact(standard), standard, schedule) - metric.floor(standard, schedule)
    expected = 0.0 if variance == "transition" else 2 * 1.3465
    assert above == pytest.approx(expected, abs=4.5 * 1.2 * math.sqrt(2 / n))
    assert metric.floor(standard, schedule) == pytest.approx(1 + math.log(2 * math.pi), abs=4.5 / math.sqrt(n))
    assert shifted > metric.floor(target, schedule) - 4.5 * 1.2 * math.sqrt(2 / n)


def test_a_worse_denoiser_has_a_larger_value_and_one_without_numbers_none() -> None:
    metric, target, schedule = NegativeBound(batch=200), GaussianMixture(), DDPMLinear()
    right, worse = (metric.evaluate(one, target, schedule) for one in (exact(target), wrong))
    assert metric.evaluate(exact(target), target, schedule) == right
    assert worse > right + 1
    with pytest.raises(ValueError, match="not a finite number"):
        metric.evaluate(lambda x, alpha, sigma: x * math.nan, target, schedule)  # noqa: ARG005
    with pytest.raises(ValueError, match="no density"):
        metric.evaluate(exact(target), FourPoints(), schedule)


def test_the_metric_is_asked_of_chains_and_of_models_with_a_bound() -> None:
    metric = NegativeBound()
    denoiser, autoencoder = ExactDenoiser, VariationalAutoencoder().gives
    assert metric.refuses_model(denoiser, DDPMLinear()) is None
    assert "'edm'" in str(metric.refuses_model(denoiser, SCHEDULES["edm"]))
    assert metric.refuses_model(autoencoder, SCHEDULES["flow"]) is None
    reason = str(metric.refuses_model(ActionMatching("unbalanced").gives, DDPMLinear()))
    assert "the clean data behind a noisy point or an evidence lower bound of its own" in reason
    with pytest.raises(ValueError, match="batch = 0"):
        NegativeBound(batch=0)
    with pytest.raises(ValueError, match="accepted: posterior, transition"):
        NegativeBound(variance="best")  # type: ignore[arg-type]
