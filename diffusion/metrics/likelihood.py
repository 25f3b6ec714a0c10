"""Likelihood as a metric: what a denoiser's flow thinks of data that are slightly noised, beside
what is true of them.
"""

from __future__ import annotations

import math
import weakref
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.analysis.flow_limit import FlowLost
from diffusion.analysis.likelihood import bits_per_dim, log_likelihood
from diffusion.datasets import Dataset
from diffusion.devices import HOST, device_of, to_device
from diffusion.errors import WrongValue
from diffusion.metrics.base import ModelMetric, metrics
from diffusion.models import Denoiser
from diffusion.randomness import stream
from diffusion.registry import identity_text, spec_text
from diffusion.schedules import Schedule

_APART = 1.5  # between the ends of a schedule, of the ratio of noise to signal, if a flow is to lead anywhere
_MOST = 100_000
_LOOSER = (1.0, 10.0, 100.0)  # tolerances, in units of the one asked for, with which a flow is tried


@dataclass(frozen=True)
class _Likelihood(ModelMetric):
    """The mean over fixed points of something that follows from a log-density at t_min."""

    batch: int = 256
    tolerance: float = 1e-3
    probes: int = 4

    def __post_init__(self) -> None:
        if not (1 <= self.batch <= _MOST and 1 <= self.probes <= _MOST and 0 < self.tolerance < 1):
            raise WrongValue(
                f"{self.registered_name}: batch = {self.batch}, probes = {self.probes}, tolerance = {self.tolerance}; "
                f"needed: batch and probes from 1 to {_MOST}, tolerance between 0 and 1"
            )

    @property
    def evaluations(self) -> int:
        return 4000 * self.batch  # some hundred steps of the solver, each with a gradient

    @property
    def calls(self) -> int:
        return 1000

    @property
    def shared_work(self) -> tuple[object, ...]:
        return "log-densities", self.batch, self.tolerance, self.probes

    def refuses(self, dataset: Dataset) -> str | None:
        return None if dataset.exact else "its floor is the exact density of the noised target, which is not known"

    def refuses_schedule(self, schedule: Schedule) -> str | None:
        first = float(schedule.nsr(torch.tensor([schedule.t_min], dtype=torch.float64)))
        if schedule.terminal_nsr > _APART * first:
            return None
        return f"schedule {schedule.registered_name!r} has one noise level, and no flow leads from there to the start noise"

    @abstractmethod
    def _in_unit(self, log_density: Tensor, dim: int) -> Tensor:
        """From nats ``[batch]`` to the metric's own unit."""

    def _points(self, dataset: Dataset, schedule: Schedule) -> tuple[Tensor, Tensor, Tensor]:
        """Points ``[batch, dim]`` at t_min, and alpha and sigma there."""
        generator = stream("likelihood", identity_text(dataset))
        clean = dataset.sample(self.batch, generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        time = torch.tensor(schedule.t_min, dtype=torch.float64)
        alpha, sigma = schedule.alpha(time), schedule.sigma(time)
        return alpha * clean + sigma * noise, alpha, sigma

    def _measure(self, model: Denoiser, dataset: Dataset, schedule: Schedule) -> float:
        key = (identity_text(dataset), spec_text(schedule), *self.shared_work)
        found = _LATEST.get(model, key)
        if found is None:
            found = self._log_densities(model, dataset, schedule)
            _LATEST.keep(model, key, found)
        return float(self._in_unit(found, dataset.dim).mean())

    def _log_densities(self, denoiser: Denoiser, dataset: Dataset, schedule: Schedule) -> Tensor:
        x, _, _ = self._points(dataset, schedule)
        key = ("likelihood probes", identity_text(dataset))
        for looser in _LOOSER:
            try:
                place = to_device(x[None], device_of(denoiser))
                found = log_likelihood(
                    denoiser, place, schedule, tolerance=looser * self.tolerance, probes=self.probes, key=key
                ).to(HOST)
            except FlowLost as error:
                lost = error
                continue
            return found[0]
        raise FlowLost(f"{self.registered_name}: {lost}")

    def _floor(self, dataset: Dataset, schedule: Schedule) -> float:
        x, alpha, sigma = self._points(dataset, schedule)
        return float(self._in_unit(dataset.log_density(x, alpha, sigma), dataset.dim).mean())


class _Latest:
    """The last densities that were computed: metrics that tell the same in another unit need no
    second flow.
    """

    def __init__(self) -> None:
        self._denoiser: Callable[[], object] = lambda: None
        self._key: tuple[object, ...] = ()
        self._found: Tensor | None = None

    def get(self, denoiser: Denoiser, key: tuple[object, ...]) -> Tensor | None:
        return self._found if self._denoiser() is denoiser and self._key == key else None

    def keep(self, denoiser: Denoiser, key: tuple[object, ...], found: Tensor) -> None:
        try:
            self._denoiser = weakref.ref(denoiser)
        except TypeError:  # a user's denoiser may be of a kind that cannot be referred to so
            self._denoiser = lambda: None
        self._key, self._found = key, found


_LATEST = _Latest()


@metrics.register(
    "nll",
    formula="-mean log p(x), log p by the probability flow, at x = alpha x_0 + sigma eps of the schedule's t_min; in nats per sample",
    source="Chen et al., Neural Ordinary Differential Equations, NeurIPS 2018; Song et al., SDE, ICLR 2021, appendix D.2",
    document="S0 level 4",
)
@dataclass(frozen=True)
class NegativeLogLikelihood(_Likelihood):
    r"""Negative log-likelihood of the target, noised to the schedule's t_min, under a denoiser's
    flow: nats per sample.

    **The cut-off is that of the schedule** of the row: two schedules that end at different noise
    are not comparable, except by what they are above their floors. The mean runs over `batch` draws
    of (x_0, eps) from a stream that is named by the data set alone; the floor is the mean of the
    *exact* log-density over the same draws, an estimate of the entropy of the noised target. So the
    difference ``nll - nll_floor`` is paired, and estimates the Kullback-Leibler divergence of the
    flow's law from the true one with little noise. Nonetheless either may come out below by that
    noise.

    The trace is exact for ideal denoisers and up to 16 dimensions; beyond, Hutchinson's with
    `probes` random signs. Errors of the solver are held to `tolerance` (nats, and units of the
    noise); where a network is too rough for that, to 10 or 100 times as much. FlowLost if not even
    so.

    For the ideal denoiser what is left above the floor is the error of the start noise.
    """

    axis_label: ClassVar[str] = "negative log-likelihood at t_min / nats"

    def _in_unit(self, log_density: Tensor, dim: int) -> Tensor:  # noqa: ARG002
        return -log_density

    def in_data_units(self, log_volume: float, dim: int) -> float:  # noqa: ARG002
        return log_volume


@metrics.register(
    "bits-per-dim",
    formula="-mean log2 p(x) / dim + log2 scale, otherwise as nll",
    source="Theis, van den Oord & Bethge, A Note on the Evaluation of Generative Models, ICLR 2016; "
    "Song et al., SDE, ICLR 2021, appendix D.2",
    document="S0 level 4",
)
@dataclass(frozen=True)
class BitsPerDimension(_Likelihood):
    r"""`nll` divided by ``dim ln 2``, of data in units of which `scale` make one unit of the
    target's.

    For images of grey levels mapped to [-1, 1], ``scale = 127.5`` tells bits for each level; 1
    leaves the target's own unit.
    """

    axis_label: ClassVar[str] = "bits per dimension at t_min"

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.scale < math.inf:
            raise WrongValue(f"bits-per-dim: scale = {self.scale}; needed: a positive number")

    def _in_unit(self, log_density: Tensor, dim: int) -> Tensor:
        return bits_per_dim(log_density, dim, self.scale)

    def in_data_units(self, log_volume: float, dim: int) -> float:
        return log_volume / (dim * math.log(2))
