"""Reading a snapshot, whichever schema it was written with: the one face of the layout that other
modules use.

`root` is what `Store.group` returns. Everything here raises what damaged storage raises;
`Store.reading` turns that into `StoreUnavailable`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import zarr

from tasks.plain import Spec
from tasks.store import large, schema1, tables
from tasks.store.checks import crc
from tasks.store.errors import Damaged, NotStored
from tasks.store.nodes import Selection, group_in, values_in
from tasks.store.schema import CELLS, NO_ROW, POINTS, UNKNOWN, MetricFacts, key_of_study, schema_in, study_of_key
from tasks.texts import Coded

_WITH_FACTS = 3


def _old(root: zarr.Group) -> bool:
    return schema_in(root) == 1


def point_columns(root: zarr.Group) -> list[str]:
    """Names of the columns of `read_points`, specs included."""
    if _old(root):
        return schema1.point_columns(root)
    columns = tables.columns_of(group_in(root, "points"))
    names = [name for kind in columns for name in columns[kind] if kind != "integers" or not name.endswith("_check")]
    return [POINTS.key, *names, "spec"]


def read_points(
    root: zarr.Group, names: Sequence[str] | None = None, rows: Selection | None = None
) -> dict[str, np.ndarray]:
    """Columns of the points by name: all but `spec`, or those named; all rows, or those that `rows`
    selects.

    Texts come as numpy's fixed-width ones; `error` and `spec`, which may be long, as Python
    strings.

    Raises:
        KeyError: a column is not there.
    """
    if _old(root):
        return schema1.read_points(root, names, rows)
    return tables.read(group_in(root, "points"), POINTS.key, names, rows)


def read_coded_points(root: zarr.Group) -> dict[str, Coded]:
    """All columns of the points but `spec`, as `read_points` has them, not decoded."""
    return dict(schema1.read_points(root)) if _old(root) else tables.read_coded(group_in(root, "points"), POINTS.key)


def read_cells(root: zarr.Group, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Columns of the cells by name, one row per cell that was trained or looked at: all but `spec`,
    or those named.
    """
    if _old(root):
        return schema1.read_cells(root, names)
    return tables.read(group_in(root, "cells"), CELLS.key, names)


def read_curves(root: zarr.Group) -> dict[str, np.ndarray]:
    """Losses and errors of the score, each ``[cell, place]`` in the order of `read_cells`, NaN
    where there is none.
    """
    return schema1.read_curves(root) if _old(root) else tables.read_curves(group_in(root, "cells"), CELLS)


def trained_cells(root: zarr.Group) -> set[str]:
    """Ids of the cells whose weights are stored."""
    if _old(root):
        return set(group_in(root, "weights").array_keys())
    cells = tables.read(group_in(root, "cells"), CELLS.key, ["cell_id", "weights_row"])
    return {str(cell) for cell in cells["cell_id"][cells["weights_row"] != NO_ROW]}


def read_weights(root: zarr.Group, cell_id: str) -> bytes:
    """The safetensors file of a trained cell.

    Raises:
        NotStored: the store holds no weights of the cell.
    """
    if _old(root):
        if cell_id not in trained_cells(root):
            raise NotStored(f"no weights of cell {cell_id!r} here")
        return values_in(group_in(root, "weights"), cell_id).tobytes()
    checks = ["weights_row", "weights_size", "weights_check"]
    cells = tables.read(group_in(root, "cells"), CELLS.key, ["cell_id", *checks], hidden=True)
    found = np.flatnonzero((cells["cell_id"] == cell_id) & (cells["weights_row"] != NO_ROW))
    if not len(found):
        raise NotStored(f"no weights of cell {cell_id!r} here")
    row, size, check = (int(cells[name][found[0]]) for name in checks)
    return large.read(group_in(root, "weights"), [str(size)], row, check)[0].tobytes()


def read_places(root: zarr.Group) -> dict[str, np.ndarray]:
    """Where the samples and trajectories of all points lie, for many calls of `read_samples` and
    `read_trajectory`.
    """
    names = ["point_id", "steps", "dim", "samples", "sample_row", "trajectory_row", "trajectory_samples"]
    if not _old(root):
        return tables.read(
            group_in(root, "points"), POINTS.key, [*names, "sample_check", "trajectory_check"], hidden=True
        )
    found = schema1.read_points(root, names)
    unknown = np.full(len(found["point_id"]), UNKNOWN)
    return {**found, "sample_check": unknown, "trajectory_check": unknown}


def read_samples(root: zarr.Group, point_id: str, places: dict[str, np.ndarray] | None = None) -> np.ndarray | None:
    """Final samples ``[sample, coordinate]`` of a point, or None if they were not kept.

    Raises:
        NotStored: the store holds no samples of a point.
    """
    point = _point(places or read_places(root), point_id)
    if point["sample_row"] == NO_ROW:
        return None
    name = f"{point['samples']}x{point['dim']}"
    return large.read(group_in(root, "samples"), [name], point["sample_row"], point["sample_check"])[0]


def read_samples_of(root: zarr.Group, places: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Final samples of the points of some places, by id; of those that have kept some."""
    by_shape: dict[str, list[tuple[str, dict[str, int]]]] = {}
    for i, point_id in enumerate(places["point_id"].tolist()):
        point = _at(places, i, point_id)
        if point["sample_row"] != NO_ROW:
            by_shape.setdefault(f"{point['samples']}x{point['dim']}", []).append((point_id, point))
    found: dict[str, np.ndarray] = {}
    for name, points in by_shape.items():
        rows, checks = ([point[key] for _, point in points] for key in ("sample_row", "sample_check"))
        values = large.read_rows(group_in(root, "samples"), name, rows, checks)
        found |= dict(zip((point_id for point_id, _ in points), values, strict=True))
    return found


def read_trajectory(
    root: zarr.Group, point_id: str, places: dict[str, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """States ``[level, sample, coordinate]`` and ``[3, level]`` (time, alpha, sigma), or None if
    they were not kept.
    """
    point = _point(places or read_places(root), point_id)
    row = point["trajectory_row"]
    if row == NO_ROW:
        return None
    name = f"{point['steps'] + 1}x{point['trajectory_samples']}x{point['dim']}"
    states, levels = large.read(
        group_in(root, "trajectories"), [name, f"{name}_levels"], row, point["trajectory_check"]
    )
    return states, levels


def _point(places: dict[str, np.ndarray], point_id: str) -> dict[str, int]:
    found = np.flatnonzero(places["point_id"] == point_id)
    if not len(found):
        raise NotStored(f"no point {point_id!r} here")
    return _at(places, int(found[0]), point_id)


def _at(places: dict[str, np.ndarray], row: int, point_id: str) -> dict[str, int]:
    point = {name: int(values[row]) for name, values in places.items() if name != "point_id"}
    if point["dim"] == UNKNOWN and max(point["sample_row"], point["trajectory_row"]) != NO_ROW:
        raise Damaged(f"the dimension of point {point_id} is not known: schema 1 did not record it")
    return point


def study_names(root: zarr.Group) -> list[str]:
    """Names of the studies, in alphabetical order."""
    keys = group_in(root, "studies").group_keys()
    return sorted(keys if _old(root) else map(study_of_key, keys))


def read_study(root: zarr.Group, name: str) -> tuple[Spec, np.ndarray]:
    """The canonical spec of a study and the ids of its points.

    Raises:
        NotStored: there is no such study.
    """
    if name not in study_names(root):
        raise NotStored(f"no study {name!r} here")
    if _old(root):
        entry = group_in(group_in(root, "studies"), name)
        return spec_in(entry), np.array([str(point) for point in values_in(entry, "point_id")], dtype=str)
    entry = group_in(group_in(root, "studies"), key_of_study(name))
    spec, ids = spec_in(entry), tables.read_ids(entry)
    if study_check(spec, ids) != entry.attrs["check"]:
        raise Damaged(f"study {name}: it is not what was written")
    return spec, ids


def spec_in(entry: zarr.Group) -> Spec:
    """The canonical spec of a study's group, as JSON has it."""
    return cast("Spec", entry.attrs["spec"])


def read_metrics(root: zarr.Group) -> dict[str, MetricFacts]:
    """What is known of each metric, by its column; empty in a store of an older schema, which does
    not say.
    """
    if not has_facts(root):
        return {}
    group = group_in(root, "metrics")
    table = cast("dict[str, Spec]", group.attrs.get("table", {}))
    if metrics_check(table) != group.attrs.get("check", metrics_check({})):
        raise Damaged(f"{group.path}: what is said of metrics is not what was written")
    return {name: MetricFacts(**facts) for name, facts in table.items()}


def has_facts(root: zarr.Group) -> bool:
    """Whether the store says of points and metrics what older schemas did not:
    `tasks.store.schema.FACTS` and `read_metrics`.
    """
    return schema_in(root) >= _WITH_FACTS


def metrics_check(table: Mapping[str, object]) -> int:
    """The checksum stored with what is said of metrics."""
    return crc(json.dumps(table, sort_keys=True).encode())


def study_check(spec: Mapping[str, object], ids: np.ndarray) -> int:
    """The checksum stored with a study."""
    return crc("\0".join([json.dumps(spec, sort_keys=True), *ids.tolist()]).encode())
