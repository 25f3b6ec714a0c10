"""Samples of a distribution found among the draws of another one: rejection."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.errors import WrongValue

BLOCK = 1 << 16
"""How many draws are made at a time, of which some are kept."""

_MOST_BLOCKS = 1000


def accepted_draws(n: int, refusal: str, draw: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
    """The first samples that were accepted.

    Args:
        n: How many are needed.
        refusal: What to say of a distribution that accepts too few.
        draw: Makes `BLOCK` draws ``[BLOCK, dim]`` and says which are accepted, ``[BLOCK]`` bool.

    Returns:
        Samples ``[n, dim]``.

    Raises:
        WrongValue: Too few of 1000 blocks of draws were accepted.
    """
    kept: list[Tensor] = []
    found = 0
    for _ in range(_MOST_BLOCKS):
        x, accepted = draw()
        kept.append(x[accepted])
        found += len(kept[-1])
        if found >= n:
            return torch.cat(kept)[:n]
    raise WrongValue(f"{refusal}: {found} of {_MOST_BLOCKS * BLOCK} draws, {n} are needed")
