r"""A formulation whose network is given a simulator's outcome: one network for all posteriors of a
task, learned from simulations alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffusion.datasets import Dataset, SimulatorPosterior
from diffusion.errors import WrongValue
from diffusion.formulations.base import Formulation, NoiseConditional, formulations
from diffusion.formulations.denoising import ElucidatedDM
from diffusion.objectives import DenoisingLoss, NoiseLevels, NoiseTarget, Objective, ObservedLoss, Weighting
from diffusion.objectives.parametrizations import Parametrization
from diffusion.objectives.settings import Training
from diffusion.schedules import Schedule


@formulations.register(
    "observation-conditional",
    formula="the loss of the formulation `of` with D(theta_t; nsr, x), (theta, x) from prior and simulator",
    source="Sharrock, Simons, Liu & Beaumont, Sequential Neural Score Estimation, 2022; Geffner, Papamakarios & Mnih, "
    "Compositional Score Modeling for Simulation-based Inference, 2022",
)
@dataclass(frozen=True)
class ObservationConditional(NoiseConditional):
    """Any formulation that is trained by regression on noised data, on simulations of a posterior's
    task.

    Args:
        of: what it would be without an observation.
        simulations: how many pairs of parameters and outcomes it learns from, whatever
            `training.data` says: the budget that published tables are ordered by.

    Raises:
        WrongValue: `of` is trained in another way; `simulations` is less than 1.
    """

    simulates: ClassVar[bool] = True

    of: Formulation = ElucidatedDM()
    simulations: int = 10_000

    def __post_init__(self) -> None:
        if not (isinstance(self.of, NoiseConditional) and self.of.objective == DenoisingLoss()):
            raise WrongValue(f"of = {self.of.registered_name!r}, which is not trained by regression on noised data")
        if self.simulations < 1:
            raise WrongValue(f"simulations = {self.simulations!r}; needed: 1 or more")

    @property
    def inner(self) -> NoiseConditional:
        """What it would be without an observation."""
        assert isinstance(self.of, NoiseConditional)  # noqa: S101 - checked when it was made
        return self.of

    @property
    def objective(self) -> Objective:
        return ObservedLoss()

    def examples(self, settings: Training) -> int:  # noqa: ARG002
        return self.simulations

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

    def fitted(self, schedule: Schedule, dataset: Dataset) -> Schedule:
        """By the prior, of which its network learns: no observation takes part in that."""
        return schedule.fitted(dataset.prior if isinstance(dataset, SimulatorPosterior) else dataset)

    def refuses(self, schedule: Schedule) -> str | None:
        return self.inner.refuses(schedule)

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        if not isinstance(dataset, SimulatorPosterior):
            name = dataset.registered_name
            return (
                f"'observation-conditional' learns a posterior from simulations, and dataset {name!r} has no simulator"
            )
        return self.inner.refuses_dataset(dataset)
