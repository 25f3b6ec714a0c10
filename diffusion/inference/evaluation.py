"""How far samples, or a model, are from a target: the value of each metric and the floor that
perfect ones have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from torch import Tensor

from diffusion import arguments
from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.inference.model import Inference
from diffusion.metrics import DenoiserMetric, Metric, PairedMetric
from diffusion.models import Denoiser


class Score(NamedTuple):
    """A metric's value and its floor: what as many perfect samples would have on average, or the
    ideal denoiser.
    """

    value: float
    floor: float


def evaluate(samples: Tensor | Inference, target: Dataset, metrics: Sequence[Metric]) -> dict[str, Score]:
    """Each metric by its column's name (the metric's own, with the parameters that differ from the
    defaults).

    Args:
        samples: ``[n, dim]``, or on the line ``[n]``, for metrics of samples; a model for metrics
            of denoisers, which look at it on its own schedule.
        target: what the samples should follow.
        metrics: at least one.

    Raises:
        WrongValue: a metric that does not serve the target or what is given; samples of another
            shape, or not finite.
    """
    if not metrics:
        raise WrongValue("metrics: found none; accepted: at least one")
    if isinstance(samples, Inference):
        return {metric.column: _of_model(metric, samples, target) for metric in metrics}
    x = arguments.points("samples", samples)
    x = x[:, None] if x.ndim == 1 and target.dim == 1 else x
    return {metric.column: _of_samples(metric, x, target) for metric in metrics}


def _of_samples(metric: Metric, x: Tensor, target: Dataset) -> Score:
    name = metric.registered_name
    if isinstance(metric, DenoiserMetric):
        raise WrongValue(f"{name} looks at a denoiser and was given samples; accepted: a model")
    if isinstance(metric, PairedMetric):
        raise WrongValue(
            f"{name} compares restored samples with their originals, which nobody gave; accepted: a metric of samples"
        )
    try:
        return Score(metric.evaluate(x, target), metric.floor(target, len(x)))
    except ValueError as error:
        raise WrongValue(str(error)) from error


def _of_model(metric: Metric, model: Inference, target: Dataset) -> Score:
    name = metric.registered_name
    if not isinstance(metric, DenoiserMetric):
        raise WrongValue(f"{name} looks at samples and was given a model; accepted: samples [n, {target.dim}]")
    if model.dataset.dim != target.dim:
        raise WrongValue(
            f"the model is of {model.dataset.dim} dimensions and the target of {target.dim}; accepted: the same number"
        )
    formulation = model.formulation
    reason = metric.refuses(target) or metric.refuses_model(formulation.gives, model.schedule)
    if reason := reason or formulation.refuses_metric(metric):
        raise WrongValue(f"{name} cannot look at {formulation.registered_name!r}: {reason}")
    try:
        value = metric.evaluate_denoiser(cast("Denoiser", model.model), target, model.schedule)
        return Score(value, metric.floor_on(target, model.schedule))
    except (ValueError, TypeError) as error:
        raise WrongValue(str(error)) from error
