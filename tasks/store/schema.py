"""The layout of a store, by version: which groups and columns there are, and how a study's name
becomes a path.

Schema 3 is written. Schemas 1 (`tasks.store.schema1`) and 2 are read, and brought to schema 3 by
the next coordinator. What each array means to a reader without our code: docs/store.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

import zarr

from tasks.plain import Plain
from tasks.store.errors import StoreUnavailable

SCHEMA = 3
READABLE = (1, 2, 3)
GROUPS = ("points", "cells", "weights", "samples", "trajectories", "studies", "metrics")

NO_ROW = -1
UNKNOWN = -1  # a checksum that was never taken


@dataclass(frozen=True)
class Table:
    """A table's columns by kind; `integers` whose names end in ``_check`` are checksums, the first
    one that of the row.

    `late` are labels that a stored table has from the first row on that tells them.
    """

    key: str
    labels: tuple[str, ...]  # texts that repeat: a code into the table's `words`
    integers: tuple[str, ...]
    numbers: tuple[str, ...]  # those every store has; metrics are added when they first come
    curves: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


FACTS = ("guidance", "sampling_schedule", "process")
"""The labels of points that schema 3 added; what each says: docs/store.md."""

POINTS = Table(
    key="point_id",
    labels=("cell_id", "dataset", "formulation", "schedule", "sampler", "grid", "status", "error", "start", *FACTS),
    integers=(
        "row_check",
        *("steps", "nfe", "seed", "dim", "samples", "sample_row", "trajectory_row", "trajectory_samples"),
        *("spec_check", "sample_check", "trajectory_check"),
    ),
    numbers=("train_seconds", "sample_seconds"),
    late=("sources",),
)
CELLS = Table(
    key="cell_id",
    labels=("status", "error", "device"),
    integers=("row_check", "weights_row", "weights_size", "weights_check", "spec_check", "curves_check"),
    numbers=("train_seconds",),
    curves=("losses", "loss_steps", "score_levels", "score_errors"),
    late=("sources",),
)


@dataclass(frozen=True)
class MetricFacts:
    """What a reader needs to know of a metric without its class.

    Args:
        of: what it looks at: ``samples``, ``models`` (all points of a cell repeat its value) or
            ``pairs`` of a sample and its original.
        better: which of two values is better, the ``lower`` or the ``higher``.
        version: that of the metric when it was last asked for; each value has its own beside it.
        spec: its name and its parameters, as a study's canonical spec has them.
    """

    of: str
    better: str
    version: int
    spec: Mapping[str, Plain]


@dataclass(frozen=True)
class Derived:
    """What the rows of an older schema do not say, worked out from the specs that they have.

    Args:
        points: each of `FACTS`, one text per point in the order of the rows; empty where it cannot
            be known.
        metrics: facts by column, of the metrics that could be found.
    """

    points: Mapping[str, Sequence[str]]
    metrics: Mapping[str, MetricFacts]


def schema_in(root: zarr.Group) -> int:
    """The schema of a snapshot that this version reads, or 0."""
    found = root.attrs.get("schema")
    return found if isinstance(found, int) and not isinstance(found, bool) and found in READABLE else 0


def schema_of(uri: str, root: zarr.Group) -> int:
    """The schema of a snapshot.

    Raises:
        StoreUnavailable: the schema is none that this version reads.
    """
    if known := schema_in(root):
        return known
    found = root.attrs.get("schema")
    if isinstance(found, int) and found > SCHEMA:
        raise StoreUnavailable(
            f"store {uri}: written with schema {found}, and this version of diffatlas reads up to {SCHEMA}: upgrade diffatlas"
        )
    raise StoreUnavailable(
        f"store {uri}: found schema {found!r}, expected one of {', '.join(map(str, READABLE))}: "
        "this Icechunk repository is not a store of diffatlas, or its first record is damaged"
    )


def key_of_study(name: str) -> str:
    """One path segment for a study's name, whatever is in it: letters, digits and ``-`` stay, the
    rest is ``%XX``.
    """
    return "".join(c if c.isascii() and (c.isalnum() or c == "-") else _escaped(c) for c in name) or "%"


def _escaped(character: str) -> str:
    if character in "_.~":  # quote leaves them as they are; a segment may be neither '..' nor begin with '__'
        return f"%{ord(character):02X}"
    return quote(character, safe="", errors="surrogatepass")


def study_of_key(key: str) -> str:
    """The name that `key_of_study` made into `key`."""
    return "" if key == "%" else unquote(key, errors="surrogatepass")
