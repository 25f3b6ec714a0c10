"""Everything that a snapshot holds, as plain values that can be compared: addresses within the
store and seconds left out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.store import (
    Store,
    point_columns,
    read_cells,
    read_curves,
    read_places,
    read_points,
    read_samples,
    read_study,
    read_trajectory,
    read_weights,
    study_names,
    trained_cells,
)

_NOT_COMPARED = {"train_seconds", "sample_seconds", "sample_row", "trajectory_row"}

_NONE_OWN = ("sources", "")  # of a store that has own components in other cells; else it lacks the column

Row = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Contents:
    """A snapshot: rows by id, numbers as their exact hexadecimal text, arrays as digests; what is
    not told is left out.
    """

    points: dict[str, Row]
    cells: dict[str, Row]
    studies: dict[str, tuple[str, tuple[str, ...]]]

    def statuses(self) -> set[str]:
        """Those of its points."""
        return {str(dict(row)["status"]) for row in self.points.values()}


def contents(store: Store, as_of: str | None = None) -> Contents:
    """Read a snapshot to its last byte. Raises `StoreUnavailable` if any of it is not what was
    written.
    """
    root = store.group(as_of)
    with store.reading("all of it"):
        points = _rows(read_points(root, point_columns(root)), "point_id")
        places = read_places(root)
        for point in points:
            samples, path = read_samples(root, point, places), read_trajectory(root, point, places)
            points[point] |= {} if samples is None else {"samples kept": _digest(samples)}
            points[point] |= {} if path is None else {"trajectory kept": _digest(*path)}
        table = read_cells(root, ["cell_id", "spec", "status", "error", "device"])
        cells = _rows(table, "cell_id")
        for name, curves in read_curves(root).items():
            for cell, curve in zip(table["cell_id"].tolist(), curves, strict=True):
                cells[cell] |= {name: _digest(curve[np.isfinite(curve)])}
        for cell in trained_cells(root):
            cells.setdefault(cell, {})["weights"] = hashlib.sha256(read_weights(root, cell)).hexdigest()
        studies = {name: read_study(root, name) for name in study_names(root)}
    return Contents(
        {point: tuple(sorted(row.items())) for point, row in points.items()},
        {cell: tuple(sorted(row.items())) for cell, row in cells.items()},
        {name: (json.dumps(spec, sort_keys=True), tuple(ids.tolist())) for name, (spec, ids) in studies.items()},
    )


def snapshots(store: Store, known: Container[str] = ()) -> Iterator[tuple[str, Contents]]:
    """Every snapshot of a store that holds tables and is not known yet, newest first, with its
    contents.
    """
    for entry in store.history()[:-1]:  # the oldest is that of the empty repository
        if entry["snapshot"] not in known:
            yield entry["snapshot"], contents(store, entry["snapshot"])


def _rows(columns: dict[str, np.ndarray], key: str) -> dict[str, dict[str, Any]]:
    names = [name for name in columns if name not in _NOT_COMPARED]
    found = {}
    for values in zip(*(columns[name].tolist() for name in names), strict=True):
        named = zip(names, values, strict=True)
        row = {name: _exact(value) for name, value in named if not _absent(value) and (name, value) != _NONE_OWN}
        assert row[key] not in found, f"{row[key]} has two rows"
        found[row[key]] = row
    return found


def _absent(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _exact(value: Any) -> Any:
    return value.hex() if isinstance(value, float) else value


def _digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(str((a.shape, a.dtype)).encode() + a.tobytes() for a in arrays)).hexdigest()
