"""The law of a noised sample as a target: exact where the clean one is, with its distribution
function on the line.

What every target owes is tested over the registry; here is what only this one does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.datasets import (
    Checkerboard,
    Dataset,
    FourPoints,
    Gaussian,
    GaussianMixture,
    Moons,
    Noised,
    Torus,
    Uniform,
)
from diffusion.metrics import KolmogorovSmirnov, Wasserstein1
from diffusion.randomness import stream


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@dataclass(frozen=True)
class Unnamed(Dataset):
    """U[-1, 2] to whoever asks only for what every exact target has: the distribution function must
    come by quadrature.
    """

    registered_name = "unnamed"
    dim = 1
    mean = (0.5,)
    std = math.sqrt(0.75)
    exact = True

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return Uniform(-1, 2).sample(n, generator)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return Uniform(-1, 2).log_density(x, alpha, sigma)


LINES: list[Dataset] = [
    Uniform(),
    FourPoints(),
    FourPoints("code"),
    Gaussian(1.0, 0.3),
    GaussianMixture(),
    Unnamed(),
    Noised(GaussianMixture(), 0.5, 0.2),
]
LEVELS = [(1.0, 0.05), (0.8, 0.6), (0.01, 1.0), (0.0, 2.0)]


@pytest.mark.parametrize("level", LEVELS, ids=str)
@pytest.mark.parametrize("inner", LINES, ids=lambda d: d.label())
def test_the_distribution_function_is_the_integral_of_the_density(inner: Dataset, level: tuple[float, float]) -> None:
    target = Noised(inner, *level)
    ends = torch.linspace(-3, 3, 301, dtype=torch.float64) * target.std + target.mean[0]
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(40))
    places = 0.5 * (ends[1:] + ends[:-1])[:, None] + 0.5 * ends.diff()[:, None] * nodes
    density = torch.exp(inner.log_density(places.reshape(-1, 1), number(level[0]), number(level[1]))).reshape(300, 40)
    masses = 0.5 * ends.diff() * (density * weights).sum(1)
    torch.testing.assert_close(target.cdf(ends).diff(), masses, rtol=0, atol=1e-11)
    u = torch.linspace(1e-6, 1 - 1e-6, 101, dtype=torch.float64)
    torch.testing.assert_close(target.cdf(target.quantile(u)), u, rtol=0, atol=1e-11)
    assert target.quantile(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == [-math.inf, math.inf]


@pytest.mark.parametrize(
    "inner", [Uniform(), FourPoints(), GaussianMixture(), Checkerboard(), Torus(), Moons()], ids=lambda d: d.label()
)
def test_noise_upon_noise_is_noise(inner: Dataset) -> None:
    """By the two routes: density at the combined level, and the denoiser of what lies between by
    Tweedie's formula.
    """
    target, alpha, sigma = Noised(inner, 0.7, 0.4), number(0.9), number(0.5)
    x = 0.9 * target.sample(50, stream("noised")) + 0.5
    level = number(0.63), torch.sqrt(number(0.36**2 + 0.25))
    torch.testing.assert_close(target.log_density(x, alpha, sigma), inner.log_density(x, *level))
    tweedie = (x + sigma**2 * inner.score(x, *level)) / alpha
    torch.testing.assert_close(target.denoise(x, alpha, sigma), tweedie, rtol=0, atol=1e-9)
    h = 1e-4
    steps = h * torch.eye(target.dim, dtype=torch.float64)
    trace = sum(
        (target.denoise(x + e, alpha, sigma) - target.denoise(x - e, alpha, sigma))[:, j] for j, e in enumerate(steps)
    )
    torch.testing.assert_close(
        target.posterior_variance(x, alpha, sigma), sigma**2 / alpha * trace / (2 * h), rtol=1e-5, atol=1e-7
    )


def test_without_signal_nothing_is_known_but_the_law_itself() -> None:
    target = Noised(Uniform(), 0.7, 0.4)
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    nothing, noise = number(0.0), number(2.0)
    assert torch.allclose(target.denoise(x, nothing, noise), number(0.35), rtol=0, atol=1e-15)
    assert torch.allclose(target.posterior_variance(x, nothing, noise), number(target.std**2), rtol=0, atol=1e-15)


@pytest.mark.parametrize("inner", [Uniform(), FourPoints(), GaussianMixture()], ids=lambda d: d.label())
def test_metrics_of_the_line_take_it(inner: Dataset) -> None:
    """Perfect samples lie at the floor: ten independent ones, 4.5 standard errors of their mean
    (false alarms 7e-6, twice 4).
    """
    target = Noised(inner, 0.8, 0.3)
    for metric in (Wasserstein1(), KolmogorovSmirnov()):
        values = torch.tensor(
            [
                metric.evaluate(target.sample(1000, stream("noised metrics", inner.label(), i)), target)
                for i in range(10)
            ]
        )
        floor = metric.floor(target, 1000)
        assert abs(float(values.mean()) / floor - 1) < 0.02 + 4.5 * float(values.std()) / (math.sqrt(10) * floor)


def test_a_target_without_an_exact_answer_has_no_distribution_function_here() -> None:
    @dataclass(frozen=True)
    class Unknown(Uniform):
        registered_name = "unknown"
        exact = False

    target = Noised(Unknown())
    assert not target.exact
    assert not target.has_cdf
    with pytest.raises(NotImplementedError, match="has no distribution function"):
        target.cdf(torch.zeros(1))
    with pytest.raises(NotImplementedError, match="has no distribution function"):
        Noised(Torus()).cdf(torch.zeros(1))


@pytest.mark.parametrize("parameters", [{"sigma": 0.0}, {"alpha": -1.0}, {"sigma": math.inf}, {"alpha": math.nan}])
def test_levels_that_are_none_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="alpha >= 0 and sigma > 0"):
        Noised(Uniform(), **parameters)
