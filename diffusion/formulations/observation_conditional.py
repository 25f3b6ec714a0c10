r"""A formulation whose network is given a simulator's outcome: one network for all posteriors of a
task, learned from simulations alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffusion.datasets import Dataset, SimulatorPosterior
from diffusion.errors import WrongValue
from diffusion.formulations.base import formulations
from diffusion.formulations.conditioned import Conditioned
from diffusion.objectives import Objective, ObservedLoss
from diffusion.objectives.settings import Training
from diffusion.schedules import Schedule


@formulations.register(
    "observation-conditional",
    formula="the loss of the formulation `of` with D(theta_t; nsr, x), (theta, x) from prior and simulator",
    source="Sharrock, Simons, Liu & Beaumont, Sequential Neural Score Estimation, 2022; Geffner, Papamakarios & Mnih, "
    "Compositional Score Modeling for Simulation-based Inference, 2022",
)
@dataclass(frozen=True)
class ObservationConditional(Conditioned):
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

    simulations: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.simulations < 1:
            raise WrongValue(f"simulations = {self.simulations!r}; needed: 1 or more")

    @property
    def objective(self) -> Objective:
        return ObservedLoss()

    def examples(self, settings: Training) -> int:  # noqa: ARG002
        return self.simulations

    def fitted(self, schedule: Schedule, dataset: Dataset) -> Schedule:
        """By the prior, of which its network learns: no observation takes part in that."""
        return schedule.fitted(dataset.prior if isinstance(dataset, SimulatorPosterior) else dataset)

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        if not isinstance(dataset, SimulatorPosterior):
            name = dataset.registered_name
            return (
                f"'observation-conditional' learns a posterior from simulations, and dataset {name!r} has no simulator"
            )
        return self.inner.refuses_dataset(dataset)
