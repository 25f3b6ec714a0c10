"""What a device really needs for the work of a plan, whose seconds are those of one core."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from diffusion.errors import WrongValue


class PlannedWork(Protocol):
    """A job, as far as its time is concerned; seconds are those of one core."""

    @property
    def train(self) -> bool:
        """Whether it is trained."""

    def work(self) -> float:
        """All of it."""

    def training_work(self) -> float:
        """What its training takes, if it is trained."""

    def measuring_work(self) -> float:
        """What metrics of samples take that are counted."""


@dataclass(frozen=True)
class Pace:
    """Seconds of a device for a planned second of one core, by stage.

    Raises:
        WrongValue: one of them is not a finite number above 0.
    """

    train: float = 1.0
    sweep: float = 1.0

    def __post_init__(self) -> None:
        for name in ("train", "sweep"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise WrongValue(f"pace: {name} = {value!r}; accepted: a finite number above 0")

    def seconds(self, job: PlannedWork) -> float:
        """What a job takes there; samples are measured on a processor, wherever they were drawn."""
        if self == AS_PLANNED:
            return job.work()
        training, measuring = job.training_work() if job.train else 0.0, job.measuring_work()
        return self.train * training + self.sweep * max(job.work() - training - measuring, 0.0) + measuring

    def steady(self) -> Pace:
        """The nearest powers of the square root of two, at most 19 % away: measured twice, a device
        mostly has the same, and work is packed in the same way.
        """
        return Pace(*(2 ** (round(2 * math.log2(value)) / 2) for value in (self.train, self.sweep)))


AS_PLANNED = Pace()

Paces = Mapping[str, Pace]
"""By what cells of a shard agree in, `Shard.kind`; what is not there goes as planned."""
