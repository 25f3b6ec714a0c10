"""Answers without what is large: the rows of studies, copied to a store of their own that is small
enough to come with the package.

Points, cells, curves and what is known of metrics are copied as they are stored; samples,
trajectories and weights stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.columns import DEVICE
from tasks.results.read import Answers
from tasks.store import NO_ROW, Rows, Store, read_cells, read_curves

_LEFT_BEHIND = {"sample_row": NO_ROW, "trajectory_row": NO_ROW, "trajectory_samples": 0}
_OF_A_RUN = ("user", "flow_run", "deployment", "started_by", "store", "snapshot", "time", "shard_seconds", "tries")
"""What a commit says of who made it and when, which is nobody's business elsewhere."""


def ship(source: Store, target: Store, studies: Sequence[str]) -> None:
    """Copy the rows of studies, a commit each, whose metadata say what computed them.

    Raises:
        UnknownStudy: the source holds no study of one of the names.
        ValueError: points of a study have failed, or are not computed.
    """
    with target.coordinate() as coordinator:
        for name in studies:
            answers = Answers(source, name)
            rows, asked = _rows(source, answers), answers.asked(name)
            lacking = len(asked) - sum(row["status"] in ("ok", "skipped") for row in rows.points)
            if lacking:
                raise ValueError(f"study {name}: {lacking} of {len(asked)} points have no answer in {source.uri}")
            coordinator.commit_study(name, answers.study, asked, rows, _origin(source, name))


def _rows(source: Store, answers: Answers) -> Rows:
    table, specs = answers.table(), answers.point_specs()
    stored = {name: column for name, column in table.items() if name != DEVICE}  # which is the cells'
    points = [{**row, **_LEFT_BEHIND, "spec": specs[str(row["point_id"])]} for row in _entries(stored)]
    root = source.group(answers.snapshot.id)
    with source.reading("its cells"):
        cells, curves = read_cells(root), read_curves(root)
        texts = read_cells(root, ["spec"])["spec"].tolist()
    wanted = set(table["cell_id"].tolist())
    kept = []
    for place, row in enumerate(_entries(cells)):
        if row["cell_id"] in wanted:
            known = {name: values[place][np.isfinite(values[place])] for name, values in curves.items()}
            kept.append(
                {
                    **{name: value for name, value in row.items() if not name.startswith("weights_")},
                    **{name: values for name, values in known.items() if len(values)},
                    "spec": texts[place],
                }
            )
    metrics = {name: facts for name, facts in answers.metrics.items() if name in table}
    return Rows(points=points, cells=kept, metrics=metrics)


def _entries(table: Mapping[str, np.ndarray]) -> list[dict[str, object]]:
    """A dictionary for each row, without the numbers that are not known."""
    names = list(table)
    rows = zip(*(table[name].tolist() for name in names), strict=True)
    return [{n: v for n, v in zip(names, row, strict=True) if v == v} for row in rows]


def _origin(source: Store, study: str) -> dict[str, str]:
    """What the newest commit of a study says of the machine and the versions that computed it."""
    said = next(entry["metadata"] for entry in source.history() if entry["metadata"].get("study") == study)
    return {str(name): str(value) for name, value in said.items() if name not in _OF_A_RUN}
