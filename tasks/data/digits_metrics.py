r"""How good samples of digits look: the Frechet distance of features, and whether a digit that was
asked for is one.

Both look at samples as images (clipped to the range of the pixels, in the grey levels of the data)
through the classifier that the package ships (`tasks.data.digits_classifier`).

The Frechet distance between two laws of features, taken as normal ones with means m and covariances
C, is

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^(1/2) C_2 C_1^(1/2))^(1/2)),

whose estimate from n images on each side is too high by about a constant over n, of the size of
what good samplers differ by. So all of its values here are of equally many images: n samples
against n images of the data, n never more than half of them; and the floor is the same number for
the two halves of the data, which share no image: what a sampler of new images scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.datasets.classes import EqualClasses
from diffusion.metrics.base import Metric, metrics
from diffusion.randomness import stream
from tasks.data.digits import CLASSES, Digits
from tasks.data.digits_classifier import seen

_SPLITS = 64


class Moments(NamedTuple):
    """Mean ``[d]`` and covariance ``[d, d]`` of features."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Those of the empirical law of ``features [n, d]``."""
        mean = features.mean(0)
        return cls(mean, (features - mean).T @ (features - mean) / len(features))


def frechet(a: Moments, b: Moments) -> float:
    """The squared Frechet distance d^2 of two normal laws (Dowson & Landau, J. Multivariate
    Analysis 12, 1982).
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    middle = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * middle
    return max(0.0, float((a.mean - b.mean).square().sum() + spread))


def _digits_in(dataset: Dataset) -> tuple[int, ...]:
    """The digits that a target consists of; none, if it is no target of digits."""
    match dataset:
        case Digits(digit=None):
            return tuple(range(CLASSES))
        case Digits(digit=int(digit)):
            return (digit,)
        case EqualClasses(of=Digits(digit=None), labels_of=labels):
            return labels
        case _:
            return ()


@dataclass(frozen=True)
class _DigitsMetric(Metric):
    """A metric that looks with the classifier of digits."""

    def refuses(self, dataset: Dataset) -> str | None:
        return None if _digits_in(dataset) else "it looks with a classifier of handwritten digits, those of 'digits'"


@metrics.register(
    "fid-digits",
    formula="|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of 32 features of a classifier of digits; n images on each side",
    source="Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017; bias in n: Chong & Forsyth, CVPR 2020",
)
@dataclass(frozen=True)
class FrechetDigits(_DigitsMetric):
    """Frechet distance between samples and data in the features of a small classifier of digits.

    The first n samples, n = `points` or half of the data if that is less, against n images of the
    data, averaged over 64 choices of these from a fixed stream. Values of different n do not
    compare: the estimate has a bias of about a constant over n.

    Of a target of some digits, such as a sampler with labels in its guidance has, the data are the
    images of these.

    Floor: the same for n other images of the data in place of the samples, the mean over the same
    choices; with the default, two halves of the data against each other. The data themselves, drawn
    with replacement, score three quarters of it: a sampler that returns what it was trained on lies
    *below* the floor.
    """

    axis_label: ClassVar[str] = "Fréchet distance of classifier features"

    points: int = 898

    def __post_init__(self) -> None:
        if self.points < 2:
            raise ValueError(f"fid-digits: points = {self.points}; needed: 2 or more")

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        n = self._used(dataset, len(samples))
        found = Moments.of(seen(samples[:n]).features)
        return math.fsum(frechet(found, half) for half, _ in _halves(_digits_in(dataset), n)) / _SPLITS

    def _floor(self, dataset: Dataset, n: int) -> float:
        return math.fsum(frechet(a, b) for a, b in _halves(_digits_in(dataset), self._used(dataset, n))) / _SPLITS

    def _used(self, dataset: Dataset, n: int) -> int:
        return min(n, self.points, len(_images(_digits_in(dataset))) // 2)


def _images(digits: tuple[int, ...]) -> Tensor:
    """The data that show one of these digits."""
    whole = Digits()
    return whole.points[torch.isin(whole.labels, torch.tensor(digits))]


@lru_cache(maxsize=32)
def _halves(digits: tuple[int, ...], n: int) -> tuple[tuple[Moments, Moments], ...]:
    """Pairs of the moments of n images of the data that show these digits and of n others."""
    features, generator = seen(_images(digits)).features, stream("fid-digits", sorted(digits))
    pairs = []
    for _ in range(_SPLITS):
        order = torch.randperm(len(features), generator=generator)
        pairs.append((Moments.of(features[order[:n]]), Moments.of(features[order[n : 2 * n]])))
    return tuple(pairs)


@metrics.register(
    "label-accuracy",
    formula="share of the samples that the classifier takes for the digit that was asked for",
    source="classification accuracy of conditional samples: Ravuri & Vinyals, NeurIPS 2019, the other way round",
)
@dataclass(frozen=True)
class LabelAccuracy(_DigitsMetric):
    """Share of conditional samples that are classified as asked; more is better.

    It serves targets of one digit (``{name: digits, digit: 3}``) and those of samplers that are
    asked for labels by guidance: of several labels, sample i is asked for the i-th in turn. "Floor"
    is what images of these digits themselves reach.
    """

    axis_label: ClassVar[str] = "share classified as asked"
    higher_is_better: ClassVar[bool] = True

    def refuses(self, dataset: Dataset) -> str | None:
        if reason := super().refuses(dataset):
            return reason
        if dataset == Digits():
            return "it needs to know what was asked for: {name: digits, digit: 3}, or a sampler with labels in its guidance"
        return None

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        requested = torch.tensor(_digits_in(dataset))
        wanted = requested[torch.arange(len(samples)) % len(requested)]
        right = seen(samples).logits.argmax(1) == wanted
        return int(right.sum()) / len(samples)

    def _floor(self, dataset: Dataset, n: int) -> float:  # noqa: ARG002
        shares = [self._measure(Digits(digit).points, Digits(digit)) for digit in _digits_in(dataset)]
        return sum(shares) / len(shares)
