"""A posterior of one's own: a parabola's three coefficients, of which five noisy values were seen.

A network learns it from simulations alone; here it is a normal law, and so known exactly as well.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

import diffatlas as da

PLACES, NOISE = torch.linspace(-1, 1, 5, dtype=torch.float64), 0.5
VALUES = torch.stack([PLACES**0, PLACES, PLACES**2 - 0.5], 1)  # [5, 3], columns at right angles
VARIANCES = 1 / (1 + VALUES.square().sum(0) / NOISE**2)  # of the posterior, whatever was observed


@dataclass(frozen=True)
class Parabola(da.SimulatorPosterior):
    """theta = (a, b, c) ~ N(0, I), x = a + b t + c (t^2 - 1/2) + noise: p(theta | x_o) = N(m, diag V)."""

    observations: ClassVar = ((0.3, -0.4, -0.9, -0.1, 1.6), (2.0, 1.1, 0.4, 0.2, -0.3))
    prior: ClassVar = da.dataset("gaussian", dim=3)
    outcomes: ClassVar = ((0.0,) * 5, tuple((VALUES.square().sum(1) + NOISE**2).sqrt().tolist()))
    dim: ClassVar = 3
    std: ClassVar = float(VARIANCES.mean().sqrt())
    exact: ClassVar = True

    def simulate(self, theta: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return theta @ VALUES.T + NOISE * torch.randn(len(theta), 5, generator=generator, dtype=torch.float64)

    @property
    def centre(self) -> torch.Tensor:
        return VARIANCES * (torch.tensor(self.observed, dtype=torch.float64) @ VALUES) / NOISE**2

    @property
    def mean(self) -> tuple[float, ...]:
        return tuple(self.centre.tolist())

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        return self.centre + VARIANCES.sqrt() * torch.randn(n, 3, generator=generator, dtype=torch.float64)

    def denoise(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        mean, a, s = self.centre, alpha[..., None], sigma[..., None]
        return mean + a * VARIANCES / (a**2 * VARIANCES + s**2) * (x - a * mean)

    def log_density(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        mean, a, s = self.centre, alpha[..., None], sigma[..., None]
        noisy = torch.distributions.Normal(a * mean, (a**2 * VARIANCES + s**2).sqrt())
        return sum(noisy.log_prob(x).unbind(-1), torch.zeros(()))  # in one order, whatever the batch

    def posterior_variance(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        a, s = alpha[..., None], sigma[..., None]
        return (VARIANCES * s**2 / (a**2 * VARIANCES + s**2)).sum(-1).expand(x.shape[:-1])


if __name__ == "__main__":
    model = da.train(Parabola(), {"name": "observation-conditional", "simulations": 5000}, steps=1500, width=64)
    print(da.evaluate(model.sample("heun", steps=18, n=2000), Parabola(), ["energy"]))
