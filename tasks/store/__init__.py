"""The store: one Icechunk repository of Zarr arrays, written in transactions by one coordinator.

Layout (schema 3; docs/store.md has every array), tables append-only but for rows that are computed
again:

    points/        one row per point: ids, coordinates, status, error, counts, one number per metric and per floor
    cells/         one row per denoiser: id, spec, status, error, training time, losses, errors of the score by noise level
    weights/SIZE   uint8 [row, SIZE]: the safetensors files of trained cells
    samples/NxD    float32 [row, N, D]: final samples; the point's `sample_row` points here
    trajectories/LxNxD   float32 [row, level, N, D] and ``..._levels`` float64 [row, 3, level] (time, alpha, sigma)
    studies/NAME   the study's canonical spec and the ids of its points
    metrics        what is known of each metric: what it looks at, which values are better, version, spec

A commit is a snapshot; readers open one and never see half of a commit. Done means: committed here.
Every row and every chunk carries a checksum that is verified when it is read.
"""

from tasks.failpoints import FAILPOINTS
from tasks.store import _quiet as _quiet
from tasks.store.errors import (
    NotStored,
    StoreDamaged,
    StoreLocked,
    StoreMissing,
    StoreMoved,
    StoreUnavailable,
    WrongReference,
)
from tasks.store.history import Removed
from tasks.store.reading import (
    has_facts,
    point_columns,
    read_cells,
    read_coded_points,
    read_curves,
    read_metrics,
    read_places,
    read_points,
    read_samples,
    read_samples_of,
    read_study,
    read_trajectory,
    read_weights,
    study_names,
    trained_cells,
)
from tasks.store.repository import Store
from tasks.store.schema import FACTS, NO_ROW, SCHEMA, Derived, MetricFacts
from tasks.store.storage import ATLAS, Snapshot
from tasks.store.writing import Coordinator, Rows

__all__ = [
    "ATLAS",
    "FACTS",
    "FAILPOINTS",
    "NO_ROW",
    "SCHEMA",
    "Coordinator",
    "Derived",
    "MetricFacts",
    "NotStored",
    "Removed",
    "Rows",
    "Snapshot",
    "Store",
    "StoreDamaged",
    "StoreLocked",
    "StoreMissing",
    "StoreMoved",
    "StoreUnavailable",
    "WrongReference",
    "has_facts",
    "point_columns",
    "read_cells",
    "read_coded_points",
    "read_curves",
    "read_metrics",
    "read_places",
    "read_points",
    "read_samples",
    "read_samples_of",
    "read_study",
    "read_trajectory",
    "read_weights",
    "study_names",
    "trained_cells",
]
