"""Numbers about data that the source documents give or get wrong."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.datasets import FourPoints, GaussianMixture
from diffusion.randomness import stream

SIG = 0.2  # of the notebook: beta = SIG^2 at every step


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def kept(applied_steps: int) -> float:
    """``abar_t`` after t applied steps; 1 before the first."""
    return float((1 - SIG**2) ** applied_steps)


def density(dataset: FourPoints, x: Tensor, abar: float) -> Tensor:
    """q_t(x) where ``x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps``."""
    return dataset.log_density(x[:, None], number(math.sqrt(abar)), number(math.sqrt(1 - abar))).exp()


@pytest.mark.parametrize(("variant", "mean", "variance"), [("text", -2.25, 82.6875), ("code", -1.0, 118.0)])
def test_the_notebooks_text_and_code_have_different_data(variant: str, mean: float, variance: float) -> None:
    """Erratum S3-1."""
    dataset = FourPoints(variant)  # type: ignore[arg-type]
    assert dataset.mean == (mean,)
    assert dataset.std**2 == pytest.approx(variance, rel=1e-15)


@cache
def chain(variant: str, steps: int) -> np.ndarray:
    """The notebook's loop: 20,000 particles, each step ``x <- sqrt(1 - beta) x + sqrt(beta) eps``;
    ``[steps + 1, n]``.
    """
    generator = stream("notebook", variant)
    x = FourPoints(variant).sample(20_000, generator)[:, 0]  # type: ignore[arg-type]
    states = [x]
    for _ in range(steps):
        noise = torch.randn(len(x), generator=generator, dtype=torch.float64)
        x = math.sqrt(1 - SIG**2) * x + SIG * noise
        states.append(x)
    return torch.stack(states).numpy()


def kolmogorov(dataset: FourPoints, states: np.ndarray, abar: float) -> float:
    """Distance of a histogram's staircase from the exact law, whose cdf is the trapezoidal integral
    of its density.
    """
    grid = torch.linspace(-22, 22, 44_001, dtype=torch.float64)
    q = density(dataset, grid, abar).numpy()
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (q[1:] + q[:-1]) * 1e-3)])
    x = np.sort(states)
    exact = np.interp(x, grid.numpy(), cdf)
    n = len(x)
    return float(max(np.abs(exact - np.arange(n) / n).max(), np.abs(exact - np.arange(1, n + 1) / n).max()))


@pytest.mark.parametrize("variant", ["text", "code"])
@pytest.mark.parametrize("steps", [1, 2, 10, 40])
def test_time_marginals_are_those_of_the_chain_when_t_counts_applied_steps(variant: str, steps: int) -> None:
    """Erratum S3-2: the notebook draws the curve of t + 1 steps over the particles of t.

    The right curve passes Kolmogorov's test (false alarms ``2 exp(-2 * 2.5^2)`` = 7e-6), the
    notebook's does not.
    """
    dataset = FourPoints(variant)  # type: ignore[arg-type]
    states = chain(variant, 40)[steps]
    threshold = 2.5 / math.sqrt(len(states))
    assert kolmogorov(dataset, states, kept(steps)) <= threshold
    if steps <= 10:
        assert kolmogorov(dataset, states, kept(steps + 1)) > 2 * threshold


@pytest.mark.parametrize("variant", ["text", "code"])
@pytest.mark.parametrize("steps", [1, 5, 60, 199])
def test_time_marginals_are_four_bells_of_the_recursions_means_and_variance(variant: str, steps: int) -> None:
    dataset = FourPoints(variant)  # type: ignore[arg-type]
    means, variance = dataset.points[:, 0].numpy().copy(), 0.0
    for _ in range(steps):
        means, variance = math.sqrt(1 - SIG**2) * means, (1 - SIG**2) * variance + SIG**2
    x = torch.linspace(-16, 16, 3201, dtype=torch.float64)  # the notebook's grid
    bells = np.exp(-((x.numpy()[:, None] - means) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    np.testing.assert_allclose(density(dataset, x, kept(steps)).numpy(), bells.mean(1), rtol=1e-10, atol=1e-13)
    inside = torch.linspace(-22, 22, 4401, dtype=torch.float64)
    assert density(dataset, inside, kept(steps)).sum().item() * 0.01 == pytest.approx(1, abs=1e-6)


def test_the_notebooks_first_curve_is_a_bell_beside_the_atom_it_should_be() -> None:
    """Erratum S3-2 at t = 0: the mean 14.697 and the variance .04 of one step, where the particles
    are still at 15.
    """
    x = torch.linspace(13, 16, 30_001, dtype=torch.float64)
    q = density(FourPoints("code"), x, kept(1))
    assert x[q.argmax()].item() == pytest.approx(14.697, abs=5e-4)
    mass = q.sum() * 1e-4
    mean = (q * x).sum() * 1e-4 / mass
    assert mass.item() == pytest.approx(0.25, abs=1e-9)
    assert ((q * (x - mean) ** 2).sum() * 1e-4 / mass).item() == pytest.approx(0.04, abs=1e-9)
    assert set(chain("code", 40)[0]) == {-15.0, -5.0, 1.0, 15.0}


def test_a_bell_narrower_than_the_grid_does_not_integrate_to_one_on_it() -> None:
    """Erratum S3-3: the variance 1e-10 that stands in for 0 gives 398.94 on the notebook's grid of
    spacing .01.
    """
    x = torch.linspace(-16, 16, 3201, dtype=torch.float64)

    def integral(sigma: float) -> float:
        return FourPoints("code").log_density(x[:, None], number(1.0), number(sigma)).exp().sum().item() * 0.01

    assert integral(1e-5) == pytest.approx(398.94, abs=0.005)
    assert integral(0.01) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("variant", "mean", "variance"), [("text", -0.03796, 1.02325), ("code", -0.01687, 1.03330)])
def test_two_hundred_steps_do_not_quite_reach_the_standard_normal_law(
    variant: str, mean: float, variance: float
) -> None:
    """Erratum S3-8: what is left of the data in mean and variance, from the density and in closed
    form.
    """
    dataset = FourPoints(variant)  # type: ignore[arg-type]
    abar = kept(200)
    assert math.sqrt(abar) * dataset.mean[0] == pytest.approx(mean, abs=5e-6)
    assert abar * dataset.std**2 + 1 - abar == pytest.approx(variance, abs=5e-6)
    x = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    q = density(dataset, x, abar) * 0.01
    assert (q * x).sum().item() == pytest.approx(mean, abs=5e-6)
    assert (q * (x - (q * x).sum()) ** 2).sum().item() == pytest.approx(variance, abs=5e-6)


def clean_score(x: Tensor) -> Tensor:
    """That of the density itself: noise of 1e-9 is none."""
    return GaussianMixture().score(x[:, None], number(1.0), number(1e-9))[:, 0]


@pytest.mark.parametrize(
    ("root", "slope"), [(-1.999975, -1.0), (2.000000, -1.0), (-1.213288, 1.0)], ids=["left", "right", "between"]
)
def test_the_default_mixture_has_the_modes_and_the_antimode_of_the_worked_example(root: float, slope: float) -> None:
    left, right = clean_score(torch.tensor([root - 1e-6, root + 1e-6], dtype=torch.float64)).tolist()
    assert slope * left < 0 < slope * right


def test_gradient_ascent_ends_in_the_mode_on_its_side_of_the_antimode() -> None:
    """Row A52: ``x <- x + tau grad log p(x)`` climbs to a root of the score."""
    x = torch.tensor([-3.0, -1.22, -1.20, 5.0], dtype=torch.float64)
    for _ in range(2500):
        x = x + 0.01 * clean_score(x)
    modes = torch.tensor([-1.99997495, -1.99997495, 2.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(x, modes, rtol=0, atol=1e-9)


def test_paths_of_the_variance_preserving_chain_follow_the_exact_mixture_at_every_time() -> None:
    """Row A47: Kolmogorov's test against the noised mixture's own cdf, false alarms 7e-6 for each
    time.
    """
    n, beta = 20_000, 0.02
    generator = stream("mixture chain")
    dataset = GaussianMixture()
    x = dataset.sample(n, generator)[:, 0]
    for t in range(1, 201):
        x = math.sqrt(1 - beta) * x + math.sqrt(beta) * torch.randn(n, generator=generator, dtype=torch.float64)
        if t in (1, 20, 60, 200):
            a = math.sqrt((1 - beta) ** t)
            stds = tuple(math.sqrt((a * s) ** 2 + 1 - a * a) for s in dataset.stds)
            noised = GaussianMixture(dataset.weights, tuple(a * m for m in dataset.means), stds)  # type: ignore[operator]
            at = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]
            p = dataset.log_density(at, number(a), number(math.sqrt(1 - a * a)))
            torch.testing.assert_close(p, noised.log_density(at, number(1.0), number(1e-12)), rtol=1e-9, atol=1e-9)
            gap = noised.cdf(x.sort().values) - torch.arange(n) / n
            assert gap.abs().max() <= 2.5 / math.sqrt(n) + 1 / n


def test_the_component_is_the_latent_variable_of_a_mixture() -> None:
    """Row A44: p(z | x) by Bayes' rule from w_k and p(x | z) = N(mu_k, s_k^2), and it adds up to
    one, also far away and under noise.
    """
    dataset = GaussianMixture((0.2, 0.5, 0.3), (-2.0, 0.5, 2.0), (0.2, 1.0, 0.6))
    x = torch.tensor([-30.0, -2.2, -1.3, 0.0, 1.9, 40.0], dtype=torch.float64)
    for alpha, sigma in ((1.0, 1e-9), (0.6, 0.8)):
        found = dataset.responsibilities(x[:, None], number(alpha), number(sigma))
        assert found.shape == (6, 3)
        torch.testing.assert_close(found.sum(1), torch.ones(6, dtype=torch.float64), rtol=1e-14, atol=0)
        stds = torch.tensor([math.hypot(alpha * s, sigma) for s in dataset.stds], dtype=torch.float64)
        means = alpha * torch.tensor(dataset.means, dtype=torch.float64)
        likelihood = torch.exp(-0.5 * ((x[:, None] - means) / stds) ** 2) / (stds * math.sqrt(2 * math.pi))
        joint = torch.tensor(dataset.weights, dtype=torch.float64) * likelihood
        near = joint.sum(1) > 0
        torch.testing.assert_close(found[near], (joint / joint.sum(1, keepdim=True))[near], rtol=1e-9, atol=1e-300)
        evidence = dataset.log_density(x[:, None], number(alpha), number(sigma)).exp()
        torch.testing.assert_close(joint.sum(1), evidence, rtol=1e-9, atol=1e-300)
