r"""The classifier two-sample test: how often a classifier tells samples from draws of the target.

A classifier is trained to tell ``X`` from the target and ``Y`` from the samples; its accuracy on
pairs that it was not trained on is 1/2 if both follow one law and 1 if they have nothing in common.
For two laws with densities p and q the best classifier has

    accuracy = 1/2 + TV(p, q) / 2,      TV(p, q) = (1/2) integral |p - q|,

which for two normal laws of unit covariance, mu apart, is ``Phi(|mu| / 2)``. A trained classifier
has less, never more but for chance.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.metrics.base import Metric, metrics
from diffusion.randomness import stream
from diffusion.registry import stream_text

_FOLDS, _UNITS = 5, 10  # of the protocol; units of a hidden layer for each coordinate
_SEED = 1  # of the folds and of the networks' first weights
_FARTHEST = 100.0  # standard deviations; what lies farther is as easily told, and would keep a network from learning
_BATCH = 200  # examples of a training step, as scikit-learn has it
_PER_STEP, _PER_NUMBER = 3e-4, 1.2e-10  # seconds of a training step, and of a multiplication in it


@metrics.register(
    "c2st",
    formula="accuracy of a classifier of samples and draws of the target, 5-fold: 1/2 + TV / 2 at best",
    source="Lopez-Paz & Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017; the protocol: Lueckmann, Boelts, "
    "Greenberg, Goncalves & Macke, Benchmarking Simulation-Based Inference, AISTATS 2021, appendix",
)
@dataclass(frozen=True)
class ClassifierTwoSample(Metric):
    r"""Accuracy of a classifier that tells the samples from draws of the target; 1/2 is perfect.

    The protocol of Lueckmann et al. (2021): the first `points` samples and as many draws of the
    target, which are fixed; both z-scored with mean and standard deviation of the draws; a
    multilayer perceptron of two hidden layers of ``10 dim`` rectified linear units, trained by Adam
    in batches of 200 at scikit-learn's other settings until its loss has fallen by less than 1e-4
    in ten epochs, `epochs` at most; accuracy on the held-out part, the mean over five shuffled
    folds. Samples are put in order before they are shuffled, so that their order says nothing.

    Published tables use 10 000 points. The test takes long there (seconds in the plane, three minutes
    in ten dimensions); the planner counts them.

    Floor: 1/2, what two samples of one law have on average. Held-out parts of shuffled folds hold
    fewer of the kind of which training saw more, which makes it some hundredths less at 100 points
    and nothing that counts from 1000 on. The standard error of a number is about
    ``1 / sqrt(8 points)``: 0.0035 at 10 000.

    Raises:
        WrongValue: `points` is less than 5, of which no fold could be left out, or `epochs` less
            than 1.
    """

    axis_label: ClassVar[str] = "accuracy of a classifier (C2ST)"
    counted: ClassVar[bool] = True
    costly: ClassVar[bool] = True

    points: int = 10_000
    epochs: int = 10_000

    def __post_init__(self) -> None:
        if self.points < _FOLDS:
            raise WrongValue(f"c2st: points = {self.points}; needed: {_FOLDS} or more, one for each fold")
        if self.epochs < 1:
            raise WrongValue(f"c2st: epochs = {self.epochs}; needed: 1 or more")

    def refuses(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        return None

    def seconds(self, dataset: Dataset, n: int) -> float:
        """Within a factor of three of what was measured of samples that cannot be told apart, in 4 to
        16 dimensions; below it takes seconds, and less than this. The more weights there are for
        each point, the longer the network goes on learning points by heart; where there are many
        more than points, that is done soon.
        """
        count, hidden = min(n, self.points), _UNITS * dataset.dim
        multiplications = 3 * (dataset.dim * hidden + hidden * hidden + hidden) * _BATCH
        weights = hidden**2 / (2 * count * (1 - 1 / _FOLDS))  # for each point
        epochs = min(self.epochs, 20 + 1200 * weights / (0.6 + weights) / (1 + weights / 6))
        steps = _FOLDS * epochs * max(1.0, 1.6 * count / _BATCH)
        return steps * (_PER_STEP + multiplications * _PER_NUMBER)

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        y = samples[: self.points].numpy()
        if 2 * len(y) < _FOLDS:
            raise WrongValue(f"c2st: {len(y)} samples, and as many draws of the target; needed: {_FOLDS} in all")
        x = _reference(dataset, len(y))
        middle, spread = x.mean(0), x.std(0)
        spread = np.where(spread > 0, spread, max(dataset.std, 1e-300))
        with np.errstate(over="ignore"):
            both = [((part - middle) / spread).clip(-_FARTHEST, _FARTHEST) for part in (x, y)]
        ordered = [part[np.lexsort(part.T)] for part in both]
        return _accuracy(ordered[0], ordered[1], self.epochs)

    def _floor(self, dataset: Dataset, n: int) -> float:  # noqa: ARG002
        return 0.5


@remembered(32)
def _reference(dataset: Dataset, m: int) -> np.ndarray:
    """As many draws of the target, the same for all samples.

    Not the quantiles of a target on the line: evenly spaced points are told from draws.
    """
    return np.asarray(dataset.sample(m, stream("metric reference", stream_text(dataset))))


def _accuracy(x: np.ndarray, y: np.ndarray, epochs: int) -> float:
    """Of classifiers of x and y ``[n, dim]`` each, the mean over folds.

    One thread, so that the number does not depend on how many a machine has.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second; only who asks for it waits
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    hidden = _UNITS * x.shape[1]
    classifier = MLPClassifier((hidden, hidden), max_iter=epochs, random_state=_SEED)
    folds = KFold(_FOLDS, shuffle=True, random_state=_SEED)
    labels = np.repeat([0, 1], [len(x), len(y)])
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # who sets a limit knows it
        scores = cross_val_score(classifier, np.concatenate([x, y]), labels, cv=folds, scoring="accuracy")
    return float(scores.mean())
