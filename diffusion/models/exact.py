"""The ideal denoisers of targets for which they are known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.datasets.classes import exact_given_label
from diffusion.devices import indices


class ExactDenoiser:
    """The ideal denoisers of a stack of targets, which answer on the device of the points."""

    def __init__(self, targets: Sequence[Dataset]) -> None:
        self._targets = tuple(targets)
        self._groups: list[tuple[Dataset, list[int]]] = []
        for m, target in enumerate(targets):
            for known, rows in self._groups:
                if known == target:
                    rows.append(m)
                    break
            else:
                self._groups.append((target, [m]))

    def targets(self) -> tuple[Dataset, ...]:
        """The distribution of each member."""
        return self._targets

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_t], ``[members, batch, dim]``."""
        out = torch.empty_like(x)
        for target, members in self._groups:
            rows = indices(members, x.device)
            out[rows] = target.denoise(x[rows], alpha[rows, None], sigma[rows, None])
        return out

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """E[x_0 | x_t, label] for labels ``[batch]``, -1 where it is not known."""
        out = torch.empty_like(x)
        for target, members in self._groups:
            rows = indices(members, x.device)
            out[rows] = exact_given_label(target, x[rows], alpha[rows, None], sigma[rows, None], labels)
        return out

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p(x_t), ``[members, batch]``."""
        out = torch.empty_like(x[..., 0])
        for target, members in self._groups:
            rows = indices(members, x.device)
            out[rows] = target.log_density(x[rows], alpha[rows, None], sigma[rows, None])
        return out

    def divergence(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``div_x E[x_0 | x_t] = alpha / sigma^2`` times the posterior variance,
        ``[members, batch]``.
        """
        out = torch.empty_like(x[..., 0])
        for target, members in self._groups:
            rows = indices(members, x.device)
            out[rows] = target.posterior_variance(x[rows], alpha[rows, None], sigma[rows, None])
        return (alpha / sigma**2)[:, None] * out
