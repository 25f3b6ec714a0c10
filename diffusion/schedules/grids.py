"""Step grids: N steps become N + 1 times ``t_0 > t_1 > ... > t_N = 0``.

The first N levels carry noise, the last does not: a sampler's last step leads to sigma = 0. (This
is the count of Karras et al. 2022, where N Euler steps cost N network evaluations.) Times are made
in float64. The first level is t_max, except where a grid says otherwise; start noise has to be that
of the first level.

Source of the three spacings named for how libraries call them, `trailing`, `leading` and
`linspace`: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024,
Table 2.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion.errors import WrongValue
from diffusion.registry import Component, Registry
from diffusion.schedules.base import Schedule

grids: Registry[Grid] = Registry("grid")


@dataclass(frozen=True)
class Grid(Component):
    """A rule that spends N steps on the times of a schedule."""

    def refuses(self, schedule: Schedule) -> str | None:
        """Why this grid cannot serve the schedule, or None."""
        if schedule.max_steps is not None:
            return f"schedule {schedule.registered_name!r} is known at its own discrete levels only (grid 'discrete')"
        return None

    def refuses_steps(self, schedule: Schedule, steps: int) -> str | None:
        """Why this grid cannot spend that many steps on the schedule, or None: `times` will
        succeed.
        """
        levels = self._levels(schedule, steps)
        return levels if isinstance(levels, str) else None

    @abstractmethod
    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        """The first N times, decreasing, ``[steps]``; for N that make no sense, WrongValue in a
        user's words.
        """

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """All levels, ``[steps + 1]``, strictly decreasing, the last of them 0.

        Raises:
            WrongValue: the grid refuses the schedule, the schedule has fewer levels than steps, or
                rounding would make two levels one.
        """
        levels = self._levels(schedule, steps)
        if isinstance(levels, str):
            raise WrongValue(levels)
        return levels

    def _levels(self, schedule: Schedule, steps: int) -> Tensor | str:
        """The levels, or why there are none."""
        reason = self.refuses(schedule)
        if reason is not None:
            return reason
        if steps < 1:
            return f"found {steps} steps, at least 1 is needed"
        if schedule.max_steps is not None and steps > schedule.max_steps:
            return f"schedule {schedule.registered_name!r} has {schedule.max_steps} levels, fewer than {steps} steps"
        try:
            noisy = self.noisy_times(schedule, steps)
        except ValueError as error:
            return str(error)
        levels = torch.cat([noisy, torch.zeros(1, dtype=torch.float64)])
        if not bool(torch.isfinite(levels).all() and (levels.diff() < 0).all()):
            return (
                f"{steps} steps of grid {self.label()} on schedule {schedule.label()} do not lead to {steps} different "
                f"levels: after rounding some coincide (use fewer steps or another grid)"
            )
        return levels


def _fractions(steps: int) -> Tensor:
    """i / (N - 1) for i = 0 .. N - 1; a single step starts at 0."""
    return torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)


@grids.register(
    "uniform-t",
    formula="t_i = t_max + i/(N-1) (t_min - t_max)",
    source="Song et al., SDE, ICLR 2021; Karras et al. 2022, Table 1, column VP",
)
@dataclass(frozen=True)
class EqualTimes(Grid):
    """Equal steps in t."""

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        return schedule.t_max + _fractions(steps) * (schedule.t_min - schedule.t_max)


@grids.register(
    "quadratic",
    formula="t_i = (sqrt(t_max) + i/(N-1) (sqrt(t_min) - sqrt(t_max)))^2; of a discrete schedule, the nearest level's number",
    source="Song et al., DDIM, ICLR 2021, appendix D.2 (quadratic spacing)",
)
@dataclass(frozen=True)
class Quadratic(Grid):
    """Equal steps in sqrt(t): shorter ones where there is little noise.

    Of a discrete schedule, whose levels are numbered 1 .. T from the least noisy, it takes the
    nearest whole numbers; many steps would meet at the first levels and are refused.
    """

    def refuses(self, schedule: Schedule) -> str | None:  # noqa: ARG002 - it serves all
        return None

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        discrete = schedule.max_steps is not None
        low, high = (1.0, float(schedule.max_steps or 0)) if discrete else (schedule.t_min, schedule.t_max)
        first, last = math.sqrt(high), math.sqrt(low)
        squares = (first + _fractions(steps) * (last - first)) ** 2
        return _level_times(schedule, squares.round().numpy()) if discrete else squares


@dataclass(frozen=True)
class ByRatio(Grid):
    """A grid that divides a function of the noise-to-signal ratio, which must be finite at t_max."""

    def refuses(self, schedule: Schedule) -> str | None:
        reason = super().refuses(schedule)
        if reason is None and math.isinf(schedule.terminal_nsr):
            return (
                f"schedule {schedule.registered_name!r} ends with alpha = 0, and grid {self.registered_name!r} divides the "
                f"noise-to-signal ratio, which is infinite there (use grid uniform-t or quadratic, or a smaller t_max)"
            )
        return reason

    def _ends(self, schedule: Schedule) -> Tensor:
        return schedule.nsr(torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64))


@grids.register(
    "uniform-log-snr",
    formula="log nsr(t_i) = log nsr_max + i/(N-1) (log nsr_min - log nsr_max)",
    source="Karras et al. 2022, Table 1, column VE; Lu et al., DPM-Solver, NeurIPS 2022",
)
@dataclass(frozen=True)
class UniformLogSNR(ByRatio):
    """Equal steps in the logarithm of the signal-to-noise ratio."""

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        ends = self._ends(schedule).log()
        return schedule.time_of(torch.exp(ends[0] + _fractions(steps) * (ends[1] - ends[0])))


grids.alias("log-snr", "uniform-log-snr")


@grids.register(
    "edm",
    formula="nsr_i = (nsr_max^(1/rho) + i/(N-1) (nsr_min^(1/rho) - nsr_max^(1/rho)))^rho",
    source="Karras et al. 2022, eq. 5",
    document="S0 level 4",
)
@dataclass(frozen=True)
class PowerLaw(ByRatio):
    """Equal steps in the rho-th root of the noise-to-signal ratio: short steps where there is
    little noise.
    """

    rho: float = 7.0

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise WrongValue(f"rho must be positive, found {self.rho}")

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        ends = self._ends(schedule) ** (1 / self.rho)
        return schedule.time_of((ends[0] + _fractions(steps) * (ends[1] - ends[0])) ** self.rho)


@dataclass(frozen=True)
class OfLevels(Grid):
    """A grid that takes N of the levels of a discrete schedule."""

    def refuses(self, schedule: Schedule) -> str | None:
        if schedule.max_steps is None:
            return f"schedule {schedule.registered_name!r} is continuous: it has no discrete levels to choose from"
        return None


def _level_times(schedule: Schedule, numbers: np.ndarray) -> Tensor:
    """The times of levels by number: 1 is the least noisy, T = max_steps the noisiest."""
    most = schedule.max_steps or 0
    return schedule.level_times[torch.as_tensor(most - numbers.astype(np.int64))]


@grids.register(
    "discrete",
    formula="ddpm, of T levels: round(T (1 - i/N)); iddpm, of M levels from the noisiest, the first j_0 left out: level "
    "floor(j_0 + (M-1-j_0) i/(N-1) + 1/2)",
    source="Song et al., DDIM, ICLR 2021; Karras et al. 2022, Table 1, column iDDPM + DDIM",
)
@dataclass(frozen=True)
class Discrete(OfLevels):
    """N of the levels of a discrete schedule, evenly spread over their numbers by the schedule's
    own rule.
    """

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        return schedule.own_times(steps)


@grids.register(
    "trailing",
    formula="k_i = round(T - i T/N)",
    source="Lin et al. 2024, Table 2; DPM-Solver's and many libraries' code",
)
@dataclass(frozen=True)
class Trailing(OfLevels):
    """Steps of T/N levels counted down from the last, as libraries do it (their timestep t is our
    level k = t + 1).
    """

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        most = schedule.max_steps or 0
        # np.arange may give one number more than there is room for
        return _level_times(schedule, np.arange(most, 0, -most / steps)[:steps].round())


@grids.register(
    "leading",
    formula="k_i = (N-1-i) floor(T/N) + 1 + offset",
    source="Ho et al. 2020 and Song et al., DDIM (their code); Lin et al. 2024, Table 2",
)
@dataclass(frozen=True)
class Leading(OfLevels):
    """Steps of floor(T/N) levels counted up from level 1 (+ `offset`; Stable Diffusion's is 1), as
    libraries do it.

    It does *not* begin at the last level, and the fewer the steps the further from it: with T =
    1000 and N = 10 at k = 901. Pure noise misses the data that are left there: alpha / sigma is
    0.0064 at the end of `ddpm-linear` with 1000 levels, 0.016 at k = 901, 0.29 at k = 501 (two
    steps) and 100 at k = 1 (one step).
    """

    offset: int = 0

    def __post_init__(self) -> None:
        if not self.offset >= 0:
            raise WrongValue(f"offset must be 0 or more, found {self.offset}")

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        most = schedule.max_steps or 0
        numbers = np.arange(steps)[::-1] * (most // steps) + 1 + self.offset
        if numbers[0] > most:
            raise WrongValue(
                f"{steps} steps of grid {self.label()} would begin at level {numbers[0]} of schedule "
                f"{schedule.registered_name!r}, which has {most} (use fewer steps, or no offset)"
            )
        return _level_times(schedule, numbers)


@grids.register(
    "linspace",
    formula="k_i = round((T-1) (1 - i/(N-1))) + 1",
    source="Nichol & Dhariwal 2021 (its code); Lin et al. 2024, Table 2",
)
@dataclass(frozen=True)
class Linspace(OfLevels):
    """Levels evenly spread from the last to the first, as libraries do it; a single step begins at
    the *first* level.
    """

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        most = schedule.max_steps or 0
        return _level_times(schedule, np.linspace(0, most - 1, steps).round()[::-1] + 1)
