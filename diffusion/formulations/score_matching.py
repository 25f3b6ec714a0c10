r"""Score matching as formulations: the score learned by each of its objectives, at all noise
levels, at one, or on clean data.

| formulation | objective of a noised sample, h being sigma times the score | cost |
|---|---|---|
| `implicit-score-matching` | ``1/2 abs(h)^2 + sigma tr grad h`` | dim backward passes more, or `probes` |
| `sliced-score-matching` | ``1/2 (v'h)^2 + sigma v' (grad h) v``, or ``abs(h)^2`` in it | `projections` backward passes more |
| `denoising-score-matching` | ``1/2 abs(h + eps)^2`` | none |
| `ncsn` | denoising, geometric levels, weight sigma^2, one network | none |
| `ncsn-separate` | the same, a network for each level | none; as many parameters as levels |

All of them have the minimiser of `denoising`: each gives the score of the noised law at every level
that it is trained at, hence by Tweedie's formula a denoiser, and serves every sampler. They differ
in the variance of their gradients and in cost. Parametrization, noise levels, weight and schedule
are chosen by name as for `denoising`; the default weight is sigma^2, `snr` on the denoiser.

Noise levels ``{name: single, sigma: 0.3}`` train at one level: for Langevin dynamics, and for
comparing objectives. ``sigma: 0`` is clean data, which implicit and sliced objectives accept of
targets with a smooth positive density. On others (an interval, a checkerboard, points, surfaces)
these objectives have no lower bound: the steeper the score falls where the density ends, the less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.analysis.score_matching import Probes
from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.formulations.base import NoiseConditional, formulations
from diffusion.formulations.denoising import Denoising
from diffusion.objectives import (
    ImplicitLoss,
    NoiseLevels,
    Objective,
    OwnLevels,
    SeparateLoss,
    SignalToNoise,
    SlicedLoss,
    Weighting,
)
from diffusion.objectives.parametrizations import Parametrization, PredictedScore
from diffusion.schedules import NCSN, Schedule

_MOST_PROBES = 4096


def _check_probes(name: str, what: str, count: int) -> None:
    if not 1 <= count <= _MOST_PROBES:
        raise WrongValue(f"{name} needs {what} from 1 to {_MOST_PROBES}, found {count}")


@dataclass(frozen=True)
class WithoutTarget(Denoising):
    """Objectives that see the score of the data themselves, and so can be asked of clean data."""

    weighting: Weighting = SignalToNoise()
    serves_clean: ClassVar[bool] = True

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        if self.noise_levels.only == 0 and not dataset.smooth:
            return (
                f"{self.registered_name!r} on clean data has no lower bound for dataset {dataset.registered_name!r}, whose density is not "
                "positive and differentiable everywhere; noised data are accepted (noise_levels: log-normal, or {name: single, sigma: 0.1})"
            )
        return super().refuses_dataset(dataset)


@formulations.register(
    "implicit-score-matching",
    formula="E lambda [tr grad s + 1/2 |s|^2], the trace exact or Hutchinson's: mean_j v_j' (grad s) v_j",
    source="Hyvarinen, JMLR 6, 2005; Hutchinson, Communications in Statistics 18, 1989",
    document="S1, S4",
)
@dataclass(frozen=True)
class ImplicitScoreMatching(WithoutTarget):
    """Implicit score matching: integration by parts in place of a target.

    With the exact trace a step costs `dim` backward passes; ``trace: hutchinson`` costs `probes` of
    them and adds variance, of signs (`rademacher`) less than of normal numbers (`gaussian`).
    """

    trace: Literal["exact", "hutchinson"] = "exact"
    probes: int = 1
    law: Probes = "rademacher"

    def __post_init__(self) -> None:
        _check_probes("implicit-score-matching", "probes", self.probes)

    @property
    def objective(self) -> Objective:
        return ImplicitLoss() if self.trace == "exact" else ImplicitLoss(self.probes, self.law)


@formulations.register(
    "sliced-score-matching",
    formula="E lambda mean_j [v_j' (grad s) v_j + 1/2 (v_j' s)^2]; variance_reduced: 1/2 |s|^2 in place of the last term",
    source="Song, Garg, Shi & Ermon, Sliced Score Matching: A Scalable Approach to Density and Score Estimation, UAI 2019",
    document="S1",
)
@dataclass(frozen=True)
class SlicedScoreMatching(WithoutTarget):
    """Sliced score matching: derivatives along random directions only, `projections` of them for
    each example.

    With `variance_reduced` it is `implicit-score-matching` with Hutchinson's trace and these
    probes.
    """

    projections: int = 1
    variance_reduced: bool = False
    law: Probes = "gaussian"

    def __post_init__(self) -> None:
        _check_probes("sliced-score-matching", "projections", self.projections)

    @property
    def objective(self) -> Objective:
        return (ImplicitLoss if self.variance_reduced else SlicedLoss)(self.projections, self.law)


@formulations.register(
    "denoising-score-matching",
    formula="E lambda |s(x_t) + eps / sigma|^2; lambda = sigma^2 makes it E |sigma s + eps|^2",
    source="Vincent, A Connection Between Score Matching and Denoising Autoencoders, Neural Computation 23, 2011",
    document="S0 level 3, S1, S4",
)
@dataclass(frozen=True)
class DenoisingScoreMatching(Denoising):
    """Denoising score matching: `denoising` with the weight sigma^2, by its other name.

    Its optimum is the score of the noised law; of clean data it knows nothing.
    """

    weighting: Weighting = SignalToNoise()


@formulations.register(
    "ncsn",
    formula="1/(2L) sum_i sigma_i^2 E |s(x + sigma_i eps, sigma_i) + eps / sigma_i|^2, L geometric sigma_i",
    source="Song & Ermon, Generative Modeling by Estimating Gradients of the Data Distribution, NeurIPS 2019, eqs. 5 and 6",
    document="S1",
)
@dataclass(frozen=True)
class NoiseConditionalScore(NoiseConditional):
    """A noise-conditional score network: one network over the levels of its schedule, all equally
    often, each weighted with sigma^2.

    Its levels are chosen from the data (schedule `ncsn`). The network is conditioned on ln sigma.
    """

    parametrization: ClassVar[Parametrization] = PredictedScore()
    noise_levels: ClassVar[NoiseLevels] = OwnLevels()
    weighting: ClassVar[Weighting] = SignalToNoise()

    def own_schedule(self) -> Schedule:
        return NCSN()

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:  # noqa: ARG002
        return torch.log(nsr)


@formulations.register(
    "ncsn-separate",
    formula="for each level i a network of its own: E |sigma_i s_i(x + sigma_i eps) + eps|^2",
    source="what `ncsn` replaces: Song & Ermon, NeurIPS 2019, section 4.1",
    document="S1",
)
@dataclass(frozen=True)
class SeparateScores(NoiseConditionalScore):
    """As many networks as levels, trained side by side, each at its own level; `levels` of them.

    Nothing is learned of one level from another, and there are as many times more parameters.
    """

    levels: int = 10

    def __post_init__(self) -> None:
        NCSN(levels=self.levels)  # refuses what it cannot use

    def own_schedule(self) -> Schedule:
        return NCSN(levels=self.levels)

    def refuses(self, schedule: Schedule) -> str | None:
        if schedule.max_steps is not None and len(schedule.noise_levels) != self.levels:
            return (
                f"{self.registered_name!r} has a network for each of {self.levels} levels, and schedule {schedule.registered_name!r} has "
                f"{len(schedule.noise_levels)}"
            )
        return super().refuses(schedule)

    @property
    def objective(self) -> Objective:
        return SeparateLoss(count=self.levels)
