"""Answers whose numbers a test chooses: planned, written and read as those of a run; only nothing is computed.

Studies are read by `Study.from_spec` and planned by `make_plan`; rows are made by `trained_rows` and
`swept_rows`, committed to a store and read by
`ModelledAnswers`. So ids, labels, specs and columns are those of the product, and what the product refuses cannot be asked for.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.plan import Cell, Point, make_plan
from tasks.results.models import ModelledAnswers
from tasks.results.provenance import provenance
from tasks.results.rows import swept_rows, trained_rows
from tasks.results.stored import record
from tasks.store import Store
from tasks.study import Study
from tasks.work import CellAnswer, PointAnswer, SweepAnswer, TrainingAnswer

SMALL: dict[str, Any] = {"steps": 10, "batch": 16, "width": 8, "depth": 1, "data": 50}


@dataclass(frozen=True)
class Told:
    """What is stored of one point.

    Args:
        metrics: Values by column; ``<column>_floor`` and, of exact rows, ``<column>_limit`` beside them. A floor that is not given is 0.
        error: Why it failed; empty if it is answered.
        nfe: Evaluations of the network; by default what the sampler says of its steps.
        samples: Kept samples ``[n, dim]``.
        trajectory: Kept states ``[level, sample, dim]``, and time, alpha and sigma ``[3, level]``.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    nfe: int | None = None
    samples: np.ndarray | None = None
    trajectory: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class OfCell:
    """What is stored of a cell besides its points: training losses, and the errors of its score at noise-to-signal ratios."""

    losses: Sequence[float] = ()
    levels: Sequence[float] = ()
    errors: Sequence[float] = ()


def chosen(
    spec: Mapping[str, Any],
    tell: Callable[[Point], Told | None],
    of_cell: Callable[[Cell], OfCell] = lambda _cell: OfCell(),
    uri: str | None = None,
) -> ModelledAnswers:
    """The answers of a study to whose points `tell` gives the numbers; None leaves a point unanswered.

    The store lies in a temporary folder unless `uri` says otherwise. `spec` has the keys of a study; what is left out of ``name``,
    ``datasets``, ``metrics``, ``samples`` and ``training`` is that of a small one on the line.
    """
    usual = {"name": "chosen", "datasets": ["uniform"], "metrics": ["w1"], "samples": 100}
    study = Study.from_spec({**usual, "training": SMALL, **spec})
    plan = make_plan(study, {}, ())
    store = Store.create(uri or _folder())
    points = [
        _answered(point, told)
        for point in plan.points
        if point.id not in plan.impossible and (told := tell(point)) is not None
    ]
    cells = {answer.point.cell.id: answer.point.cell for answer in points}
    told_of = {cell_id: of_cell(cell) for cell_id, cell in cells.items()}
    made = [_trained(cell, told_of[cell.id]) for cell in cells.values()]
    trained = TrainingAnswer([one for one in made if one.cell.training], [], "cpu", 0.0)
    swept = SweepAnswer(
        [one for one in made if not one.cell.training],
        points,
        {cell_id: (list(one.levels), list(one.errors)) for cell_id, one in told_of.items() if one.levels},
        "cpu",
        0.0,
    )
    with store.coordinate() as coordinator:
        origin = provenance(study.name)
        record(coordinator, plan, origin)
        if trained.cells:
            coordinator.commit(trained_rows(trained), "trained chosen", origin)
        coordinator.commit(swept_rows(swept, {one.cell.id: one.seconds for one in made}), "swept chosen", origin)
    return ModelledAnswers(store, study.name)


def _answered(point: Point, told: Told) -> PointAnswer:
    nfe = point.sampler.evaluations(point.steps) if told.nfe is None else told.nfe
    if told.error:
        return PointAnswer(point, told.error, nfe)
    measured = [name for name in told.metrics if not name.endswith(("_floor", "_limit"))]
    floors = {f"{name}_floor": told.metrics.get(f"{name}_floor", 0.0) for name in measured}
    versions = {f"{name}_version": 1.0 for name in measured}
    return PointAnswer(point, None, nfe, 0.1, {**told.metrics, **floors, **versions}, told.samples, told.trajectory)


def _trained(cell: Cell, told: OfCell) -> CellAnswer:
    steps = [i + 1 for i in range(len(told.losses))]
    return CellAnswer(cell, None, 1.0 if cell.training else 0.0, list(told.losses), steps, None)


def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="diffatlas-chosen-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(Path(folder) / "store")
