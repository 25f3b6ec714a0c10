"""A sampler of one's own: the exponential midpoint rule, beside two shipped ones, on two schedules.

With s = sigma / alpha, y = x / alpha and D held still, the flow takes y to D + (s'/s) (y - D). The
rule takes D from half the way in ln(s). The exact denoiser of eight bumps shows its steps' cost.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

import diffatlas as da


@dataclass(frozen=True)
class Midpoint(da.Sampler):
    """x is [members, n, dim]; a level's alpha and sigma are [members]; the last one has no noise."""

    order: ClassVar[int] = 2
    between_levels: ClassVar[bool] = True  # asks the denoiser at levels that are not the grid's
    share: float = 0.5  # of the way in ln(s); a parameter: da.sampler(Midpoint, share=0.4)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def step(self, denoiser: da.Denoiser, x: Tensor, now: da.Level, then: da.Level, noise: da.Noise) -> Tensor:
        denoised = denoiser(x, now.alpha, now.sigma)
        if then.clean:
            return denoised
        middle = now.at(now.time_of(now.nsr ** (1 - self.share) * then.nsr**self.share))
        ahead = self._moved(x, denoised, now, middle)
        return self._moved(x, denoiser(ahead, middle.alpha, middle.sigma), now, then)

    @staticmethod
    def _moved(x: Tensor, denoised: Tensor, now: da.Level, then: da.Level) -> Tensor:
        kept = (then.sigma / now.sigma)[:, None, None]
        return kept * x + (then.alpha[:, None, None] - kept * now.alpha[:, None, None]) * denoised


def errors(schedule: str, steps: int) -> dict[str, float]:
    """Root mean square distance to 400 steps of `heun` from the same start noise."""
    target = da.dataset("eight_gaussians")

    def samples(sampler: da.Sampler | str, steps: int) -> Tensor:
        return da.sample(target, sampler, steps=steps, schedule=schedule, grid="uniform-log-snr", n=200)

    limit = samples("heun", 400)
    found: dict[str, da.Sampler | str] = {"own": Midpoint(), "ddim": "ddim", "heun": "heun"}
    return {name: float((samples(one, steps) - limit).square().mean().sqrt()) for name, one in found.items()}


if __name__ == "__main__":
    for schedule in ("edm", "vp-linear"):
        for steps in (10, 20, 40):
            print(schedule, steps, {name: f"{error:.4f}" for name, error in errors(schedule, steps).items()})
    try:
        da.sample(da.dataset("uniform"), Midpoint(), n=5, schedule="ddpm-linear")
    except da.WrongValue as error:
        print("refused:", error)
