"""Degradations: linear maps that do what they say, and the error of the best estimate of what they
hide.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import norm
from torch import Tensor

from diffusion.datasets import Dataset, EightGaussians, Gaussian, GaussianMixture, PointSet, Torus, Uniform
from diffusion.datasets.degradations import (
    Blur,
    Degradation,
    GaussianNoise,
    Mask,
    Projection,
    _of_mixture,
    degradations,
)
from diffusion.randomness import stream

EVERY: dict[str, Degradation] = {
    made.label(): made
    for made in (
        *(entry.cls() for entry in degradations),
        GaussianNoise(2.0, alone=True),
        Blur(0.1, 0.7),
        Blur(0.0, 3.0, "line"),
        Mask(0.5, (1, 3)),
        Mask(hole=3),
        Projection(0.2, tuple(float(j) for j in range(16))),
    )
}
every_degradation = pytest.mark.parametrize("degradation", EVERY.values(), ids=EVERY.keys())

SIDE = 4


def points(n: int = 50) -> torch.Tensor:
    return torch.randn(n, SIDE**2, generator=stream("degradations"), dtype=torch.float64)


@every_degradation
def test_an_observation_is_a_linear_map_of_the_data_and_white_noise(degradation: Degradation) -> None:
    x, n = points(), points().flip(0)
    m = degradation.matrix(SIDE**2)
    torch.testing.assert_close(degradation.map(x), x @ m.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(degradation.observe(x, n), x @ m.T + degradation.noise * n, rtol=0, atol=1e-12)
    assert degradation.blind == (not m.any())


@every_degradation
def test_a_point_is_observed_alike_whatever_is_beside_it(degradation: Degradation) -> None:
    x = points(101)
    whole = degradation.map(x)
    for n in (1, 7, 64):
        assert torch.equal(degradation.map(x[:n].clone()), whole[:n])
    assert torch.equal(degradation.map(x[None, :10]), whole[None, :10])


@pytest.mark.parametrize("width", [0.3, 1.0, 2.5, 9.0])
def test_a_blur_is_that_of_another_library_and_keeps_the_light(width: float) -> None:
    """scipy mirrors at the edge as well (its `reflect`) and cuts its kernel where it is told to."""
    x = points(3)
    pictures = x.unflatten(1, (SIDE, SIDE)).numpy()
    radius = math.ceil(6 * width)
    expected = gaussian_filter(pictures, width, mode="reflect", axes=(1, 2), radius=radius)
    np.testing.assert_allclose(Blur(width=width).map(x), expected.reshape(3, -1), atol=1e-13)
    m = Blur(width=width).matrix(SIDE**2)
    ones = torch.ones(SIDE**2, dtype=torch.float64)
    torch.testing.assert_close(m.sum(0), ones, rtol=0, atol=1e-12)
    torch.testing.assert_close(m.sum(1), ones, rtol=0, atol=1e-12)


def test_a_hole_lies_in_the_middle_and_a_projection_stays_where_it_is() -> None:
    seen = Mask(hole=2).map(torch.ones(1, 16, dtype=torch.float64)).unflatten(1, (4, 4))[0]
    assert seen.tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    assert Mask(seen=(2,)).map(torch.ones(1, 3)).tolist() == [[0, 0, 1]]
    x = points()
    shadow = Projection().map(x)
    torch.testing.assert_close(Projection().map(shadow), shadow)
    torch.testing.assert_close(shadow, x.mean(1, keepdim=True).expand_as(x))
    torch.testing.assert_close(
        Projection(onto=(3.0, 4.0)).map(torch.tensor([[5.0, 0.0]], dtype=torch.float64)),
        torch.tensor([[1.8, 2.4]], dtype=torch.float64),
    )


def test_what_cannot_be_observed_is_refused_with_the_reason() -> None:
    assert "square image" in str(Blur().refuses(3))
    assert Blur(layout="line").refuses(3) is None
    assert "does not fit" in str(Mask(hole=5).refuses(16))
    assert "coordinate 4" in str(Mask(seen=(4,)).refuses(3))
    assert "has 2 coordinates" in str(Projection(onto=(1.0, 0.0)).refuses(3))
    for bad in (
        lambda: GaussianNoise(-1.0),
        lambda: Blur(width=0.0),
        lambda: Mask(seen=(-1,)),
        lambda: Projection(onto=(0.0,)),
    ):
        with pytest.raises(ValueError, match=r"found|needed|must"):
            bad()


# --- the least error ------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("name", ["blur", "mask", "projection", "noise"])
def test_the_least_error_of_normal_data_is_that_of_conditioning(name: str, noise: float) -> None:
    """tr(C - C M^T (M C M^T + s^2)^+ M C)."""
    made = {
        "blur": Blur(noise, 0.6),
        "mask": Mask(noise, (0, 2)),
        "projection": Projection(noise, (1.0, -2.0, 0.0, 1.0)),
        "noise": GaussianNoise(noise),
    }[name]
    data = Gaussian((0.0, 1.0, -1.0, 2.0), (0.5, 1.0, 2.0, 1.5), 4)
    c, m = np.diag(np.square([0.5, 1.0, 2.0, 1.5])), made.matrix(4).numpy()
    expected = np.trace(c - c @ m.T @ np.linalg.pinv(m @ c @ m.T + noise**2 * np.eye(4)) @ m @ c)
    assert made.least_error(data) == pytest.approx(expected, abs=1e-10)


def moments_of_the_posterior_variance(target: Dataset, s: float, low: float, high: float) -> tuple[float, float]:
    """Its mean over y = x + s n and its standard deviation, by 2000 nodes between the ends."""
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(2000))
    y = (0.5 * (low + high) + 0.5 * (high - low) * nodes)[:, None]
    level = torch.ones(len(y), dtype=torch.float64), torch.full((len(y),), s, dtype=torch.float64)
    density = target.log_density(y, *level).exp() * weights * 0.5 * (high - low)
    variance = target.posterior_variance(y, *level)
    mean = float(density @ variance)
    return mean, math.sqrt(float(density @ variance**2) - mean**2)


@pytest.mark.parametrize("target", [GaussianMixture(), Uniform()], ids=lambda d: d.registered_name)
def test_the_least_error_under_noise_is_the_mean_posterior_variance(target: Dataset) -> None:
    """The mean over 20 000 draws is within 4.5 standard errors of the quadrature (false alarms
    7e-6, seed fixed).
    """
    mean, deviation = moments_of_the_posterior_variance(target, 0.8, -10, 12)
    assert GaussianNoise(0.8).least_error(target) == pytest.approx(mean, abs=4.5 * deviation / math.sqrt(20_000))


def test_a_mask_that_hides_nothing_is_noise() -> None:
    assert Mask(0.8, (0,)).least_error(GaussianMixture()) == GaussianNoise(0.8).least_error(GaussianMixture())


def test_the_least_error_of_a_ring_seen_from_one_side() -> None:
    """x seen without noise: y is left to the mixture of the two or more components at that x; by
    quadrature over x.
    """
    ring = EightGaussians()
    parts = ring.mixture
    means, s = parts.means.numpy(), float(parts.stds[0])

    nodes, rule = np.polynomial.legendre.leggauss(2000)
    weights = norm.pdf(4 * nodes[:, None], means[:, 0], s) / len(means)
    total = weights.sum(1)
    share = weights / np.maximum(total, 1e-300)[:, None]
    mean = share @ means[:, 1]
    expected = 4 * rule @ (total * (s**2 + (share * np.square(means[:, 1] - mean[:, None])).sum(1)))
    found = Mask(seen=(0,)).least_error(ring)
    assert found == pytest.approx(expected, abs=4.5 * 2.0 / math.sqrt(20_000))  # |y - mean|^2 is at most about 4


@dataclasses.dataclass(frozen=True)
class Atoms(PointSet):
    """Seven points in four dimensions, two of them at one place."""

    @property
    def points(self) -> Tensor:
        points = torch.randn(7, 4, generator=stream("atoms"), dtype=torch.float64)
        points[6] = points[0]
        return points


@pytest.mark.parametrize(
    "made", [Blur(0.3, 0.7), Mask(0.5, (0, 3)), GaussianNoise(0.4), Projection(0.3, (1.0, 2.0, 0.0, -1.0))]
)
def test_the_least_error_of_atoms_is_that_of_components_without_width(made: Degradation) -> None:
    """By the general way, on the same draws; and without noise it is not known."""
    points = Atoms().points.numpy()
    weights, widths = np.full(7, 1 / 7), np.zeros((7, 4, 4))
    expected = _of_mixture(made.matrix(4), made.noise, weights, points, widths)
    assert expected is not None
    assert expected > 0.01
    assert made.least_error(Atoms()) == pytest.approx(expected, rel=1e-9)
    assert made.least_error(Atoms(), 0.0) is None


def test_the_least_error_is_not_known_everywhere() -> None:
    assert Blur(layout="line").least_error(Torus()) is None
    assert GaussianNoise(0.5, alone=True).least_error(Uniform()) == pytest.approx(1 / 12)
    assert GaussianNoise(0.0).least_error(Gaussian()) == pytest.approx(0, abs=1e-12)
