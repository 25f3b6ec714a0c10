"""What a metric owes the rest of the atlas, and the fixed samples that metrics and floors are made
from.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from diffusion.arguments import lost_rows
from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.metrics.material import Materials, Measurement, Profile
from diffusion.models import Denoiser, phrase_of
from diffusion.randomness import stream
from diffusion.registry import Component, Registry, spec_text, stream_text
from diffusion.schedules import Schedule

metrics: Registry[BaseMetric] = Registry("metric")


@dataclass(frozen=True)
class BaseMetric(Component):
    """What every metric has in common, whatever it looks at.

    It derives from one of three siblings: `Metric` looks at samples, `ModelMetric` at a model,
    `PairedMetric` at samples beside their clean originals. Each takes what it looks at from
    `Materials`, and nobody else needs to know which it is.
    """

    axis_label: ClassVar[str] = ""  # text for an axis
    higher_is_better: ClassVar[bool] = False
    counted: ClassVar[bool] = False  # of samples: not little beside sampling, so plans count its `seconds`
    costly: ClassVar[bool] = False  # of samples: takes so long that it is asked by name only
    of: ClassVar[Literal["samples", "models", "pairs"]]  # what it looks at, as the store says it

    @property
    def column(self) -> str:
        """The name that results are filed under: the metric's own, with the parameters that differ
        from the defaults.

        Commas separate names on the command line, and a name must not become a path: neither occurs
        in it.
        """
        return re.sub(r"[^\w.:;=()+-]", "", self.label().replace(",", ";"))

    @abstractmethod
    def refuses(self, dataset: Dataset) -> str | None:
        """Why the metric cannot serve this dataset; None if it can."""

    @abstractmethod
    def refused_by(self, refusals: Refusals) -> str | None:
        """Why what it looks at is not to be had, or cannot be measured; None if it can."""

    @abstractmethod
    def measured(self, materials: Materials) -> Measurement | None:
        """The metric and its floor; None where what it looks at is not there.

        Raises:
            WrongValue: what is there cannot be measured (see `evaluate` and `floor` of the three).
        """

    def _check(self, dataset: Dataset) -> None:
        if reason := self.refuses(dataset):
            raise WrongValue(f"{self.registered_name}: dataset {dataset.registered_name!r} is refused: {reason}")

    def _check_finite(self, samples: Tensor) -> None:
        if bad := lost_rows(samples):
            raise WrongValue(f"{self.registered_name}: {bad} of {len(samples)} samples are not finite")


class Refusals(Protocol):
    """Why something to be measured has no material for a metric, or None: one answer for each of
    the three siblings.
    """

    def refuses_samples(self, metric: Metric) -> str | None:
        """Why its samples cannot be measured, or None."""

    def refuses_model(self, metric: ModelMetric) -> str | None:
        """Why its model cannot be measured, or None."""

    def refuses_pairs(self, metric: PairedMetric) -> str | None:
        """Why its samples cannot be compared with their originals, or None."""


@dataclass(frozen=True)
class Metric(BaseMetric):
    """A number that is zero, or as small as its floor, for samples that follow the target exactly."""

    of: ClassVar[Literal["samples", "models", "pairs"]] = "samples"

    def seconds(self, dataset: Dataset, n: int) -> float:  # noqa: ARG002
        """Estimated seconds of one core for `n` samples, of a metric that is `counted`: sizes shards
        and limits of time, nothing else.
        """
        return 0.0

    def refused_by(self, refusals: Refusals) -> str | None:
        return refusals.refuses_samples(self)

    def measured(self, materials: Materials) -> Measurement | None:
        found = materials.samples()
        if found is None:
            return None
        return Measurement(self.evaluate(found.samples, found.target), self.floor(found.target, len(found.samples)))

    def evaluate(self, samples: Tensor, dataset: Dataset) -> float:
        """The metric of samples; huge finite values are taken at their word.

        Args:
            samples: ``[n, dim]``, measured in float64.
            dataset: what they should follow.

        Raises:
            WrongValue: the dataset is refused, the shape is not ``[n, dim]``, n is 0, or a sample
                is not finite.
        """
        self._check(dataset)
        if samples.ndim != 2 or samples.shape[0] == 0 or samples.shape[1] != dataset.dim:
            raise WrongValue(
                f"{self.registered_name}: samples of shape {list(samples.shape)}; needed: [n, {dataset.dim}], n >= 1"
            )
        samples = samples.detach().to("cpu", torch.float64)
        self._check_finite(samples)
        return self._measure(samples, dataset)

    def floor(self, dataset: Dataset, n: int) -> float:
        """Expected value for `n` independent draws from the target.

        Raises:
            WrongValue: the dataset is refused, or ``n < 1``.
        """
        self._check(dataset)
        if n < 1:
            raise WrongValue(f"{self.registered_name}: floor of n = {n} samples; needed: n >= 1")
        return self._floor(dataset, n)

    @abstractmethod
    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        """`evaluate` of checked samples."""

    @abstractmethod
    def _floor(self, dataset: Dataset, n: int) -> float:
        """`floor` of a dataset that is served and n >= 1."""


@dataclass(frozen=True)
class ModelMetric(BaseMetric):
    """A number that is zero, or as small as its floor, for the ideal model; samples are not asked
    for.

    `needs` are the capabilities of which a model must have one (see
    `diffusion.models.capabilities`).
    """

    of: ClassVar[Literal["samples", "models", "pairs"]] = "models"
    needs: ClassVar[tuple[type, ...]] = (Denoiser,)

    def refuses(self, dataset: Dataset) -> str | None:
        return None if dataset.exact else "it compares with the exact denoiser, which this target does not have"

    @property
    def evaluations(self) -> int:
        """About how many points it asks a model for, gradients and its floor included: estimates
        of time are made with it, nothing else.
        """
        return 100_000

    @property
    def calls(self) -> int:
        """In about how many calls it asks, which count where its points are few."""
        return 1

    @property
    def exact_evaluations(self) -> int:
        """About how many points it asks the exact denoiser for beside the model."""
        return 0

    @property
    def shared_work(self) -> Hashable:
        """What names the work that it shares with the metric before it: asked of one model after
        another metric with the same name, it finds its work done. None: it shares none.
        """
        return None

    def refuses_schedule(self, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why the metric cannot look at denoisers on the schedule; None if it can."""
        return None

    def refuses_model(self, model: type, schedule: Schedule) -> str | None:
        """Why the metric cannot look at models of this class on the schedule; None if it can."""
        if not issubclass(model, self.needs):
            return f"it asks a model for {self._needed}, which such models do not give"
        return self.refuses_schedule(schedule)

    def refused_by(self, refusals: Refusals) -> str | None:
        return refusals.refuses_model(self)

    def measured(self, materials: Materials) -> Measurement | None:
        found = materials.model()
        if found is None:
            return None
        more = self.in_data_units(found.log_volume, found.dataset.dim)
        return Measurement(self.evaluate(*found[:3]) + more, self.floor(found.dataset, found.schedule) + more)

    def in_data_units(self, log_volume: float, dim: int) -> float:  # noqa: ARG002
        """What is to be added to a number that was measured in a model's coordinates: nothing to a
        pure number; a likelihood follows the units of its density.

        Args:
            log_volume: see `ModelMaterial`.
            dim: how many coordinates there are.
        """
        return 0.0

    def evaluate(self, model: object, dataset: Dataset, schedule: Schedule) -> float:
        """The metric of a model.

        Args:
            model: a stack of one, called as by a sampler: a denoiser with ``x [1, batch, dim]``,
                alpha and sigma ``[1]``.
            dataset: what it is a model of.
            schedule: the noise levels that it knows.

        Raises:
            WrongValue: the dataset is refused, the model has none of the capabilities that the
                metric needs, or it gives another shape or numbers that are not finite.
        """
        self._check(dataset)
        self._check_model(model)
        return self._measure(model, dataset, schedule)

    def floor(self, dataset: Dataset, schedule: Schedule) -> float:
        """The metric of the ideal model. Raises WrongValue if the dataset is refused."""
        self._check(dataset)
        return self._floor(dataset, schedule)

    @abstractmethod
    def _measure(self, model: Any, dataset: Dataset, schedule: Schedule) -> float:
        """`evaluate` of a model that has one of the capabilities in `needs`."""

    def _floor(self, dataset: Dataset, schedule: Schedule) -> float:  # noqa: ARG002
        """`floor` of a dataset that is served."""
        return 0.0

    def _check_model(self, model: object) -> None:
        if not isinstance(model, self.needs):
            name = self.registered_name
            raise WrongValue(f"{name} asks a model for {self._needed}, and {type(model).__name__} gives none")

    @property
    def _needed(self) -> str:
        return " or ".join(map(phrase_of, self.needs))


@dataclass(frozen=True)
class ProfileMetric(ModelMetric):
    """An error of the denoiser at each of several noise levels; the metric is their mean."""

    def measured(self, materials: Materials) -> Measurement | None:
        found = materials.model()
        if found is None:
            return None
        self._check_model(found.model)
        errors = self.profile(*found[:3])
        profile = Profile(self.levels(found.schedule).tolist(), errors.tolist())
        return Measurement(float(errors.mean()), self.floor(found.dataset, found.schedule), profile)

    @abstractmethod
    def levels(self, schedule: Schedule) -> Tensor:
        """The noise-to-signal ratios looked at, ``[L]`` float64, increasing."""

    @abstractmethod
    def profile(self, model: Any, dataset: Dataset, schedule: Schedule) -> Tensor:
        """The error at each of the `levels`, ``[L]`` float64; the denoiser is called once a level.
        Raises as `evaluate`.
        """

    def _measure(self, model: Any, dataset: Dataset, schedule: Schedule) -> float:
        return float(self.profile(model, dataset, schedule).mean())


@dataclass(frozen=True)
class PairedMetric(BaseMetric):
    """A number that compares each sample with the clean original that it was restored from.

    Only formulations that start from an observation of clean data have such pairs
    (`Formulation.restores`).
    """

    of: ClassVar[Literal["samples", "models", "pairs"]] = "pairs"

    def refuses(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        return None

    def refused_by(self, refusals: Refusals) -> str | None:
        return refusals.refuses_pairs(self)

    def measured(self, materials: Materials) -> Measurement | None:
        found = materials.pairs()
        if found is None:
            return None
        samples, clean, least_error = found
        return Measurement(self.evaluate(samples, clean), self.floor(least_error, clean.shape[1]))

    def evaluate(self, samples: Tensor, clean: Tensor) -> float:
        """The metric of samples and their originals.

        Args:
            samples: ``[n, dim]``.
            clean: ``[n, dim]``, in the same order.

        Raises:
            WrongValue: the shapes differ, n is 0, or a sample is not finite.
        """
        if samples.shape != clean.shape or samples.ndim != 2 or samples.shape[0] == 0:
            raise WrongValue(
                f"{self.registered_name}: samples of shape {list(samples.shape)}, originals of {list(clean.shape)}; "
                "needed: the same shape [n, dim], n >= 1"
            )
        samples = samples.detach().to("cpu", torch.float64)
        self._check_finite(samples)
        return self._measure(samples, clean.to("cpu"))

    def floor(self, least_error: float | None, dim: int) -> float:
        """What the best estimate of the originals has; NaN where that is not known.

        Args:
            least_error: its mean squared error, summed over coordinates; None where it is not
                known.
            dim: how many coordinates.
        """
        return math.nan if least_error is None else self._floor(least_error, dim)

    @abstractmethod
    def _measure(self, samples: Tensor, clean: Tensor) -> float:
        """`evaluate` of checked samples."""

    @abstractmethod
    def _floor(self, least_error: float, dim: int) -> float:
        """`floor` of a known error."""


@dataclass(frozen=True)
class SimulatedFloor(Metric):
    """A metric whose floor has no closed form: the mean over perfect samples, measured just as
    `evaluate` does it.
    """

    def _floor(self, dataset: Dataset, n: int) -> float:
        return _simulated_floor(self, dataset, self._used(dataset, n))

    def _used(self, dataset: Dataset, n: int) -> int:  # noqa: ARG002
        """How many of `n` samples the metric looks at."""
        return n

    @abstractmethod
    def _repeats(self, dataset: Dataset, n: int) -> int:
        """How many perfect samples of size `n` the floor averages over: as many as fit into half a
        second or so.
        """


@remembered(512)
def _simulated_floor(metric: SimulatedFloor, dataset: Dataset, n: int) -> float:
    generator = stream("metric floor", spec_text(metric), stream_text(dataset), n)
    repeats = metric._repeats(dataset, n)  # noqa: SLF001
    return float(np.mean([metric.evaluate(dataset.sample(n, generator), dataset) for _ in range(repeats)]))


def reference_sample(dataset: Dataset, m: int) -> np.ndarray:
    """The first `m` of the fixed sample that stands for the target, ``[m, dim]``, whatever the
    metric.

    Where the quantile function is known there is no randomness in it: the quantiles of (i - 1/2) /
    m.
    """
    if dataset.has_cdf:
        quantiles = dataset.quantile((torch.arange(m, dtype=torch.float64) + 0.5) / m)
        return np.asarray(quantiles)[:, None]
    return np.asarray(dataset.sample(m, stream("metric reference", stream_text(dataset))))
