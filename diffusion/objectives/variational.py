r"""The evidence lower bound of an autoencoder with normal laws, and its gradient by
reparametrisation.

With the prior ``p(z) = N(0, I)`` on R^k, an encoder ``q(z | x) = N(m(x), diag(s(x))^2)`` and a
decoder ``p(x | z) = N(d(z), r^2 I)``

    log p(x)  >=  E_q log p(x | z)  -  KL( q(z | x) || p(z) )
                  reconstruction       1/2 sum_j ( s_j^2 + m_j^2 - 1 - 2 ln s_j )

for every x; what is lost is ``KL(q(z | x) || p(z | x))``. The reconstruction is
``-|x - d(z)|^2 / (2 r^2)`` *and* ``-dim ln(r sqrt(2 pi))``: r decides how much a squared error
weighs against the divergence, and can be learned only with its constant.

The expectation is taken with ``z = m(x) + s(x) eps``, eps standard normal, one draw an example: the
draw does not depend on the parameters, and the gradient goes through m and s. (The gradient of the
density in front of the loss, ``log p(x | z) grad log q(z | x)``, has the same mean and a larger
variance.)

Data are centred and divided by their standard deviation on the way in, and brought back on the way
out; the loss is minus the bound of what the networks see, larger than that of the data by
``dim ln std``.

Sources: Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014; Rezende, Mohamed & Wierstra,
ICML 2014; the linear case is probabilistic principal components: Tipping & Bishop, J. R. Stat. Soc.
B 61 (1999); Lucas et al., NeurIPS 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.devices import numbers
from diffusion.models import EvidenceBound
from diffusion.networks import Network
from diffusion.networks.layers import FIRST_SPREAD, EncoderDecoder, StackedLayers
from diffusion.objectives.base import Networks, Objective
from diffusion.objectives.member import Member
from diffusion.objectives.settings import Training
from diffusion.randomness import Source, examples, normal

Posterior = Literal["isotropic", "diagonal"]

_ROWS = 2048  # of a batch evaluated at once: hidden activations stay in the cache
_LEAST = 1e-6  # of the data's variance that the decoder's cannot fall below: on atoms the likelihood has no bound
_LOG_TWO_PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class VariationalBound(Objective):
    """Minus the evidence lower bound of an autoencoder: `latent` dimensions, one variance of the
    posterior or one each.

    `linear` makes both networks affine. r is `fixed_std`, in the units of the data, or one learned
    number.
    """

    draws_anywhere: ClassVar[bool] = True
    registered_name: ClassVar[str] = "variational-bound"  # tells its stacks from those of other objectives

    latent: int
    posterior: Posterior
    linear: bool
    fixed_std: float | Literal["learned"]

    def network(self, dataset: Dataset, settings: Training) -> EncoderDecoder:
        """Two multilayer perceptrons of the settings' width and depth, whatever architecture they
        name; or two affine maps.
        """
        depth = 0 if self.linear else settings.depth
        outputs = self.latent + (self.latent if self.posterior == "diagonal" else 1)
        return EncoderDecoder(
            # from zero, no gradient would lead away
            StackedLayers(dataset.dim, settings.width, depth, outputs, gain=1.0),
            StackedLayers(self.latent, settings.width, depth, dataset.dim),
        )

    def batches(self, member: Member, data: Tensor, steps: int, batch: int, generator: Source) -> tuple[Tensor, ...]:
        """Standardised data ``[steps, batch, dim]``, noise ``[steps, batch, latent]``, and
        ``[steps, batch, 2]``: r^2 and its logarithm.
        """
        x = _standardised(examples(data, (steps, batch), generator), member)
        eps = normal((steps, batch, self.latent), generator, torch.float32)
        variance = self.fixed_variance(member)
        fixed = numbers([variance, math.log(variance)], x.device).float().expand(steps, batch, 2)
        return x.float(), eps, fixed

    def losses(self, network: Network, rows: Tensor, *batch: Tensor) -> Tensor:
        x, eps, fixed = batch
        both = _both(network)
        mean, std, log_std = self.encoded(both, rows, x)
        distance = (x - both(rows, mean + std * eps)).square().sum(-1)
        variance, log_variance = self.learned_variance(both, rows) if self.learned else (fixed[..., 0], fixed[..., 1])
        reconstruction = -0.5 * (distance / variance + x.shape[-1] * (log_variance + _LOG_TWO_PI))
        divergence = 0.5 * (std.square() + mean.square() - 1 - 2 * log_std).sum(-1)
        return divergence - reconstruction

    def zero_loss(self, *batches: Tensor) -> Tensor:
        """Of networks that answer zero, with the decoder's variance as it is at the start."""
        x, _, fixed = batches
        first = torch.full((), FIRST_SPREAD**2, device=x.device)
        variance, log_variance = (first, first.log()) if self.learned else fixed.unbind(-1)
        return 0.5 * (x.square().sum(-1) / variance + x.shape[-1] * (log_variance + _LOG_TWO_PI)).mean((0, 2))

    def encoded(self, network: EncoderDecoder, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """m, s and ln s of standardised data, ``[members, batch, latent or 1]``."""
        raw = network.encoder.whole(network.parts(rows)[0], x)
        spread = torch.exp(raw)  # of whole vectors: the last few numbers of an array may have other bits
        ends = slice(self.latent, network.encoder.outputs)
        mean, log_std, std = raw[..., : self.latent], raw[..., ends], spread[..., ends]
        return mean, std.expand(mean.shape), log_std.expand(mean.shape)

    @staticmethod
    def learned_variance(network: EncoderDecoder, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The learned r^2 and its logarithm, ``[members, 1]``."""
        variance = _LEAST + torch.exp(2 * network.parts(rows)[2])
        return variance[:, :1], torch.log(variance)[:, :1]

    @property
    def learned(self) -> bool:
        return self.fixed_std == "learned"

    def fixed_variance(self, member: Member) -> float:
        """r^2 in units of the data's variance; 1, of which nothing is made, where it is learned."""
        return 1.0 if self.fixed_std == "learned" else (self.fixed_std / member.dataset.std) ** 2

    @property
    def gives(self) -> type[Autoencoder]:
        return Autoencoder

    def model(self, network: Network, rows: Tensor, members: Sequence[Member]) -> Autoencoder:
        return Autoencoder(network, rows, tuple(members), self)


@dataclass(frozen=True, eq=False)
class Autoencoder(Networks):
    """Encoder, decoder and evidence lower bound of a trained stack."""

    objective: VariationalBound

    @torch.no_grad()
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `diffusion.models.Encoder`: mean and standard deviation of q(z | x), float64."""
        inputs = torch.stack([_standardised(part, member) for part, member in zip(x, self.members, strict=True)])
        network = _both(self.network)
        parts = [self.objective.encoded(network, self.rows, part)[:2] for part in inputs.float().split(_ROWS, dim=1)]
        mean, std = (torch.cat(side, dim=1).double() for side in zip(*parts, strict=True))
        return mean, std.expand(mean.shape)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """See `diffusion.models.Decoder`: the decoder's means, float64."""
        network = _both(self.network)
        answer = torch.cat([network(self.rows, part) for part in z.float().split(_ROWS, dim=1)], dim=1).double()
        return torch.stack(
            [_mean(m, z.device) + m.dataset.std * part for part, m in zip(answer, self.members, strict=True)]
        )

    def latent_dim(self) -> int:
        """See `diffusion.models.Decoder`."""
        return self.objective.latent

    @torch.no_grad()
    def decoder_std(self) -> Tensor:
        """See `diffusion.models.Decoder`: r of each member, float64."""
        if self.objective.learned:
            variance = self.objective.learned_variance(_both(self.network), self.rows)[0][:, 0].double()
        else:
            variance = numbers([self.objective.fixed_variance(member) for member in self.members], self.device)
        return variance.sqrt() * numbers([member.dataset.std for member in self.members], self.device)

    @torch.no_grad()
    def bound(self, x: Tensor, noise: Tensor) -> EvidenceBound:
        """See `diffusion.models.LatentVariableModel`: log p(x | z) for one draw of z, and the
        divergence.

        In nats of the data, ``[members, batch]`` float64; a mean over draws of the noise estimates
        the reconstruction.
        """
        mean, std = self.encode(x)
        decoded = self.decode(mean + std * noise)
        log_std = self.decoder_std().log()[:, None]
        distance = (x - decoded).square().sum(-1)
        reconstruction = -0.5 * (distance * torch.exp(-2 * log_std) + x.shape[-1] * (2 * log_std + _LOG_TWO_PI))
        divergence = 0.5 * (std.square() + mean.square() - 1 - 2 * std.log()).sum(-1)
        return EvidenceBound(reconstruction, divergence.new_zeros(0, *divergence.shape), divergence)


def _both(network: Network) -> EncoderDecoder:
    if not isinstance(network, EncoderDecoder):
        raise TypeError(f"an autoencoder has two networks, found {type(network).__name__}")
    return network


def _mean(member: Member, device: torch.device) -> Tensor:
    return numbers(member.dataset.mean, device)


def _standardised(x: Tensor, member: Member) -> Tensor:
    return (x - _mean(member, x.device)) / member.dataset.std
