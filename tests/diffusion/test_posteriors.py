"""Posteriors of simulators: the benchmark's laws, and networks that learn them without seeing the
observation.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from diffusion.datasets import (
    Dataset,
    EightGaussians,
    GaussianLinearUniformPosterior,
    GaussianMixturePosterior,
    SimulatorPosterior,
    TwoMoonsPosterior,
    datasets,
)
from diffusion.errors import NoExactAnswer, WrongValue
from diffusion.formulations import (
    ElucidatedDM,
    ElucidatedDM2,
    Exact,
    ImplicitScoreMatching,
    NoiseConditionalScore,
    ObservationConditional,
    RectifiedFlow,
)
from diffusion.inference import loss_floor
from diffusion.models import Denoiser
from diffusion.objectives.base import batches_of
from diffusion.randomness import stream
from diffusion.training import Member, Training, train
from tasks.plan import points_of
from tasks.study import Study

TASKS: dict[str, Any] = {
    entry.name: entry.cls for entry in datasets if entry.has_defaults and issubclass(entry.cls, SimulatorPosterior)
}
TINY = Training(steps=8, batch=32, width=16, depth=2)


def number(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def member(dataset: Dataset, formulation: ObservationConditional, key: str) -> Member:
    return Member(dataset, formulation, formulation.own_schedule(), key)


def joint(dataset: SimulatorPosterior, n: int = 400) -> Tensor:
    return dataset.sample_joint(n, stream("joint", dataset.label()))


# --- the laws -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_outcomes_have_the_stated_moments(name: str) -> None:
    """Five standard errors: false alarms 6e-7 for each coordinate and moment."""
    target = TASKS[name]()
    n = 20_000
    x = joint(target, n)[:, target.dim :]
    mean, std = (torch.tensor(part, dtype=torch.float64) for part in target.outcomes)
    assert x.shape == (n, len(target.observed))
    assert ((x.mean(0) - mean).abs() < 5 * std / math.sqrt(n)).all()
    squares = (x - mean).square()
    assert ((squares.mean(0) - std**2).abs() < 5 * squares.std(0) / math.sqrt(n)).all()


def functions(theta: Tensor, middle: Tensor) -> Tensor:
    """Both parameters, the distance from the middle and the product, ``[4, n]``."""
    return torch.stack([theta[:, 0], theta[:, 1], (theta - middle).norm(dim=1), theta.prod(1)])


@pytest.mark.parametrize("observation", [1, 5, 10])
@pytest.mark.parametrize("name", ["gaussian_mixture_posterior", "two_moons_posterior"])
def test_posterior_is_the_law_of_parameters_whose_outcome_came_near_the_observation(
    name: str, observation: int
) -> None:
    """Draws of the prior, but for parts where the posterior has nothing, whose simulated outcome is
    within a small distance: five standard errors of means of four functions, and the bias of that
    distance.
    """
    target = TASKS[name](observation)
    generator = stream("near", name, observation)
    n, width = 1_000_000, 0.02 if name.startswith("two") else 0.2
    middle = torch.tensor(target.mean, dtype=torch.float64)
    low, high = ((middle + k * target.std).clamp(target.prior.low, target.prior.high) for k in (-6, 6))
    theta = low + (high - low) * torch.rand(n, 2, generator=generator, dtype=torch.float64)
    x = target.simulate(theta, generator)
    near = theta[(x - torch.tensor(target.observed, dtype=torch.float64)).abs().amax(1) < width]
    own = target.sample(len(near), generator)
    assert len(near) > 300
    for a, b in zip(functions(near, middle), functions(own, middle), strict=True):
        error = math.sqrt(float(a.var() + b.var()) / len(near))
        assert abs(float(a.mean() - b.mean())) < 5 * error + width / 10 * float(b.std() + 1)


@pytest.mark.parametrize(("observation", "coordinate"), [(3, 4), (5, 3), (1, 6)])
def test_cut_off_coordinates_follow_scipys_truncated_normal(observation: int, coordinate: int) -> None:
    """Kolmogorov-Smirnov at 1e-4, and moments to rounding; the observation may lie outside of the
    prior.
    """
    target = GaussianLinearUniformPosterior(observation)
    y, s = target.observed[coordinate], math.sqrt(0.1)
    law = stats.truncnorm((-1 - y) / s, (1 - y) / s, loc=y, scale=s)
    x = target.sample(5000, stream("truncated", observation))[:, coordinate]
    assert stats.kstest(x.numpy(), law.cdf).pvalue > 1e-4
    assert target.mean[coordinate] == pytest.approx(law.mean(), rel=1e-9)
    assert float(x.min()) >= -1
    assert float(x.max()) <= 1


def test_two_components_are_weighed_with_what_the_box_leaves_of_them() -> None:
    """The first observation lies half a unit from the edge: seven tenths of the wide bump are
    inside, and all of the narrow one.
    """
    target = GaussianMixturePosterior(1)
    inside = [
        math.prod(stats.norm(y, s).cdf(10) - stats.norm(y, s).cdf(-10) for y in target.observed) for s in (1, 0.1)
    ]
    narrow = inside[1] / sum(inside)
    assert target._shares == pytest.approx((1 - narrow, narrow), rel=1e-12)
    assert narrow > 0.58


@pytest.mark.parametrize("nsr", [0.004, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("observation", [1, 7])
def test_two_moons_agree_with_an_integral_over_angle_and_side(observation: int, nsr: float) -> None:
    """By scipy's adaptive quadrature, cut at the point's own direction; to 1e-8."""
    target = TwoMoonsPosterior(observation)
    alpha, sigma = 0.8, 0.8 * nsr
    x = alpha * target.sample(3, stream("moons", observation))
    x = x + sigma * torch.randn(3, 2, generator=stream("moons noise"), dtype=torch.float64)
    found = target.log_density(x, number(alpha), number(sigma)), target.denoise(x, number(alpha), number(sigma))
    c, middle = 0.25 - target.observed[0], target.observed[1]
    B = sigma**2 + (alpha * 0.01) ** 2
    for i, (a, b) in enumerate(x.tolist()):
        u, v = (a + b) / math.sqrt(2), (b - a) / math.sqrt(2)
        sums = np.zeros(3)
        for side in (1, -1):
            z = side * u - alpha * c, v - alpha * middle

            def parts(t: float, z: tuple[float, float] = z, side: int = side) -> tuple[float, float, float]:
                along, across = z[0] * math.cos(t) + z[1] * math.sin(t), z[1] * math.cos(t) - z[0] * math.sin(t)
                density = math.exp(-((along - alpha * 0.1) ** 2) / (2 * B) - across**2 / (2 * sigma**2))
                density /= 2 * math.pi * sigma * math.sqrt(B) * 2 * math.pi
                r = (0.1 * sigma**2 + alpha * 1e-4 * along) / B
                return density, density * side * (c + r * math.cos(t)), density * (middle + r * math.sin(t))

            toward = math.atan2(z[1], z[0])
            cuts = sorted({-math.pi / 2, math.pi / 2, *(toward + k * sigma / 0.1 for k in (-8, -2, 0, 2, 8))})
            cuts = [cut for cut in cuts if abs(cut) <= math.pi / 2]
            for k in range(3):
                sums[k] += sum(
                    integrate.quad(lambda t, k=k: parts(t)[k], low, high, epsabs=0, epsrel=1e-11, limit=200)[0]
                    for low, high in pairwise(cuts)
                )
        mean_u, mean_v = sums[1:] / sums[0]
        expected = [(mean_u - mean_v) / math.sqrt(2), (mean_u + mean_v) / math.sqrt(2)]
        assert float(found[0][i]) == pytest.approx(math.log(sums[0]), rel=1e-8, abs=1e-8)
        assert found[1][i].tolist() == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_moons_that_the_prior_cuts_off_are_sampled_and_have_no_exact_answers() -> None:
    assert [TwoMoonsPosterior(k).exact for k in range(1, 11)] == [k not in (5, 10) for k in range(1, 11)]
    cut = TwoMoonsPosterior(5)
    assert float(cut.sample(2000, stream("cut")).abs().max()) <= 1
    with pytest.raises(NoExactAnswer, match="cuts its moons off"):
        cut.denoise(torch.zeros(1, 2, dtype=torch.float64), number(1), number(1))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("observation", [0, 11, -1])
def test_an_observation_that_is_not_there_is_refused(name: str, observation: int) -> None:
    with pytest.raises(WrongValue, match=f"{name}: observation = {observation}; needed: 1 to 10"):
        TASKS[name](observation)


# --- learning them --------------------------------------------------------------------------------


def test_the_network_sees_the_outcome_and_sigma_data_is_that_of_the_prior() -> None:
    target, formulation = GaussianMixturePosterior(2), ObservationConditional()
    data = joint(target)
    data[:, 2:] = data[:, :2]  # the outcome tells the parameters
    one = member(target, formulation, "sees")
    inputs, targets, conditions, weights = batches_of(one, data, 30, 64, stream("lesson"))
    assert inputs.shape == (30, 64, 4)
    plain = Member(target.prior, ElucidatedDM(), one.schedule, "sees")
    assert torch.equal(conditions, batches_of(plain, data[:, :2], 30, 64, stream("lesson"))[2])
    noised, outcomes = inputs[..., :2].flatten(), inputs[..., 2:].flatten()
    assert (
        float(torch.corrcoef(torch.stack([noised, outcomes]))[0, 1]) > 0.9
    )  # most noise is less than the prior's spread
    assert float(noised.std()) == pytest.approx(1, abs=0.1)  # in units of the prior's; the posterior's is a tenth of it
    assert float(outcomes.std()) == pytest.approx(1, abs=0.1)
    assert targets.shape == (30, 64, 2)
    assert weights.shape == (30, 64)


def test_data_without_outcomes_do_not_pass_for_simulations() -> None:
    target = TwoMoonsPosterior()
    with pytest.raises(ValueError, match="have 4 columns, found 2"):
        batches_of(member(target, ObservationConditional(), "lost"), joint(target)[:, :2], 2, 4, stream("lost"))


@pytest.mark.parametrize("cls", TASKS.values(), ids=TASKS)
def test_members_of_several_observations_are_bit_identical_whatever_they_are_stacked_with(cls: Any) -> None:
    formulations = [
        ObservationConditional(),
        ObservationConditional(ElucidatedDM2(), 300),
        ObservationConditional(RectifiedFlow(), 200),
    ]
    members = [member(cls(k + 1), f, f"packed {k}") for k, f in enumerate(formulations)]
    data = [joint(cls(k + 1), 200) for k in range(3)]
    stack = train(members, data, TINY)
    assert stack.errors == (None,) * 3
    x = torch.cat([cls().sample(13, stream("asked"))[None]] * 3)
    level = torch.ones(3).double(), torch.full((3,), 0.7).double()
    together = stack.denoiser(x, *level)
    for k, one in enumerate(members):
        alone = train([one], [data[k]], TINY)
        assert torch.equal(alone.rows[0], stack.rows[k])
        assert torch.equal(alone.denoiser(x[k : k + 1], level[0][:1], level[1][:1])[0], together[k])


def test_a_network_that_never_saw_the_observation_gives_the_posteriors_denoiser() -> None:
    """Its error is a fifth of that of the best denoiser that knows the prior alone, at any
    observation that is asked.
    """
    settings = Training(steps=400, batch=256, width=64, depth=2)
    targets = [GaussianMixturePosterior(k) for k in (2, 3)]
    data = joint(targets[0], 20_000)
    stack = train([member(one, ObservationConditional(), "shared") for one in targets], [data] * 2, settings)
    assert torch.equal(stack.rows[0], stack.rows[1])  # one network
    assert isinstance(stack.denoiser, Denoiser)
    for k, target in enumerate(targets):
        alpha, sigma = number(1.0), number(2.0)
        x = target.sample(2000, stream("posterior", k))
        x = x + 2 * torch.randn(x.shape, generator=stream("posterior noise", k), dtype=torch.float64)
        exact = target.denoise(x, alpha, sigma)
        both = torch.ones(2).double(), torch.full((2,), 2.0).double()
        learned = stack.denoiser(torch.stack([x, x]), *both)[k]
        blind = target.prior.denoise(x, alpha, sigma)
        error, without = ((one - exact).square().sum(1).mean().sqrt() for one in (learned, blind))
        assert float(error) < 0.2 * float(without)


def test_what_cannot_be_conditioned_is_refused() -> None:
    assert ObservationConditional().refuses_dataset(EightGaussians()) == (
        "'observation-conditional' learns a posterior from simulations, and dataset 'eight_gaussians' has no simulator"
    )
    for of in (ImplicitScoreMatching(), Exact()):
        with pytest.raises(WrongValue, match="not trained by regression"):
            ObservationConditional(of)
    with pytest.raises(WrongValue, match="simulations = 0; needed: 1 or more"):
        ObservationConditional(simulations=0)


def test_what_a_schedule_leaves_to_the_data_it_has_of_the_prior_for_every_observation() -> None:
    formulation = ObservationConditional(of=NoiseConditionalScore())
    schedule = formulation.own_schedule()
    targets = [GaussianMixturePosterior(observation=number) for number in (1, 2, 3)]
    found = {formulation.fitted(schedule, target) for target in targets}
    assert found == {schedule.fitted(targets[0].prior)}
    assert schedule.fitted(targets[0]) not in found
    spec = {"name": "by-ncsn", "formulations": [{"name": "observation-conditional", "of": "ncsn"}]}
    asked = {"samplers": ["euler"], "steps": [2], "samples": 10, "metrics": ["energy"], "seeds": 1}
    study = Study.from_spec({**spec, **asked, "datasets": [target.spec() for target in targets]})
    assert {point.cell.schedule for point in points_of(study)} == found


def test_the_least_loss_over_all_outcomes_is_said_to_be_unknown() -> None:
    with pytest.raises(WrongValue, match="the least loss of 'observation-conditional' is a mean over all outcomes"):
        loss_floor(TwoMoonsPosterior(), ObservationConditional())
