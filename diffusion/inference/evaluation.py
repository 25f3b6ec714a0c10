"""How far samples, or a model, are from a target: the value of each metric and the floor that
perfect ones have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from numpy.typing import ArrayLike
from torch import Tensor

from diffusion import arguments
from diffusion.datasets import Dataset
from diffusion.devices import HOST, full_float32
from diffusion.errors import WrongValue
from diffusion.inference.model import Inference
from diffusion.inference.refusals import unmeasurable
from diffusion.metrics import BaseMetric, Materials, Metric, ModelMaterial, ModelMetric, PairedMetric, SampleMaterial
from diffusion.models import placed


class Score(NamedTuple):
    """A metric's value and its floor: what as many perfect samples would have on average, or the
    ideal denoiser.
    """

    value: float
    floor: float


def evaluate(
    samples: Tensor | ArrayLike | Inference, target: Dataset, metrics: Sequence[BaseMetric]
) -> dict[str, Score]:
    """Each metric by its column's name (the metric's own, with the parameters that differ from the
    defaults).

    Args:
        samples: ``[n, dim]``, or on the line ``[n]``, for metrics of samples; a model for metrics
            of models, which look at it on its own schedule and on its device.
        target: what the samples should follow.
        metrics: at least one.

    Raises:
        WrongValue: a metric that does not serve the target or what is given; samples of another
            shape, or not finite.
        FlowLost: the model's flow, which a likelihood follows, is lost.
    """
    if not metrics:
        raise WrongValue("metrics: found none; accepted: at least one")
    given = _given(samples, target)
    with full_float32(samples.device if isinstance(samples, Inference) else HOST):
        return {metric.column: _score(metric, given) for metric in metrics}


def serving(
    metrics: Sequence[BaseMetric], samples: Tensor | ArrayLike | Inference, target: Dataset
) -> list[BaseMetric]:
    """Those of the metrics that `evaluate` can measure the samples or the model by."""
    given = _given(samples, target)
    return [metric for metric in metrics if metric.refused_by(given) is None]


def _given(samples: Tensor | ArrayLike | Inference, target: Dataset) -> _GivenSamples | _GivenModel:
    if isinstance(samples, Inference):
        return _GivenModel(samples, target, placed(samples.model, samples.device))
    target = target.law
    x = arguments.points("samples", samples)
    return _GivenSamples(x[:, None] if x.ndim == 1 and target.dim == 1 else x, target)


def _score(metric: BaseMetric, given: _GivenSamples | _GivenModel) -> Score:
    if reason := metric.refused_by(given):
        raise WrongValue(reason)
    try:
        found = metric.measured(given)
    except ValueError as error:
        raise WrongValue(str(error)) from error
    if found is None:
        raise WrongValue(f"{metric.registered_name} finds nothing to look at")
    return Score(found.value, found.floor)


def _seen(dataset: Dataset) -> str:
    return "as they are" if dataset.frame is None else "standardised"


def _refused(metric: BaseMetric, target: Dataset) -> str | None:
    reason = metric.refuses(target)
    return reason and f"{metric.registered_name}: dataset {target.registered_name!r} is refused: {reason}"


@dataclass(frozen=True)
class _GivenSamples(Materials):
    x: Tensor
    target: Dataset

    def samples(self) -> SampleMaterial:
        return SampleMaterial(self.x, self.target)

    def refuses_samples(self, metric: Metric) -> str | None:
        return _refused(metric, self.target)

    def refuses_model(self, metric: ModelMetric) -> str:
        return f"{metric.registered_name} looks at a denoiser and was given samples; accepted: a model"

    def refuses_pairs(self, metric: PairedMetric) -> str:
        name = metric.registered_name
        return (
            f"{name} compares restored samples with their originals, which nobody gave; accepted: a metric of samples"
        )


@dataclass(frozen=True)
class _GivenModel(Materials):
    given: Inference
    target: Dataset
    asked: object  # the model, which says where: one object, so that metrics share what they find

    def model(self) -> ModelMaterial:
        frame = self.target.frame
        volume = 0.0 if frame is None else frame.log_volume
        return ModelMaterial(self.asked, self.target.working, self.given.schedule, volume)

    def refuses_samples(self, metric: BaseMetric) -> str:
        return (
            f"{metric.registered_name} looks at samples and was given a model; accepted: samples [n, {self.target.dim}]"
        )

    refuses_pairs = refuses_samples

    def refuses_model(self, metric: ModelMetric) -> str | None:
        own, dim = self.given.dataset.dim, self.target.dim
        if own != dim:
            return f"the model is of {own} dimensions and the target of {dim}; accepted: the same number"
        if self.given.dataset.frame != self.target.frame:
            return (
                f"the model sees its data {_seen(self.given.dataset)} and the target is {_seen(self.target)}; "
                f"accepted: {self.given.dataset.label()} as the target"
            )
        formulation = self.given.formulation
        reason = unmeasurable(metric, formulation, self.target.working, self.given.schedule)
        return reason and f"{metric.registered_name} cannot look at {formulation.registered_name!r}: {reason}"
