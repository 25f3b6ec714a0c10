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
from torch import Tensor

from diffusion.analysis.fokker_planck import time_marginals
from diffusion.datasets import Dataset, Torus, in_data_units, noised_distribution
from diffusion.datasets.frame import Frame
from diffusion.errors import NoExactAnswer
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
    """A dataset by name; `distribution` is None where it cannot be built, and `missing` says why.

    Where models see the data in other coordinates, ``x_0 = m + s z_0``, noise is in units of s and
    x at a level is ``m + s (alpha z_0 + sigma eps) = m + alpha (x_0 - m) + s sigma eps``: so samples
    are stored on their way, and of this x are `standard_deviation`, `density`, `log_density` and
    `score`.

    Args:
        name: As the axis `dataset` has it.
        distribution: The law of x_0.
        missing: Why that is not known.
        shape: Of images, where the law does not tell it.
        working: The law of z_0; as a rule what `distribution` says it is.
        frame: m and s; None where models see the data themselves.
    """

    name: str
    distribution: Dataset | None
    missing: str = ""
    shape: tuple[int, int, int] | None = None
    working: Dataset | None = None
    frame: Frame | None = None

    def __post_init__(self) -> None:
        if self.working is None and self.distribution is not None:
            object.__setattr__(self, "working", self.distribution.working)
            object.__setattr__(self, "frame", self.distribution.frame)

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
        torus = self._torus
        return None if torus is None else (torus.R, torus.r)

    @property
    def torus_moment(self) -> float:
        """E[x^2 + y^2] on a torus, which tells an even covering from crowding on part of the
        surface.
        """
        torus = self._torus
        return float("nan") if torus is None else torus.second_moment

    @property
    def _torus(self) -> Torus | None:
        law = None if self.distribution is None else self.distribution.law
        return law if isinstance(law, Torus) else None

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

        NaN where target or metric is not known, they do not go together, or the metric takes so long
        that only who names it waits for it.
        """
        if not isinstance(metric, Metric) or metric.costly:
            return math.nan
        if self.distribution is None or metric.refuses(self.distribution) is not None:
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

    @property
    def shift(self) -> Array:
        """m of each coordinate; one zero where models see the data themselves."""
        return np.zeros(1) if self.frame is None else np.array(self.frame.shift)

    def noise(self, sigma: float) -> float:
        """The noise of a level in the data's units, ``s sigma``; of scales that differ, their root
        mean square.
        """
        return sigma if self.frame is None else sigma * float(np.sqrt(np.mean(np.square(self.frame.scale))))

    def without_noise(self, x: Array, alpha: float) -> Array:
        """Where clean points ``[..., dim]`` are at a level, noise aside: ``m + alpha (x - m)``."""
        found: Array = alpha * x + (1 - alpha) * self.shift if self.frame is not None else alpha * x
        return found

    def standard_deviation(self, alpha: float, sigma: float) -> float:
        """The width of the noised law, ``sqrt(alpha^2 std^2 + s^2 sigma^2)`` (std = 1 where the
        target is unknown).
        """
        std = 1.0 if self.distribution is None else self.distribution.std
        return float(np.hypot(alpha * std, self.noise(sigma)))

    def density(self, edges: Array, alpha: float, sigma: float) -> Array | None:
        """Mean density of x at a level in each bin of a target on the line, or None where it is not
        known.
        """
        if self.working is None or self.working.dim != 1:
            return None
        if self.frame is None:
            return _mean_density(self.working, edges, alpha, sigma)
        found = _mean_density(self.working, _seen(edges, self.frame), alpha, sigma)
        return None if found is None else found / self.frame.scale[0]

    @property
    def exact(self) -> bool:
        """Whether `log_density` and `score` are known."""
        return self.working is not None and self.working.exact

    def log_density(self, x: Array, alpha: float, sigma: float) -> Array:
        """log p(x) ``[n]`` of points ``[n, dim]`` at a noisy level, where `exact`."""
        law, z = self._seen_at(x)
        found = law.log_density(z, *_level(alpha, sigma))
        return _numbers(found if self.frame is None else found - self.frame.log_volume)

    def score(self, x: Array, alpha: float, sigma: float) -> Array:
        """grad log p(x) ``[n, dim]``, as `log_density`."""
        law, z = self._seen_at(x)
        found = _numbers(law.score(z, *_level(alpha, sigma)))
        return found if self.frame is None else found / np.array(self.frame.scale)

    def _seen_at(self, x: Array) -> tuple[Dataset, Tensor]:
        if self.working is None:
            raise NoExactAnswer(f"dataset {self.name!r} is not known: {self.missing}")
        points = torch.from_numpy(x)
        return self.working, points if self.frame is None else self.frame.into(points)


def _level(alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    one = torch.ones((), dtype=torch.float64)
    return alpha * one, sigma * one


def _numbers(found: Tensor) -> Array:
    return np.asarray(found.numpy(), dtype=np.float64)


def _mean_density(law: Dataset, edges: Array, alpha: float, sigma: float) -> Array | None:
    """Of ``alpha x_0 + sigma eps`` in each bin of the line; None where it is not known."""
    width = np.diff(edges)
    if sigma <= 0:
        if not law.has_cdf:
            return None
        clean: Array = np.diff(law.cdf(torch.from_numpy(edges / alpha)).numpy()) / width
        return clean
    if not law.exact:
        return None
    # by its distribution function: a bell may be narrower than a bin
    noisy = noised_distribution(law, alpha, sigma)
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
    reason = guidance.component.refuses_target(whole.component.law)
    if reason is not None:
        return Target(row.dataset, None, reason, shape)
    given = guidance.component.target
    working = given(whole.component.working)
    return Target(row.dataset, given(whole.component.law), "", shape, working, whole.component.frame)


def solved(target: Target, schedule: Schedule, time: float, edges: Array) -> Array | None:
    """The density of x at a time by the Fokker-Planck equation, a mean for each bin of the line; None
    where that is not solved.

    No formula of the noised law is asked: it is a second opinion on it, and the only one where
    there is none.
    """
    law, frame = target.working, target.frame
    if law is None or law.dim != 1 or not law.has_cdf or not 0 <= time <= schedule.t_max:
        return None
    found = time_marginals(law, schedule, [time])
    seen = edges if frame is None else _seen(edges, frame)
    densities: Array = np.diff(np.interp(seen, found.edges[0].numpy(), found.cdf[0].numpy())) / np.diff(edges)
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
    working, frame = target.working, target.frame
    assert working is not None  # noqa: S101 - it has a distribution
    found = sampler.component.target(working, last)
    if found == working:
        return target
    distribution = found if frame is None else in_data_units(found, frame)
    return replace(target, distribution=distribution, working=found)
