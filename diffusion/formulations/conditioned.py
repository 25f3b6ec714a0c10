"""What formulations have in common whose network is told something beside the noised data: they are
another formulation in all but that.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffusion.errors import WrongValue
from diffusion.formulations.base import Formulation, NoiseConditional
from diffusion.formulations.denoising import ElucidatedDM
from diffusion.objectives import DenoisingLoss, NoiseLevels, NoiseTarget, Weighting
from diffusion.objectives.parametrizations import Parametrization
from diffusion.schedules import Schedule


@dataclass(frozen=True)
class Conditioned(NoiseConditional):
    """Any formulation that is trained by regression on noised data, with a network that is told
    more; a subclass has the objective.

    Args:
        of: what it would be without that.

    Raises:
        WrongValue: `of` is trained in another way.
    """

    of: Formulation = ElucidatedDM()

    def __post_init__(self) -> None:
        if not (isinstance(self.of, NoiseConditional) and self.of.objective == DenoisingLoss()):
            raise WrongValue(f"of = {self.of.registered_name!r}, which is not trained by regression on noised data")

    @property
    def inner(self) -> NoiseConditional:
        """What it would be without what it is told."""
        assert isinstance(self.of, NoiseConditional)  # noqa: S101 - checked when it was made
        return self.of

    def own_schedule(self) -> Schedule:
        return self.inner.own_schedule()

    @property
    def parametrization(self) -> Parametrization:
        return self.inner.parametrization

    @property
    def noise_levels(self) -> NoiseLevels:
        return self.inner.noise_levels

    @property
    def weighting(self) -> Weighting:
        return self.inner.weighting

    @property
    def noise_target(self) -> NoiseTarget:
        return self.inner.noise_target

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:
        return self.inner.c_noise(nsr, schedule)

    def refuses(self, schedule: Schedule) -> str | None:
        return self.inner.refuses(schedule)
