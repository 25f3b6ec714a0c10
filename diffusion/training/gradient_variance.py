r"""How much the gradient of a minibatch varies, at given weights: what an objective's estimate of
its own slope is worth.

With g the gradient of one minibatch in the parameters,

    variance = mean over parameters of Var g_i,      power = mean over parameters of (E g_i)^2,

both over minibatches. Objectives with one minimiser are compared by their variances at the same
weights; the variance falls like 1/batch, so that a ratio of variances says how many times larger a
batch has to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.devices import to_device
from diffusion.errors import WrongValue
from diffusion.networks import Network
from diffusion.objectives.base import trainable
from diffusion.objectives.member import Member


@dataclass(frozen=True)
class GradientVariance:
    """Variance of a minibatch's gradient and power of its mean, averaged over parameters."""

    variance: float
    power: float


def gradient_variance(
    member: Member,
    network: Network,
    row: Tensor,
    data: Tensor,
    generator: torch.Generator,
    *,
    batch: int = 128,
    draws: int = 200,
) -> GradientVariance:
    """From `draws` minibatches of a member's own examples, at the weights ``row [network.size]``;
    `data` is its training set.

    Padding, which has no gradient, does not count as parameters.

    Raises:
        WrongValue: there are fewer than two draws.
    """
    if draws < 2:
        raise WrongValue(f"a variance needs at least 2 draws, found {draws}")
    objective = trainable(member).objective
    drawn = objective.batches(member, data, draws, batch, generator)
    batches = [to_device(part, row.device) for part in drawn]
    rows = row[None].detach().clone().requires_grad_()
    gradients = []
    for k in range(draws):
        loss = objective.losses(network, rows, *(part[k][None] for part in batches)).mean()
        (gradient,) = torch.autograd.grad(loss, rows)
        gradients.append(torch.cat([value.flatten() for value in network.unpack(gradient).values()]))
    found = torch.stack(gradients).double()
    variance = found.var(0)
    power = (found.mean(0).square() - variance / draws).mean()  # without the part that chance adds to a square
    return GradientVariance(float(variance.mean()), float(power))
