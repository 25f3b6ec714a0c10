r"""Guidance by the exact classifier of a target whose classes are known.

    log p_t(y | x_t) = log w_y + log p_t(x_t | y) - log p_t(x_t)

where ``p_t(x_t | y)`` is the noised law of class y. Its gradient is the difference of two scores,
and the shift of the denoiser the difference of two posterior means, ``D_y - D``: with weight 1 the
guided exact denoiser *is* that of the conditioned law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffusion.datasets import Dataset, given_labels
from diffusion.datasets.classes import has_exact_classes
from diffusion.formulations import Formulation
from diffusion.guidance.base import LabelGuidance, by_dataset, guidances
from diffusion.models import Denoiser


@guidances.register(
    "class-label",
    formula="D + w (D_y - D) = D + w sigma^2/alpha grad log p_t(y | x_t),  p_t(y | x_t) = w_y p_t(x_t | y) / p_t(x_t)",
    source="Bayes' rule for scores at every noise level: Song et al., SDE, ICLR 2021, section 5; "
    "Dhariwal & Nichol, NeurIPS 2021, section 4",
    document="S1",
)
@dataclass(frozen=True)
class ClassLabel(LabelGuidance):
    """The exact classifier of the noised data, for targets whose classes have exact denoisers; any
    denoiser is steered.
    """

    def refuses(self, dataset: Dataset, formulation: Formulation) -> str | None:
        if reason := super().refuses(dataset, formulation):
            return reason
        return (
            None if has_exact_classes(dataset) else f"the classes of {dataset.registered_name!r} have no exact denoiser"
        )

    def log_probability(self, dataset: Dataset, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p_t(y | x_t) of the first label asked, ``[..., batch]``; alpha and sigma broadcast
        against that.
        """
        (label, *_), weights = self.requested(dataset), dataset.class_weights
        assert weights is not None  # noqa: S101 - classes are known exactly
        conditioned = given_labels(dataset, (label,))
        share = conditioned.log_density(x, alpha, sigma) - dataset.log_density(x, alpha, sigma)
        return math.log(weights[label]) + share

    def denoise(
        self, denoiser: Denoiser, datasets: Sequence[Dataset], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        def shift(dataset: Dataset, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            def towards(label: int, x: Tensor) -> Tensor:
                return given_labels(dataset, (label,)).denoise(x, alpha, sigma) - dataset.denoise(x, alpha, sigma)

            return self.in_turn(towards, dataset, x)

        return denoiser(x, alpha, sigma) + self.weight * by_dataset(datasets, shift, x, alpha, sigma)
