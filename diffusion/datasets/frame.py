"""The affine map between the coordinates of the data and those in which models see them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffusion.devices import numbers


@dataclass(frozen=True)
class Frame:
    """``x = shift + scale z``, coordinate by coordinate: x of the data, z of the model."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def one_scale(self) -> bool:
        """Whether all coordinates have the same scale: then noise of one size is noise of one size
        in either.
        """
        return len(set(self.scale)) == 1

    @property
    def log_volume(self) -> float:
        """The logarithm of the volume that a unit of z's has in x: ``log p_x = log p_z - this``."""
        return math.fsum(map(math.log, self.scale))

    @property
    def inverse(self) -> Frame:
        """The same map the other way round."""
        return Frame(
            tuple(-m / s for m, s in zip(self.shift, self.scale, strict=True)), tuple(1 / s for s in self.scale)
        )

    def into(self, x: Tensor) -> Tensor:
        """z of points ``[..., dim]``."""
        return (x - numbers(self.shift, x.device)) / numbers(self.scale, x.device)

    def back(self, z: Tensor) -> Tensor:
        """x of points ``[..., dim]``."""
        return numbers(self.shift, z.device) + numbers(self.scale, z.device) * z

    def moved_mean(self, mean: Sequence[float]) -> tuple[float, ...]:
        """z of one point."""
        return tuple((c - m) / s for c, m, s in zip(mean, self.shift, self.scale, strict=True))
