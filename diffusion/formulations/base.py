"""What a formulation owes the rest of the atlas: what is trained, with which objective, and what
the outcome gives.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.metrics import ModelMetric
from diffusion.objectives import DenoisingLoss, Objective
from diffusion.objectives.base import Trainable
from diffusion.objectives.recipe import Recipe
from diffusion.objectives.settings import Training
from diffusion.registry import Component, Registry
from diffusion.samplers import Sampler, SamplingStart
from diffusion.schedules import Schedule

formulations: Registry[Formulation] = Registry("formulation")


@dataclass(frozen=True)
class Formulation(Component):
    """A named point of the design space."""

    @property
    @abstractmethod
    def gives(self) -> type:
        """The class of its models, what they can be asked (see `diffusion.models.capabilities`)."""

    @abstractmethod
    def own_schedule(self) -> Schedule:
        """The schedule this formulation is defined with."""

    def refuses(self, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why this formulation cannot be trained on the schedule, or None."""
        return None

    def refuses_dataset(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        """Why this formulation cannot be trained on the target, or None."""
        return None

    def fitted(self, schedule: Schedule, dataset: Dataset) -> Schedule:
        """The schedule with what it leaves open as the law has it whose noised points are learned."""
        return schedule.fitted(dataset.working)

    @property
    def own_sampler(self) -> Sampler | None:
        """The one way to sample a model that is no diffusion, asked in a single step whatever a
        study's samplers are; or None.
        """
        return None

    def schedules_among(self, offered: Sequence[Schedule]) -> Sequence[Schedule]:
        """Those that it is crossed with where a study offers some: what is sampled in a way of its
        own keeps its own one.
        """
        return offered if offered and self.own_sampler is None else (self.own_schedule(),)

    restores: ClassVar[bool] = False  # starts from an observation of clean data, with which the answers can be compared

    @property
    def observation(self) -> str:
        """What that observation is, in a label; answers to different ones do not compare. Empty
        where there is none.
        """
        return ""

    @property
    def start_distribution(self) -> Dataset | None:
        """The law of what sampling starts from where that is another data set, paired with the target
        independently; None: noise, or an observation.
        """
        return None

    @property
    def from_noise(self) -> bool:
        """Whether its models are sampled down from the schedule's noise, as the ideal denoiser is."""
        return self.own_sampler is None and not self.restores and self.start_distribution is None

    def refuses_sampler(self, sampler: Sampler, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why its models cannot be sampled by this rule on this schedule, which may be another than
        their own; or None.
        """
        return None

    def noise_range(self, schedule: Schedule) -> tuple[float, float] | None:  # noqa: ARG002
        """The least and the largest noise-to-signal ratio that a model of this schedule knows;
        None: every one.
        """
        return None

    def refuses_metric(self, metric: ModelMetric) -> str | None:  # noqa: ARG002
        """Why its denoiser is no answer to what the metric asks, or None."""
        return None

    def least_error(self, dataset: Dataset) -> float | None:  # noqa: ARG002
        """Least mean squared error, summed over coordinates, of an estimate of the clean data; None
        where it is not known.
        """
        return None

    def start(self, start: SamplingStart) -> Tensor | None:  # noqa: ARG002
        """Where sampling starts, ``[samples, dim]`` for the one member that `start` describes;
        None: from the schedule's noise.
        """
        return None


@dataclass(frozen=True)
class Untrained(Formulation):
    """A formulation that a study names and that needs no training."""

    @abstractmethod
    def model_of(self, datasets: Sequence[Dataset]) -> object:
        """The models of a stack of targets, an instance of `gives`."""

    @property
    def evaluations_each(self) -> int:
        """How often one answer asks the target's exact denoiser, for estimates of time."""
        return 1


@dataclass(frozen=True)
class Trained(Formulation, Trainable):
    """A formulation with a network."""

    labelled: ClassVar[bool] = False  # learns from data with their labels
    simulates: ClassVar[bool] = False  # learns from a posterior's simulations

    def examples(self, settings: Training) -> int:
        """The size of its training set."""
        return settings.data

    @property
    def gives(self) -> type:
        return self.objective.gives

    def refuses_network(self, dataset: Dataset, settings: Training) -> str | None:
        """Why the architecture that the settings name cannot serve it on the target, or None: then
        `network` builds one.
        """
        return settings.network.refuses(dataset)


@dataclass(frozen=True)
class NoiseConditional(Trained, Recipe):
    """One denoiser for all noise levels, by a network that is conditioned on the level.

    It is trained by regression unless a subclass says otherwise.
    """

    @property
    def objective(self) -> Objective:
        return DenoisingLoss()

    def identity(self) -> dict[str, Any]:
        """With the versions of the parts; without the schedule, which a cell has beside the
        formulation.
        """
        parts = (self.parametrization, self.noise_levels, self.weighting)
        kept = {key: value for key, value in super().identity().items() if key != "schedule"}
        return {**kept, "parts": [part.identity() for part in parts]}

    def noise_range(self, schedule: Schedule) -> tuple[float, float] | None:
        trained = self.noise_levels.quantile(torch.tensor([1e-5, 1 - 1e-5], dtype=torch.float64), schedule)
        ends = schedule.nsr(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64))
        return float(torch.minimum(trained.min(), ends[0])), float(torch.maximum(trained.max(), ends[1]))

    def refuses(self, schedule: Schedule) -> str | None:
        own, name = self.registered_name, schedule.registered_name
        if reason := self.noise_levels.refuses(schedule):
            return f"{own!r} cannot be trained there: {reason}"
        if reason := self.weighting.refuses(schedule):
            return f"{own!r} cannot be weighted there: {reason}"
        ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
        if self.parametrization.needs_signal and float(schedule.alpha(ends[1:])) == 0:
            return (
                f"{own!r} predicts {self.parametrization.registered_name!r}, which says nothing of the data where schedule {name!r} ends "
                "without signal (alpha = 0)"
            )
        if not bool(torch.isfinite(self.c_noise(schedule.nsr(ends), schedule)).all()):
            return f"{own!r} tells its network the logarithm of the noise-to-signal ratio, which has no end on schedule {name!r}"
        return None
