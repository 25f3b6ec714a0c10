"""The coordinator: the only writer of a store, a transaction at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import zarr

from tasks.failpoints import failpoint
from tasks.store import large
from tasks.store.checks import crc
from tasks.store.errors import StoreMoved, reading_stored
from tasks.store.lock import Held as Holding
from tasks.store.nodes import array_in, group_in
from tasks.store.reading import metrics_check, read_metrics, study_check
from tasks.store.rows import Held, Index, checked_id, id_bytes, prepared, put
from tasks.store.schema import CELLS, GROUPS, POINTS, SCHEMA, MetricFacts, key_of_study
from tasks.store.storage import Conflict, Repository
from tasks.store.tables import ID_BYTES, array, make, read_ids

if TYPE_CHECKING:
    from zarr.core.common import JSON

_IDS = 16384  # ids of a study's points per chunk


@dataclass(frozen=True)
class Rows:
    """What one commit adds: rows of the two tables and the large arrays that go with them."""

    points: Sequence[Mapping[str, object]] = ()
    cells: Sequence[Mapping[str, object]] = ()
    weights: Mapping[str, bytes] = field(default_factory=dict)
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)  # point id: [n, dim]
    trajectories: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict
    )  # [levels, n, dim], [3, levels]
    metrics: Mapping[str, MetricFacts] = field(default_factory=dict)  # by column


@dataclass(frozen=True)
class _Study:
    name: str
    spec: Mapping[str, object]
    points: Sequence[str]


class Coordinator:
    """The right to write to a store: commits rows, a transaction at a time.

    `before` tells of a run that ended without giving its lock back, or is None; `token` tells this
    holder from all others.
    """

    def __init__(self, uri: str, repository: Repository, held: Holding) -> None:
        self.uri = uri
        self.before, self.token = held.before, held.me.token
        self._repository, self._held = repository, held
        with reading_stored(uri, "read its tables"):
            root, tip = repository.reading({"branch": "main"})
            self._tip = tip.id
            self._points, self._cells = Index.of(group_in(root, "points")), Index.of(group_in(root, "cells"))

    def commit_study(
        self, name: str, spec: Mapping[str, object], points: Sequence[str], rows: Rows, metadata: Mapping[str, object]
    ) -> str:
        """Record a study and rows that need no work (impossible points). Returns the snapshot's id."""
        study = _Study(name, dict(spec), [checked_id(point) for point in points])
        return self._transaction(
            rows, study, f"study {name}: {len(points)} point{'' if len(points) == 1 else 's'} asked", metadata
        )

    def commit(self, rows: Rows, message: str, metadata: Mapping[str, object]) -> str:
        """Write rows in one transaction; returns the snapshot's id (the present one's if there is
        nothing to write).

        Raises:
            ValueError: a value is none that its column can hold.
            TypeError: a value is of a type that its column cannot hold.
            StoreUnavailable: the storage does not do it, or somebody else has written; then nothing
                of it is in the store.
        """
        return self._transaction(rows, None, message, metadata)

    def _transaction(self, rows: Rows, study: _Study | None, message: str, metadata: Mapping[str, object]) -> str:
        points, cells = prepared(POINTS, rows.points), prepared(CELLS, _with_weights(rows))
        if not points and not cells and study is None:
            return self._tip  # nothing to write is no commit
        known_points, known_cells = self._points.copy(), self._cells.copy()
        self._held.check()
        uri = self.uri
        with reading_stored(uri, "write to it"):
            session, root, tip = self._repository.begin()
            if tip != self._tip and self._repository.arrived(self._tip, message, metadata) == tip:
                # an earlier try of this commit, of which nobody heard that it was made
                self._tip = tip
                self._points, self._cells = Index.of(group_in(root, "points")), Index.of(group_in(root, "cells"))
                return tip
            if tip != self._tip:
                raise StoreMoved(
                    f"store {uri}: somebody else has committed snapshot {tip} since this run's last one, {self._tip}; nothing is "
                    "lost: run the same command again, it goes on from there"
                )
            failpoint("write.begin")
            _put_large(root, rows, points, cells)
            put(group_in(root, "points"), POINTS, points, known_points, failpoint)
            put(group_in(root, "cells"), CELLS, cells, known_cells, failpoint)
            put_metrics(root, rows.metrics)
            if study is not None:
                put_study(root, study.name, study.spec, study.points)
            failpoint("commit.before")
            try:
                snapshot = self._repository.commit(session, message, metadata)
            except Conflict as error:
                raise StoreMoved(
                    f"store {uri}: somebody else committed at the same moment ({error}); this commit is not in the store, "
                    "theirs is: run the same command again, it goes on from there"
                ) from error
        failpoint("commit.after")
        self._tip, self._points, self._cells = snapshot, known_points, known_cells
        return snapshot


def _with_weights(rows: Rows) -> list[Mapping[str, object]]:
    given = {entry["cell_id"] for entry in rows.cells}
    return [*rows.cells, *({"cell_id": cell} for cell in rows.weights if cell not in given)]


def _put_large(root: zarr.Group, rows: Rows, points: list[dict[str, Held]], cells: list[dict[str, Held]]) -> None:
    """Write the large arrays and enter in each row where they lie."""
    by_id = {str(entry["point_id"]): entry for entry in points}
    samples = {point: values for point, values in rows.samples.items() if point in by_id}
    for point, (row, check) in _appended(group_in(root, "samples"), samples, large.shape_name):
        by_id[point].update(sample_row=row, sample_check=check)
    paths = {point: path for point, path in rows.trajectories.items() if point in by_id}
    group = group_in(root, "trajectories")
    for point, (row, check) in _appended(group, {p: x for p, (x, _) in paths.items()}, large.shape_name):
        states, levels = paths[point]
        check = _append_levels(group, row, states, levels, check)  # noqa: PLW2901
        by_id[point].update(trajectory_row=row, trajectory_check=check, trajectory_samples=states.shape[1])
    by_cell = {str(entry["cell_id"]): entry for entry in cells}
    weights = {cell: np.frombuffer(data, dtype=np.uint8) for cell, data in rows.weights.items()}
    for cell, (row, check) in _appended(group_in(root, "weights"), weights, large.shape_name):
        by_cell[cell].update(weights_row=row, weights_size=len(weights[cell]), weights_check=check)


def _appended(
    group: zarr.Group, values: Mapping[str, np.ndarray], name_of: Callable[[np.ndarray], str]
) -> list[tuple[str, tuple[int, int]]]:
    shapes: dict[str, list[str]] = {}
    for key, value in values.items():
        shapes.setdefault(name_of(value), []).append(key)
    placed: list[tuple[str, tuple[int, int]]] = []
    for name, keys in shapes.items():
        failpoint("write.array")
        placed += zip(keys, large.append(group, name, [values[key] for key in keys]), strict=True)
    return placed


def _append_levels(group: zarr.Group, row: int, states: np.ndarray, levels: np.ndarray, check: int) -> int:
    """Times, alphas and sigmas in the same row as the states that they belong to; the checksum of
    both, from that of the states.
    """
    name = f"{large.shape_name(states)}_levels"
    if name not in group:
        array(group, name, (0, *levels.shape), (64, *levels.shape), levels.dtype, 0)
    target = array_in(group, name)
    if target.shape[0] <= row:
        target.resize((row + 1, *levels.shape))
    target[row] = levels
    return crc(levels.astype(target.dtype, copy=False).tobytes(), start=check)


def put_study(root: zarr.Group, name: str, spec: Mapping[str, object], points: Sequence[str]) -> None:
    """Enter a study, in place of an earlier one of that name."""
    failpoint("write.array")
    key = key_of_study(name)
    studies, ids = group_in(root, "studies"), id_bytes(points)
    if key in studies:
        del studies[key]
    entry = studies.create_group(key)
    stored = array(entry, "id", ids.shape, (_IDS, ID_BYTES), np.uint8, 0, dimension_names=("point", "byte"))
    if len(ids):
        stored[:] = ids
    entry.attrs.update(name=name, spec=cast("JSON", spec), check=study_check(spec, read_ids(entry)))


def put_metrics(root: zarr.Group, metrics: Mapping[str, MetricFacts]) -> None:
    """Enter what is known of metrics, in place of what was said of the same columns before."""
    known = read_metrics(root)
    if all(known.get(name) == facts for name, facts in metrics.items()):
        return
    table = {name: asdict(facts) for name, facts in sorted({**known, **metrics}.items())}
    group_in(root, "metrics").attrs.update(table=table, check=metrics_check(table))


def lay_out(root: zarr.Group) -> None:
    """The groups and empty tables of a new store."""
    for name in GROUPS:
        if name not in root:
            root.create_group(name)
    make(group_in(root, "points"), POINTS)
    make(group_in(root, "cells"), CELLS)
    root.attrs["schema"] = SCHEMA
