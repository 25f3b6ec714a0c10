"""The exact law of a dataset, as far as it is known: what histograms are compared with.

A store may hold answers about a dataset that this installation does not have (a plug-in, an older version); then
there is no exact law to draw, the page says why, and everything else is drawn all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion.analysis.fokker_planck import time_marginals
from diffusion.datasets import Dataset, Torus, datasets, noised_law
from diffusion.guidance import guidances
from diffusion.randomness import stream
from diffusion.samplers import Sampler, samplers
from diffusion.schedules import Schedule, schedules
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import levels_of
from tasks.report.lookup.metrics import metrics_asked
from tasks.report.lookup.named import component_called, components_in
from tasks.study.components import build

if TYPE_CHECKING:
    from tasks.report.lookup.points import Row

Array = NDArray[np.float64]
_AT_THE_MEAN = 1000


@dataclass(frozen=True)
class Target:
    """A dataset by name; `law` is None where it cannot be built, and `missing` says why."""

    name: str
    law: Dataset | None
    missing: str = ""
    shape: tuple[int, int, int] | None = None

    @property
    def dim(self) -> int | None:
        return None if self.law is None else self.law.dim

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width, where the points are images; of a conditioned law, those of the whole."""
        return self.shape if self.law is None or self.law.image_shape is None else self.law.image_shape

    @property
    def torus_radii(self) -> tuple[float, float] | None:
        """Major and minor radius (R, r), for a torus."""
        return (self.law.R, self.law.r) if isinstance(self.law, Torus) else None

    @property
    def torus_moment(self) -> float:
        """E[x^2 + y^2] on a torus, which tells an even covering from crowding on part of the surface."""
        return self.law.second_moment if isinstance(self.law, Torus) else float("nan")

    def sample(self, n: int) -> Array | None:
        """`n` draws of the clean target ``[n, dim]``, always the same, or None where it is not known."""
        if self.law is None:
            return None
        found: Array = self.law.sample(n, stream("report", self.name)).double().numpy()
        return found

    def error_of_its_mean(self, metric: str, study: Mapping[str, Any]) -> float:
        """What a metric says of samples that all lie on the target's mean, as one step of a sampler leaves them.

        NaN where target or metric is not known, or they do not go together.
        """
        found = metrics_asked(study).get(metric)
        if found is None or self.law is None or found.of != "samples" or found.refuses(self.law) is not None:
            return math.nan
        mean = torch.tensor(self.law.mean, dtype=torch.float64)
        try:
            return found.evaluate(mean.expand(_AT_THE_MEAN, -1), self.law)
        except (ValueError, ArithmeticError):
            return math.nan

    def support(self) -> tuple[float, float] | None:
        """Where a target on the line lives: its ends, or its 0.5 % and 99.5 % quantiles where it has none."""
        if self.law is None or not self.law.has_cdf:
            return None
        ends = self.law.quantile(torch.tensor([0.0, 1.0, 0.005, 0.995], dtype=torch.float64)).tolist()
        low, high = ends[:2] if np.isfinite(ends[:2]).all() else ends[2:]
        return float(low), float(high)

    def standard_deviation(self, alpha: float, sigma: float) -> float:
        """sqrt(alpha^2 std^2 + sigma^2): the width of the noised law (std = 1 where the target is unknown)."""
        std = 1.0 if self.law is None else self.law.std
        return float(np.hypot(alpha * std, sigma))

    def density(self, edges: Array, alpha: float, sigma: float) -> Array | None:
        """Mean density of x = alpha x_0 + sigma eps in each bin of a target on the line, or None where it is not known."""
        law = self.law
        if law is None or law.dim != 1:
            return None
        width = np.diff(edges)
        if sigma <= 0:
            if not law.has_cdf:
                return None
            clean: Array = np.diff(law.cdf(torch.from_numpy(edges / alpha)).numpy()) / width
            return clean
        if not law.exact:
            return None
        noisy = noised_law(law, alpha, sigma)  # by its distribution function: a bell may be narrower than a bin
        found: Array = np.diff(noisy.cdf(torch.from_numpy(edges)).numpy()) / width
        return found


def target_of(name: str, study: Mapping[str, Any]) -> Target:
    """The dataset with the label `name`, with the parameters it has in a study; of guided samples, that law given what is known."""
    whole, bar, condition = name.partition(" | ")
    if bar:
        return _conditioned(name, target_of(whole, study), condition, study)
    law = component_called(name, study.get("datasets"), datasets)
    if law is not None:
        return Target(name, law)
    given = [spec for spec in study.get("datasets") or () if isinstance(spec, Mapping) and spec.get("name") == name]
    try:
        return Target(name, build(datasets, dict(given[0]) if given else name))
    except (LookupError, OSError, TypeError, ValueError) as error:
        return Target(name, None, str(error))


def solved(law: Dataset, schedule: Schedule, time: float, edges: Array) -> Array | None:
    """The density at a time by the Fokker-Planck equation, a mean for each bin of the line; None where that is not solved.

    No formula of the noised law is asked: it is a second opinion on it, and the only one where there is none.
    """
    if law.dim != 1 or not law.has_cdf or not 0 <= time <= schedule.t_max:
        return None
    found = time_marginals(law, schedule, [time])
    cdf = np.interp(edges, found.edges[0].numpy(), found.cdf[0].numpy())
    densities: Array = np.diff(cdf) / np.diff(edges)
    return densities


def sampled_on(point: Row, target: Target, study: Mapping[str, Any]) -> Schedule | None:
    """The schedule of a row's levels, as it is for its data set; None where it cannot be rebuilt."""
    _, _, other = point.sampler.partition(" on ")
    schedule = component_called(other or point.schedule, study, schedules)
    return None if target.law is None or schedule is None else schedule.fitted(target.law)


def followed(target: Target, point: Row, study: Mapping[str, Any]) -> Target | None:
    """The law that a row's samples should follow: as a rule `target` itself; None where it is another one and cannot be rebuilt.

    A sampler may have a target of its own, the law at the last level that it passes (`diffusion.samplers.Sampler.target`).
    """
    sampled = point.sampler.partition(" on ")[0]
    label = sampled.partition(" | ")[0]
    name = label.partition("(")[0]
    sampler = component_called(label, study, samplers)
    kind = type(sampler) if sampler is not None else samplers.find(name) if name in samplers else Sampler
    if kind.target is Sampler.target:
        return target
    grid = component_called(point.grid, study, grids)
    schedule = sampled_on(point, target, study)
    if target.law is None or sampler is None or schedule is None or grid is None:
        return None
    last = sampler.path(levels_of([schedule], [grid], point.steps))[-1]
    law = sampler.target(target.law, last)
    return target if law == target.law else replace(target, law=law)


def _conditioned(name: str, whole: Target, condition: str, study: Mapping[str, Any]) -> Target:
    if whole.law is None:
        return Target(name, None, whole.missing)
    known = [guidance for guidance in components_in(study, guidances).values() if guidance.condition() == condition]
    reasons = [guidance.refuses_target(whole.law) for guidance in known]
    laws = [guidance.target(whole.law) for guidance, reason in zip(known, reasons, strict=True) if reason is None]
    if laws:
        return Target(name, laws[0], shape=whole.image_shape)
    told = "; ".join(filter(None, reasons)) or f"no guidance of the study is called {condition!r}"
    return Target(name, None, told, whole.image_shape)
