"""What the tests of the samplers share: who is asked, on which schedules, and noise that is known.

Denoisers and levels are those of `diffusion.checks.known`, which `diffatlas check` measures with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.checks.known import (
    BIMODAL,
    Able,
    Affine,
    Drawn,
    Known,
    NormalMixture,
    Recorded,
    Rough,
    Smooth,
    affine,
    gaussian,
    marginal,
    own_stack,
    slope,
    smooth_levels,
    stack_of,
)
from diffusion.checks.known import (
    SCHEDULES as SERVED,
)
from diffusion.datasets import Uniform
from diffusion.models import Denoiser, DensityModel
from diffusion.randomness import stream
from diffusion.samplers import (
    DDIM,
    MALA,
    RK2,
    Ancestral,
    AnnealedLangevin,
    Churn,
    Decode,
    DPMSolver2MSDE,
    ExponentialEuler,
    GradientAscent,
    Langevin,
    LevelOne,
    Noise,
    PredictorCorrector,
    ReverseSDE,
    Sampler,
    samplers,
)
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level

__all__ = [
    "BIMODAL",
    "FOLLOWING",
    "OTHERS",
    "SAMPLERS",
    "SCHEDULES",
    "SILENCE",
    "Able",
    "Affine",
    "Drawn",
    "Known",
    "NormalMixture",
    "Recorded",
    "Rough",
    "Smooth",
    "affine",
    "drawn",
    "drawn_from",
    "gaussian",
    "marginal",
    "number",
    "own_levels",
    "own_stack",
    "rough",
    "run",
    "served",
    "slope",
    "smooth_levels",
    "stack_of",
    "standard",
    "states",
    "uniform",
]

_VARIANTS: tuple[Sampler, ...] = (
    RK2(2 / 3),
    RK2(1.0),
    DDIM(0.5),
    DDIM(1.0),
    Ancestral("transition"),
    LevelOne("transition"),
    ExponentialEuler("noise"),
    ReverseSDE(0.0),
    ReverseSDE(0.5),
    ReverseSDE(2.0),
    Churn(s_churn=0.0),
    Churn(s_churn=5.0, s_min=0.0, s_max=math.inf),
    PredictorCorrector(corrector_steps=3),
    DPMSolver2MSDE(0.5),
    GradientAscent(denoise=True),
    Langevin(denoise=True),
    MALA(denoise=True),
    AnnealedLangevin(moves=3, denoise=False),
)
# what needs another model has tests of its own
_SERVED = [entry.cls() for entry in samplers if entry.has_defaults and entry.cls.needs in (Denoiser, DensityModel)]
SAMPLERS: dict[str, Sampler] = {s.label(): s for s in (*_SERVED, *_VARIANTS)}
OTHERS: dict[str, Sampler] = {
    s.label(): s
    for s in (*(entry.cls() for entry in samplers if entry.has_defaults), Decode(noise=False))
    if s.label() not in SAMPLERS
}
# of the flow or its SDEs
FOLLOWING: dict[str, Sampler] = {name: s for name, s in SAMPLERS.items() if s.order is not None}
SCHEDULES: dict[str, Schedule] = {schedule.label(): schedule for schedule in SERVED}


def served(sampler: Sampler) -> list[Schedule]:
    """The schedules that a sampler does not refuse."""
    return [schedule for schedule in SCHEDULES.values() if sampler.refuses(schedule) is None]


def number(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


# --- denoisers ------------------------------------------------------------------------------------


uniform = Known(Uniform())


rough = Rough()


def drawn_from(mixture: NormalMixture, n: int, *name: object) -> Tensor:
    """Reproducible draws ``[n]``."""
    generator = stream("test-samplers", "mixture", *name)
    which = torch.multinomial(
        torch.tensor(mixture.weights, dtype=torch.float64), n, replacement=True, generator=generator
    )
    means, stds = (torch.tensor(values, dtype=torch.float64)[which] for values in (mixture.means, mixture.stds))
    return means + stds * torch.randn(n, generator=generator, dtype=torch.float64)


# --- levels ---------------------------------------------------------------------------------------


def own_levels(schedule: Schedule, steps: int) -> list[Level]:
    return own_stack([schedule], steps)


# --- noise ----------------------------------------------------------------------------------------


class Silence:
    """For samplers that should not ask."""

    def between(self, now: Level, then: Level) -> Tensor:
        raise AssertionError(f"noise was asked for between {now.time} and {then.time}")

    def fresh(self) -> Tensor:
        raise AssertionError("noise was asked for")


SILENCE = Silence()


def standard(shape: tuple[int, ...], *name: object) -> Tensor:
    """A reproducible standard normal draw."""
    return torch.randn(shape, generator=stream("test-samplers", *name), dtype=torch.float64)


def drawn(shape: tuple[int, ...], *name: object) -> Drawn:
    """Any number of reproducible draws."""
    return Drawn(standard(shape, *name, i) for i in itertools.count())


# --- runs -----------------------------------------------------------------------------------------


def states(
    sampler: Sampler, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise = SILENCE
) -> list[Tensor]:
    """The states after the start, of a sampler that passes the levels of a grid in its own way."""
    return list(sampler.trajectory(denoiser, x, sampler.path(levels), noise))


def run(sampler: Sampler, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise = SILENCE) -> Tensor:
    return states(sampler, denoiser, x, levels, noise)[-1]
