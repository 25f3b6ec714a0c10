"""What a metric owes the rest of the atlas, and the fixed samples that metrics and floors are made from."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.models import Denoiser
from diffusion.randomness import stream
from diffusion.registry import Component, Registry, spec_text
from diffusion.schedules import Schedule

metrics: Registry[Metric] = Registry("metric")


@dataclass(frozen=True)
class Metric(Component):
    """A number that is zero, or as small as its floor, for samples that follow the target exactly."""

    axis_label: ClassVar[str] = ""  # text for an axis
    higher_is_better: ClassVar[bool] = False
    of: ClassVar[Literal["samples", "denoiser", "pairs"]] = "samples"  # what it looks at; see the subclasses

    @property
    def column(self) -> str:
        """The name that results are filed under: the metric's own, with the parameters that differ from the defaults.

        Commas separate names on the command line, and a name must not become a path: neither occurs in it.
        """
        return re.sub(r"[^\w.:;=()+-]", "", self.label().replace(",", ";"))

    @abstractmethod
    def refuses(self, dataset: Dataset) -> str | None:
        """Why the metric cannot serve this dataset; None if it can."""

    def evaluate(self, samples: Tensor, dataset: Dataset) -> float:
        """The metric of ``samples [n, dim]``, in float64; huge finite values are taken at their word.

        Raises:
            ValueError: the dataset is refused, the shape is not ``[n, dim]``, n is 0, or a sample is not finite.
            TypeError: the metric looks at denoisers, not at samples.
        """
        self._check(dataset)
        if samples.ndim != 2 or samples.shape[0] == 0 or samples.shape[1] != dataset.dim:
            raise ValueError(
                f"{self.registered_name}: samples of shape {list(samples.shape)}; needed: [n, {dataset.dim}], n >= 1"
            )
        samples = samples.detach().to("cpu", torch.float64)
        bad = int((~torch.isfinite(samples)).any(dim=1).sum())
        if bad:
            raise ValueError(f"{self.registered_name}: {bad} of {len(samples)} samples are not finite")
        return self._measure(samples, dataset)

    def floor(self, dataset: Dataset, n: int) -> float:
        """Expected value for `n` independent draws from the target.

        Raises:
            ValueError: the dataset is refused, or ``n < 1``.
        """
        self._check(dataset)
        if n < 1:
            raise ValueError(f"{self.registered_name}: floor of n = {n} samples; needed: n >= 1")
        return self._floor(dataset, n)

    @abstractmethod
    def _measure(self, samples: Tensor, dataset: Dataset) -> float:
        """`evaluate` of checked samples."""

    @abstractmethod
    def _floor(self, dataset: Dataset, n: int) -> float:
        """`floor` of a dataset that is served and n >= 1."""

    def _check(self, dataset: Dataset) -> None:
        reason = self.refuses(dataset)
        if reason is not None:
            raise ValueError(f"{self.registered_name}: dataset {dataset.registered_name!r} is refused: {reason}")


@dataclass(frozen=True)
class DenoiserMetric(Metric):
    """A number that is zero, or as small as its floor, for the ideal denoiser; samples are not asked for."""

    of: ClassVar[Literal["samples", "denoiser", "pairs"]] = "denoiser"

    def refuses(self, dataset: Dataset) -> str | None:
        return None if dataset.exact else "it compares with the exact denoiser, which this target does not have"

    def refuses_schedule(self, schedule: Schedule) -> str | None:  # noqa: ARG002
        """Why the metric cannot look at denoisers on the schedule; None if it can."""
        return None

    def refuses_model(self, model: type, schedule: Schedule) -> str | None:
        """Why the metric cannot look at models of this class (see `diffusion.models.capabilities`); None if it can."""
        if not issubclass(model, Denoiser):
            return "it looks at a denoiser, which such models do not give"
        return self.refuses_schedule(schedule)

    def evaluate(self, samples: Tensor, dataset: Dataset) -> float:
        """Not possible: use `evaluate_denoiser`. Raises TypeError."""
        return self._measure(samples, dataset)

    @abstractmethod
    def evaluate_denoiser(self, denoiser: Denoiser, dataset: Dataset, schedule: Schedule) -> float:
        """The metric of a denoiser, which is called as by a sampler: ``x [1, batch, dim]``, alpha and sigma ``[1]``.

        Raises:
            ValueError: the dataset is refused, or the denoiser gives another shape or numbers that are not finite.
        """

    def floor_on(self, dataset: Dataset, schedule: Schedule) -> float:  # noqa: ARG002
        """The metric of the ideal denoiser. Raises ValueError if the dataset is refused."""
        self._check(dataset)
        return 0.0

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:  # noqa: ARG002
        raise TypeError(f"{self.registered_name} looks at a denoiser, not at samples: use evaluate_denoiser")

    def _floor(self, dataset: Dataset, n: int) -> float:  # noqa: ARG002
        raise TypeError(f"{self.registered_name} looks at a denoiser, not at samples: use floor_on")


@dataclass(frozen=True)
class ProfileMetric(DenoiserMetric):
    """An error of the denoiser at each of several noise levels; the metric is their mean."""

    def evaluate_denoiser(self, denoiser: Denoiser, dataset: Dataset, schedule: Schedule) -> float:
        """The mean of `profile` over the levels."""
        return float(self.profile(denoiser, dataset, schedule).mean())

    @abstractmethod
    def levels(self, schedule: Schedule) -> Tensor:
        """The noise-to-signal ratios looked at, ``[L]`` float64, increasing."""

    @abstractmethod
    def profile(self, denoiser: Denoiser, dataset: Dataset, schedule: Schedule) -> Tensor:
        """The error at each of the `levels`, ``[L]`` float64; the denoiser is called once a level. Raises as `evaluate_denoiser`."""


@dataclass(frozen=True)
class PairedMetric(Metric):
    """A number that compares each sample with the clean original that it was restored from.

    Only formulations that start from an observation of clean data have such pairs (`Formulation.restores`).
    """

    of: ClassVar[Literal["samples", "denoiser", "pairs"]] = "pairs"

    def refuses(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        return None

    def evaluate_pairs(self, samples: Tensor, clean: Tensor) -> float:
        """The metric of ``samples [n, dim]`` and their originals, in the same order.

        Raises:
            ValueError: the shapes differ, n is 0, or a sample is not finite.
        """
        if samples.shape != clean.shape or samples.ndim != 2 or samples.shape[0] == 0:
            raise ValueError(
                f"{self.registered_name}: samples of shape {list(samples.shape)}, originals of {list(clean.shape)}; "
                "needed: the same shape [n, dim], n >= 1"
            )
        bad = int((~torch.isfinite(samples)).any(dim=1).sum())
        if bad:
            raise ValueError(f"{self.registered_name}: {bad} of {len(samples)} samples are not finite")
        return self._distance(samples.detach().to("cpu", torch.float64), clean)

    def floor_of_pairs(self, least_error: float | None, dim: int) -> float:
        """What the best estimate of the originals has, from its mean squared error summed over coordinates; NaN where that is not known."""
        return math.nan if least_error is None else self._least(least_error, dim)

    @abstractmethod
    def _distance(self, samples: Tensor, clean: Tensor) -> float:
        """`evaluate_pairs` of checked samples."""

    @abstractmethod
    def _least(self, least_error: float, dim: int) -> float:
        """`floor_of_pairs` of a known error."""

    def _measure(self, samples: Tensor, dataset: Dataset) -> float:  # noqa: ARG002
        raise TypeError(f"{self.registered_name} compares samples with their originals: use evaluate_pairs")

    def _floor(self, dataset: Dataset, n: int) -> float:  # noqa: ARG002
        raise TypeError(
            f"{self.registered_name} has the floor of what was restored, not of a target: use floor_of_pairs"
        )


@dataclass(frozen=True)
class SimulatedFloor(Metric):
    """A metric whose floor has no closed form: the mean over perfect samples, measured just as `evaluate` does it."""

    def _floor(self, dataset: Dataset, n: int) -> float:
        return _simulated_floor(self, dataset, self._used(dataset, n))

    def _used(self, dataset: Dataset, n: int) -> int:  # noqa: ARG002
        """How many of `n` samples the metric looks at."""
        return n

    @abstractmethod
    def _repeats(self, dataset: Dataset, n: int) -> int:
        """How many perfect samples of size `n` the floor averages over: as many as fit into half a second or so."""


@remembered(512)
def _simulated_floor(metric: SimulatedFloor, dataset: Dataset, n: int) -> float:
    generator = stream("metric floor", spec_text(metric), spec_text(dataset), n)
    repeats = metric._repeats(dataset, n)  # noqa: SLF001
    return float(np.mean([metric.evaluate(dataset.sample(n, generator), dataset) for _ in range(repeats)]))


def reference_sample(dataset: Dataset, m: int) -> np.ndarray:
    """The first `m` of the fixed sample that stands for the target, ``[m, dim]``, whatever the metric.

    Where the quantile function is known there is no randomness in it: the quantiles of (i - 1/2) / m.
    """
    if dataset.has_cdf:
        quantiles = dataset.quantile((torch.arange(m, dtype=torch.float64) + 0.5) / m)
        return np.asarray(quantiles)[:, None]
    return np.asarray(dataset.sample(m, stream("metric reference", spec_text(dataset))))
