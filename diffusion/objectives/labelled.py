r"""The denoising loss with a network that is conditioned on the label, and now and then is not.

    L = E lambda(nsr) | D(x_t; nsr, c) - x_0 |^2,      c = the label y with probability 1 - drop, else none

The minimiser is ``E[x_0 | x_t, y]`` with the label and ``E[x_0 | x_t]`` without it, by one network.
The label is a one-hot vector beside the features of the noise level; no label is the zero vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.devices import HOST, to_device
from diffusion.networks import FEATURES, Network
from diffusion.objectives.denoising import DenoisingLoss, NetworkDenoiser
from diffusion.objectives.member import Member
from diffusion.objectives.settings import Training
from diffusion.randomness import Source, examples, uniform

NO_LABEL = -1
"""The label of a sample of which the network is to know nothing."""


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """``[..., classes]`` float32: 1 at the label, all zero where it is `NO_LABEL`."""
    return (labels[..., None] == torch.arange(classes, device=labels.device)).float()


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

    def batches(self, member: Member, data: Tensor, steps: int, batch: int, generator: Source) -> tuple[Tensor, ...]:
        """As `DenoisingLoss.batches`; conditions are ``[steps, batch, FEATURES + classes]``."""
        dataset = member.dataset
        if data.shape[-1] != dataset.dim + 1:
            raise ValueError(
                f"labelled data have {dataset.dim} coordinates and a label, found {data.shape[-1]} columns"
            )
        nsr = self.levels(member, steps, batch, generator)
        drawn = examples(data, (steps, batch), generator)
        kept = uniform((steps, batch), generator, torch.float32) >= self.drop
        labels = torch.where(kept, drawn[..., -1].long(), NO_LABEL)
        inputs, targets, conditions, weights = self.batches_on(member, drawn[..., :-1], nsr, generator)
        conditions = conditions.repeat_interleave(batch // conditions.shape[1], 1)
        return inputs, targets, torch.cat([conditions, one_hot(labels, dataset.classes)], -1), weights

    @property
    def gives(self) -> type[LabelledNetworkDenoiser]:
        return LabelledNetworkDenoiser


@dataclass(frozen=True, eq=False)
class LabelledNetworkDenoiser(NetworkDenoiser):
    """The denoiser of a network that is conditioned on the label, or on none."""

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """See `diffusion.models.Denoiser`: the network is conditioned on no label."""
        return self.labelled(x, alpha, sigma, torch.tensor(NO_LABEL))

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """See `diffusion.models.LabelledDenoiser`.

        Samples of one label at a time: then the whole batch shares its conditions, which costs
        less. Which they are is looked up on the host.
        """
        classes = self.members[0].dataset.classes
        labels = labels.to(HOST).expand(x.shape[1])
        out = torch.empty_like(x)
        with torch.set_grad_enabled(x.requires_grad):
            for label in labels.unique():
                mine = to_device((labels == label).nonzero().squeeze(1), x.device)
                told = to_device(one_hot(label, classes), x.device)
                out[:, mine] = self.answers(x[:, mine], alpha, sigma, told)
        return out
