"""The exact law of a dataset, as far as it is known: what histograms are compared with.

A store may hold answers about a dataset that this installation does not have (a plug-in, an older
version); then there is no exact law to draw, the page says why, and everything else is drawn all
the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion.analysis.fokker_planck import time_marginals
from diffusion.datasets import Dataset, Torus, in_data_units, noised_distribution
from diffusion.datasets.frame import Frame
from diffusion.metrics import BaseMetric, Metric
from diffusion.randomness import stream
from diffusion.samplers import OwnTarget, samplers
from diffusion.schedules import Schedule
from diffusion.schedules.levels import levels_of
from tasks.columns import GENERATION, RESTORATION

if TYPE_CHECKING:
    from tasks.report.lookup.points import Row

Array = NDArray[np.float64]
_AT_THE_MEAN = 1000


@dataclass(frozen=True)
class Target:
    """A dataset by name; `distribution` is None where it cannot be built, and `missing` says why."""

    name: str
    distribution: Dataset | None
    missing: str = ""
    shape: tuple[int, int, int] | None = None

    @property
    def dim(self) -> int | None:
        return None if self.distribution is None else self.distribution.dim

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width, where the points are images; of a conditioned law, those of
        the whole.
        """
        return (
            self.shape
            if self.distribution is None or self.distribution.image_shape is None
            else self.distribution.image_shape
        )

    @property
    def torus_radii(self) -> tuple[float, float] | None:
        """Major and minor radius (R, r), for a torus."""
        return (self.distribution.R, self.distribution.r) if isinstance(self.distribution, Torus) else None

    @property
    def torus_moment(self) -> float:
        """E[x^2 + y^2] on a torus, which tells an even covering from crowding on part of the
        surface.
        """
        return self.distribution.second_moment if isinstance(self.distribution, Torus) else float("nan")

    def sample(self, n: int) -> Array | None:
        """`n` draws of the clean target ``[n, dim]``, always the same, or None where it is not
        known.
        """
        if self.distribution is None:
            return None
        found: Array = self.distribution.sample(n, stream("report", self.name)).double().numpy()
        return found

    def error_of_its_mean(self, metric: BaseMetric | None) -> float:
        """What a metric says of samples that all lie on the target's mean, as one step of a sampler
        leaves them.

        NaN where target or metric is not known, or they do not go together.
        """
        if not isinstance(metric, Metric) or self.distribution is None or metric.refuses(self.distribution) is not None:
            return math.nan
        mean = torch.tensor(self.distribution.mean, dtype=torch.float64)
        try:
            return metric.evaluate(mean.expand(_AT_THE_MEAN, -1), self.distribution)
        except (ValueError, ArithmeticError):
            return math.nan

    def support(self) -> tuple[float, float] | None:
        """Where a target on the line lives: its ends, or its 0.5 % and 99.5 % quantiles where it
        has none.
        """
        if self.distribution is None or not self.distribution.has_cdf:
            return None
        ends = self.distribution.quantile(torch.tensor([0.0, 1.0, 0.005, 0.995], dtype=torch.float64)).tolist()
        low, high = ends[:2] if np.isfinite(ends[:2]).all() else ends[2:]
        return float(low), float(high)

    def has_ends(self) -> bool:
        """Whether a target on the line has two finite ends; `support` gives quantiles otherwise."""
        if self.distribution is None or not self.distribution.has_cdf:
            return False
        return bool(self.distribution.quantile(torch.tensor([0.0, 1.0], dtype=torch.float64)).isfinite().all())

    def standard_deviation(self, alpha: float, sigma: float) -> float:
        """sqrt(alpha^2 std^2 + sigma^2): the width of the noised law (std = 1 where the target is
        unknown).
        """
        std = 1.0 if self.distribution is None else self.distribution.std
        frame = None if self.distribution is None else self.distribution.frame
        if frame is not None:  # noise is in units of the scale
            return float(std * np.hypot(alpha, sigma))
        return float(np.hypot(alpha * std, sigma))

    def density(self, edges: Array, alpha: float, sigma: float) -> Array | None:
        """Mean density of x = alpha x_0 + sigma eps in each bin of a target on the line, or None
        where it is not known.
        """
        distribution = self.distribution
        if distribution is None or distribution.dim != 1:
            return None
        if frame := distribution.frame:
            seen = replace(self, distribution=distribution.working).density(_seen(edges, frame), alpha, sigma)
            return None if seen is None else seen / frame.scale[0]
        width = np.diff(edges)
        if sigma <= 0:
            if not distribution.has_cdf:
                return None
            clean: Array = np.diff(distribution.cdf(torch.from_numpy(edges / alpha)).numpy()) / width
            return clean
        if not distribution.exact:
            return None
        # by its distribution function: a bell may be narrower than a bin
        noisy = noised_distribution(distribution, alpha, sigma)
        found: Array = np.diff(noisy.cdf(torch.from_numpy(edges)).numpy()) / width
        return found


def _seen(edges: Array, frame: Frame) -> Array:
    """Edges on the line in a model's coordinates."""
    return (edges - frame.shift[0]) / frame.scale[0]


def target_of(rows: Iterable[Row]) -> Target:
    """What rows of one label should follow: their dataset; where they are guided, that dataset
    given what guidance knows.

    Args:
        rows: Rows of the same dataset label. One that was never asked of a model says nothing of
            it.
    """
    found = Target("", None, "it has no rows")
    for row in rows:
        found = _target_of(row)
        if row.requested.dataset.name:
            break
    return found


def _target_of(row: Row) -> Target:
    whole, guidance = row.requested.dataset, row.requested.guidance
    if whole.component is None:
        return Target(row.dataset, None, whole.missing)
    if guidance is None:
        return Target(row.dataset, whole.component)
    shape = whole.component.image_shape
    if guidance.component is None:
        return Target(row.dataset, None, guidance.missing, shape)
    reason = guidance.component.refuses_target(whole.component)
    distribution = guidance.component.target(whole.component) if reason is None else None
    return Target(row.dataset, distribution, reason or "", shape)


def solved(distribution: Dataset, schedule: Schedule, time: float, edges: Array) -> Array | None:
    """The density at a time by the Fokker-Planck equation, a mean for each bin of the line; None
    where that is not solved.

    No formula of the noised law is asked: it is a second opinion on it, and the only one where
    there is none.
    """
    if distribution.dim != 1 or not distribution.has_cdf or not 0 <= time <= schedule.t_max:
        return None
    if frame := distribution.frame:
        seen = solved(distribution.working, schedule, time, _seen(edges, frame))
        return None if seen is None else seen / frame.scale[0]
    found = time_marginals(distribution, schedule, [time])
    cdf = np.interp(edges, found.edges[0].numpy(), found.cdf[0].numpy())
    densities: Array = np.diff(cdf) / np.diff(edges)
    return densities


def followed(target: Target, row: Row) -> Target | None:
    """The law that a row's samples should follow: as a rule `target` itself; None where it is
    another one and cannot be rebuilt.

    A sampler may have a target of its own, the law at the last level that it passes
    (`diffusion.samplers.OwnTarget`).
    """
    sampler, grid = row.requested.sampler, row.requested.grid.component
    schedule = row.requested.sampling_schedule.component
    if sampler.component is None:
        return None if sampler.name in samplers else target
    if target.distribution is None:
        return target if row.process in {GENERATION, RESTORATION} else None
    if schedule is None or grid is None:
        return None
    if not isinstance(sampler.component, OwnTarget):
        return target
    last = sampler.component.path(levels_of([schedule], [grid], row.steps))[-1]
    working, frame = target.distribution.working, target.distribution.frame
    distribution = sampler.component.target(working, last)
    if frame is not None:
        distribution = target.distribution if distribution == working else in_data_units(distribution, frame)
    return target if distribution == target.distribution else replace(target, distribution=distribution)
