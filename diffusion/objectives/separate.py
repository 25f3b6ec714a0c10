"""The denoising loss with a network of its own for every noise level: what one network over all
levels is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.devices import numbers, to_device
from diffusion.networks.separate import SeparateNetworks
from diffusion.objectives.denoising import DenoisingLoss, NetworkDenoiser
from diffusion.objectives.member import Member
from diffusion.objectives.settings import Training
from diffusion.randomness import Source, drawn_on


@dataclass(frozen=True)
class SeparateLoss(DenoisingLoss):
    """Every level of a discrete schedule has its own network and its own equal part of each batch.

    A batch that cannot be divided is rounded up. The networks of one model share the optimiser's
    step and the bound on the length of the gradient, nothing else.
    """

    count: int = 10

    def network(self, dataset: Dataset, settings: Training) -> SeparateNetworks:
        return SeparateNetworks(super().network(dataset, settings), self.count)

    def levels(self, member: Member, steps: int, batch: int, generator: Source) -> Tensor:
        """Level by level, the noisiest first: nothing is drawn."""
        own = to_device(torch.as_tensor(member.schedule.noise_levels), drawn_on(generator))
        return own.repeat_interleave(-(-batch // self.count)).expand(steps, -1)

    @property
    def gives(self) -> type[SeparateDenoisers]:
        return SeparateDenoisers


@dataclass(frozen=True, eq=False)
class SeparateDenoisers(NetworkDenoiser):
    """The denoiser of the level that is nearest (in the logarithm), for each member."""

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """See `diffusion.models.Denoiser`."""
        assert isinstance(self.network, SeparateNetworks)  # noqa: S101 - `SeparateLoss.network` made it
        nearest = [
            (numbers(member.schedule.noise_levels.tolist(), x.device).log() - ratio.log()).abs().argmin()
            for member, ratio in zip(self.members, sigma / alpha, strict=True)
        ]
        chosen = self.network.of_level(self.rows, torch.stack(nearest))
        nearest_alone = NetworkDenoiser(self.network.one, chosen, self.members, self.objective)
        with torch.set_grad_enabled(x.requires_grad):
            return nearest_alone.answers(x, alpha, sigma)
