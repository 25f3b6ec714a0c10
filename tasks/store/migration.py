"""From schema 1 to schema 2, in one transaction: the store is of one or the other, never between."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.failpoints import failpoint
from tasks.store import large, schema1
from tasks.store.reading import read_study, read_weights, study_names, trained_cells
from tasks.store.rows import Index, prepared, put
from tasks.store.schema import CELLS, POINTS
from tasks.store.storage import Repository
from tasks.store.writing import lay_out, put_study

_WEIGHTS_AT_ONCE = 256


def migrate(repository: Repository) -> str:
    """Bring a store of schema 1 to schema 2; the new snapshot's id. The snapshots before it stay as they are."""
    session, root, before = repository.begin()
    points = _entries(schema1.read_points(root, schema1.point_columns(root)))
    cells = _entries(schema1.read_cells(root, [n for n, values in root["cells"].arrays() if values.ndim == 1]))
    curves = schema1.read_curves(root)
    for row, cell in enumerate(cells):
        cell.update({name: _trimmed(values[row]) for name, values in curves.items()})
    studies = {name: read_study(root, name) for name in study_names(root)}
    weights = _weights(root)
    for name in ("points", "cells", "studies"):
        del root[name]
    lay_out(root)
    for cell in cells:
        cell.update(weights.pop(cell["cell_id"], {}))
    cells += [{"cell_id": cell, **told} for cell, told in weights.items()]
    put(root["points"], POINTS, prepared(POINTS, points), Index.of(root["points"]), failpoint)
    put(root["cells"], CELLS, prepared(CELLS, cells), Index.of(root["cells"]), failpoint)
    for name, (spec, ids) in studies.items():
        put_study(root, name, spec, ids.tolist())
    failpoint("migrate.before-commit")
    message = "migrate from schema 1 to 2: the same answers, with checksums"
    snapshot = repository.commit(session, message, {"schema": "2", "before": before})
    failpoint("migrate.after-commit")
    return snapshot


def _entries(columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A dictionary per row; numbers that are not known are left out, since untold and unknown are the same."""
    names = list(columns)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return [{n: v for n, v in zip(names, row, strict=True) if v == v} for row in rows]


def _trimmed(curve: np.ndarray) -> np.ndarray | None:
    told = np.flatnonzero(np.isfinite(curve))
    return curve[: told[-1] + 1] if len(told) else None


def _weights(root: Any) -> dict[str, dict[str, int]]:
    """Move the weights of every cell from an array of its own to a row of the array of its size; where each lies."""
    cells, placed = sorted(trained_cells(root)), {}
    sizes: dict[int, list[str]] = {}
    for cell in cells:
        sizes.setdefault(root["weights"][cell].shape[0], []).append(cell)
    for size, of_size in sizes.items():
        for begin in range(0, len(of_size), _WEIGHTS_AT_ONCE):
            some = of_size[begin : begin + _WEIGHTS_AT_ONCE]
            values = [np.frombuffer(read_weights(root, cell), dtype=np.uint8) for cell in some]
            for cell, (row, check) in zip(some, large.append(root["weights"], str(size), values), strict=True):
                placed[cell] = {"weights_row": row, "weights_size": size, "weights_check": check}
    for cell in cells:
        del root["weights"][cell]
    return placed
