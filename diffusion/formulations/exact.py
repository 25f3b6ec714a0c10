"""The formulation without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusion.datasets import Dataset
from diffusion.formulations.base import Formulation, formulations
from diffusion.models import ExactDenoiser
from diffusion.schedules import EDM, Schedule


@formulations.register(
    "exact",
    formula="D(y; sigma) = E[x_0 | x_0 + sigma eps = y], in closed form or by quadrature",
    source="Tweedie's formula: Robbins 1956; Efron, JASA 106 (2011)",
    document="S0 level 3 (the score as a posterior mean)",
)
@dataclass(frozen=True)
class Exact(Formulation):
    """No network: the target's ideal denoiser on the named schedule."""

    schedule: Schedule = EDM()

    @property
    def gives(self) -> type[ExactDenoiser]:
        return ExactDenoiser

    def own_schedule(self) -> Schedule:
        return self.schedule

    def identity(self) -> dict[str, Any]:
        """Without the schedule, which a cell has beside the formulation."""
        return {key: value for key, value in super().identity().items() if key != "schedule"}

    def differences(self) -> tuple[str, ...]:
        """None: a cell has the schedule beside the formulation."""
        return ()

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        return None if dataset.exact else f"target {dataset.registered_name!r} has no exact denoiser"
