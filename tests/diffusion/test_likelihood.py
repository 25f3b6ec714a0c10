"""Likelihood through the probability flow: against exact densities, with either trace, and of a
field that was learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import pytest
import scipy.integrate
import torch
from torch import Tensor

from diffusion.analysis.flow_limit import FlowLost
from diffusion.analysis.likelihood import (
    MOST_EXACT,
    bits_per_dim,
    divergence,
    log_likelihood,
    signs,
    to_data,
    to_noise,
)
from diffusion.datasets import (
    Checkerboard,
    Dataset,
    EightGaussians,
    Gaussian,
    GaussianMixture,
    Noised,
    PointSet,
    Torus,
    Uniform,
)
from diffusion.errors import WrongValue
from diffusion.formulations import ActionMatching, ElucidatedDM, Trained, formulations
from diffusion.metrics import BitsPerDimension, NegativeLogLikelihood
from diffusion.models import Denoiser, ExactDenoiser, counted
from diffusion.objectives import SingleLevel
from diffusion.randomness import stream
from diffusion.schedules import EDM, Flow, Schedule, VEGeometric, VPCosine, VPLinear, schedules
from diffusion.training import Member, TrainedStack, Training, train
from tests.diffusion.taught import examples, served

SCHEDULES = {entry.name: entry.cls() for entry in schedules}
PLANE = GaussianMixture((0.2, 0.5, 0.3), ((0.0, 0.0), (1.0, 0.5), (-1.0, 1.0)), (0.3, 0.2, 0.4))


def level(schedule: Schedule, t: float) -> tuple[Tensor, Tensor]:
    time = torch.tensor(t, dtype=torch.float64)
    return schedule.alpha(time), schedule.sigma(time)


def noised(target: Dataset, schedule: Schedule, n: int) -> Tensor:
    """Points at t_min, ``[1, n, dim]``."""
    alpha, sigma = (float(part) for part in level(schedule, schedule.t_min))
    return Noised(target, alpha, sigma).sample(n, stream("test-likelihood", target.label()))[None]


@dataclass(frozen=True)
class Wrapped:
    """A denoiser that does not state its divergence: it has to be differentiated."""

    target: Dataset

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.target.denoise(x, alpha[:, None], sigma[:, None])


class Dropped(Wrapped):
    """Of divergence zero: what is left when the trace is forgotten."""

    def divergence(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        return torch.zeros(x.shape[:-1], dtype=torch.float64)


# --- against closed forms -------------------------------------------------------------------------


def test_the_log_density_of_a_normal_law_is_the_reference_figure() -> None:
    """N(0, 0.5^2) at 0.7: -1.20579."""
    found = log_likelihood(
        ExactDenoiser([Gaussian(0.0, 0.5)]),
        torch.tensor([[[0.7]]], dtype=torch.float64),
        EDM(sigma_min=1e-4),
        tolerance=1e-7,
    )
    assert float(found) == pytest.approx(-1.20579, abs=5e-5)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_on_normal_data_every_schedule_has_the_closed_form_its_start_noise_included(schedule: Schedule) -> None:
    """The flow is linear: x_T = alpha_T m + c_T z with z = (x - alpha m) / c, c^2 = alpha^2 s^2 +
    sigma^2.
    """
    m, s, dim = 0.7, 0.5, 3
    x = noised(Gaussian(m, s, dim), schedule, 20)
    (alpha, sigma), (alpha_end, sigma_end) = level(schedule, schedule.t_min), level(schedule, schedule.t_max)
    c, c_end = torch.hypot(alpha * s, sigma), torch.hypot(alpha_end * s, sigma_end)
    end = alpha_end * m + c_end * (x - alpha * m) / c
    zero = torch.tensor(0.0, dtype=torch.float64)
    prior = Gaussian(dim=dim).log_density(end, zero, zero + schedule.prior_std)  # no signal is left of the data
    expected = prior + dim * torch.log(c_end / c)
    for denoiser in (ExactDenoiser([Gaussian(m, s, dim)]), Wrapped(Gaussian(m, s, dim))):
        found = log_likelihood(denoiser, x, schedule, tolerance=1e-6)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


CENTRED: list[tuple[Dataset, Schedule]] = [
    *((target, schedule) for target in (Uniform(-1.0, 1.0), PLANE) for schedule in (VPLinear(), EDM(), Flow())),
    (EightGaussians(), VPLinear()),
    (Checkerboard(), VPLinear()),
]


@pytest.mark.parametrize(("target", "schedule"), CENTRED, ids=lambda part: part.registered_name)
def test_the_exact_denoisers_likelihood_is_the_exact_density_at_the_cut_off(
    target: Dataset, schedule: Schedule
) -> None:
    """What is left is the error of the start noise, of relative size alpha_T |x| / sigma_T; without
    the trace nothing fits.
    """
    x = noised(target, schedule, 12)
    exact = target.log_density(x, *level(schedule, schedule.t_min))
    found = log_likelihood(ExactDenoiser([target]), x, schedule, tolerance=1e-4)
    prior = 4 * float(torch.linalg.vector_norm(x, dim=-1).max()) / schedule.terminal_nsr
    assert float((found - exact).abs().max()) < 2e-3 + prior

    without = log_likelihood(Dropped(target), x[:, :3], schedule, tolerance=1e-2)
    assert float((without - exact[:, :3]).abs().min()) > 1


@pytest.mark.slow
def test_the_likelihood_of_the_torus_is_its_density() -> None:
    schedule = VPLinear()
    x = noised(Torus(), schedule, 4)
    found = log_likelihood(ExactDenoiser([Torus()]), x, schedule, tolerance=1e-3)
    torch.testing.assert_close(found, Torus().log_density(x, *level(schedule, schedule.t_min)), rtol=0, atol=1e-2)


@pytest.mark.parametrize("schedule", [EDM(), VEGeometric()], ids=lambda s: s.label())
def test_the_prior_of_a_process_that_explodes_has_the_variance_of_its_noise(schedule: Schedule) -> None:
    """N(0, 1) in its place, a slip of other implementations, is off by hundreds of nats."""
    x = noised(Gaussian(0.0, 0.5, 2), schedule, 50)
    exact = Gaussian(0.0, 0.5, 2).log_density(x, *level(schedule, schedule.t_min))
    found = log_likelihood(ExactDenoiser([Gaussian(0.0, 0.5, 2)]), x, schedule)
    assert float((found - exact).abs().max()) < 5e-3
    end = to_noise(ExactDenoiser([Gaussian(0.0, 0.5, 2)]), x, schedule)
    unit = (
        -0.5 * end.square().sum(-1)
        + 0.5 * (end / schedule.prior_std).square().sum(-1)
        + 2 * math.log(schedule.prior_std)
    )
    assert float(unit.mean()) < -100


# --- the flow there and back ----------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [VPLinear(), EDM(), Flow()], ids=lambda s: s.label())
@pytest.mark.parametrize("target", [GaussianMixture(), Uniform()], ids=lambda d: d.label())
def test_the_flow_keeps_the_distribution_function_on_the_line(target: Dataset, schedule: Schedule) -> None:
    """Row A20: F_t(x_t) is the same at t_min and at t_max."""
    distributions = [
        Noised(target, *(float(part) for part in level(schedule, t))) for t in (schedule.t_min, schedule.t_max)
    ]
    u = torch.linspace(0.002, 0.998, 40, dtype=torch.float64)
    end = to_noise(ExactDenoiser([target]), distributions[0].quantile(u)[None, :, None], schedule, tolerance=1e-7)
    torch.testing.assert_close(distributions[1].cdf(end[0, :, 0]), u, rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", [PLANE, Uniform()], ids=lambda d: d.registered_name)
@pytest.mark.parametrize("schedule", [VPLinear(), EDM(), Flow()], ids=lambda s: s.label())
def test_there_and_back_is_the_identity(schedule: Schedule, target: Dataset) -> None:
    """Row A60 and erratum S4-7 (x(0) = x(1) - integral of v, and not x(1)): to a thousandth of the
    noise at t_min.
    """
    x = noised(target, schedule, 12)
    denoiser = ExactDenoiser([target])
    away = to_noise(denoiser, x, schedule, tolerance=1e-8)
    back = to_data(denoiser, away, schedule, tolerance=1e-8)
    assert float((back - x).abs().max()) < 1e-3 * float(level(schedule, schedule.t_min)[1])
    assert float((away / schedule.prior_std - x).abs().mean()) > 0.1


# --- the trace ------------------------------------------------------------------------------------


def test_an_ideal_denoisers_divergence_is_its_posterior_variance() -> None:
    """By automatic differentiation through the closed form, and as the target knows it."""
    x = noised(PLANE, VPLinear(), 30)
    at = torch.tensor([0.8], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    denoised, known = divergence(ExactDenoiser([PLANE]), x, *at)
    again, found = divergence(Wrapped(PLANE), x, *at)
    torch.testing.assert_close(again, denoised, rtol=0, atol=1e-14)
    torch.testing.assert_close(found, known, rtol=1e-10, atol=1e-12)
    assert float(known.min()) > 0


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 30.0])
def test_the_posterior_variance_of_many_points_in_many_dimensions_is_that_of_their_weights(sigma: float) -> None:
    """Images go point by point, by products of a matrix; here by the definition, for points near
    one datum and between two.
    """
    points = torch.randn(90, 20, generator=stream("many points"), dtype=torch.float64)

    class Many(PointSet):
        registered_name = "many"

        @property
        def points(self) -> Tensor:
            return points

    x = torch.cat([points[:5], 0.5 * (points[5:10] + points[10:15]), torch.zeros(1, 20, dtype=torch.float64)])
    share = torch.softmax(-0.5 * (x[:, None] - points).square().sum(-1) / sigma**2, 1)
    mean = share @ points
    expected = (share * (points - mean[:, None]).square().sum(-1)).sum(1)
    found = Many().posterior_variance(x, torch.tensor(1.0), torch.tensor(sigma, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    apart = torch.cat([Many().posterior_variance(one[None], torch.tensor(1.0), torch.tensor(sigma)) for one in x])
    assert torch.equal(Many().posterior_variance(x, torch.tensor(1.0), torch.tensor(sigma)), apart)


def test_hutchinsons_estimate_has_the_trace_as_its_mean_and_signs_belong_to_samples() -> None:
    """4 standard errors of 400 estimates at each of 20 points: false alarms 1.3e-3 in all."""
    x = noised(PLANE, VPLinear(), 20)
    at = torch.tensor([0.8], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    _, exact = divergence(Wrapped(PLANE), x, *at)
    each = [divergence(Wrapped(PLANE), x, *at, signs(("hutchinson", k), 1, 20, 2))[1] for k in range(400)]
    estimates = torch.stack(each)[:, 0]
    assert ((estimates.mean(0) - exact[0]).abs() <= 4 * estimates.std(0) / 20 + 1e-12).all()
    assert float(estimates.std(0).max()) > 1e-2
    _, all_at_once = divergence(
        Wrapped(PLANE), x, *at, torch.cat([signs(("hutchinson", k), 1, 20, 2) for k in range(400)])
    )
    torch.testing.assert_close(all_at_once[0], estimates.mean(0), rtol=0, atol=1e-12)
    assert torch.equal(signs(("a",), 2, 5, 3), signs(("a",), 2, 9, 3)[:, :5])


def test_beyond_sixteen_dimensions_signs_take_the_place_of_the_trace() -> None:
    """Of a normal law with equal widths the estimate has no error: v' v = d."""
    dim, schedule = MOST_EXACT + 4, VPLinear()
    target = Gaussian(0.0, 0.5, dim)
    x = noised(target, schedule, 10)
    exact = target.log_density(x, *level(schedule, schedule.t_min))
    calls = []

    def counted(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        calls.append(1)
        return target.denoise(x, alpha[:, None], sigma[:, None])

    found = log_likelihood(counted, x, schedule)
    torch.testing.assert_close(found, exact, rtol=0, atol=5e-3)
    uneven = Gaussian(0.0, tuple(0.2 + 0.1 * k for k in range(dim)), dim)
    x = noised(uneven, schedule, 200)
    exact = uneven.log_density(x, *level(schedule, schedule.t_min))
    torch.testing.assert_close(log_likelihood(Wrapped(uneven), x, schedule), exact, rtol=0, atol=0.05)  # diagonal


def test_what_cannot_be_differentiated_or_followed_is_told() -> None:
    x = torch.zeros(1, 3, 1, dtype=torch.float64)
    with pytest.raises(WrongValue, match="cannot be differentiated"):
        log_likelihood(lambda x, alpha, sigma: x.detach(), x, EDM())  # noqa: ARG005
    with pytest.raises(ValueError, match=r"needed: \[1, batch, dim\]"):
        log_likelihood(Wrapped(Uniform()), x[0], EDM())
    with pytest.raises(ValueError, match="probes = 0"):
        log_likelihood(Wrapped(Uniform()), x, EDM(), probes=0)
    with pytest.raises(FlowLost):
        to_noise(lambda x, alpha, sigma: x / 0, x, EDM())  # noqa: ARG005


def test_bits_count_cells_of_the_stated_unit() -> None:
    """U[-1, 1] in 255 units of 1/127.5: log2 255 bits, whatever the dimension."""
    for dim in (1, 5):
        log_density = torch.tensor([-dim * math.log(2.0)], dtype=torch.float64)
        assert float(bits_per_dim(log_density, dim, 127.5)) == pytest.approx(math.log2(255), abs=1e-12)


# --- learned fields -------------------------------------------------------------------------------


@cache
def trained(dataset: Dataset) -> TrainedStack:
    member = Member(dataset, ElucidatedDM(), EDM(sigma_min=0.05, sigma_max=10.0), "likelihood")
    data = dataset.sample(5000, stream("test-likelihood", "data"))
    return train([member], [data], Training(steps=200, batch=128, width=32, depth=2))


def test_the_likelihood_of_a_learned_field_integrates_to_one() -> None:
    """Whatever was learned: the change of variables makes a density of it, at the cut-off."""
    schedule = EDM(sigma_min=0.05, sigma_max=10.0)
    x = torch.linspace(-1, 2, 301, dtype=torch.float64)
    density = torch.exp(log_likelihood(trained(Uniform()).denoiser, x[None, :, None], schedule, tolerance=1e-4))[0]
    assert scipy.integrate.simpson(density.numpy(), x=x.numpy()) == pytest.approx(1, abs=2e-3)
    exact = torch.exp(Noised(Uniform(), 1.0, 0.05).log_density(x[:, None], *level(EDM(), 1e-9)))
    assert float((density - exact).abs().mean()) < 0.1  # it did learn


def test_the_same_in_another_unit_asks_the_model_for_nothing_new() -> None:
    target, schedule = EightGaussians(), EDM(sigma_min=0.05, sigma_max=10.0)
    stack = trained(target)
    nats, bits = NegativeLogLikelihood(batch=16), BitsPerDimension(batch=16, scale=4.0)
    requested, counter = counted(stack.denoiser)
    expected = nats.evaluate(requested, target, schedule)
    first = counter.nfe
    assert first > 0
    assert bits.evaluate(requested, target, schedule) == pytest.approx(expected / (2 * math.log(2)) + 2, rel=1e-12)
    assert counter.nfe == first
    other, others = counted(stack.denoiser)
    assert nats.evaluate(other, target, schedule) == expected
    assert others.nfe == first  # another model is asked for itself
    nats.evaluate(other, target, EDM(sigma_min=0.1, sigma_max=10.0))
    assert others.nfe > first


def test_a_trained_stack_can_be_differentiated_in_x_and_only_when_asked() -> None:
    stack = trained(EightGaussians())
    x = noised(EightGaussians(), EDM(), 16)
    at = torch.tensor([1.0], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    plain = stack.denoiser(x, *at)
    assert not plain.requires_grad
    denoised, found = divergence(stack.denoiser, x, *at)
    torch.testing.assert_close(denoised, plain, rtol=0, atol=1e-6)
    h = 1e-2
    steps = h * torch.eye(2, dtype=torch.float64)
    differences = sum(
        (stack.denoiser(x + e, *at) - stack.denoiser(x - e, *at))[..., j] for j, e in enumerate(steps)
    ) / (2 * h)
    torch.testing.assert_close(found, differences, rtol=2e-2, atol=2e-3)


# --- every formulation can be differentiated ------------------------------------------------------

DENOISERS: list[Trained] = [
    *(
        formulation
        for entry in formulations
        if entry.has_defaults
        and isinstance(formulation := formulations.create(entry.name), Trained)
        and issubclass(formulation.gives, Denoiser)
    ),
    ActionMatching("entropic"),
]


@pytest.mark.parametrize("formulation", DENOISERS, ids=lambda f: f.label())
def test_the_divergence_of_every_trained_denoiser_is_that_of_finite_differences(formulation: Trained) -> None:
    """Central differences of fourth order, of a network of single precision; they agree to 8e-6 of
    the largest.
    """
    target = served(formulation, EightGaussians())
    schedule = formulation.own_schedule().fitted(target)
    data = examples(formulation, target, 500, stream("test-divergence"))
    settings = Training(steps=15, batch=32, width=16, depth=2)
    stack = train([Member(target, formulation, schedule, "divergence")], [data], settings)
    for ratio in (0.3, 1.0):
        t = schedule.time_of(torch.tensor(ratio, dtype=torch.float64)).clamp(schedule.t_min, schedule.t_max)
        alpha, sigma = level(schedule, float(t))
        size = float(torch.hypot(alpha * target.std, sigma))
        x = size * torch.randn(1, 20, 2, generator=stream("test-divergence x"), dtype=torch.float64)
        reference = alpha[None], sigma[None]
        denoised, found = divergence(stack.denoiser, x, *reference)
        torch.testing.assert_close(denoised, stack.denoiser(x, *reference), rtol=0, atol=1e-5 * target.std)
        h = 0.03 * size
        expected = torch.zeros_like(found)
        for k, e in enumerate(torch.eye(2, dtype=torch.float64)):
            near, far = (
                stack.denoiser(x + j * h * e, *reference) - stack.denoiser(x - j * h * e, *reference) for j in (1, 2)
            )
            expected += (8 * near - far)[..., k] / (12 * h)
        unit = float(expected.abs().max())
        assert unit > 0
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * unit)


# --- metrics --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [Uniform(-1.0, 1.0), EightGaussians()], ids=lambda d: d.label())
def test_the_ideal_denoisers_nll_is_the_entropy_of_the_noised_target(target: Dataset) -> None:
    metric = NegativeLogLikelihood(batch=32)
    value = metric.evaluate(ExactDenoiser([target]), target, EDM())
    assert value == pytest.approx(metric.floor(target, EDM()), abs=2e-3)
    bits = BitsPerDimension(batch=32, scale=4.0)
    assert bits.evaluate(ExactDenoiser([target]), target, EDM()) == pytest.approx(
        value / (target.dim * math.log(2)) + 2, abs=1e-12
    )
    assert bits.floor(target, EDM()) == pytest.approx(
        metric.floor(target, EDM()) / (target.dim * math.log(2)) + 2, abs=1e-12
    )


@pytest.mark.parametrize(
    "schedule", [VPLinear(), VPCosine(t_min=0.3), EDM(), EDM(sigma_min=0.8), Flow(t_min=0.4)], ids=lambda s: s.label()
)
def test_the_floor_of_normal_data_is_the_entropy_of_their_noised_law(schedule: Schedule) -> None:
    """Sum over coordinates of ``1/2 ln(2 pi e (alpha^2 s^2 + sigma^2))`` at t_min: within 4.5
    standard errors, sqrt(d / 2n) = 0.0071 each.

    False alarms 7e-6 each, seed fixed. The entropy of the clean data is 0.16, 0.71 and 0.46 away
    where the first level is a noisy one. In bits per dimension it is the same number in another
    unit.
    """
    widths, n = (0.5, 2.0), 20_000
    target = Gaussian((0.7, -1.0), widths, 2)
    alpha, sigma = level(schedule, schedule.t_min)
    spread = [math.log(2 * math.pi * math.e * float((alpha * s) ** 2 + sigma**2)) for s in widths]
    entropy = 0.5 * sum(spread)
    error = 4.5 * math.sqrt(2 / (2 * n))
    floor = NegativeLogLikelihood(batch=n).floor(target, schedule)
    assert floor == pytest.approx(entropy, abs=error)
    bits = BitsPerDimension(batch=n, scale=1.0).floor(target, schedule)
    assert bits == pytest.approx(entropy / (2 * math.log(2)), abs=error / (2 * math.log(2)))
    few = NegativeLogLikelihood(batch=500).floor(target, schedule)
    assert few == pytest.approx(entropy, abs=4.5 * math.sqrt(2 / (2 * 500)))
    found = NegativeLogLikelihood(batch=500).evaluate(ExactDenoiser([target]), target, schedule)
    assert found == pytest.approx(few, abs=5e-3)


def test_what_is_above_the_floor_is_the_divergence_from_the_true_law_by_paired_draws() -> None:
    """A denoiser of N(0, 0.8^2) on data N(0, 0.5^2): KL = ln(.8/.5) + .25/1.28 - 1/2; 4.5 standard
    errors (7e-6).
    """
    right, wrong = Gaussian(0.0, 0.5), Gaussian(0.0, 0.8)
    metric = NegativeLogLikelihood(batch=4000)
    gap = metric.evaluate(ExactDenoiser([wrong]), right, EDM()) - metric.floor(right, EDM())
    spread = 0.5 * (0.25 / 0.64 - 1) * math.sqrt(2)  # of log p_right - log p_wrong
    assert gap == pytest.approx(math.log(1.6) + 0.25 / 1.28 - 0.5, abs=4.5 * abs(spread) / math.sqrt(4000) + 1e-3)


def test_metrics_are_refused_without_an_exact_density_and_tell_flows_that_cannot_be_followed() -> None:
    @dataclass(frozen=True)
    class Unknown(Uniform):
        registered_name = "unknown"
        exact = False

    assert "exact density" in str(NegativeLogLikelihood().refuses(Unknown()))
    assert "one noise level" in str(NegativeLogLikelihood().refuses_schedule(SingleLevel(0.3).schedule()))
    assert all(NegativeLogLikelihood().refuses_schedule(schedule) is None for schedule in SCHEDULES.values())
    broken: Denoiser = lambda x, alpha, sigma: x * math.nan  # noqa: E731, ARG005
    with pytest.raises(FlowLost, match="nll: the flow could not be followed"):
        NegativeLogLikelihood(batch=4).evaluate(broken, Uniform(), EDM())
    with pytest.raises(ValueError, match="tolerance between 0 and 1"):
        NegativeLogLikelihood(tolerance=0.0)
    with pytest.raises(ValueError, match="scale"):
        BitsPerDimension(scale=-1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trace": "hutch"}, "trace = 'hutch'; accepted: auto, exact, hutchinson"),
        ({"tolerance": 0.0}, "tolerance = 0.0; needed: a number above zero"),
        ({"tolerance": -1.0}, "tolerance = -1.0; needed: a number above zero"),
        ({"x": torch.tensor([[[math.nan]]], dtype=torch.float64)}, "points that are not finite: the flow takes them nowhere"),
        ({"x": torch.zeros(3, 1, dtype=torch.float64)}, "points of shape [3, 1]; needed: [1, batch, dim], one member at a time"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_sentence(change: dict[str, object], said: str) -> None:
    asked: dict[str, object] = {"x": torch.zeros(1, 3, 1, dtype=torch.float64), **change}
    with pytest.raises(WrongValue) as refused:
        log_likelihood(ExactDenoiser([Gaussian()]), schedule=EDM(), **asked)  # type: ignore[arg-type]
    assert str(refused.value) == said
