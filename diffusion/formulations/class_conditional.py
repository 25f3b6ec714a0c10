r"""A formulation whose network takes the label, so that one network knows every class and the
whole.

It gives ``E[x_0 | x_t, y]`` besides ``E[x_0 | x_t]``, which guidance `classifier-free` extrapolates
from; without guidance it is sampled as a model of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.formulations.base import Formulation, NoiseConditional, formulations
from diffusion.formulations.denoising import ElucidatedDM
from diffusion.objectives import DenoisingLoss, LabelledLoss, NoiseLevels, NoiseTarget, Objective, Weighting
from diffusion.objectives.parametrizations import Parametrization
from diffusion.schedules import Schedule


@formulations.register(
    "class-conditional",
    formula="the loss of the formulation `of` with D(x_t; nsr, c), c the label, or nothing with probability drop",
    source="Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, algorithm 1",
    document="S1",
)
@dataclass(frozen=True)
class ClassConditional(NoiseConditional):
    """Any formulation that is trained by regression on noised data, with a network that takes the
    label or nothing.

    Raises:
        WrongValue: `of` is trained in another way; `drop` is no probability below 1.
    """

    labelled: ClassVar[bool] = True

    of: Formulation = ElucidatedDM()
    drop: float = 0.1

    def __post_init__(self) -> None:
        if not (isinstance(self.of, NoiseConditional) and self.of.objective == DenoisingLoss()):
            raise WrongValue(f"of = {self.of.registered_name!r}, which is not trained by regression on noised data")
        if not 0 <= self.drop < 1:
            raise WrongValue(f"drop = {self.drop!r}; needed: a probability, below 1")

    @property
    def inner(self) -> NoiseConditional:
        """What it would be without labels."""
        assert isinstance(self.of, NoiseConditional)  # noqa: S101 - checked when it was made
        return self.of

    @property
    def objective(self) -> Objective:
        return LabelledLoss(self.drop)

    def own_schedule(self) -> Schedule:
        return self.inner.own_schedule()

    @property
    def parametrization(self) -> Parametrization:
        return self.inner.parametrization

    @property
    def noise_levels(self) -> NoiseLevels:
        return self.inner.noise_levels

    @property
    def weighting(self) -> Weighting:
        return self.inner.weighting

    @property
    def noise_target(self) -> NoiseTarget:
        return self.inner.noise_target

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:
        return self.inner.c_noise(nsr, schedule)

    def refuses(self, schedule: Schedule) -> str | None:
        return self.inner.refuses(schedule)

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        if dataset.classes == 0:
            return f"'class-conditional' is conditioned on labels, and dataset {dataset.registered_name!r} has none"
        return self.inner.refuses_dataset(dataset)
