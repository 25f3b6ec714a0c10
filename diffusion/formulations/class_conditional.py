r"""A formulation whose network takes the label, so that one network knows every class and the
whole.

It gives ``E[x_0 | x_t, y]`` besides ``E[x_0 | x_t]``, which guidance `classifier-free` extrapolates
from; without guidance it is sampled as a model of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.formulations.base import formulations
from diffusion.formulations.conditioned import Conditioned
from diffusion.objectives import LabelledLoss, Objective


@formulations.register(
    "class-conditional",
    formula="the loss of the formulation `of` with D(x_t; nsr, c), c the label, or nothing with probability drop",
    source="Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, algorithm 1",
    document="S1",
)
@dataclass(frozen=True)
class ClassConditional(Conditioned):
    """Any formulation that is trained by regression on noised data, with a network that takes the
    label or nothing.

    Raises:
        WrongValue: `of` is trained in another way; `drop` is no probability below 1.
    """

    labelled: ClassVar[bool] = True

    drop: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop < 1:
            raise WrongValue(f"drop = {self.drop!r}; needed: a probability, below 1")

    @property
    def objective(self) -> Objective:
        return LabelledLoss(self.drop)

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        if dataset.classes == 0:
            return f"'class-conditional' is conditioned on labels, and dataset {dataset.registered_name!r} has none"
        return self.inner.refuses_dataset(dataset)
