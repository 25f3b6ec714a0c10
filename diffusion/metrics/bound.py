"""The evidence lower bound as a metric: what a chain or an autoencoder is sure to give the target's
own points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.analysis.elbo import evidence_bound, refuses_bound
from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.devices import device_of, to_device
from diffusion.errors import WrongValue
from diffusion.metrics.base import ModelMetric, metrics
from diffusion.models import Denoiser, LatentVariableModel
from diffusion.randomness import stream
from diffusion.registry import identity_text
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Variance, check_variance

_MOST = 100_000
_NEAR, _NEARER = 1e-5, 1e-6  # of the data's standard deviation: noise that a density does not notice
_NOTICED = 0.1  # nats; without a density there are ln 10 for each dimension that is missing


@metrics.register(
    "elbo",
    formula="-mean over data of (reconstruction - consistency - prior matching), in nats per sample",
    source="Kingma & Welling, ICLR 2014; Ho et al. 2020, eq. 5",
    document="S2 sections 1.2 and 2.4",
)
@dataclass(frozen=True)
class NegativeBound(ModelMetric):
    r"""Minus the evidence lower bound (`diffusion.analysis.elbo`): at least the model's negative
    log-likelihood, in nats per sample.

    Served are denoisers on discrete variance-preserving chains, whole chains, whatever steps a row
    samples in, with the reverse moves' `variance`; and autoencoders. The mean runs over `batch`
    draws of the target, each level with noise of its own, from streams that are named by the data
    set alone.

    The floor is the mean of ``-log p`` of the target's own density over the same draws, an estimate
    of its entropy, so that ``elbo - elbo_floor`` is paired, and at least the Kullback-Leibler
    divergence of the target from the model. Not even the exact denoiser comes down to it: with the
    posterior's variance it loses a part of a nat and more per coordinate at the first levels (1.35
    on `ddpm-linear` with data N(0, 1)). Targets without a density, points and surfaces, are
    refused: no bound is high enough there.
    """

    axis_label: ClassVar[str] = "negative evidence lower bound / nats"
    needs: ClassVar[tuple[type, ...]] = (Denoiser, LatentVariableModel)

    batch: int = 1024
    variance: Variance = "posterior"

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= _MOST:
            raise WrongValue(f"elbo: batch = {self.batch}; needed: from 1 to {_MOST}")
        check_variance(self.registered_name, self.variance)

    @property
    def evaluations(self) -> int:
        return 300 * self.batch  # the levels of a chain

    @property
    def calls(self) -> int:
        return 300

    def refuses(self, dataset: Dataset) -> str | None:
        if not dataset.exact:
            return "its floor is the entropy of the target, whose density is not known"
        return None if _has_density(dataset) else "the target has no density, and so no finite entropy"

    def refuses_model(self, model: type, schedule: Schedule) -> str | None:
        own = issubclass(model, LatentVariableModel)  # its bound is its own, whatever the schedule
        return super().refuses_model(model, schedule) or (None if own else refuses_bound(schedule))

    def in_data_units(self, log_volume: float, dim: int) -> float:  # noqa: ARG002
        return log_volume

    def _measure(self, model: Denoiser | LatentVariableModel, dataset: Dataset, schedule: Schedule) -> float:
        noise = stream("elbo noise", identity_text(dataset))
        terms = evidence_bound(
            model, to_device(self._points(dataset), device_of(model)), schedule, noise, variance=self.variance
        )
        bound = -float(terms.bound.mean())
        if not math.isfinite(bound):
            raise WrongValue("elbo: the bound is not a finite number")
        return bound

    def _floor(self, dataset: Dataset, schedule: Schedule) -> float:  # noqa: ARG002
        return -float(_log_density(dataset, self._points(dataset), _NEARER).mean())

    def _points(self, dataset: Dataset) -> Tensor:
        return dataset.sample(self.batch, stream("elbo", identity_text(dataset)))


def _log_density(dataset: Dataset, x: Tensor, noise: float) -> Tensor:
    one = torch.ones(len(x), dtype=torch.float64)
    return dataset.log_density(x, one, noise * dataset.std * one)


@remembered(256)
def _has_density(dataset: Dataset) -> bool:
    """Whether the law of the clean data has a density: then a tenth of very little noise changes
    nothing.
    """
    x = dataset.sample(64, stream("elbo density", identity_text(dataset)))
    near, nearer = (_log_density(dataset, x, noise).median() for noise in (_NEAR, _NEARER))
    return abs(float(near - nearer)) < _NOTICED
