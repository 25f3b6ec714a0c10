"""What stands behind a marker: its points, and what the store keeps of each: samples, trajectory,
losses, spec, provenance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tasks.columns import COORDINATES, FACTS, MetricColumns
from tasks.explorer.copies import Asked, both, condition
from tasks.explorer.look import Look, settled
from tasks.explorer.opened import OpenedStore
from tasks.explorer.parts import column, plain
from tasks.plain import Plain, Spec
from tasks.query import query
from tasks.where.columns import PointColumns

if TYPE_CHECKING:
    import xarray as xr

MOST_POINTS = 200
_SAMPLES, _PATHS, _IMAGES, _PLACES = 3000, 60, 24, 300
_FEWEST_PIXELS = 16
_DIGITS = 5


def points_behind(points: PointColumns, look: Look, marker: str) -> Spec:
    """The points that a marker stands for.

    Args:
        points: as for a view.
        look: whose filter holds for them as well.
        marker: the condition that belongs to the marker or row.

    Raises:
        QueryError: a condition cannot be understood.
    """
    look = settled(look, points)
    metric = str(look.metric)
    where = both(look.where, marker)
    asked = Asked("the points of this row", where, (), (metric,))
    frame = query(points, where, (), [metric])
    some = frame.head(MOST_POINTS)
    names = [name for name in (*COORDINATES, *FACTS) if name in frame]
    shared = {name: plain(frame[name].iloc[0]) for name in names if len(frame) and frame[name].nunique() == 1}
    telling = [name for name in names if name not in shared and name not in ("cell_id", "point_id")]
    shown = list(dict.fromkeys(["seed", *telling, "status", metric]))
    return {
        "condition": marker,
        "shared": {name: value for name, value in shared.items() if name not in ("cell_id", "point_id")},
        "columns": shown,
        "rows": [list(row) for row in zip(*(column(some[name]) for name in shown), strict=True)],
        "ids": [str(one) for one in some["point_id"]],
        "total": len(frame),
        "asked": [asked.document(points)],
    }


def point(store: OpenedStore, look: Look, point_id: str) -> Spec:
    """All that a store keeps of one point.

    Raises:
        NotStored: there is no such point.
    """
    points = store.points(look.study, look.as_of)
    answers = store.answers(look.study, look.as_of)
    spec = answers.specs_of([point_id])[point_id]
    row = int(np.flatnonzero(points["point_id"] == point_id)[0])
    labels = {name: plain(points[name][row]) for name in points.labels}
    cell = str(labels["cell_id"])
    samples, path = answers.samples(point_id), answers.trajectory(point_id)
    losses, errors = store.curves(look.study, look.as_of)
    asked = Asked("this point", condition([("point_id", point_id)]), (), ())
    return {
        "id": point_id,
        "labels": {name: value for name, value in labels.items() if value != ""},
        "metrics": _metrics(points, row),
        "seconds": {name: plain(points[name][row]) for name in ("train_seconds", "sample_seconds") if name in points},
        "samples": None if samples is None else _samples(np.asarray(samples.values)),
        "trajectory": None if path is None else _trajectory(path),
        "losses": _curve(losses, cell, "step"),
        "score_errors": _curve(errors, cell, "nsr"),
        "spec": spec,
        "cell": _cell(answers.cell_specs, cell),
        "provenance": answers.provenance,
        "asked": [asked.document(points)],
    }


def _metrics(points: PointColumns, row: int) -> list[Spec]:
    found = []
    for name in points.metrics():
        of = MetricColumns(name)
        beside = {"value": name, "floor": of.floor, "limit": of.limit, **of.parts}
        values = {word: plain(points[own][row]) for word, own in beside.items() if own in points}
        if any(value is not None for value in values.values()):
            found.append({"name": name, **values})
    return found


def _cell(cells: Mapping[str, Spec], cell: str) -> Spec | None:
    try:
        return cells[cell]
    except KeyError:
        return None


def _samples(values: np.ndarray) -> Spec:
    """Samples ``[sample, coordinate]`` as columns of numbers, or as images."""
    count, dim = values.shape
    common = {"count": count, "dim": dim}
    if side := _side(dim):
        return {**common, "side": side, "images": [_numbers(one) for one in values[:_IMAGES]]}
    some = values[:_SAMPLES]
    return {**common, "columns": [_numbers(some[:, k]) for k in range(min(dim, 3))], "shown": len(some)}


def _side(dim: int) -> int:
    """The side of square images of so many pixels; 0 for what is rather a point in space."""
    side = math.isqrt(dim)
    return side if side * side == dim >= _FEWEST_PIXELS else 0


def _trajectory(path: xr.DataArray) -> Spec:
    """States ``[level, sample, coordinate]`` of some samples, and the level's place in noise."""
    states = np.asarray(path.values)
    levels, count, dim = states.shape
    alpha, sigma = (np.asarray(path[name].values) for name in ("alpha", "sigma"))
    with np.errstate(all="ignore"):
        noise = np.where(alpha > 0, sigma / alpha, np.inf)
    common = {"levels": levels, "count": count, "dim": dim, "noise": column(noise), "time": column(path["time"].values)}
    if side := _side(dim):
        at = np.unique(np.linspace(0, levels - 1, 8).round().astype(int))
        return {
            **common,
            "side": side,
            "at": at.tolist(),
            "images": [[_numbers(s) for s in states[at, k]] for k in range(min(3, count))],
        }
    some = states[:, :_PATHS]
    return {**common, "paths": [[_numbers(some[:, n, k]) for k in range(min(dim, 3))] for n in range(some.shape[1])]}


def _curve(curves: xr.DataArray, cell: str, place: str) -> Spec | None:
    """A curve of a cell; None if there is none."""
    rows = np.flatnonzero(curves["cell_id"].values == cell)
    if not len(rows):
        return None
    x, y = (np.asarray(values)[rows[0]] for values in (curves[place].values, curves.values))
    there = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not len(there):
        return None
    there = there[np.unique(np.linspace(0, len(there) - 1, _PLACES).round().astype(int))]
    return {"x": _numbers(x[there]), "y": _numbers(y[there])}


def _numbers(values: np.ndarray) -> list[Plain]:
    """Numbers of five digits for a picture; None where there is none."""
    return [float(f"{v:.{_DIGITS}g}") if math.isfinite(v) else None for v in np.asarray(values, dtype=float).tolist()]
