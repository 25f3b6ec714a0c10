"""On the line metrics compare with the law itself: closed forms, scipy, atoms, gaps and tails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

from diffusion.datasets import Dataset, FourPoints, Gaussian, GaussianMixture, PointSet, Uniform
from diffusion.metrics import (
    EnergyDistance,
    GridDivergence,
    KolmogorovSmirnov,
    MaximumMeanDiscrepancy,
    SlicedWasserstein2,
    Wasserstein1,
    Wasserstein2,
    cdf,
)
from diffusion.randomness import stream

w1, ks, w2, energy, kl = Wasserstein1(), KolmogorovSmirnov(), Wasserstein2(), EnergyDistance(), GridDivergence()
norm: Any = scipy.stats.norm


@dataclass(frozen=True)
class Atoms(PointSet):
    """Equally likely atoms; one that is listed twice is twice as likely."""

    places: tuple[float, ...] = (0.0, 1.0)

    @property
    def points(self) -> Tensor:
        return torch.tensor(self.places, dtype=torch.float64)[:, None]


COIN = Atoms()
LOADED = Atoms((5.0, -1.0, -1.0, -1.0, 0.0))
CONTINUOUS: dict[str, Dataset] = {
    "uniform": Uniform(),
    "wider": Uniform(-1.0, 3.0),
    "normal": Gaussian(),
    "bumps": GaussianMixture(),
    "far bumps": GaussianMixture((0.3, 0.7), (-30.0, 30.0), (1.0, 0.01)),
}
ATOMIC: dict[str, Dataset] = {"four points": FourPoints(), "coin": COIN, "loaded": LOADED}
every_continuous = pytest.mark.parametrize("target", CONTINUOUS.values(), ids=CONTINUOUS.keys())
every_atomic = pytest.mark.parametrize("target", ATOMIC.values(), ids=ATOMIC.keys())


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@cache
def quantiles(target: Dataset, m: int) -> Tensor:
    return target.quantile((torch.arange(m, dtype=torch.float64) + 0.5) / m)


def weights_of(target: Dataset) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(target, PointSet)
    places, counts = np.unique(target.points.numpy(), return_counts=True)
    return places, counts / counts.sum()


# --- against scipy --------------------------------------------------------------------------------


@every_continuous
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 1.0), (0.0, 0.2), (-1.0, 12.0)])
def test_w1_and_energy_agree_with_scipy_on_a_hundred_thousand_quantiles_of_the_target(
    target: Dataset, shift: float, scale: float
) -> None:
    x = shift + scale * target.sample(250, stream("scipy"))
    stand_in = quantiles(target, 100_000).numpy()
    distance = scipy.stats.wasserstein_distance(x[:, 0].numpy(), stand_in)
    assert w1.evaluate(x, target) == pytest.approx(distance, abs=3e-5 * target.std)
    root = scipy.stats.energy_distance(x[:, 0].numpy(), stand_in)
    assert energy.evaluate(x, target) == pytest.approx(root, rel=1e-6)


@every_atomic
@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_w1_and_energy_agree_with_scipy_on_atoms_to_rounding(target: Dataset, n: int) -> None:
    places, weights = weights_of(target)
    for x in (target.sample(n, stream("atoms", n)), 30 * Gaussian().sample(n, stream("wide", n)) + 4):
        given = (x[:, 0].numpy(), places, None, weights)
        assert w1.evaluate(x, target) == pytest.approx(scipy.stats.wasserstein_distance(*given), rel=1e-12, abs=1e-14)
        assert energy.evaluate(x, target) == pytest.approx(scipy.stats.energy_distance(*given), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("shift", [0.0, 0.2, 5.0])
def test_ks_agrees_with_scipy(shift: float) -> None:
    for n in (1, 2, 57, 1000):
        x = shift + Uniform().sample(n, stream("ks", n))
        reference = scipy.stats.kstest(x[:, 0].numpy(), "uniform").statistic
        assert ks.evaluate(x, Uniform()) == pytest.approx(reference, abs=1e-14)
        z = shift + Gaussian().sample(n, stream("ks", n))
        reference = scipy.stats.kstest(z[:, 0].numpy(), "norm").statistic
        assert ks.evaluate(z, Gaussian()) == pytest.approx(reference, abs=1e-14)


# --- w1 -------------------------------------------------------------------------------------------


def test_w1_of_equally_spaced_quantiles_of_the_uniform_law_is_a_quarter_of_their_spacing() -> None:
    n = 10_000
    x = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n
    assert w1.evaluate(x, Uniform()) == pytest.approx(2.5e-5, rel=1e-12)


def test_w1_of_a_single_point_is_the_mean_distance_to_it() -> None:
    assert w1.evaluate(column(0.5), Uniform()) == 0.25
    assert w1.evaluate(column(0.5, 0.5, 0.5), Uniform()) == pytest.approx(0.25, rel=1e-15)
    assert w1.evaluate(column(1e8), Uniform()) == 1e8 - 0.5
    assert w1.evaluate(column(-7.0), Uniform()) == 7.5
    assert w1.evaluate(column(0.0), Gaussian()) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-10)
    assert w1.evaluate(column(40.0), Gaussian()) == pytest.approx(40.0, rel=1e-10)


def test_w1_for_uniform_and_in_general_are_one_number() -> None:
    x = 1.2 * Uniform().sample(500, stream("general")) - 0.1
    general = cdf.integral_of_gap(x[:, 0], Uniform(), torch.abs, (cdf.crossings(Uniform(), 500),))
    assert general == pytest.approx(w1.evaluate(x, Uniform()), rel=1e-12)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("n", [1, 2, 3, 100])
def test_w1_and_w2_of_the_normal_law_agree_with_their_closed_forms(n: int, scale: float) -> None:
    x = scale * Gaussian().sample(n, stream("closed form", n))
    first = second = 0.0
    for i, value in enumerate(np.sort(x[:, 0].numpy())):
        low, high = i / n, (i + 1) / n
        cut = float(np.clip(norm.cdf(value), low, high))
        at_low, at_cut, at_high = (norm.pdf(norm.ppf(u)) for u in (low, cut, high))  # minus the integral of Q
        first += value * (cut - low) + at_cut - at_low - value * (high - cut) + at_cut - at_high
        second += value**2 / n - 2 * value * (at_low - at_high)
    assert w1.evaluate(x, Gaussian()) == pytest.approx(first, rel=1e-9)
    assert w2.evaluate(x, Gaussian()) == pytest.approx(math.sqrt(second + 1), rel=2e-6)


def test_w1_floor_has_the_published_values() -> None:
    assert w1.floor(Uniform(), 10_000) == pytest.approx(0.003133, abs=5e-7)
    assert w1.floor(Uniform(-1.0, 1.0), 100) == pytest.approx(2 * 0.03133, abs=1e-5)
    spread, _ = scipy.integrate.quad(lambda x: math.sqrt(norm.cdf(x) * norm.sf(x)), -30, 30)
    assert w1.floor(Gaussian(), 4) == pytest.approx(math.sqrt(2 / math.pi) * spread / 2, rel=1e-6)


def test_w1_floor_of_a_coin_is_the_mean_deviation_of_heads() -> None:
    assert w1.floor(COIN, 1) == pytest.approx(0.5, rel=1e-14)
    assert w1.floor(COIN, 2) == pytest.approx(0.25, rel=1e-14)
    assert w1.floor(COIN, 10_000) == pytest.approx(math.sqrt(2 / math.pi) * 0.5 / 100, rel=1e-4)


# --- ks -------------------------------------------------------------------------------------------


def test_ks_counts_ties_once_and_knows_atoms() -> None:
    assert ks.evaluate(column(0.5, 0.5, 0.5), Uniform()) == pytest.approx(0.5, abs=1e-15)
    assert ks.evaluate(column(0, 0, 1, 1), COIN) == 0
    assert ks.evaluate(column(0, 0, 0, 1), COIN) == pytest.approx(0.25, abs=1e-15)
    assert ks.evaluate(column(0, 0, 2, 2), COIN) == pytest.approx(0.5, abs=1e-15)  # at the atom that no sample hits


def test_ks_of_samples_beyond_the_target_is_one() -> None:
    assert ks.evaluate(torch.full((7, 1), 1e8), Uniform()) == 1


def test_ks_floor_of_atoms_is_that_of_the_bridge_at_their_steps_alone() -> None:
    """For a coin ``E|N / n - 1/2|``; for many atoms nearly that of a continuous law."""
    assert ks.floor(COIN, 10_000) == pytest.approx(math.sqrt(2 / math.pi) * 0.5 / 100, rel=5e-3)
    many = Atoms(tuple(float(k) for k in range(1000)))
    assert 0.95 * ks.floor(Uniform(), 100) < ks.floor(many, 100) < ks.floor(Uniform(), 100)


# --- w2 -------------------------------------------------------------------------------------------


@every_continuous
def test_w2_of_shifted_quantiles_of_the_target_is_the_shift(target: Dataset) -> None:
    x = quantiles(target, 4000)[:, None] + 3 * target.std
    assert w2.evaluate(x, target) == pytest.approx(3 * target.std, rel=1e-3)
    assert SlicedWasserstein2().evaluate(x, target) == w2.evaluate(x, target)


@every_atomic
def test_w2_on_atoms_is_the_optimal_transport_of_weights_however_they_meet_the_samples(target: Dataset) -> None:
    x = 10 * Gaussian().sample(77, stream("w2 atoms"))
    places, weights = weights_of(target)
    fine = 77 * 60  # divisible by the weights' denominators 2, 4 and 5
    there = np.repeat(places, np.round(weights * fine).astype(int))
    here = np.repeat(np.sort(x[:, 0].numpy()), 60)
    assert w2.evaluate(x, target) == pytest.approx(math.sqrt(((here - there) ** 2).mean()), rel=1e-12)


# --- energy and mmd -------------------------------------------------------------------------------


def folded(mean: float, std: float) -> float:
    """E|Z|, Z normal."""
    return std * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * std**2)) + mean * math.erf(
        mean / std / math.sqrt(2)
    )


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 2.0), (-3.0, 0.5)])
def test_energy_and_mmd_of_two_normal_laws_have_their_closed_forms(shift: float, scale: float) -> None:
    target = Gaussian(1.0, 2.0)
    x = 1 + shift + scale * (quantiles(target, 1500) - 1)[:, None]
    s, t = 2.0, 2.0 * scale
    squared = 2 * folded(shift, math.hypot(s, t)) - folded(0, s * math.sqrt(2)) - folded(0, t * math.sqrt(2))
    assert energy.evaluate(x, target) == pytest.approx(math.sqrt(squared), rel=2e-3)

    def kernel(mean: float, variance: float, h: float) -> float:
        return h / math.sqrt(h * h + variance) * math.exp(-(mean**2) / (2 * (h * h + variance)))

    squared = float(
        np.mean(
            [
                kernel(0, 2 * s * s, h) + kernel(0, 2 * t * t, h) - 2 * kernel(shift, s * s + t * t, h)
                for h in (0.2, 0.6, 2.0)
            ]
        )
    )
    assert MaximumMeanDiscrepancy().evaluate(x, target) == pytest.approx(math.sqrt(squared), rel=2e-3)


@every_continuous
def test_energy_and_mmd_floors_are_below_their_root_mean_squares_by_what_a_bridge_allows(target: Dataset) -> None:
    """sqrt(E|X - X'| / n), sqrt((1 - E k) / n); a mean of roots is less, but a single chi-square
    has .798.
    """
    y = quantiles(target, 2000)
    gaps = (y[:, None] - y).abs()
    assert cdf.mean_difference(target) == pytest.approx(float(gaps.mean()), rel=2e-3)
    kernel = torch.stack([torch.exp(-gaps.square() / (2 * (h * target.std) ** 2)) for h in (0.1, 0.3, 1.0)])
    for metric, square in ((energy, float(gaps.mean())), (MaximumMeanDiscrepancy(), 1 - float(kernel.mean()))):
        assert 0.79 < metric.floor(target, 100) / math.sqrt(square / 100) < 1


def test_energy_floor_of_a_coin_is_that_of_one_normal_number() -> None:
    assert energy.floor(COIN, 100) == pytest.approx(math.sqrt(2 / math.pi) * math.sqrt(2) * 0.5 / 10, rel=1e-10)


def test_cramer_spectrum_of_the_uniform_law_is_that_of_cramer_and_von_mises() -> None:
    eigenvalues, rest = cdf.cramer_spectrum(Uniform())
    known = 2 / (np.arange(1, 6) * math.pi) ** 2
    assert np.sort(eigenvalues)[:-6:-1] == pytest.approx(known, rel=5e-3)
    assert eigenvalues.sum() + rest == pytest.approx(1 / 3, rel=1e-3)


def test_mean_root_of_known_forms() -> None:
    assert cdf.mean_root(np.array([2.0])) == pytest.approx(2 / math.sqrt(math.pi), rel=1e-12)
    assert cdf.mean_root(np.ones(3)) == pytest.approx(math.sqrt(8 / math.pi), rel=1e-12)  # chi with 3 degrees
    assert cdf.mean_root(np.zeros(1), rest=4.0) == pytest.approx(2.0, rel=1e-12)
    assert cdf.mean_root(np.zeros(4)) == 0


# --- kl-grid --------------------------------------------------------------------------------------


def test_kl_grid_of_a_known_histogram() -> None:
    four = GridDivergence(cells=4)
    assert four.evaluate(column(0.1, 0.2, 0.3, 0.6), Uniform()) == pytest.approx(0.5 * math.log(2), rel=1e-14)
    assert four.evaluate(column(-1e8, 0.3, 0.6, 1e8), Uniform()) == pytest.approx(0, abs=1e-15)  # the ends are open
    assert four.evaluate(column(0.9), Uniform()) == pytest.approx(math.log(4), rel=1e-14)
    assert GridDivergence(cells=2).evaluate(column(-3, -0.1, 0.1, 3), Gaussian()) == pytest.approx(0, abs=1e-15)


def test_kl_grid_agrees_with_scipy_on_shifted_samples() -> None:
    x = 0.5 * Gaussian().sample(3000, stream("kl")) + 0.4
    found, _ = np.histogram(norm.cdf(x[:, 0].numpy()), bins=32, range=(0, 1))
    assert kl.evaluate(x, Gaussian()) == pytest.approx(scipy.stats.entropy(found, np.ones(32)), rel=1e-12)


def test_kl_grid_gives_each_atom_the_cell_of_what_lies_nearest() -> None:
    target = FourPoints()
    assert kl.evaluate(column(-15, -5, 1, 10) + 1.9, target) == pytest.approx(0, abs=1e-15)
    assert kl.evaluate(column(-15, -15, 1, 1) - 1.9, target) == pytest.approx(math.log(2), rel=1e-14)
    expected = 0.25 * math.log(0.25 / 0.6) + 0.75 * math.log(0.75 / 0.2)
    assert kl.evaluate(column(-1.4, 0.2, 2.0, -0.3), LOADED) == pytest.approx(expected, rel=1e-14)
    few = GridDivergence(cells=2)  # fewer cells than atoms: they share
    assert few.evaluate(column(-15, -5, 1, 10), target) == pytest.approx(0, abs=1e-15)


def test_kl_grid_cuts_a_gap_in_the_middle() -> None:
    target = GaussianMixture((0.5, 0.5), (-30.0, 30.0), (1.0, 1.0))
    x = column(-29, -1, 1, 29)
    assert GridDivergence(cells=2).evaluate(x, target) == pytest.approx(0, abs=1e-9)


def test_kl_grid_floor_is_half_a_degree_of_freedom_per_sample() -> None:
    assert kl.floor(Uniform(), 100_000) == pytest.approx(31 / 200_000, rel=1e-3)
    assert kl.floor(FourPoints(), 100_000) == pytest.approx(3 / 200_000, rel=1e-3)
    assert GridDivergence(cells=2).floor(Uniform(), 1) == pytest.approx(math.log(2), rel=1e-14)
    assert GridDivergence(cells=2).floor(Uniform(), 2) == pytest.approx(0.5 * math.log(2), rel=1e-14)


# --- the law --------------------------------------------------------------------------------------


def test_atoms_are_found_and_continuous_laws_have_none() -> None:
    found = cdf.atoms_of(LOADED)
    assert found is not None
    assert found[0].tolist() == [-1, 0, 5]
    assert found[1].tolist() == pytest.approx([0.6, 0.2, 0.2], rel=1e-12)
    assert all(cdf.atoms_of(target) is None for target in CONTINUOUS.values())


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (10, 0.5), (400, 0.001), (10_000, 0.25)])
def test_binomial_means_agree_with_the_sum_over_all_outcomes(n: int, p: float) -> None:
    k = np.arange(n + 1)
    pmf: Any = scipy.stats.binom.pmf(k, n, p)
    assert cdf.mean_deviation(n, p) == pytest.approx(float(pmf @ np.abs(k / n - p)), rel=1e-10)
