"""What somebody's own denoiser counts as beside the formulations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffusion.formulations.base import Formulation
from diffusion.models import Denoiser
from diffusion.schedules import EDM, Schedule


@dataclass(frozen=True)
class OwnModel(Formulation):
    """A function that is brought along: a denoiser, and nothing else is known of it."""

    registered_name: ClassVar[str] = "own denoiser"

    @property
    def gives(self) -> type[Denoiser]:
        return Denoiser

    def own_schedule(self) -> Schedule:
        return EDM()
