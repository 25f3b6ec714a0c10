"""One question to a cell: what its samples should follow, and why it may have no answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from diffusion.caches import remembered
from diffusion.datasets import Dataset, in_data_units
from diffusion.guidance import Guidance
from diffusion.inference import unanswerable, unmeasurable
from diffusion.metrics import BaseMetric, Metric, ModelMetric, PairedMetric
from diffusion.registry import identity_text
from diffusion.samplers import OwnTarget, Sampler
from diffusion.schedules import Schedule
from diffusion.schedules.grids import Grid
from diffusion.schedules.levels import Level, levels_of
from tasks.plain import Spec
from tasks.plan.cell import Cell, digest
from tasks.plan.cost import POINT_SECONDS, seconds_per_call, seconds_per_evaluation
from tasks.plan.settings import SamplingSettings

_LIMIT_EVALUATIONS = 200  # of the denoiser, by the adaptive solver
_identity = remembered(4096)(identity_text)
_unanswerable = remembered(65_536)(unanswerable)  # the same for all seeds


@dataclass(frozen=True)
class Point:
    """One question to a cell."""

    cell: Cell
    settings: SamplingSettings

    @property
    def sampler(self) -> Sampler:
        """See `SamplingSettings`, as of the following."""
        return self.settings.sampler

    @property
    def grid(self) -> Grid:
        return self.settings.grid

    @property
    def steps(self) -> int:
        return self.settings.steps

    @property
    def samples(self) -> int:
        return self.settings.samples

    @property
    def start(self) -> str:
        return self.settings.start

    @property
    def sampling_schedule(self) -> Schedule | None:
        return self.settings.sampling_schedule

    @property
    def guidance(self) -> Guidance | None:
        return self.settings.guidance

    @property
    def schedule(self) -> Schedule:
        """The schedule that is sampled on."""
        return self.sampling_schedule or self.cell.schedule

    @cached_property
    def spec(self) -> Spec:
        """The canonical description that the id hashes."""
        return {"cell": self.cell.id, **self.settings.spec}

    @cached_property
    def id(self) -> str:
        """Content hash of the spec, 20 hexadecimal digits: `digest` of it, with the settings' text
        made once for all cells.
        """
        text = f'{{"cell":"{self.cell.id}",{self.settings.text[1:]}'  # "cell" is the first of the sorted keys
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def labels(self) -> dict[str, str | int]:
        """The coordinates of the point along every axis."""
        given = {"dataset": f"{self.cell.dataset.label()} | {self.guidance.condition()}"} if self.guidance else {}
        return {
            **self.cell.labels,
            **given,  # numbers of different targets are not to be pooled
            **self.settings.labels,
            "sampling_schedule": self.schedule.label(),
            "seed": self.cell.seed,
        }

    def levels(self) -> list[Level]:
        """The levels of its grid on its schedule, noisiest first, for this point alone."""
        return levels_of([self.schedule], [self.grid], self.steps)

    @cached_property
    def data_distribution(self) -> Dataset:
        """The law of clean data that is sampled from: the cell's target, or that target given what
        guidance knows.
        """
        return self._given(self.cell.dataset.law)

    def _given(self, dataset: Dataset) -> Dataset:
        return self.guidance.target(dataset) if self.guidance else dataset

    @cached_property
    def target(self) -> Dataset:
        """The law that its samples should follow, which may be another one than that of clean data."""
        if not isinstance(self.sampler, OwnTarget):
            return self.data_distribution
        working, frame = self._given(self.cell.dataset.working), self.cell.dataset.frame
        found = self.sampler.target(working, self._last())
        if frame is None:
            return found
        return self.data_distribution if found == working else in_data_units(found, frame)

    @property
    def noise_left(self) -> float:
        """sigma / alpha of the noise that its samples are to end in; 0 where they are to follow the
        data's law.
        """
        if not isinstance(self.sampler, OwnTarget):
            return 0.0
        last = self._last()
        return 0.0 if last.clean else float(last.nsr)

    def _last(self) -> Level:
        """The last level that its samples pass."""
        return self.sampler.path(self.levels())[-1]

    @cached_property
    def has_limit(self) -> bool:
        """Whether its samples are the exact denoiser's and tend to those of the probability flow as
        steps grow many.
        """
        if not self.cell.exact or self.sampler.order is None:
            return False
        known = self.guidance is None or self.guidance.refuses_target(self.cell.dataset.law) is None
        return known and self.target == self.data_distribution

    @property
    def starts_from_noise(self) -> bool:
        """Whether samples come down from the schedule's start noise: see `Sampler.from_noise`."""
        return self.sampler.from_noise and self.cell.formulation.from_noise

    def refuses(self, metric: BaseMetric) -> str | None:
        """Why the metric cannot measure the answer, or None."""
        return metric.refused_by(self)

    def refuses_samples(self, metric: Metric) -> str | None:
        """See `diffusion.metrics.Refusals`, of which a point is one."""
        unknown = self.guidance.refuses_target(self.cell.dataset.law) if self.guidance else None
        return unknown or metric.refuses(self.target)

    def refuses_model(self, metric: ModelMetric) -> str | None:
        """As `refuses_samples`."""
        if self.guidance is not None:
            return "it looks at the denoiser itself, without guidance"
        return unmeasurable(metric, self.cell.formulation, self.cell.dataset.working, self.cell.schedule)

    def refuses_pairs(self, metric: PairedMetric) -> str | None:
        """As `refuses_samples`."""
        formulation = self.cell.formulation
        if not formulation.restores:
            return f"it compares samples with what they were restored from, and {formulation.registered_name!r} restores nothing"
        return metric.refuses(self.cell.dataset.law)

    def impossible(self) -> str | None:
        """Why this question has no answer, or None."""
        cell, settings = self.cell, self.settings
        return cell.impossible() or _unanswerable(
            cell.formulation,
            cell.dataset,
            cell.schedule,
            settings.sampler,
            self.schedule,
            settings.grid,
            settings.steps,
            settings.guidance,
        )

    @cached_property
    def flow(self) -> str:
        """What the exact denoiser's flow to its limit depends on: points that agree in it share the
        limit, whatever schedule and seed their cells have besides.
        """
        way = _identity(self.cell.dataset), _identity(self.schedule)
        noise = self.samples, self.start, None if self.start == "quantiles" else self.cell.seed
        guided = (self.cell.id, _identity(self.guidance)) if self.guidance else None
        return digest((way, noise, guided))

    def limit_work(self) -> float:
        """Estimated seconds of one core for that limit."""
        return _LIMIT_EVALUATIONS * self._seconds_per_call()

    def measuring_work(self, metrics: Sequence[BaseMetric]) -> float:
        """Estimated seconds of one core for those metrics of its samples that take long."""
        slow = [metric for metric in metrics if isinstance(metric, Metric) and metric.counted]
        return sum(metric.seconds(self.target, self.samples) for metric in slow if self.refuses(metric) is None)

    def work(self) -> float:
        """Estimated seconds of one core."""
        return POINT_SECONDS + self.sampler.evaluations(self.steps) * self._seconds_per_call()

    def _seconds_per_call(self) -> float:
        """For all samples."""
        seconds = self.samples * seconds_per_evaluation(self.cell) + seconds_per_call(self.cell)
        return seconds * (self.guidance.cost if self.guidance else 1.0)
