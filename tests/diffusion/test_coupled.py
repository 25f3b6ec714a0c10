"""Flow matching between two data sets: what is exact, what is learned, where it starts, who may ask."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import diffatlas as da
from diffusion.datasets import (
    Dataset,
    EightGaussians,
    FourPoints,
    Gaussian,
    GaussianMixture,
    LinearSubspace,
    Moons,
    StreakedMoons,
    Uniform,
    datasets,
)
from diffusion.formulations import ExactBetween, FlowBetween, RectifiedFlow
from diffusion.inference import Question, Subject, levels_for, states
from diffusion.inference.sampling import start_draws
from diffusion.metrics import metrics
from diffusion.models import BetweenDenoiser
from diffusion.objectives.member import Member
from diffusion.randomness import stream
from diffusion.samplers import Sampler, samplers
from diffusion.schedules import Flow
from diffusion.schedules.grids import grids

LINE = GaussianMixture((0.4, 0.6), (-1.5, 2.0), (0.3, 0.8))
NORMAL = GaussianMixture((1.0,), (1.2,), (0.7,))
PLANE = EightGaussians(radius=5.0, stds=math.sqrt(0.1))


def asked(denoiser: BetweenDenoiser, x: Tensor, t: float) -> Tensor:
    alpha, sigma = torch.tensor([1 - t], dtype=torch.float64), torch.tensor([t], dtype=torch.float64)
    return denoiser(x[None, :, None], alpha, sigma)[0, :, 0]


def sampled(formulation: ExactBetween, target: Dataset, sampler: Sampler, steps: int, n: int, seed: int = 0) -> Tensor:
    """The states at the end and at the start, ``[2, n, dim]``."""
    question = Question(sampler, steps, n)
    subjects = [Subject(target, formulation, Flow(), grids.create("uniform-t"), "target", seed)]
    levels = levels_for(question, subjects)
    start, *_, end = states(formulation.model_of([target]), question, subjects, levels)
    return torch.stack([end[0], start[0]])


@pytest.mark.parametrize("t", [1e-3, 0.3, 0.9, 1.0])
def test_between_two_normal_laws_the_answer_is_the_regression_line(t: float) -> None:
    target, x = Gaussian(means=-0.4, stds=0.5), torch.linspace(-3, 3, 7, dtype=torch.float64)
    variance = (1 - t) ** 2 * 0.25 + t**2 * 0.49
    expected = -0.4 + (1 - t) * 0.25 / variance * (x - (1 - t) * -0.4 - t * 1.2)
    assert torch.allclose(asked(BetweenDenoiser([target], NORMAL), x, t), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [0.2, 0.7, 1.0])
def test_from_a_mixture_to_a_box_the_answer_is_that_of_quadrature(t: float) -> None:
    """Bayes' rule over x_0, on 4,000 midpoints: their error is below 1e-6."""
    target, x = Uniform(), torch.linspace(-2, 3, 9, dtype=torch.float64)
    low, high = target.quantile(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    clean = low + (high - low) * (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    y = (x[:, None] - (1 - t) * clean) / t
    one, none = torch.ones(1, dtype=torch.float64), torch.full((1,), 1e-9, dtype=torch.float64)
    weight = LINE.log_density(y.reshape(-1, 1), one, none).reshape(y.shape).exp()
    expected = (weight * clean).sum(1) / weight.sum(1)
    assert torch.allclose(asked(BetweenDenoiser([target], LINE), x, t), expected, atol=1e-6)


def test_members_have_targets_of_their_own() -> None:
    targets = [Uniform(), NORMAL, Uniform()]
    x = torch.randn(3, 5, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alpha, sigma = (torch.tensor(v, dtype=torch.float64) for v in ([0.5, 0.2, 0.9], [0.5, 0.8, 0.1]))
    together = BetweenDenoiser(targets, LINE)(x, alpha, sigma)
    for m, target in enumerate(targets):
        rows = slice(m, m + 1)
        assert torch.equal(together[rows], BetweenDenoiser([target], LINE)(x[rows], alpha[rows], sigma[rows]))


@pytest.mark.parametrize("target", [Moons(), PLANE], ids=lambda one: one.registered_name)
def test_one_step_of_euler_gives_the_mean_of_the_target_whatever_the_start(target: Dataset) -> None:
    """So W2^2 is the trace of the target's covariance, 2 std^2 in the plane."""
    end, _ = sampled(ExactBetween(PLANE), target, samplers.create("euler"), 1, 50)
    assert torch.allclose(end, torch.tensor(target.mean, dtype=torch.float64).expand(50, 2), atol=1e-9)


def test_the_exact_flow_takes_the_source_to_the_target() -> None:
    """Kolmogorov-Smirnov tests of both ends on the line, a false alarm in 10^6 of each; what the last
    step leaves out (t = 1e-3) is far below what they see.
    """
    sampler = samplers.create("rk45", rtol=1e-6, atol=1e-6)
    end, start = sampled(ExactBetween(LINE), Uniform(), sampler, 20, 4000)
    for found, law in ((end, Uniform()), (start, LINE)):
        u = law.cdf(found[:, 0]).numpy()
        assert stats.kstest(u, "uniform").pvalue > 1e-6
    assert stats.kstest(LINE.cdf(end[:, 0]).numpy(), "uniform").pvalue < 1e-6  # and it sees a difference


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_rules_have_their_order_between_two_data_sets(name: str, order: int) -> None:
    reference = sampled(ExactBetween(LINE), NORMAL, samplers.create("rk45", rtol=1e-10, atol=1e-10), 64, 40)[0]
    errors = []
    for steps in (64, 128):
        question = Question(samplers.create(name), steps, 40)
        subjects = [Subject(NORMAL, ExactBetween(LINE), Flow(t_min=1e-5), grids.create("uniform-t"), "target", 0)]
        *_, end = states(ExactBetween(LINE).model_of([NORMAL]), question, subjects, levels_for(question, subjects))
        errors.append(float((end[0] - reference).abs().mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def test_a_batch_pairs_the_data_with_draws_of_the_source_that_know_nothing_of_them() -> None:
    """Input and target are those of the straight line; KS tests of the draws and a test of their
    correlation with the data, a false alarm in 10^6 of each.
    """
    formulation = FlowBetween(LINE)
    member = Member(NORMAL, formulation, Flow(), "key")
    n, groups = 8192, 64
    x = NORMAL.sample(n, stream("data"))[None]
    nsr = torch.linspace(0.1, 20, groups, dtype=torch.float64)[None]
    inputs, targets, _, weights = formulation.objective.batches_on(member, x, nsr, stream("batch"))  # type: ignore[attr-defined]
    t = (nsr / (1 + nsr)).repeat_interleave(n // groups, 1)[..., None]
    y = targets.double() + x
    assert torch.allclose(inputs.double(), (1 - t) * x + t * y, atol=1e-5)
    assert torch.allclose(weights, torch.ones_like(weights))
    assert stats.kstest(LINE.cdf(y[0, :, 0]).numpy(), "uniform").pvalue > 1e-6
    assert abs(np.corrcoef(x[0, :, 0], y[0, :, 0])[0, 1]) < 4.9 / math.sqrt(n)


def test_a_trained_network_comes_near_the_exact_answer() -> None:
    """Of 600 steps on the line: where points of the way lie, the mean square of its error is a fiftieth
    of the answer's variance.
    """
    model = da.train(NORMAL, FlowBetween(LINE), steps=600, width=32, depth=2, batch=256)
    end, clean, drawn = BetweenDenoiser([NORMAL], LINE), NORMAL.sample(500, stream("x")), LINE.sample(500, stream("y"))
    for t in (0.3, 0.6):
        x = ((1 - t) * clean + t * drawn)[:, 0]
        exact = asked(end, x, t)
        alpha, sigma = torch.tensor([1 - t], dtype=torch.float64), torch.tensor([t], dtype=torch.float64)
        found = model.model(x[None, :, None], alpha, sigma)[0, :, 0]  # type: ignore[operator]
        assert float(((found - exact) ** 2).mean() / exact.var()) < 0.02


def test_the_start_is_that_of_the_seed_for_every_sampler_and_formulation_and_grows() -> None:
    one = sampled(ExactBetween(PLANE), Moons(), samplers.create("euler"), 1, 1500)[1]
    other = sampled(ExactBetween(PLANE), Moons(), samplers.create("heun"), 2, 40)[1]
    assert torch.equal(one[:40], other)
    assert not torch.equal(other, sampled(ExactBetween(PLANE), Moons(), samplers.create("euler"), 1, 40, seed=1)[1])
    assert not torch.equal(one[:40], one[1024:1064])
    trained = da.train(Moons(), FlowBetween(PLANE), steps=2, width=8, depth=1)
    question = Question(samplers.create("euler"), 1, 40)
    subjects = [Subject(Moons(), trained.formulation, Flow(), grids.create("uniform-t"), "target", 0)]
    assert torch.equal(next(states(trained.model, question, subjects, levels_for(question, subjects)))[0], other)


def test_the_flow_from_a_normal_source_is_the_flow_from_noise() -> None:
    """N(0, I) as a source and as noise: one denoiser, to rounding."""
    noise, x = GaussianMixture((1.0,), (0.0,), (1.0,)), torch.linspace(-2, 2, 9, dtype=torch.float64)
    alpha, sigma = torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    assert torch.allclose(asked(BetweenDenoiser([LINE], noise), x, 0.6), LINE.denoise(x[:, None], alpha, sigma)[:, 0])
    assert FlowBetween(noise).parametrization == RectifiedFlow.parametrization


@pytest.mark.parametrize("formulation", [FlowBetween(PLANE), ExactBetween(PLANE)], ids=lambda one: one.registered_name)
def test_who_cannot_ask_is_told_in_one_sentence(formulation: FlowBetween | ExactBetween) -> None:
    refused = {}
    for entry in samplers:
        if entry.has_defaults and issubclass(formulation.gives, entry.cls.needs):
            refused[entry.name] = formulation.refuses_sampler(entry.cls(), Flow())
    served = {name for name, reason in refused.items() if reason is None}
    assert {"euler", "heun", "rk2", "rk45"} <= served
    assert not served & {"ancestral", "langevin", "ode-encode", "churn", "sde", "gradient-ascent"}
    for name, reason in refused.items():
        assert reason is None or ("\n" not in reason and name in reason and "use euler, heun or rk45" in reason)
    for metric in metrics:
        if metric.has_defaults and metric.cls.of == "models":
            assert "between two data sets" in str(formulation.refuses_metric(metric.cls()))  # type: ignore[arg-type]
    assert "has 2 coordinates, dataset 'uniform' 1" in str(formulation.refuses_dataset(Uniform()))
    assert "at t = 1 of schedule 'flow'" in str(formulation.refuses(Flow(t_max=0.9)))


def test_an_exact_answer_needs_a_mixture_as_source_and_an_exact_target() -> None:
    assert "source 'moons' is none" in str(ExactBetween(Moons()).refuses_dataset(Moons()))
    assert ExactBetween(PLANE).refuses_dataset(StreakedMoons()) == "target 'streaked_moons' has no exact denoiser"
    assert FlowBetween(Moons()).refuses_dataset(StreakedMoons()) is None


def test_a_source_of_atoms_has_no_density_and_is_refused_before_anything_is_asked() -> None:
    """Of every registered data set: what is not refused gives finite numbers, what is says why."""
    served = set()
    for entry in datasets:
        if entry.has_defaults:
            source = entry.cls()
            target = LinearSubspace(LINE, source.dim) if source.dim > 1 else LINE
            formulation = ExactBetween(source)
            reason = formulation.refuses_dataset(target)
            if reason is None:
                served.add(entry.name)
                end, _ = sampled(formulation, target, samplers.create("euler"), 2, 5)
                assert torch.isfinite(end).all()
            else:
                assert entry.name in reason
                assert "flow-between" in reason
                assert FlowBetween(source).refuses_dataset(target) is None
    assert {"gaussian", "gaussian_mixture", "eight_gaussians"} <= served
    assert not served & {"four_points", "moons", "uniform"}
    assert "atoms have none: 'four_points'" in str(ExactBetween(FourPoints()).refuses_dataset(LINE))


def test_an_isotropic_normal_source_is_a_mixture_of_one_component() -> None:
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    one = ExactBetween(Gaussian(means=1.2, stds=0.7))
    other = ExactBetween(NORMAL)
    assert torch.equal(asked(one.model_of([LINE]), x, 0.4), asked(other.model_of([LINE]), x, 0.4))
    assert one.evaluations_each == other.evaluations_each == 1
    wide = ExactBetween(Gaussian(means=(0.0, 3.0), stds=0.5, dim=2))
    assert wide.refuses_dataset(PLANE) is None
    end, start = sampled(wide, Gaussian(dim=2), samplers.create("rk45", rtol=1e-6, atol=1e-6), 20, 2000)
    for found, mean in ((end, (0.0, 0.0)), (start, (0.0, 3.0))):  # z-tests, a false alarm in 10^6 of each
        z = (found.mean(0) - torch.tensor(mean, dtype=torch.float64)) / found.std(0) * math.sqrt(2000)
        assert z.abs().max() < 5.1
    reason = ExactBetween(Gaussian(stds=(1.0, 2.0), dim=2)).refuses_dataset(PLANE)
    assert "as wide along every axis" in str(reason)
    assert "use gaussian_mixture" in str(reason)


def test_quantiles_are_those_of_the_source_and_refused_where_it_has_none() -> None:
    subject = Subject(Uniform(), FlowBetween(LINE), Flow(), grids.create("uniform-t"), "target", 0)
    question = Question(samplers.create("euler"), 1, 5, "quantiles")
    u = LINE.cdf(start_draws(LINE, question, subject)[:, 0])
    assert torch.allclose(u, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64))
    with pytest.raises(da.WrongValue, match="start: quantiles, which the source 'eight_gaussians'"):
        start_draws(EightGaussians(), question, subject)


# --- the target of the published table ------------------------------------------------------------


def test_streaked_moons_have_the_moments_and_the_support_that_they_state() -> None:
    """z-tests of means and variances, a false alarm in 10^6 of each."""
    for target in (StreakedMoons(), StreakedMoons(1.0, 0.7, 2.0)):
        n = 20_000
        x = target.sample(n, stream("streaked"))
        z = (x.mean(0) - torch.tensor(target.mean, dtype=torch.float64)) / x.std(0) * math.sqrt(n)
        assert z.abs().max() < 4.9
        square = ((x - x.mean(0)) ** 2).mean(1)
        assert abs(float(square.mean()) - target.std**2) < 4.9 * float(square.std()) / math.sqrt(n)
        unit = (x - target.offset) / target.radius
        steps = target.streak * torch.linspace(0, 1, 400, dtype=torch.float64)[:, None, None]
        back = unit[:500] - steps  # one of these lies on an arc
        upper = (torch.linalg.vector_norm(back, dim=-1) - 1).abs() + 10 * (back[..., 1] < -1e-9)
        centre = torch.tensor([1.0, 0.5], dtype=torch.float64)
        lower = (torch.linalg.vector_norm(back - centre, dim=-1) - 1).abs() + 10 * (back[..., 1] > 0.5 + 1e-9)
        nearest = torch.minimum(upper.amin(0), lower.amin(0))
        assert float(nearest.max()) < 2 * target.streak / 400 + 1e-9


@pytest.mark.parametrize("wrong", [{"radius": 0.0}, {"streak": -1.0}, {"offset": math.inf}])
def test_streaked_moons_refuse_numbers_that_make_no_moons(wrong: dict[str, float]) -> None:
    with pytest.raises(da.WrongValue, match="needed: a positive radius"):
        StreakedMoons(**wrong)
