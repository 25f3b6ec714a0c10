"""Answers whose numbers a test chooses: planned, written and read as those of a run; only nothing
is computed.

Studies are read by `Study.from_spec` and planned by `points_of`; rows are made by `trained_rows`
and `swept_rows`, committed to a store and read by `ModelledAnswers`. So ids, labels, specs and
columns are those of the product, and what the product refuses cannot be asked for.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.metrics import Profile
from tasks.columns import MetricColumns
from tasks.plan import Cell, Point, make_plan
from tasks.plan.expansion import points_of
from tasks.results.models import ModelledAnswers
from tasks.results.provenance import provenance
from tasks.results.rows import swept_rows, trained_rows
from tasks.results.stored import record
from tasks.store import Store
from tasks.study import Study
from tasks.work import CellAnswer, PointAnswer, SweepAnswer, TrainingAnswer
from tests.temporary import shared_folder

SMALL: dict[str, Any] = {"steps": 10, "batch": 16, "width": 8, "depth": 1, "data": 50}
USUAL: dict[str, Any] = {"name": "chosen", "metrics": ["w1"], "samples": 100, "training": SMALL}

Wish = Mapping[str, Any]


@dataclass(frozen=True)
class GivenAnswer:
    """What is stored of one point.

    Args:
        metrics: Values by column; ``<column>_floor`` and, of exact rows, ``<column>_limit`` beside
            them. A floor that is not given is 0.
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
    """What is stored of a cell besides its points: training losses, the errors of its score at
    noise-to-signal ratios, weights.
    """

    losses: Sequence[float] = ()
    levels: Sequence[float] = ()
    errors: Sequence[float] = ()
    weights: bytes | None = None


def chosen(
    spec: Mapping[str, Any],
    tell: Callable[[Point], GivenAnswer | None],
    of_cell: Callable[[Cell], OfCell] = lambda _cell: OfCell(),
) -> ModelledAnswers:
    """The answers of a study to whose points `tell` gives the numbers; None leaves a point
    unanswered.

    The store lies in a temporary folder. `spec` has the keys of a study; what is left out is that
    of a small one on the line.
    """
    study = Study.from_spec({**USUAL, **({} if "grids" in spec else {"datasets": ["uniform"]}), **spec})
    plan = make_plan(study, {}, ())
    store = Store.create(_folder())
    versions = {metric.column: metric.version for metric in study.metrics}
    points = [
        _answered(point, found, versions)
        for point in plan.points
        if point.id not in plan.impossible and (found := tell(point)) is not None
    ]
    cells = {answer.point.cell.id: answer.point.cell for answer in points}
    found_of = {cell_id: of_cell(cell) for cell_id, cell in cells.items()}
    made = [_cell_answer(cell, found_of[cell.id]) for cell in cells.values()]
    trained = TrainingAnswer([one for one in made if one.cell.training], [], "cpu", 0.0)
    swept = SweepAnswer(
        [one for one in made if not one.cell.training],
        points,
        {cell_id: Profile(list(one.levels), list(one.errors)) for cell_id, one in found_of.items() if len(one.levels)},
        "cpu",
        0.0,
    )
    origin = provenance(study.name)
    with store.coordinate() as coordinator:
        record(coordinator, plan, origin)
        if trained.cells:
            coordinator.commit(trained_rows(trained), "trained chosen", origin)
        coordinator.commit(swept_rows(swept, {one.cell.id: one.seconds for one in made}), "swept chosen", origin)
    return ModelledAnswers(store, study.name)


_AXES = ("dataset", "formulation", "schedule", "sampler", "grid", "guidance", "other_schedule")
_OF_A_POINT = {*_AXES, "steps", "seed", "error", "nfe", "samples", "trajectory"}


def answers_to(
    wishes: Iterable[Wish], of_cell: Callable[[Cell], OfCell] = lambda _cell: OfCell(), **study: Any
) -> ModelledAnswers:
    """The answers of a study that asks what is wished, and nothing else.

    Args:
        wishes: Of each point ``dataset``, ``formulation`` (``exact``, or one that is trained),
            ``schedule`` (of the model), ``sampler``, ``grid``, ``guidance``, ``other_schedule`` (to
            sample on), as a study spells them, ``steps`` and ``seed``; ``error``, ``nfe``,
            ``samples`` and ``trajectory`` as `GivenAnswer` has them; and its metrics by column.
            What is left out: the exact denoiser of ``uniform`` on ``edm``, asked by ``heun`` in 10
            steps with seed 0.
        of_cell: What is stored of cells.
        study: Other keys of the study.
    """
    wishes = list(wishes)
    of_block: dict[str, list[Wish]] = {}
    for wish in wishes:
        of_block.setdefault(repr([wish.get(axis) for axis in _AXES]), []).append(wish)
    columns = dict.fromkeys(name for wish in wishes for name in wish if name not in _OF_A_POINT)
    metrics = _measured(columns) or ["w1"]
    drawn = {len(wish["samples"]) for wish in wishes if "samples" in wish} or {USUAL["samples"]}
    assert len(drawn) == 1, "a study draws as many samples of every point"
    usual = {**USUAL, "metrics": metrics, "samples": drawn.pop(), **study}
    blocks = {key: _block(own) for key, own in of_block.items()}
    found: dict[str, Wish] = {}
    for key, own in of_block.items():
        requested = {(wish.get("steps", 10), wish.get("seed", 0)): wish for wish in own}
        for point in points_of(Study.from_spec({**usual, "grids": [blocks[key]]})):
            exact = point.cell.training is None
            requested_here = requested.get((point.steps, point.cell.seed))
            if requested_here is not None and exact == (own[0].get("formulation", "exact") == "exact"):
                found[point.id] = requested_here
    assert len(found) == len(wishes), "a wish that no point of a study answers"
    return chosen({**usual, "grids": list(blocks.values())}, lambda point: _given_answer(found.get(point.id)), of_cell)


def _block(wishes: Sequence[Wish]) -> dict[str, Any]:
    """The block of a study that asks what these wishes have in common, in all their steps and by
    all their seeds.
    """
    one = wishes[0]
    formulation, schedule = one.get("formulation", "exact"), one.get("schedule")
    sampler = one.get("sampler", "heun")
    beside = {"grid": one.get("grid"), "guidance": one.get("guidance"), "schedule": one.get("other_schedule")}
    block = {
        "datasets": [one.get("dataset", "uniform")],
        "formulations": [formulation],
        "samplers": [
            {
                **(sampler if isinstance(sampler, dict) else {"name": sampler}),
                **{key: value for key, value in beside.items() if value is not None},
            }
        ],
        "steps": sorted({wish.get("steps", 10) for wish in wishes}),
        "seeds": sorted({wish.get("seed", 0) for wish in wishes}),
    }
    if formulation == "exact":
        return {**block, "formulations": [{"name": "exact", "schedule": schedule or "edm"}]}
    return {**block, "schedules": [schedule]} if schedule else block


def _given_answer(wish: Wish | None) -> GivenAnswer | None:
    if wish is None:
        return None
    metrics = {name: value for name, value in wish.items() if name not in _OF_A_POINT}
    return GivenAnswer(metrics, wish.get("error", ""), wish.get("nfe"), wish.get("samples"), wish.get("trajectory"))


def _answered(point: Point, found: GivenAnswer, versions: Mapping[str, int]) -> PointAnswer:
    nfe = point.sampler.evaluations(point.steps) if found.nfe is None else found.nfe
    if found.error:
        return PointAnswer(point, found.error, nfe)
    measured = [MetricColumns(name) for name in _measured(found.metrics)]
    floors = {of.floor: found.metrics.get(of.floor, 0.0) for of in measured}
    measured_by = {of.version: float(versions[of.name]) for of in measured}
    metrics = {**found.metrics, **floors, **measured_by}
    return PointAnswer(point, None, nfe, 0.1, metrics, found.samples, found.trajectory)


def _measured(names: Iterable[str]) -> list[str]:
    """The metrics among the columns of a wish."""
    names = list(names)
    beside = {column for name in names for column in MetricColumns(name).beside}
    return [name for name in names if name not in beside]


def _cell_answer(cell: Cell, found: OfCell) -> CellAnswer:
    steps = [i + 1 for i in range(len(found.losses))]
    return CellAnswer(cell, None, 1.0 if cell.training else 0.0, list(found.losses), steps, found.weights)


@cache
def _root() -> Path:
    return shared_folder("chosen")


def _folder() -> str:
    return str(_root() / uuid.uuid4().hex)
