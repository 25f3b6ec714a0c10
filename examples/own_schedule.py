"""A schedule of one's own: sigma = t and alpha = sqrt(1 - t^2), a quarter of the circle at constant
growth of the noise.

Four functions say everything: alpha, sigma and their derivatives; `time_of` inverts the
noise-to-signal ratio. (Where two expressions are enough,
`da.schedule("user", alpha="sqrt(1 - t**2)", sigma="t", t_max=0.999)` needs no class.)
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import diffatlas as da


@dataclass(frozen=True)
class SigmaAsTime(da.Schedule):
    """x_t = sqrt(1 - t^2) x_0 + t eps on 0 <= t <= t_max < 1."""

    variance_preserving: ClassVar[bool] = True
    own_grid: ClassVar[str] = "uniform-log-snr"  # equal steps in t would leave little to the end
    t_min: float = 1e-3
    t_max: float = 0.99999

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sqrt((1 - t) * (1 + t))

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -t / self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time_of(self, nsr: Tensor) -> Tensor:
        return nsr / torch.sqrt(1 + nsr**2)


def w1(schedule: da.Schedule, steps: int) -> float:
    """How far the exact denoiser's samples of U[0, 1] are from it, on one schedule."""
    x = da.sample(da.dataset("uniform"), "heun", schedule=schedule, steps=steps, n=4000)
    return da.evaluate(x, "uniform", "w1")["w1"].value


if __name__ == "__main__":
    own, cosine = SigmaAsTime(), da.schedule("vp-cosine")
    half = torch.tensor(0.5, dtype=torch.float64)
    print("alpha, sigma at t = 0.5:", float(own.alpha(half)), float(own.sigma(half)))
    for steps in (5, 10, 20, 40):
        print(steps, f"own {w1(own, steps):.4f}", f"vp-cosine {w1(cosine, steps):.4f}")
