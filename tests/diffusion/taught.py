"""What a formulation can learn from: a target that it serves, and examples of it."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.datasets import Dataset, SimulatorPosterior, TwoMoonsPosterior
from diffusion.formulations import Formulation, Trained


def served(formulation: Formulation, *targets: Dataset) -> Dataset:
    """The first of these that it does not refuse, or a posterior; the first where it refuses all."""
    offered = (*targets, TwoMoonsPosterior())
    return next((one for one in offered if formulation.refuses_dataset(one) is None), offered[0])


def examples(formulation: Formulation, dataset: Dataset, n: int, generator: torch.Generator) -> Tensor:
    """`n` of them, with labels or outcomes beside them where it learns from these."""
    if isinstance(formulation, Trained) and formulation.simulates:
        assert isinstance(dataset, SimulatorPosterior)
        return dataset.sample_joint(n, generator)
    if isinstance(formulation, Trained) and formulation.labelled:
        x, labels = dataset.sample_labelled(n, generator)
        return torch.cat([x, labels[:, None].double()], 1)
    return dataset.sample(n, generator)
