"""Records out of points: filter, group, reduce."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.columns import CONFIGURATION, PLACE, MetricColumns
from tasks.query.reductions import DEFAULT_STATISTICS, STATISTICS, reduced
from tasks.where.columns import Columns, Groups, PointColumns, Points, check, factorize, frame_of, of_frame, of_points
from tasks.where.conditions import satisfied


def where(frame: pd.DataFrame, expression: str, option: str = "--where") -> np.ndarray:
    """The rows that satisfy `expression`, as truth values ``[row]``.

    Raises:
        QueryError: the expression cannot be understood; the message names the `option`.
    """
    columns = of_frame(frame)
    return satisfied(expression, columns, columns.size, option)


def chosen(points: Points, expression: str | None) -> Columns:
    """The columns of the points that satisfy `expression`; of all if there is none.

    Raises:
        QueryError: the expression cannot be understood.
    """
    columns = of_points(points)
    return columns.rows(satisfied(expression, columns, columns.size)) if expression else columns


def metric_columns(points: Points) -> list[str]:
    """Every column that can be asked for as a metric: the metrics, then what stands beside them."""
    columns = of_points(points)
    known = columns.metrics()
    return [*known, *(name for m in known for name in MetricColumns(m).beside if name in columns)]


def pooled(points: Points, expression: str | None = None) -> str | None:
    """What a mean over seeds would mix up: networks that were trained in different ways under the
    same labels; None if nothing.
    """
    columns = chosen(points, expression)
    columns = columns.rows(columns["status"] == "ok")
    places = Groups(columns, PLACE, columns.size)
    counts = np.bincount(places.codes, minlength=len(places))
    if not (counts > 1).any():
        return None
    at = int(np.argmax(counts > 1))
    example = ", ".join(str(places.labels[name][at]) for name in CONFIGURATION)
    return (
        f"{int((counts > 1).sum())} configurations are there several times with the same seed, trained in different ways (such as "
        f"{example}): what is said of a group mixes them; choose one study with --study, or add cell_id to --by"
    )


def pooled_schedules(points: Points, by: Sequence[str], expression: str | None = None) -> str | None:
    """That groups by formulation mix the rows `exact` of several schedules, where those of a network
    are of one each; None if they do not.
    """
    if "formulation" not in by or {"schedule", "cell_id", "point_id"} & set(by):
        return None
    columns = chosen(points, expression)
    columns = columns.rows((columns["status"] == "ok") & (columns["formulation"] == "exact"))
    groups, schedules = Groups(columns, list(by), columns.size).codes, columns.factorized("schedule")[0]
    most = max(np.bincount(np.unique(np.stack([groups, schedules]), axis=1)[0]), default=0)
    if most < 2:
        return None
    return f"a group of rows exact mixes those of up to {most} schedules: add schedule to --by, or choose one schedule with --where"


def query(
    points: Points,
    expression: str | None = None,
    by: Sequence[str] = (),
    metrics: Sequence[str] = (),
    statistics: Sequence[str] = DEFAULT_STATISTICS,
) -> pd.DataFrame:
    """Records: the `by` columns and ``<metric>_<statistic>`` over points that are `ok`; without
    `by` one record per point.

    A metric of models, not of samples, counts once for each model of a group: its points repeat it,
    and are no more evidence.

    Raises:
        QueryError: a name is no column or no statistic, or the expression cannot be understood.
    """
    if not by:
        return frame_of(unreduced(points, expression, metrics, statistics))
    whole = of_points(points)
    requested_metrics = _checked(whole, by, metrics, statistics)
    columns = chosen(whole, expression)
    columns = columns.rows(columns["status"] == "ok")
    by = list(dict.fromkeys(by))
    groups = Groups(columns, by, columns.size)
    by_name = dict(groups.labels)
    for metric in requested_metrics:
        values = columns[metric]
        if whole.of_models(metric) and "cell_id" in columns:
            values = _once(values, groups.codes, columns["cell_id"])
        numbers = reduced(values, groups.codes, statistics, higher=whole.higher_is_better(metric))
        by_name |= {MetricColumns(metric).statistic(name): values for name, values in numbers.items()}
    return frame_of(by_name)


def unreduced(
    points: Points,
    expression: str | None = None,
    metrics: Sequence[str] = (),
    statistics: Sequence[str] = DEFAULT_STATISTICS,
) -> Columns:
    """What `query` gives without `by`, one record per point, before it becomes a frame: each column
    is read when it is asked for. Raises the same.
    """
    whole = of_points(points)
    metrics = _checked(whole, (), metrics, statistics)
    wanted = {*metrics, *(name for metric in metrics for name in MetricColumns(metric).beside)}
    there = metric_columns(whole)
    columns = chosen(whole, expression)
    return columns.only([name for name in columns if name in wanted or name not in there])


def _checked(columns: PointColumns, by: Sequence[str], metrics: Sequence[str], statistics: Sequence[str]) -> list[str]:
    """The metrics that are asked for; raises `QueryError` where a name is none."""
    for kind, requested, accepted in (
        ("metric", metrics, metric_columns(columns)),
        ("--by", by, list(columns)),
        ("--stat", statistics, list(STATISTICS)),
    ):
        check(kind, requested, accepted)
    return list(dict.fromkeys(metrics or columns.metrics()))


def _once(values: np.ndarray, groups: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The values without the repetitions of a cell within a group, which become NaN."""
    frame = pd.DataFrame({"group": groups, "cell": factorize(cells)[0], "known": np.isfinite(values)})
    first = ~frame.sort_values("known", ascending=False, kind="stable").duplicated(["group", "cell"]).sort_index()
    return np.where(first, values, np.nan)
