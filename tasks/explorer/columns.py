"""What there is to choose from: studies, columns with their values, metrics, and where a first look
begins.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tasks.explorer.copies import condition
from tasks.explorer.look import BANDS, CENTRES, VIEWS, Look, configuration
from tasks.explorer.opened import OpenedStore
from tasks.explorer.parts import plain
from tasks.plain import Spec
from tasks.query.records import metric_columns
from tasks.where.columns import Columns, Groups, PointColumns

_MOST_VALUES = 60
_LEGIBLE = 12  # lines of a picture that one can tell apart without looking for them
_NO_GROUPS = ("cell_id", "point_id", "error")
_COSTS = ("nfe", "steps", "train_seconds", "sample_seconds")


def choices(store: OpenedStore, look: Look) -> Spec:
    """What the page offers.

    Args:
        store: which is looked through.
        look: of which only the study and the snapshot count.

    Returns:
        `studies`, `columns` (each with its kind and its values), `metrics`, and `first`: the question
        of somebody who has asked nothing yet, as an address.
    """
    points = store.points(look.study, look.as_of)
    metrics, studies = points.metrics(), list(store.answers(None, look.as_of).studies)
    begun = look  # at one study: cells of the same labels may be trained otherwise in another
    if look.study is None and len(studies) > 1:
        begun = replace(look, study=studies[0])
    return {
        "store": store.uri,
        "study": look.study,
        "snapshot": points.attrs["snapshot"],
        "time": points.attrs["time"],
        "size": points.size,
        "studies": studies,
        "columns": [_column(points, name) for name in points.labels if name not in _NO_GROUPS],
        "numbers": [*_COSTS, *metric_columns(points)],
        "metrics": [
            {"name": name, "higher": points.higher_is_better(name), "models": points.of_models(name)}
            for name in metrics
        ],
        "beside": [name for name in metric_columns(points) if name not in metrics],
        "configuration": list(configuration(points)),
        "views": list(VIEWS),
        "statistics": list(CENTRES),
        "bands": list(BANDS),
        "first": first(store.points(begun.study, look.as_of), begun).value(),
    }


def first(points: PointColumns, look: Look) -> Look:
    """Where a look begins: at one data set, since numbers of several do not compare; and at one
    sampler, where one picture could not hold the lines of all.
    """
    chosen: list[tuple[str, object]] = []
    if points.size:
        rows: Columns = points
        keys = [name for name in configuration(points) if name != look.x]
        for name in ("dataset", "sampler"):
            codes, words = rows.factorized(name)
            crowded = name == "dataset" or len(Groups(rows, keys, rows.size)) > _LEGIBLE
            if len(words) > 1 and crowded:
                most = max(np.flatnonzero(np.bincount(codes) == np.bincount(codes).max()))
                chosen.append((name, str(words[most])))
                rows = rows.rows(codes == most)
    return replace(look, where=condition(chosen)) if chosen else look


def _column(points: PointColumns, name: str) -> Spec:
    _, values = points.factorized(name)
    numbers = np.asarray(values).dtype.kind not in "OUT"
    return {
        "name": name,
        "kind": "number" if numbers else "text",
        "count": len(values),
        "values": [plain(value) for value in values[:_MOST_VALUES].tolist()],
        "conditions": [condition([(name, value)]) for value in values[:_MOST_VALUES].tolist()],
    }
