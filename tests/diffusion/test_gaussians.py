"""Divergences of normal distributions: against integration, another library, and the tutorial's
shorter forms.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from diffusion.analysis.gaussians import divergence, divergence_from_standard, isotropic_divergence, log_normal_density
from diffusion.randomness import stream


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def some_distribution(dim: int, name: str) -> tuple[Tensor, Tensor]:
    """A mean and a covariance without symmetries."""
    generator = stream("gaussians", name, dim)
    root = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    mean = torch.randn(dim, generator=generator, dtype=torch.float64)
    return mean, root @ root.T + 0.1 * torch.eye(dim, dtype=torch.float64)


@pytest.mark.parametrize(
    ("one", "other"), list(itertools.permutations([(0.0, 1.0), (0.3, 0.2), (-2.0, 1.7), (0.3, 0.201)], 2))
)
def test_on_the_line_the_divergence_is_its_integral(one: tuple[float, float], other: tuple[float, float]) -> None:
    p, q = norm(*one), norm(*other)
    edges = [one[0] - 12 * one[1], one[0] + 12 * one[1]]
    expected = quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), *edges, epsabs=1e-13, limit=200)[0]
    means, variances = zip(*[(numbers(m), numbers(s**2)) for m, s in (one, other)], strict=True)
    found = divergence(means[0], variances[0][:, None], means[1], variances[1][:, None])
    assert float(found) == pytest.approx(expected, abs=1e-11)
    short = isotropic_divergence((means[0] - means[1]).square(), variances[0], variances[1], 1)
    assert float(short) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_divergence_is_that_of_another_library_and_of_the_formula_with_an_inverse(dim: int) -> None:
    (m0, S0), (m1, S1) = some_distribution(dim, "one"), some_distribution(dim, "other")
    found = float(divergence(m0, S0, m1, S1))
    assert found == pytest.approx(
        float(kl_divergence(MultivariateNormal(m0, S0), MultivariateNormal(m1, S1))), rel=1e-10
    )
    inverse = torch.linalg.inv(S1)
    offset = (m1 - m0) @ inverse @ (m1 - m0)
    volume = torch.logdet(S1) - torch.logdet(S0)
    assert found == pytest.approx(float((torch.trace(inverse @ S0) - dim + offset + volume) / 2), rel=1e-9)
    assert float(divergence(m0, S0, m0, S0)) == pytest.approx(0, abs=1e-12)


def test_the_divergence_is_no_distance() -> None:
    (m0, S0), (m1, S1) = some_distribution(3, "one"), some_distribution(3, "other")
    assert abs(float(divergence(m0, S0, m1, S1) - divergence(m1, S1, m0, S0))) > 0.1


@pytest.mark.parametrize("dim", [1, 4])
def test_the_price_of_a_latent_variable_is_the_divergence_from_the_standard_law(dim: int) -> None:
    """Also in the tutorial's form for one variance, (d s^2 + |m|^2 - d - 2 d ln s) / 2; many laws
    at once.
    """
    mean = torch.randn(7, dim, generator=stream("encoder"), dtype=torch.float64)
    log_std = 0.5 * torch.randn(7, dim, generator=stream("encoder, spread"), dtype=torch.float64)
    zero, eye = torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)
    expected = divergence(mean, torch.diag_embed(torch.exp(2 * log_std)), zero, eye)
    torch.testing.assert_close(divergence_from_standard(mean, log_std), expected, rtol=1e-10, atol=1e-12)
    one, s = log_std[:, :1], torch.exp(log_std[:, 0])
    tutorial = (dim * s**2 + mean.square().sum(1) - dim - 2 * dim * torch.log(s)) / 2
    torch.testing.assert_close(divergence_from_standard(mean, one.expand(7, dim)), tutorial, rtol=1e-10, atol=1e-12)
    isotropic = isotropic_divergence(mean.square().sum(1), s**2, torch.ones(7, dtype=torch.float64), dim)
    torch.testing.assert_close(isotropic, tutorial, rtol=1e-10, atol=1e-12)


def test_of_equal_variances_it_is_half_the_squared_distance_in_units_of_the_variance() -> None:
    """The tutorial's "just the squared distance" is off by 2 v: at v = 0.01, fifty times."""
    (m0, _), (m1, _) = some_distribution(3, "one"), some_distribution(3, "other")
    distance, v = (m0 - m1).square().sum(), numbers(0.01)[0]
    covariance = v * torch.eye(3, dtype=torch.float64)
    expected = float(divergence(m0, covariance, m1, covariance))
    assert float(isotropic_divergence(distance, v, v, 3)) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(float(distance / (2 * v)), rel=1e-12)
    assert expected / float(distance) == pytest.approx(50, rel=1e-9)


def test_nearly_equal_variances_lose_no_digits() -> None:
    """To second order the divergence is d (v_0/v_1 - 1)^2 / 4: 1e-14 where v_0/v_1 - 1 is 2e-7."""
    v = numbers(1.0)
    found = float(isotropic_divergence(numbers(0.0), v * (1 + 2e-7), v, 1))
    assert found == pytest.approx(1e-14, rel=1e-2)


def test_the_density_integrates_to_one_and_is_another_librarys() -> None:
    x = torch.linspace(-9, 9, 2001, dtype=torch.float64)[:, None]
    v = numbers(0.7).expand(2001)
    density = log_normal_density(x, 0.2 * torch.ones_like(x), v).exp()
    assert float(torch.trapezoid(density, x[:, 0])) == pytest.approx(1, abs=1e-12)
    y = torch.randn(5, 3, generator=stream("density"), dtype=torch.float64)
    expected = norm.logpdf(y.numpy(), 0.5, math.sqrt(0.3)).sum(1)
    np.testing.assert_allclose(
        log_normal_density(y, 0.5 * torch.ones_like(y), numbers(0.3).expand(5)), expected, rtol=1e-12
    )
