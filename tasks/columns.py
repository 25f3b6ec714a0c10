"""Of which law the rows of a table are: numbers measured against different laws are not to be
pooled.

As a rule samples should follow their data set. Some samplers have a target of their own
(`diffusion.samplers.OwnTarget`), the law in noise, and its sampling floor is another one: in
proportion to the law's width, a thousand times as large where variance explodes.

Nor is it the same to make samples from noise and to restore them from an observation, or to set out
from the data themselves: whoever knows more errs less. Nor does an answer in noise compare with one
that is to be clean. Every row says in `start` what it set out from (and in how much noise it ends,
if in any), and in `process` which of these it is; rankings compare rows that make samples of the
data from noise.

A metric of models, finally, is repeated by every row that asks the model anything: it counts once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

GENERATION, RESTORATION, FORWARD, DYNAMICS = "generation", "restoration", "forward", "dynamics"
"""What `process` says of a row: see `tasks.results.facts`."""

_SAME = 0.05

PARTS = ("network", "discretisation", "prior")
"""The parts of an error: see `tasks.results.error_decomposition`."""

COORDINATES = (
    "dataset",
    "formulation",
    "schedule",
    "sampler",
    "grid",
    "steps",
    "nfe",
    "seed",
    "cell_id",
    "point_id",
    "status",
)
FACTS = ("start", "guidance", "sampling_schedule", "process")
"""What else is said of a point in words, and what samplers set out from."""

DEVICE = "device"
"""On what the point's cell was trained, or, exact, asked: part of no id."""

CONFIGURATION = ("dataset", "formulation", "schedule", "sampler", "grid", "steps")
"""What a mean over seeds is of."""

OF_SAMPLER = ("guidance", "sampling_schedule")
"""Two parts of a sampler's label, by which points can be grouped as by a configuration's labels."""

PLACE = (*CONFIGURATION, "seed")
"""The labels of a point; of one study, no two points have the same."""


@dataclass(frozen=True)
class MetricColumns:
    """The names of a metric's columns: its values under its own name, and what stands beside them.

    Args:
        name: the metric's column, such as ``w1`` or ``sliced-w2(projections=32)``.
    """

    name: str

    @property
    def floor(self) -> str:
        """What as many perfect samples, or the ideal model, would have."""
        return f"{self.name}_floor"

    @property
    def limit(self) -> str:
        """The exact model's flow without discretisation error."""
        return f"{self.name}_limit"

    @property
    def version(self) -> str:
        """The version of the metric that the value was measured by; stored, and no variable of a
        dataset.
        """
        return f"{self.name}_version"

    @property
    def parts(self) -> dict[str, str]:
        """The column of each of `PARTS`."""
        return {part: f"{self.name}_{part}" for part in PARTS}

    @property
    def beside(self) -> tuple[str, ...]:
        """The variables of a dataset that stand beside the values."""
        return (*self.parts.values(), self.limit, self.floor)

    def statistic(self, name: str) -> str:
        """The column of a table of groups that holds a statistic of the values, such as ``mean``."""
        return f"{self.name}_{name}"


def metrics_among(names: Collection[str]) -> list[str]:
    """The metrics among the names of columns, in their order: those that have a floor."""
    return [name for name in names if MetricColumns(name).floor in names]


def metric_names(points: xr.Dataset) -> list[str]:
    """The metrics among the variables of a dataset of points, in alphabetical order."""
    return sorted(metrics_among({str(name): None for name in points.data_vars}))


def higher_is_better(points: xr.Dataset, column: str) -> bool:
    """Whether larger values of a column are better: those of a metric that says so, and of what
    stands beside it.
    """
    return says_higher(points[column].attrs)


def of_models(points: xr.Dataset, column: str) -> bool:
    """Whether a column is of a metric of models, which all points of a cell repeat, or stands
    beside one.
    """
    return says_models(points[column].attrs)


def says_higher(attributes: Mapping[str, object]) -> bool:
    """Whether a variable with these attributes says that its larger values are better."""
    return attributes.get("better") == "higher"


def says_models(attributes: Mapping[str, object]) -> bool:
    """Whether a variable with these attributes says that its metric looks at models."""
    return attributes.get("of") == "models"


def distinct(floors: Iterable[float]) -> list[float]:
    """The different ones among sampling floors, ascending; such as lie within 5 % of the least of
    them are reported as that one.
    """
    found: list[float] = []
    for floor in sorted(value for value in floors if math.isfinite(value)):
        if not found or floor > (1 + _SAME) * found[-1]:
            found.append(floor)
    return found
