"""The numbers that a run has found so far, as a few rows below its bars."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from diffusion.metrics import ModelMetric
from tasks.query.tables import brief, row_name, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.study import Study
    from tasks.work import PointAnswer

_NAME = 44  # characters of a row's name
_NUMBER = 9  # of a number with its margins


class RowsSoFar:
    """Mean over the seeds that are committed, of the first metric that a study measures on samples: a
    row for each target, formulation and sampler, the latest first.
    """

    def __init__(self, study: Study) -> None:
        self._metric = next((m.column for m in study.metrics if not isinstance(m, ModelMetric)), None)
        self._rows: dict[tuple[str, str, str], dict[int, list[float]]] = {}

    def add(self, points: Sequence[PointAnswer]) -> None:
        """Take up what a sweep has answered."""
        for answer in points:
            value = math.nan if answer.error or self._metric is None else answer.metrics.get(self._metric, math.nan)
            if math.isfinite(value):
                labels = {name: str(value) for name, value in answer.point.labels.items()}
                key = (labels["dataset"], row_name(labels["formulation"], labels["schedule"]), labels["sampler"])
                row = self._rows.pop(key, None) or defaultdict(list)
                row[answer.point.steps].append(value)
                self._rows[key] = row  # in the end: it is the latest

    def table(self, width: int, most: int) -> Group | None:
        """At most so many rows, as many step counts as fit; nothing while nothing is found."""
        if not self._rows or most < 1:
            return None
        latest = dict(list(self._rows.items())[-most:][::-1])
        targets = {target for target, _, _ in self._rows}
        steps = sorted({n for row in latest.values() for n in row})
        shown = spread(steps, max(2, (width - _NAME) // _NUMBER))
        more = len(self._rows) - len(latest)
        title = f"\n{self._metric} so far, mean over seeds" + (f" (and {more} rows before)" if more else "")
        table = Table(box=None, padding=(0, 1), pad_edge=False)
        table.add_column("steps", overflow="ellipsis", no_wrap=True, max_width=_NAME)
        for n in shown:
            table.add_column(str(n), justify="right", no_wrap=True)
        for (target, formulation, sampler), row in latest.items():
            name = ", ".join((target, formulation, sampler) if len(targets) > 1 else (formulation, sampler))
            values = (row.get(n) for n in shown)
            style = "dim" if formulation.startswith("exact") else None
            table.add_row(name.replace("[", r"\["), *(brief(sum(v) / len(v)) if v else "" for v in values), style=style)
        return Group(Text(title, no_wrap=True, overflow="ellipsis"), table)
