r"""Regression along straight lines between two data sets, whose ends are paired independently.

    L = E_t E_{x, y} | v(x_t, t) - (y - x) |^2,      x_t = (1 - t) x + t y,      t uniform

x is an example of the target and y a draw of the source, each independent of the other. Written as
``x_t = alpha x + sigma y`` with alpha = 1 - t and sigma = t this is the denoising loss with y where
the noise stood; the parametrization of the straight path predicts y - x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.objectives.denoising import DenoisingLoss
from diffusion.objectives.member import Member
from diffusion.randomness import Source


@runtime_checkable
class HasSource(Protocol):
    """A formulation that starts from draws of a data set."""

    @property
    def source(self) -> Dataset:
        """Their distribution."""


@dataclass(frozen=True)
class CoupledLoss(DenoisingLoss):
    """The denoising loss with a draw of the member's source in place of the noise."""

    draws_anywhere: ClassVar[bool] = False  # a data set draws on the host, for one member at a time
    version: ClassVar[int] = 1

    def noise(self, member: Member, x: Tensor, nsr: Tensor, generator: Source) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        formulation = member.formulation
        if not (isinstance(formulation, HasSource) and isinstance(generator, torch.Generator)):
            raise TypeError(f"formulation {formulation.registered_name!r} has no source to draw from on the host")
        y = formulation.source.sample(x.shape[:-1].numel(), generator).reshape(x.shape)
        return y, y
