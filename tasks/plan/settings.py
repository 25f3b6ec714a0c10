"""What is asked of a cell, whichever it is: by which sampler, on how many steps, from what start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from diffusion.guidance import Guidance
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from diffusion.schedules.grids import Grid
from tasks.plain import Spec
from tasks.plan.cell import canonical


@dataclass(frozen=True)
class SamplingSettings:
    """A sampler with its settings. All seeds of a model are asked the same ones."""

    sampler: Sampler
    grid: Grid
    steps: int
    samples: int
    start: str
    sampling_schedule: Schedule | None = None  # the schedule to sample on, where it is not the cell's
    guidance: Guidance | None = None

    @cached_property
    def spec(self) -> Spec:
        """Its part of the canonical description of a point."""
        return {
            "sampler": self.sampler.identity(),
            "grid": self.grid.identity(),
            "steps": self.steps,
            "samples": self.samples,
            "start": self.start,
            **({"schedule": self.sampling_schedule.identity()} if self.sampling_schedule else {}),
            **({"guidance": self.guidance.identity()} if self.guidance else {}),
        }

    @cached_property
    def text(self) -> str:
        """The spec as the ids of points hash it."""
        return canonical(self.spec)

    @cached_property
    def labels(self) -> dict[str, str | int]:
        """The coordinates that points have from it."""
        return {
            "sampler": self.sampler.label()
            + (f" | {self.guidance.label()}" if self.guidance else "")
            + (f" on {self.sampling_schedule.label()}" if self.sampling_schedule else ""),
            "guidance": self.guidance.label() if self.guidance else "",
            "grid": self.grid.label(),
            "steps": self.steps,
        }
