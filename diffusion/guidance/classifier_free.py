r"""Guidance without a classifier: a model that takes the label, and the same model without it.

Where both denoisers are exact, ``D_y - D = (sigma^2 / alpha) grad log p_t(y | x_t)``: a network
that gives both holds a classifier implicitly, and ``D + w (D_y - D)`` is guidance of weight w by
it. With weight 1 nothing is extrapolated and the label's own denoiser is all that is asked; any
other weight asks the network twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.datasets.classes import has_exact_classes
from diffusion.formulations import Formulation
from diffusion.guidance.base import LabelGuidance, guidances
from diffusion.models import Denoiser, KnownDistribution, LabelledDenoiser


@guidances.register(
    "classifier-free",
    formula="D + w (D_y - D), both by one model that was trained with labels and without",
    source="Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, eq. 6 (w = 1 is theirs without guidance)",
    document="S1",
)
@dataclass(frozen=True)
class ClassifierFree(LabelGuidance):
    """From a model that takes the label: formulation `class-conditional`, or the exact one
    where classes are known.
    """

    cost: ClassVar[float] = 2.0

    def refuses(self, dataset: Dataset, formulation: Formulation) -> str | None:
        if reason := super().refuses(dataset, formulation):
            return reason
        if not issubclass(formulation.gives, LabelledDenoiser):
            return f"{formulation.registered_name!r} is not conditioned on the label; needed: a formulation that is, 'class-conditional'"
        if issubclass(formulation.gives, KnownDistribution) and not has_exact_classes(dataset):
            return f"the classes of {dataset.registered_name!r} have no exact denoiser"
        return None

    def denoise(
        self, denoiser: Denoiser, datasets: Sequence[Dataset], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        if not isinstance(denoiser, LabelledDenoiser):
            raise TypeError("the model is not conditioned on a label")
        requested = {self.requested(dataset) for dataset in datasets}
        if len(requested) != 1:
            raise ValueError("members of one stack must be asked for the same labels")
        if self.weight == 0:
            return denoiser(x, alpha, sigma)
        turns = torch.tensor(requested.pop())  # on the host: labels say which rows are asked what
        labels = turns[torch.arange(x.shape[1]) % len(turns)]
        conditional = denoiser.labelled(x, alpha, sigma, labels)
        if self.weight == 1:
            return conditional
        unconditional = denoiser(x, alpha, sigma)
        return unconditional + self.weight * (conditional - unconditional)
