"""One model of a stack, before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.devices import numbers
from diffusion.networks import features
from diffusion.objectives.parametrizations import Circle, Coefficients
from diffusion.objectives.recipe import Recipe
from diffusion.registry import Component
from diffusion.schedules import Schedule


@dataclass(frozen=True)
class Member:
    """What one model of a stack learns, and the key that names its random streams."""

    dataset: Dataset
    formulation: Component
    schedule: Schedule
    key: str

    @property
    def recipe(self) -> Recipe:
        """The formulation of a network that is conditioned on the noise level.

        Raises:
            TypeError: The formulation is of another kind.
        """
        if not isinstance(self.formulation, Recipe):
            raise TypeError(f"formulation {self.formulation.registered_name!r} has no noise levels")
        return self.formulation

    def condition(self, nsr: Tensor) -> Tensor:
        """The network's input for the noise level: features of the label, the schedule's range
        scaled to [-1, 1].

        A label that is the same at both ends says nothing and becomes 0.

        Args:
            nsr: Noise-to-signal ratios ``[...]``.

        Returns:
            ``[..., FEATURES]``.
        """
        recipe = self.recipe
        middle, unit = _label_range(self.formulation, self.schedule)
        if not nsr.is_cpu:
            middle, unit = numbers([float(middle), float(unit)], nsr.device)
        return features((recipe.c_noise(nsr, self.schedule) - middle) / unit)

    def coefficients(self, level: Circle) -> Coefficients:
        """c_skip, c_out and c_in of the member's parametrization, shaped like the level."""
        return self.recipe.parametrization.coefficients(level, self.dataset.std)


@remembered(4096)
def _label_range(formulation: Component, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Middle and half length of the labels on a schedule, 1 where they are all the same; not to be
    written to.
    """
    assert isinstance(formulation, Recipe)  # noqa: S101 - asked of members with a recipe
    with torch.inference_mode(mode=False):  # whatever mode the first who asks is in
        ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
        low, high = formulation.c_noise(schedule.nsr(ends), schedule)
        half = (high - low).abs() / 2
        return (low + high) / 2, torch.where(half > 0, half, torch.ones_like(half))
