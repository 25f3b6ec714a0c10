"""Standard normal numbers for stochastic samplers, the same for whatever is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from diffusion.devices import HOST, to_device
from diffusion.randomness import BrownianPath, SampleNoise
from diffusion.schedules.levels import Level


class Noise(Protocol):
    """Standard normal numbers ``[members, batch, dim]`` for stochastic samplers; sample i's do not
    depend on the batch.
    """

    def between(self, now: Level, then: Level) -> Tensor:
        """The normalised increment of one Brownian path over the move from `now` to `then`.

        Moves that do not overlap are independent; the same move has the same numbers on every grid
        that makes it, and a move that is divided has its parts' sum (see `diffusion.randomness`).
        """

    def fresh(self) -> Tensor:
        """The next draw, independent of the path and of every draw before."""


class NoiseStreams:
    """`Noise` for a stack: one stream for each member's key; members of one key see the same
    numbers.

    They are drawn on the host and copied to the `device`: the same numbers on every device.
    """

    def __init__(self, keys: Sequence[tuple[object, ...]], samples: int, dim: int, device: torch.device = HOST) -> None:
        self._device = device
        self._streams = {key: SampleNoise(key, samples, dim) for key in keys}
        self._keys = tuple(keys)
        self._paths = [BrownianPath(self._streams[key]) for key in keys]
        self._drawn = 0

    def between(self, now: Level, then: Level) -> Tensor:
        """See `Noise`."""
        rows = []
        for path, start, end in zip(self._paths, now.host.nsr.tolist(), then.host.nsr.tolist(), strict=True):
            rows.append(path.move(start, end))
        return to_device(torch.stack(rows), self._device)

    def fresh(self) -> Tensor:
        """See `Noise`."""
        drawn = {key: source.draw(self._drawn) for key, source in self._streams.items()}
        self._drawn += 1
        return to_device(torch.stack([drawn[key] for key in self._keys]), self._device)
