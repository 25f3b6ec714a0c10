r"""Posteriors: what is known of parameters theta once a simulator's outcome x was observed.

A posterior is the law ``p(theta | x_o) ~ p(x_o | theta) p(theta)`` of a task: a prior, a simulator
that draws ``x`` given theta, and numbered observations ``x_o``. Its points are parameters, so that
it is a target like any other: it is sampled, compared with and, where its noised law is known,
denoised exactly. What it has besides is the joint law of parameters and outcomes, from which
formulation `observation-conditional` learns ``p(theta | x)`` for every x at once, without ever
seeing x_o.

| name | theta | x given theta |
|---|---|---|
| `gaussian_linear_uniform_posterior` | U[-1, 1]^10 | N(theta, 0.1 I) |
| `gaussian_mixture_posterior` | U[-10, 10]^2 | N(theta, I) or N(theta, 0.1^2 I), as likely as not |
| `two_moons_posterior` | U[-1, 1]^2 | a blurred half-circle, moved to where theta says |

The three are tasks of the benchmark of simulation-based inference by Lueckmann et al. (2021), with
its ten observations each, as version 1.1.0 of its package `sbibm` lists them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets.base import Dataset
from diffusion.errors import WrongValue

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class SimulatorPosterior(Dataset):
    """The law of parameters given one of a task's observations.

    Raises:
        WrongValue: there is no observation of that number.
    """

    observations: ClassVar[tuple[Numbers, ...]] = ()

    observation: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.observation <= len(self.observations):
            raise WrongValue(
                f"{self.registered_name}: observation = {self.observation!r}; needed: 1 to {len(self.observations)}, "
                "the number of one of the task's observations"
            )

    @property
    def observed(self) -> Numbers:
        """x_o, the simulator's outcome that was observed."""
        return self.observations[self.observation - 1]

    @property
    @abstractmethod
    def prior(self) -> Dataset:
        """The law of the parameters before anything was observed."""

    @property
    @abstractmethod
    def outcomes(self) -> tuple[Numbers, Numbers]:
        """Mean and standard deviation of each coordinate of x, parameters drawn from the prior."""

    @abstractmethod
    def simulate(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """An outcome ``[n, m]`` for each of the parameters ``theta [n, dim]``, float64."""

    def sample_joint(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` draws of parameters from the prior, each with an outcome beside it,
        ``[n, dim + m]`` float64.
        """
        theta = self.prior.sample(n, generator)
        return torch.cat([theta, self.simulate(theta, generator)], 1)
