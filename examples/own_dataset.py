"""A data set of one's own: a spiral in the plane, learned by a small network and scored.

It states its dimension, mean and standard deviation and draws samples; a target that also knows its
ideal denoiser says `exact` and `denoise`, and is sampled without a network (`da.exact`).
"""

import math
from dataclasses import dataclass

import torch

import diffatlas as da


@dataclass(frozen=True)
class Spiral(da.Dataset):
    """r (cos phi, sin phi) with r = phi / (2 pi turns), phi uniform, and noise of deviation `blur`."""

    turns: float = 1.5
    blur: float = 0.02

    @property
    def dim(self) -> int:
        return 2

    @property
    def mean(self) -> tuple[float, ...]:
        end = 2 * math.pi * self.turns  # the integrals of phi cos(phi) and phi sin(phi)
        x = (math.cos(end) + end * math.sin(end) - 1) / end**2
        y = (math.sin(end) - end * math.cos(end)) / end**2
        return (x, y)

    @property
    def std(self) -> float:
        x, y = self.mean
        return math.sqrt((1 / 3 - x**2 - y**2) / 2 + self.blur**2)

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        r = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        phi = 2 * math.pi * self.turns * r
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return torch.cat([r * phi.cos(), r * phi.sin()], 1) + self.blur * noise


def scores(steps: int = 400) -> dict[str, da.Score]:
    """How far the samples of a trained network are from the spiral, with the floor that perfect
    ones have.
    """
    model = da.train(Spiral(), "edm", steps=steps, batch=256, width=64, data=20_000)
    return da.evaluate(model.sample("heun", steps=20, n=2000), Spiral(), ["energy", "sliced-w2"])


if __name__ == "__main__":
    for name, score in scores().items():
        print(f"{name}: {score.value:.4f}, of perfect samples {score.floor:.4f}")
