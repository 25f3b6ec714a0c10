"""The classifier two-sample test against the best classifier there is, and the protocol's own code."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from torch import Tensor

import diffatlas as da
from diffusion.datasets import Dataset, EightGaussians, FourPoints, Gaussian, PointSet
from diffusion.metrics import ClassifierTwoSample
from diffusion.randomness import stream
from diffusion.registry import spec_text

QUICK = ClassifierTwoSample(points=2000, epochs=60)


@dataclass(frozen=True)
class Flat(PointSet):
    """Points that differ in one coordinate only."""

    @property
    def points(self) -> Tensor:
        return torch.tensor([[0.0, 5.0], [1.0, 5.0]], dtype=torch.float64)


def test_two_halves_of_one_law_cannot_be_told_apart() -> None:
    """0.50 +- 0.02: five standard errors of 1 / sqrt(8 n), false alarms 6e-7."""
    target = EightGaussians()
    metric = replace(QUICK, points=3000)
    value = metric.evaluate(target.sample(3000, stream("halves")), target)
    assert abs(value - 0.5) < 0.02
    assert metric.floor(target, 3000) == 0.5


@pytest.mark.parametrize(("shift", "dim"), [(0.5, 1), (1.0, 2), (2.0, 2)])
def test_shifted_normal_laws_have_the_accuracy_of_the_best_classifier(shift: float, dim: int) -> None:
    """Phi(|mu| / 2); never above it but by chance (4.5 standard errors, false alarms 7e-6), and
    below by what a trained one lacks.
    """
    target = Gaussian(dim=dim)
    x = target.sample(3000, stream("shifted", dim))
    x[:, 0] += shift * target.std
    value = replace(QUICK, points=3000).evaluate(x, target)
    best = 0.5 * (1 + math.erf(shift / 2 / math.sqrt(2)))
    assert -0.025 < value - best < 4.5 / math.sqrt(8 * 3000)


def test_laws_that_have_nothing_in_common_are_always_told_apart() -> None:
    target = Gaussian(dim=2)
    assert QUICK.evaluate(target.sample(500, stream("apart")) + 20, target) == 1


def test_the_number_is_that_of_the_published_protocol() -> None:
    """Written out here as the paper's appendix has it, on samples in the metric's order."""
    target = EightGaussians()
    y = 1.05 * target.sample(400, stream("protocol"))
    x = target.sample(400, stream("metric reference", spec_text(target))).numpy()
    found = ClassifierTwoSample(epochs=30).evaluate(y, target)
    parts = [part[np.lexsort(part.T)] for part in (x, y.numpy())]
    data = (np.concatenate(parts) - x.mean(0)) / x.std(0)
    labels = np.concatenate([np.zeros(400), np.ones(400)])
    network = MLPClassifier(hidden_layer_sizes=(20, 20), activation="relu", solver="adam", max_iter=30, random_state=1)
    folds = KFold(n_splits=5, shuffle=True, random_state=1)
    with pytest.warns(UserWarning, match="converged"):
        scores = cross_val_score(network, data, labels, cv=folds, scoring="accuracy")
    assert found == pytest.approx(scores.mean(), abs=0.01)  # rounding may turn a sample at the boundary


@pytest.mark.parametrize("target", [EightGaussians(), FourPoints(), Flat()], ids=["plane", "atoms", "flat"])
def test_the_order_of_samples_and_their_type_say_nothing(target: Dataset) -> None:
    metric = ClassifierTwoSample(points=100, epochs=5)
    x = target.sample(100, stream("order")).float()
    value = metric.evaluate(x, target)
    assert metric.evaluate(x.flip(0), target) == metric.evaluate(x.double(), target) == value


@pytest.mark.parametrize("target", [EightGaussians(), FourPoints(), Flat()], ids=["plane", "atoms", "flat"])
def test_huge_samples_are_told_apart_and_those_that_are_not_finite_are_refused(target: Dataset) -> None:
    metric = ClassifierTwoSample(points=300, epochs=60)
    x = target.sample(300, stream("huge"))
    x[:, 0] = 1e300
    assert metric.evaluate(x, target) > 0.95
    x[3, 0] = math.nan
    with pytest.raises(ValueError, match="1 of 300 samples are not finite"):
        metric.evaluate(x, target)


@pytest.mark.parametrize("parameters", [{"points": 4}, {"epochs": 0}])
def test_parameters_without_a_meaning_are_refused(parameters: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"c2st: .*needed: "):
        ClassifierTwoSample(**parameters)


def test_fewer_samples_than_folds_are_refused_in_a_sentence() -> None:
    target = EightGaussians()
    with pytest.raises(ValueError, match="c2st: 2 samples, and as many draws of the target; needed: 5 in all"):
        QUICK.evaluate(target.sample(2, stream("few")), target)
    assert QUICK.evaluate(target.sample(3, stream("few")), target) <= 1


def test_it_is_measured_where_it_is_asked_for_by_name() -> None:
    x = torch.tensor([[0.1], [0.4], [0.8], [0.9]])
    assert "w1" in da.evaluate(x, "uniform")
    assert "c2st" not in da.evaluate(x, "uniform")
    assert set(da.evaluate(x, "uniform", {"name": "c2st", "epochs": 5})) == {"c2st(epochs=5)"}
