"""What training asks of a formulation whose network is conditioned on the noise level."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from diffusion.objectives.noise_levels import NoiseLevels
from diffusion.objectives.noise_targets import NoiseTarget
from diffusion.objectives.parametrizations import Parametrization
from diffusion.objectives.weightings import Weighting
from diffusion.schedules import Schedule


class Recipe:
    """The parts of a regression on noised data, each a named choice; formulations of this kind
    derive from it.
    """

    @property
    @abstractmethod
    def parametrization(self) -> Parametrization:
        """What the network predicts."""

    @property
    @abstractmethod
    def noise_levels(self) -> NoiseLevels:
        """Distribution of noise-to-signal ratios in training."""

    @property
    @abstractmethod
    def weighting(self) -> Weighting:
        """lambda of the loss."""

    @property
    def noise_target(self) -> NoiseTarget:
        """What stands for the noise in the loss."""
        return NoiseTarget()

    @abstractmethod
    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:
        """c_noise: the number by which the network is conditioned on the noise level.

        Args:
            nsr: Noise-to-signal ratios of any shape.
            schedule: The schedule that is trained on.

        Returns:
            The labels, shaped like `nsr`.
        """
