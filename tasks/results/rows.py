"""From a shard's answers to rows of the store."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.plan import Point
from tasks.results.facts import process_of, start_of
from tasks.store import Rows
from tasks.work import ShardAnswer


def _point_row(point: Point, status: str, error: str) -> dict[str, Any]:
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


def _profile(profiles: Mapping[str, tuple[list[float], list[float]]], cell_id: str) -> dict[str, Any]:
    if cell_id not in profiles:
        return {}
    levels, errors = profiles[cell_id]
    return {"score_levels": levels, "score_errors": errors}


def skipped_rows(points: Iterable[tuple[Point, str]]) -> Rows:
    """Rows of points that have no answer, each with the reason."""
    return Rows(points=[_point_row(point, "skipped", reason) for point, reason in points])


def rows_of(answer: ShardAnswer, train_seconds: Mapping[str, float]) -> Rows:
    """The rows that a shard adds; `train_seconds` tells of cells that were trained before."""
    seconds = {**train_seconds, **{cell.cell.id: cell.seconds for cell in answer.cells}}
    points = []
    for told in answer.points:
        row = _point_row(told.point, "failed" if told.error else "ok", told.error or "")
        row |= {"nfe": max(told.nfe, 0), "sample_seconds": told.seconds, **told.metrics}
        row["train_seconds"] = seconds.get(told.point.cell.id, math.nan)
        points.append(row)
    cells: list[dict[str, Any]] = [
        {
            "cell_id": told.cell.id,
            "spec": json.dumps(told.cell.spec, sort_keys=True),
            "status": "failed" if told.error else "ok",
            "error": told.error or "",
            "device": answer.device,
            "train_seconds": told.seconds,
            **({"losses": told.losses, "loss_steps": told.loss_steps} if told.losses else {}),
        }
        for told in answer.cells
    ]
    trained = {cell["cell_id"] for cell in cells}
    cells = [cell | _profile(answer.profiles, cell["cell_id"]) for cell in cells]
    cells += [{"cell_id": i, **_profile(answer.profiles, i)} for i in answer.profiles if i not in trained]
    return Rows(
        points=points,
        cells=cells,
        weights={told.cell.id: told.weights for told in answer.cells if told.weights is not None},
        samples={told.point.id: told.samples for told in answer.points if told.samples is not None},
        trajectories={told.point.id: told.trajectory for told in answer.points if told.trajectory is not None},
    )
