"""What an objective owes the training loop: batches drawn beforehand, a loss of each member, and
the model that comes out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.networks import Network
from diffusion.objectives.member import Member
from diffusion.objectives.settings import Training
from diffusion.randomness import Source
from diffusion.registry import Component


@dataclass(frozen=True)
class Objective(Component):
    """A program of loss. Members of a stack share it; what differs between them is in their
    batches.

    Its fields are what changes the program itself (how many probes, which kind), not what a member
    may have its own of.
    """

    draws_anywhere: ClassVar[bool] = False
    """Whether batches are made where the source of random numbers is, for several members alike."""

    def network(self, dataset: Dataset, settings: Training) -> Network:
        """The shape of the network for a target."""
        return settings.network.build(dataset.dim, settings.width, settings.depth, image=dataset.image_shape)

    @abstractmethod
    def batches(self, member: Member, data: Tensor, steps: int, batch: int, generator: Source) -> tuple[Tensor, ...]:
        """What a member learns from in a number of steps: float32 tensors ``[steps, batch, ...]``.

        All that is random is drawn here, from the member's own generator; `data` is its training
        set ``[n, dim]`` float64. An objective that `draws_anywhere` asks `diffusion.randomness`
        for what it draws, and is also handed several members of one recipe at once: sets of one
        length, theirs among them, one after the other, their streams, and as many rows as they have
        steps together.
        """

    @abstractmethod
    def losses(self, network: Network, rows: Tensor, *batch: Tensor) -> Tensor:
        """Each example's loss ``[members, batch]``, differentiable in the rows; parts of a batch
        are ``[members, batch, ...]``.

        Nothing here may mix members.
        """

    @abstractmethod
    def zero_loss(self, *batches: Tensor) -> Tensor:
        """The size of loss ``[members]`` beyond ten times of which training counts as diverged.

        That of a model that answers zero, from batches ``[steps, members, batch, ...]``; infinite
        where there is no such scale.
        """

    def passes(self, dim: int) -> float:  # noqa: ARG002
        """How often it takes what a regression takes (one evaluation and one gradient), for
        planning.
        """
        return 1.0

    @property
    @abstractmethod
    def gives(self) -> type:
        """The class of its models: what they can be asked (see `diffusion.models.capabilities`)."""

    @abstractmethod
    def model(self, network: Network, rows: Tensor, members: Sequence[Member]) -> object:
        """The models of a trained stack, an instance of `gives`.

        Args:
            network: The shape of the networks.
            rows: Their parameters ``[members, network.size]``.
            members: What each of them learned.
        """


@dataclass(frozen=True)
class OnNoiseLevels(Objective):
    """An objective whose examples lie at noise levels, for weightings that learn how hard each
    level is.
    """

    @abstractmethod
    def noise_features(self, *batch: Tensor) -> Tensor:
        """Features of the noise level of each example, ``[members, batch, n]``."""


@dataclass(frozen=True, eq=False)
class Networks:
    """The trained networks of a stack, one for each member; a model derives from it and says how
    they are asked.

    Nothing is differentiated but in points that ask for it.
    """

    network: Network
    rows: Tensor  # [members, network.size], the parameters
    members: tuple[Member, ...]

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and the points have to be."""
        return self.rows.device

    @property
    def points_at_once(self) -> int:
        """How many points of a batch are evaluated at once without derivatives: as many as a
        processor's cache has room for; elsewhere many, since few large products are quicker.
        """
        of = self.network.points_at_once if self.rows.is_cpu else self.network.points_on_device
        return of(len(self.members))


class Trainable:
    """What training asks of a formulation: the program that is minimised, and the network."""

    @property
    @abstractmethod
    def objective(self) -> Objective:
        """The program that training minimises; formulations with equal objectives are trained in
        one stack.
        """

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


def batches_of(member: Member, data: Tensor, steps: int, batch: int, generator: Source) -> tuple[Tensor, ...]:
    """What a member learns from in a number of steps, by its own objective: see
    `Objective.batches`.
    """
    return trainable(member).objective.batches(member, data, steps, batch, generator)
