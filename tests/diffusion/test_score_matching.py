"""Objectives of score matching: on Gaussian data values and minimisers are the closed forms, and
the documents' variants miss them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from diffusion.analysis.score_matching import (
    Probes,
    denoising_loss,
    draw_probes,
    fisher_divergence,
    hutchinson,
    implicit_loss,
    normaliser,
    score_of,
    sliced_loss,
    trace_of_jacobian,
)
from diffusion.datasets import FourPoints, Gaussian, GaussianMixture, Uniform
from diffusion.randomness import stream
from diffusion.schedules import VPLinear

S = torch.tensor([[1.0, 0.3, 0.0], [0.3, 0.5, -0.1], [0.0, -0.1, 2.0]], dtype=torch.float64)
MEAN = torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64)
SIGMA = 0.6
LAWS: tuple[Probes, ...] = ("gaussian", "rademacher")


def number(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def gaussian_quadrature(covariance: Tensor, nodes: int = 6) -> tuple[Tensor, Tensor]:
    """Points and weights that integrate polynomials of degree 11 in each coordinate against
    ``N(MEAN, covariance)``.
    """
    x, w = (torch.as_tensor(part) for part in np.polynomial.hermite_e.hermegauss(nodes))
    d = len(covariance)
    grid = torch.cartesian_prod(*[x] * d).reshape(-1, d)
    weights = torch.cartesian_prod(*[w / math.sqrt(2 * math.pi)] * d).reshape(-1, d).prod(-1)
    return grid @ torch.linalg.cholesky(covariance).T + MEAN, weights


def linear(a: Tensor, b: Tensor) -> Callable[[Tensor], Tensor]:
    """``s(x) = A x + b``."""
    return lambda x: x @ a.T + b


def net(dim: int) -> Callable[[Tensor], Tensor]:
    """Some smooth function of several dimensions."""
    a = torch.randn(dim, 7, generator=stream("net"), dtype=torch.float64)
    c = torch.randn(7, dim, generator=stream("net, out"), dtype=torch.float64)
    return lambda x: torch.tanh(x @ a) @ c


# --- the trace ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a34_the_exact_trace_is_that_of_autograds_jacobian(dim: int) -> None:
    x = torch.randn(9, dim, generator=stream("x"), dtype=torch.float64)
    score = net(dim)
    expected = torch.stack([torch.autograd.functional.jacobian(score, point).trace() for point in x])
    torch.testing.assert_close(trace_of_jacobian(score, x), expected, rtol=1e-12, atol=1e-12)


def test_the_trace_of_a_score_that_ignores_its_input_is_zero() -> None:
    x = torch.randn(4, 3, generator=stream("x"), dtype=torch.float64)
    assert torch.equal(trace_of_jacobian(lambda _: torch.ones(4, 3, dtype=torch.float64), x), torch.zeros(4).double())


def jacobian(score: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(score, point)  # type: ignore[no-any-return]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("count", [1, 4, 16])
def test_a35_hutchinsons_variance_is_that_of_theory_and_falls_like_one_over_m(law: Probes, count: int) -> None:
    """``2 |J|_F^2`` for normal probes and ``2 (|J|_F^2 - sum J_ii^2)`` for signs, J symmetrised,
    divided by the number of probes.

    Mean within 4 standard errors (false alarms 6e-5 each), variance within 12 %: 4.5 standard
    errors where the kurtosis is 15, the most that a quadratic form of normal numbers has.
    """
    n, score = 20_000, net(4)
    point = torch.tensor([0.3, -0.2, 0.9, 0.1], dtype=torch.float64)
    full = jacobian(score, point)
    j = 0.5 * (full + full.T)
    theory = 2 * float(j.square().sum() - (j.diagonal().square().sum() if law == "rademacher" else 0)) / count
    probes = draw_probes(law, (n, count, 4), stream("hutchinson", law, count))
    found = hutchinson(score, point.expand(n, 4), probes).detach()
    assert abs(float(found.mean() - full.trace())) <= 4 * math.sqrt(theory / n)
    assert float(found.var()) == pytest.approx(theory, rel=0.12)


def test_a35_signs_beat_normal_probes_and_are_exact_on_a_diagonal_jacobian() -> None:
    x = torch.randn(5, 3, generator=stream("x"), dtype=torch.float64)
    scale = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    signs = draw_probes("rademacher", (5, 1, 3), stream("signs"))
    torch.testing.assert_close(hutchinson(lambda u: scale * torch.sin(u), x, signs), (scale * torch.cos(x)).sum(-1))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("count", [1, 8])
def test_a35_the_variance_of_the_sliced_objective_is_that_of_a_quadratic_form(count: int) -> None:
    """Given x, with normal probes: ``2 |J + s s'/2|_F^2 / M`` plain and ``2 |J|_F^2 / M`` reduced
    (bounds as above).
    """
    n, score = 20_000, linear(-torch.linalg.inv(S), torch.linalg.inv(S) @ MEAN)
    point = torch.tensor([1.5, 0.2, -0.4], dtype=torch.float64)
    j, s = -torch.linalg.inv(S), score(point)
    probes = draw_probes("gaussian", (n, count, 3), stream("sliced", count))
    for reduced, form in ((False, j + 0.5 * torch.outer(s, s)), (True, j)):
        found = sliced_loss(score, point.expand(n, 3), probes, variance_reduced=reduced).detach()
        theory = 2 * float(form.square().sum()) / count
        exact = float(j.trace() + 0.5 * s.square().sum())
        assert abs(float(found.mean()) - exact) <= 4 * math.sqrt(theory / n)
        assert float(found.var()) == pytest.approx(theory, rel=0.12)


def test_sliced_with_reduced_variance_is_implicit_with_the_same_probes() -> None:
    x = torch.randn(6, 3, generator=stream("x"), dtype=torch.float64)
    probes = draw_probes("gaussian", (6, 2, 3), stream("probes"))
    assert torch.equal(sliced_loss(net(3), x, probes, variance_reduced=True), implicit_loss(net(3), x, probes))


# --- values and minimisers on Gaussian data -------------------------------------------------------


def all_signs(points: int, dim: int) -> Tensor:
    """Every vector of signs, as probes ``[points, 2^dim, dim]``: their mean is an exact expectation
    over signs of v v'.
    """
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * dim)
    return signs.expand(points, -1, -1)


Objective = Callable[[Callable[[Tensor], Tensor]], Tensor]


def implicit(score: Callable[[Tensor], Tensor]) -> Tensor:
    x, w = gaussian_quadrature(S)
    return (w * implicit_loss(score, x)).sum()


def sliced(score: Callable[[Tensor], Tensor]) -> Tensor:
    x, w = gaussian_quadrature(S)
    return (w * sliced_loss(score, x, all_signs(len(x), 3))).sum()


def sliced_reduced(score: Callable[[Tensor], Tensor]) -> Tensor:
    x, w = gaussian_quadrature(S)
    return (w * sliced_loss(score, x, all_signs(len(x), 3), variance_reduced=True)).sum()


def denoising(score: Callable[[Tensor], Tensor]) -> Tensor:
    """Over data and noise together, by a quadrature of three nodes each, exact for quadratic
    functions.
    """
    x, w = gaussian_quadrature(S, 3)
    e, v = gaussian_quadrature(torch.eye(3, dtype=torch.float64), 3)
    data, noise = x.repeat_interleave(len(e), 0), (e - MEAN).repeat(len(x), 1)
    return (torch.outer(w, v).reshape(-1) * denoising_loss(score, data, noise, SIGMA)).sum()


NOISED = S + SIGMA**2 * torch.eye(3, dtype=torch.float64)
INVERSE, INVERSE_NOISED = torch.linalg.inv(S), torch.linalg.inv(NOISED)
DENOISING_LEAST = 0.5 * (
    3 / SIGMA**2 - float(INVERSE_NOISED.trace())
)  # E|eps/sigma|^2 / 2 less that of the noised score


def minimiser(objective: Objective) -> tuple[Tensor, Tensor, float]:
    """A and b of the linear score at which a quadratic objective is least, and the value there: one
    Newton step.
    """

    def of(theta: Tensor) -> Tensor:
        return objective(linear(theta[:9].reshape(3, 3), theta[9:]))

    start = torch.zeros(12, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(of, start)
    hessian = torch.autograd.functional.hessian(of, start)
    theta = start - torch.linalg.solve(hessian, gradient)
    return theta[:9].reshape(3, 3), theta[9:], float(of(theta).detach())


@pytest.mark.parametrize(
    ("objective", "inverse", "least"),
    [
        (implicit, INVERSE, -0.5 * float(INVERSE.trace())),
        (sliced, INVERSE, -0.5 * float(INVERSE.trace())),
        (sliced_reduced, INVERSE, -0.5 * float(INVERSE.trace())),
        (denoising, INVERSE_NOISED, DENOISING_LEAST),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a33_a35_a36_linear_scores_have_the_closed_forms_as_optimum(
    objective: Objective, inverse: Tensor, least: float
) -> None:
    """``A = -S^-1`` and ``-1/2 tr S^-1``; of the denoising objective ``A = -(S + sigma^2)^-1``: the
    score of the noised law.
    """
    a, b, value = minimiser(objective)
    torch.testing.assert_close(a, -inverse, rtol=0, atol=1e-9)
    torch.testing.assert_close(b, inverse @ MEAN, rtol=0, atol=1e-9)
    assert value == pytest.approx(least, abs=1e-9)


def test_s1_8_the_documents_empirical_sliced_objective_does_not_see_the_data() -> None:
    """Its second term, ``(eps/2)(grad s)^2``, is of the Jacobian: for linear s nothing depends on
    x, the minimiser is ``-I/eps``.
    """
    eps = 0.1

    def of_the_notes(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        jac = torch.stack([jacobian_with_graph(score, point) for point in x])
        return (jac.diagonal(dim1=-2, dim2=-1).sum(-1) + 0.5 * eps * jac.square().sum((-1, -2))).mean()

    def jacobian_with_graph(score: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
        return torch.autograd.functional.jacobian(score, point, create_graph=True)  # type: ignore[no-any-return]

    for covariance in (S, 4 * S, torch.eye(3, dtype=torch.float64)):
        x = gaussian_quadrature(covariance, 2)[0]
        a = minimiser(lambda score, x=x: of_the_notes(score, x) + 1e-12 * score(x).square().sum())[0]  # type: ignore[misc]
        torch.testing.assert_close(a, -torch.eye(3, dtype=torch.float64) / eps, rtol=1e-6, atol=1e-6)
    assert (minimiser(sliced)[0] + torch.eye(3, dtype=torch.float64) / eps).abs().max() > 1


def test_s1_8_the_right_objective_has_the_value_of_the_closed_form() -> None:
    """-0.914634 for S = ((2, .6), (.6, 1)); of 200 000 draws with one probe each within 4 standard
    errors (false alarms 6e-5).
    """
    covariance = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    inverse = torch.linalg.inv(covariance)
    assert -0.5 * float(inverse.trace()) == pytest.approx(-0.914634, abs=5e-7)
    generator = stream("s1-8")
    n = 200_000
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    score = linear(-inverse, torch.zeros(2, dtype=torch.float64))
    found = sliced_loss(score, x, draw_probes("gaussian", (n, 1, 2), generator)).detach()
    assert abs(float(found.mean()) + 0.914634) <= 4 * float(found.std()) / math.sqrt(n)


def test_a36_the_denoising_optimum_is_not_the_score_of_the_data() -> None:
    a = minimiser(denoising)[0]
    assert (a + INVERSE).abs().max() > 0.3
    assert (a + INVERSE_NOISED).abs().max() < 1e-9


# --- Fisher divergence ----------------------------------------------------------------------------


def test_a32_fisher_divergence_is_the_implicit_value_and_half_the_power_of_the_score() -> None:
    """On a Gaussian by quadrature, for scores that are not its own; the notes leave the last term
    away (S1-4: 0 against -1/2 on N(0,1)).
    """
    x, w = gaussian_quadrature(S)
    exact = -(x - MEAN) @ INVERSE
    power = 0.5 * (w * exact.square().sum(-1)).sum()
    assert float(power) == pytest.approx(0.5 * float(INVERSE.trace()), abs=1e-10)
    for score in (linear(torch.eye(3).double(), MEAN), lambda u: u - 0.05 * u**3, lambda u: u * 0.0):
        fisher = 0.5 * (w * (score(x) - exact).square().sum(-1)).sum()
        assert float(implicit(score).detach() + power) == pytest.approx(float(fisher), abs=1e-9)
    assert float(implicit(linear(-INVERSE, INVERSE @ MEAN)).detach()) == pytest.approx(-float(power), abs=1e-9)


def test_a32_fisher_divergence_of_noised_targets_is_zero_for_the_exact_score_and_known_for_another() -> None:
    """For ``s = 0`` on a Gaussian it is ``1/2 d / (s^2 + sigma^2)``: within 4 standard errors,
    false alarms 6e-5.
    """
    dataset = Gaussian(0.3, 1.5, dim=2)
    variance = 1.5**2 + 0.4**2
    zero, error = fisher_divergence(torch.zeros_like, dataset, 0.4, stream("fisher"))
    assert abs(zero - 1 / variance) < 4 * error
    right = score_of(lambda x, a, s: dataset.denoise(x, a[:, None], s[:, None]), 1.0, 0.4)
    assert fisher_divergence(right, dataset, 0.4, stream("fisher"))[0] < 1e-24
    for target in (Uniform(), FourPoints()):
        mine = score_of(lambda x, a, s, target=target: target.denoise(x, a[:, None], s[:, None]), 0.8, 0.4)
        assert fisher_divergence(mine, target, 0.4, stream("fisher"), alpha=0.8)[0] < 1e-18
    with pytest.raises(ValueError, match="sigma must be positive"):
        fisher_divergence(torch.zeros_like, dataset, 0.0, stream("fisher"))


def clean_uniform_value(c: float, p: int) -> float:
    """The implicit objective of ``s = -c (2x - 1)^p`` on U[0, 1], by quadrature from the code under
    test.
    """

    def at(x: float) -> float:
        point = torch.tensor([[x]], dtype=torch.float64)
        return float(implicit_loss(lambda u: -c * (2 * u - 1) ** p, point).detach())

    return float(quad(at, 0, 1, limit=200)[0])


def test_s1_4_on_clean_uniform_data_the_implicit_objective_falls_without_bound() -> None:
    """Closed form ``-2c + c^2 / (2 (2p + 1))``, least at ``c = 2 (2p + 1)``: -2 (2p + 1), for p =
    1, 3, 5, 11 -6, -14, -22, -46.
    """
    for p, least in ((1, -6.0), (3, -14.0), (5, -22.0), (11, -46.0)):
        assert clean_uniform_value(2.0 * (2 * p + 1), p) == pytest.approx(least, abs=1e-7)


def test_s1_4_on_noised_uniform_data_it_is_bounded_by_the_power_of_the_exact_score() -> None:
    """The same scores stay above ``-1/2 E |grad log p_sigma|^2``, by quadrature."""
    target, sigma = Uniform(), 0.1

    def density(x: float) -> float:
        return float(target.log_density(torch.tensor([[x]], dtype=torch.float64), number(1.0), number(sigma)).exp())

    def power(x: float) -> float:
        exact = target.score(torch.tensor([[x]], dtype=torch.float64), number(1.0), number(sigma))
        return 0.5 * float(exact) ** 2 * density(x)

    bound = -float(quad(power, -1, 2, limit=200, points=[0, 1])[0])
    for c, p in ((6.0, 1), (14.0, 3), (22.0, 5), (46.0, 11)):

        def value(x: float, c: float = c, p: int = p) -> float:
            score = implicit_loss(lambda u: -c * (2 * u - 1) ** p, torch.tensor([[x]], dtype=torch.float64))
            return float(score.detach()) * density(x)

        assert float(quad(value, -1, 2, limit=200, points=[0, 1])[0]) > bound


# --- denoising and Fisher -------------------------------------------------------------------------


def test_a61_the_gradient_of_the_denoising_objective_is_that_of_the_fisher_divergence() -> None:
    """On a mixture, in the parameters of a small network: 4e5 paired draws, each component within 4
    standard errors.

    Eight components, false alarms 5e-4 in all; the draws are fixed.
    """
    target, sigma, n = GaussianMixture(), 0.5, 400_000
    generator = stream("a61")
    data = target.sample(n, generator)
    noise = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    exact = target.score(data + sigma * noise, number(1.0), number(sigma))
    theta = torch.randn(8, generator=generator, dtype=torch.float64)

    def per_point(theta: Tensor, answer: Tensor, x: Tensor) -> Tensor:
        score = (theta[:4] * torch.tanh(x * theta[4:])).sum(-1)
        return 0.5 * (score - answer) ** 2

    gradient = torch.func.vmap(torch.func.grad(per_point), in_dims=(None, 0, 0))
    x = (data + sigma * noise)[:, 0]
    difference = gradient(theta, -noise[:, 0] / sigma, x) - gradient(theta, exact[:, 0], x)
    assert (difference.mean(0).abs() <= 4 * difference.std(0) / math.sqrt(n)).all()
    values = denoising_loss(lambda u: u * 0.0, data, noise, sigma)
    fisher = fisher_divergence(torch.zeros_like, target, sigma, stream("a61, values"), samples=n)[0]
    assert float(values.mean()) > 1.3 * fisher  # the objectives differ by a constant that is not small


def test_s4_10_the_unweighted_denoising_objective_diverges_with_the_earliest_time() -> None:
    """N(0, 1) data on the linear VP path, optimal score -x: the integrand is ``alpha^2 / sigma^2``
    and grows like 1/t.

    The document's integral from 0 does not exist: each decade of cut-off adds 23. With the weight
    ``sigma^2`` it converges.
    """
    schedule = VPLinear()

    def residual(t: float) -> tuple[float, float]:
        """E |s - grad log k|^2 by quadrature over data and noise, and sigma^2."""
        time = number(t)
        alpha, sigma = float(schedule.alpha(time)), float(schedule.sigma(time))
        z, w = np.polynomial.hermite_e.hermegauss(4)
        x0, eps = np.meshgrid(z, z)
        x = torch.as_tensor(alpha * x0 + sigma * eps).reshape(-1, 1)
        loss = denoising_loss(
            lambda _: -x, torch.as_tensor(alpha * x0).reshape(-1, 1), torch.as_tensor(eps).reshape(-1, 1), sigma
        )
        return 2 * float((torch.as_tensor(np.outer(w, w)).reshape(-1) * loss).sum()) / (2 * math.pi), sigma**2

    def integral(start: float, weighted: bool) -> float:
        """In the logarithm of t."""

        def at(u: float) -> float:
            value, weight = residual(math.exp(u))
            return value * math.exp(u) * (weight if weighted else 1.0)

        return float(quad(at, math.log(start), 0, limit=200)[0])

    cuts = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    plain = [integral(cut, weighted=False) for cut in cuts]
    assert plain == pytest.approx([6.55, 23.6, 45.8, 68.7, 91.7], abs=0.06)
    weighted = [integral(cut, weighted=True) for cut in cuts]
    assert weighted[-1] - weighted[-2] < 2e-5


# --- energies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a31_the_normaliser_of_a_gaussian_energy_is_its_closed_form_and_not_the_reciprocal(dim: int) -> None:
    """S1-2: the notes' ``1/(2 pi)^(d/2)`` is the prefactor of the density: for d = 3, 0.0635 in
    place of 15.7496.
    """
    found = normaliser(lambda x: -0.5 * (x - 0.3).square().sum(-1), dim, reach=10.0)
    assert found == pytest.approx((2 * math.pi) ** (dim / 2), rel=1e-10)
    assert abs(found - (2 * math.pi) ** (-dim / 2)) > 2


def test_a31_the_score_of_an_energy_does_not_know_its_normaliser() -> None:
    """``exp(f)/Z`` and ``exp(f + c)/Z'`` have one score, that of the normalised density (finite
    differences).
    """

    def energy(x: Tensor) -> Tensor:
        return -0.25 * x.square().sum(-1) ** 2 + 0.5 * x[..., 0]

    z = normaliser(energy, 1, reach=8.0)
    quadrature = quad(lambda v: math.exp(-0.25 * v**4 + 0.5 * v), -math.inf, math.inf, epsabs=1e-13)[0]
    assert z == pytest.approx(quadrature, rel=1e-10)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].requires_grad_()
    for shift in (0.0, 3.7):
        (score,) = torch.autograd.grad((energy(x) + shift).sum(), x)
        step = 1e-5
        log_p = [(energy(x.detach() + h) - math.log(z)) for h in (-step, step)]
        torch.testing.assert_close(score[:, 0], (log_p[1] - log_p[0]) / (2 * step), rtol=0, atol=1e-8)


def test_a_normaliser_that_quadrature_cannot_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="use fewer dimensions or a smaller reach"):
        normaliser(lambda x: -100 * x.abs().sum(-1), 3, reach=10.0)
