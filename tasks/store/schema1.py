"""Schema 1, which stores were written with before: one array per column, one per cell's weights, no
checksums.

Read as it lies, and brought to schema 2 in one transaction by the first coordinator that opens it;
the snapshots before that one stay schema 1. Samples and trajectories are not touched: their layout
is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import zarr

from tasks.store.nodes import Selection, array_in, group_in, values_in
from tasks.store.schema import NO_ROW

_INTEGERS = ("steps", "nfe", "seed", "dim", "samples", "sample_row", "trajectory_row", "trajectory_samples")
_OBJECTS = ("error", "spec")
CURVES = ("losses", "loss_steps", "score_levels", "score_errors")


def point_columns(root: zarr.Group) -> list[str]:
    """Names of the columns; `dim` is worked out where a store of this schema lacks it."""
    return sorted({*group_in(root, "points").array_keys(), "dim"})


def read_points(
    root: zarr.Group, names: Sequence[str] | None = None, rows: Selection | None = None
) -> dict[str, np.ndarray]:
    """As `tasks.store.reading.read_points`."""
    wanted = [name for name in point_columns(root) if name != "spec"] if names is None else list(names)
    if strange := set(wanted) - set(point_columns(root)):
        raise KeyError(f"no column {', '.join(sorted(strange))} in points; there are {', '.join(point_columns(root))}")
    found = {
        n: _dims(root) if n == "dim" and "dim" not in group_in(root, "points") else _column(root, "points", n)
        for n in wanted
    }
    return found if rows is None else {name: values[rows] for name, values in found.items()}


def _column(root: zarr.Group, table: str, name: str) -> np.ndarray:
    values = values_in(group_in(root, table), name)
    if values.dtype.kind not in "OT":
        return values
    return np.array([str(v) for v in values], dtype=object if name in _OBJECTS else str)


def _dims(root: zarr.Group) -> np.ndarray:
    """Dimensions of the points, worked out from where what was kept of their data set lies; -1 if
    that leaves it open.

    A row of an array belongs to one point, so what one data set's points surely have is no other's.
    """
    lengths = {
        (table, name): array_in(group_in(root, table), name).shape[0]
        for table in ("samples", "trajectories")
        for name in group_in(root, table).array_keys()
        if not name.endswith("_levels")
    }
    kept = _kept(root)
    open_sets = {dataset: _possible(rows, lengths) for dataset, rows in kept.items()}
    known: dict[str, int] = {}
    taken: set[tuple[str, str, int]] = set()
    while new := {dataset: dims for dataset, dims in open_sets.items() if dataset not in known and len(dims) == 1}:
        for dataset, dims in new.items():
            known[dataset] = next(iter(dims))
            taken |= {(table, f"{shape}x{known[dataset]}", row) for table, shape, row in kept[dataset]}
        open_sets = {dataset: _possible(rows, lengths, taken) for dataset, rows in kept.items() if dataset not in known}
    return np.array([known.get(d, NO_ROW) for d in _column(root, "points", "dataset").tolist()], dtype=np.int64)


def _kept(root: zarr.Group) -> dict[str, list[tuple[str, str, int]]]:
    """What was kept of each data set's points: table, the shape but for the dimension, row."""
    names = ("dataset", "steps", "samples", "sample_row", "trajectory_samples", "trajectory_row")
    kept: dict[str, list[tuple[str, str, int]]] = {}
    for dataset, steps, n, row, m, path in zip(
        *(_column(root, "points", name).tolist() for name in names), strict=True
    ):
        found = kept.setdefault(dataset, [])
        found += [("samples", str(n), row)] if row != NO_ROW else []
        found += [("trajectories", f"{steps + 1}x{m}", path)] if path != NO_ROW else []
    return kept


def _possible(
    rows: list[tuple[str, str, int]], lengths: dict[tuple[str, str], int], taken: Collection[tuple[str, str, int]] = ()
) -> set[int]:
    """The dimensions with which every one of these rows is there and nobody else's."""
    dims = {int(name.rsplit("x", 1)[1]) for _, name in lengths} if rows else set()
    for table, shape, row in rows:
        free = {d for d in dims if row < lengths.get((table, f"{shape}x{d}"), 0)}
        dims = {d for d in free if (table, f"{shape}x{d}", row) not in taken}
    return dims


def read_cells(root: zarr.Group, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """As `tasks.store.reading.read_cells`."""
    flat = [name for name, values in group_in(root, "cells").arrays() if values.ndim == 1]
    wanted = sorted(set(flat) - {"spec"}) if names is None else list(names)
    return {name: _column(root, "cells", name) for name in wanted}


def read_curves(root: zarr.Group) -> dict[str, np.ndarray]:
    """As `tasks.store.reading.read_curves`."""
    cells = array_in(group_in(root, "cells"), "cell_id").shape[0]
    found = {name: values_in(group_in(root, "cells"), name) for name in CURVES if name in group_in(root, "cells")}
    return {name: _padded(found.get(name, np.zeros((0, 0))), cells) for name in CURVES}


def _padded(values: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([values, np.full((rows - len(values), values.shape[1]), np.nan)])
