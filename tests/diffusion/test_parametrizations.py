"""Every parametrization is a combination of data and noise that can be solved for both, at every
noise level.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from diffusion.datasets import Uniform
from diffusion.objectives import UnitVariance
from diffusion.objectives.parametrizations import (
    Circle,
    Epsilon,
    FlowVelocity,
    Parametrization,
    Preconditioned,
    PredictedScore,
    Velocity,
    convert,
    parametrizations,
)
from diffusion.randomness import stream
from diffusion.schedules import EDM

ALL: dict[str, Parametrization] = {entry.name: entry.cls() for entry in parametrizations}
every = pytest.mark.parametrize("parametrization", ALL.values(), ids=ALL.keys())
every_pair = pytest.mark.parametrize(("given", "wanted"), list(itertools.product(ALL, ALL)), ids="-".join)

NSR = torch.logspace(-4, 4, 81, dtype=torch.float64)
LEVEL = Circle.at(NSR)
DATA, NOISE = torch.randn(2, len(NSR), 3, generator=stream("test-parametrizations"), dtype=torch.float64)
Z = LEVEL.a[:, None] * DATA + LEVEL.b[:, None] * NOISE


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_level_lies_on_the_unit_circle_from_data_to_pure_noise() -> None:
    nsr = numbers(0.0, 1e-300, 1e-9, 0.5, 1.0, 3.0, 1e9, 1e300, torch.inf)
    level = Circle.at(nsr)
    torch.testing.assert_close(level.a**2 + level.b**2, torch.ones_like(nsr), rtol=1e-15, atol=0)
    torch.testing.assert_close(level.b[1:-1] / level.a[1:-1], nsr[1:-1], rtol=1e-15, atol=0)
    assert (float(level.a[0]), float(level.b[0])) == (1, 0)
    assert (float(level.a[-1]), float(level.b[-1])) == (0, 1)
    again = Circle.of(7 * level.a, 7 * level.b)
    torch.testing.assert_close(torch.stack([again.a, again.b]), torch.stack([level.a, level.b]), rtol=1e-15, atol=0)


@every
def test_data_and_noise_come_back_from_the_prediction_of_known_ones(parametrization: Parametrization) -> None:
    """The error of rounding is that of a solve of two equations: eps over the determinant."""
    prediction = parametrization.predict(DATA, NOISE, LEVEL, 0.5)
    data, noise = parametrization.data_and_noise(prediction, Z, LEVEL, 0.5)
    p, q = parametrization.mixture(LEVEL, 0.5)
    size = (p.abs() + q.abs() + 1) / (LEVEL.a * q - LEVEL.b * p).abs()
    assert ((data - DATA).abs() <= 2e-15 * size[:, None] * 4).all()
    assert ((noise - NOISE).abs() <= 2e-15 * size[:, None] * 4).all()


@every
def test_the_denoiser_of_a_perfect_prediction_is_the_data(parametrization: Parametrization) -> None:
    c = parametrization.coefficients(LEVEL, 0.5)
    prediction = parametrization.predict(DATA, NOISE, LEVEL, 0.5)
    denoised = c.c_skip[:, None] * Z + c.c_out[:, None] * prediction
    size = c.c_skip.abs() + c.c_out.abs()
    assert ((denoised - DATA).abs() <= 1e-14 * (1 + size[:, None])).all()


@every_pair
def test_conversions_round_trip_at_every_noise_level(given: str, wanted: str) -> None:
    """To 1e-12 of the prediction, there and back, from nsr = 1e-3 to 1e3.

    Beyond, data (or noise) are the difference of numbers nsr (or 1/nsr) times as large, of which
    floating point keeps 1.1e-16: at 1e4 that is 1.1e-12 by itself, and the tolerance grows with it.
    """
    prediction, requested = (ALL[name].predict(DATA, NOISE, LEVEL, 0.5) for name in (given, wanted))
    there = convert(prediction, Z, LEVEL, ALL[given], ALL[wanted], 0.5)
    back = convert(there, Z, LEVEL, ALL[wanted], ALL[given], 0.5)
    tolerance = 1e-12 * torch.maximum(NSR, 1 / NSR).clamp(min=1e3)[:, None] / 1e3
    assert ((there - requested).abs() <= tolerance * (1 + requested.abs())).all()
    assert ((back - prediction).abs() <= tolerance * (1 + prediction.abs())).all()


@every
def test_pure_noise_is_an_ordinary_level_unless_the_parametrization_says_that_it_needs_signal(
    parametrization: Parametrization,
) -> None:
    c = parametrization.coefficients(Circle(numbers(0.0), numbers(1.0)), 0.5)
    finite = bool(torch.isfinite(torch.stack([c.c_skip, c.c_out, c.c_in])).all())
    assert finite is not parametrization.needs_signal


@pytest.mark.parametrize("sigma_data", [0.1, 0.288675, 0.5, 2.0])
def test_the_coefficients_of_edm_are_those_of_table_1(sigma_data: float) -> None:
    """On ``x / alpha = z / a``: c_skip a, c_out, c_in a. With its weight, the loss of the raw
    network is unweighted.
    """
    c = Preconditioned().coefficients(LEVEL, sigma_data)
    total = torch.sqrt(NSR**2 + sigma_data**2)
    torch.testing.assert_close(c.c_skip * LEVEL.a, sigma_data**2 / total**2, rtol=1e-13, atol=0)
    torch.testing.assert_close(c.c_out, NSR * sigma_data / total, rtol=1e-13, atol=0)
    torch.testing.assert_close(c.c_in * LEVEL.a, 1 / total, rtol=1e-13, atol=0)
    weight = UnitVariance().on_target(NSR, c, EDM(), sigma_data)
    torch.testing.assert_close(weight, torch.ones_like(NSR), rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigma_data", [0.1, 0.5, 2.0])
def test_edm_passes_clean_data_through_and_predicts_data_from_noise(sigma_data: float) -> None:
    tiny, huge = (Preconditioned().coefficients(Circle.at(numbers(nsr)), sigma_data) for nsr in (1e-9, torch.inf))
    assert float(tiny.c_skip) == pytest.approx(1, abs=1e-12)
    assert float(tiny.c_out) == pytest.approx(0, abs=1e-8)
    assert float(huge.c_skip) == 0
    assert float(huge.c_out) == pytest.approx(sigma_data, rel=1e-12)


def test_inputs_and_targets_of_edm_have_unit_variance() -> None:
    """For centred data of standard deviation s: Var[c_in z] = 1 and Var[F] = 1 at every level."""
    s = 0.7
    p, q = Preconditioned().mixture(LEVEL, s)
    torch.testing.assert_close(p**2 * s**2 + q**2, torch.ones_like(NSR))
    into = Preconditioned().input_scale(LEVEL, s)
    torch.testing.assert_close(into**2 * (s**2 * LEVEL.a**2 + LEVEL.b**2), torch.ones_like(NSR))


def test_noise_and_score_prediction_have_the_coefficients_of_table_1() -> None:
    for kind, sign in ((Epsilon(), -1), (PredictedScore(), 1)):
        c = kind.coefficients(LEVEL, 0.5)
        torch.testing.assert_close(c.c_skip * LEVEL.a, torch.ones_like(NSR), rtol=1e-14, atol=0)
        torch.testing.assert_close(c.c_out, sign * NSR, rtol=1e-14, atol=0)
    torch.testing.assert_close(Epsilon().input_scale(LEVEL, 0.5) * LEVEL.a, (NSR**2 + 1) ** -0.5, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        PredictedScore().input_scale(LEVEL, 0.5) * LEVEL.a, torch.ones_like(NSR), rtol=1e-14, atol=0
    )


def test_noise_score_and_data_are_three_spellings_of_the_exact_answer() -> None:
    """On U[0, 1], to 1e-12: the exact denoiser's noise is -sigma times the exact score."""
    dataset = Uniform()
    x = LEVEL.a[:, None] * dataset.sample(len(NSR), stream("spellings")) + LEVEL.b[:, None] * NOISE[:, :1]
    D = dataset.denoise(x[:, None], LEVEL.a[:, None], LEVEL.b[:, None])[:, 0]
    score = dataset.score(x[:, None], LEVEL.a[:, None], LEVEL.b[:, None])[:, 0]
    known = NSR > 1e-3  # below, the noise that D implies is lost in its rounding
    expected = convert(LEVEL.b[:, None] * score, x, LEVEL, PredictedScore(), Epsilon(), 0.5)
    implied = (x - LEVEL.a[:, None] * D) / LEVEL.b[:, None]
    torch.testing.assert_close(expected[known], implied[known], rtol=1e-12, atol=1e-12)


def test_velocities_are_derivatives_along_their_paths() -> None:
    """v = dz/dphi on the circle z = cos(phi) x_0 + sin(phi) eps; the flow's is d/dt of the straight
    path.
    """
    phi = torch.linspace(0.1, 1.4, 20, dtype=torch.float64)
    h = 1e-6
    x, eps = DATA[:20], NOISE[:20]

    def circle(angle: Tensor) -> Tensor:
        z: Tensor = torch.cos(angle)[:, None] * x + torch.sin(angle)[:, None] * eps
        return z

    slope = (circle(phi + h) - circle(phi - h)) / (2 * h)
    level = Circle(torch.cos(phi), torch.sin(phi))
    torch.testing.assert_close(Velocity().predict(x, eps, level, 0.5), slope, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(FlowVelocity().predict(x, eps, level, 0.5), eps - x, rtol=0, atol=0)
    t = torch.sin(phi) / (torch.cos(phi) + torch.sin(phi))
    path = (1 - t)[:, None] * x + t[:, None] * eps
    into = FlowVelocity().input_scale(level, 0.5)
    torch.testing.assert_close(into[:, None] * circle(phi), path, rtol=1e-12, atol=1e-12)
