r"""The levels of noise-conditional score networks: finitely many, geometric, on data that keep
their size.

    sigma_i = sigma_1 gamma^-(i-1),   i = 1 .. L,   gamma = (sigma_1 / sigma_L)^(1/(L-1))

A network is trained at these levels alone, and whoever samples (annealed Langevin, or any sampler
of discrete schedules) asks it there alone. Two published rules choose them from the data (Song &
Ermon, 2020, techniques 1 and 2):

1. sigma_1 is as large as the largest distance between two data points;
2. samples of one level must be likely at the next. The distance from a data point, of a sample
   noised with sigma in D dimensions, is nearly normal with mean sqrt(D) sigma and variance sigma^2
   / 2; half of the samples lie within three standard deviations of the next level's mean if

       Phi(sqrt(2D) (gamma - 1) + 3 gamma) - Phi(sqrt(2D) (gamma - 1) - 3 gamma) = 1/2.

The second rule has a solution only where ``sqrt(2D) > 3``, that is for D >= 5 (gamma = 19.5 at D =
5, 4 at D = 8, 1.361 at D = 64): in fewer dimensions shells of noise are so thick that any two
overlap. There, ten levels are used, as in the first paper on the method.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.randomness import stream
from diffusion.schedules.base import NoiseAsTime, Schedule, check_sigmas, require, schedules

FEW_DIMENSIONS = 10
"""How many levels there are where the overlap rule has no solution."""

_NOMINAL_SIGMA_MAX = 1.0  # before a data set is known
_MOST_LEVELS = 100_000
_LEAST_SPAN = 10.0  # of the levels, for data that are smaller than their least noise
_PAIRED = 2000  # data points between which distances are taken


@schedules.register(
    "ncsn",
    formula="sigma_i = sigma_max (sigma_min / sigma_max)^((i-1)/(L-1)), i = 1..L; alpha = 1, sigma = t",
    source="Song & Ermon, NeurIPS 2019, section 4; its rules for levels: Song & Ermon, Improved Techniques for Training "
    "Score-Based Generative Models, NeurIPS 2020, techniques 1 and 2",
    document="S1 (noise perturbation, NCSN)",
)
@dataclass(frozen=True)
class NCSN(NoiseAsTime):
    """Geometric levels from `sigma_max` to `sigma_min`, time being the noise level.

    What is left open is chosen from the data set (see `fitted`): `sigma_max` by the largest
    distance, the number of `levels` by the overlap of neighbours, or 10 where that rule has no
    solution.
    """

    levels: int | None = None
    sigma_max: float | None = None
    sigma_min: float = 0.01
    own_grid: ClassVar[str] = "discrete"

    def __post_init__(self) -> None:
        require(
            self.levels is None or 2 <= self.levels <= _MOST_LEVELS,
            f"ncsn needs 2 to {_MOST_LEVELS} levels, found {self.levels}",
        )
        check_sigmas(self.sigma_min, self._top)

    def fitted(self, dataset: Dataset) -> Schedule:
        """With everything chosen: the rules of the module where a parameter is open, three
        significant digits.
        """
        if self.levels is not None and self.sigma_max is not None:
            return self
        top = self.sigma_max
        if top is None:
            top = float(f"{max(largest_distance(dataset), _LEAST_SPAN * self.sigma_min):.3g}")
        levels = self.levels
        if levels is None:
            ratio = overlap_ratio(dataset.dim)
            levels = (
                FEW_DIMENSIONS if ratio is None else 1 + math.ceil(math.log(top / self.sigma_min) / math.log(ratio))
            )
        return dataclasses.replace(self, levels=levels, sigma_max=top)

    @property
    def _top(self) -> float:
        return max(_NOMINAL_SIGMA_MAX, _LEAST_SPAN * self.sigma_min) if self.sigma_max is None else self.sigma_max

    @cached_property
    def noise_levels(self) -> np.ndarray:
        """sigma_1 > ... > sigma_L, ``[levels]``."""
        return np.geomspace(self._top, self.sigma_min, self.max_steps or FEW_DIMENSIONS)

    @property
    def max_steps(self) -> int | None:
        """The number of levels; before a data set is known, that for few dimensions."""
        return FEW_DIMENSIONS if self.levels is None else self.levels

    @property
    def level_times(self) -> Tensor:
        return torch.as_tensor(self.noise_levels.copy())

    def own_times(self, steps: int) -> Tensor:
        # from the noisiest to the least noisy, as even as whole numbers allow; a single step starts
        # in the noise
        numbers = np.linspace(0, len(self.noise_levels) - 1, steps).round().astype(int)
        return torch.as_tensor(self.noise_levels[numbers])

    @property
    def t_min(self) -> float:
        return float(self.noise_levels[-1])

    @property
    def t_max(self) -> float:
        return float(self.noise_levels[0])


@lru_cache
def largest_distance(dataset: Dataset) -> float:
    """The largest distance between two of 2000 draws from a stream that the data set names: a pure
    function of it.
    """
    x = dataset.sample(_PAIRED, stream("largest distance", dataset.identity()))
    return float(torch.pdist(x).max())


def overlap_ratio(dim: int) -> float | None:
    """gamma of the second rule in `dim` dimensions, or None where it has no solution."""
    root = math.sqrt(2 * dim)
    if root <= 3:
        return None

    from scipy.optimize import brentq
    from scipy.special import ndtr

    def excess(gamma: float) -> float:
        return float(ndtr(root * (gamma - 1) + 3 * gamma) - ndtr(root * (gamma - 1) - 3 * gamma) - 0.5)

    return float(brentq(excess, 1.0, 2 * root / (root - 3), xtol=1e-12))
