"""The denoising loss with a network of its own for every noise level: what one network over all levels is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.networks import Network
from diffusion.networks.separate import SeparateNetworks
from diffusion.objectives.denoising import DenoisingLoss
from diffusion.objectives.member import Member
from diffusion.objectives.settings import Training


@dataclass(frozen=True)
class SeparateLoss(DenoisingLoss):
    """Every level of a discrete schedule has its own network and its own equal part of each batch.

    A batch that cannot be divided is rounded up. The networks of one model share the optimiser's step and the bound on the length
    of the gradient, nothing else.
    """

    count: int = 10

    def network(self, dataset: Dataset, settings: Training) -> SeparateNetworks:
        return SeparateNetworks(super().network(dataset, settings), self.count)

    def levels(self, member: Member, steps: int, batch: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Level by level, the noisiest first: nothing is drawn."""
        own = torch.as_tensor(member.schedule.noise_levels)
        return own.repeat_interleave(-(-batch // self.count)).expand(steps, -1)

    def denoise(
        self, network: Network, rows: Tensor, members: Sequence[Member], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        """By the network of the nearest level (in the logarithm), for each member."""
        assert isinstance(network, SeparateNetworks)  # noqa: S101 - `network` made it
        nearest = [
            int((torch.as_tensor(member.schedule.noise_levels).log() - ratio.log()).abs().argmin())
            for member, ratio in zip(members, sigma / alpha, strict=True)
        ]
        chosen = network.of_level(rows, torch.tensor(nearest))
        return super().denoise(network.one, chosen, members, x, alpha, sigma)
