"""Action Matching: a path's velocity, and with it a denoiser, from samples of the path's marginals
alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.formulations.base import Trained, formulations
from diffusion.objectives import ActionLoss, Objective
from diffusion.objectives.action_matching import Kind
from diffusion.objectives.settings import Training
from diffusion.schedules import Flow, Schedule


@formulations.register(
    "action-matching",
    formula="E s_noise - E s_data + integral of E[|grad s|^2/2 + d_tau s + extra]; extra: 0, g^2 lap s/2, s^2/2",
    source="Neklyudov, Brekelmans, Severo & Makhzani, Action Matching: Learning Stochastic Dynamics from Samples, ICML 2023",
    document="S4 (its last topic)",
)
@dataclass(frozen=True)
class ActionMatching(Trained):
    """The action whose gradient drives noise to data along the schedule's path; see
    `diffusion.objectives.action_matching`.

    `kind` is ``plain`` (a flow), ``entropic`` (a diffusion, with `noise` the size of g and `probes`
    for the trace of the second derivatives, 0 for the exact one) or ``unbalanced`` (samples gain
    and lose weight on the way). The first two give a denoiser, because the path is known; all are
    sampled by `action`.
    """

    kind: Kind = "plain"
    noise: float = 1.0
    probes: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.noise < math.inf:
            raise WrongValue(f"action-matching: noise, the size of g, must be positive, found {self.noise}")
        if self.probes < 0:
            raise WrongValue(f"action-matching: probes must be at least 0, found {self.probes}")

    @property
    def objective(self) -> Objective:
        entropic = self.kind == "entropic"
        return ActionLoss(self.kind, self.noise if entropic else 0.0, self.probes if entropic else 0)

    def own_schedule(self) -> Schedule:
        return Flow()

    def noise_range(self, schedule: Schedule) -> tuple[float, float]:
        """The path's ends: beyond them there are no angles that training has seen."""
        low, high = schedule.nsr(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)).tolist()
        return low, high

    def refuses_network(self, dataset: Dataset, settings: Training) -> str | None:
        """Its network answers one number for each point, which those from images to images do not."""
        if reason := super().refuses_network(dataset, settings):
            return reason
        if not settings.network.of_images:
            return None
        name = settings.network.registered_name
        return (
            f"'action-matching' learns a scalar function, and {name!r} maps images to images (accepted: network: mlp)"
        )

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        return None if dataset.std > 0 else "its path is scaled by the data's standard deviation, which is zero"
