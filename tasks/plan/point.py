"""One question to a cell: what it asks, what its samples should follow, and why it may have no answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from diffusion.datasets import Dataset
from diffusion.formulations import NoiseConditional
from diffusion.guidance import Guidance
from diffusion.metrics import DenoiserMetric, Metric, PairedMetric
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from diffusion.schedules.grids import Grid
from diffusion.schedules.levels import Level, levels_of
from tasks.plan.cell import Cell, digest
from tasks.plan.cost import seconds_per_evaluation

_LIMIT_EVALUATIONS = 200  # of the denoiser, by the adaptive solver

_ASKED = {  # what samplers need, in words
    "denoiser": "the clean data behind a noisy point",
    "density": "the density of noisy data",
    "law": "the law of the data",
    "decoder": "a decoder of latent points",
    "action": "the gradient of an action",
    "perturbation": "the noise of stochastic restoration",
    "labelled": "answers that depend on a label",
}


@dataclass(frozen=True)
class Point:
    """One question to a cell."""

    cell: Cell
    sampler: Sampler
    grid: Grid
    steps: int
    samples: int
    start: str
    swapped: Schedule | None = None  # the schedule to sample on, where it is not the cell's
    guidance: Guidance | None = None

    @property
    def schedule(self) -> Schedule:
        """The schedule that is sampled on."""
        return self.swapped or self.cell.schedule

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The canonical description that the id hashes."""
        return {
            "cell": self.cell.id,
            "sampler": self.sampler.identity(),
            "grid": self.grid.identity(),
            "steps": self.steps,
            "samples": self.samples,
            "start": self.start,
            **({"schedule": self.swapped.identity()} if self.swapped else {}),
            **({"guidance": self.guidance.identity()} if self.guidance else {}),
        }

    @cached_property
    def id(self) -> str:
        """Content hash of the spec, 20 hexadecimal digits."""
        return digest(self.spec)

    @property
    def labels(self) -> dict[str, Any]:
        """The coordinates of the point along every axis."""
        given = {"dataset": f"{self.cell.dataset.label()} | {self.guidance.condition()}"} if self.guidance else {}
        return {
            **self.cell.labels,
            **given,  # numbers of different targets are not to be pooled
            "sampler": self.sampler.label()
            + (f" | {self.guidance.label()}" if self.guidance else "")
            + (f" on {self.swapped.label()}" if self.swapped else ""),
            "grid": self.grid.label(),
            "steps": self.steps,
            "seed": self.cell.seed,
        }

    def levels(self) -> list[Level]:
        """The levels of its grid on its schedule, noisiest first, for this point alone."""
        return levels_of([self.schedule], [self.grid], self.steps)

    @cached_property
    def law(self) -> Dataset:
        """The law of clean data that is sampled from: the cell's target, or that target given what guidance knows."""
        return self.guidance.target(self.cell.dataset) if self.guidance else self.cell.dataset

    @cached_property
    def target(self) -> Dataset:
        """The law that its samples should follow, which may be another one than that of clean data."""
        if type(self.sampler).target is Sampler.target:
            return self.law
        return self.sampler.target(self.law, self.sampler.path(self.levels())[-1])

    @property
    def noise_left(self) -> float:
        """sigma / alpha of the noise that its samples are to end in; 0 where they are to follow the data's law."""
        if type(self.sampler).target is Sampler.target:
            return 0.0
        last = self.sampler.path(self.levels())[-1]
        return 0.0 if last.clean else float(last.nsr)

    @property
    def has_limit(self) -> bool:
        """Whether its samples, if it asks the exact denoiser, tend to those of the probability flow as steps grow many."""
        known = self.guidance is None or self.guidance.refuses_target(self.cell.dataset) is None
        return known and self.target == self.law and self.sampler.order is not None

    @property
    def starts_from_noise(self) -> bool:
        """Whether samples come down from the schedule's start noise: see `Sampler.from_noise`."""
        formulation = self.cell.formulation
        return self.sampler.from_noise and not formulation.restores and formulation.own_sampler is None

    def refuses(self, metric: Metric) -> str | None:
        """Why the metric cannot measure the answer, or None."""
        formulation = self.cell.formulation
        if isinstance(metric, DenoiserMetric):
            if self.guidance is not None:
                return "it looks at the denoiser itself, without guidance"
            reason = metric.refuses(self.cell.dataset) or metric.refuses_model(formulation.gives, self.cell.schedule)
            return reason or formulation.refuses_metric(metric)
        if isinstance(metric, PairedMetric) and not formulation.restores:
            return f"it compares samples with what they were restored from, and {formulation.registered_name!r} restores nothing"
        unknown = self.guidance.refuses_target(self.cell.dataset) if self.guidance else None
        return unknown or metric.refuses(self.target)

    def impossible(self) -> str | None:
        """Why this question has no answer, or None."""
        schedule = self.schedule
        reason = self.cell.impossible() or self._unserved()
        reason = reason or self.sampler.refuses(schedule) or self.grid.refuses(schedule)
        if reason is None and self.swapped is not None:
            reason = _unknown_noise(self.cell, self.swapped)
        return reason or self.grid.refuses_steps(schedule, self.steps)

    def _unserved(self) -> str | None:
        """Why the sampler gets nothing from the formulation's models that it could use, or None."""
        formulation, sampler = self.cell.formulation, self.sampler
        if formulation.own_sampler is not None:
            return (
                None
                if type(sampler) is type(formulation.own_sampler)
                else f"{formulation.registered_name!r} is sampled in its own way"
            )
        if self.guidance is not None:
            if sampler.needs != "denoiser":
                asked = _ASKED.get(sampler.needs, sampler.needs)
                return f"guidance steers a denoiser, and sampler {sampler.registered_name!r} asks for {asked}"
            if formulation.restores:
                return f"guidance steers a denoiser of data in noise, and {formulation.registered_name!r} knows data and their observation"
            if reason := self.guidance.refuses(self.cell.dataset, formulation):
                return reason
        if sampler.needs in formulation.gives:
            return formulation.refuses_sampler(sampler, self.schedule)
        asked = _ASKED.get(sampler.needs, f"its {sampler.needs}")
        return f"sampler {sampler.registered_name!r} asks a model for {asked}, and {formulation.registered_name!r} gives none"

    @property
    def flow(self) -> str:
        """What the exact denoiser's flow to its limit depends on: points that agree in it share the limit."""
        guidance = [self.guidance.identity()] if self.guidance else []
        return json.dumps([self.cell.id, self.schedule.identity(), self.samples, self.start, *guidance], sort_keys=True)

    def limit_work(self) -> float:
        """Estimated seconds of one core for that limit."""
        return _LIMIT_EVALUATIONS * self.samples * self._seconds_per_evaluation()

    def work(self) -> float:
        """Estimated seconds of one core."""
        return self.sampler.evaluations(self.steps) * self.samples * self._seconds_per_evaluation()

    def _seconds_per_evaluation(self) -> float:
        return seconds_per_evaluation(self.cell) * (self.guidance.cost if self.guidance else 1.0)


def _unknown_noise(cell: Cell, schedule: Schedule) -> str | None:
    """Why a network trained on the cell's schedule cannot be asked on another one, or None."""
    formulation, own = cell.formulation, cell.schedule
    known = formulation.noise_range(own)
    if known is None:
        return None
    if own.max_steps is not None and isinstance(formulation, NoiseConditional):
        return (
            f"the network of {formulation.registered_name!r} knows the discrete levels of {own.registered_name!r} only"
        )
    low, high = known
    asked = schedule.nsr(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64))
    if float(asked[0]) >= low * (1 - 1e-9) and float(asked[1]) <= high * (1 + 1e-9):
        return None
    return (
        f"schedule {schedule.registered_name!r} asks for noise from sigma/alpha = {float(asked[0]):.3g} to "
        f"{float(asked[1]):.3g}; the network of {formulation.registered_name!r} on {own.registered_name!r} was trained "
        f"from {low:.3g} to {high:.3g}"
    )
