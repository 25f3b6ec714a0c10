"""From what training and sweeps answer to rows of the store."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from diffusion.metrics import BaseMetric
from tasks.plan import Point
from tasks.results.facts import process_of, start_of
from tasks.store import Rows
from tasks.work import CellAnswer, PointAnswer, SweepAnswer, TrainingAnswer
from tasks.work.code import Code, sources_text

NO_CODE = Code((), (), ())
"""Nothing of anybody's own."""


def point_row(point: Point, status: str, error: str) -> dict[str, object]:
    """A point's row before it is answered: its labels and what is known of it."""
    start = start_of(point, answered=status == "ok")
    return {
        **point.labels,
        "point_id": point.id,
        "cell_id": point.cell.id,
        "status": status,
        "error": error,
        "spec": json.dumps(point.spec, sort_keys=True),
        "start": start,
        "process": process_of(point, start),
        "nfe": 0,
        "dim": point.cell.dataset.dim,
        "samples": point.samples,
        "sample_row": -1,
        "trajectory_row": -1,
        "trajectory_samples": 0,
        "train_seconds": math.nan,
        "sample_seconds": math.nan,
    }


def _profile(levels: list[float], errors: list[float]) -> dict[str, object]:
    return {"score_levels": levels, "score_errors": errors}


def skipped_rows(points: Iterable[tuple[Point, str]]) -> Rows:
    """Rows of points that have no answer, each with the reason."""
    return Rows(points=[point_row(point, "skipped", reason) for point, reason in points])


def trained_rows(answer: TrainingAnswer, code: Code = NO_CODE) -> Rows:
    """The rows that training adds: cells with their weights, and the points of those that failed.
    `code` is what computed them.
    """
    seconds = {cell.cell.id: cell.seconds for cell in answer.cells}
    return Rows(
        points=[_answer_row(point, seconds, code) for point in answer.points],
        cells=[_cell_row(cell, cell.device or answer.device, code) for cell in answer.cells],
        weights=answer.weights,
    )


def swept_rows(
    answer: SweepAnswer,
    train_seconds: Mapping[str, float],
    code: Code = NO_CODE,
    metrics: Sequence[BaseMetric] = (),
) -> Rows:
    """The rows that a sweep adds; `train_seconds` tells of the cells that were trained before it,
    `code` is what computed them, `metrics` what measured them.
    """
    measured_by = [metric.spec() for metric in metrics]
    seconds = {**train_seconds, **{cell.cell.id: cell.seconds for cell in answer.cells}}
    exact = [_cell_row(cell, answer.device, code) for cell in answer.cells]
    measured = [{"cell_id": cell, **_profile(*profile)} for cell, profile in answer.profiles.items()]
    return Rows(
        points=[_answer_row(point, seconds, code, measured_by) for point in answer.points],
        cells=[*exact, *measured],
        samples={one.point.id: one.samples for one in answer.points if one.samples is not None},
        trajectories={one.point.id: one.trajectory for one in answer.points if one.trajectory is not None},
    )


def _answer_row(
    answer: PointAnswer, train_seconds: Mapping[str, float], code: Code, measured_by: Sequence[object] = ()
) -> dict[str, object]:
    row = point_row(answer.point, "failed" if answer.error else "ok", answer.error or "")
    row |= _sources(code, answer.point.cell.spec, answer.point.settings.spec, measured_by)
    row |= {"nfe": max(answer.nfe, 0), "sample_seconds": answer.seconds, **answer.metrics}
    row["train_seconds"] = train_seconds.get(answer.point.cell.id, math.nan)
    return row


def _sources(code: Code, *specs: object) -> dict[str, object]:
    text = sources_text(code, *specs)
    return {"sources": text} if text else {}


def _cell_row(answer: CellAnswer, device: str, code: Code) -> dict[str, object]:
    return {
        **_sources(code, answer.cell.spec),
        "cell_id": answer.cell.id,
        "spec": json.dumps(answer.cell.spec, sort_keys=True),
        "status": "failed" if answer.error else "ok",
        "error": answer.error or "",
        "device": device,
        "train_seconds": answer.seconds,
        **({"losses": answer.losses, "loss_steps": answer.loss_steps} if answer.losses else {}),
    }
