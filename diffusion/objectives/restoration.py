r"""Regression of the clean data from every point of the way between them and what was observed of
them.

    L = E_t E_{x, y, n} | D(x_t, t) - x |^2,      x_t = (1 - t) x + t (y + eps_t n),      t uniform

Written as ``x_t = alpha x + sigma (noise)`` with alpha = 1 - t and sigma = t this is the denoising
loss, in which the observation stands where the noise stood: parametrizations, weights and
conditions are those of `diffusion.objectives.denoising`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffusion.objectives.denoising import DenoisingLoss, NetworkDenoiser
from diffusion.objectives.member import Member
from diffusion.randomness import Source, normal


@runtime_checkable
class Observing(Protocol):
    """A formulation that observes its data: what takes the place of the noise at times t."""

    def observed(self, x: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """``y + eps_t n`` for data x and standard normal n ``[..., dim]``, times ``[...]``."""

    def spread(self, t: Tensor) -> Tensor:
        """eps_t."""


@dataclass(frozen=True)
class RestorationLoss(DenoisingLoss):
    """The denoising loss with the member's observation of x in place of the noise."""

    def noise(self, member: Member, x: Tensor, nsr: Tensor, generator: Source) -> tuple[Tensor, Tensor]:
        formulation = member.formulation
        if not isinstance(formulation, Observing):
            raise TypeError(f"formulation {formulation.registered_name!r} observes nothing that could be undone")
        n = normal(x.shape, generator)
        y = formulation.observed(x, n, member.schedule.time_of(nsr))
        return y, y

    @property
    def gives(self) -> type[RestorationNetwork]:
        return RestorationNetwork


@dataclass(frozen=True, eq=False)
class RestorationNetwork(NetworkDenoiser):
    """The estimate of the clean data at every point of the way."""

    def perturbation(self, time: Tensor) -> Tensor:
        """See `diffusion.models.RestorationModel`."""
        each = [
            member.formulation.spread(t)
            for member, t in zip(self.members, time, strict=True)
            if isinstance(member.formulation, Observing)
        ]
        return torch.stack(each)
