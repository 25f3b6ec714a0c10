"""Curves, heat maps and scatter: each a pure function of points and a question. Every number is one
that `tasks.query` gives, by the question that the view hands on as a command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.columns import CONFIGURATION, MetricColumns
from tasks.explorer.copies import Asked, both
from tasks.explorer.look import Look, settled
from tasks.explorer.parts import (
    MOST_ROWS,
    MOST_SERIES,
    Grouped,
    column,
    conditions,
    grouped,
    in_runs,
    labels_in,
    plain,
    remarks,
    table,
)
from tasks.plain import Spec
from tasks.query import pareto, query
from tasks.query.records import chosen, metric_columns, unreduced
from tasks.where.columns import Columns, PointColumns, check, frame_of, of_frame
from tasks.where.language import QueryError

_BESIDE = 4000  # markers of one scatter, for which conditions and texts are sent


def view(points: PointColumns, look: Look) -> Spec:
    """What a view shows, as plain values.

    Args:
        points: of a snapshot, as `tasks.results.read.open_columns` gives them.
        look: what is asked of them.

    Returns:
        `series` with their values and conditions, `table`, `notes`, and `asked`: the questions whose
        answers these numbers are, each as a command and as Python.

    Raises:
        QueryError: a name is no column, or the filter cannot be understood.
    """
    check("picture", [look.view], list(_PICTURES))
    look = settled(look, points)
    found = _PICTURES[look.view](points, look)
    common = {"view": look.view, "metric": look.metric, "size": points.size}
    attrs = points.attrs
    return {**common, "snapshot": attrs["snapshot"], "time": attrs["time"], **found}


def ask(points: PointColumns, asked: Asked) -> pd.DataFrame:
    """The answer to a question as `diffatlas query` gives it."""
    where = asked.where or None
    if asked.by and not asked.statistics:
        return pareto(points, asked.metrics, asked.by, where)
    return query(points, where, asked.by, asked.metrics, asked.statistics or ("mean",))


def curves(points: PointColumns, look: Look) -> Spec:
    """One line for each group, along `x`: a statistic of the seeds with a band, or every seed."""
    x, metric = look.x, str(look.metric)
    keys = tuple(name for name in look.by or () if name not in (x, "seed" if look.each else ""))
    by = (*keys, *(("seed",) if look.each and x != "seed" else ()), x)
    asked = Asked("the numbers of this picture", look.where, by, (metric,), _statistics(look))
    frame = ask(points, asked)
    every = [asked]
    notes = remarks(points, look.where, by)
    if look.baseline:
        same = tuple(name for name in by if name not in keys)
        base = replace(asked, what="those of the baseline", where=both(look.where, look.baseline), by=same)
        beside = ask(points, base)
        if beside.empty:
            notes.append(f"the baseline ({look.baseline}) has no point among these: no ratios are drawn")
            look = replace(look, baseline="")
        else:
            every.append(base)
            frame, note = _against(frame, beside, same, metric, look)
            notes += note
    labels = labels_in(frame, by)
    rows, lines = in_runs(labels, by[:-1]), in_runs(labels, keys)
    return {
        "x": _axis(points, x),
        "y": {"name": _named(metric, look), "log": _spans(frame, metric, look)},
        "shared": lines.shared,
        "series": _series(frame, rows, lines, x, look),
        "ratio": bool(look.baseline),
        "lines": min(len(rows), MOST_SERIES),
        "of": len(rows),
        "table": table(frame, labels, lines.shared, only=look.only),
        "notes": notes + _too_many(len(rows)),
        "asked": [one.document(points) for one in every],
        "higher": points.higher_is_better(metric),
    }


def _statistics(look: Look) -> tuple[str, ...]:
    return tuple(dict.fromkeys((look.statistic, *((look.band,) if _banded(look) else ()), "count")))


def _banded(look: Look) -> bool:
    """Whether there is a band: every one of `BANDS` is of the mean, and says nothing of a median."""
    return look.statistic == "mean" and not look.each and look.band != "none"


def _against(
    frame: pd.DataFrame, base: pd.DataFrame, same: Sequence[str], metric: str, look: Look
) -> tuple[pd.DataFrame, list[str]]:
    """The rows with their ratio to the baseline's row at the same place, and what to say of it."""
    value = MetricColumns(metric).statistic(look.statistic)
    beside = base[[*same, value]].rename(columns={value: "baseline"})
    frame = frame.merge(beside, on=list(same), how="left")
    with np.errstate(all="ignore"):
        frame["ratio"] = frame[value].to_numpy(dtype=float) / frame["baseline"].to_numpy(dtype=float)
    notes = ["the band of a ratio leaves out the baseline's own error"] if _banded(look) else []
    if without := int((frame["ratio"].isna() & frame[value].notna()).sum()):
        notes.append(f"{without} {'row lies' if without == 1 else 'rows lie'} where the baseline has no value")
    return frame, notes


def _named(metric: str, look: Look) -> str:
    what = metric if look.each else f"{metric}, {look.statistic}"
    return f"{what}: ratio to the baseline" if look.baseline else what


def _values(frame: pd.DataFrame, metric: str, look: Look) -> tuple[np.ndarray, np.ndarray | None]:
    """What is drawn of each row, and half of its band; of a ratio the band of the numerator alone."""
    of = MetricColumns(metric)
    values = frame[of.statistic(look.statistic)].to_numpy(dtype=float)
    wide = frame[of.statistic(look.band)].to_numpy(dtype=float) if _banded(look) else None
    if "ratio" not in frame:
        return values, wide
    with np.errstate(all="ignore"):
        wide = None if wide is None else wide / np.abs(frame["baseline"].to_numpy(dtype=float))
    return frame["ratio"].to_numpy(dtype=float), wide


def _series(frame: pd.DataFrame, rows: Grouped, lines: Grouped, x: str, look: Look) -> list[Spec]:
    """The lines of the picture; `style` is that of the group, which the seeds of it share."""
    metric = str(look.metric)
    values, wide = _values(frame, metric, look)
    counts = frame[MetricColumns(metric).statistic("count")].to_numpy()
    ends = [*rows.first.tolist(), len(frame)]
    labels = rows.columns.only([*rows.keys, x])
    found = []
    for i in range(min(len(rows), MOST_SERIES)):
        at = slice(ends[i], ends[i + 1])
        style = int(lines.codes[rows.first[i]])
        found.append(
            {
                "label": rows.label(i),
                "line": lines.label(style),
                "style": style,
                "condition": lines.condition(style),
                "x": column(labels[x][at]),
                "y": column(values[at]),
                "band": None if wide is None else column(wide[at]),
                "count": column(counts[at]),
                "conditions": conditions(labels, np.arange(at.start, at.stop)),
            }
        )
    return found


def _too_many(lines: int) -> list[str]:
    if lines <= MOST_SERIES:
        return []
    return [f"the first {MOST_SERIES} of {lines} lines are drawn: narrow them by a filter, or group by fewer columns"]


def _axis(points: PointColumns, name: str) -> Spec:
    values = points[name]
    numbers = values.dtype.kind not in "OUT"
    positive = values[np.isfinite(values) & (values > 0)] if numbers else values[:0]
    wide = bool(numbers and len(positive) == len(values) > 0 and positive.max() / positive.min() >= 8)
    return {"name": name, "kind": "number" if numbers else "text", "log": wide}


def _spans(frame: pd.DataFrame, metric: str, look: Look) -> bool:
    """Whether the values are best told apart on a logarithmic axis."""
    values = _values(frame, metric, look)[0]
    values = values[np.isfinite(values)]
    return bool(len(values) and (values > 0).all() and values.max() / values.min() >= 8)


def heat(points: PointColumns, look: Look) -> Spec:
    """A statistic of the points at each place of two columns."""
    metric = str(look.metric)
    y = look.y or _down(points, look)
    if y == look.x:
        raise QueryError(f"a heat map has two different axes, found {y} twice")
    by = (y, look.x)
    asked = Asked("the numbers of this picture", look.where, by, (metric,), _statistics(replace(look, each=False)))
    frame = ask(points, asked)
    labels, of = labels_in(frame, by), MetricColumns(metric)
    across, down = (list(dict.fromkeys(sorted(frame[name].tolist()))) for name in (look.x, y))
    places = [(down.index(b), across.index(a)) for b, a in zip(frame[y].tolist(), frame[look.x].tolist(), strict=True)]
    values = frame[of.statistic(look.statistic)].to_numpy(dtype=float)
    cells: list[list[Spec | None]] = [[None] * len(across) for _ in down]
    for (row, at), value, count, text in zip(
        places, values, frame[of.statistic("count")], conditions(labels, np.arange(len(frame))), strict=True
    ):
        cells[row][at] = {"value": plain(value), "count": int(count), "condition": text}
    return {
        "x": {"name": look.x, "values": [plain(v) for v in across]},
        "y": {"name": y, "values": [plain(v) for v in down]},
        "z": {
            "name": _named(metric, replace(look, baseline="", each=False)),
            "log": _spans(frame, metric, replace(look, baseline="")),
        },
        "cells": cells,
        "shared": {},
        "table": table(frame, labels, {}, only=look.only),
        "notes": remarks(points, look.where, by),
        "asked": [asked.document(points)],
        "higher": points.higher_is_better(metric),
    }


def _down(points: PointColumns, look: Look) -> str:
    """What a heat map has along its other axis where nobody chose: the first label that tells the
    points apart.
    """
    labels = [name for name in (*(look.by or ()), "sampler", "dataset") if name != look.x]
    rows = chosen(points, look.where or None)
    return next((name for name in labels if rows.size and not rows.uniform(name)), labels[0])


def scatter(points: PointColumns, look: Look) -> Spec:
    """One number against another, a marker for each configuration (or for each point), with the
    configurations that nothing beats in both.
    """
    metric, x = str(look.metric), look.x
    if x == metric:
        raise QueryError(f"a scatter has two different axes, found {x} twice")
    front = Asked("the front: what nothing beats in both", look.where, ("dataset",), (metric, x))
    best = ask(points, front)
    if look.each:
        shown = tuple(name for name in (metric, x) if name in metric_columns(points))
        asked = Asked("all points", look.where, (), shown)
        rows = unreduced(points, look.where or None, shown)
        rows = rows.rows(rows["status"] == "ok")
        frame = frame_of({name: rows.at(name, np.arange(min(rows.size, MOST_ROWS))) for name in rows})
        own: tuple[str, ...] = ("point_id",)
        across, up, wide = rows[x].astype(float), rows[metric].astype(float), None
    else:
        asked = Asked("all configurations", look.where, CONFIGURATION, (metric, x))
        frame, own = ask(points, asked), CONFIGURATION
        rows = of_frame(frame)
        across, up = _of(frame, x), _of(frame, metric)
        wide = frame[MetricColumns(metric).statistic("sem")].to_numpy(dtype=float)
    keys = _colours(look, rows)
    lines = grouped(rows.only([*dict.fromkeys((*keys, *CONFIGURATION))]), keys)
    labels = rows.only(own)
    drawn, few = _drawn(lines, np.isfinite(across) & np.isfinite(up))
    fronts = [
        {
            "dataset": str(name),
            "x": column(_of(part, x)),
            "y": column(_of(part, metric)),
            "conditions": conditions(labels_in(part, CONFIGURATION), np.arange(len(part))),
        }
        for name, part in best.groupby("dataset", sort=False)
    ]
    names = [str(name) for name in frame.columns if name not in ("cell_id", "error")]
    return {
        "x": {"name": x, "kind": "number", "log": _wide(across)},
        "y": {"name": metric, "log": _wide(up)},
        "shared": lines.shared,
        "series": _markers(lines, drawn, labels, across, up, wide),
        "fronts": fronts,
        "table": table(frame[names], labels, lines.shared, only=look.only),
        "notes": [*remarks(points, look.where, ()), *_left_out(best), *_too_many(len(lines)), *few],
        "asked": [asked.document(points), front.document(points)],
        "higher": points.higher_is_better(metric),
    }


def _of(frame: pd.DataFrame, name: str) -> np.ndarray:
    """The values of an objective of `pareto`: a mean of a metric, or a cost under its own name."""
    mean = MetricColumns(name).statistic("mean")
    return frame[mean if mean in frame else name].to_numpy(dtype=float)


def _wide(values: np.ndarray) -> bool:
    values = values[np.isfinite(values)]
    return bool(len(values) and (values > 0).all() and values.max() / values.min() >= 8)


def _colours(look: Look, rows: Columns) -> tuple[str, ...]:
    """What markers are coloured by: the groups that are asked for, as long as they are few."""
    wanted = [name for name in look.by or () if name in rows and name not in (look.x, "steps", "grid")]
    return tuple(name for name in wanted if not rows.uniform(name)) or tuple(wanted[:1])


def _drawn(lines: Grouped, known: np.ndarray) -> tuple[list[np.ndarray], list[str]]:
    """The rows of each series that are drawn, all or `_BESIDE` of them shared out evenly, and what to
    say of it; of a series that has more than its share, rows from all of its length.
    """
    rows = [np.flatnonzero((lines.codes == i) & known) for i in range(min(len(lines), MOST_SERIES))]
    total, left = sum(map(len, rows)), _BESIDE
    if total <= left:
        return rows, []
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for place, i in enumerate(order):  # what a short series leaves, the longer ones share
        share = min(len(rows[i]), left // (len(order) - place))
        rows[i] = rows[i][np.arange(share) * len(rows[i]) // max(share, 1)]
        left -= share
    return rows, [f"{_BESIDE - left:,} of {total:,} markers are drawn: narrow them by a filter"]


def _markers(
    lines: Grouped,
    drawn: Sequence[np.ndarray],
    labels: Columns,
    x: np.ndarray,
    y: np.ndarray,
    wide: np.ndarray | None,
) -> list[Spec]:
    told = lines.columns.only(CONFIGURATION)
    return [
        {
            "label": lines.label(i),
            "line": lines.label(i),
            "style": i,
            "condition": lines.condition(i),
            "x": column(x[at]),
            "y": column(y[at]),
            "band": None if wide is None else column(wide[at]),
            "conditions": conditions(labels, at),
            "text": [", ".join(map(str, row)) for row in zip(*(told.at(name, at) for name in told), strict=True)],
        }
        for i, at in enumerate(drawn)
    ]


def _left_out(frame: pd.DataFrame) -> list[str]:
    left = frame.attrs.get("left_out")
    return [f"the front is without {', '.join(left)}, which do not make samples of the data from noise"] if left else []


_PICTURES = {"curves": curves, "heat": heat, "scatter": scatter}
