"""From data to noise: the chain is the one formula at every step, and Euler and Maruyama's rule
comes to it.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from diffusion.analysis.fokker_planck import time_marginals
from diffusion.datasets import Dataset, FourPoints, Gaussian, GaussianMixture, Noised, Torus, Uniform
from diffusion.formulations import DDPM, Exact
from diffusion.metrics import KolmogorovSmirnov, Wasserstein1
from diffusion.randomness import stream
from diffusion.samplers import (
    Forward,
    ForwardChain,
    ForwardSDE,
    NoiseStreams,
    OwnStart,
    Sampler,
    SamplingStart,
    samplers,
)
from diffusion.schedules import (
    DDPMLinear,
    Schedule,
    VEGeometric,
    VELinear,
    VPConstant,
    VPExponential,
    VPLinear,
    schedules,
)
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import Level, level_at, levels_of
from tests.diffusion.sampler_kit import slope

SCHEDULES = {entry.name: entry.cls() for entry in schedules}
FORWARD = {entry.name: entry.cls() for entry in samplers if issubclass(entry.cls, Forward)}
KOLMOGOROV = 2.2  # over sqrt(n): false alarms 2 exp(-2 * 2.2^2) = 1.3e-4 each


def nobody(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG001
    raise AssertionError("a forward process asked a model")


def levels(schedule: Schedule, steps: int) -> list[Level]:
    return levels_of([schedule], [grids.create(schedule.own_grid)], steps)


@functools.cache
def run(sampler: Sampler, dataset: Dataset, schedule: Schedule, steps: int, n: int) -> tuple[list[Tensor], list[Level]]:
    """All states ``[n, dim]``, the start first, and their levels."""
    passed = sampler.path(levels(schedule, steps))
    name = sampler.registered_name, dataset.label(), schedule.label()
    begin = SamplingStart(
        torch.zeros(1, n, dataset.dim, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        levels(schedule, steps),
        (dataset,),
        lambda: dataset.sample(n, stream("test-forward", *name))[None],
    )
    assert isinstance(sampler, OwnStart)
    start = sampler.start(begin)
    assert start is not None
    noise = NoiseStreams([("test-forward noise", *name)], n, dataset.dim)
    return [start[0], *(x[0] for x in sampler.trajectory(nobody, start, passed, noise))], list(passed)


class One:
    """The noise that is one everywhere."""

    def between(self, now: Level, then: Level) -> Tensor:  # noqa: ARG002
        return torch.ones(1, 1, 1, dtype=torch.float64)

    def fresh(self) -> Tensor:
        raise AssertionError("noise without a move was asked for")


def factors(sampler: Sampler, now: Level, then: Level) -> tuple[float, float]:
    """A and B of the move ``A x + B z``."""
    zero, one = (torch.full((1, 1, 1), value, dtype=torch.float64) for value in (0.0, 1.0))
    shift = float(sampler.step(nobody, zero, now, then, One()))
    return float(sampler.step(nobody, one, now, then, One())) - shift, shift


# --- the chain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_the_variance_of_the_chain_telescopes(schedule: Schedule) -> None:
    """Rows A1 and A56: given x_0 it is sigma_t^2, and 1 - prod A^2 where variance is preserved, to
    1e-14.
    """
    gain, variance = 1.0, 0.0
    for now, then in itertools.pairwise(ForwardChain().path(levels(schedule, min(schedule.max_steps or 200, 200)))):
        A, B = factors(ForwardChain(), now, then)
        gain, variance = A * gain, A * A * variance + B * B
        sigma = float(then.sigma)
        assert gain == pytest.approx(float(then.alpha), abs=2e-14)
        assert variance == pytest.approx(sigma**2, rel=2e-14, abs=1e-14)
        if schedule.variance_preserving:
            assert variance == pytest.approx(1 - gain**2, abs=1e-14)


@pytest.mark.parametrize("variant", ["text", "code"])
@pytest.mark.parametrize("schedule", [VPConstant(), DDPMLinear(levels=200)], ids=lambda s: s.label())
def test_the_notebooks_chains_have_the_exact_marginals_at_every_number_of_applied_steps(
    schedule: Schedule, variant: str
) -> None:
    """Rows A2, A54 to A56, A59; errata S3-2 and S3-7: state k has been through k steps, and the
    curve of k + 1 is another one.
    """
    dataset, n = FourPoints(variant), 8_000  # type: ignore[arg-type]
    states, passed = run(ForwardChain(), dataset, schedule, 200, n)
    assert len(states) == 201  # 200 steps, not 199
    assert set(states[0][:, 0].tolist()) == set(dataset.points[:, 0].tolist())  # no step: the atoms themselves
    ks = KolmogorovSmirnov()
    for k in (1, 2, 10, 40, 120, 200):
        distribution = ForwardChain().target(dataset, passed[k])
        assert ks.evaluate(states[k], distribution) < KOLMOGOROV / math.sqrt(n)
        if k <= 2 and schedule == VPConstant():
            assert ks.evaluate(states[k], ForwardChain().target(dataset, passed[k + 1])) > 2 * KOLMOGOROV / math.sqrt(n)
    generator = stream("test-forward", "one shot", variant)
    at = passed[40]
    once = at.alpha * dataset.sample(n, generator) + at.sigma * torch.randn(
        n, 1, generator=generator, dtype=torch.float64
    )
    assert scipy.stats.ks_2samp(states[40][:, 0].numpy(), once[:, 0].numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("variant", "mean", "variance"), [("text", -0.03796, 1.02325), ("code", -0.01687, 1.03330)])
def test_after_two_hundred_steps_the_chain_is_nearly_noise(variant: str, mean: float, variance: float) -> None:
    """Erratum S3-8, from the chain's own target; the samples agree to 4.5 standard errors (false
    alarms 7e-6 each).
    """
    dataset, n = FourPoints(variant), 8_000  # type: ignore[arg-type]
    states, passed = run(ForwardChain(), dataset, VPConstant(), 200, n)
    distribution = ForwardChain().target(dataset, passed[-1])
    assert distribution.mean[0] == pytest.approx(mean, abs=5e-6)
    assert distribution.std**2 == pytest.approx(variance, abs=5e-6)
    x = states[-1][:, 0]
    assert abs(float(x.mean()) - mean) < 4.5 * math.sqrt(variance / n)
    assert abs(float(x.var()) - variance) < 4.5 * variance * math.sqrt(2 / n)


def test_the_square_of_the_summed_noise_has_its_mixed_terms_once() -> None:
    """Erratum S3-6: with the sum over *all* i, j beside that of the squares, the variance of T =
    200 steps doubles.

    ``(sum_i a_i eps_i)^2 = sum_i a_i^2 eps_i^2 + sum_{i != j} a_i a_j eps_i eps_j``; what is
    printed has the squares twice.
    """
    weights = np.array([0.2 * math.sqrt(0.96) ** (200 - i) for i in range(1, 201)])
    assert (weights**2).sum() == pytest.approx(1 - 0.96**200, abs=1e-12)
    eps = np.random.default_rng(0).standard_normal(200)
    mixed = np.outer(weights * eps, weights * eps)
    square = float((weights * eps).sum() ** 2)
    off_diagonal = float(mixed.sum() - np.trace(mixed))
    assert float((weights**2 * eps**2).sum()) + off_diagonal == pytest.approx(square, abs=1e-12)
    printed = float((weights**2).sum()) + float(np.trace(np.outer(weights, weights)))  # its expectation
    assert printed == pytest.approx(2 * (1 - 0.96**200), abs=1e-12)


# --- the equation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dt", "settled"), [(0.01, 1.00503), (0.1, 1.05263)])
def test_euler_and_maruyamas_rule_settles_at_two_over_two_minus_dt(dt: float, settled: float) -> None:
    """Row A11 and erratum S0-1: for alpha = exp(-t); the slides' g = 2 settles at twice that,
    2.01005 for dt = .01.
    """
    variance = 0.0
    for k in range(1, round(12 / dt)):
        now, then = (level_at([VPExponential()], torch.tensor([t * dt], dtype=torch.float64)) for t in (k, k + 1))
        A, B = factors(ForwardSDE(), now, then)
        assert pytest.approx(1 - dt, abs=1e-12) == A
        assert pytest.approx(math.sqrt(2 * dt), abs=1e-12) == B
        variance = A * A * variance + B * B
    assert variance == pytest.approx(2 / (2 - dt), abs=1e-9)
    assert variance == pytest.approx(settled, abs=5e-6)
    wrong = 4 * dt / (1 - (1 - dt) ** 2)
    assert wrong == pytest.approx(2 * settled, abs=1e-5)


@pytest.mark.parametrize("schedule", [VPLinear(), VEGeometric(), VPExponential()], ids=lambda s: s.label())
def test_moments_converge_with_order_one(schedule: Schedule) -> None:
    """On even times from t_min on: mean and variance of N(0.7, 0.5^2) against those of the one
    formula.
    """
    errors, sizes = [], (200, 400, 800)
    first, last = 0.05 * schedule.t_max, 0.3 * schedule.t_max
    for steps in sizes:
        times = torch.linspace(first, last, steps + 1, dtype=torch.float64)
        begin = level_at([schedule], times[:1])
        mean, variance = float(begin.alpha) * 0.7, float(begin.alpha) ** 2 * 0.25 + float(begin.sigma) ** 2
        for now, then in itertools.pairwise(times):
            A, B = factors(ForwardSDE(), level_at([schedule], now[None]), level_at([schedule], then[None]))
            mean, variance = A * mean, A * A * variance + B * B
        end = level_at([schedule], times[-1:])
        distribution = float(end.alpha) * 0.7, float(end.alpha) ** 2 * 0.25 + float(end.sigma) ** 2
        errors.append(abs(mean - distribution[0]) + abs(variance - distribution[1]))
    assert slope(sizes, errors) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("schedule", [VPLinear(), VEGeometric()], ids=lambda s: s.label())
def test_histograms_of_the_equation_lie_on_the_fokker_planck_equations_law(schedule: Schedule) -> None:
    """Rows A11 and A12: 200 steps, at half the way and at the end."""
    n, steps = 6_000, 200
    states, passed = run(ForwardSDE(), GaussianMixture(), schedule, steps, n)
    times = [float(passed[k].time) for k in (steps // 2, steps)]
    found = time_marginals(GaussianMixture(), schedule, times)
    for k, edges, cdf in zip((steps // 2, steps), found.edges, found.cdf, strict=True):
        ranks = np.interp(states[k][:, 0].numpy(), edges.numpy(), cdf.numpy())
        assert scipy.stats.kstest(ranks, "uniform").statistic < KOLMOGOROV / math.sqrt(n) + 0.005  # weak order one


@pytest.mark.parametrize("sampler", [ForwardChain(), ForwardSDE()], ids=lambda s: s.registered_name)
@pytest.mark.parametrize("schedule", [VELinear(), VEGeometric()], ids=lambda s: s.registered_name)
def test_s0_4_where_the_variance_explodes_steps_lead_to_the_noise_sigma_and_not_to_its_square(
    schedule: Schedule, sampler: Sampler
) -> None:
    """Steps that add g^2 dt, from U[0, 1]: Kolmogorov's test accepts x_0 + sigma eps at four levels
    (for each of four runs false alarms 5e-4, seed fixed) and rejects x_0 + sigma^2 eps, as printed,
    which at the end is 50 or 100 times as wide.
    """
    n = 8_000
    states, passed = run(sampler, Uniform(), schedule, 400, n)
    for k in (150, 200, 300, 400):
        sigma, x = float(passed[k].sigma), states[k][:, 0].sort().values
        ours, printed = (
            scipy.stats.kstest(Noised(Uniform(), 1.0, noise).cdf(x).numpy(), "uniform").statistic
            for noise in (sigma, sigma**2)
        )
        assert ours < KOLMOGOROV / math.sqrt(n)
        assert printed > 5 / math.sqrt(n)
    spread = float(states[-1].std())
    assert spread == pytest.approx(schedule.prior_std, rel=0.04)
    assert schedule.prior_std**2 / spread > 45


@pytest.mark.parametrize("steps", [10, 20, 40])
def test_few_steps_of_the_equation_are_wider_than_its_law_by_what_the_moments_say(steps: int) -> None:
    """v_k = A^2 v_{k-1} + B^2: 40,000 samples of two bumps have that deviation at four levels (each 4.5
    standard errors, at most sqrt(2 / n) of a variance of a law of tails that are no heavier than a normal
    one's: false alarms 7e-6 each), and at the end are wider than the exact law by more than ten of these.
    """
    n, dataset, schedule = 40_000, GaussianMixture(), VPLinear()
    states, passed = run(ForwardSDE(), dataset, schedule, steps, n)
    gain, deviation = ForwardSDE().moments(passed, dataset.std)
    for k in (0, steps // 4, steps // 2, steps):
        own, x = float(deviation[k]), states[k][:, 0]
        assert float(x.std()) == pytest.approx(own, rel=4.5 * math.sqrt(0.5 / n))
        assert float(x.mean()) == pytest.approx(float(gain[k]) * dataset.mean[0], abs=4.5 * own / math.sqrt(n))
    exact = math.hypot(float(passed[-1].alpha) * dataset.std, float(passed[-1].sigma))
    assert float(states[-1].std()) > exact * (1 + 10 * math.sqrt(0.5 / n))


def test_the_moments_of_moves_are_the_exact_ones_of_the_chain_and_come_to_them_with_order_one() -> None:
    dataset = GaussianMixture()
    errors, sizes = [], (200, 400, 800)
    for steps in sizes:
        passed = ForwardChain().path(levels(VPLinear(), steps))
        alpha, sigma = (torch.stack([getattr(level, name) for level in passed]) for name in ("alpha", "sigma"))
        exact = torch.sqrt((alpha * dataset.std) ** 2 + sigma**2)
        gain, deviation = ForwardChain().moments(passed, dataset.std)
        torch.testing.assert_close(gain, alpha, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(deviation, exact, rtol=1e-12, atol=1e-14)
        errors.append(float((ForwardSDE().moments(passed, dataset.std)[1] - exact).abs().max()))
    assert slope(sizes, errors) == pytest.approx(1, abs=0.1)


# --- as rows of a study ---------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", FORWARD.values(), ids=FORWARD.keys())
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_every_schedule_is_served_and_metrics_compare_with_the_law_at_the_end(
    schedule: Schedule, sampler: Forward
) -> None:
    """Also where no signal is left, and with few steps: 1, 2 and 8, all finite and with no model
    asked.
    """
    assert sampler.refuses(schedule) is None
    for steps in (1, 2, 8):
        states, passed = run(sampler, Uniform(), schedule, steps, 200)
        assert all(bool(torch.isfinite(x).all()) for x in states)
        assert passed[0].clean
        assert float(passed[-1].sigma) == float(levels(schedule, steps)[0].sigma)
    distribution = sampler.target(Uniform(), passed[-1])
    floor = Wasserstein1().floor(distribution, 200)
    value = Wasserstein1().evaluate(states[-1], distribution)
    assert value < (6 if isinstance(sampler, ForwardChain) else 600) * floor


@pytest.mark.parametrize("sampler", FORWARD.values(), ids=FORWARD.keys())
def test_a_sample_does_not_change_when_more_are_drawn_and_exact_rows_alone_answer(sampler: Forward) -> None:
    passed = sampler.path(levels(VPLinear(), 12))
    start = Torus().sample(9, stream("start"))[None]
    few, many = (
        torch.cat(list(sampler.trajectory(nobody, start[:, :n], passed, NoiseStreams([("n",)], n, 3)))) for n in (5, 9)
    )
    assert torch.equal(few, many[:, :5])
    assert sampler.evaluations(12) == 0
    assert issubclass(Exact().gives, sampler.needs)
    assert not issubclass(DDPM().gives, sampler.needs)
    assert sampler.target(Torus(), passed[-1]) == Noised(Torus(), float(passed[-1].alpha), float(passed[-1].sigma))
    assert isinstance(sampler.target(Gaussian(), passed[-1]), Gaussian)
