"""Whether a snapshot is what was written: all its rows read, each with its checksum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.store.reading import (
    point_columns,
    read_cells,
    read_curves,
    read_metrics,
    read_places,
    read_points,
    read_samples,
    read_study,
    read_trajectory,
    read_weights,
    study_names,
    trained_cells,
)

if TYPE_CHECKING:
    from tasks.store.repository import Store


@dataclass(frozen=True)
class Read:
    """How much of each kind a snapshot holds."""

    snapshot: str
    studies: int
    points: int
    cells: int


def check(store: Store, as_of: str | None = None, *, tables_only: bool = False) -> Read:
    """Read a snapshot, checksums and all.

    Args:
        store: the store.
        as_of: the snapshot; None: the newest.
        tables_only: leave out samples, trajectories and weights, which are most of the bytes.

    Returns:
        What was read.

    Raises:
        StoreDamaged: it is not what was written, or part of it is gone.
    """
    root, snapshot = store.opened(as_of)
    with store.reading("all of it"):
        points, cells = read_points(root, point_columns(root)), read_cells(root)
        read_curves(root)
        read_metrics(root)
        studies = study_names(root)
        for name in studies:
            read_study(root, name)
        if not tables_only:
            places = read_places(root)
            for point in points["point_id"].tolist():
                read_samples(root, point, places)
                read_trajectory(root, point, places)
            for cell in sorted(trained_cells(root)):
                read_weights(root, cell)
    return Read(snapshot.id, len(studies), len(points["point_id"]), len(cells["cell_id"]))
