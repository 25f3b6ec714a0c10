r"""Inversion by direct iteration: from what was observed of the data back to the data, a little at
a time.

Between clean data x and an observation y of them (`diffusion.datasets.degradations`) lies the
straight line

    x_t = (1 - t) x + t y + t eps_t n,      0 <= t <= 1,

and a network learns ``D(x_t, t) = E[x | x_t]`` at every point of it. Restoration starts from y, at
t = 1, and moves towards what D says, as far as the step goes:

    x_s = (s/t) x_t + (1 - s/t) D(x_t, t)  [ + s sqrt(eps_s^2 - eps_t^2) n ]

One step is D(y, 1) = E[x | y], the estimate of least mean squared error, which is blurred where y
leaves a choice; many small steps follow dx/dt = (x - D)/t to one of the sharp answers, with more
mean squared error (at most twice as much if the answer is a draw from the posterior). The part of
the noise in x_t has variance t^2 eps_t^2 at every level of the stochastic form; eps_t must not
increase with t, so that the root is real.

**It is the flow.** With alpha = 1 - t, sigma = t and y where the noise stood, the rule without
noise is Euler's rule, and DDIM, on schedule `flow`, whatever y is:
``dx/dt = alpha' D + sigma' (x - alpha D)/sigma = (x - D)/t``. With y noise alone
(``{name: noise, alone: true}``) the whole method *is* rectified flow with the data predicted, on
the same noise: one method and not two. And with y = x + s n it is EDM's flow with sigma = s t: x_t
= x + t s n, ``(x - D)/t = -t s^2 grad log p(x_t)``. What is new is only y that is no Gaussian
noise; then x_t is no noised sample, and rules that add noise of the schedule's own have nothing to
do here.

Source: Delbracio & Milanfar, Inversion by Direct Iteration: An Alternative to Denoising Diffusion
for Image Restoration, TMLR 2023, eq. 5 and 8 (deterministic), section 3.3 (stochastic).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.datasets.degradations import Degradation, GaussianNoise
from diffusion.errors import WrongValue
from diffusion.formulations.base import NoiseConditional, formulations
from diffusion.metrics import ModelMetric
from diffusion.models import RestorationModel
from diffusion.objectives import NoiseLevels, Objective, RestorationLoss, Simple, UniformTime, Weighting
from diffusion.objectives.parametrizations import Data, Parametrization
from diffusion.samplers import Sampler, SamplingStart
from diffusion.schedules import Flow, Schedule


@formulations.register(
    "indi",
    formula="E|D(x_t, t) - x|^2 with x_t = (1 - t) x + t y + t eps_t n, t ~ U(0, 1); starts from the observation y",
    source="Delbracio & Milanfar, Inversion by Direct Iteration, TMLR 2023",
    document="S2 section 2.9",
)
@dataclass(frozen=True)
class InDI(NoiseConditional):
    """Restoration of data from an observation of them.

    `perturbation` is eps at t = 1; it grows towards the data as ``eps_t = perturbation / sqrt(t)``
    (`decay` ``root``: a Brownian motion on top of the line; sampled by `indi`), or stays
    (``constant``: noise on the observation, and none on the way).
    """

    degradation: Degradation = GaussianNoise()
    perturbation: float = 0.0
    decay: Literal["root", "constant"] = "root"
    parametrization: Parametrization = Data()
    noise_levels: ClassVar[NoiseLevels] = UniformTime()
    weighting: ClassVar[Weighting] = Simple()

    def __post_init__(self) -> None:
        if not 0 <= self.perturbation < math.inf:
            raise WrongValue(f"indi: perturbation, a standard deviation, must be at least 0, found {self.perturbation}")

    @property
    def objective(self) -> Objective:
        return RestorationLoss()

    @property
    def restores(self) -> bool:  # type: ignore[override]  # depends on a parameter
        return not self.degradation.blind

    @property
    def observation(self) -> str:
        return self.degradation.label() if self.restores else ""

    @property
    def _is_flow(self) -> bool:
        """Whether the observation is the schedule's own start noise, and the model a denoiser like
        any other.
        """
        return self.degradation.blind and self.degradation.noise == 1 and not self.perturbation

    def own_schedule(self) -> Schedule:
        return Flow()

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:
        return schedule.time_of(nsr)

    def refuses(self, schedule: Schedule) -> str | None:
        if not (isinstance(schedule, Flow) and schedule.t_max == 1):
            return f"'indi' starts from the observation, at t = 1 of schedule 'flow', and {schedule.label()!r} does not reach it"
        return super().refuses(schedule)

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        return self.degradation.refuses(dataset.dim)

    def refuses_sampler(self, sampler: Sampler, schedule: Schedule) -> str | None:
        if issubclass(sampler.needs, RestorationModel) or self._is_flow:
            return None
        name = sampler.registered_name
        if self.refuses(schedule) is not None:
            return (
                f"'indi' starts from its observation at the end of schedule 'flow', and is sampled on that schedule only "
                f"(not on {schedule.label()!r})"
            )
        if sampler.stochastic:
            return f"{name!r} adds the noise of a schedule, and between the data and their observation there is none (use indi)"
        if self.perturbation and self.decay == "root":
            return (
                f"{name!r} lets the perturbation die out, and this model expects it to grow towards the data (use indi)"
            )
        return None

    def refuses_metric(self, metric: ModelMetric) -> str | None:
        if self._is_flow:
            return None
        return f"{metric.registered_name!r} asks of data in noise, and this model knows data and their observation"

    def spread(self, t: Tensor) -> Tensor:
        """eps_t at times t > 0 of any shape."""
        return self.perturbation / torch.sqrt(t) if self.decay == "root" else torch.full_like(t, self.perturbation)

    def observed(self, x: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """``y + eps_t n`` at times ``[...]``: one normal number serves for the noise in y and for
        the perturbation of y.
        """
        return self.degradation.map(x) + torch.sqrt(self.degradation.noise**2 + self.spread(t) ** 2)[..., None] * n

    def start(self, start: SamplingStart) -> Tensor:
        """The observation of clean data of their own, perturbed: x_1."""
        noise = start.noise[0]
        clean = start.clean()[0] if self.restores else torch.zeros_like(noise)
        return self.observed(clean, noise, torch.ones_like(noise[:, 0]))

    def least_error(self, dataset: Dataset) -> float | None:
        noise = math.sqrt(self.degradation.noise**2 + self.perturbation**2)
        return self.degradation.least_error(dataset, noise)
