"""What is minimised: noise levels, weights and targets have the laws they state, and the documents'
variants of them do not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest, logistic, norm
from torch import Tensor

from diffusion.datasets import Uniform
from diffusion.formulations import DDPM, Denoising, ElucidatedDM2, LevelOneDDPM
from diffusion.networks import StackedMLP
from diffusion.objectives import (
    DenoisingLoss,
    Likelihood,
    LogitNormal,
    LogNormal,
    MinSignalToNoise,
    NoiseTarget,
    SignalToNoise,
    Simple,
    UnitVariance,
    last_step_share,
    noise_distributions,
    stratified,
    weightings,
)
from diffusion.objectives.base import batches_of
from diffusion.objectives.parametrizations import Circle, Data, Epsilon, Preconditioned, Velocity, parametrizations
from diffusion.randomness import Source, stream
from diffusion.schedules import EDM, DDPMLinear, Flow, Schedule, VPLinear, schedules
from diffusion.training import Member, Training, train

DISTRIBUTIONS = {entry.name: entry.cls() for entry in noise_distributions}
WEIGHTS = {entry.name: entry.cls() for entry in weightings}
# `user` has no formula of its own; its default is one of the others
SCHEDULES: dict[str, Schedule] = {entry.name: entry.cls() for entry in schedules}
CHAIN = DDPMLinear()
NSR = torch.logspace(-2, 1.5, 41, dtype=torch.float64)

served = pytest.mark.parametrize(
    ("distribution", "schedule"),
    [
        pytest.param(distribution, schedule, id=f"{name}, {on}")
        for (name, distribution), (on, schedule) in itertools.product(DISTRIBUTIONS.items(), SCHEDULES.items())
        if distribution.refuses(schedule) is None
    ],
)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- noise levels ---------------------------------------------------------------------------------


@served
def test_training_noise_is_positive_finite_and_grows_with_its_quantile(
    distribution: LogNormal, schedule: Schedule
) -> None:
    u = torch.cat(
        [numbers(0.0, 1e-300), torch.linspace(1e-6, 1 - 1e-6, 500, dtype=torch.float64), numbers(1 - 2.0**-53)]
    )
    nsr = distribution.quantile(u, schedule)
    assert torch.isfinite(nsr).all()
    assert (nsr > 0).all()
    change = nsr.diff()
    assert (change >= 0).all() or (change <= 0).all()


@every_schedule
def test_uniform_times_reach_whatever_is_sampled(schedule: Schedule) -> None:
    ends = schedule.nsr(numbers(schedule.t_min, schedule.t_max))
    trained = DISTRIBUTIONS["uniform-t"].quantile(numbers(0.0, 1 - 2.0**-53), schedule)
    assert float(trained.min()) <= float(ends[0]) * (1 + 1e-9)
    assert float(trained.max()) >= min(float(ends[1]), 1e6) * (1 - 1e-9)


@every_schedule
def test_every_schedule_can_be_trained_on_and_refusals_name_it(schedule: Schedule) -> None:
    reasons = [distribution.refuses(schedule) for distribution in DISTRIBUTIONS.values()]
    assert None in reasons
    assert all(schedule.registered_name in reason for reason in reasons if reason)


def test_the_logit_of_straight_time_is_normal() -> None:
    """On `flow` the noise-to-signal ratio is t/(1-t), so that logit-normal t is log-normal noise
    (KS, p > 1e-3).
    """
    u = stratified(1, 4000, stream("logit"))[0]
    nsr = LogitNormal(0.3, 1.4).quantile(u, Flow())
    torch.testing.assert_close(nsr, LogNormal(0.3, 1.4).quantile(u, Flow()), rtol=1e-9, atol=0)
    t = LogitNormal(0.3, 1.4).quantile(torch.rand(4000, generator=stream("t"), dtype=torch.float64), VPLinear())
    assert kstest(logistic.ppf(VPLinear().time_of(t).numpy()), norm(0.3, 1.4).cdf).pvalue > 1e-3


# --- weightings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", weightings.names())
@pytest.mark.parametrize("parametrization", parametrizations.names())
def test_weights_of_the_networks_target_are_positive_and_finite(name: str, parametrization: str) -> None:
    weighting = WEIGHTS[name]
    schedule = VPLinear() if weighting.refuses(VPLinear()) is None else CHAIN
    nsr = NSR if schedule == VPLinear() else CHAIN.nsr(CHAIN.level_times)
    c = parametrizations.create(parametrization).coefficients(Circle.at(nsr), 0.5)
    weight = weighting.on_target(nsr, c, schedule, 0.5)
    assert torch.isfinite(weight).all()
    assert (weight > 0).all()


def test_unweighted_targets_weigh_the_data_as_the_literature_says() -> None:
    """lambda = 1 / c_out^2: SNR for the noise, 1 for the data, SNR + 1 for v, EDM's for its own."""
    expected = {
        Epsilon(): 1 / NSR**2,
        Data(): torch.ones_like(NSR),
        Velocity(): 1 / NSR**2 + 1,
        Preconditioned(): UnitVariance().weight(NSR, EDM(), 0.5),
    }
    for parametrization, weight in expected.items():
        c = parametrization.coefficients(Circle.at(NSR), 0.5)
        torch.testing.assert_close(1 / c.c_out**2, weight, rtol=1e-12, atol=0)


def test_min_snr_is_the_smaller_of_the_two() -> None:
    weight = MinSignalToNoise(5.0).weight(NSR, EDM(), 0.5)
    assert torch.equal(weight, torch.minimum(SignalToNoise().weight(NSR, EDM(), 0.5), numbers(5.0)))


@pytest.mark.parametrize(
    "schedule", [s for s in SCHEDULES.values() if s.max_steps is None], ids=lambda s: s.registered_name
)
def test_the_likelihood_weight_is_g_squared_on_the_score(schedule: Schedule) -> None:
    """lambda |D - D'|^2 = g^2 |s - s'|^2 as s = (alpha D - x) / sigma^2, and it is -d SNR / dt
    (central difference).
    """
    t = torch.linspace(0.2, 0.8, 13, dtype=torch.float64) * schedule.t_max
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    weight = Likelihood().weight(schedule.nsr(t), schedule, 0.5)
    torch.testing.assert_close(weight, schedule.diffusion_squared(t) * alpha**2 / sigma**4, rtol=1e-8, atol=0)
    h = 1e-5 * t
    fall = (1 / schedule.nsr(t - h) ** 2 - 1 / schedule.nsr(t + h) ** 2) / (2 * h)
    torch.testing.assert_close(weight, fall, rtol=1e-6, atol=0)


def test_the_unweighted_score_loss_diverges_as_the_cut_off_falls() -> None:
    """N(0, 1) data under f = -x/2, g = 1 (xi = e^(-t/2)): the optimal s = -x leaves E|s - grad log
    k|^2 = xi^2/(1 - xi^2).

    The document integrates it over t without weight: each factor 100 of the cut-off adds ln 100 for
    ever. Weighted by 1 - xi^2 the integral has a limit.
    """

    def loss(cut_off: float, *, weighted: bool) -> float:
        def integrand(log_t: float) -> float:
            t = math.exp(log_t)
            square = math.exp(-t)
            return t * (square if weighted else square / -math.expm1(-t))

        return float(quad(integrand, math.log(cut_off), math.log(40.0), limit=200)[0])

    cut_offs = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    plain = [loss(c, weighted=False) for c in cut_offs]
    assert np.diff(plain) == pytest.approx(np.full(4, math.log(10)), rel=2e-3)
    weighted = [loss(c, weighted=True) for c in cut_offs]
    assert weighted[-1] - weighted[-2] < 1e-5
    assert weighted[-1] == pytest.approx(1.0, abs=1e-5)


def test_unit_noise_at_every_level_is_another_problem_than_edms() -> None:
    """The irreducible loss at sigma = 0.05 on U[0, 1]: 0.002274; with noise of size one, as the
    document has it, 0.0769.
    """

    def irreducible(sigma: float) -> float:
        x = torch.linspace(-8 * sigma - 0.5, 1.5 + 8 * sigma, 20_001, dtype=torch.float64)[:, None]
        one, level = torch.ones(len(x), dtype=torch.float64), torch.full((len(x),), sigma, dtype=torch.float64)
        density = Uniform().log_density(x, one, level).exp()
        variance = Uniform().posterior_variance(x, one, level)
        return float(torch.trapezoid(density * variance, x[:, 0]))

    assert irreducible(0.05) == pytest.approx(0.002274, abs=2e-6)
    assert irreducible(1.0) == pytest.approx(0.0769, abs=1e-4)


class UnitNoise(DenoisingLoss):
    """The loss as printed: |x_0 - D(x_0 + eps, sigma)|^2 with eps ~ N(0, 1), whatever sigma is."""

    def noise(self, member: Member, x: Tensor, nsr: Tensor, generator: Source) -> tuple[Tensor, Tensor]:
        eps, stand_in = super().noise(member, x, nsr, generator)
        return eps / nsr[..., None], stand_in


class AsPrinted(Denoising):
    registered_name = "as-printed"

    @property
    def objective(self) -> UnitNoise:
        return UnitNoise()


def test_s0_12_trained_with_unit_noise_at_every_level_a_network_does_not_denoise() -> None:
    """Mean squared errors on U[0, 1], trained with sigma eps and as printed; both are told sigma,
    neither is weighted.

    As printed the minimiser is D(x; 1) whatever sigma is: at sigma = .05 its error is 0.071, thirty
    times the least one, 0.002274.
    """
    levels = LogNormal(-2.0, 1.0)
    plain = Denoising(parametrization=Data(), weighting=Simple(), noise_levels=levels)
    printed = AsPrinted(parametrization=Data(), weighting=Simple(), noise_levels=levels)
    data, settings = Uniform().sample(20_000, stream("unit noise")), Training(steps=400, batch=256, width=32, depth=2)
    stacks = [
        train([Member(Uniform(), formulation, EDM(), "unit noise")], [data], settings)
        for formulation in (plain, printed)
    ]
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)[1::2, None]
    eps, share = torch.as_tensor(nodes), torch.as_tensor(weights / weights.sum() / 1000)

    def error(denoiser: Callable[[Tensor, Tensor, Tensor], Tensor], sigma: float) -> float:
        noisy = (x + sigma * eps).reshape(1, -1, 1)
        found = denoiser(noisy, numbers(1.0), numbers(sigma)).reshape(1000, 60)
        return float(((found - x).square() @ share).sum())

    def exact(at: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda noisy, alpha, _: Uniform().denoise(noisy, alpha, numbers(at))

    assert error(exact(0.05), 0.05) == pytest.approx(0.002274, rel=1e-3)
    assert error(exact(1.0), 0.05) == pytest.approx(0.0710, rel=2e-2)
    ours, theirs = stacks
    assert error(ours.denoiser, 0.05) == pytest.approx(error(exact(0.05), 0.05), rel=0.1)
    assert error(theirs.denoiser, 0.05) == pytest.approx(error(exact(1.0), 0.05), rel=0.1)
    for stack in stacks:  # where the noise is of size one they are the same problem
        assert error(stack.denoiser, 1.0) == pytest.approx(error(exact(1.0), 1.0), rel=0.1)


# --- the lecture's refinements --------------------------------------------------------------------


def draws(refinement: Literal[1, 2, 3], k: int, n: int) -> tuple[float, Tensor, Tensor]:
    share = last_step_share(CHAIN.nsr(numbers(float(k))), CHAIN)
    eps, target = NoiseTarget(refinement).draw(share.expand(n), (n, 1), stream("refinement", refinement, k))
    return float(share), eps[:, 0], target[:, 0]


@pytest.mark.parametrize("k", [1, 2, 50, 100])
def test_the_share_of_the_last_step_is_that_of_the_chain(k: int) -> None:
    """B_k^2 / beta_k^2 with B_k^2 the chain's beta and beta_k^2 one minus the product of all (1 -
    beta).
    """
    betas = CHAIN.betas
    variance = 1 - np.prod(1 - betas[:k])
    share = float(last_step_share(CHAIN.nsr(numbers(float(k))), CHAIN))
    assert share**2 == pytest.approx(betas[k - 1] / variance, rel=1e-9)


@pytest.mark.parametrize("refinement", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 50, 100])
def test_every_refinement_teaches_the_noise_of_the_whole_way(refinement: Literal[1, 2, 3], k: int) -> None:
    """eps ~ N(0, 1) and E[target | eps] = eps: unit variance and regression slope 1 (4.5 standard
    errors, 7e-6 each).

    The lecture's joint law E[eps_k eps] = B_k / beta_k is the same statement for eps_k = (B_k /
    beta_k) target.
    """
    n = 200_000
    share, eps, target = draws(refinement, k, n)
    assert float(eps.var()) == pytest.approx(1, abs=4.5 * math.sqrt(2 / n))
    rest = target - eps
    spread = math.sqrt(max(1 / share**2 - 1, 0))
    assert float((rest * eps).mean()) == pytest.approx(0, abs=4.5 * spread / math.sqrt(n) + 1e-12)
    expected = 0.0 if refinement == 3 else 1 / share**2 - 1
    assert float(rest.var()) == pytest.approx(expected, abs=4.5 * expected * math.sqrt(2 / n) + 1e-12)


def test_one_draw_of_noise_has_a_smaller_gradient_variance_than_two() -> None:
    """Refinement 3 is the conditional mean of 1 and 2 (Rao-Blackwell); over 400 batches its
    gradients spread less.

    The ratio is far from one (about 2 for this chain), so that a limit of 1.3 fails by chance less
    than once in 1e6.
    """
    network = StackedMLP(1, 16, 1)
    rows = network.initialise([stream("gradient")])
    rows = (rows + 0.1 * torch.randn(rows.shape, generator=stream("gradient, rows"))).requires_grad_()
    data = Uniform().sample(2000, stream("gradient, data"))

    def gradient_variance(refinement: Literal[1, 2, 3]) -> float:
        member = Member(Uniform(), LevelOneDDPM(refinement), CHAIN, "gradient")
        inputs, targets, conditions, weights = batches_of(member, data, 400, 64, stream("gradient, lessons"))
        gradients = []
        for z, answer, c, w in zip(inputs, targets, conditions, weights, strict=True):
            loss = (w * (network(rows, z[None], c[None])[0] - answer).square().sum(-1)).mean()
            gradients.append(torch.autograd.grad(loss, rows)[0].flatten())
        return float(torch.stack(gradients).var(0).sum())

    one, two, three = (gradient_variance(r) for r in (1, 2, 3))
    assert one / three > 1.3
    assert two / three > 1.3
    assert one / two == pytest.approx(1, abs=0.3)


def test_the_loss_of_the_last_step_is_that_of_the_whole_noise_plus_a_constant() -> None:
    """E|eps_k - (B/beta) F|^2 = (B/beta)^2 E|eps - F|^2 + 1 - B^2/beta^2, for any F (here: zero and
    the ideal one).
    """
    n, k = 400_000, 50
    share, eps, target = draws(1, k, n)
    x = Uniform().sample(n, stream("constant"))[:, 0]
    alpha, sigma = CHAIN.alpha(numbers(float(k))), CHAIN.sigma(numbers(float(k)))
    z = alpha * x + sigma * eps
    ideal = (z - alpha * Uniform().denoise(z[:, None], alpha.expand(n), sigma.expand(n))[:, 0]) / sigma
    for F in (torch.zeros(n, dtype=torch.float64), ideal):
        last = share**2 * (target - F).square()
        whole = share**2 * (eps - F).square() + 1 - share**2
        difference = last - whole
        assert float(difference.mean()) == pytest.approx(0, abs=4.5 * float(difference.std()) / math.sqrt(n))


def test_level_one_and_ddpm_differ_by_the_weight_that_the_lecture_drops() -> None:
    nsr = CHAIN.nsr(torch.arange(1, 101, dtype=torch.float64))
    c = Epsilon().coefficients(Circle.at(nsr), 0.5)
    plain = DDPM().weighting.on_target(nsr, c, CHAIN, 0.5)
    weighted = LevelOneDDPM().weighting.on_target(nsr, c, CHAIN, 0.5)
    torch.testing.assert_close(weighted / plain, last_step_share(nsr, CHAIN) ** 2, rtol=1e-9, atol=0)


# --- learned uncertainty --------------------------------------------------------------------------


def test_learned_uncertainty_leaves_its_neighbours_alone_and_learns() -> None:
    """Beside a member that learns u, another's bits are its own; and the member itself still comes
    close to its data.
    """
    settings = Training(steps=60, batch=33, width=16, depth=2)
    data = [Uniform().sample(1000, stream("learned"))] * 2
    plain = Member(Uniform(), DDPM(), DDPM().own_schedule(), "plain")
    learned = Member(Uniform(), ElucidatedDM2(), EDM(), "learned")
    together = train([plain, learned], data, settings)
    reordered = train([learned, plain], data, settings)
    for m, member in enumerate([plain, learned]):
        alone = train([member], data[:1], settings)
        assert torch.equal(together.rows[m], alone.rows[0])
        assert torch.equal(reordered.rows[1 - m], alone.rows[0])
    assert together.errors == (None, None)
    assert float(together.losses[1, -5:].mean()) < float(together.losses[1, :5].mean())
