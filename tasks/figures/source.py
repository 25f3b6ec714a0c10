"""Where a figure finds its numbers: the answers of one study, and the same as curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.figures.lacking import FigureLacksData
from tasks.report.numbers.curves import Panel, Series, Tabulation, tabulate
from tasks.report.numbers.kept import preference

if TYPE_CHECKING:
    import xarray as xr

    from tasks.report.lookup.points import Row
    from tasks.report.lookup.targets import Target
    from tasks.results.models import ModelledAnswers


@dataclass(frozen=True)
class KeptTrajectory:
    """States of one point from its start to its end, ``[level, sample, coordinate]``."""

    series: Series
    panel: Panel
    row: Row
    states: xr.DataArray
    target: Target

    @property
    def forward(self) -> bool:
        """Whether it leads from the data to noise."""
        sigma = self.states["sigma"].values
        return bool(sigma[0] < sigma[-1])

    @property
    def title(self) -> str:
        """Whose it is, as people read it."""
        who = "exact score" if self.series.exact else self.series.label
        return f"{who}, {self.panel.title}, N = {self.row.steps}"


@dataclass(frozen=True)
class Source:
    """The answers of one study."""

    answers: ModelledAnswers

    @cached_property
    def table(self) -> Tabulation:
        """The same as curves."""
        return tabulate(self.answers)

    def datasets(self, dim: int | None = None) -> list[Target]:
        """The data sets of the study, by the number of their coordinates if that is given."""
        targets = [self.table.targets[name] for name in self.table.datasets]
        found = [target for target in targets if dim is None or target.dim == dim]
        if not found:
            raise FigureLacksData(f"a data set in {dim} dimensions" if dim else "a data set")
        return found

    def trajectories(self, dim: int, *, forward: bool) -> Iterator[KeptTrajectory]:
        """Kept trajectories in one direction, data set by data set: of trained models first, then
        of the samplers that are shown first.
        """
        for target in self.datasets(dim):
            asked = [
                (series, panel, row)
                for panel, series, _, rows in self.table.answered(target.name)
                for row in rows
                if (shape := self.answers.trajectory_shape(row.point_id)) is not None and shape[2] == dim
            ]
            for series, panel, row in sorted(asked, key=lambda one: (one[0].exact, preference(one[1]), one[0].key)):
                states = self.answers.trajectory(row.point_id)
                if states is None or states.sizes["level"] < 2:
                    continue
                kept = KeptTrajectory(series, panel, row, states, target)
                if kept.forward == forward:
                    yield kept

    def every_trajectory(self, target: Target, dim: int) -> Iterator[KeptTrajectory]:
        """All kept trajectories of a data set."""
        for panel, series, _, rows in self.table.answered(target.name):
            for row in rows:
                states = self.answers.trajectory(row.point_id)
                if states is not None and states.sizes.get("coordinate", 1) == dim:
                    yield KeptTrajectory(series, panel, row, states, target)

    def panels(self, target: Target) -> list[Panel]:
        """The samplers of a data set, those that are shown first at the front."""
        return sorted(self.table.panels[target.name], key=preference)


def first(found: Iterable[KeptTrajectory], needed: str) -> KeptTrajectory:
    """The first of several.

    Raises:
        FigureLacksData: There is none.
    """
    for one in found:
        return one
    raise FigureLacksData(needed)
