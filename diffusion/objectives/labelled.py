r"""The denoising loss with a network that is told the label, and now and then is not.

    L = E lambda(nsr) | D(x_t; nsr, c) - x_0 |^2,      c = the label y with probability 1 - drop, else "not told"

The minimiser is ``E[x_0 | x_t, y]`` where the label is told and ``E[x_0 | x_t]`` where it is not, by one network. The label
is a one-hot vector beside the features of the noise level; not told is the zero vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.networks import FEATURES, Network
from diffusion.objectives.denoising import DenoisingLoss
from diffusion.objectives.member import Member
from diffusion.objectives.settings import Training

NOT_TOLD = -1
"""The label of a sample of which the network is to know nothing."""


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """``[..., classes]`` float32: 1 at the label, all zero where it is `NOT_TOLD`."""
    return (labels[..., None] == torch.arange(classes)).float()


@dataclass(frozen=True)
class LabelledLoss(DenoisingLoss):
    """`DenoisingLoss` on labelled data ``[n, dim + 1]``, whose last column is the label."""

    drop: float = 0.1

    def network(self, dataset: Dataset, settings: Training) -> Network:
        return settings.network.build(
            dataset.dim,
            settings.width,
            settings.depth,
            conditions=FEATURES + dataset.classes,
            image=dataset.image_shape,
        )

    def batches(
        self, member: Member, data: Tensor, steps: int, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """As `DenoisingLoss.batches`; conditions are ``[steps, batch, FEATURES + classes]``."""
        dataset = member.dataset
        if data.shape[-1] != dataset.dim + 1:
            raise ValueError(
                f"labelled data have {dataset.dim} coordinates and a label, found {data.shape[-1]} columns"
            )
        nsr = self.levels(member, steps, batch, generator)
        drawn = data[torch.randint(len(data), tuple(nsr.shape), generator=generator)]
        told = torch.rand(nsr.shape, generator=generator) >= self.drop
        labels = torch.where(told, drawn[..., -1].long(), NOT_TOLD)
        inputs, targets, conditions, weights = self.batches_on(member, drawn[..., :-1], nsr, generator)
        return inputs, targets, torch.cat([conditions, one_hot(labels, dataset.classes)], -1), weights

    def denoise(
        self, network: Network, rows: Tensor, members: Sequence[Member], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        return self.denoise_labelled(network, rows, members, x, alpha, sigma, torch.tensor(NOT_TOLD))

    def denoise_labelled(
        self,
        network: Network,
        rows: Tensor,
        members: Sequence[Member],
        x: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Samples of one label at a time: then the whole batch shares its conditions, which costs less."""
        classes = members[0].dataset.classes
        labels = labels.expand(x.shape[1])
        out = torch.empty_like(x)
        for label in labels.unique():
            told = one_hot(label, classes)
            mine = (labels == label).nonzero().squeeze(1)
            out[:, mine] = self.answers(network, rows, members, x[:, mine], alpha, sigma, told)
        return out
