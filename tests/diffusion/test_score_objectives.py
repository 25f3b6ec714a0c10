"""Score matching as it is trained: losses are those of the score they imply, their minimisers the
exact ones, and members do not touch.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from diffusion.analysis.score_matching import (
    ScoreFunction,
    denoising_loss,
    fisher_divergence,
    implicit_loss,
    score_of,
    sliced_loss,
)
from diffusion.datasets import Dataset, Gaussian, GaussianMixture, Torus, Uniform, datasets
from diffusion.formulations import (
    Denoising,
    DenoisingScoreMatching,
    ImplicitScoreMatching,
    NoiseConditional,
    NoiseConditionalScore,
    SeparateScores,
    SlicedScoreMatching,
)
from diffusion.networks import Network, StackedMLP
from diffusion.networks.separate import SeparateNetworks
from diffusion.objectives import DenoisingLoss, ImplicitLoss, SeparateLoss, SingleLevel, SlicedLoss
from diffusion.objectives.base import batches_of
from diffusion.objectives.denoising import NetworkDenoiser
from diffusion.objectives.parametrizations import Circle, parametrizations
from diffusion.objectives.score_matching import InputLoss
from diffusion.randomness import stream
from diffusion.schedules import EDM, NCSN, VPLinear
from diffusion.training import Member, TrainedStack, Training, train
from diffusion.training.gradient_variance import gradient_variance
from tasks.plan import Cell, make_plan
from tasks.study import Study, StudyError
from tasks.work import stack_of
from tasks.work.stacks import to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE, CLEAN = SingleLevel(0.4), SingleLevel(0.0)
IMPLICIT: dict[str, Denoising] = {
    "exact trace": ImplicitScoreMatching(),
    "two probes": ImplicitScoreMatching(trace="hutchinson", probes=2),
    "normal probe": ImplicitScoreMatching(trace="hutchinson", law="gaussian"),
    "sliced": SlicedScoreMatching(projections=2),
    "sliced, reduced": SlicedScoreMatching(variance_reduced=True),
}
EVERY: dict[str, NoiseConditional] = {
    **IMPLICIT,
    "denoising": DenoisingScoreMatching(),
    "ncsn": NoiseConditionalScore(),
    "separate": SeparateScores(levels=3),
}
every_implicit = pytest.mark.parametrize("formulation", IMPLICIT.values(), ids=IMPLICIT.keys())
every = pytest.mark.parametrize("formulation", EVERY.values(), ids=EVERY.keys())
PLANE = Gaussian((0.3, -1.0), (1.0, 0.5), 2)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a worker trains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def member(formulation: NoiseConditional, dataset: Dataset, key: str = "one") -> Member:
    return Member(dataset, formulation, formulation.own_schedule().fitted(dataset), key)


def awake(network: Network, members: int = 1) -> Tensor:
    """Parameters of networks that do not answer zero."""
    named = network.unpack(network.initialise([stream("awake", m) for m in range(members)]))
    for name, value in named.items():
        if name.endswith(("output.weight", "output.bias")):
            value.copy_(0.5 * torch.randn(value.shape, generator=stream("awake", name)))
    return network.pack(named)


def network_score(formulation: NoiseConditional, dataset: Dataset, network: Network, rows: Tensor) -> ScoreFunction:
    """The score of a model at its one noise level, differentiable in x and in the rows."""
    one = member(formulation, dataset)
    sigma = one.schedule.t_max
    model = formulation.objective.model(network, rows, [one])
    assert isinstance(model, NetworkDenoiser)
    return score_of(model.answers, alpha=1.0, sigma=sigma)


# --- what is minimised ----------------------------------------------------------------------------


@every_implicit
@pytest.mark.parametrize("levels", [ONE, CLEAN], ids=["noised", "clean"])
@pytest.mark.parametrize("parametrization", parametrizations.names())
def test_the_loss_is_that_of_the_score_that_the_model_implies(
    formulation: Denoising, levels: SingleLevel, parametrization: str
) -> None:
    """``sigma^2`` (of clean data: std^2) times the objective point by point, plus d/2; the network
    in float32, to 2e-4.
    """
    requested = replace(formulation, noise_levels=levels, parametrization=parametrizations.create(parametrization))
    one = member(requested, PLANE)
    network = StackedMLP(2, 16, 2)
    rows = awake(network)
    examples = [part[0][None] for part in batches_of(one, PLANE.sample(200, stream("data")), 1, 40, stream("lesson"))]
    found = requested.objective.losses(network, rows, *examples)[0]
    unit = levels.sigma or PLANE.std
    alpha, sigma = 1.0, levels.sigma
    scale = math.hypot(alpha, sigma)
    into = requested.parametrization.input_scale(*_level(sigma)) if sigma else numbers(1 / PLANE.std)
    x = (examples[0][0].double() / into) * scale
    score = network_score(requested, PLANE, network, rows)
    match requested.objective:
        case ImplicitLoss(probes=None):
            expected = implicit_loss(score, x)
        case ImplicitLoss():
            expected = implicit_loss(score, x, examples[4][0].double())
        case _:
            expected = sliced_loss(score, x, examples[4][0].double())
    torch.testing.assert_close(found.double(), unit**2 * expected + 1.0, rtol=2e-4, atol=2e-3 if sigma else 2e-2)


def _level(sigma: float) -> tuple[Circle, float]:
    return Circle.at(numbers(sigma)), PLANE.std


def test_denoising_score_matching_is_the_denoising_loss_halved() -> None:
    requested = DenoisingScoreMatching(noise_levels=ONE)
    assert requested.objective == DenoisingLoss()
    one, network = member(requested, PLANE), StackedMLP(2, 16, 2)
    rows = awake(network)
    data = PLANE.sample(1, stream("one point"))  # one point, so that the noise is known from the input
    examples = [part[0][None] for part in batches_of(one, data, 1, 40, stream("lesson"))]
    c = requested.parametrization.input_scale(*_level(0.4))
    x = examples[0][0].double() / c * math.hypot(1, 0.4)
    eps = (x - data) / 0.4
    expected = 0.4**2 * denoising_loss(network_score(requested, PLANE, network, rows), data, eps, 0.4)
    found = 0.5 * requested.objective.losses(network, rows, *examples)[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@every_implicit
@pytest.mark.parametrize("target", [PLANE, Torus(), Uniform()], ids=lambda d: d.registered_name)
def test_on_noised_data_every_objective_has_the_value_of_the_denoising_one(
    formulation: Denoising, target: Dataset
) -> None:
    """At all levels of its noise distribution, for a network that is not the optimum: within 4
    standard errors of 40 000 examples each.
    """
    network = StackedMLP(target.dim, 16, 2)
    rows, data = awake(network), target.sample(20_000, stream("data"))
    values = []
    for requested in (formulation, DenoisingScoreMatching()):
        one = member(requested, target)
        examples = [
            part[0][None] for part in batches_of(one, data, 1, 40_000, stream("value", requested.registered_name))
        ]
        values.append(requested.objective.losses(network, rows, *examples)[0].detach().double())
    mine, theirs = values[0], 0.5 * values[1]
    error = math.hypot(*(float(v.std()) / math.sqrt(len(v)) for v in (mine, theirs)))
    assert abs(float(mine.mean() - theirs.mean())) <= 4 * error


@dataclass(frozen=True)
class Linear(Network):
    """``F = z W + b``, in the precision of its rows."""

    dim: int

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {"weight": (self.dim, self.dim), "bias": (1, self.dim)}

    def initialise(self, generators: object) -> Tensor:
        raise NotImplementedError

    def __call__(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:  # noqa: ARG002
        named = self.views(rows)
        return named["bias"] + z.to(rows.dtype) @ named["weight"]

    def flops(self) -> int:
        return 0


def linear_optimum(formulation: NoiseConditional, examples: list[Tensor]) -> tuple[Linear, Tensor]:
    """The linear network at which the mean loss of a batch, a quadratic function, is least: one
    Newton step in float64.
    """
    network = Linear(2)
    active = 6  # weights and biases; the rest of the row is padding
    zero = torch.zeros(1, network.size, dtype=torch.float64)

    def mean(theta: Tensor) -> Tensor:
        rows = torch.cat([theta[None], zero[:, active:]], 1)
        return formulation.objective.losses(network, rows, *(part.double() for part in examples)).mean()

    start = torch.zeros(active, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(mean, start)
    hessian = torch.autograd.functional.hessian(mean, start)
    theta = start - torch.linalg.solve(hessian, gradient)
    return network, torch.cat([theta[None], zero[:, active:]], 1)


def linear_score(formulation: NoiseConditional, dataset: Dataset, network: Network, rows: Tensor) -> Tensor:
    """A of the score ``A x + b`` of a linear model at its one level."""
    score = network_score(formulation, dataset, network, rows)
    return torch.autograd.functional.jacobian(lambda x: score(x[None])[0], torch.zeros(2, dtype=torch.float64))  # type: ignore[no-any-return]


@pytest.mark.parametrize("levels", [ONE, CLEAN], ids=["noised", "clean"])
def test_a33_the_implicit_optimum_among_linear_scores_is_minus_the_inverse_covariance_of_the_sample(
    levels: SingleLevel,
) -> None:
    """To rounding of float32 batches, whatever was drawn; at its value ``-1/2 tr S_n^-1`` in the
    units of the loss.
    """
    requested = ImplicitScoreMatching(noise_levels=levels)
    one = member(requested, PLANE)
    examples = [part[0][None] for part in batches_of(one, PLANE.sample(500, stream("d")), 1, 300, stream("l"))]
    network, rows = linear_optimum(requested, examples)
    into = requested.parametrization.input_scale(*_level(0.4)) if levels.sigma else numbers(1 / PLANE.std)
    x = examples[0][0].double() / into * math.hypot(1, levels.sigma)
    inverse = torch.linalg.inv(torch.cov(x.T, correction=0))
    a = linear_score(requested, PLANE, network, rows)
    torch.testing.assert_close(a, -inverse, rtol=0, atol=1e-4 if levels.sigma else 2e-2)
    value = float(requested.objective.losses(network, rows, *(part.double() for part in examples)).mean().detach())
    unit = levels.sigma or PLANE.std
    assert value == pytest.approx(1 - 0.5 * unit**2 * float(inverse.trace()), abs=1e-5)


@pytest.mark.parametrize("name", [*IMPLICIT, "denoising"])
def test_a33_a35_a36_every_objective_has_the_noised_score_as_its_linear_optimum(name: str) -> None:
    """``-(S + sigma^2)^-1``, S = diag(1, .25), sigma = .4, from 40 000 examples: largest error of
    any objective over 20 streams 0.066.
    """
    requested = replace(EVERY[name], noise_levels=ONE)  # type: ignore[call-arg]
    one = member(requested, PLANE)
    examples = [
        part[0][None] for part in batches_of(one, PLANE.sample(50_000, stream("d")), 1, 40_000, stream("l", name))
    ]
    network, rows = linear_optimum(requested, examples)
    a = linear_score(requested, PLANE, network, rows)
    torch.testing.assert_close(a, torch.diag(-1 / numbers(1 + 0.16, 0.25 + 0.16)), rtol=0, atol=0.1)
    assert (a - torch.diag(-1 / numbers(1.0, 0.25))).abs().max() > 1  # the score of the data is another


def test_a40_at_every_level_the_optimum_of_ncsn_is_the_exact_score() -> None:
    """Regression of its targets on its inputs level by level:
    ``sigma_i A_i = -sigma_i (S + sigma_i^2)^-1``, 5 standard errors each.
    """
    one = member(NoiseConditionalScore(), PLANE)
    levels = one.schedule.noise_levels
    n = 4000 * len(levels)
    inputs, targets, _, weights = (
        part[0].double() for part in batches_of(one, PLANE.sample(100_000, stream("d")), 1, n, stream("l"))
    )
    assert torch.equal(weights, torch.ones(n, dtype=torch.float64))  # sigma^2 on the score: none on its own target
    for k, sigma in enumerate(levels):
        rows = slice(4000 * k, 4000 * (k + 1))  # a stratified batch holds the levels in order, the noisiest first
        x = torch.cat([inputs[rows], torch.ones(4000, 1, dtype=torch.float64)], 1)
        found = torch.linalg.lstsq(x, targets[rows]).solution
        variance = numbers(1.0, 0.25) + sigma**2
        residual = (targets[rows] - x @ found).var(0)
        error = (residual[None, :] / variance[:, None] / 4000).sqrt()
        assert ((found[:2] - torch.diag(-sigma / variance)).abs() <= 5 * error).all()


# --- trained by the real loop ---------------------------------------------------------------------

QUICK = Training(steps=300, batch=128, width=32, depth=1, data=5000)


@cache
def trained_at_one_level(name: str) -> tuple[NoiseConditional, TrainedStack]:
    requested = replace(EVERY[name], noise_levels=ONE)  # type: ignore[call-arg]
    return requested, train([member(requested, PLANE, "near")], [PLANE.sample(5000, stream("d"))], QUICK)


def distance_at_one_level(stack: TrainedStack) -> float:
    """sigma^2 times the Fisher divergence, of 2000 points."""
    return 0.4**2 * fisher_divergence(score_of(stack.denoiser, 1.0, 0.4), PLANE, 0.4, stream("f"), samples=2000)[0]


@pytest.mark.parametrize("name", [*IMPLICIT, "denoising"])
def test_a32_trained_at_one_level_each_objective_comes_near_the_exact_score(name: str) -> None:
    """Fisher divergence times sigma^2, of 2000 points: largest over 12 seeds 0.0015; before
    training, the score of a round normal law.
    """
    _, stack = trained_at_one_level(name)
    assert stack.errors == (None,)
    assert distance_at_one_level(stack) < 0.004
    untrained = stack.network.initialise([stream("untrained")])
    assert distance_at_one_level(replace(stack, rows=untrained)) > 0.08


@pytest.mark.parametrize("name", [*IMPLICIT, "denoising"])
def test_a32_trained_at_one_level_each_objective_has_the_least_value_of_the_closed_form(name: str) -> None:
    """The mean of what was minimised, in its units (denoising: halved): d/2 - sigma^2/2 tr (S +
    sigma^2)^-1 = 0.7359, and above it sigma^2 times the Fisher divergence of what was learned.

    On 200 000 fresh examples, within 4.5 standard errors (for each of six objectives false alarms
    7e-6, seed fixed), which are less than 0.008; the value of an untrained network is 0.08 above.
    """
    requested, stack = trained_at_one_level(name)
    data = PLANE.sample(200_000, stream("fresh"))
    examples = [part[0][None] for part in batches_of(stack.members[0], data, 1, 200_000, stream("fresh", name))]
    share = 0.5 if name == "denoising" else 1.0
    errors = share * requested.objective.losses(stack.network, stack.rows, *examples)[0].detach().double()
    error = float(errors.std()) / math.sqrt(len(errors))
    least = 1 - 0.5 * 0.16 * (1 / 1.16 + 1 / 0.41)
    assert least == pytest.approx(0.7359, abs=1e-4)
    assert 4.5 * error < 0.008
    assert float(errors.mean()) == pytest.approx(least + distance_at_one_level(stack), abs=4.5 * error)


def test_a33_implicit_objectives_learn_the_score_of_clean_smooth_data() -> None:
    """Langevin dynamics on it is the noise-free one. Largest Fisher divergence over 12 seeds 0.020;
    a zero score has 2.5.
    """
    requested = ImplicitScoreMatching(noise_levels=CLEAN)
    stack = train([member(requested, PLANE)], [PLANE.sample(5000, stream("d"))], QUICK)
    x = PLANE.sample(2000, stream("clean"))
    exact = -(x - numbers(0.3, -1.0)) / numbers(1.0, 0.25)
    for sigma in (1e-3, 0.1, 0.7):  # the same score, whatever the level at which it is asked
        score = score_of(stack.denoiser, 1.0, sigma)(x)
        assert 0.5 * float((score - exact).square().sum(-1).mean()) < 0.06


@pytest.mark.parametrize("name", ["ncsn", "separate"])
def test_a40_noise_conditional_networks_come_near_the_exact_score_at_every_level(name: str) -> None:
    """``sigma_i^2`` times the Fisher divergence at each level of three: largest over 12 seeds
    0.0023; a zero score has 0.1 to 0.9.
    """
    requested = EVERY[name]
    schedule = NCSN(levels=3, sigma_max=2.0, sigma_min=0.2)
    one = Member(PLANE, requested, schedule, "every level")
    stack = train(
        [one], [PLANE.sample(5000, stream("d"))], Training(steps=300, batch=192, width=32, depth=1, data=5000)
    )
    assert stack.errors == (None,)
    for sigma in schedule.noise_levels:
        found, _ = fisher_divergence(
            score_of(stack.denoiser, 1.0, float(sigma)), PLANE, float(sigma), stream("f"), samples=2000
        )
        assert sigma**2 * found < 0.007


# --- stacks ---------------------------------------------------------------------------------------


def bits(stack: TrainedStack) -> dict[str, tuple[bytes, ...]]:
    """Weights, losses and denoiser outputs of every member, to the last bit."""
    dim, members = stack.members[0].dataset.dim, len(stack.members)
    x = torch.randn(37, dim, generator=stream("question"), dtype=torch.float64).expand(members, 37, dim)
    sigma = numbers(*(one.schedule.t_max for one in stack.members))
    D = stack.denoiser(x, torch.ones_like(sigma), sigma)
    return {
        one.key: tuple(part[m].numpy().tobytes() for part in (stack.rows, stack.losses, D))
        for m, one in enumerate(stack.members)
    }


@every
@pytest.mark.parametrize("dataset", [Uniform(), Torus()], ids=["line", "space"])
@pytest.mark.parametrize(("width", "depth", "batch"), [(1, 1, 1), (17, 2, 7), (33, 2, 37)], ids=str)
def test_a_members_bits_do_not_depend_on_its_stack(
    formulation: NoiseConditional, dataset: Dataset, width: int, depth: int, batch: int
) -> None:
    settings = Training(steps=6, batch=batch, width=width, depth=depth, data=500)
    schedule = NCSN(levels=3, sigma_max=1.0) if isinstance(formulation, NoiseConditionalScore) else EDM()
    members = [Member(dataset, formulation, schedule, f"seed {seed}") for seed in range(4)]
    data = dataset.sample(500, stream("bits"))
    whole = bits(train(members, [data] * 4, settings))
    assert len(set(whole.values())) == 4
    for packing in (members[:1], members[3:], members[2:0:-1]):
        assert bits(train(packing, [data] * len(packing), settings)).items() <= whole.items()


@every
def test_weights_survive_storage_to_the_last_bit(formulation: NoiseConditional) -> None:
    settings = Training(steps=3, batch=9, width=17, depth=2, data=500)
    schedule = NCSN(levels=3, sigma_max=1.0) if isinstance(formulation, NoiseConditionalScore) else EDM()
    cells = [Cell(Torus(), formulation, schedule, seed, settings) for seed in range(2)]
    members = [Member(Torus(), formulation, schedule, cell.id) for cell in cells]
    stack = train(members, [Torus().sample(500, stream("bits"))] * 2, settings)
    files = [to_bytes(stack, m) for m in range(2)]
    back = stack_of(cells, files)
    assert torch.equal(back.rows, stack.rows)
    one, other = ({key: D for key, (_, _, D) in bits(s).items()} for s in (replace(back, losses=stack.losses), stack))
    assert one == other
    assert torch.equal(stack_of(cells[1:], files[1:]).rows[0], stack.rows[1])


def test_a_member_that_fails_keeps_its_nan_to_itself() -> None:
    settings = Training(steps=6, batch=8, width=16, depth=1, data=100)
    members = [member(ImplicitScoreMatching(), Torus(), f"seed {seed}") for seed in range(3)]
    data = [Torus().sample(100, stream("sick")) for _ in members]
    healthy = bits(train(members, data, settings))
    data[1][:50] = math.nan
    sick = train(members, data, settings)
    assert [error is None for error in sick.errors] == [True, False, True]
    found = bits(sick)
    assert {key: found[key] for key in ("seed 0", "seed 2")} == {key: healthy[key] for key in ("seed 0", "seed 2")}


# --- one network for each level -------------------------------------------------------------------


def test_separate_networks_are_those_that_each_would_be_alone() -> None:
    one = StackedMLP(3, 17, 2)
    several = SeparateNetworks(one, 4)
    rows = awake(several, 2)
    z, c = torch.randn(2, 12, 3, generator=stream("z")), torch.randn(2, 12, 13, generator=stream("c"))
    found = several(rows, z, c)
    for k in range(4):
        part = slice(3 * k, 3 * (k + 1))
        alone = one(several.of_level(rows, torch.tensor([k, k])), z[:, part], c[:, part])
        assert torch.equal(found[:, part], alone)
    named = several.unpack(rows)
    assert {name: tuple(value.shape[1:]) for name, value in named.items()} == several.shapes
    assert torch.equal(several.pack(named), rows)
    assert len({named[f"{k}.hidden1.weight"].sum().item() for k in range(4)}) == 4
    with pytest.raises(ValueError, match="is not 4 equal parts"):
        several(rows, z[:, :10], c[:, :10])


def test_a_model_of_separate_networks_asks_the_one_of_the_nearest_level() -> None:
    schedule = NCSN(levels=3, sigma_max=1.0)
    one = Member(Uniform(), SeparateScores(levels=3), schedule, "nearest")
    network = SeparateLoss(count=3).network(Uniform(), Training(width=8, depth=1))
    stack = TrainedStack(
        SeparateLoss(count=3), network, (one,), awake(network), torch.zeros(1), torch.zeros(1, 1), (None,)
    )
    x = torch.randn(1, 5, 1, generator=stream("x"), dtype=torch.float64)
    for level, requested in itertools.product((0, 1, 2), (0.9, 1.0, 1.1)):
        sigma = numbers(float(schedule.noise_levels[level]) * requested)
        others = awake(network).clone()
        for k in {0, 1, 2} - {level}:
            others[:, k * network.one.size : (k + 1) * network.one.size] = 0
        D = stack.denoiser(x, numbers(1.0), sigma)
        assert torch.equal(D, replace(stack, rows=others).denoiser(x, numbers(1.0), sigma))
        assert not torch.equal(D, replace(stack, rows=torch.zeros_like(others)).denoiser(x, numbers(1.0), sigma))


def test_every_separate_network_has_an_equal_part_of_each_batch() -> None:
    one = Member(Uniform(), SeparateScores(levels=3), NCSN(levels=3, sigma_max=1.0), "parts")
    found = SeparateLoss(count=3).levels(one, 2, 7, stream("parts"))
    assert found.tolist() == [[1.0] * 3 + [0.1] * 3 + [0.01] * 3] * 2 or torch.allclose(
        found[0], numbers(*[1.0] * 3, *[0.1] * 3, *[0.01] * 3)
    )


# --- what is refused ------------------------------------------------------------------------------


@every_implicit
def test_s1_4_clean_data_are_refused_where_the_objective_has_no_lower_bound_and_noised_accepted(
    formulation: Denoising,
) -> None:
    clean = replace(formulation, noise_levels=CLEAN)
    smooth = {"gaussian", "gaussian_mixture", "eight_gaussians", "moons", "swiss_roll", "linear_subspace"}
    for entry in datasets:
        if not entry.has_defaults:
            continue
        target = entry.cls()
        reason = clean.refuses_dataset(target)
        assert (reason is None) is target.smooth
        if entry.name in smooth | {"uniform", "checkerboard", "four_points", "torus"}:
            assert target.smooth is (entry.name in smooth)
        if reason is not None:
            assert "has no lower bound" in reason
            assert "noised data are accepted" in reason
        assert formulation.refuses_dataset(target) is None
        assert replace(formulation, noise_levels=ONE).refuses_dataset(target) is None


def test_without_noise_there_is_nothing_to_denoise() -> None:
    for formulation in (DenoisingScoreMatching(noise_levels=CLEAN), Denoising(noise_levels=CLEAN)):
        assert "have none" in str(formulation.refuses(formulation.own_schedule()))
    assert ImplicitScoreMatching(noise_levels=CLEAN).refuses(CLEAN.schedule()) is None


def test_a_network_of_one_noise_level_has_a_schedule_of_that_level_and_no_other() -> None:
    requested = ImplicitScoreMatching(noise_levels=ONE)
    own = requested.own_schedule()
    assert own == EDM(0.3996, 0.4)
    assert requested.refuses(own) is None
    for schedule in (EDM(), VPLinear(), EDM(0.3, 0.4), NCSN()):
        assert schedule.registered_name in str(requested.refuses(schedule))
    assert Denoising(noise_levels=ONE).own_schedule() == own
    assert Denoising().own_schedule() == EDM()
    for nsr in (0.3996, 0.4):  # it is told nothing, so that nothing changes over the width
        assert torch.equal(
            member(requested, PLANE).condition(numbers(nsr)), member(requested, PLANE).condition(numbers(0.4))
        )


def study(**given: object) -> Study:
    return Study.from_spec(
        {
            "name": "scores",
            "datasets": ["uniform", "gaussian"],
            "formulations": ["ncsn"],
            "samplers": ["heun"],
            "steps": [2],
            "metrics": ["score-error"],
            **given,
        }
    )


def test_a_study_records_the_refusal_and_is_refused_where_nothing_is_left() -> None:
    clean = {"name": "implicit-score-matching", "noise_levels": {"name": "single", "sigma": 0.0}}
    plan = make_plan(study(formulations=[clean]), {}, [])
    found = {p.cell.dataset.registered_name: plan.impossible.get(p.id) for p in plan.points if p.cell.training}
    assert "has no lower bound for dataset 'uniform'" in str(found["uniform"])
    assert found["gaussian"] is None
    with pytest.raises(StudyError, match="can serve no dataset of the study"):
        study(formulations=[clean], datasets=["uniform", "checkerboard"])


def test_levels_are_chosen_for_each_data_set_of_a_study() -> None:
    requested = study(datasets=["uniform", {"name": "gaussian", "dim": 8}], formulations=["ncsn", "ncsn-separate"])
    found = {
        (p.cell.dataset.registered_name, p.cell.formulation.registered_name): p.cell.schedule
        for p in make_plan(requested, {}, []).points
    }
    expected = {dataset.registered_name: NCSN().fitted(dataset) for dataset in (Uniform(), Gaussian(dim=8))}
    for dataset in ("uniform", "gaussian"):
        assert found[dataset, "ncsn"] == expected[dataset]
        assert ("exact" in {name for of, name in found if of == dataset}) is True
    assert {s.max_steps for (of, name), s in found.items() if name == "ncsn-separate"} == {10}
    assert found["gaussian", "ncsn"].max_steps == 6  # the overlap rule has a solution in eight dimensions
    with pytest.raises(StudyError, match="expected at most 10"):
        study(steps=[11], datasets=["uniform"])


def test_a_schedule_with_another_number_of_levels_is_refused_by_separate_networks() -> None:
    assert "a network for each of 10 levels, and schedule 'ncsn' has 7" in str(
        SeparateScores().refuses(NCSN(levels=7, sigma_max=1.0))
    )
    assert SeparateScores(levels=7).refuses(NCSN(levels=7, sigma_max=1.0)) is None
    assert "continuous" in str(SeparateScores().refuses(EDM()))


def test_impossible_parameters_are_refused() -> None:
    for make, expected in (
        (lambda: ImplicitScoreMatching(probes=0), "probes from 1 to 4096, found 0"),
        (lambda: SlicedScoreMatching(projections=0), "projections from 1 to 4096, found 0"),
        (lambda: SeparateScores(levels=1), "2 to 100000 levels, found 1"),
        (lambda: SingleLevel(-0.1), "sigma must be 0 or"),
    ):
        with pytest.raises(ValueError, match=expected):
            make()


# --- objectives are told apart, and what they cost in variance ------------------------------------


def test_equal_programs_are_stacked_and_different_ones_are_not() -> None:
    reduced = SlicedScoreMatching(projections=3, variance_reduced=True)
    assert reduced.objective == ImplicitScoreMatching(trace="hutchinson", probes=3, law="gaussian").objective
    programs = [
        ImplicitLoss(),
        ImplicitLoss(1, "gaussian"),
        SlicedLoss(),
        SlicedLoss(2),
        DenoisingLoss(),
        SeparateLoss(),
    ]
    assert len({repr(program) for program in programs}) == len(programs)
    assert all(isinstance(program, InputLoss) for program in programs[:4])


def test_the_gradients_variance_is_that_of_the_closed_form_and_falls_with_the_batch() -> None:
    """A network with a bias alone has gradient ``2 mean (b - target)``: its variance is 4
    Var(target) / batch, here 4 / batch.

    400 gradients of 2 parameters: 5 standard errors of a variance are 25 %.
    """
    requested = replace(DenoisingScoreMatching(noise_levels=ONE), parametrization=parametrizations.create("score"))
    one, network = member(requested, PLANE), Linear(2)
    row = torch.zeros(network.size, dtype=torch.float64)
    data = PLANE.sample(2000, stream("d"))

    @dataclass(frozen=True)
    class Bias(Linear):
        @property
        def shapes(self) -> dict[str, tuple[int, int]]:
            return {"bias": (1, self.dim)}

        def __call__(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:  # noqa: ARG002
            return self.views(rows)["bias"] + 0 * z

    network = Bias(2)
    row = torch.full((network.size,), 0.3)
    for batch in (8, 64):
        found = gradient_variance(one, network, row, data, stream("g", batch), batch=batch, draws=400)
        assert found.variance == pytest.approx(4 / batch, rel=0.25)
        assert found.power == pytest.approx(4 * 0.3**2, abs=5 * 2 * 2 * 0.6 * math.sqrt(4 / batch / 800))
    with pytest.raises(ValueError, match="at least 2 draws"):
        gradient_variance(one, network, row, data, stream("g"), draws=1)


def test_a35_more_projections_lower_the_variance_of_the_gradient_towards_that_of_the_exact_trace() -> None:
    """At the weights of a trained network in four dimensions: plain 1 > 4 > 16 projections, each
    more than the exact trace.
    """
    target = Gaussian(dim=4)
    denoising = DenoisingScoreMatching(noise_levels=SingleLevel(0.5))
    one = member(denoising, target)
    data = target.sample(2000, stream("d"))
    row = train([one], [data], Training(steps=60, batch=64, width=16, depth=1, data=2000)).rows[0]
    network = StackedMLP(4, 16, 1)

    def variance(formulation: Denoising) -> float:
        requested = replace(formulation, noise_levels=SingleLevel(0.5))
        return gradient_variance(
            member(requested, target), network, row, data, stream("g"), batch=16, draws=100
        ).variance

    one_probe, four, sixteen = (variance(SlicedScoreMatching(projections=m)) for m in (1, 4, 16))
    exact = variance(ImplicitScoreMatching())
    assert one_probe > 2 * four > 2 * sixteen > 2 * exact
    extra = [value - exact for value in (one_probe, four, sixteen)]
    assert extra[0] / extra[1] == pytest.approx(4, rel=0.5)  # what the projections add falls like 1/M
    assert variance(SlicedScoreMatching(variance_reduced=True)) < one_probe


@dataclass(frozen=True)
class ShiftedOptimum(Linear):
    """The optimum at one level of data N(0, I), F = k z, and a bias, which alone is a parameter."""

    slope: float

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {"bias": (1, self.dim)}

    def __call__(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:  # noqa: ARG002
        return self.views(rows)["bias"] + self.slope * z


@pytest.mark.parametrize("d", [4, 16])
def test_a35_the_variance_of_the_sliced_gradient_grows_with_the_dimension_and_the_reduced_ones_does_not(d: int) -> None:
    """In the biases at the optimum for N(0, I), sigma = 1, where h = sigma s has variance 1/2: the
    gradient of one example is mean_j v_j (v_j'h), with variance ((d + 1)/M + 1)/2, of signs ((d -
    1)/M + 1)/2; reduced, or with the exact trace, it is h itself.

    500 gradients of d biases: within 20 %, more than four standard errors (seed fixed).
    """
    target, network = Gaussian(dim=d), ShiftedOptimum(d, -0.5)
    data, row = target.sample(20_000, stream("grows", d)), torch.zeros(network.size, dtype=torch.float64)
    expected: dict[Denoising, float] = {
        SlicedScoreMatching(): (d + 2) / 2,
        SlicedScoreMatching(projections=4): (d + 5) / 8,
        SlicedScoreMatching(law="rademacher"): d / 2,
        SlicedScoreMatching(variance_reduced=True): 0.5,
        ImplicitScoreMatching(trace="hutchinson"): 0.5,
        ImplicitScoreMatching(): 0.5,
    }
    for formulation, value in expected.items():
        requested = replace(
            formulation, noise_levels=SingleLevel(1.0), parametrization=parametrizations.create("score")
        )
        found = gradient_variance(member(requested, target), network, row, data, stream("g", d), batch=16, draws=500)
        assert 16 * found.variance == pytest.approx(value, rel=0.2), formulation.label()


def test_a35_of_a_trained_network_the_reduction_is_worth_more_the_more_dimensions_there_are() -> None:
    """Plain over reduced variance of the gradient at the weights of a network near its optimum:
    about 3.5 in 4 dimensions and 13 in 16.
    """
    worth = {}
    for d in (4, 16):
        target = Gaussian(dim=d)
        data = target.sample(5000, stream("d"))
        near = member(DenoisingScoreMatching(noise_levels=SingleLevel(1.0)), target)
        stack = train([near], [data], Training(steps=150, batch=64, width=32, depth=1, data=5000))
        plain, reduced = (
            gradient_variance(
                member(SlicedScoreMatching(variance_reduced=reduce, noise_levels=SingleLevel(1.0)), target),
                stack.network,
                stack.rows[0],
                data,
                stream("g"),
                batch=16,
                draws=200,
            ).variance
            for reduce in (False, True)
        )
        worth[d] = plain / reduced
    assert 2 < worth[4] < 6
    assert 9 < worth[16] < 18


def test_a_mixture_at_one_level_is_learned_by_signs_as_by_the_trace() -> None:
    """On the line a sign squared is one: Hutchinson's trace with signs is the exact one, to the
    rounding of float32.
    """
    target = GaussianMixture()
    losses = []
    for requested in (
        ImplicitScoreMatching(noise_levels=ONE),
        ImplicitScoreMatching(noise_levels=ONE, trace="hutchinson"),
    ):
        one, network = member(requested, target), StackedMLP(1, 16, 2)
        examples = [part[0][None] for part in batches_of(one, target.sample(100, stream("d")), 1, 50, stream("l"))]
        losses.append(requested.objective.losses(network, awake(network), *examples).detach())
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
