"""What training leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from diffusion.models import Denoiser
from diffusion.networks import Network
from diffusion.objectives import Objective
from diffusion.objectives.member import Member


@dataclass(frozen=True)
class TrainedStack:
    """What training leaves: averaged weights, losses and, for members that failed, the reason."""

    objective: Objective
    network: Network
    members: tuple[Member, ...]
    rows: Tensor  # [members, network.size], the parameters
    loss_steps: Tensor  # [bins], the step that closes each bin
    losses: Tensor  # [members, bins], mean loss per bin
    errors: tuple[str | None, ...]

    def select(self, indices: Sequence[int]) -> TrainedStack:
        """The sub-stack of the given members."""
        index = torch.tensor(list(indices), device=self.rows.device)
        return TrainedStack(
            self.objective,
            self.network,
            tuple(self.members[i] for i in indices),
            self.rows[index],
            self.loss_steps,
            self.losses[index.to(self.losses.device)],
            tuple(self.errors[i] for i in indices),
        )

    def to(self, device: torch.device) -> TrainedStack:
        """The same models on a device."""
        return self if self.rows.device == device else replace(self, rows=self.rows.to(device))

    @cached_property
    def model(self) -> object:
        """What the members can be asked, all at once: an instance of what their objective `gives`."""
        return self.objective.model(self.network, self.rows, self.members)

    @property
    def denoiser(self) -> Denoiser:
        """The model, if it is a denoiser.

        Raises:
            TypeError: It is not.
        """
        if not isinstance(self.model, Denoiser):
            raise TypeError(f"models of {type(self.objective).__name__} are no denoisers")
        return self.model
