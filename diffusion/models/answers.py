r"""What models answer, where it is more than a tensor.

A point of the path that an action drives (`diffusion.objectives.action_matching`) is

    z = x_t / sqrt(alpha^2 std^2 + sigma^2) = cos(phi) x_0/std + sin(phi) eps,    tan(phi) = sigma / (alpha std).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Motion:
    """What an action says of points x_t at one noise level of each member, in the coordinates
    ``z(phi)``.

    `std` of the data and entropic `noise`, ``[members]``; `slope` grad s ``[members, batch, dim]``;
    `growth` ``[members, batch]``, the rate of log w of the unbalanced kind (zero of the others).
    All float64. Whether there is any noise and any growth is said by `stirs` and `grows`; where they
    are left out, the numbers are looked at, which on a device is a wait.
    """

    std: Tensor
    noise: Tensor
    slope: Tensor
    growth: Tensor
    stirs: bool | None = None
    grows: bool | None = None


def angle_and_scale(alpha: Tensor, sigma: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """phi and the size of x_t, ``x_t = scale z(phi)``; all ``[members]``."""
    signal = alpha * std
    return torch.atan2(sigma, signal), torch.sqrt(signal**2 + sigma**2)


@dataclass(frozen=True)
class EvidenceBound:
    """The three terms for each of n points, in nats; a mean over draws of the noise estimates their
    expectations.

    An autoencoder is a chain of one level: no consistency, and prior matching is the divergence of
    its code.
    """

    reconstruction: Tensor  # [n], log p(x_0 | x_1)
    consistency: Tensor  # [T - 1, n], the divergences at t = 2 .. T
    prior: Tensor  # [n], KL(q(x_T | x_0) || N(0, I)), without randomness

    @property
    def bound(self) -> Tensor:
        """The evidence lower bound, ``[n]``: reconstruction minus the divergences."""
        return self.reconstruction - self.consistency.sum(0) - self.prior
