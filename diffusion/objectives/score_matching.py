r"""Score matching without a target: objectives that differentiate the network in its input.

Of a noised sample ``z = a x_0 + b eps`` on the unit circle let ``h(z) = b s(z)``, the score in
units of the noise; the noise that a denoiser implies is -h. By Stein's identity
``E h.eps = b E tr dh/dz``, so that up to a constant

    E 1/2 |h + eps|^2  =  E [1/2 |h|^2 + b tr dh/dz] + d/2:

the left side is denoising score matching (and the `DenoisingLoss`, halved), the right side the
implicit objective with the weight ``lambda = sigma^2`` of the noise-conditional networks. d/2 is
added to every loss here, which therefore has the value of the denoising one, and its floor. The
trace is exact (d backward passes) or Hutchinson's, with probes drawn beforehand; the sliced
objective replaces ``|h|^2`` by ``(v'h)^2`` too. `diffusion.analysis.score_matching` has the same
objectives for any function.

In terms of a parametrization ``F = p x_0 + q eps`` with ``det = a q - b p``

    h = tilt z + lead F(c_in z),   tilt = p / det,   lead = -a / det,

so that the network is differentiated and the rest is known. A weight lambda on the denoiser is
``lambda nsr^2`` here.

**Clean data** (noise level 0) have a score and no denoiser. There h is the score in units of the
data's width s, ``h = s grad log p``, with ``tilt = -1/s``, ``lead = 1`` and input ``z / s``: a
network that answers zero is the score of ``N(0, s^2)``. Asked at a noise level, the model answers
``D = x + sigma^2 score(x)``, from which whoever turns denoisers into scores gets the score back.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.analysis.score_matching import Probes, coordinate_trace, draw_probes, probed_trace
from diffusion.networks import Network
from diffusion.objectives.denoising import DenoisingLoss
from diffusion.objectives.member import Member
from diffusion.objectives.noise_levels import stratified
from diffusion.objectives.parametrizations import Circle, Coefficients
from diffusion.randomness import Source, examples, normal


@dataclass(frozen=True)
class _Frame:
    """``h = tilt z + lead F(c_in z)``, h being `unit` times the score of z; float64, shaped like
    the level.
    """

    tilt: Tensor
    lead: Tensor
    c_in: Tensor
    unit: Tensor


def _frame(member: Member, level: Circle) -> _Frame:
    std = member.dataset.std
    p, q = member.recipe.parametrization.mixture(level, std)
    det = level.a * q - level.b * p
    noised = p / det, -level.a / det, member.recipe.parametrization.input_scale(level, std), level.b
    clean = -1 / std, 1.0, 1 / std, std
    at_zero = level.b == 0
    return _Frame(
        *(torch.where(at_zero, torch.full_like(part, value), part) for part, value in zip(noised, clean, strict=True))
    )


@dataclass(frozen=True)
class InputLoss(DenoisingLoss):
    """A loss of the network and of its derivative in the input; subclasses say which.

    Every example has a noise level of its own.
    """

    version: ClassVar[int] = 1

    probes: int | None = None
    """Number of random vectors for each example; None: none, the trace is exact."""

    law: Probes = "rademacher"

    def batches(self, member: Member, data: Tensor, steps: int, batch: int, generator: Source) -> tuple[Tensor, ...]:
        """Inputs and ``tilt z`` ``[steps, batch, dim]``, conditions, four numbers
        ``[steps, batch, 4]``, and the probes if there are any.

        The numbers: lead; what multiplies v'v and v' dF/d(input) v in the trace; the weight.
        """
        formulation, std = member.recipe, member.dataset.std
        nsr = self.levels(member, steps, batch, generator)
        x = examples(data, (steps, batch), generator)
        eps = normal(x.shape, generator)
        level = Circle.at(nsr)
        frame = _frame(member, level)
        z = level.a[..., None] * x + level.b[..., None] * eps
        on_target = formulation.weighting.on_target(nsr, member.coefficients(level), member.schedule, std)
        weight = torch.where(nsr == 0, torch.ones_like(nsr), on_target / frame.lead**2)
        numbers = torch.stack(
            [frame.lead, frame.unit * frame.tilt, frame.unit * frame.lead * frame.c_in, weight], dim=-1
        )
        # networks of clean data are evaluated at the schedule's end
        conditioned_on = torch.where(nsr == 0, torch.full_like(nsr, member.schedule.t_max), nsr)
        parts = [frame.c_in[..., None] * z, frame.tilt[..., None] * z, member.condition(conditioned_on), numbers]
        if self.probes is not None:
            parts.append(draw_probes(self.law, (steps, batch, self.probes, x.shape[-1]), generator))
        return tuple(part.float() for part in parts)

    def levels(self, member: Member, steps: int, batch: int, generator: Source) -> Tensor:
        return member.recipe.noise_levels.quantile(stratified(steps, batch, generator), member.schedule)

    def losses(self, network: Network, rows: Tensor, *batch: Tensor) -> Tensor:
        inputs, tilted, conditions, numbers = batch[:4]
        lead, known, learned, weight = numbers.unbind(-1)
        with torch.enable_grad():
            u = inputs.detach().requires_grad_()
            answer = network(rows, u, conditions)
            h = tilted + lead[..., None] * answer
            loss = self.of(h, answer, u, known, learned, *batch[4:])
        return weight * (loss + 0.5 * inputs.shape[-1])

    @abstractmethod
    def of(self, h: Tensor, answer: Tensor, u: Tensor, known: Tensor, learned: Tensor, *probes: Tensor) -> Tensor:
        """The loss of each example ``[members, batch]``: the trace of dh/dz times its unit is
        ``known d + learned tr d(answer)/du``.
        """

    def zero_loss(self, *batches: Tensor) -> Tensor:
        """The loss of the score that is zero everywhere."""
        return (0.5 * batches[0].shape[-1] * batches[3][..., 3]).mean((0, 2))

    def passes(self, dim: int) -> float:
        """Each direction of the trace is a gradient that is differentiated again."""
        return 1.0 + 0.5 * (self.probes or dim)

    def noise_features(self, *batch: Tensor) -> Tensor:
        return batch[2]

    def coefficients(self, member: Member, level: Circle) -> Coefficients:
        if member.recipe.noise_levels.only != 0:
            return super().coefficients(member, level)
        std = torch.full_like(level.a, member.dataset.std)
        # D = x + sigma^2 h / std for x_t = alpha x, in coordinates of the circle: alpha = 1 on the
        # schedule of clean data
        nsr = level.b / level.a
        return Coefficients((1 - (nsr / std) ** 2) / level.a, nsr**2 / std, 1 / (level.a * std))


@dataclass(frozen=True)
class ImplicitLoss(InputLoss):
    """``1/2 |h|^2 + b tr dh/dz``; with probes, the trace is Hutchinson's estimate."""

    def of(self, h: Tensor, answer: Tensor, u: Tensor, known: Tensor, learned: Tensor, *probes: Tensor) -> Tensor:
        square = 0.5 * h.square().sum(-1)
        if not probes:
            return square + known * h.shape[-1] + learned * coordinate_trace(answer, u)
        length = probes[0].square().sum(-1).mean(-1)
        return square + known * length + learned * probed_trace(answer, u, probes[0]).mean(-1)


@dataclass(frozen=True)
class SlicedLoss(InputLoss):
    """``mean_j [1/2 (v_j'h)^2 + b v_j' (dh/dz) v_j]``."""

    probes: int | None = 1
    law: Probes = "gaussian"

    def of(self, h: Tensor, answer: Tensor, u: Tensor, known: Tensor, learned: Tensor, *probes: Tensor) -> Tensor:
        (v,) = probes
        along = 0.5 * (v * h[..., None, :]).sum(-1).square()
        trace = known[..., None] * v.square().sum(-1) + learned[..., None] * probed_trace(answer, u, v)
        return (along + trace).mean(-1)
