r"""What a model can be asked, each capability as a protocol.

A *model* here is a stack of ``members`` models of one kind that are asked together: points are
``[members, batch, dim]``, noise levels alpha and sigma ``[members]``, everything float64.

`Motion` and `EvidenceBound` are what two of them answer. A point of the path that an action drives is

    z = x_t / sqrt(alpha^2 std^2 + sigma^2) = cos(phi) x_0/std + sin(phi) eps,    tan(phi) = sigma / (alpha std),

see `diffusion.objectives.action_matching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class Denoiser(Protocol):
    """E[x_0 | x_t] for a stack: x ``[members, batch, dim]``, alpha and sigma ``[members]``."""

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...


@runtime_checkable
class HasDensity(Protocol):
    """A model that knows its own density: log p(x_t) for x ``[members, batch, dim]``, alpha and sigma ``[members]``."""

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...


@runtime_checkable
class HasDivergence(Protocol):
    """A denoiser that knows the divergence of its answer: ``div_x D`` ``[members, batch]``."""

    def divergence(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...


@runtime_checkable
class HasDecoder(Protocol):
    """A model that turns latent points ``[members, batch, latent]`` into data ``[members, batch, dim]``, the means of normals.

    `latent_dim` is the number of their coordinates, `decoder_std` the standard deviation of the normals, ``[members]``.
    """

    def latent_dim(self) -> int: ...

    def decode(self, z: Tensor) -> Tensor: ...

    def decoder_std(self) -> Tensor: ...


@runtime_checkable
class HasPerturbation(Protocol):
    """A model of incremental restoration: eps_t of its stochastic form at times ``[members]``."""

    def perturbation(self, time: Tensor) -> Tensor: ...


@runtime_checkable
class HasAction(Protocol):
    """A model whose samples follow the gradient of an action: x ``[members, batch, dim]``, alpha and sigma ``[members]``."""

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion: ...


@runtime_checkable
class HasLabels(Protocol):
    """E[x_0 | x_t, label] for labels ``[batch]`` int64, -1 for a sample of which nothing is known."""

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor: ...


@runtime_checkable
class HasBound(Protocol):
    """A stack of models with one latent variable and a bound of their own.

    `bound` is that of data x ``[members, n, dim]`` for one draw of the latent noise ``[members, n, latent_dim()]``.
    """

    def latent_dim(self) -> int: ...

    def bound(self, x: Tensor, noise: Tensor) -> EvidenceBound: ...


@dataclass(frozen=True)
class Motion:
    """What an action says of points x_t at one noise level of each member, in the coordinates ``z(phi)``.

    `std` of the data and entropic `noise`, ``[members]``; `slope` grad s ``[members, batch, dim]``; `growth`
    ``[members, batch]``, the rate of log w of the unbalanced kind (zero of the others). All float64.
    """

    std: Tensor
    noise: Tensor
    slope: Tensor
    growth: Tensor


def angle_and_scale(alpha: Tensor, sigma: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """phi and the size of x_t, ``x_t = scale z(phi)``; all ``[members]``."""
    signal = alpha * std
    return torch.atan2(sigma, signal), torch.sqrt(signal**2 + sigma**2)


@dataclass(frozen=True)
class EvidenceBound:
    """The three terms for each of n points, in nats; a mean over draws of the noise estimates their expectations.

    An autoencoder is a chain of one level: no consistency, and prior matching is the divergence of its code.
    """

    reconstruction: Tensor  # [n], log p(x_0 | x_1)
    consistency: Tensor  # [T - 1, n], the divergences at t = 2 .. T
    prior: Tensor  # [n], KL(q(x_T | x_0) || N(0, I)), without randomness

    @property
    def bound(self) -> Tensor:
        """The evidence lower bound, ``[n]``: reconstruction minus the divergences."""
        return self.reconstruction - self.consistency.sum(0) - self.prior
