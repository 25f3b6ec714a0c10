"""What an objective owes the training loop: batches drawn beforehand, a loss of each member, and the model that comes out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.models import EvidenceBound, Motion
from diffusion.networks import Network
from diffusion.objectives.member import Member
from diffusion.objectives.settings import Training
from diffusion.registry import Component


@dataclass(frozen=True)
class Objective(Component):
    """A program of loss. Members of a stack share it; what differs between them is in their batches.

    Its fields are what changes the program itself (how many probes, which kind), not what a member may have its own of.
    """

    def network(self, dataset: Dataset, settings: Training) -> Network:
        """The shape of the network for a target."""
        return settings.network.build(dataset.dim, settings.width, settings.depth, image=dataset.image_shape)

    @abstractmethod
    def batches(
        self, member: Member, data: Tensor, steps: int, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """What a member learns from in a number of steps: float32 tensors ``[steps, batch, ...]``.

        All that is random is drawn here, from the member's own generator; `data` is its training set ``[n, dim]`` float64.
        """

    @abstractmethod
    def losses(self, network: Network, rows: Tensor, *batch: Tensor) -> Tensor:
        """Each example's loss ``[members, batch]``, differentiable in the rows; parts of a batch are ``[members, batch, ...]``.

        Nothing here may mix members.
        """

    @abstractmethod
    def zero_loss(self, *batches: Tensor) -> Tensor:
        """The size of loss ``[members]`` beyond ten times of which training counts as diverged.

        That of a model that answers zero, from batches ``[steps, members, batch, ...]``; infinite where there is no such scale.
        """

    def passes(self, dim: int) -> float:
        """How often it takes what a regression takes (one evaluation and one gradient), for planning."""
        return 1.0

    def noise_features(self, *batch: Tensor) -> Tensor:
        """Features of the noise level ``[members, batch, n]``, for weightings that learn how hard each level is."""
        raise TypeError(f"{type(self).__name__} has no noise levels to balance")

    def denoise(
        self, network: Network, rows: Tensor, members: Sequence[Member], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        """E[x_0 | x_t] of a trained stack, for formulations that give a denoiser: see `diffusion.samplers.Denoiser`."""
        raise TypeError(f"models of {type(self).__name__} are no denoisers")

    def perturbation(self, members: Sequence[Member], time: Tensor) -> Tensor:
        """eps_t of incremental restoration at times ``[members]``, for formulations that give a perturbation."""
        raise TypeError(f"models of {type(self).__name__} have no perturbation")

    def action(
        self, network: Network, rows: Tensor, members: Sequence[Member], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Motion:
        """What an action says of points x ``[members, batch, dim]``, for formulations that give an action."""
        raise TypeError(f"models of {type(self).__name__} have no action")

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
        """E[x_0 | x_t, label] for labels ``[batch]`` int64, -1 where it is not told, of models that know labels."""
        raise TypeError(f"models of {type(self).__name__} know no labels")

    def decode(self, network: Network, rows: Tensor, members: Sequence[Member], z: Tensor) -> Tensor:
        """Data ``[members, batch, dim]`` for latent points, for formulations that give a decoder."""
        raise TypeError(f"models of {type(self).__name__} have no decoder")

    def latent_dim(self) -> int:
        """Number of a latent point's coordinates, for formulations that give a decoder."""
        raise TypeError(f"models of {type(self).__name__} have no decoder")

    def decoder_std(self, network: Network, rows: Tensor, members: Sequence[Member]) -> Tensor:
        """Standard deviation of the decoder's law in the units of the data, ``[members]``."""
        raise TypeError(f"models of {type(self).__name__} have no decoder")

    def encode(self, network: Network, rows: Tensor, members: Sequence[Member], x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), ``[members, batch, latent]``, for formulations that have an encoder."""
        raise TypeError(f"models of {type(self).__name__} have no encoder")

    def bound(
        self, network: Network, rows: Tensor, members: Sequence[Member], x: Tensor, noise: Tensor
    ) -> EvidenceBound:
        """An evidence lower bound, its terms ``[..., members, batch]``, for formulations that give one of their own."""
        raise TypeError(f"models of {type(self).__name__} have no evidence lower bound of their own")


class Trainable:
    """What training asks of a formulation: the program that is minimised, and the network."""

    @property
    @abstractmethod
    def objective(self) -> Objective:
        """The program that training minimises; formulations with equal objectives are trained in one stack."""

    def network(self, dataset: Dataset, settings: Training) -> Network:
        """The shape of its network for a target."""
        return self.objective.network(dataset, settings)


def trainable(member: Member) -> Trainable:
    """The member's formulation as what training asks of it.

    Raises:
        TypeError: The formulation has no network.
    """
    if not isinstance(member.formulation, Trainable):
        raise TypeError(f"formulation {member.formulation.registered_name!r} has nothing to train")
    return member.formulation


def batches_of(member: Member, data: Tensor, steps: int, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """What a member learns from in a number of steps, by its own objective: see `Objective.batches`."""
    return trainable(member).objective.batches(member, data, steps, batch, generator)
