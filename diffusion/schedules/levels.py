"""The levels that a sampler passes on its way from noise to data: schedules of a stack, looked up
at given times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from diffusion.devices import HOST, to_device
from diffusion.errors import WrongValue
from diffusion.schedules.base import Schedule
from diffusion.schedules.grids import Grid

Variance = Literal["posterior", "transition"]
"""Of a reverse move from t to s: that of x_s given x_t and x_0, or that of x_t given x_s."""


def check_variance(whose: str, variance: str) -> None:
    """Raise WrongValue unless `variance` is one of the two; `whose` is named."""
    if variance not in get_args(Variance):
        raise WrongValue(f"{whose}: variance = {variance!r}; accepted: {', '.join(get_args(Variance))}")


@dataclass(frozen=True)
class Level:
    """A schedule at one time for each member of a stack: five float64 tensors ``[members]``.

    Where the noise has gone (``sigma = 0``) the derivatives are NaN: sigma' may be infinite there,
    and nobody asks.

    A level is looked up on the host and taken `to` the device of the samples; what a step decides
    by (`clean`, `host`) is read from the numbers that have stayed.
    """

    time: Tensor
    alpha: Tensor
    sigma: Tensor
    alpha_dot: Tensor
    sigma_dot: Tensor
    schedules: tuple[Schedule, ...] = field(default=(), repr=False)
    origin: Level | None = field(default=None, repr=False, compare=False)  # on the host, if this one is elsewhere

    @property
    def nsr(self) -> Tensor:
        """Noise-to-signal ratio sigma / alpha."""
        return self.sigma / self.alpha

    @property
    def drift(self) -> Tensor:
        """f of the forward SDE ``dx = f x dt + g dw``: alpha' / alpha."""
        return self.alpha_dot / self.alpha

    @property
    def diffusion_squared(self) -> Tensor:
        """g^2 of the forward SDE ``dx = f x dt + g dw``: 2 sigma sigma' - 2 f sigma^2."""
        return 2 * self.sigma * self.sigma_dot - 2 * self.drift * self.sigma**2

    @property
    def clean(self) -> bool:
        """Whether no noise is left, in any member."""
        return bool((self.host.sigma == 0).all())

    @property
    def host(self) -> Level:
        """The same level where its numbers can be looked at, itself on the host; elsewhere what it
        was copied from, or, if it was computed there, a copy that is waited for.
        """
        if self.sigma.is_cpu:
            return self
        return self.origin or _level(self._table().to(HOST), self.schedules)

    def to(self, device: torch.device) -> Level:
        """The same level on a device."""
        return self if self.sigma.device == device else levels_on([self], device)[0]

    def at(self, time: Tensor) -> Level:
        """The level of the same stack at other times ``[members]``, for samplers that look between
        the grid's levels; on the device of this one.
        """
        return level_at(self.schedules, time).to(self.sigma.device)

    def time_of(self, nsr: Tensor) -> Tensor:
        """The times ``[members]`` at which the members' schedules have these noise-to-signal
        ratios.
        """
        return torch.cat([schedule.time_of(r[None]) for schedule, r in zip(self.schedules, nsr, strict=True)])

    def where(self, mask: Tensor, other: Level) -> Level:
        """This level for the members of `mask`, `other` for the rest."""
        return _level(torch.where(mask, self._table(), other._table()), self.schedules)

    def _table(self) -> Tensor:
        return torch.stack([self.time, self.alpha, self.sigma, self.alpha_dot, self.sigma_dot])


def _level(table: Tensor, schedules: tuple[Schedule, ...], origin: Level | None = None) -> Level:
    """A level from its five rows ``[5, members]``."""
    time, alpha, sigma, alpha_dot, sigma_dot = table.unbind(0)
    return Level(time, alpha, sigma, alpha_dot, sigma_dot, schedules, origin)


def levels_on(levels: Sequence[Level], device: torch.device) -> list[Level]:
    """The levels of one stack on a device, copied all at once; a level that occurs twice stays one."""
    if all(level.sigma.device == device for level in levels):
        return list(levels)
    host = {id(level): level.host for level in levels}
    copied = to_device(torch.stack([level._table() for level in host.values()]), device)  # noqa: SLF001
    found = {
        key: _level(table, level.schedules, level)
        for (key, level), table in zip(host.items(), copied.unbind(0), strict=True)
    }
    return [found[id(level)] for level in levels]


def level_at(schedules: Sequence[Schedule], time: Tensor) -> Level:
    """Member m's schedule at ``time[m]``."""
    rows = [_row(schedule, t[None]) for schedule, t in zip(schedules, time, strict=True)]
    return _level(torch.cat(rows, dim=1), tuple(schedules))


def levels_of(schedules: Sequence[Schedule], grids: Sequence[Grid], steps: int) -> list[Level]:
    """The N + 1 levels of a stack: member m runs over its own schedule on its own grid."""
    rows: dict[tuple[int, int], Tensor] = {}  # seeds of one model share schedule and grid
    pairs = list(zip(schedules, grids, strict=True))
    for schedule, grid in pairs:
        if (id(schedule), id(grid)) not in rows:
            rows[id(schedule), id(grid)] = _row(schedule, grid.times(schedule, steps))
    table = torch.stack([rows[id(schedule), id(grid)] for schedule, grid in pairs], dim=1)  # [5, members, levels]
    return [_level(table[:, :, i], tuple(schedules)) for i in range(steps + 1)]


def _row(schedule: Schedule, t: Tensor) -> Tensor:
    """time, alpha, sigma, alpha', sigma' at times `t`: ``[5, times]``."""
    clean = t == 0
    noisy = torch.where(clean, torch.full_like(t, schedule.t_min), t)
    gone = torch.full_like(t, torch.nan)
    return torch.stack(
        [
            t,
            schedule.alpha(t),
            schedule.sigma(t),
            torch.where(clean, gone, schedule.alpha_dot(noisy)),
            torch.where(clean, gone, schedule.sigma_dot(noisy)),
        ]
    )
