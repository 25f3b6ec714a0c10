r"""The exact answer between two data sets that are paired independently, where one of them is a
mixture of normal distributions.

With ``x_t = alpha x_0 + sigma y`` and ``y ~ sum_k w_k N(m_k, s_k^2 I)`` independent of x_0, the
component of y is one more unknown, and given it y is noise of variance s_k^2 about m_k:

    p(x) = sum_k w_k p_0(x - sigma m_k; alpha, sigma s_k)
    D(x) = E[x_0 | x] = sum_k r_k D_0(x - sigma m_k; alpha, sigma s_k),
    r_k = w_k p_0(x - sigma m_k; alpha, sigma s_k) / p(x)

p_0 and D_0 are density and denoiser of the target in noise (`diffusion.datasets.base`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.datasets.mixtures import MixtureDataset
from diffusion.devices import to_device
from diffusion.models.exact import ExactDenoiser


class BetweenDenoiser:
    """The ideal denoisers of a stack of targets on the way to draws of one source."""

    def __init__(self, targets: Sequence[Dataset], source: MixtureDataset) -> None:
        self._targets = ExactDenoiser(targets)
        self._source = source

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_t], ``[members, batch, dim]``."""
        mixture = self._source.mixture
        weights = mixture.weights / mixture.weights.sum()
        shares, answers = [], []
        for w, m, s in zip(weights.tolist(), to_device(mixture.means, x.device), mixture.stds.tolist(), strict=True):
            moved = x - sigma[:, None, None] * m
            shares.append(self._targets.log_density(moved, alpha, sigma * s) + math.log(w))
            answers.append(self._targets(moved, alpha, sigma * s))
        r = torch.softmax(torch.stack(shares), 0)
        return (r[..., None] * torch.stack(answers)).sum(0)
