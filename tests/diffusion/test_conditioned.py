"""Targets given a label or an observation: closed forms against quadrature, samples against
moments.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.datasets import (
    Checkerboard,
    Dataset,
    EightGaussians,
    FourPoints,
    Gaussian,
    GaussianMixture,
    Observation,
    Torus,
    Uniform,
    datasets,
    given_labels,
    observed,
)
from diffusion.datasets.classes import EqualClasses, OneClass
from diffusion.datasets.diagonal import DiagonalMixture
from diffusion.randomness import stream

LABELLED = {entry.name: made for entry in datasets if entry.has_defaults and (made := entry.cls()).classes}
PLANE = GaussianMixture((0.2, 0.5, 0.3), ((0.0, 0.0), (3.0, 1.0), (-2.0, 2.0)), (0.4, 0.7, 0.5))
LEVELS = ((1.0, 1e-3), (1.0, 0.3), (0.6, 0.8), (1.0, 30.0), (1.0, 1e3), (0.0, 1.0))


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", LABELLED.values(), ids=LABELLED.keys())
def test_labels_belong_to_the_samples_and_leave_them_as_they_are(dataset: Dataset) -> None:
    """Unlabelled draws are the same; a class has its own law: five standard errors of its mean, a
    false alarm in a million.
    """
    n = 4000
    x, labels = dataset.sample_labelled(n, stream("labelled"))
    assert torch.equal(x, dataset.sample(n, stream("labelled")))
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) == set(range(dataset.classes))
    assert dataset.class_weights is not None
    assert math.fsum(dataset.class_weights) == pytest.approx(1)
    shares = torch.bincount(labels).double() / n
    assert ((shares - numbers(*dataset.class_weights)).abs() < 5 * 0.5 / math.sqrt(n)).all()
    for label in range(dataset.classes):
        distribution, mine = dataset.of_class(label), x[labels == label]
        assert distribution is not None
        far = (mine.mean(0) - numbers(*distribution.mean)).abs()
        assert (far <= 5 * max(distribution.std, 1e-12) * math.sqrt(dataset.dim / len(mine))).all()
        assert distribution.sample(10, stream("law")).shape == (10, dataset.dim)


@pytest.mark.parametrize("dataset", LABELLED.values(), ids=LABELLED.keys())
def test_a_label_that_is_not_there_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match=f"no label {dataset.classes}; accepted: 0 to {dataset.classes - 1}"):
        dataset.of_class(dataset.classes)
    with pytest.raises(ValueError, match="'uniform' has no labels"):
        given_labels(Uniform(), [0])


def test_classes_of_a_law_without_a_closed_form_are_found_among_its_draws() -> None:
    """Means within five standard errors: a false alarm in a million."""
    one, all_ = OneClass(PLANE, 1), EqualClasses(PLANE, (0, 2))
    x = one.sample(20_000, stream("one"))
    assert ((x.mean(0) - numbers(3.0, 1.0)).abs() < 5 * 0.7 / math.sqrt(20_000)).all()
    exact = given_labels(PLANE, (0, 2))
    y = all_.sample(20_000, stream("all"))
    assert ((y.mean(0) - numbers(*exact.mean)).abs() < 5 * exact.std * math.sqrt(2 / 20_000)).all()
    assert given_labels(EightGaussians(), range(8)) == EightGaussians()


# --- observations ---------------------------------------------------------------------------------


def by_quadrature(
    dataset: Dataset, observation: Observation, x: float, alpha: float, sigma: float
) -> tuple[float, ...]:
    """log p(x_t | y), E[x_0 | x_t, y] and the variance on the line, of a law with a density, by a
    sum over a fine grid.
    """
    low, high = (float(v) for v in dataset.quantile(numbers(1e-14, 1 - 1e-14)))
    grid = torch.linspace(low, high, 400_001, dtype=torch.float64)
    inner = 0.5 * (grid[1:] + grid[:-1])
    mass = dataset.cdf(grid).diff().clamp(min=0) * torch.exp(
        -0.5 * ((observation.values[0] - inner) / observation.std) ** 2
    )
    mass = mass / mass.sum()
    log_joint = torch.log(mass) - 0.5 * ((x - alpha * inner) / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))
    total = torch.logsumexp(log_joint, 0)
    r = torch.exp(log_joint - total)
    mean = float((r * inner).sum())
    return float(total), mean, float((r * (inner - mean) ** 2).sum())


@pytest.mark.parametrize(
    "dataset", [Gaussian(0.7, 1.3), GaussianMixture(), Uniform(-1.0, 2.0)], ids=lambda d: d.registered_name
)
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.3), (0.6, 0.8), (1.0, 30.0), (0.05, 1.0)])
def test_a_law_given_an_observation_equals_quadrature(dataset: Any, alpha: float, sigma: float) -> None:
    distribution = observed(dataset, Observation((0,), (0.9,), 0.35))
    for x in (-1.0, 0.2, 2.5):
        expected = by_quadrature(dataset, Observation((0,), (0.9,), 0.35), x, alpha, sigma)
        at = numbers(x)[None, None], numbers(alpha)[:, None], numbers(sigma)[:, None]
        found = (distribution.log_density(*at), distribution.denoise(*at)[..., 0], distribution.posterior_variance(*at))
        assert [float(value) for value in found] == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_the_mixture_with_widths_of_its_own_agrees_with_the_isotropic_one(alpha: float, sigma: float) -> None:
    isotropic = PLANE
    distribution = DiagonalMixture(isotropic.weights, isotropic.means, tuple((s, s) for s in isotropic.stds))  # type: ignore[arg-type]
    assert distribution.mean == pytest.approx(isotropic.mean)
    assert distribution.std == pytest.approx(isotropic.std)
    x = (
        alpha * isotropic.sample(50, stream("x"))
        + sigma * torch.randn(50, 2, generator=stream("n"), dtype=torch.float64)
    )[None]
    at = x, numbers(alpha)[:, None], numbers(sigma)[:, None]
    for part in ("log_density", "denoise", "score", "posterior_variance"):
        torch.testing.assert_close(
            getattr(distribution, part)(*at), getattr(isotropic, part)(*at), rtol=1e-11, atol=1e-11
        )


def test_an_observed_mixture_weighs_its_components_by_their_evidence() -> None:
    """Against Bayes' rule by hand, for an observed and an unobserved coordinate."""
    distribution = observed(PLANE, Observation((1,), (1.4,), 0.6))
    assert isinstance(distribution, DiagonalMixture)
    evidence = [
        w * math.exp(-((1.4 - m[1]) ** 2) / 2 / (s * s + 0.36)) / math.sqrt(s * s + 0.36)  # type: ignore[index]
        for w, m, s in zip(PLANE.weights, PLANE.means, PLANE.stds, strict=True)
    ]
    assert distribution.weights == pytest.approx([e / sum(evidence) for e in evidence])
    for k, s in enumerate(PLANE.stds):
        assert distribution.stds[k] == pytest.approx((s, 1 / math.sqrt(1 / s**2 + 1 / 0.36)))
        assert distribution.means[k][0] == PLANE.means[k][0]  # type: ignore[index]


def test_an_exact_observation_leaves_the_coordinate_known() -> None:
    distribution = observed(PLANE, Observation((1,), (1.4,), 0.0))
    assert (distribution.sample(100, stream("known"))[:, 1] == 1.4).all()
    atoms = observed(FourPoints(), Observation((0,), (-5.0,), 0.0))
    assert atoms.sample(3, stream("atoms")).tolist() == [[-5.0]] * 3
    with pytest.raises(ValueError, match="none that a sample could have led to"):
        observed(FourPoints(), Observation((0,), (0.0,), 0.0))


SETS: dict[str, tuple[Dataset, Observation]] = {
    "gaussian": (Gaussian((0.0, 1.0), (1.0, 0.5), 2), Observation((0,), (1.2,), 0.5)),
    "mixture": (PLANE, Observation((0,), (1.0,), 0.8)),
    "points": (FourPoints(), Observation((0,), (0.0,), 4.0)),
    "uniform": (Uniform(), Observation((0,), (1.1,), 0.2)),
    "checkerboard": (Checkerboard(), Observation((1,), (0.4,), 0.5)),
    "torus by area": (Torus(), Observation((0,), (0.9,), 0.2)),
    "torus by angle": (Torus(measure="angle"), Observation((2, 0), (0.2, 0.5), 0.3)),
}


@pytest.mark.parametrize(("dataset", "observation"), SETS.values(), ids=SETS.keys())
def test_samples_have_the_moments_of_the_law(dataset: Dataset, observation: Observation) -> None:
    """And agree with self-normalised weights on other draws of the whole. Five standard errors: a
    false alarm in a million.
    """
    distribution, n = observed(dataset, observation), 40_000
    x = distribution.sample(n, stream("samples"))
    assert ((x.mean(0) - numbers(*distribution.mean)).abs() < 5 * distribution.std * math.sqrt(dataset.dim / n)).all()
    whole = dataset.sample(400_000, stream("whole"))
    weight = torch.exp(observation.log_likelihood(whole))
    weight = weight / weight.sum()
    effective = float(1 / weight.square().sum())
    spread = x.std(0) * math.sqrt(1 / n + 1 / effective)
    assert ((x.mean(0) - (weight[:, None] * whole).sum(0)).abs() < 5 * spread).all()
    second = (weight * whole.square().sum(1)).sum()
    spread2 = x.square().sum(1).std() * math.sqrt(1 / n + 1 / effective)
    assert abs(float(x.square().sum(1).mean() - second)) < 5 * spread2


def test_the_observed_torus_knows_its_moments_and_its_surface() -> None:
    """Quadrature over both angles against two million weighted draws: five standard errors."""
    observation = Observation((0,), (0.9,), 0.2)
    distribution = observed(Torus(), observation)
    assert isinstance(distribution, Torus)
    x = Torus().sample(2_000_000, stream("many"))
    weight = torch.exp(observation.log_likelihood(x))
    weight = weight / weight.sum()
    squares = x[:, :2].square().sum(1)
    for power, expected in ((1, distribution.second_moment), (2, distribution.fourth_moment)):
        found = float((weight * squares**power).sum())
        error = math.sqrt(float((weight**2 * (squares**power - found) ** 2).sum()))
        assert abs(found - expected) < 5 * error
    assert float(distribution.distance(distribution.sample(1000, stream("surface"))).max()) < 1e-12


def test_a_law_that_cannot_be_had_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="keeps a share of"):
        observed(Torus(), Observation((2,), (3.0,), 0.05))
    with pytest.raises(ValueError, match="given some coordinates exactly is not known"):
        observed(Torus(), Observation((2,), (0.1,), 0.0))
    with pytest.raises(ValueError, match="coordinate 3 of a data set of dimension 3"):
        observed(Torus(), Observation((3,), (0.1,), 0.1))
    with pytest.raises(NotImplementedError, match="no exact denoiser"):
        observed(Torus(), Observation((2,), (0.1,), 0.1)).denoise(torch.zeros(1, 3), numbers(1.0), numbers(1.0))


def test_conditioned_laws_are_values() -> None:
    """Equal by their parts, and named by them: floors and reference samples are found by name."""
    for dataset, observation in SETS.values():
        distribution, twin = observed(dataset, observation), observed(dataset, dataclasses.replace(observation))
        assert distribution == twin
        assert distribution.identity() == twin.identity()
        other = observed(dataset, dataclasses.replace(observation, std=2 * observation.std))
        assert distribution.identity() != other.identity()
        assert np.isfinite(distribution.std)
