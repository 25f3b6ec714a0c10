r"""Flow matching between two data sets: from draws of a source, whatever its law, to the target.

    dx/dt = E[y - x_0 | x_t],      x_t = (1 - t) x_0 + t y,      t from 1 to 0

x_0 follows the target and y the source, independent of each other. This is the flow of schedule
`flow` with y where the noise stood (see `diffusion.formulations.indi`, where y is an observation of
x_0): ``dx/dt = alpha' D + sigma' (x - alpha D)/sigma`` with ``D = E[x_0 | x_t]``. Rules for that
equation serve as they are. What needs the score does not: it is that of normal noise only.

One step of Euler's rule from t = 1 gives ``D(y, 1) = E[x_0]`` for every y, because the pairing is
independent: all samples at the target's mean, with ``W2^2 = E|x_0 - E x_0|^2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffusion.datasets import Dataset, EightGaussians, Gaussian, GaussianMixture
from diffusion.datasets.mixtures import MixtureDataset
from diffusion.formulations.base import Formulation, Untrained, formulations
from diffusion.formulations.denoising import RectifiedFlow
from diffusion.metrics import ModelMetric
from diffusion.models import BetweenDenoiser
from diffusion.objectives import CoupledLoss, Objective
from diffusion.samplers import OwnStart, OwnTarget, Sampler, SamplingStart
from diffusion.schedules import Flow, Schedule

_RING = EightGaussians()


@dataclass(frozen=True)
class FromSource(Formulation):
    """What both have in common: where samples start, and who may ask.

    Args:
        source: the data set that samples start from, of the target's dimension.
    """

    source: Dataset = _RING

    @property
    def start_distribution(self) -> Dataset:
        return self.source

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        source = self.source
        if source.dim != dataset.dim:
            return (
                f"{self.registered_name!r} goes from its source to the target, and source {source.label()!r} has "
                f"{source.dim} coordinates, dataset {dataset.label()!r} {dataset.dim}"
            )
        return None

    def refuses(self, schedule: Schedule) -> str | None:
        if isinstance(schedule, Flow) and schedule.t_max == 1:
            return None
        return (
            f"{self.registered_name!r} starts from its source, at t = 1 of schedule 'flow', and {schedule.label()!r} "
            "does not reach it"
        )

    def refuses_sampler(self, sampler: Sampler, schedule: Schedule) -> str | None:
        name = sampler.registered_name
        if reason := self.refuses(schedule):
            return reason
        if sampler.stochastic:
            return f"{name!r} adds the noise of a schedule, and between two data sets there is none (use euler, heun or rk45)"
        if sampler.order is None or isinstance(sampler, OwnStart | OwnTarget):
            return f"{name!r} does not go from the source to the target along the flow (use euler, heun or rk45)"
        return None

    def refuses_metric(self, metric: ModelMetric) -> str | None:
        return f"{metric.registered_name!r} asks of data in noise, and {self.registered_name!r} knows them between two data sets"

    def start(self, start: SamplingStart) -> Tensor:
        """Draws of the source: x_1."""
        return start.drawn(self.source, 0)


@formulations.register(
    "flow-between",
    formula="|(y - x_0) - v_theta((1-t) x_0 + t y; t)|^2, y from the source independent of x_0, t ~ U(0, 1)",
    source="Liu et al., Flow Straight and Fast, ICLR 2023; Tong et al., Improving and Generalizing Flow-Based Generative "
    "Models with Minibatch Optimal Transport, TMLR 2024 (I-CFM)",
)
@dataclass(frozen=True)
class FlowBetween(FromSource, RectifiedFlow):
    """Straight paths from a data set to another, paired independently."""

    @property
    def objective(self) -> Objective:
        return CoupledLoss()

    def refuses(self, schedule: Schedule) -> str | None:
        return FromSource.refuses(self, schedule) or RectifiedFlow.refuses(self, schedule)


@formulations.register(
    "exact-between",
    formula="E[x_0 | (1-t) x_0 + t y] with y from a mixture of normal distributions, independent of x_0",
    source="Gaussian conditioning: Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3",
)
@dataclass(frozen=True)
class ExactBetween(FromSource, Untrained):
    """The ideal denoiser on the straight paths from a mixture of normal distributions to the target;
    no network. It asks the target's exact denoiser once for each component of the source, which may
    be `gaussian` of one deviation, too. Points have no density and are refused.
    """

    @property
    def gives(self) -> type[BetweenDenoiser]:
        return BetweenDenoiser

    def own_schedule(self) -> Schedule:
        return Flow()

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        if self._mixture is None:
            return self._why_no_mixture()
        if not dataset.exact:
            return f"target {dataset.registered_name!r} has no exact denoiser"
        return super().refuses_dataset(dataset)

    @property
    def _mixture(self) -> MixtureDataset | None:
        """The source as components that each have a density; None if it is no such mixture."""
        match self.source:
            case MixtureDataset() as source if source.smooth:
                return source
            case Gaussian(stds=float(std), mean=mean):
                return GaussianMixture((1.0,), (mean,), (std,))
        return None

    def _why_no_mixture(self) -> str:
        name = self.source.label()
        if isinstance(self.source, MixtureDataset):
            return (
                f"'exact-between' asks for the density of its source, and atoms have none: {name!r} (use flow-between)"
            )
        return (
            "'exact-between' is known from mixtures of normal distributions that are as wide along every axis, and source "
            f"{name!r} is none (use gaussian_mixture, eight_gaussians or gaussian of one deviation; flow-between takes any)"
        )

    def model_of(self, datasets: Sequence[Dataset]) -> BetweenDenoiser:
        assert self._mixture is not None  # noqa: S101 - `refuses_dataset` keeps others out
        return BetweenDenoiser(datasets, self._mixture)

    @property
    def evaluations_each(self) -> int:
        return len(self._mixture.mixture.weights) if self._mixture is not None else 1
