"""Why each point of a plan is to be computed: which stored point it differs from, and in what.

A point is new to the store if its id is. When the store holds a point on the same place of every
axis, something that the axes do not show has changed: the training settings, the number of samples,
the version of a component or of the engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.columns import PLACE
from tasks.plain import Spec
from tasks.plan import NEW, Plan, Point
from tasks.results.read import Answers
from tasks.where.columns import of_frame
from tasks.where.conditions import satisfied

_ABSENT = "nothing"


@dataclass(frozen=True)
class Reason:
    """One reason and the points that it holds for."""

    text: str
    points: tuple[Point, ...]

    def value(self) -> Spec:
        """As plain values, with the first point as the example."""
        return {
            "reason": self.text,
            "points": len(self.points),
            "example": self.points[0].labels,
            "point_ids": [point.id for point in self.points],
        }


def explain(plan: Plan, answers: Answers | None) -> list[Reason]:
    """The reasons of all points to be computed, the most frequent first; `answers` is the whole
    store, None without one.
    """
    new = any(text == NEW for text in plan.reasons.values())
    stored, specs, cells = (
        (_stored(answers), answers.point_specs(), answers.cell_specs) if answers and new else ({},) * 3
    )
    found: dict[str, list[Point]] = {}
    for job in plan.jobs:
        for point in job.points:
            text = plan.reasons[point.id]
            if text == NEW:
                labels = point.labels
                twins = stored.get(tuple(str(labels[axis]) for axis in PLACE), ())
                changes = [_changes(point, json.loads(specs[twin]), cells.get(cell)) for twin, cell in twins]
                if nearest := min((change for change in changes if change), key=len, default=None):
                    text = f"changed: {', '.join(nearest)}"
            found.setdefault(text, []).append(point)
    return [Reason(text, tuple(points)) for text, points in sorted(found.items(), key=lambda item: -len(item[1]))]


def _stored(answers: Answers) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """By place: ids of the stored points and of their cells."""
    table = answers.table()
    places = zip(*(table[axis].tolist() for axis in PLACE), strict=True)
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for place, point, cell in zip(places, table["point_id"].tolist(), table["cell_id"].tolist(), strict=True):
        found.setdefault(tuple(map(str, place)), []).append((point, cell))
    return found


def _changes(point: Point, spec: Spec, cell: Spec | None) -> list[str]:
    """What differs, as ``training.steps 300 -> 121``."""
    differences = list(_differences({k: v for k, v in spec.items() if k != "cell"}, {**point.spec, "cell": None}))
    if cell is not None:
        differences += _differences(cell, point.cell.spec)
    return differences


def _differences(old: object, new: object, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new} - {"cell"}):
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path} {_brief(old)} -> {_brief(new)}"


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def matching(points: Sequence[Point], expression: str) -> frozenset[str]:
    """Ids of the points that satisfy an expression of the `--where` language.

    Raises:
        QueryError: the expression cannot be understood.
    """
    import pandas as pd

    columns = of_frame(pd.DataFrame([{**p.labels, "point_id": p.id, "cell_id": p.cell.id} for p in points]))
    fit = satisfied(expression, columns, columns.size, "--force")
    return frozenset(columns["point_id"][np.flatnonzero(fit)].tolist())
