r"""Sampling a model with one latent variable: ``x = dec(z) + r eps``, z standard normal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.models import Decoder, Denoiser
from diffusion.samplers.base import PathSampler, SamplingStart, per_member, samplers
from diffusion.samplers.noise import Noise
from diffusion.schedules.levels import Level


@samplers.register(
    "decode",
    formula="x = dec(z) + r eps, z ~ N(0, I)",
    source="Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014",
    document="S2 section 1",
)
@dataclass(frozen=True)
class Decode(PathSampler):
    """One evaluation of a decoder, whatever the number of steps: the first move makes the sample
    and further ones leave it.

    z is the start noise that every other sampler begins with: its first coordinates where there are
    fewer latent ones than of the data, and further draws of the same samples' streams beside it
    where there are more. With `noise` the samples follow the model's law, whose decoder has the
    standard deviation r; without it they are the decoder's means.
    """

    order: ClassVar[int] = 1
    needs: ClassVar[type] = Decoder

    noise: bool = True

    @property
    def stochastic(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """Whether the decoder's noise is added. (Latent coordinates beyond the data's are drawn in
        any case.)
        """
        return self.noise

    def evaluations(self, steps: int) -> int:  # noqa: ARG002
        return 1

    def start(self, start: SamplingStart) -> Tensor | None:
        """Standard normal numbers, whatever the schedule's spread."""
        return start.noise

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        if not isinstance(denoiser, Decoder):
            raise TypeError("'decode' needs a model with a decoder")
        z, dim = x, denoiser.latent_dim()
        while z.shape[-1] < dim:
            z = torch.cat([z, noise.fresh()], -1)
        x = denoiser.decode(z[..., :dim])
        if self.noise:
            x = x + per_member(denoiser.decoder_std()) * noise.fresh()
        for _ in levels[1:]:
            yield x
