"""Metrics for targets that consist of separate modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.metrics.base import Metric, metrics
from diffusion.metrics.cdf import mean_deviation


@metrics.register(
    "mode-coverage",
    formula="TV = 1/2 sum over modes of |q_k - w_k|, q the samples' shares, w the weights",
    source="total variation distance: Levin & Peres, Markov Chains and Mixing Times, 2017, section 4.1",
)
@dataclass(frozen=True)
class ModeCoverage(Metric):
    """Total variation distance between the shares of samples per mode and the modes' weights: 0 to
    1.

    The mass that would have to move to another mode; a mode that is missed altogether costs its
    weight. Every sample belongs to some mode, however far from it: how well a mode is filled, other
    metrics say.

    Floor (against the law): ``sum_k sqrt(w_k (1 - w_k)) / sqrt(2 pi n)`` for large n; computed from
    the exact mean absolute deviations of binomial shares.
    """

    axis_label: ClassVar[str] = "misplaced share of samples among modes"

    def refuses(self, dataset: Dataset) -> str | None:
        return "it needs a target with separate modes" if dataset.mode_weights is None else None

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        weights = _weights(dataset)
        shares = torch.bincount(dataset.mode_of(samples), minlength=len(weights)).double() / len(samples)
        return 0.5 * float((shares - weights).abs().sum())

    def _floor(self, dataset: Dataset, n: int) -> float:
        return 0.5 * sum(mean_deviation(n, weight) for weight in _weights(dataset).tolist())


def _weights(dataset: Dataset) -> Tensor:
    assert dataset.mode_weights is not None  # noqa: S101  # for the type checker: `refuses` has seen to it
    return torch.tensor(dataset.mode_weights, dtype=torch.float64)
