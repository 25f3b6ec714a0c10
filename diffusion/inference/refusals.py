"""Why a model cannot be asked a question: what does not fit together, in one sentence."""

from __future__ import annotations

import torch

from diffusion.datasets import Dataset
from diffusion.formulations import Formulation, NoiseConditional
from diffusion.guidance import Guidance, Guided
from diffusion.metrics import ModelMetric
from diffusion.models import phrase_of
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from diffusion.schedules.grids import Grid


def unanswerable(
    formulation: Formulation,
    dataset: Dataset,
    own: Schedule,
    sampler: Sampler,
    schedule: Schedule,
    grid: Grid,
    steps: int,
    guidance: Guidance | None = None,
) -> str | None:
    """Why models of a formulation on a target have no answer, or None.

    Args:
        formulation: what the models were trained as.
        dataset: the target.
        own: the schedule that they were trained on.
        sampler: the rule of a step.
        schedule: the schedule that is sampled on; another one than `own` is a question whether its
            noise is known.
        grid: how the steps are spent on it.
        steps: how many.
        guidance: what is known of the samples, if anything.
    """
    reason = _unserved(formulation, dataset, sampler, schedule, guidance)
    reason = reason or sampler.refuses(schedule) or grid.refuses(schedule)
    if reason is None and schedule != own:
        reason = unknown_noise(formulation, own, schedule)
    return reason or grid.refuses_steps(schedule, steps)


def unmeasurable(metric: ModelMetric, formulation: Formulation, dataset: Dataset, schedule: Schedule) -> str | None:
    """Why a metric cannot look at models of a formulation, trained on a target and a schedule, or
    None.
    """
    reason = metric.refuses(dataset) or metric.refuses_model(formulation.gives, schedule)
    return reason or formulation.refuses_metric(metric)


def _unserved(
    formulation: Formulation, dataset: Dataset, sampler: Sampler, schedule: Schedule, guidance: Guidance | None
) -> str | None:
    """Why the sampler gets nothing from the formulation's models that it could use, or None."""
    name = formulation.registered_name
    if formulation.own_sampler is not None:
        return None if type(sampler) is type(formulation.own_sampler) else f"{name!r} is sampled in its own way"
    if guidance is not None:
        if not issubclass(Guided, sampler.needs):
            needed = phrase_of(sampler.needs)
            return f"guidance steers a denoiser, and sampler {sampler.registered_name!r} asks for {needed}"
        if formulation.restores:
            return f"guidance steers a denoiser of data in noise, and {name!r} knows data and their observation"
        if formulation.start_distribution is not None:
            return f"guidance steers a denoiser of data in noise, and {name!r} knows them between two data sets"
        if reason := guidance.refuses(dataset, formulation):
            return reason
    if issubclass(formulation.gives, sampler.needs):
        return formulation.refuses_sampler(sampler, schedule)
    needed = phrase_of(sampler.needs)
    return f"sampler {sampler.registered_name!r} asks a model for {needed}, and {name!r} gives none"


def unknown_noise(formulation: Formulation, own: Schedule, schedule: Schedule) -> str | None:
    """Why a network trained on its own schedule cannot be asked on another one, or None."""
    known = formulation.noise_range(own)
    if known is None:
        return None
    if own.max_steps is not None and isinstance(formulation, NoiseConditional):
        return (
            f"the network of {formulation.registered_name!r} knows the discrete levels of {own.registered_name!r} only"
        )
    low, high = known
    needed = schedule.nsr(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64))
    if float(needed[0]) >= low * (1 - 1e-9) and float(needed[1]) <= high * (1 + 1e-9):
        return None
    return (
        f"schedule {schedule.registered_name!r} asks for noise from sigma/alpha = {float(needed[0]):.3g} to "
        f"{float(needed[1]):.3g}; the network of {formulation.registered_name!r} on {own.registered_name!r} was trained "
        f"from {low:.3g} to {high:.3g}"
    )
