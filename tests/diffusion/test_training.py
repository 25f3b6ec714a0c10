"""Training: the right loss at the right noise levels, and members of a stack that do not touch."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffusion.datasets import Dataset, EightGaussians, Gaussian, Torus, Uniform
from diffusion.formulations import (
    DDPM,
    VE,
    VP,
    ElucidatedDM,
    Exact,
    ImprovedDDPM,
    NoiseConditional,
    Trained,
    formulations,
)
from diffusion.networks import StackedMLP
from diffusion.objectives import DenoisingLoss, stratified
from diffusion.objectives.base import batches_of
from diffusion.objectives.parametrizations import Circle
from diffusion.randomness import stream
from diffusion.schedules import EDM, IDDPM, DDPMLinear, VELinear, VPLinear, schedules
from diffusion.training import Member, TrainedStack, Training, train
from tasks.plan import Cell
from tasks.work import stack_of
from tasks.work.stacks import to_bytes
from tests.diffusion.taught import examples, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TRAINED: dict[str, NoiseConditional] = {
    entry.name: made
    for entry in formulations
    if entry.has_defaults and isinstance(made := entry.cls(), NoiseConditional) and made.objective == DenoisingLoss()
}
every_formulation = pytest.mark.parametrize("formulation", TRAINED.values(), ids=TRAINED.keys())


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a worker trains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def member(formulation: NoiseConditional, key: str = "", dataset: Dataset | None = None) -> Member:
    return Member(dataset or Uniform(), formulation, formulation.own_schedule(), key or formulation.registered_name)


def training_set(dataset: Dataset, n: int = 2000) -> Tensor:
    return dataset.sample(n, stream("test-training", dataset.spec()))


# --- noise levels ---------------------------------------------------------------------------------


def test_a_batch_has_one_number_in_each_stratum() -> None:
    for batch in (1, 7, 512):
        u = stratified(20, batch, stream("strata"))
        assert u.shape == (20, batch)
        assert torch.equal((u * batch).floor(), torch.arange(batch, dtype=torch.float64).expand(20, -1))
        assert (u < 1).all()


def vp_time(sigma: np.ndarray) -> np.ndarray:
    """sigma^-1 of Table 1, from e^(9.95 t^2 + 0.1 t) = sigma^2 + 1."""
    return np.asarray((-0.1 + np.sqrt(0.01 + 4 * 9.95 * np.log1p(sigma**2))) / (2 * 9.95))


# distribution functions of the continuous columns of Table 1
DISTRIBUTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "vp": lambda sigma: np.clip((vp_time(sigma) - 1e-5) / (1 - 1e-5), 0, 1),
    "ve": lambda sigma: np.clip(np.log(sigma / 0.02) / np.log(100 / 0.02), 0, 1),
    "edm": lambda sigma: np.asarray(norm.cdf((np.log(sigma) + 1.2) / 1.2)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_training_noise_has_the_law_of_table_1(name: str) -> None:
    """KS of independent draws: false alarms 1e-3 each, with a fixed seed. A stratified batch is
    within 1/batch.
    """
    formulation = TRAINED[name]
    u = torch.rand(20_000, generator=stream("law", name), dtype=torch.float64)
    sigma = formulation.noise_levels.quantile(u, formulation.own_schedule()).numpy()
    assert kstest(sigma, DISTRIBUTIONS[name]).pvalue > 1e-3
    batch = formulation.noise_levels.quantile(stratified(1, 512, stream("law", name)), formulation.own_schedule())
    assert kstest(batch[0].numpy(), DISTRIBUTIONS[name]).statistic <= 1 / 512 + 1e-9


@pytest.mark.parametrize(
    ("formulation", "levels"),
    [
        (ImprovedDDPM(), np.sort(IDDPM().noise_levels)),
        (DDPM(), np.sqrt(1 / np.cumprod(1 - np.linspace(1e-3, 0.2, 100)) - 1)),
    ],
    ids=["iddpm", "ddpm"],
)
def test_discrete_formulations_train_on_each_of_their_levels_equally_often(
    formulation: NoiseConditional, levels: np.ndarray
) -> None:
    """A batch of three times the number of levels holds each level three times."""
    u = stratified(1, 3 * len(levels), stream("levels"))
    sigma = np.sort(formulation.noise_levels.quantile(u, formulation.own_schedule())[0].numpy())
    np.testing.assert_allclose(sigma, np.repeat(levels, 3), rtol=1e-11)


@every_formulation
def test_noise_levels_are_positive_and_finite_at_the_ends_of_the_unit_interval(formulation: NoiseConditional) -> None:
    u = numbers(0.0, 1e-300, 0.5, 1 - 2.0**-53)
    sigma = formulation.noise_levels.quantile(u, formulation.own_schedule())
    assert torch.isfinite(sigma).all()
    assert (sigma > 0).all()


def test_noise_labels_are_those_of_table_1() -> None:
    sigma = torch.logspace(-2, 1.9, 50, dtype=torch.float64)
    np.testing.assert_allclose(VP().c_noise(sigma, VPLinear()), 999 * vp_time(sigma.numpy()), rtol=1e-11)
    np.testing.assert_allclose(VE().c_noise(sigma, VELinear()), np.log(sigma.numpy() / 2), rtol=1e-12)
    np.testing.assert_allclose(ElucidatedDM().c_noise(sigma, EDM()), np.log(sigma.numpy()) / 4, rtol=1e-12)
    u = IDDPM().noise_levels
    nearest = [999 - int(np.abs(u - value).argmin()) for value in sigma.tolist()]
    assert ImprovedDDPM().c_noise(sigma, IDDPM()).tolist() == nearest
    assert ImprovedDDPM().c_noise(torch.as_tensor(u), IDDPM()).tolist() == list(range(999, -1, -1))
    chain, k = DDPMLinear(), torch.arange(1, 101, dtype=torch.float64)
    torch.testing.assert_close(DDPM().c_noise(chain.nsr(k), chain), k, rtol=1e-11, atol=0)


@every_formulation
def test_an_example_is_data_plus_noise_of_its_level_and_the_answer_to_it(formulation: NoiseConditional) -> None:
    """Unit noise at every level would not do: the noise in an input is as large as its level says
    (5 sd of 2000).
    """
    taught, batch = member(formulation), 2000
    data = torch.full((3, 1), 0.3, dtype=torch.float64)
    inputs, targets, conditions, weights = batches_of(taught, data, 1, batch, stream("lesson"))
    assert all(part.dtype == torch.float32 for part in (inputs, targets, conditions, weights))
    assert inputs.shape == targets.shape == (1, batch, 1)
    levels = formulation.noise_levels.quantile(stratified(1, batch // 8, stream("lesson")), taught.schedule)[0]
    nsr = levels.repeat_interleave(8)  # eight examples share a level
    level = Circle.at(nsr)
    c = taught.coefficients(level)
    z = inputs[0, :, 0].double() / c.c_in
    eps = (z - 0.3 * level.a) / level.b
    large = nsr > 1e-2  # below, float32 inputs have rounded the noise away
    assert float(eps[large].var()) == pytest.approx(1, abs=5 * math.sqrt(2 / int(large.sum())))
    answer = c.c_skip * z + c.c_out * targets[0, :, 0].double()
    if formulation.noise_target.refinement == 3:  # otherwise the target is right in the mean only
        assert ((answer - 0.3).abs() <= 1e-6 * (1 + c.c_skip.abs() + c.c_out.abs())).all()
    expected = formulation.weighting.on_target(nsr, c, taught.schedule, taught.dataset.std)
    torch.testing.assert_close(weights[0], expected.float())
    torch.testing.assert_close(conditions[0], taught.condition(levels).float())


@every_formulation
def test_noise_labels_reach_the_network_between_minus_one_and_one(formulation: NoiseConditional) -> None:
    taught = member(formulation)
    ends = taught.schedule.nsr(numbers(taught.schedule.t_min, taught.schedule.t_max))
    assert taught.condition(ends)[:, 0].abs().tolist() == pytest.approx([1, 1], abs=1e-9)
    inner = taught.schedule.nsr(numbers(math.sqrt(taught.schedule.t_min * taught.schedule.t_max)))
    assert taught.condition(inner)[:, 0].abs() < 1


@every_formulation
def test_formulations_refuse_schedules_they_are_not_defined_on_and_say_why(formulation: NoiseConditional) -> None:
    assert formulation.refuses(formulation.own_schedule()) is None
    accepted = {
        "vp": {"vp-linear"},
        "ddpm": {"ddpm-linear"},
        "iddpm": {"iddpm"},
    }.get(formulation.registered_name)
    for entry in schedules:
        reason = formulation.refuses(entry.cls())
        if accepted is not None and entry.name in {"vp-linear", "ddpm-linear", "iddpm", "ve-linear", "edm"}:
            assert (reason is None) is (entry.name in accepted)
        assert reason is None or entry.name in reason


def test_exact_is_built_on_the_schedule_it_is_given() -> None:
    assert Exact().own_schedule() == EDM()
    assert Exact(DDPMLinear(levels=1000)).own_schedule() == DDPMLinear(levels=1000)
    with pytest.raises(ValueError, match="p_std must be positive"):
        ElucidatedDM(p_std=0.0)


# --- the floor of the loss ------------------------------------------------------------------------


def mean_posterior_variance(sigma: Tensor, target: Uniform) -> Tensor:
    """E Var[x_0 | x_0 + sigma eps] for each sigma, by quadrature over x: the loss of the ideal
    denoiser.
    """
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(400))
    half, centre = 0.5 * (target.high - target.low), 0.5 * (target.low + target.high)
    inner = (half - 10 * sigma).clamp(min=0)  # up to here the posterior is normal; beyond, both sides are alike
    width = half + 10 * sigma - inner
    x = (centre + inner + 0.5 * width * (1 + nodes[:, None])).T[..., None]
    one, level = torch.ones_like(x[..., 0]), sigma[:, None].expand(x.shape[:-1])
    loss = target.log_density(x, one, level).exp() * target.posterior_variance(x, one, level)
    return loss @ weights * width + sigma**2 * inner / half


def edm_floor(target: Uniform, sigma_data: float) -> float:
    """E lambda mmse over ln sigma ~ N(-1.2, 1.2^2), Gauss-Hermite."""
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.hermite_e.hermegauss(80))
    sigma = torch.exp(-1.2 + 1.2 * nodes)
    loss = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2 * mean_posterior_variance(sigma, target)
    return float(loss @ weights) / math.sqrt(2 * math.pi)


def ddpm_floor(levels: int) -> float:
    square = torch.as_tensor(np.cumprod(1 - np.linspace(1e-4, 0.02, levels) * 1000 / levels))
    sigma = torch.sqrt((1 - square) / square)
    return float((mean_posterior_variance(sigma, Uniform()) / sigma**2).mean())


def test_irreducible_losses_are_those_of_the_reference() -> None:
    assert ddpm_floor(100) == pytest.approx(0.106052, abs=2e-6)
    assert ddpm_floor(1000) == pytest.approx(0.107417, abs=2e-6)
    assert edm_floor(Uniform(), 0.5) == pytest.approx(0.631375, abs=2e-6)
    wide = math.sqrt(3) / 2
    assert edm_floor(Uniform(-wide, wide), 0.5) == pytest.approx(0.957678, abs=2e-6)


@pytest.fixture(scope="module")
def taught() -> TrainedStack:
    """Two small networks, trained long enough to be good."""
    torch.set_num_threads(1)
    members = [member(DDPM()), member(ElucidatedDM())]
    data = [training_set(Uniform(), 50_000)] * 2
    return train(members, data, Training(steps=1500, batch=256, width=64, depth=2))


def fresh_losses(stack: TrainedStack, m: int, n: int) -> tuple[Tensor, Tensor]:
    """The loss of member m and of the ideal denoiser for `n` examples that neither has seen."""
    taught = stack.members[m]
    generator = stream("fresh", m)
    data = Uniform().sample(n, generator)
    inputs, targets, conditions, weights = (part[0] for part in batches_of(taught, data, 1, n, stream("lessons", m)))
    with torch.no_grad():
        answer = stack.network(stack.rows[m : m + 1], inputs[None], conditions[None])[0]
    assert isinstance(taught.formulation, NoiseConditional)
    levels = taught.formulation.noise_levels.quantile(stratified(1, n // 8, stream("lessons", m)), taught.schedule)[0]
    nsr = levels.repeat_interleave(8)
    level = Circle.at(nsr)
    c = taught.coefficients(level)
    z = inputs[:, 0].double() / c.c_in
    D = Uniform().denoise(z[:, None, None], level.a[:, None], level.b[:, None])[:, 0, 0]
    ideal = (D - c.c_skip * z) / c.c_out
    return weights * (answer - targets).square()[:, 0], weights * (ideal - targets[:, 0].double()).square()


@pytest.mark.parametrize("m", [0, 1], ids=["ddpm", "edm"])
def test_trained_loss_lies_above_the_irreducible_one_and_within_five_percent(taught: TrainedStack, m: int) -> None:
    """On 400 000 fresh examples: the ideal denoiser has the floor of the quadrature (4.5 standard
    errors, 7e-6), the network is worse than the ideal denoiser on the same examples, by less than 5
    %.
    """
    n = 400_000
    floor = ddpm_floor(100) if m == 0 else edm_floor(Uniform(), Uniform().std)
    assert taught.errors == (None, None)
    network, ideal = fresh_losses(taught, m, n)
    assert abs(float(ideal.mean()) - floor) <= 4.5 * float(ideal.std()) / math.sqrt(n)
    assert float(ideal.mean()) < float(network.mean()) < float(ideal.mean()) + 0.05 * floor
    late = float(taught.losses[m, -8:].mean())
    assert late == pytest.approx(floor, rel=0.10)  # the loss as training tells it, over 48 000 examples


def test_the_trained_denoiser_is_close_to_the_exact_one(taught: TrainedStack) -> None:
    for sigma in (0.1, 0.3, 1.0):
        x = Uniform().sample(2000, stream("close")) + sigma * torch.randn(
            2000, 1, generator=stream("close, noise"), dtype=torch.float64
        )
        level = [numbers(1.0, 1.0), numbers(sigma, sigma)]
        D = taught.denoiser(torch.stack([x, x]), *level)
        exact = Uniform().denoise(x, torch.ones(1, dtype=torch.float64), numbers(sigma))
        assert float((D - exact).square().mean().sqrt()) < 0.03


# --- stacks ---------------------------------------------------------------------------------------


def bits(stack: TrainedStack) -> dict[str, tuple[bytes, bytes, bytes]]:
    """Weights, losses and denoiser outputs of every member, to the last bit."""
    dim, members = stack.members[0].dataset.dim, len(stack.members)
    x = torch.randn(37, dim, generator=stream("question"), dtype=torch.float64).expand(members, 37, dim)
    schedules_ = [member.schedule for member in stack.members]
    t = [numbers(math.sqrt(schedule.t_min * schedule.t_max)) for schedule in schedules_]
    alpha = torch.cat([schedule.alpha(u) for schedule, u in zip(schedules_, t, strict=True)])
    sigma = torch.cat([schedule.sigma(u) for schedule, u in zip(schedules_, t, strict=True)])
    D = stack.denoiser(x, alpha, sigma)
    return {
        member.key: tuple(part[m].numpy().tobytes() for part in (stack.rows, stack.losses, D))  # type: ignore[misc]
        for m, member in enumerate(stack.members)
    }


def trained(members: Sequence[Member], settings: Training, poisoned: str = "") -> TrainedStack:
    data = [training_set(member.dataset, 500) for member in members]
    for one, samples in zip(members, data, strict=True):
        if one.key == poisoned:
            samples[7] = math.nan
    return train(members, data, settings)


@pytest.mark.parametrize("dataset", [Uniform(), Torus()], ids=["line", "space"])
@pytest.mark.parametrize(
    ("width", "depth", "batch"), [(1, 1, 1), (17, 2, 7), (33, 3, 37), (64, 1, 64), (31, 2, 129)], ids=str
)
def test_a_members_bits_do_not_depend_on_its_stack(dataset: Dataset, width: int, depth: int, batch: int) -> None:
    settings = Training(steps=12, batch=batch, width=width, depth=depth, data=500)
    members = [
        member(formulation, f"{name} {seed}", dataset) for name, formulation in TRAINED.items() for seed in (0, 1)
    ]
    whole = bits(trained(members, settings))
    assert len(set(whole.values())) == len(members)
    for one in members[::3]:
        assert bits(trained([one], settings))[one.key] == whole[one.key]
    for packing in (members[::-1], members[2:5], members[4:6] + members[:1]):
        assert bits(trained(packing, settings)).items() <= whole.items()


@pytest.mark.parametrize("cached", [1, 2**16, 2**30])
def test_a_members_bits_do_not_depend_on_how_many_step_together(monkeypatch: pytest.MonkeyPatch, cached: int) -> None:
    settings = Training(steps=6, batch=37, width=33, depth=2, data=500)
    members = [member(formulation) for formulation in TRAINED.values()]
    usual = bits(trained(members, settings))
    monkeypatch.setattr("diffusion.training.loop._CACHED", cached)
    assert bits(trained(members, settings)) == usual


def test_a_networks_answers_do_not_depend_on_how_many_points_are_asked_at_once() -> None:
    network = StackedMLP(1, 33, 2)
    rows = torch.randn(3, network.size, generator=stream("rows"))
    z, c = torch.randn(3, 1001, 1, generator=stream("z")), torch.randn(3, 1, 13, generator=stream("c"))
    with torch.no_grad():
        whole = network(rows, z, c)
        for at_once in (64, 192, 512):
            assert torch.equal(torch.cat([network(rows, part, c) for part in z.split(at_once, 1)], 1), whole)
    assert [network.points_at_once(members) for members in (1, 32, 10**6)] == [2048, 512, 64]


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 7, 8, 12, 33, 64])
@pytest.mark.parametrize(("width", "depth", "batch"), [(17, 2, 7), (100, 3, 33), (1, 1, 1)], ids=str)
def test_outputs_and_gradients_of_a_member_do_not_depend_on_its_stack(
    dim: int, width: int, depth: int, batch: int
) -> None:
    network = StackedMLP(dim, width, depth)
    rows = network.initialise([stream("member", m) for m in range(9)])
    named = network.unpack(rows)
    named["output.weight"].normal_(generator=stream("output"))
    rows = network.pack(named)
    z = torch.randn(9, batch, dim, generator=stream("z"))
    c = torch.randn(9, batch, 13, generator=stream("c"))

    def answer(members: list[int]) -> tuple[Tensor, Tensor]:
        weights = rows[members].clone().requires_grad_()
        out = network(weights, z[members], c[members])
        out.square().sum().backward()
        assert weights.grad is not None
        return out.detach(), weights.grad

    whole = answer(list(range(9)))
    for members in ([0], [7], [8, 3], [5, 4, 3, 2, 1]):
        for found, among_all in zip(answer(members), whole, strict=True):
            assert torch.equal(found, among_all[members])


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize(("dim", "width", "depth"), [(1, 17, 2), (3, 33, 3), (5, 8, 1)], ids=str)
def test_what_a_network_is_fitted_with_is_its_answer_and_the_derivative_of_it(
    dim: int, width: int, depth: int, groups: int
) -> None:
    """In float64, beside autograd and beside differences; padding has no gradient."""
    network = StackedMLP(dim, width, depth)
    numbers = torch.randn(2, network.size, generator=stream("fit"), dtype=torch.float64) * 0.3
    rows = network.pack(network.unpack(numbers.float())).double().requires_grad_()
    z = torch.randn(2, 12, dim, generator=stream("fit, z"), dtype=torch.float64)
    c = torch.randn(2, groups, 13, generator=stream("fit, c"), dtype=torch.float64)
    torch.testing.assert_close(network.fit(rows, z, c), network(rows, z, c), rtol=1e-12, atol=1e-12)
    along = torch.randn(z.shape, generator=stream("fit, along"), dtype=torch.float64)

    def slope(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad((answer(rows, z, c) * along).sum(), rows)[0]

    named = network.unpack(slope(network.fit))
    torch.testing.assert_close(slope(network.fit), slope(network), rtol=1e-12, atol=1e-12)
    assert torch.equal(slope(network.fit) != 0, network.pack({k: v.float() for k, v in named.items()}) != 0)
    v = torch.randn(rows.shape, generator=stream("fit, v"), dtype=torch.float64) * (rows != 0)
    with torch.no_grad():
        up, down = ((network.fit(rows + h * v, z, c) * along).sum() for h in (1e-5, -1e-5))
    torch.testing.assert_close((slope(network.fit) * v).sum(), (up - down) / 2e-5, rtol=1e-6, atol=1e-8)


def test_two_answers_that_are_fitted_at_once_do_not_share_memory() -> None:
    network = StackedMLP(1, 16, 2)
    rows = network.initialise([stream("twice")]).requires_grad_()
    (first, second), c = torch.randn(2, 1, 8, 1, generator=stream("z")), torch.randn(1, 2, 13, generator=stream("c"))

    def loss(z: Tensor) -> Tensor:
        return (network.fit(rows, z, c) - 1).square().sum()

    together = torch.autograd.grad(loss(first) + loss(second), rows)[0]
    apart = [torch.autograd.grad(loss(z), rows)[0] for z in (first, second)]
    torch.testing.assert_close(together, apart[0] + apart[1])
    once = loss(first)
    torch.autograd.grad(once, rows, retain_graph=True)
    with pytest.raises(RuntimeError, match="is given once"):
        torch.autograd.grad(once, rows)


@pytest.mark.parametrize(("dim", "width", "depth", "batch"), [(1, 17, 2, 24), (3, 100, 3, 64), (5, 1, 1, 8)], ids=str)
@pytest.mark.parametrize("shared", [1, 2, 8])
def test_what_a_member_is_fitted_with_does_not_depend_on_its_stack(
    dim: int, width: int, depth: int, batch: int, shared: int
) -> None:
    network = StackedMLP(dim, width, depth)
    rows = torch.randn(9, network.size, generator=stream("fitted"))
    z = torch.randn(9, batch, dim, generator=stream("z"))
    c = torch.randn(9, batch // shared, 13, generator=stream("c"))

    def answer(members: list[int]) -> tuple[Tensor, Tensor]:
        weights = rows[members].clone().requires_grad_()
        out = network.fit(weights, z[members], c[members])
        return out.detach(), torch.autograd.grad(out.square().sum(), weights)[0]

    whole = answer(list(range(9)))
    for members in ([0], [7], [8, 3], [5, 4, 3, 2, 1]):
        for found, among_all in zip(answer(members), whole, strict=True):
            assert torch.equal(found, among_all[members])


def test_a_denoisers_bits_do_not_depend_on_the_selection_asked() -> None:
    settings = Training(steps=3, batch=5, width=19, depth=2, data=500)
    stack = trained([member(formulation) for formulation in TRAINED.values()], settings)
    whole = bits(stack)
    for chosen in ([0], [3, 1], [4, 2, 0], list(range(5))):
        assert bits(stack.select(chosen)).items() <= whole.items()


def test_a_member_with_nan_in_its_data_keeps_it_to_itself_and_is_reported() -> None:
    settings = Training(steps=40, batch=64, width=17, depth=2, data=500)
    members = [member(formulation) for formulation in TRAINED.values()]
    healthy = bits(trained(members, settings))
    sick = trained(members, settings, poisoned="ve")
    at = list(TRAINED).index("ve")
    others = [m for m in range(len(members)) if m != at]
    assert torch.isnan(sick.rows[at]).any()
    assert torch.isfinite(sick.rows[others]).all()
    found = bits(sick)
    assert {key: found[key] for key in TRAINED if key != "ve"} == {key: healthy[key] for key in TRAINED if key != "ve"}
    assert [m for m, error in enumerate(sick.errors) if error is not None] == [at]
    assert "the loss is not finite by step" in str(sick.errors[at])
    assert "lower training.learning_rate" in str(sick.errors[at])


def test_an_absurd_learning_rate_is_reported_for_every_member() -> None:
    settings = Training(steps=40, batch=32, width=16, depth=2, data=500, learning_rate=1e6)
    stack = trained([member(VP()), member(ElucidatedDM())], settings)
    assert all(error is not None and "training diverged" in error for error in stack.errors)


def test_training_again_gives_the_same_bits() -> None:
    settings = Training(steps=20, batch=16, width=24, depth=2, data=500)
    first, again = (trained([member(VP()), member(VE())], settings) for _ in range(2))
    assert bits(first) == bits(again)


def test_members_of_different_dimensions_are_refused() -> None:
    members = [member(VP()), member(VP(), "torus", Torus())]
    with pytest.raises(ValueError, match=r"data of one dimension, found \[1, 3\]"):
        trained(members, Training(steps=2))


def test_progress_counts_the_steps_to_the_end() -> None:
    found: list[int] = []
    means: list[torch.Tensor] = []
    settings = Training(steps=100, batch=2, width=4, depth=1)

    def heard(step: int, losses: torch.Tensor) -> None:
        found.append(step)
        means.append(losses)

    stack = train([member(VP())], [training_set(Uniform(), 10)], settings, heard)
    assert found == stack.loss_steps.tolist()
    torch.testing.assert_close(torch.stack(means, 1), stack.losses, rtol=0, atol=0)
    assert found[-1] == 100
    assert len(found) == 64
    assert stack.losses.shape == (1, 64)
    brief = train([member(VP())], [training_set(Uniform(), 10)], Training(steps=3, batch=2, width=4, depth=1))
    assert brief.loss_steps.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"training.ema must lie in \(0, 1\], found 0"):
        Training(ema=0.0)


# --- what is stored -------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [Uniform(), Torus()], ids=["line", "space"])
@pytest.mark.parametrize(("width", "depth"), [(1, 1), (17, 2), (32, 3), (33, 4)])
def test_weights_survive_storage_to_the_last_bit(dataset: Dataset, width: int, depth: int) -> None:
    settings = Training(steps=5, batch=9, width=width, depth=depth, data=500)
    cells = [
        Cell(dataset, formulation, formulation.own_schedule(), seed, settings)
        for formulation in (VP(), ElucidatedDM())
        for seed in (0, 1)
    ]
    stack = trained(
        [Member(cell.dataset, TRAINED[cell.formulation.registered_name], cell.schedule, cell.id) for cell in cells],
        settings,
    )
    files = [to_bytes(stack, m) for m in range(len(cells))]
    back = stack_of(cells, files)
    assert torch.equal(back.rows, stack.rows)
    one = {key: (weights, D) for key, (weights, _, D) in bits_without_losses(back).items()}
    assert one == {key: (weights, D) for key, (weights, _, D) in bits(stack).items()}
    assert [to_bytes(back, m) for m in range(len(cells))] == files
    assert torch.equal(stack_of(cells[2:3], files[2:3]).rows[0], stack.rows[2])


def bits_without_losses(stack: TrainedStack) -> dict[str, tuple[bytes, bytes, bytes]]:
    rows = torch.zeros(len(stack.members), 1)
    return bits(
        TrainedStack(stack.objective, stack.network, stack.members, stack.rows, torch.zeros(1), rows, stack.errors)
    )


@pytest.mark.parametrize(("width", "depth"), [(1, 1), (17, 2), (33, 3)])
def test_padded_units_are_zero_and_stay_zero(width: int, depth: int) -> None:
    stack = trained(
        [member(formulation) for formulation in TRAINED.values()],
        Training(steps=15, batch=8, width=width, depth=depth, data=500),
    )
    network = stack.network
    named = network.unpack(stack.rows)
    assert {name: tuple(value.shape[1:]) for name, value in named.items()} == network.shapes
    assert torch.equal(network.pack(named), stack.rows)  # packing writes zeros into everything that is padded
    counted = sum(math.prod(shape) for shape in network.shapes.values())
    assert counted < network.size
    assert int((stack.rows != 0).sum(1).max()) <= counted


def test_the_padded_network_is_the_formula_of_its_docstring() -> None:
    """Written out in float64 from the named arrays."""
    network = StackedMLP(dim=3, width=21, depth=3)
    rows = network.initialise([stream("formula", m) for m in range(2)])
    named = network.unpack(rows)
    for m in range(2):  # an output of zero at the start would compare nothing
        named["output.weight"][m] = torch.randn(21, 3, generator=stream("formula, out", m))
    for name, value in named.items():
        if name.endswith("bias"):
            value.copy_(torch.randn(value.shape, generator=stream("formula", name)))
    rows = network.pack(named)
    z = torch.randn(2, 11, 3, generator=stream("formula, z"))
    p = {name: value.double() for name, value in network.unpack(rows).items()}

    def silu(h: Tensor) -> Tensor:
        return h / (1 + torch.exp(-h))

    def formula(c: Tensor) -> Tensor:
        e = silu(c @ p["embed.weight"] + p["embed.bias"])
        h = z.double() @ p["input.weight"] + p["input.bias"] + e @ p["shift.weight"]
        h = silu(h * (1 + e @ p["gain0.weight"] + p["gain0.bias"]))
        for layer in (1, 2):
            h = h @ p[f"hidden{layer}.weight"] + p[f"hidden{layer}.bias"]
            h = silu(h * (1 + e @ p[f"gain{layer}.weight"] + p[f"gain{layer}.bias"]))
        return h @ p["output.weight"] + p["output.bias"]

    for labels in (11, 1):  # one for each point, as in training, and one for all, as in sampling
        c = torch.randn(2, labels, 13, generator=stream("formula, c"))
        expected = formula(c.double())
        scale = float(expected.abs().max())
        torch.testing.assert_close(network(rows, z, c).double(), expected, rtol=0, atol=2e-6 * scale)
        with torch.no_grad():
            torch.testing.assert_close(network(rows, z, c).double(), expected, rtol=0, atol=2e-6 * scale)


def test_an_untrained_network_answers_zero() -> None:
    """So that the denoiser of `edm` starts as c_skip y, the best linear guess for centred data of
    that deviation.
    """
    network = StackedMLP(1, 20, 2)
    rows = network.initialise([stream("zero")])
    z, c = torch.randn(1, 5, 1, generator=stream("z")), torch.randn(1, 1, 13, generator=stream("c"))
    assert torch.equal(network(rows, z, c), torch.zeros(1, 5, 1))


def test_the_seed_of_a_stream_is_the_hash_of_its_name() -> None:
    """Part of every stored result: if this fails, results of before and after are not of the same
    experiment.
    """
    digest = hashlib.sha256(b"sample\x1funiform\x1f0").digest()
    assert stream("sample", "uniform", 0).initial_seed() == int.from_bytes(digest[:8], "big") >> 1
    state = torch.get_rng_state()
    trained([member(VP())], Training(steps=2, batch=4, width=8, depth=1))
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is never touched


# --- what planning says of the work ---------------------------------------------------------------


def multiplications(formulation: Trained, dataset: Dataset, settings: Training) -> float:
    """Those of one step's matrix products, in units of the network's own."""
    taught = Member(dataset, formulation, formulation.own_schedule().fitted(dataset), "passes")
    network = formulation.network(dataset, settings)
    rows = network.initialise([stream("init", taught.key)]).requires_grad_()
    data = examples(formulation, dataset, 100, stream("passes"))
    batch = batches_of(taught, data, 1, settings.batch, stream("train", taught.key))
    with FlopCounterMode(display=False) as counted:
        formulation.objective.losses(network, rows, *batch).mean(1).sum().backward()
    return float(counted.get_total_flops() / network.flops())


@pytest.mark.parametrize("dim", [2, 8])
@pytest.mark.parametrize("name", [e.name for e in formulations if e.has_defaults and isinstance(e.cls(), Trained)])
def test_the_work_that_is_planned_for_a_step_is_what_a_step_multiplies(name: str, dim: int) -> None:
    """Beside a denoising network's, within a factor of 2.5: derivatives of the input have costs
    that no product shows.
    """
    formulation, settings = formulations.create(name), Training(steps=1, batch=64, width=32, depth=3)
    assert isinstance(formulation, Trained)
    dataset: Dataset = Gaussian(dim=dim) if dim > 2 else EightGaussians()
    dataset = served(formulation, dataset, EightGaussians())
    plain = multiplications(ElucidatedDM(), dataset, settings)
    found = multiplications(formulation, dataset, settings) / plain
    assert found / 2.5 < formulation.objective.passes(dataset.dim) < found * 2.5


def test_adam_is_torchs_to_the_last_bit_and_loads_no_compiler() -> None:
    code = """
import sys, torch
from diffusion.training.adam import Adam

g = torch.Generator().manual_seed(0)
own = [torch.randn(3, 40, generator=g).requires_grad_(), torch.randn(1, 8, 2, generator=g).requires_grad_()]
known = [one.detach().clone().requires_grad_() for one in own]
gradients = [[torch.randn(one.shape, generator=g) for one in own] for _ in range(20)]
adam = Adam(own, betas=(0.9, 0.99))
for step, parts in enumerate(gradients):
    adam.zero_grad()
    for one, part in zip(own, parts):
        one.grad = part.clone()
    adam.step(1e-3 * (1 + step % 5))
assert "torch._dynamo" not in sys.modules
torchs = torch.optim.Adam(known, betas=(0.9, 0.99), fused=True)
for step, parts in enumerate(gradients):
    for one, part in zip(known, parts):
        one.grad = part.clone()
    torchs.param_groups[0]["lr"] = 1e-3 * (1 + step % 5)
    torchs.step()
assert all(map(torch.equal, own, known))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
