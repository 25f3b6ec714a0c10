"""Training: the right loss at the right noise levels, and members of a stack that do not touch."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from torch import Tensor

from diffusion.datasets import Dataset, Torus, Uniform
from diffusion.formulations import DDPM, VE, VP, ElucidatedDM, Exact, ImprovedDDPM, Trained, formulations
from diffusion.networks import StackedMLP
from diffusion.objectives import stratified
from diffusion.parametrizations import Epsilon, Preconditioned, Score, parametrizations
from diffusion.randomness import stream
from diffusion.schedules import EDM, IDDPM, DDPMLinear, VELinear, VPLinear, schedules
from diffusion.training import Member, TrainedStack, Training, train
from tasks.plan import Cell
from tasks.work import _from_bytes, _to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TRAINED: dict[str, Trained] = {entry.name: made for entry in formulations if isinstance(made := entry.cls(), Trained)}
every_formulation = pytest.mark.parametrize("formulation", TRAINED.values(), ids=TRAINED.keys())
every_parametrization = pytest.mark.parametrize(
    "parametrization", [entry.cls() for entry in parametrizations], ids=parametrizations.names()
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a worker trains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def member(formulation: Trained, key: str = "", dataset: Dataset | None = None) -> Member:
    return Member(dataset or Uniform(), formulation, formulation.own_schedule(), key or formulation.registered_name)


def training_set(dataset: Dataset, n: int = 2000) -> Tensor:
    return dataset.sample(n, stream("test-training", dataset.spec()))


# --- parametrizations -------------------------------------------------------------------------------------------------

SIGMAS = torch.logspace(-3, 3, 61, dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.1, 0.288675, 0.5, 2.0])
def test_the_network_of_edm_has_unit_loss_weight_at_every_noise_level(sigma_data: float) -> None:
    c = Preconditioned().coefficients(SIGMAS, sigma_data)
    weight = ElucidatedDM().weighting.weight(SIGMAS, sigma_data)
    torch.testing.assert_close(weight * c.out**2, torch.ones_like(SIGMAS), rtol=1e-14, atol=0)


@pytest.mark.parametrize("formulation", [VP(), VE(), ImprovedDDPM(), DDPM()], ids=lambda f: f.registered_name)
def test_noise_prediction_has_unit_loss_weight_at_every_noise_level(formulation: Trained) -> None:
    c = formulation.parametrization.coefficients(SIGMAS, 0.5)
    weight = formulation.weighting.weight(SIGMAS, 0.5) * c.out**2
    torch.testing.assert_close(weight, torch.ones_like(SIGMAS), rtol=1e-14, atol=0)


@pytest.mark.parametrize("sigma_data", [0.1, 0.5, 2.0])
def test_edm_passes_clean_data_through_and_predicts_data_from_noise(sigma_data: float) -> None:
    tiny, huge = (Preconditioned().coefficients(numbers(sigma), sigma_data) for sigma in (1e-9, 1e9))
    assert float(tiny.skip) == pytest.approx(1, abs=1e-12)
    assert float(tiny.out) == pytest.approx(0, abs=1e-8)
    assert float(huge.skip) == pytest.approx(0, abs=1e-12)
    assert float(huge.out) == pytest.approx(sigma_data, rel=1e-12)
    same = Preconditioned().coefficients(numbers(sigma_data), sigma_data)
    assert float(same.skip) == pytest.approx(0.5, rel=1e-14)


def test_edm_inputs_and_targets_have_unit_variance() -> None:
    """For centred data: Var[c_in y] = 1 and Var[(x_0 - c_skip y) / c_out] = 1 at every level."""
    s = 0.7
    c = Preconditioned().coefficients(SIGMAS, s)
    torch.testing.assert_close(c.into**2 * (s**2 + SIGMAS**2), torch.ones_like(SIGMAS))
    target = ((1 - c.skip) ** 2 * s**2 + c.skip**2 * SIGMAS**2) / c.out**2
    torch.testing.assert_close(target, torch.ones_like(SIGMAS))


def test_noise_and_score_prediction_have_the_coefficients_of_table_1() -> None:
    epsilon, score = (kind.coefficients(SIGMAS, 0.5) for kind in (Epsilon(), Score()))
    for coefficients, sign in ((epsilon, -1), (score, 1)):
        assert torch.equal(coefficients.skip, torch.ones_like(SIGMAS))
        assert torch.equal(coefficients.out, sign * SIGMAS)
    torch.testing.assert_close(epsilon.into, (SIGMAS**2 + 1) ** -0.5, rtol=1e-14, atol=0)
    assert torch.equal(score.into, torch.ones_like(SIGMAS))


@every_parametrization
def test_the_effective_target_gives_the_data_back(parametrization: Epsilon | Score | Preconditioned) -> None:
    generator = stream("round trip")
    x, eps = torch.randn(2, len(SIGMAS), generator=generator, dtype=torch.float64)
    y = x + SIGMAS * eps
    c = parametrization.coefficients(SIGMAS, 0.5)
    answer = (x - c.skip * y) / c.out
    error = (c.skip * y + c.out * answer - x).abs()
    assert (error <= 1e-15 * (1 + SIGMAS) * 8).all()


def test_noise_score_and_data_are_three_spellings_of_one_answer() -> None:
    """F of `epsilon` is eps = (y - D) / sigma, that of `score` sigma times the score (D - y) / sigma^2."""
    dataset, one = Uniform(), torch.ones_like(SIGMAS)
    x = dataset.sample(len(SIGMAS), stream("spellings"))[:, 0]
    y = x + SIGMAS * torch.randn(len(SIGMAS), generator=stream("spellings, noise"), dtype=torch.float64)
    D = dataset.denoise(y[:, None, None], one[:, None], SIGMAS[:, None])[:, 0, 0]
    score = dataset.score(y[:, None, None], one[:, None], SIGMAS[:, None])[:, 0, 0]
    outputs = {
        Epsilon(): (y - D) / SIGMAS,
        Score(): SIGMAS * score,
        Preconditioned(): (D - 0.25 / (SIGMAS**2 + 0.25) * y) / (0.5 * SIGMAS / torch.sqrt(SIGMAS**2 + 0.25)),
    }
    for parametrization, F in outputs.items():
        c = parametrization.coefficients(SIGMAS, 0.5)
        torch.testing.assert_close(c.skip * y + c.out * F, D, rtol=0, atol=1e-12)
        torch.testing.assert_close((D - c.skip * y) / c.out, F, rtol=0, atol=1e-11)


# --- noise levels -----------------------------------------------------------------------------------------------------


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
LAWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "vp": lambda sigma: np.clip((vp_time(sigma) - 1e-5) / (1 - 1e-5), 0, 1),
    "ve": lambda sigma: np.clip(np.log(sigma / 0.02) / np.log(100 / 0.02), 0, 1),
    "edm": lambda sigma: np.asarray(norm.cdf((np.log(sigma) + 1.2) / 1.2)),
}


@pytest.mark.parametrize("name", LAWS)
def test_training_noise_has_the_law_of_table_1(name: str) -> None:
    """KS of independent draws: false alarms 1e-3 each, with a fixed seed. A stratified batch is within 1/batch."""
    formulation = TRAINED[name]
    u = torch.rand(20_000, generator=stream("law", name), dtype=torch.float64)
    sigma = formulation.noise_levels.quantile(u, formulation.own_schedule()).numpy()
    assert kstest(sigma, LAWS[name]).pvalue > 1e-3
    batch = formulation.noise_levels.quantile(stratified(1, 512, stream("law", name)), formulation.own_schedule())
    assert kstest(batch[0].numpy(), LAWS[name]).statistic <= 1 / 512 + 1e-9


@pytest.mark.parametrize(
    ("formulation", "levels"),
    [
        (ImprovedDDPM(), np.sort(IDDPM().noise_levels)),
        (DDPM(), np.sqrt(1 / np.cumprod(1 - np.linspace(1e-3, 0.2, 100)) - 1)),
    ],
    ids=["iddpm", "ddpm"],
)
def test_discrete_formulations_train_on_each_of_their_levels_equally_often(
    formulation: Trained, levels: np.ndarray
) -> None:
    """A batch of three times the number of levels holds each level three times."""
    u = stratified(1, 3 * len(levels), stream("levels"))
    sigma = np.sort(formulation.noise_levels.quantile(u, formulation.own_schedule())[0].numpy())
    np.testing.assert_allclose(sigma, np.repeat(levels, 3), rtol=1e-11)


@every_formulation
def test_noise_levels_are_positive_and_finite_at_the_ends_of_the_unit_interval(formulation: Trained) -> None:
    u = numbers(0.0, 1e-300, 0.5, 1 - 2.0**-53)
    sigma = formulation.noise_levels.quantile(u, formulation.own_schedule())
    assert torch.isfinite(sigma).all()
    assert (sigma > 0).all()


def test_noise_labels_are_those_of_table_1() -> None:
    sigma = torch.logspace(-2, 1.9, 50, dtype=torch.float64)
    np.testing.assert_allclose(VP().noise_label(sigma, VPLinear()), 999 * vp_time(sigma.numpy()), rtol=1e-11)
    np.testing.assert_allclose(VE().noise_label(sigma, VELinear()), np.log(sigma.numpy() / 2), rtol=1e-12)
    np.testing.assert_allclose(ElucidatedDM().noise_label(sigma, EDM()), np.log(sigma.numpy()) / 4, rtol=1e-12)
    u = IDDPM().noise_levels
    nearest = [999 - int(np.abs(u - value).argmin()) for value in sigma.tolist()]
    assert ImprovedDDPM().noise_label(sigma, IDDPM()).tolist() == nearest
    assert ImprovedDDPM().noise_label(torch.as_tensor(u), IDDPM()).tolist() == list(range(999, -1, -1))
    chain, k = DDPMLinear(), torch.arange(1, 101, dtype=torch.float64)
    torch.testing.assert_close(DDPM().noise_label(chain.nsr(k), chain), k, rtol=1e-11, atol=0)


@every_formulation
def test_a_lesson_is_data_plus_noise_of_its_level_and_the_answer_to_it(formulation: Trained) -> None:
    """Unit noise at every level would not do: the noise in an input is as large as its level says (5 sd of 2000)."""
    taught, batch = member(formulation), 2000
    data = torch.full((3, 1), 0.3, dtype=torch.float64)
    inputs, targets, conditions, weights = taught.lessons(data, 1, batch, stream("lesson"))
    assert all(part.dtype == torch.float32 for part in (inputs, targets, conditions, weights))
    assert inputs.shape == targets.shape == (1, batch, 1)
    sigma = formulation.noise_levels.quantile(stratified(1, batch, stream("lesson")), taught.schedule)[0]
    c = formulation.parametrization.coefficients(sigma, taught.dataset.std)
    y = inputs[0, :, 0].double() / c.into
    eps = (y - 0.3) / sigma
    large = sigma > 1e-2  # below, float32 inputs have rounded the noise away
    assert float(eps[large].var()) == pytest.approx(1, abs=5 * math.sqrt(2 / int(large.sum())))
    answer = c.skip * y + c.out * targets[0, :, 0].double()
    assert ((answer - 0.3).abs() <= 1e-6 * (1 + sigma)).all()
    torch.testing.assert_close(weights[0], torch.ones(batch))
    torch.testing.assert_close(conditions[0], taught.condition(sigma).float())


@every_formulation
def test_noise_labels_reach_the_network_between_minus_one_and_one(formulation: Trained) -> None:
    taught = member(formulation)
    ends = taught.schedule.nsr(numbers(taught.schedule.t_min, taught.schedule.t_max))
    assert taught.condition(ends)[:, 0].abs().tolist() == pytest.approx([1, 1], abs=1e-9)
    inner = taught.schedule.nsr(numbers(math.sqrt(taught.schedule.t_min * taught.schedule.t_max)))
    assert taught.condition(inner)[:, 0].abs() < 1


@every_formulation
def test_formulations_refuse_schedules_they_are_not_defined_on_and_say_why(formulation: Trained) -> None:
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
    assert Exact({"name": "ddpm-linear", "levels": 1000}).own_schedule() == DDPMLinear(levels=1000)
    with pytest.raises(ValueError, match="p_std must be positive"):
        ElucidatedDM(p_std=0.0)


# --- the floor of the loss --------------------------------------------------------------------------------------------


def mean_posterior_variance(sigma: Tensor, target: Uniform) -> Tensor:
    """E Var[x_0 | x_0 + sigma eps] for each sigma, by quadrature over x: the loss of the ideal denoiser."""
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
    """The loss of member m and of the ideal denoiser for `n` lessons that neither has seen."""
    taught = stack.members[m]
    generator = stream("fresh", m)
    data = Uniform().sample(n, generator)
    inputs, targets, conditions, weights = (part[0] for part in taught.lessons(data, 1, n, stream("lessons", m)))
    with torch.no_grad():
        answer = stack.network(stack.rows[m : m + 1], inputs[None], conditions[None])[0]
    sigma = taught.formulation.noise_levels.quantile(stratified(1, n, stream("lessons", m)), taught.schedule)[0]
    c = taught.formulation.parametrization.coefficients(sigma, taught.dataset.std)
    y = inputs[:, 0].double() / c.into
    D = Uniform().denoise(y[:, None, None], torch.ones(n, 1, dtype=torch.float64), sigma[:, None])[:, 0, 0]
    ideal = (D - c.skip * y) / c.out
    return weights * (answer - targets).square()[:, 0], weights * (ideal - targets[:, 0].double()).square()


@pytest.mark.parametrize("m", [0, 1], ids=["ddpm", "edm"])
def test_trained_loss_lies_above_the_irreducible_one_and_within_five_percent(taught: TrainedStack, m: int) -> None:
    """On 400 000 fresh lessons: the ideal denoiser has the floor of the quadrature (4.5 standard errors, 7e-6), the
    network is worse than the ideal denoiser on the same lessons, by less than 5 %.
    """
    n = 400_000
    floor = ddpm_floor(100) if m == 0 else edm_floor(Uniform(), Uniform().std)
    assert taught.errors == (None, None)
    network, ideal = fresh_losses(taught, m, n)
    assert abs(float(ideal.mean()) - floor) <= 4.5 * float(ideal.std()) / math.sqrt(n)
    assert float(ideal.mean()) < float(network.mean()) < float(ideal.mean()) + 0.05 * floor
    late = float(taught.losses[m, -8:].mean())
    assert late == pytest.approx(floor, rel=0.10)  # the loss as training tells it, over 48 000 lessons


def test_the_trained_denoiser_is_close_to_the_exact_one(taught: TrainedStack) -> None:
    for sigma in (0.1, 0.3, 1.0):
        x = Uniform().sample(2000, stream("close")) + sigma * torch.randn(
            2000, 1, generator=stream("close, noise"), dtype=torch.float64
        )
        level = [numbers(1.0, 1.0), numbers(sigma, sigma)]
        D = taught(torch.stack([x, x]), *level)
        exact = Uniform().denoise(x, torch.ones(1, dtype=torch.float64), numbers(sigma))
        assert float((D - exact).square().mean().sqrt()) < 0.03


# --- stacks -----------------------------------------------------------------------------------------------------------


def bits(stack: TrainedStack) -> dict[str, tuple[bytes, bytes, bytes]]:
    """Weights, losses and denoiser outputs of every member, to the last bit."""
    dim, members = stack.network.dim, len(stack.members)
    x = torch.randn(37, dim, generator=stream("question"), dtype=torch.float64).expand(members, 37, dim)
    schedules_ = [member.schedule for member in stack.members]
    t = [numbers(math.sqrt(schedule.t_min * schedule.t_max)) for schedule in schedules_]
    alpha = torch.cat([schedule.alpha(u) for schedule, u in zip(schedules_, t, strict=True)])
    sigma = torch.cat([schedule.sigma(u) for schedule, u in zip(schedules_, t, strict=True)])
    D = stack(x, alpha, sigma)
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
    ("width", "depth", "batch"), [(1, 1, 1), (17, 2, 7), (33, 3, 37), (64, 1, 50), (31, 2, 129)], ids=str
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
    assert torch.isnan(sick.rows[1]).any()
    assert torch.isfinite(sick.rows[[0, 2, 3, 4]]).all()
    found = bits(sick)
    for key in ("vp", "iddpm", "edm", "ddpm"):
        assert found[key] == healthy[key]
    assert [error is None for error in sick.errors] == [True, False, True, True, True]
    assert "the loss is not finite by step" in str(sick.errors[1])
    assert "lower training.learning_rate" in str(sick.errors[1])


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
    told: list[int] = []
    settings = Training(steps=100, batch=2, width=4, depth=1)
    stack = train([member(VP())], [training_set(Uniform(), 10)], settings, told.append)
    assert told == stack.loss_steps.tolist()
    assert told[-1] == 100
    assert len(told) == 64
    assert stack.losses.shape == (1, 64)
    brief = train([member(VP())], [training_set(Uniform(), 10)], Training(steps=3, batch=2, width=4, depth=1))
    assert brief.loss_steps.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"training.ema must lie in \(0, 1\], found 0"):
        Training(ema=0.0)


# --- what is stored ---------------------------------------------------------------------------------------------------


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
    files = [_to_bytes(stack, m) for m in range(len(cells))]
    back = _from_bytes(cells, files)
    assert torch.equal(back.rows, stack.rows)
    one = {key: (weights, D) for key, (weights, _, D) in bits_without_losses(back).items()}
    assert one == {key: (weights, D) for key, (weights, _, D) in bits(stack).items()}
    assert [_to_bytes(back, m) for m in range(len(cells))] == files
    assert torch.equal(_from_bytes(cells[2:3], files[2:3]).rows[0], stack.rows[2])


def bits_without_losses(stack: TrainedStack) -> dict[str, tuple[bytes, bytes, bytes]]:
    rows = torch.zeros(len(stack.members), 1)
    return bits(TrainedStack(stack.network, stack.members, stack.rows, torch.zeros(1), rows, stack.errors))


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
    """So that the denoiser of `edm` starts as c_skip y, the best linear guess for centred data of that deviation."""
    network = StackedMLP(1, 20, 2)
    rows = network.initialise([stream("zero")])
    z, c = torch.randn(1, 5, 1, generator=stream("z")), torch.randn(1, 1, 13, generator=stream("c"))
    assert torch.equal(network(rows, z, c), torch.zeros(1, 5, 1))


def test_the_seed_of_a_stream_is_the_hash_of_its_name() -> None:
    """Part of every stored result: if this fails, results of before and after are not of the same experiment."""
    digest = hashlib.sha256(b"sample\x1funiform\x1f0").digest()
    assert stream("sample", "uniform", 0).initial_seed() == int.from_bytes(digest[:8], "big") >> 1
    state = torch.get_rng_state()
    trained([member(VP())], Training(steps=2, batch=4, width=8, depth=1))
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is never touched
