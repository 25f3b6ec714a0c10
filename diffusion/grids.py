"""Step grids: N steps become N + 1 times ``t_0 > t_1 > ... > t_N = 0``.

The first N levels carry noise, the last does not: a sampler's last step leads to sigma = 0. (This is the count of Karras
et al. 2022, where N Euler steps cost N network evaluations.) Times are made in float64.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.registry import Component, Registry
from diffusion.schedules import Schedule

grids: Registry[Grid] = Registry("grid")


@dataclass(frozen=True)
class Grid(Component):
    """A rule that spends N steps on the times of a schedule."""

    def refuses(self, schedule: Schedule) -> str | None:
        """Why this grid cannot serve the schedule, or None."""
        if schedule.max_steps is not None:
            return f"schedule {schedule.registered_name!r} is known at its own discrete levels only (grid 'discrete')"
        return None

    @abstractmethod
    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        """The first N times, decreasing, ``[steps]``."""

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """All levels, ``[steps + 1]``, the last of them 0.

        Raises ValueError if the grid refuses the schedule or the schedule has fewer levels than steps.
        """
        reason = self.refuses(schedule)
        if reason is None and schedule.max_steps is not None and steps > schedule.max_steps:
            reason = f"schedule {schedule.registered_name!r} has {schedule.max_steps} levels, fewer than {steps} steps"
        if reason:
            raise ValueError(reason)
        return torch.cat([self.noisy_times(schedule, steps), torch.zeros(1, dtype=torch.float64)])


def _fractions(steps: int) -> Tensor:
    """i / (N - 1) for i = 0 .. N - 1; a single step starts at 0."""
    return torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)


@grids.register(
    "uniform-t",
    formula="t_i = t_max + i/(N-1) (t_min - t_max)",
    source="Song et al. 2021; Karras et al. 2022, Table 1, column VP",
)
@dataclass(frozen=True)
class UniformTime(Grid):
    """Equal steps in t."""

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        return schedule.t_max + _fractions(steps) * (schedule.t_min - schedule.t_max)


@grids.register(
    "log-snr",
    formula="log nsr(t_i) = log nsr_max + i/(N-1) (log nsr_min - log nsr_max)",
    source="Karras et al. 2022, Table 1, column VE; Lu et al., DPM-Solver, NeurIPS 2022",
)
@dataclass(frozen=True)
class LogSNR(Grid):
    """Equal steps in the logarithm of the signal-to-noise ratio."""

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        ends = schedule.nsr(torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)).log()
        return schedule.time_of(torch.exp(ends[0] + _fractions(steps) * (ends[1] - ends[0])))


@grids.register(
    "edm",
    formula="nsr_i = (nsr_max^(1/rho) + i/(N-1) (nsr_min^(1/rho) - nsr_max^(1/rho)))^rho",
    source="Karras et al. 2022, eq. 5",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class PowerLaw(Grid):
    """Equal steps in the rho-th root of the noise-to-signal ratio: short steps where there is little noise."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise ValueError(f"rho must be positive, found {self.rho}")

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        ends = schedule.nsr(torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)) ** (1 / self.rho)
        return schedule.time_of((ends[0] + _fractions(steps) * (ends[1] - ends[0])) ** self.rho)


@grids.register(
    "discrete",
    formula="ddpm: round(T (1 - i/N)); iddpm: level floor(j_0 + (M-1-j_0) i/(N-1) + 1/2)",
    source="Song et al., DDIM, ICLR 2021; Karras et al. 2022, Table 1, column iDDPM + DDIM",
)
@dataclass(frozen=True)
class Discrete(Grid):
    """N of the levels of a discrete schedule, evenly spread over their numbers by the schedule's own rule."""

    def refuses(self, schedule: Schedule) -> str | None:
        if schedule.max_steps is None:
            return f"schedule {schedule.registered_name!r} is continuous: it has no discrete levels to choose from"
        return None

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        return schedule.own_times(steps)
