"""The Fokker-Planck equation: solved against closed forms and scipy, and asked of exact, learned
and wrong fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from numpy.typing import NDArray
from scipy.special import exprel
from torch import Tensor

from diffusion.analysis.fokker_planck import (
    continuity_residual,
    density_of,
    diffusion_of,
    drift_of,
    evolve,
    flow_of,
    fokker_planck_residual,
    masses_of,
    score_of,
    score_residual,
    time_marginals,
)
from diffusion.datasets import Dataset, FourPoints, Gaussian, GaussianMixture, Moons, Noised, Uniform, datasets
from diffusion.formulations import VP
from diffusion.models import Denoiser
from diffusion.randomness import stream
from diffusion.schedules import Schedule, VPLinear, schedules
from diffusion.training import Member, Training, train
from tests.diffusion.sampler_kit import slope

SCHEDULES = {entry.name: entry.cls() for entry in schedules}
LINES = {entry.name: target for entry in datasets if entry.has_defaults and (target := entry.cls()).has_cdf}


def exact(target: Dataset) -> Denoiser:
    return lambda x, alpha, sigma: target.denoise(x, alpha[:, None], sigma[:, None])


def even(low: float, high: float, cells: int) -> Tensor:
    return torch.linspace(low, high, cells + 1, dtype=torch.float64)


def distribution_at(target: Dataset, schedule: Schedule, t: float) -> Noised:
    time = torch.tensor(t, dtype=torch.float64)
    return Noised(target, float(schedule.alpha(time)), float(schedule.sigma(time)))


# --- time marginals -------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_time_marginals_of_every_schedule_are_the_exact_laws(schedule: Schedule) -> None:
    """From where the noise is wider than a cell to the end, signal or none."""
    early = schedule.time_of(torch.tensor([0.3, 2.0], dtype=torch.float64)).tolist()
    times = [t for t in early if t < schedule.t_max] + [schedule.t_max]
    found = time_marginals(GaussianMixture(), schedule, times)
    for k, t in enumerate(times):
        distribution = distribution_at(GaussianMixture(), schedule, t)
        torch.testing.assert_close(found.cdf[k], distribution.cdf(found.edges[k]), rtol=0, atol=2e-4)
        assert float(found.mean[k]) == pytest.approx(distribution.mean[0], abs=1e-4 * distribution.std)


@pytest.mark.parametrize("target", LINES.values(), ids=LINES.keys())
def test_time_marginals_of_every_target_on_the_line_are_masses_that_converge_in_the_square_of_the_cell(
    target: Dataset,
) -> None:
    schedule, t = VPLinear(), 0.6
    distribution, errors = distribution_at(target, schedule, t), []
    for cells in (120, 240, 480):
        found = time_marginals(target, schedule, [t], cells=cells)
        assert (found.masses >= 0).all()
        assert found.masses.sum().item() == pytest.approx(1, abs=1e-12)
        errors.append(float((found.cdf - distribution.cdf(found.edges)).abs().max()))
    assert errors[-1] < 2e-4
    assert (
        slope((120, 240, 480), errors) > 1.6
    )  # atoms lie anywhere in their cells, and the last error is already small


def test_times_come_in_any_order_and_the_clean_law_is_one_of_them() -> None:
    found = time_marginals(FourPoints(), VPLinear(), [1.0, 0.0, 0.5])
    again = time_marginals(FourPoints(), VPLinear(), [0.0, 0.5, 1.0])
    assert torch.allclose(found.masses, again.masses[[2, 0, 1]], rtol=0, atol=1e-14)
    assert int((found.masses[1] > 0).sum()) <= 8  # an atom is shared by two cells
    assert float(found.mean[1]) == pytest.approx(-2.25, abs=5e-3)


def test_no_mass_is_negative_or_lost_even_where_a_cell_holds_an_atom() -> None:
    found = time_marginals(FourPoints("code"), VPLinear(), [1e-3, 1e-2, 0.1, 1.0], cells=960)
    assert (found.masses >= 0).all()
    assert (found.masses.sum(1) - 1).abs().max() < 1e-12


# --- any drift and diffusion ----------------------------------------------------------------------


def test_the_kernel_of_the_ornstein_uhlenbeck_process_solves_it() -> None:
    """Rows A57 and A58: from x_0 the law is N(x_0 xi, 1 - xi^2) with xi = exp(-1/2 integral of
    beta); beta = 1 + t here.
    """
    edges, x0, t = even(-8, 8, 800), 1.5, 0.7
    start = Noised(Gaussian(x0, 1e-6), 1.0, 0.15)
    masses = evolve(masses_of(start, edges), edges, lambda x, t: -0.5 * (1 + t) * x, lambda t: math.sqrt(1 + t), [0, t])
    xi = math.exp(-0.5 * (t + t * t / 2))
    distribution = Gaussian(x0 * xi, math.sqrt(1 - xi**2 + (0.15 * xi) ** 2))
    torch.testing.assert_close(masses[1].cumsum(0), distribution.cdf(edges[1:]), rtol=0, atol=4e-5)
    centres = 0.5 * (edges[1:] + edges[:-1])
    assert float(masses[1] @ centres) == pytest.approx(x0 * xi, abs=1e-4)  # the mean's own equation, mu' = -beta mu / 2


def test_the_order_is_two_in_the_cells_and_the_tolerance_holds_in_time() -> None:
    schedule, times = VPLinear(), [0.02, 0.3]
    first, last = (distribution_at(GaussianMixture(), schedule, t) for t in times)
    errors, sizes = [], (100, 200, 400)
    for cells in sizes:
        edges = even(-8, 8, cells)
        found = evolve(masses_of(first, edges), edges, drift_of(schedule), diffusion_of(schedule), times)
        errors.append(float((found[1].cumsum(0) - last.cdf(edges[1:])).abs().max()))
    assert slope(sizes, errors) == pytest.approx(2, abs=0.1)
    edges = even(-8, 8, 100)
    coarse, fine = (
        evolve(masses_of(first, edges), edges, drift_of(schedule), diffusion_of(schedule), times, tolerance=tolerance)
        for tolerance in (1e-3, 1e-8)
    )
    assert float((coarse[1] - fine[1]).abs().sum()) < 1e-3


def well(x: Tensor, t: float) -> Tensor:
    """A double well that tilts to and fro."""
    return 4 * x * (1 - x**2) + math.sin(2 * math.pi * t)


def test_scipys_stiff_solver_agrees_on_a_process_without_a_closed_form() -> None:
    """The same cells, their rates rebuilt here, by BDF; mass and sign are exact here, not there."""
    edges = even(-3, 3, 150)
    h, faces = 0.04, edges[1:-1]

    def slopes(t: float, m: np.ndarray) -> np.ndarray:
        D = 0.5 * (0.6 + 0.4 * t) ** 2
        z = well(faces, t).numpy() * h / D
        current = D / h**2 * (m[:-1] / exprel(-z) - m[1:] / exprel(z))
        difference: NDArray[np.float64] = np.append(0.0, current) - np.append(current, 0.0)
        return difference

    start = masses_of(Gaussian(-0.5, 0.3), edges)
    ours = evolve(start, edges, well, lambda t: 0.6 + 0.4 * t, [0.0, 0.4, 1.0], tolerance=1e-7)
    theirs = scipy.integrate.solve_ivp(
        slopes, (0, 1), start.numpy(), method="BDF", t_eval=[0.4, 1.0], rtol=1e-8, atol=1e-11
    ).y.T
    np.testing.assert_allclose(ours[1:].numpy(), theirs, rtol=0, atol=1e-7)
    assert (ours >= 0).all()
    assert (ours.sum(1) - 1).abs().max() < 1e-12


def test_a_free_process_settles_into_the_boltzmann_law_and_a_silent_one_follows_its_drift() -> None:
    """The current of Scharfetter and Gummel vanishes on exp(-2 V / g^2); with g = 0 it is upwind
    and moves the mean by f t.
    """
    edges = even(-2.5, 2.5, 200)
    centres = 0.5 * (edges[1:] + edges[:-1])
    settled = evolve(masses_of(Uniform(), edges), edges, lambda x, _: 4 * x * (1 - x**2), lambda _: 2**0.5, [0.0, 8.0])[
        1
    ]
    distribution = torch.exp(2 * centres**2 - centres**4)
    torch.testing.assert_close(settled, distribution / distribution.sum(), rtol=0, atol=4e-5)
    moved = evolve(masses_of(Uniform(-1, 0), edges), edges, lambda x, _: torch.ones_like(x), lambda _: 0.0, [0.0, 1.0])
    assert float((moved[1] - moved[0]) @ centres) == pytest.approx(1.0, abs=1e-9)
    assert (moved >= 0).all()


def test_histograms_of_euler_maruyama_lie_on_it() -> None:
    """Row A12: a process of nobody's family. Kolmogorov's test at 2.2/sqrt(n) (false alarms 2
    exp(-2 * 2.2^2) = 1.3e-4).
    """
    n, steps, edges = 20_000, 400, even(-3.2, 3.2, 320)
    generator = stream("test-fokker-planck", "well")
    x = Gaussian(-0.5, 0.3).sample(n, generator)[:, 0]
    for k in range(steps):
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        x = x + well(x, k / steps) / steps + 0.8 * math.sqrt(1 / steps) * noise
    masses = evolve(masses_of(Gaussian(-0.5, 0.3), edges), edges, well, lambda _: 0.8, [0.0, 1.0])[1]
    ranks = np.interp(np.sort(x.numpy()), edges.numpy(), np.append(0.0, masses.cumsum(0).numpy()))
    assert scipy.stats.kstest(ranks, "uniform").statistic < 2.2 / math.sqrt(n)


def test_what_cannot_be_solved_is_refused_with_what_is_needed() -> None:
    edges = even(-1, 1, 10)
    masses = masses_of(Uniform(), edges)
    still = (lambda x, _: 0 * x, lambda _: 1.0)
    with pytest.raises(ValueError, match="no distribution function"):
        masses_of(Moons(), edges)
    with pytest.raises(ValueError, match="one width"):
        masses_of(Uniform(), edges**3)
    with pytest.raises(ValueError, match=r"shape \[9\]; needed: \[10\]"):
        evolve(masses[1:], edges, *still, [0.0, 1.0])
    with pytest.raises(ValueError, match="increasing"):
        evolve(masses, edges, *still, [1.0, 0.0])
    with pytest.raises(ValueError, match=r"not finite at t = 0\.2113"):
        evolve(masses, edges, lambda x, _: x / 0, lambda _: 1.0, [0.0, 1.0])
    with pytest.raises(ValueError, match="from 0 to t_max"):
        time_marginals(Uniform(), VPLinear(), [2.0])


# --- residuals ------------------------------------------------------------------------------------

T = 0.15
BETA = 0.1 + 19.9 * T  # of `vp-linear`: 3.085
POINT = Gaussian(1.5, 1e-9)  # its law at T is the kernel from x_0 = 1.5, N(x_0 xi, 1 - xi^2)
BELL = Gaussian(0.0, 0.9373)  # the largest |q''| at T is 0.4637: then the talk's forms miss by the figures below
X = torch.linspace(-6, 6, 1201, dtype=torch.float64)
STEPS = {"dx": 0.02, "dt": 1e-3}


@pytest.mark.parametrize("target", [POINT, BELL, GaussianMixture(), Uniform(-1.0, 1.0)], ids=lambda d: d.label())
def test_exact_fields_solve_both_equations(target: Dataset) -> None:
    """Rows A57, A58 (the kernel from a point, exact on this schedule to 1e-9), A60."""
    q, f, g = density_of(target, VPLinear()), drift_of(VPLinear()), diffusion_of(VPLinear())
    assert fokker_planck_residual(q, f, g, X, T, **STEPS).abs().max() < 1e-9
    assert continuity_residual(q, flow_of(exact(target), VPLinear()), X, T, **STEPS).abs().max() < 1e-9


def test_the_law_of_a_point_is_the_kernel_and_its_mean_falls_at_half_of_beta() -> None:
    """Row A58: N(x_0 xi, 1 - xi^2) with xi = exp(-1/2 integral of beta), and mu' = -beta mu / 2."""
    xi = math.exp(-0.5 * (0.1 * T + 0.5 * 19.9 * T**2))
    expected = scipy.stats.norm.pdf(X, 1.5 * xi, math.sqrt(1 - xi**2))
    torch.testing.assert_close(density_of(POINT, VPLinear())(X, T), torch.as_tensor(expected), rtol=0, atol=1e-14)
    before, after = (distribution_at(POINT, VPLinear(), T + h).mean[0] for h in (-1e-4, 1e-4))
    assert (after - before) / 2e-4 == pytest.approx(-0.5 * BETA * 1.5 * xi, rel=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_the_exact_score_solves_its_own_equation_on_every_schedule(schedule: Schedule) -> None:
    t = float(schedule.time_of(torch.tensor([0.8], dtype=torch.float64)))
    if schedule.max_steps is not None:
        inner = schedule.level_times[1:-1]
        t = float(inner[(inner - t).abs().argmin()])
    time = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(time)), float(schedule.sigma(time))
    rate = float(schedule.diffusion_squared(time)) / sigma**2
    x = alpha * torch.linspace(-1, 2, 61, dtype=torch.float64)
    f, g = drift_of(schedule), diffusion_of(schedule)
    left = score_residual(
        score_of(exact(Uniform()), schedule),
        f,
        g,
        x,
        t,
        dx=0.03 * sigma,
        dt=0.01 * min(1 / rate, 2 * (schedule.t_max - t)),
    )
    assert left.abs().max() < 1e-6 * rate / sigma  # in units of the equation's own terms


def test_the_talks_forms_of_the_equations_miss_by_the_stated_figures() -> None:
    """Errata S4-4 (beta for beta/2 in the Fokker-Planck equation: .715) and S4-6 (three wrong
    velocities: 2.146, 1.179, 1.430).
    """
    q, f, g = density_of(BELL, VPLinear()), drift_of(VPLinear()), diffusion_of(VPLinear())
    score = score_of(exact(BELL), VPLinear())
    doubled = fokker_planck_residual(q, f, lambda t: math.sqrt(2) * g(t), X, T, **STEPS).abs().max()
    assert float(doubled) == pytest.approx(0.715, abs=1e-3)
    for factor, figure in ((BETA, 2.146), (1.0, 1.179), (0.5 * BETA, 1.430)):

        def velocity(x: Tensor, t: float, c: float = factor) -> Tensor:
            return -0.5 * BETA * x + c * score(x, t)

        wrong = continuity_residual(q, velocity, X, T, **STEPS)
        assert float(wrong.abs().max()) == pytest.approx(figure, abs=2e-3)
    right = continuity_residual(q, lambda x, t: -0.5 * BETA * (x + score(x, t)), X, T, **STEPS)
    assert right.abs().max() < 1e-9


def test_the_talks_gradient_outside_the_product_is_no_divergence() -> None:
    """Erratum S4-5: <grad q, u> without q <grad, u> loses -q beta/2."""
    q, f, g = density_of(BELL, VPLinear()), drift_of(VPLinear()), diffusion_of(VPLinear())
    complete = fokker_planck_residual(q, f, g, X, T, **STEPS)
    assert float((complete + 0.5 * BETA * q(X, T)).abs().max()) == pytest.approx(
        0.5 * BETA * float(q(X, T).max()), rel=1e-6
    )


def test_the_flow_of_the_stationary_law_stands_still() -> None:
    """Errata S4-6 and S4-12: v = -beta/2 (x + grad log q), which has x in it and not k, vanishes at
    q = N(0, 1).
    """
    assert flow_of(exact(Gaussian()), VPLinear())(X, T).abs().max() < 1e-14


def test_the_error_of_a_learned_score_shows_in_the_continuity_equation_and_in_the_scores_own() -> None:
    """A denoiser that is wrong by a little: the residual is d(q dv)/dx with dv the error of the
    velocity.
    """

    def learned(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return BELL.denoise(x, alpha[:, None], sigma[:, None]) + 0.01 * torch.sin(x)

    schedule = VPLinear()
    q, field, right = density_of(BELL, schedule), flow_of(learned, schedule), flow_of(exact(BELL), schedule)
    left = continuity_residual(q, field, X, T, **STEPS)
    edge, h = X + 1e-3, 2e-3
    expected = (
        q(edge, T) * (field(edge, T) - right(edge, T)) - q(edge - h, T) * (field(edge - h, T) - right(edge - h, T))
    ) / h
    assert left.abs().max() > 1e-3
    torch.testing.assert_close(left, expected, rtol=0, atol=1e-6)
    own = score_residual(
        score_of(learned, schedule), drift_of(schedule), diffusion_of(schedule), X[300:900], T, **STEPS
    )
    assert own.abs().max() > 1e-2


@cache
def trained() -> Denoiser:
    """A network of single precision for the mixture, on the schedule of the figures."""
    data = GaussianMixture().sample(5000, stream("test-fokker-planck", "data"))
    member = Member(GaussianMixture(), VP(), VPLinear(), "fokker-planck")
    return train([member], [data], Training(steps=200, batch=128, width=32, depth=2)).denoiser


def differentiated(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """f, f' and f'' at places ``[n]`` by automatic differentiation."""
    x = x.clone().requires_grad_()
    value = f(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return value.detach(), first.detach(), second


def test_of_a_trained_network_the_residual_of_the_law_is_what_its_error_in_the_velocity_does() -> None:
    """Row A57: d(q dv)/dx with dv the error of the velocity, by automatic differentiation; to the
    rounding of single precision, a few 1e-7 / dx, where the residual goes up to 1 and the exact
    velocity leaves 2e-8.
    """
    target, schedule, dx = GaussianMixture(), VPLinear(), 0.05
    q, learned, right = density_of(target, schedule), flow_of(trained(), schedule), flow_of(exact(target), schedule)
    left = continuity_residual(q, learned, X, T, dx=dx, dt=1e-3)
    assert torch.isfinite(left).all()
    _, expected, _ = differentiated(lambda x: q(x, T) * (learned(x, T) - right(x, T)), X)
    assert expected.abs().max() > 0.5
    assert float((left - expected).abs().max()) < 2e-5
    score, true = score_of(trained(), schedule), score_of(exact(target), schedule)
    _, also, _ = differentiated(lambda x: -0.5 * BETA * q(x, T) * (score(x, T) - true(x, T)), X)
    torch.testing.assert_close(also, expected, rtol=0, atol=1e-5)  # dv = -g^2/2 ds


def test_of_a_trained_network_the_scores_own_residual_is_that_of_automatic_differentiation() -> None:
    """Where the data are; it goes up to 22, and the rounding of single precision leaves a few 1e-7
    / dt of it: 0.001.
    """
    schedule, x, h = VPLinear(), torch.linspace(-2, 2, 201, dtype=torch.float64), 1e-3
    score = score_of(trained(), schedule)
    left = score_residual(score, drift_of(schedule), diffusion_of(schedule), x, T, dx=0.05, dt=h)
    s, first, second = differentiated(lambda y: score(y, T), x)
    change = (8 * (score(x, T + h) - score(x, T - h)) - (score(x, T + 2 * h) - score(x, T - 2 * h))) / (12 * h)
    expected = change - 0.5 * BETA * (second + 2 * s * first + s + x * first)
    assert expected.abs().max() > 5
    assert float((left - expected).abs().max()) < 0.005
