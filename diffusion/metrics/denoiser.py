"""Metrics of the denoiser itself: how far a learned score is from the exact one, noise level by
noise level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.devices import HOST, device_of, to_device
from diffusion.errors import WrongValue
from diffusion.metrics.base import ProfileMetric, metrics
from diffusion.models import Denoiser
from diffusion.randomness import stream
from diffusion.registry import stream_text
from diffusion.schedules import Schedule

_MOST = 100_000


@metrics.register(
    "score-error",
    formula="E |sigma (s_theta - s)|^2 / dim = E |alpha (D_theta - D) / sigma|^2 / dim, mean over noise levels",
    source="Fisher divergence: Hyvarinen, JMLR 6, 2005; Vincent, Neural Computation 23, 2011; the weight sigma^2: Song & "
    "Ermon, Generative Modeling by Estimating Gradients of the Data Distribution, NeurIPS 2019, section 4.2",
    document="S1",
)
@dataclass(frozen=True)
class ScoreError(ProfileMetric):
    r"""Fisher divergence of the denoiser from the exact one, weighted with sigma^2: a pure number
    at each noise level.

    With ``s = (alpha D - x) / sigma^2`` the difference of the scores is that of the denoisers, and
    ``sigma (s_theta - s) = eps - eps_theta`` is the error of the predicted noise. The expectation
    runs over ``x = alpha x_0 + sigma eps`` with `batch` draws of (x_0, eps) from a stream that is
    named by the data set alone: all denoisers, schedules and levels see the same draws, and
    differences between them are paired.

    `count` noise-to-signal ratios spread evenly in the logarithm between the schedule's first noisy
    level and its last, or `largest` where that is beyond it (for flow matching it is infinite). Of
    a discrete schedule they are the nearest of its own levels, each once, which may be fewer than
    `count`.

    Floor: 0; for the exact denoiser nothing is left but rounding.
    """

    axis_label: ClassVar[str] = "error of the score, σ² E|s_θ - s|² / dim"

    count: int = 16
    batch: int = 1024
    largest: float = 1000.0

    def __post_init__(self) -> None:
        if not (1 <= self.count <= _MOST and 1 <= self.batch <= _MOST and 0 < self.largest < math.inf):
            raise WrongValue(
                f"score-error: count = {self.count}, batch = {self.batch}, largest = {self.largest}; "
                f"needed: count and batch from 1 to {_MOST}, largest a finite number above 0"
            )

    @property
    def evaluations(self) -> int:
        return 3 * self.count * self.batch

    @property
    def calls(self) -> int:
        return self.count

    @property
    def exact_evaluations(self) -> int:
        return self.count * self.batch

    def levels(self, schedule: Schedule) -> Tensor:
        return schedule.nsr(self._times(schedule))

    def _times(self, schedule: Schedule) -> Tensor:
        ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
        low, high = schedule.nsr(ends).clamp(max=self.largest).tolist()
        ratios = torch.from_numpy(np.geomspace(low, high, self.count))
        if schedule.max_steps is None:
            return schedule.time_of(ratios).clamp(schedule.t_min, schedule.t_max)
        own = schedule.level_times
        far = (schedule.nsr(own).log() - ratios.log()[:, None]).abs()
        return own[far.argmin(dim=1).unique()].sort().values

    def profile(self, model: Denoiser, dataset: Dataset, schedule: Schedule) -> Tensor:
        self._check(dataset)
        generator = stream("score-error", stream_text(dataset))
        clean = dataset.sample(self.batch, generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        times = self._times(schedule)
        found = []
        place = device_of(model)
        for alpha, sigma in zip(schedule.alpha(times)[:, None], schedule.sigma(times)[:, None], strict=True):
            x = (alpha * clean + sigma * noise)[None]
            denoised = model(*(to_device(part, place) for part in (x, alpha, sigma))).to(HOST)
            if denoised.shape != x.shape:
                raise WrongValue(
                    f"{self.registered_name}: the denoiser gave shape {list(denoised.shape)}; needed: {list(x.shape)}"
                )
            error = (alpha / sigma) * (denoised.double() - dataset.denoise(x, alpha[:, None], sigma[:, None]))
            found.append(error.square().mean())
        errors = torch.stack(found)
        bad = int((~torch.isfinite(errors)).sum())
        if bad:
            raise WrongValue(f"{self.registered_name}: not a finite number at {bad} of {len(errors)} noise levels")
        return errors
