"""The numbers that a run has found so far, as a few rows below its bars."""

from __future__ import annotations

import math
from threading import Lock
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from diffusion.metrics import ModelMetric
from tasks.query.tables import brief, row_name, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.study import Study
    from tasks.work import PointAnswer

_AXES = ("formulation", "schedule", "sampler", "grid", "dataset")  # what is never pooled
_NAME = 44  # characters of a row's name
_NUMBER = 9  # of a number with its margins


class RowsSoFar:
    """Mean over the seeds that are committed, of the first metric that a study measures on samples: a
    row for each target, formulation, schedule, sampler and grid, the latest first.
    """

    def __init__(self, study: Study) -> None:
        self._metric = next((m.column for m in study.metrics if not isinstance(m, ModelMetric)), None)
        self._rows: dict[tuple[str, ...], dict[int, tuple[float, int]]] = {}  # by steps the sum, and of how many
        self._lock = Lock()  # it is drawn by a thread of its own

    def add(self, points: Sequence[PointAnswer]) -> None:
        """Take up what a sweep has answered."""
        with self._lock:
            self._add(points)

    def _add(self, points: Sequence[PointAnswer]) -> None:
        for answer in points:
            value = math.nan if answer.error or self._metric is None else answer.metrics.get(self._metric, math.nan)
            if math.isfinite(value):
                labels = {name: str(value) for name, value in answer.point.labels.items()}
                key = tuple(labels[axis] for axis in _AXES)
                row = self._rows.pop(key, {})
                total, count = row.get(answer.point.steps, (0.0, 0))
                row[answer.point.steps] = total + value, count + 1
                self._rows[key] = row  # in the end: it is the latest

    def table(self, width: int, most: int) -> Group | None:
        """At most so many rows, as many step counts as fit; nothing while nothing is found."""
        with self._lock:
            rows = list(self._rows)
            latest = {key: dict(self._rows[key]) for key in rows[-most:][::-1]} if most > 0 else {}
        if not latest:
            return None
        steps = sorted({n for row in latest.values() for n in row})
        shown = spread(steps, max(2, (width - _NAME) // _NUMBER))
        more = len(rows) - len(latest)
        title = f"\n{self._metric} so far, mean over seeds" + (f" (and {more} rows before)" if more else "")
        table = Table(box=None, padding=(0, 1), pad_edge=False)
        table.add_column("steps", overflow="ellipsis", no_wrap=True, max_width=_NAME)
        for n in shown:
            table.add_column(str(n), justify="right", no_wrap=True)
        for key, row in latest.items():
            name = _named(key, rows)
            values = (row.get(n) for n in shown)
            style = "dim" if name.startswith("exact") else None
            table.add_row(name.replace("[", r"\["), *(brief(v[0] / v[1]) if v else "" for v in values), style=style)
        return Group(Text(title, no_wrap=True, overflow="ellipsis"), table)


def _named(key: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Formulation and sampler; schedule, grid and target where these two have several."""
    formulation, schedule, sampler, grid, target = key
    alike = [other for other in rows if (other[0], other[2]) == (formulation, sampler)]
    of_schedule, of_target = (len({other[i] for other in alike}) > 1 for i in (1, 4))
    of_grid = len({other[3] for other in alike if other[1] == schedule}) > 1
    name = row_name(formulation, schedule)
    parts = [f"{name} on {schedule}" if of_schedule and formulation != "exact" else name, sampler]
    return ", ".join([*parts, *([grid] if of_grid else []), *([target] if of_target else [])])
