"""Classes of somebody's own, as a study names them: ``tests.tasks.own_parts:Name``."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from diffusion.datasets import Dataset, Uniform
from diffusion.metrics import Wasserstein1
from diffusion.models import Denoiser
from diffusion.samplers import DDIM, Heun, Noise, Sampler
from diffusion.schedules import Level


@dataclass(frozen=True)
class Wide(Uniform):
    """U[0, 1] by another name, drawn twice as wide."""

    def sample(self, n: int, generator: Generator) -> Tensor:
        return 2 * super().sample(n, generator)


@dataclass(frozen=True)
class HalfHeun(Heun):
    """Heun's rule, but only half of each step."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return x + 0.5 * (super().step(denoiser, x, now, then, noise) - x)


@dataclass(frozen=True)
class First(Sampler):
    """DDIM's rule."""

    order: ClassVar[int] = 1

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return DDIM().step(denoiser, x, now, then, noise)


@dataclass(frozen=True)
class Second(First):
    """DDIM's rule, then halved: the parameters are those of `First`, the numbers are not."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return 0.5 * super().step(denoiser, x, now, then, noise)


@dataclass(frozen=True)
class Leaving(First):
    """Ends the process."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        raise SystemExit(3)


@dataclass(frozen=True)
class Exiting(First):
    """Ends the process where alpha is below one, with a last word, and no exception that could be
    caught.
    """

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        if (now.alpha < 1).any():
            sys.stderr.write("out of luck\n")
            sys.stderr.flush()
            os._exit(137)
        return super().step(denoiser, x, now, then, noise)


@dataclass(frozen=True)
class Hanging(First):
    """Never returns."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        time.sleep(1000.0)
        return x


@dataclass(frozen=True)
class Deadly(Uniform):
    """U[0, 1] by another name; who draws from it ends."""

    def sample(self, n: int, generator: Generator) -> Tensor:  # noqa: ARG002
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@dataclass(frozen=True)
class Flat(First):
    """Forgets a dimension."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return super().step(denoiser, x, now, then, noise)[..., 0]


@dataclass(frozen=True)
class Hundredfold(Wasserstein1):
    """A hundred times W1."""

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        return 100 * super()._measure(samples, dataset)


@dataclass(frozen=True)
class Praised(Wasserstein1):
    """W1, called better the higher it is."""

    higher_is_better = True
