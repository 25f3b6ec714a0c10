"""Which choice is best, and which configurations nothing beats on several counts at once.

A *configuration* is data set, formulation, schedule, sampler, grid and steps; its value is the mean
over its seeds. One with a failed point is left out, since its mean would be over the survivors.

Behind the first by ``d``: where two configurations share seeds, which start from the same noise, d
is the mean of the differences seed by seed, with their standard error; otherwise the difference of
the means, with the errors added in squares. One is *tied* if the rule of
`tasks.statistics.decision` cannot tell it from the first: a group is one family of tests.

Rows that set out from data or from an observation (`tasks.columns`) know more than those that make
samples from noise, or are measured against another law: beside these they are left out, and the
table says so in ``attrs["left_out"]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.columns import CONFIGURATION, GENERATION, OF_SAMPLER, MetricColumns, metrics_among
from tasks.messages import shown
from tasks.query.records import chosen, metric_columns
from tasks.query.reductions import reduced
from tasks.statistics.decision import LINEAR, against_first, by_seed
from tasks.where.columns import Columns, Groups, PointColumns, Points, check, factorize, frame_of, of_points
from tasks.where.conditions import satisfied
from tasks.where.language import QueryError

BY = ("dataset", "formulation")
_COSTS = ("nfe", "steps", "train_seconds", "sample_seconds")
_SHOWN = 4


@dataclass(frozen=True)
class Configurations:
    """Configurations without a failed point that satisfy a condition, and the points that make them
    up.
    """

    columns: Columns
    """Of the points, all of them `ok`."""
    codes: np.ndarray
    """Which configuration each point belongs to ``[point]``."""
    labels: dict[str, np.ndarray]
    """Of each configuration, `CONFIGURATION` and, where they are known, `OF_SAMPLER`
    ``[configuration]``.
    """
    left_out: tuple[str, ...] = ()
    """Samplers that set out from data or from an observation, left out beside others."""

    def __len__(self) -> int:
        return len(self.labels["dataset"])

    def mean(self, name: str) -> np.ndarray:
        """The mean of a column over each configuration's points ``[configuration]``; whole numbers
        where all are whole.
        """
        means: np.ndarray = reduced(self.columns[name], self.codes, ["mean"])["mean"]
        return means.astype(np.int64) if (means % 1 == 0).all() and (np.abs(means) < 2**53).all() else means


def configurations(
    points: PointColumns, at: str | None, where: str | None, apart: Sequence[str] = ()
) -> Configurations:
    """The configurations of the points that satisfy `where`, all of whose points satisfy `at`.

    Without those that set out from data or from an observation, where others of the data set are
    compared with them: samplers are, unless they are among the axes that are kept `apart`.

    Raises:
        QueryError: `where` or `at` names no column, or cannot be understood.
    """
    columns = chosen(points, where)
    columns = columns.rows(columns["status"] != "skipped")
    foreign = np.zeros(columns.size, dtype=bool) if "sampler" in apart else knowing_beside_others(columns)
    left_out = tuple(sorted(set(map(str, columns.at("sampler", np.flatnonzero(foreign))))))
    columns = columns.rows(~foreign)
    fits = columns["status"] == "ok"
    if at:
        fits = fits & satisfied(at, columns, columns.size, "--at")
    groups = Groups(columns, CONFIGURATION, columns.size)
    unfit = np.bincount(groups.codes[~fits], minlength=len(groups))
    columns = columns.rows(unfit[groups.codes] == 0)
    groups = Groups(columns, CONFIGURATION, columns.size)
    labels = groups.labels | {name: columns.at(name, groups.first) for name in OF_SAMPLER if name in columns}
    found = Configurations(columns, groups.codes, labels, left_out)
    _refuse_pooled_points(found)
    return found


def knowing_beside_others(columns: Columns) -> np.ndarray:
    """Which rows do not set out from noise, in data sets that have rows that do ``[row]``."""
    usual = columns["process"] == GENERATION if "process" in columns else np.ones(columns.size, dtype=bool)
    owner, owners = columns.factorized("dataset")
    beside: np.ndarray = ~usual & (np.bincount(owner[usual], minlength=len(owners)) > 0)[owner]
    return beside


def _refuse_pooled_points(found: Configurations) -> None:
    """Two points of one configuration and seed are of differently trained networks: a mean over
    both is of neither.
    """
    seeds, labels = found.columns.factorized("seed")
    places, counts = np.unique(found.codes * max(len(labels), 1) + seeds, return_counts=True)
    if (counts > 1).any():
        at = int(places[counts > 1][0]) // len(labels)
        example = ", ".join(str(found.labels[name][at]) for name in CONFIGURATION)
        raise QueryError(
            f"several points share a configuration and a seed (such as {example}), trained in different ways: "
            "choose one study with --study, or their cells with --where"
        )


def refuse_mixed_data_sets(found: Configurations, apart: Sequence[str], value: str) -> None:
    """Raises `QueryError` where values of different data sets would be compared."""
    names = sorted(set(map(str, found.labels["dataset"])))
    if "dataset" not in apart and len(names) > 1:
        some = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise QueryError(
            f"{value} of different data sets does not compare ({some}): add dataset to --by, or choose one with --where"
        )


def axes_of(points: PointColumns) -> list[str]:
    """What can be ranked, or make a group."""
    return [*CONFIGURATION, *(name for name in OF_SAMPLER if name in points)]


def metric_of(points: PointColumns, metric: str | None) -> str:
    """By what is ranked: `metric`, or `w1`, or the only one there is."""
    there = metric_columns(points)
    if metric is None:
        plain = metrics_among(there)
        if "w1" not in plain and len(plain) != 1:
            raise QueryError(f"--metric NAME is needed (there are: {', '.join(plain) or 'none yet'})")
        return "w1" if "w1" in plain else plain[0]
    check("metric", [metric], there)
    return metric


def rank(
    points: Points,
    of: str = "sampler",
    metric: str | None = None,
    at: str | None = None,
    by: Sequence[str] = BY,
    where: str | None = None,
) -> pd.DataFrame:
    """For every group of `by`, the values of axis `of` in the order of their best configuration
    that satisfies `at`.

    Args:
        points: a dataset of points, as `tasks.results.open_results` gives it.
        of: what is ranked: an axis of a configuration.
        metric: what they are ranked by; `w1` if it was measured, otherwise the only metric.
        at: a condition that every point of a configuration has to satisfy, such as ``nfe <= 20``.
        by: axes within whose values the ranking is made anew (without `of`).
        where: a condition on points, as in `tasks.query.query`; points that do not satisfy it are
            not looked at.

    Returns:
        Columns: `by`, `rank` (from 1), `of`, the rest of its best configuration, `nfe`,
        ``<metric>_mean``, ``<metric>_sem``, ``<metric>_count`` (seeds), `behind` (to the first;
        positive is worse) with `behind_sem`, and `tied`: whether the first place cannot be told
        from this one (for the first: from any other); missing where that cannot be decided.

    Raises:
        QueryError: an unknown name, a condition that makes no sense, several data sets compared
            with each other, or several points for one configuration and seed.
    """
    points = of_points(points)
    metric = metric_of(points, metric)
    check("--best", [of], axes_of(points))
    check("--by", by, axes_of(points))
    by = [name for name in dict.fromkeys(by) if name != of]
    found = configurations(points, at, where, by)
    refuse_mixed_data_sets(found, (of, *by), metric)
    statistics = reduced(found.columns[metric], found.codes, ["mean", "sem", "count"])
    sign = -1.0 if points.higher_is_better(metric) else 1.0
    table = frame_of({**found.labels, "nfe": found.mean("nfe")}).assign(**statistics, place=np.arange(len(found)))
    table = table[table["count"] > 0].assign(cost=lambda t: sign * t["mean"])
    best = table.sort_values([*by, "cost", "nfe", *CONFIGURATION], kind="stable").drop_duplicates([*by, of])
    groups = best.groupby(by, sort=False) if by else best.groupby(np.zeros(len(best), dtype=int))
    best = best.assign(rank=groups.cumcount() + 1)
    leads = best["rank"].to_numpy() == 1
    first = np.maximum.accumulate(np.where(leads, np.arange(len(best)), 0))
    values = _by_seed(found, metric, best["place"].to_numpy())
    ties = against_first(values, first, more_is_better=sign < 0)
    distance = by_seed(values[first], values, scale=LINEAR)
    means = best["mean"].to_numpy()
    behind = np.where(np.isnan(distance.change), means - means[first], distance.change)
    columns = MetricColumns(metric)
    order = [*by, "rank", of, *(name for name in CONFIGURATION if name not in (of, *by)), "nfe"]
    best = best[[*order, "mean", "sem", "count"]].rename(
        columns=lambda n: columns.statistic(n) if n in statistics else n
    )
    tied = pd.arrays.BooleanArray(ties.tied, ties.unknown)
    best = best.assign(behind=sign * behind, behind_sem=distance.error, tied=tied)
    groups = best.groupby(by, sort=False) if by else best.groupby(np.zeros(len(best), dtype=int))
    best.loc[leads, "tied"] = groups["tied"].transform(_any_of_the_others)[leads]
    best = best.reset_index(drop=True)
    best.attrs["left_out"] = found.left_out
    return best


def _any_of_the_others(tied: pd.Series) -> object:
    others = tied.iloc[1:]
    if others.any():
        return True
    return pd.NA if others.isna().any() else False


def _by_seed(found: Configurations, metric: str, places: np.ndarray) -> np.ndarray:
    """The values of some configurations by seed ``[place, seed]``, NaN where a seed has none."""
    seeds, labels = factorize(found.columns["seed"])
    row = np.full(len(found), -1)
    row[places] = np.arange(len(places))
    mine = row[found.codes] >= 0
    values = np.full((len(places), len(labels)), np.nan)
    values[row[found.codes[mine]], seeds[mine]] = found.columns[metric][mine]
    return values


def pareto(
    points: Points,
    objectives: Sequence[str] = ("w1", "nfe"),
    by: Sequence[str] = (),
    where: str | None = None,
) -> pd.DataFrame:
    """The configurations that no other one of their group of `by` beats: at least as good in all
    objectives and better in one.

    Objectives are metrics, and `nfe`, `steps`, `train_seconds` and `sample_seconds`, of which less
    is better. Equal configurations are all kept; one without a value (NaN) in some objective is
    never on the front.

    Returns:
        Columns: `by`, the rest of the configuration, `nfe`, then for each objective its mean:
        ``<metric>_mean``, ``<metric>_sem`` and ``<metric>_count`` of a metric, its own name
        otherwise. Rows in the order of `by`, then of the first objective, best first.

    Raises:
        QueryError: as `rank`; also without objectives.
    """
    points = of_points(points)
    metrics = metric_columns(points)
    objectives = list(dict.fromkeys(objectives))
    if not objectives:
        raise QueryError("--pareto needs objectives, such as w1,nfe")
    check("--pareto", objectives, [*metrics, *_COSTS])
    check("--by", by, axes_of(points))
    by = list(dict.fromkeys(by))
    found = configurations(points, None, where, by)
    refuse_mixed_data_sets(found, by, shown(", ".join(objectives)))
    names = [*by, *(name for name in CONFIGURATION if name not in by)]
    by_name = {name: found.labels[name] for name in names} | {"nfe": found.mean("nfe")}
    costs = np.empty((len(found), len(objectives)))
    for k, name in enumerate(objectives):
        if name in metrics:
            numbers = reduced(found.columns[name], found.codes, ["mean", "sem", "count"])
            by_name |= {MetricColumns(name).statistic(statistic): values for statistic, values in numbers.items()}
            costs[:, k] = -numbers["mean"] if points.higher_is_better(name) else numbers["mean"]
        else:
            by_name[name] = found.mean(name)
            costs[:, k] = by_name[name]
    groups = Groups(found.labels, by, len(found)).codes
    kept = _fronts(costs, groups)
    order = kept[np.lexsort((*costs[kept].T[::-1], groups[kept]))]
    front = frame_of({name: values[order] for name, values in by_name.items()})
    front.attrs["left_out"] = found.left_out
    return front


def _fronts(costs: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The places of rows ``[configuration, objective]`` that no other row of their group dominates."""
    there = np.flatnonzero(~np.isnan(costs).any(axis=1))
    there = there[np.argsort(groups[there], kind="stable")]
    cuts = np.flatnonzero(np.diff(groups[there])) + 1
    kept = [part[_front(costs[part])] if len(part) > 1 else part for part in np.split(there, cuts) if len(part)]
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)


def _front(costs: np.ndarray) -> np.ndarray:
    """Which rows no other row dominates. In lexicographic order only an earlier row can, and if any
    does, one of the front does.
    """
    rows, of = np.unique(costs, axis=0, return_inverse=True)
    good = np.zeros(len(rows), dtype=bool)
    if rows.shape[1] == 2:
        best = np.minimum.accumulate(rows[:, 1])
        good[0], good[1:] = True, rows[1:, 1] < best[:-1]
    else:
        front = np.empty_like(rows)
        n = 0
        for i, row in enumerate(rows):
            if not (front[:n, 1:] <= row[1:]).all(axis=1).any():
                good[i], front[n], n = True, row, n + 1
    return good[of.ravel()]
