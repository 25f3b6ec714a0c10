"""From an older schema to the present one, in one transaction: the store is of one or the other,
never between.

The snapshots before it stay as they are. What the older rows do not say
(`tasks.store.schema.FACTS`, and what is known of metrics) is worked out from their specs by whoever
knows what a spec means: the store does not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import zarr

from tasks.failpoints import failpoint
from tasks.store import large, schema1
from tasks.store.nodes import array_in, group_in
from tasks.store.reading import read_points, read_study, read_weights, study_names, trained_cells
from tasks.store.rows import Index, prepared, put
from tasks.store.schema import CELLS, GROUPS, POINTS, SCHEMA, Derived, schema_in
from tasks.store.storage import Repository
from tasks.store.tables import widen
from tasks.store.writing import lay_out, put_metrics, put_study

Derive = Callable[[zarr.Group], Derived]
"""From the root group of a store of an older schema to what its rows do not say."""

_WEIGHTS_AT_ONCE = 256


def migrate(repository: Repository, derive: Derive) -> str:
    """Bring a store of an older schema to the present one; the new snapshot's id."""
    session, root, before = repository.begin()
    old = schema_in(root)
    derived = derive(root)
    facts = _entries({name: np.asarray(texts, dtype=object) for name, texts in derived.points.items()})
    if old == 1:
        _from_1(root, facts)
    else:
        _from_2(root, facts)
    put_metrics(root, derived.metrics)
    failpoint("migrate.before-commit")
    message = f"migrate from schema {old} to {SCHEMA}: the same answers, and facts beside them that were in their specs"
    snapshot = repository.commit(session, message, {"schema": str(SCHEMA), "before": before})
    failpoint("migrate.after-commit")
    return snapshot


def _from_2(root: zarr.Group, facts: list[dict[str, object]]) -> None:
    """Three labels more for each point; everything else stays where it lies."""
    for name in GROUPS:
        root.require_group(name)
    root.attrs["schema"] = SCHEMA
    points = group_in(root, "points")
    widen(points, POINTS.labels)
    ids = read_points(root, [POINTS.key])[POINTS.key].tolist()
    rows = [{POINTS.key: point, **texts} for point, texts in zip(ids, facts, strict=True)]
    put(points, POINTS, prepared(POINTS, rows), Index.of(points), failpoint)


def _from_1(root: zarr.Group, facts: list[dict[str, object]]) -> None:
    """Tables and studies made anew, weights moved; samples and trajectories have the same layout."""
    points = _entries(schema1.read_points(root, schema1.point_columns(root)))
    points = [{**row, **texts} for row, texts in zip(points, facts, strict=True)]
    cells = _entries(
        schema1.read_cells(root, [n for n, values in group_in(root, "cells").arrays() if values.ndim == 1])
    )
    curves = schema1.read_curves(root)
    for row, cell in enumerate(cells):
        cell.update({name: _trimmed(values[row]) for name, values in curves.items()})
    studies = {name: read_study(root, name) for name in study_names(root)}
    weights = _weights(root)
    for name in ("points", "cells", "studies"):
        del root[name]
    lay_out(root)
    for cell in cells:
        cell.update(weights.pop(str(cell["cell_id"]), {}))
    cells += [{"cell_id": cell, **values} for cell, values in weights.items()]
    for name, table, rows in (("points", POINTS, points), ("cells", CELLS, cells)):
        group = group_in(root, name)
        put(group, table, prepared(table, rows), Index.of(group), failpoint)
    for name, (spec, ids) in studies.items():
        put_study(root, name, spec, ids.tolist())


def _entries(columns: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """A dictionary per row; numbers that are not known are left out, since absent and unknown are
    the same.
    """
    names = list(columns)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return [{n: v for n, v in zip(names, row, strict=True) if v == v} for row in rows]


def _trimmed(curve: np.ndarray) -> np.ndarray | None:
    finite = np.flatnonzero(np.isfinite(curve))
    return curve[: finite[-1] + 1] if len(finite) else None


def _weights(root: zarr.Group) -> dict[str, dict[str, int]]:
    """Move the weights of every cell from an array of its own to a row of the array of its size;
    where each lies.
    """
    cells, stored = sorted(trained_cells(root)), group_in(root, "weights")
    placed: dict[str, dict[str, int]] = {}
    sizes: dict[int, list[str]] = {}
    for cell in cells:
        sizes.setdefault(array_in(stored, cell).shape[0], []).append(cell)
    for size, of_size in sizes.items():
        for begin in range(0, len(of_size), _WEIGHTS_AT_ONCE):
            some = of_size[begin : begin + _WEIGHTS_AT_ONCE]
            values = [np.frombuffer(read_weights(root, cell), dtype=np.uint8) for cell in some]
            for cell, (row, check) in zip(some, large.append(stored, str(size), values), strict=True):
                placed[cell] = {"weights_row": row, "weights_size": size, "weights_check": check}
    for cell in cells:
        del stored[cell]
    return placed
