"""What stands for the noise in a loss.

The minimiser of ``E |target - F|^2`` is the mean of the target given ``x_t``, so that any random
target with the right conditional mean trains the same network; what differs is the variance of the
gradient. The lecture reaches the usual target, the noise eps of the whole way from ``x_0`` to
``x_k``, from the noise ``eps_k`` of the last step alone in three refinements (see `NoiseTarget`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffusion.randomness import Source, normal
from diffusion.schedules import Schedule


@dataclass(frozen=True)
class NoiseTarget:
    r"""Draws of (eps, target): the noise in ``x_t = alpha x_0 + sigma eps``, and what stands for it
    in the loss.

    For a chain ``x_k = A x_{k-1} + B eps_k``, with beta for sigma_k, the lecture's refinements
    minimise ``|eps_k - f|^2``. Its minimiser is ``f = (B/beta) E[eps | x_k]``; with
    ``F = (beta/B) f`` and ``target = (beta/B) eps_k`` the same loss reads
    ``(B/beta)^2 |target - F|^2`` and F predicts the noise itself, as everywhere else.

    | refinement | eps | target |
    |---|---|---|
    | 1 | drawn first | (beta/B) eps_k with eps_k given eps: mean (B/beta) eps, variance 1 - B^2/beta^2 |
    | 2 | (A beta_{k-1} eps' + B eps_k) / beta, two independent draws | (beta/B) eps_k |
    | 3 | one draw | eps |

    1 and 2 are the same law (drawing eps_k and eps independently, as one might read refinement 1,
    would train F = 0); 3 is their mean given (x_0, eps), and so has the smaller gradient variance.
    """

    refinement: Literal[1, 2, 3] = 3

    def draw(self, share: Tensor, shape: tuple[int, ...], generator: Source) -> tuple[Tensor, Tensor]:
        """(eps, target) of `shape`; `share` is B/beta, the part of the noise that the last step
        added, ``shape[:-1]``.
        """
        eps = normal(shape, generator)
        if self.refinement == 3:
            return eps, eps
        other = normal(shape, generator)
        share = share[..., None]
        rest = torch.sqrt(1 - share**2)
        if self.refinement == 1:
            last = share * eps + rest * other
            return eps, last / share
        return rest * other + share * eps, eps / share


def last_step_share(nsr: Tensor, schedule: Schedule) -> Tensor:
    """B_k / beta_k of a discrete variance-preserving chain at its level with the given
    noise-to-signal ratio.
    """
    k = schedule.time_of(nsr).round()
    sigma, before = schedule.sigma(k), schedule.sigma(k - 1)
    ratio = schedule.alpha(k) / schedule.alpha(k - 1)
    return torch.sqrt(sigma**2 - (ratio * before) ** 2) / sigma
