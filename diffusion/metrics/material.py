"""What metrics measure: samples, a model, or samples beside their clean originals."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.schedules import Schedule


class SampleMaterial(NamedTuple):
    """Samples, and what they should follow.

    Args:
        samples: ``[n, dim]``.
        target: the law that they are compared with.
    """

    samples: Tensor
    target: Dataset


class ModelMaterial(NamedTuple):
    """A model, and what it is a model of.

    Args:
        model: a stack of one (see `diffusion.models.capabilities`).
        dataset: the data.
        schedule: the noise levels that it knows.
        log_volume: where the data's own units are other ones than the model's, the logarithm of the
            volume that a unit of the model's coordinates has in them: what is told of densities is
            of the data's own.
    """

    model: object
    dataset: Dataset
    schedule: Schedule
    log_volume: float = 0.0


class PairMaterial(NamedTuple):
    """Restored samples and the clean data that they were observed from.

    Args:
        samples: ``[n, dim]``.
        clean: their originals ``[n, dim]``, in the same order.
        least_error: mean squared error of the best estimate, summed over coordinates; None where
            it is not known.
    """

    samples: Tensor
    clean: Tensor
    least_error: float | None


class Materials:
    """What there is to be measured: of each kind the material, or None where there is none.

    A metric asks for the one kind that it looks at. Subclasses make what they have when they are
    asked.
    """

    def samples(self) -> SampleMaterial | None:
        """Samples, for a `Metric`."""
        return None

    def model(self) -> ModelMaterial | None:
        """A model, for a `ModelMetric`."""
        return None

    def pairs(self) -> PairMaterial | None:
        """Samples and their originals, for a `PairedMetric`."""
        return None


class Profile(NamedTuple):
    """An error of a model at each of several noise levels.

    Args:
        nsr: noise-to-signal ratios, increasing.
        errors: the error at each.
    """

    nsr: list[float]
    errors: list[float]


class Measurement(NamedTuple):
    """What a metric says of its material.

    Args:
        value: the metric.
        floor: what as many perfect samples have on average, or the ideal model.
        profile: where the value is a mean over noise levels, what it is the mean of.
    """

    value: float
    floor: float
    profile: Profile | None = None
