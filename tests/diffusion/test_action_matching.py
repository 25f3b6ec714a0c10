"""Action Matching: the actions of normal paths in closed form, and what a network makes of samples
alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from torch import Tensor

from diffusion.datasets import Dataset, FourPoints, Gaussian, GaussianMixture, Torus, Uniform
from diffusion.formulations import ActionMatching
from diffusion.models import ActionModel, Denoiser, Motion, angle_and_scale, capabilities_of
from diffusion.networks import Network
from diffusion.objectives import ActionLoss as Action
from diffusion.objectives import stratified
from diffusion.objectives.action_matching import Kind, _ends, _features, _features_rate, denoised, density
from diffusion.randomness import stream
from diffusion.samplers import ActionSampler, NoiseStreams
from diffusion.samplers.base import velocity
from diffusion.samplers.paths import resampled
from diffusion.schedules import EDM, Flow, Schedule, VPCosine, VPLinear, schedules
from diffusion.schedules.grids import EqualTimes
from diffusion.schedules.levels import level_at, levels_of
from diffusion.training import Member, TrainedStack, Training, train
from tasks.plan import Cell
from tasks.work import stack_of
from tasks.work.stacks import to_bytes
from tests.diffusion import sampler_kit as kit

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS: tuple[Kind, ...] = ("plain", "entropic", "unbalanced")
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a worker trains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- normal paths: the loss minimised exactly -----------------------------------------------------

_TIMES, _RULE = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(60))
_TIMES, _RULE = 0.5 + 0.5 * _TIMES, 0.5 * _RULE
_POINTS, _MASS = (torch.as_tensor(part) for part in np.polynomial.hermite_e.hermegauss(5))  # exact to degree 9
_MASS = _MASS / _MASS.sum()
_DEGREE = 25


@dataclass(frozen=True)
class Path:
    """N(m, a^2) of mass M at times of [0, 1], with derivatives."""

    m: Callable[[Tensor], Tensor]
    a: Callable[[Tensor], Tensor]
    mass: Callable[[Tensor], Tensor]

    def at(self, t: Tensor, part: str) -> tuple[Tensor, Tensor]:
        t = t.detach().clone().requires_grad_()
        value = getattr(self, part)(t)
        rate = torch.autograd.grad(value.sum(), t)[0] if value.requires_grad else torch.zeros_like(t)
        return value.detach(), rate


def constant(value: float) -> Callable[[Tensor], Tensor]:
    return lambda t: torch.full_like(t, value)


VARIANCE_PRESERVING = Path(  # beta = 4 on data N(2, 1/4): the reference figure's path
    lambda t: 2 * torch.exp(-2 * t), lambda t: torch.sqrt(1 - 0.75 * torch.exp(-4 * t)), constant(1.0)
)
STRAIGHT = Path(lambda t: 1 - t, lambda t: torch.sqrt((1 - t) ** 2 * 0.49 + t**2), constant(1.0))
GROWING = Path(lambda t: 0.5 * t, lambda t: 1 + 0.5 * t**2, lambda t: torch.exp(1.2 * t - 0.3 * t**2))


def coefficients(path: Path, kind: Kind, g: float, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k, b and c of the action ``k (x-m)^2/2 + b (x-m) + c``."""
    (_, m_dot), (a, a_dot), (mass, mass_dot) = (path.at(t, part) for part in ("m", "a", "mass"))
    k = a_dot / a
    if kind == "entropic":
        k = k - g**2 / (2 * a**2)
    if kind == "unbalanced":
        k = k / (1 + a**2 / 2)
        return k, m_dot / (1 + a**2), mass_dot / mass - a_dot / a + k
    return k, m_dot, torch.zeros_like(t)


def loss_of(theta: Tensor, path: Path, kind: Kind, g: float) -> Tensor:
    """L of the action whose k, b, c are polynomials in t with these coefficients ``[3, degree]``: a
    quadratic form of them.
    """

    def action(t: Tensor, x: Tensor) -> Tensor:
        m = path.m(t)
        basis = torch.stack([torch.special.legendre_polynomial_p(2 * t - 1, j) for j in range(_DEGREE)])
        k, b, c = theta @ basis
        value: Tensor = 0.5 * k[:, None] * (x - m[:, None]) ** 2 + b[:, None] * (x - m[:, None]) + c[:, None]
        return value

    def drawn(t: Tensor) -> Tensor:
        return (path.at(t, "m")[0][:, None] + path.at(t, "a")[0][:, None] * _POINTS).requires_grad_()

    t = _TIMES.clone().requires_grad_()
    x = drawn(t)
    s = action(t, x)
    (slope,) = torch.autograd.grad(s.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    step = 1e-5  # partial in t at fixed x: differences of a smooth function, to 1e-9
    rate = (action(t.detach() + step, x) - action(t.detach() - step, x)) / (2 * step)
    inner = density(kind, slope[..., None], rate, s, bend, torch.full_like(s, g**2))
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    boundary = (action(ends, drawn(ends)) @ _MASS) * path.at(ends, "mass")[0]
    return boundary[0] - boundary[1] + ((inner @ _MASS) * path.at(_TIMES, "mass")[0]) @ _RULE


def minimised(path: Path, kind: Kind, g: float = 0.0) -> tuple[Tensor, float]:
    """The coefficients of least loss, and that loss: one Newton step on a quadratic form."""
    parts = 3 if kind == "unbalanced" else 2  # a constant of time alone drops out of the other losses

    def loss(flat: Tensor) -> Tensor:
        full = torch.cat([flat.reshape(parts, _DEGREE), torch.zeros(3 - parts, _DEGREE, dtype=torch.float64)])
        return loss_of(full, path, kind, g)

    zero = torch.zeros(parts * _DEGREE, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(loss, zero)
    hessian = torch.autograd.functional.hessian(loss, zero)
    best = -torch.linalg.lstsq(hessian, gradient[:, None], driver="gelsd").solution[:, 0]
    return best.reshape(parts, _DEGREE), float(loss(best).detach())


def least_value(path: Path, kind: Kind, g: float) -> float:
    """``-1/2 integral of E[|grad s|^2 (+ s^2)]`` over the path with its mass, from the closed
    forms.
    """
    k, b, c = coefficients(path, kind, g, _TIMES)
    (a, _), (mass, _) = path.at(_TIMES, "a"), path.at(_TIMES, "mass")
    value = k**2 * a**2 + b**2
    if kind == "unbalanced":
        x = a[:, None] * _POINTS
        value = value + (0.5 * k[:, None] * x**2 + b[:, None] * x + c[:, None]).square() @ _MASS
    return -0.5 * float((mass * value) @ _RULE)


@pytest.mark.parametrize(
    ("path", "kind", "g"),
    [
        (VARIANCE_PRESERVING, "plain", 0.0),
        (STRAIGHT, "plain", 0.0),
        (VARIANCE_PRESERVING, "entropic", 0.8),
        (STRAIGHT, "entropic", 1.5),
        (GROWING, "unbalanced", 0.0),
        (VARIANCE_PRESERVING, "unbalanced", 0.0),
    ],
    ids=["plain-vp", "plain-straight", "entropic-vp", "entropic-straight", "unbalanced-growing", "unbalanced-vp"],
)
def test_the_exact_minimum_has_the_coefficients_of_the_path(path: Path, kind: Kind, g: float) -> None:
    """Among all actions quadratic in x and polynomial in t; the minimum is half the path's cost,
    below zero.
    """
    found, value = minimised(path, kind, g)
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    basis = torch.stack([torch.special.legendre_polynomial_p(2 * t - 1, j) for j in range(_DEGREE)])
    for mine, expected in zip(found, coefficients(path, kind, g, t), strict=False):
        torch.testing.assert_close(mine @ basis, expected, rtol=0, atol=2e-4)
    assert value == pytest.approx(least_value(path, kind, g), abs=1e-6)


def test_the_value_of_reference_is_reached_on_the_variance_preserving_path() -> None:
    """beta = 4 on [0, 1] and data N(2, 1/4): -2.281468."""
    assert minimised(VARIANCE_PRESERVING, "plain")[1] == pytest.approx(-2.281468, abs=1e-6)


def test_the_total_derivative_in_place_of_the_partial_one_would_not_find_the_velocity() -> None:
    """Along straight lines from x to noise d/dt is ``d_t s + v . grad s``: the least action would
    be s = 0, L = 0.
    """
    path = STRAIGHT
    k, b, _ = coefficients(path, "plain", 0.0, _TIMES)
    a = path.at(_TIMES, "a")[0]
    cost = float((k**2 * a**2 + b**2) @ _RULE)
    assert least_value(path, "plain", 0.0) == pytest.approx(-0.5 * cost)
    assert cost > 0.5  # what the wrong derivative would lose


# --- the objective itself, asked with an exact action ---------------------------------------------


@dataclass(frozen=True)
class KnownAction(Network):
    """The action of data ``N(mean, std^2)``, plus parameters times test functions: stationary where
    those are zero.
    """

    kind: Kind
    noise: float
    first: float
    last: float
    shift: float  # mean / std

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {"theta": (1, 5)}

    def initialise(self, generators: Sequence[torch.Generator]) -> Tensor:
        return torch.zeros(len(generators), 5, dtype=torch.float64)

    def flops(self) -> int:
        return 0

    def __call__(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        label = c[..., 0].double()
        phi = 0.5 * (self.first + self.last + (self.last - self.first) * label)
        off = z[..., 0].double() - self.shift * phi.cos()
        b = self.shift * phi.sin()  # dm/dtau, tau running against the angle
        k = -0.5 * self.noise**2 * phi.sin() if self.kind == "entropic" else torch.zeros_like(phi)
        s = 0.5 * k * off**2 + (0.5 if self.kind == "unbalanced" else 1.0) * b * off
        x = z[..., 0].double()
        tests = torch.stack([x, x**2, x * label, x.sin(), x**2 * label], -1)
        return (s + (rows[:, None] * tests).sum(-1))[..., None]


def estimated(kind: Kind, noise: float = 0.0, probes: int = 0, batch: int = 200_000) -> tuple[Tensor, Tensor]:
    """Errors of the exact action ``[batch]`` and their gradients in the parameters ``[5]`` with
    standard errors, as rows.
    """
    data, schedule = Gaussian(means=1.5, stds=0.75), VPCosine()
    objective = Action(kind, noise, probes)
    member = Member(data, ActionMatching(kind), schedule, "asked")
    examples = objective.batches(member, data.sample(400_000, stream("asked")), 1, batch, stream("asked, lesson"))
    network = KnownAction(kind, noise, *_ends(schedule, data.std), 2.0)
    parts = [part[0][None].double() for part in examples]
    groups = []
    for piece in range(20):  # batches of batches, for standard errors
        rows = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
        take = slice(piece, None, 20)
        condition_ends = parts[5]
        split = [part if part is condition_ends else part[:, take] for part in parts]
        errors = objective.losses(network, rows, *split)
        (gradient,) = torch.autograd.grad(errors.mean(), rows)
        groups.append(torch.cat([errors.mean().detach()[None], gradient[0]]))
    found = torch.stack(groups)
    return found.mean(0), found.std(0) / math.sqrt(len(found))


@pytest.mark.parametrize(
    ("kind", "noise", "probes"),
    [("plain", 0.0, 0), ("entropic", 1.2, 0), ("entropic", 1.2, 2), ("unbalanced", 0.0, 0)],
    ids=["plain", "entropic", "entropic-probes", "unbalanced"],
)
def test_the_objective_is_stationary_at_the_exact_action_and_has_its_value(
    kind: Kind, noise: float, probes: int
) -> None:
    """Value and five directions, each within 5 standard errors of 20 groups (t with 19 degrees:
    false alarms 5e-4, seed fixed).
    """
    found, error = estimated(kind, noise, probes)
    first, last = _ends(VPCosine(), 0.75)
    nodes, rule = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(60))
    phi = 0.5 * (first + last + (last - first) * nodes)
    b, k = 2 * phi.sin(), -0.5 * noise**2 * phi.sin()
    cost = {"plain": b**2, "entropic": b**2 + k**2, "unbalanced": 0.5 * b**2}[kind]  # unbalanced: (b/2)^2 (1 + E off^2)
    value = -0.5 * float(cost @ rule) * 0.5 * (last - first)
    assert abs(float(found[0]) - value) <= 5 * float(error[0])
    assert float(error[0]) < 0.05 * abs(value)
    assert (found[1:].abs() <= 5 * error[1:]).all(), (found, error)


def test_the_objective_is_not_stationary_at_an_action_of_another_kind() -> None:
    """The same test functions, at the plain action asked as an entropic one: twenty standard errors
    away.
    """
    data, schedule = Gaussian(means=1.5, stds=0.75), VPCosine()
    objective = Action("entropic", 1.2)
    member = Member(data, ActionMatching("entropic"), schedule, "asked")
    examples = objective.batches(member, data.sample(100_000, stream("asked")), 1, 50_000, stream("asked, lesson"))
    rows = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    network = KnownAction("plain", 0.0, *_ends(schedule, data.std), 2.0)
    errors = objective.losses(network, rows, *(part[0][None].double() for part in examples))
    (gradient,) = torch.autograd.grad(errors.mean(), rows)
    assert float(gradient[0, 1]) > 0.3  # of x^2: 1/2 g^2 lap = g^2 on average, 0.72 times the quarter turn's sines


def test_what_the_network_is_told_changes_with_tau_as_autograd_says() -> None:
    phi = torch.linspace(0.1, 1.4, 50, dtype=torch.float64, requires_grad=True)
    found = _features(phi, 0.05, 1.5)
    for j in range(found.shape[-1]):
        (by_phi,) = torch.autograd.grad(found[:, j].sum(), phi, retain_graph=True)
        torch.testing.assert_close(_features_rate(phi.detach(), 0.05, 1.5)[:, j], -by_phi, rtol=1e-12, atol=1e-12)
    ends = _features(torch.tensor([0.05, 1.5], dtype=torch.float64), 0.05, 1.5)
    assert ends[:, 0].tolist() == pytest.approx([-1, 1])


# --- the path -------------------------------------------------------------------------------------


def examples(dataset: Dataset, kind: Kind = "plain", steps: int = 1, batch: int = 4000, key: str = "") -> list[Tensor]:
    member = Member(dataset, ActionMatching(kind), Flow(), "lesson")
    data = dataset.sample(50_000, stream("lesson, data"))
    return [part.double() for part in Action(kind).batches(member, data, steps, batch, stream("lesson", key))]


def angles(found: Tensor, dataset: Dataset) -> Tensor:
    first, last = _ends(Flow(), dataset.std)
    return 0.5 * (first + last + (last - first) * found[..., 0])


def test_an_example_holds_the_marginals_at_its_angles_and_at_the_ends() -> None:
    """Kolmogorov-Smirnov of normal data: false alarms 1e-3 for each of three, with a fixed seed."""
    data = Gaussian(means=1.0, stds=2.0)
    z, noise_end, data_end, found, *_ = examples(data)
    phi = angles(found, data)
    first, last = _ends(Flow(), 2.0)
    for drawn, angle in ((z, phi), (noise_end, torch.full_like(phi, last)), (data_end, torch.full_like(phi, first))):
        assert kstest((drawn[0, :, 0] - 0.5 * angle[0].cos()).numpy(), norm.cdf).pvalue > 1e-3


def test_no_draw_of_one_marginal_is_paired_with_a_draw_of_another() -> None:
    """Signs of two far atoms at the end, and on the way close to it: independent, 4.5 standard
    errors (seed fixed).
    """
    data = FourPoints()
    z, _, data_end, found, *_ = examples(data, batch=20_000)
    near = angles(found, data)[0] < 0.3
    here, there = z[0, near, 0].sign(), data_end[0, near, 0].sign()
    here, there = here - here.mean(), there - there.mean()
    correlation = float((here * there).mean() / torch.sqrt(here.square().mean() * there.square().mean()))
    assert abs(correlation) <= 4.5 / math.sqrt(int(near.sum()))


def test_times_cover_every_stratum_in_every_step_and_never_come_back() -> None:
    data = Uniform()
    found = examples(data, steps=40, batch=32)[3]
    first, last = _ends(Flow(), data.std)
    u = (last - angles(found, data)) / (last - first)
    places = (u * 32).floor()
    assert torch.equal(places.clamp(0, 31), torch.arange(32, dtype=torch.float64).expand(40, -1))
    assert len(u.flatten().unique()) == 40 * 32
    inside = u * 32 - places
    assert float(inside.std()) == pytest.approx(
        1 / math.sqrt(12), rel=0.1
    )  # a grid that stayed would have its offset only
    assert stratified(2, 4, stream("advance"))[0].tolist() != stratified(2, 4, stream("advance"))[1].tolist()


@pytest.mark.parametrize(
    "schedule", [s for e in schedules if (s := e.cls()).max_steps is None], ids=lambda s: s.registered_name
)
def test_the_exact_denoiser_makes_the_velocity_of_every_schedule_the_gradient_of_one_action(schedule: Schedule) -> None:
    """grad s of the exact denoiser moves z, and with it x_t = scale(t) z, as the probability flow
    of the schedule says.
    """
    target, h = Uniform(), 1e-6 * schedule.t_max
    std = torch.tensor([target.std], dtype=torch.float64)
    for share in (0.2, 0.5, 0.8):
        t = torch.tensor([schedule.t_min + share * (schedule.t_max - schedule.t_min)], dtype=torch.float64)
        level = level_at((schedule,), t)
        x = (level.alpha * target.sample(20, stream("velocity")) + level.sigma * 0.7)[None]

        def exact(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            return target.denoise(x, alpha[:, None], sigma[:, None])

        phi, scale = angle_and_scale(level.alpha, level.sigma, std)
        z = x / scale
        slope = (exact(x, level.alpha, level.sigma) / std - phi.cos() * z) / phi.sin()
        torch.testing.assert_close(
            denoised(slope, z, phi[:, None, None], 0.0) * std, exact(x, level.alpha, level.sigma)
        )
        ends = [angle_and_scale(schedule.alpha(u), schedule.sigma(u), std) for u in (t - h, t + h)]
        phi_dot, scale_dot = ((after - before) / (2 * h) for before, after in zip(*ends, strict=True))
        moved = scale_dot * z - scale * phi_dot * slope
        flow = velocity(exact, x, level)
        torch.testing.assert_close(moved, flow, rtol=1e-5, atol=1e-5 * float(flow.abs().max()))


@pytest.mark.parametrize("noise", [0.0, 0.7, 2.0])
def test_the_action_of_normal_data_gives_their_denoiser(noise: float) -> None:
    """Plain and entropic: k and b in closed form, against Gaussian conditioning."""
    data = Gaussian(means=1.5, stds=0.75)
    alpha = torch.tensor([0.9, 0.3, 0.0], dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.8, 1.0], dtype=torch.float64)
    phi, scale = (part[:, None, None] for part in angle_and_scale(alpha, sigma, torch.tensor(0.75)))
    x = torch.linspace(-3, 3, 9, dtype=torch.float64)[None, :, None].expand(3, -1, -1)
    z = x / scale
    slope = -0.5 * noise**2 * phi.sin() * (z - 2 * phi.cos()) + 2 * phi.sin()
    expected = data.denoise(x, alpha[:, None], sigma[:, None])
    torch.testing.assert_close(0.75 * denoised(slope, z, phi, noise), expected, rtol=1e-12, atol=1e-12)


# --- sampling -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExactAction:
    """The action of data N(1.5, 0.75^2) as a model."""

    kind: Kind
    noise: float = 0.0

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return Gaussian(means=1.5, stds=0.75).denoise(x, alpha[:, None], sigma[:, None])

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion:
        std = torch.full_like(alpha, 0.75)
        phi, scale = (part[:, None, None] for part in angle_and_scale(alpha, sigma, std))
        off, b = x / scale - 2 * phi.cos(), 2 * phi.sin()
        if self.kind == "unbalanced":
            return Motion(std, torch.zeros_like(std), (0.5 * b).expand_as(x), (0.5 * b * off)[..., 0])
        slope = -0.5 * self.noise**2 * phi.sin() * off + b
        return Motion(std, torch.full_like(std, self.noise), slope, torch.zeros(x.shape[:-1], dtype=x.dtype))


def action_model(stack: TrainedStack) -> ActionModel:
    assert isinstance(stack.model, ActionModel)
    return stack.model


def sampled(model: object, steps: int, schedule: Schedule, n: int = 10_000) -> Tensor:
    levels = levels_of([schedule], [EqualTimes()], steps)
    x = torch.randn(1, n, 1, generator=stream("action start"), dtype=torch.float64) * levels[0].sigma
    noise = NoiseStreams([("action noise", 0)], n, 1)
    *_, last = ActionSampler().trajectory(cast("Denoiser", model), x, levels, noise)
    return last[0, :, 0]


@pytest.mark.parametrize("model", [ExactAction("plain"), ExactAction("entropic", 1.5)], ids=lambda m: m.kind)
@pytest.mark.parametrize("schedule", [Flow(), VPCosine()], ids=lambda s: s.registered_name)
def test_samples_along_the_exact_action_have_the_law_of_the_data(model: ExactAction, schedule: Schedule) -> None:
    """Mean and variance after 200 steps: 4.5 standard errors (seed fixed) and the first-order
    error, below 0.01 of a deviation.
    """
    x = sampled(model, 200, schedule)
    n = len(x)
    assert float(x.mean()) == pytest.approx(1.5, abs=0.75 * (4.5 / math.sqrt(n) + 0.01))
    assert float(x.std()) == pytest.approx(0.75, abs=0.75 * (4.5 / math.sqrt(2 * n) + 0.01))


@pytest.mark.parametrize("model", [ExactAction("plain"), ExactAction("entropic", 1.5)], ids=lambda m: m.kind)
def test_the_rule_is_of_first_order(model: ExactAction) -> None:
    """Mean and, with noise, variance of the end, found exactly: halving the steps halves what is
    missing.
    """
    missing = []
    for steps in (200, 400):
        levels = levels_of([Flow()], [EqualTimes()], steps)
        mean, variance = kit.affine(ActionSampler(), model, levels).of_normal(kit.number(0.0), kit.number(1.0))
        missing.append((float(mean) - 1.5, float(variance) - 0.75**2))
    (first_mean, first_variance), (second_mean, second_variance) = missing
    assert abs(first_mean) < 0.01
    assert second_mean / first_mean == pytest.approx(0.5, abs=0.05)
    if model.noise:
        assert second_variance / first_variance == pytest.approx(0.5, abs=0.05)
    else:
        assert abs(second_variance) < 1e-12


def test_an_unbalanced_action_moves_half_the_way_and_weighs_the_rest() -> None:
    """z = eps + m/2 for start noise eps, and
    ``log w = integral of m'/2 (z - m) = eps m/2 - m^2/8``: eps - 1/2 at m = 2.

    So the weights are log-normal with mean square e, and n samples are worth n/e; without weights
    the mean would be 0.75.
    """
    x = sampled(ExactAction("unbalanced"), 200, Flow(), 40_000)
    effective = len(x) / math.e
    assert float(x.mean()) == pytest.approx(1.5, abs=4.5 * 0.75 / math.sqrt(effective) + 0.01)
    assert float(x.std()) == pytest.approx(0.75, abs=4.5 * 0.75 / math.sqrt(effective) + 0.01)


def test_equal_weights_leave_samples_in_place_and_others_give_their_shares() -> None:
    x = torch.arange(10, dtype=torch.float64)[None, :, None]
    assert torch.equal(resampled(x, torch.full((1, 10), 3.7, dtype=torch.float64)), x)
    shares = torch.tensor([0.5, 0.3, 0.2, 0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    assert resampled(x, shares.log()[None])[0, :, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    far = torch.tensor([[-2000.0] * 9 + [0.0]], dtype=torch.float64)
    assert resampled(x, far)[0, :, 0].tolist() == [9] * 10


# --- networks -------------------------------------------------------------------------------------


def trained(members: Sequence[Member], settings: Training) -> TrainedStack:
    return train(members, [m.dataset.sample(3000, stream("action data", m.dataset.label())) for m in members], settings)


def bits(stack: TrainedStack) -> dict[str, tuple[bytes, ...]]:
    """Weights, losses, slopes and growths of every member, to the last bit."""
    dim = stack.members[0].dataset.dim
    x = torch.randn(37, dim, generator=stream("question"), dtype=torch.float64).expand(len(stack.members), 37, dim)
    level = torch.full((len(stack.members),), 0.6, dtype=torch.float64)
    motion = action_model(stack).action(x, level, 1 - level)
    parts = (stack.rows, motion.slope, motion.growth, *(() if stack.losses.shape[1] == 0 else (stack.losses,)))
    return {m.key: tuple(part[i].numpy().tobytes() for part in parts) for i, m in enumerate(stack.members)}


@every_kind
@pytest.mark.parametrize("dataset", [Uniform(), Torus()], ids=["line", "space"])
@pytest.mark.parametrize(("width", "depth", "batch"), [(17, 2, 7), (33, 3, 37)], ids=str)
def test_a_members_bits_do_not_depend_on_its_stack(
    dataset: Dataset, kind: Kind, width: int, depth: int, batch: int
) -> None:
    settings = Training(steps=8, batch=batch, width=width, depth=depth, data=500)
    paths = [Flow(), VPLinear(), EDM(), VPCosine(), Flow()]
    members = [Member(dataset, ActionMatching(kind), path, f"{j}") for j, path in enumerate(paths)]
    whole = bits(trained(members, settings))
    assert len(set(whole.values())) == len(members)
    for part in ([0], [3], [1, 4], [4, 2, 0]):
        some = bits(trained([members[j] for j in part], settings))
        assert all(some[key] == whole[key] for key in some)


def test_probes_keep_the_promise_too() -> None:
    settings = Training(steps=8, batch=21, width=24, depth=2, data=500)
    formulation = ActionMatching("entropic", probes=2)
    members = [Member(Torus(), formulation, Flow(), f"{j}") for j in range(3)]
    whole = bits(trained(members, settings))
    assert bits(trained(members[1:2], settings))["1"] == whole["1"]


@every_kind
def test_weights_survive_storage_to_the_last_bit(kind: Kind) -> None:
    settings = Training(steps=8, batch=16, width=24, depth=2, data=500)
    cells = [Cell(Uniform(), ActionMatching(kind), Flow(), seed, settings) for seed in range(2)]
    members = [Member(cell.dataset, ActionMatching(kind), cell.schedule, cell.id) for cell in cells]
    stack = trained(members, settings)
    again = stack_of(cells, [to_bytes(stack, m) for m in range(2)])
    for key, parts in bits(again).items():
        assert bits(stack)[key][:3] == parts


def error_of_the_score(stack: TrainedStack, m: int, levels: Sequence[float]) -> float:
    """Mean over noise-to-signal ratios of ``E |alpha (D - D_exact) / sigma|^2``."""
    target = stack.members[m].dataset
    one = stack.select([m])
    found = []
    for ratio in levels:
        alpha = torch.tensor([1 / (1 + ratio)], dtype=torch.float64)
        x0 = target.sample(2000, stream("score x"))
        noise = torch.randn(x0.shape, generator=stream("score noise"), dtype=torch.float64)
        x = (alpha * x0 + (1 - alpha) * noise)[None]
        off = one.denoiser(x, alpha, 1 - alpha) - target.denoise(x, alpha[:, None], 1 - alpha[:, None])
        found.append(float((off / ratio).square().mean()))
    return float(np.mean(found))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "entropic"])
def test_a_network_recovers_the_velocity_of_a_known_path(kind: Kind) -> None:
    """From samples of the marginals alone. Error of the score, mean over seven noise levels.

    Six networks of each kind had 0.004 to 0.015; an action of zero has 0.091 and 0.097.
    """
    members = [Member(GaussianMixture(), ActionMatching(kind), Flow(), f"recovers {seed}") for seed in range(2)]
    data = [m.dataset.sample(50_000, stream("recovers", m.key)) for m in members]
    stack = train(members, data, Training(steps=500, batch=256, width=32, depth=2))
    assert stack.errors == (None, None)
    for m in range(2):
        assert error_of_the_score(stack, m, np.geomspace(0.05, 20, 7).tolist()) < 0.03


NORMAL_DATA = Gaussian(means=0.8, stds=0.4)


@functools.cache
def learned(kind: Kind) -> TrainedStack:
    """Four networks on the cosine path from noise to N(0.8, 0.4^2), which z follows with mean 2
    cos(phi) and variance 1.
    """
    members = [Member(NORMAL_DATA, ActionMatching(kind), VPCosine(), f"learned {seed}") for seed in range(4)]
    data = [NORMAL_DATA.sample(50_000, stream("learned", m.key)) for m in members]
    return train(members, data, Training(steps=600, batch=512, width=16, depth=1))


def line(x: Tensor, y: Tensor, mean: float, std: float) -> tuple[Tensor, Tensor]:
    """Slope of y ``[members, n]`` against x, and its value at the mean: least squares under the
    normal law that x has.
    """
    weight = torch.exp(-0.25 * ((x - mean) / std) ** 2)
    places = weight[:, None] * torch.stack([x - mean, torch.ones_like(x)], 1)
    slope, middle = torch.linalg.lstsq(places, (weight * y).T).solution
    return slope, middle


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("plain", (0.13, 0.2)), ("entropic", (0.18, 0.22)), ("unbalanced", (0.07, 0.13))]
)
def test_networks_recover_the_coefficients_of_a_normal_path(kind: Kind, tolerance: tuple[float, float]) -> None:
    """k and b of the action at seven angles; of the unbalanced one also how fast weights grow,
    which is the action itself.

    Largest errors of twelve networks: k by 0.08, 0.12 and 0.04, b by 0.12, 0.15 and 0.08; b goes up
    to 2, and to 1 of the unbalanced.
    """
    stack = learned(kind)
    assert stack.errors == (None,) * 4
    first, last = _ends(VPCosine(), 0.4)
    for share in np.linspace(0.05, 0.95, 7):
        phi = torch.full((4,), first + share * (last - first), dtype=torch.float64)
        mean = 2 * math.cos(phi[0])
        z = mean + torch.linspace(-2, 2, 41, dtype=torch.float64)
        motion = action_model(stack).action(z[None, :, None].expand(4, -1, -1), phi.cos() / 0.4, phi.sin())
        k, b = line(z, motion.slope[..., 0], mean, 1.0)
        exact = 2 * math.sin(phi[0]) * (0.5 if kind == "unbalanced" else 1.0)
        assert ((k - (-0.5 * math.sin(phi[0]) if kind == "entropic" else 0.0)).abs() < tolerance[0]).all()
        assert ((b - exact).abs() < tolerance[1]).all()
        if kind == "unbalanced":
            rate, at_mean = line(z, motion.growth, mean, 1.0)
            assert ((rate - exact).abs() < tolerance[1]).all()
            assert (at_mean.abs() < tolerance[0]).all()


def test_the_flow_of_a_learned_action_has_the_slope_and_the_offset_of_the_closed_form() -> None:
    """dx/dt on the variance-preserving path: ``c'/c (x - alpha m) + alpha' m`` with c^2 = alpha^2
    s^2 + sigma^2.

    The slope goes from 0.2 to 1.6, the value at the mean from -0.2 to -1.2; four networks miss by
    at most 0.13 and 0.08.
    """
    stack, schedule = learned("plain"), VPCosine()
    for t in (0.1, 0.3, 0.5, 0.7, 0.9):
        now = level_at((schedule,) * 4, torch.full((4,), t, dtype=torch.float64))
        alpha, sigma, alpha_dot, sigma_dot = (
            float(part[0]) for part in (now.alpha, now.sigma, now.alpha_dot, now.sigma_dot)
        )
        c = math.hypot(alpha * 0.4, sigma)
        mean, rate = alpha * 0.8, (alpha * alpha_dot * 0.4**2 + sigma * sigma_dot) / c**2
        x = mean + c * torch.linspace(-2, 2, 41, dtype=torch.float64)
        slope, at_mean = line(x, velocity(stack.denoiser, x[None, :, None].expand(4, -1, -1), now)[..., 0], mean, c)
        assert ((slope - rate).abs() < 0.25).all()
        assert ((at_mean - alpha_dot * 0.8).abs() < 0.15).all()


def test_a_learned_unbalanced_action_brings_noise_to_the_data_with_its_weights() -> None:
    """Mean and deviation of four networks' samples; moved alone, without weights, they would have
    mean 0.4.
    """
    for m in range(4):
        x = sampled(learned("unbalanced").select([m]).model, 64, VPCosine())
        assert float(x.mean()) == pytest.approx(0.8, abs=0.06)
        assert float(x.std()) == pytest.approx(0.4, abs=0.05)


def test_an_unbalanced_action_is_no_denoiser_and_what_has_no_spread_has_no_path() -> None:
    stack = trained(
        [Member(Uniform(), ActionMatching("unbalanced"), Flow(), "u")], Training(steps=2, batch=8, width=8, depth=1)
    )
    half = torch.full((1,), 0.5, dtype=torch.float64)
    with pytest.raises(TypeError, match="no denoiser"):
        stack.denoiser(torch.zeros(1, 3, 1, dtype=torch.float64), half, half)
    assert capabilities_of(ActionMatching("unbalanced").gives) == [ActionModel]
    for kind in ("plain", "entropic"):
        assert capabilities_of(ActionMatching(kind).gives) == [Denoiser, ActionModel]
    with pytest.raises(ValueError, match="noise"):
        ActionMatching(noise=0.0)
