"""The summary of a study as a table: formulation x steps, mean and standard error over seeds,
floor, exact row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import xarray as xr
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tasks.columns import MetricColumns, distinct, metric_names, of_models
from tasks.messages import counted
from tasks.plain import Plain, Spec

_NAMES = ("dataset", "sampler", "formulation", "schedule", "grid", "steps")


def summary(points: xr.Dataset, metric: str) -> pd.DataFrame:
    """One row per (dataset, sampler, formulation, schedule, grid, steps): mean, sem, count and
    floor of a metric.
    """
    frame = points.to_dataframe().reset_index(drop=True)
    frame = frame[(frame["status"] == "ok") & frame[metric].notna()]
    groups = frame.groupby(list(_NAMES), sort=False)
    return groups.agg(
        mean=(metric, "mean"), sem=(metric, "sem"), count=(metric, "count"), floor=(MetricColumns(metric).floor, "mean")
    ).reset_index()


def summary_records(points: xr.Dataset, metrics: Sequence[str]) -> list[Spec]:
    """The summary of the first of some metrics that was measured, as plain records."""
    names = [name for name in metrics if name in metric_names(points)]
    if not names:
        return []
    records = summary(points, names[0]).to_dict("records")
    return [{str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in records]


def failure_lines(points: xr.Dataset, most: int = 20) -> list[str]:
    """How many points failed, and the first reasons, each with its place; nothing where none did."""
    failed = points.isel(point=(points["status"] == "failed").values)
    if not failed.sizes["point"]:
        return []
    columns = (failed[name].values for name in ("dataset", "formulation", "sampler", "seed", "error"))
    reasons = sorted({f"  {d} {f}, {a}, seed {s}: {e}" for d, f, a, s, e in zip(*columns, strict=True)})
    more = [f"  and {len(reasons) - most} more"] if len(reasons) > most else []
    heading = f"{counted(failed.sizes['point'], 'point')} failed (diffatlas run --retry-failed computes them again):"
    return [heading, *reasons[:most], *more]


def brief(value: float) -> str:
    """A number in at most six characters, two significant digits."""
    if not math.isfinite(value):
        return "-"
    if value != 0 and not 1e-4 <= abs(value) < 1e4:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{float(f'{value:.2g}'):.10f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:.0f}"


def tables(points: xr.Dataset, metric: str, width: int) -> list[Group]:
    """A table for each dataset and sampler; as many step counts as fit into `width` characters,
    first and last included.

    What is sampled in one step and in no other way has no table of its own: it stands below each of
    its data set's. The sampling floor stands in the title where all rows share it, and row by row
    where they follow different laws.
    """
    if of_models(points, metric):
        return [_of_models(points, metric)] if points[metric].notnull().any() else []
    rows = summary(points, metric).assign(panel=_grids_apart)
    alone = _baselines(rows)
    beside = {str(dataset): _in_one_step(part) for dataset, part in rows[alone].groupby("dataset", sort=False)}
    made = []
    for (dataset, sampler, grid), part in rows[~alone].groupby(["dataset", "sampler", "panel"], sort=False):
        part = part.assign(row=[row_name(f, s) for f, s in zip(part["formulation"], part["schedule"], strict=True)])  # noqa: PLW2901
        steps = sorted(part["steps"].unique())
        floors = distinct(part["floor"])
        apart = len(floors) > 1
        shown = spread(steps, max(2, (width - 24) // 17 - apart))
        floor_text = "the sampling floor of each row beside it" if apart else f"sampling floor {_listed(floors)}"
        title = Text(
            f"\n{metric} of {dataset}, {sampler}{grid}: mean ± standard error over seeds; {floor_text}", "bold"
        )
        table = Table()
        table.add_column("steps", overflow="fold", max_width=max(20, width // 3))
        for step in shown:
            table.add_column(str(step), justify="right", no_wrap=True)
        if apart:
            table.add_column("floor", justify="right", no_wrap=True)
        for name in _ordered(part):
            mine = part[part["row"] == name].set_index("steps")
            cells = []
            for step in shown:
                if step not in mine.index:
                    cells.append("")
                    continue
                entry = mine.loc[step]
                cells.append(_entry(entry.iloc[0] if isinstance(entry, pd.DataFrame) else entry))
            if apart:
                cells.append(_listed(distinct(mine["floor"])))
            table.add_row(name, *cells, style="dim" if name.startswith("exact") else None)
        captions = [beside[dataset]] if dataset in beside else []
        if len(shown) < len(steps):
            captions.append(f"{len(shown)} of {len(steps)} step counts; all of them:\n{_command(points, metric)}")
        table.caption = "\n".join(captions) or None
        made.append(Group(title, table))
    return made


def _command(points: xr.Dataset, metric: str) -> str:
    """What tells all step counts of every table."""
    study = points.attrs.get("study")
    named = f" --study {study}" if study else ""
    return f"diffatlas query{named} --by dataset,sampler,grid,formulation,schedule,steps --metric {metric}"


def _of_models(points: xr.Dataset, metric: str) -> Group:
    """A metric that every point of a model repeats: one row for each model, with the floor and what
    it is above that.
    """
    frame = points.to_dataframe().reset_index(drop=True)
    frame = frame[(frame["status"] == "ok") & frame[metric].notna()].drop_duplicates("cell_id")
    floor = frame[MetricColumns(metric).floor]
    frame = frame.assign(value=frame[metric], floor=floor, above=frame[metric] - floor)
    table = Table()
    for name in ("dataset", "formulation", "schedule"):
        table.add_column(name, overflow="fold")
    for name in (metric, "floor", "above it"):
        table.add_column(name, justify="right", no_wrap=True)
    for labels, part in frame.groupby(["dataset", "formulation", "schedule"], sort=False):
        dataset, formulation, schedule = map(str, labels)
        entries = [
            _entry({"mean": part[name].mean(), "sem": part[name].sem(), "count": len(part)})
            for name in ("value", "above")
        ]
        style = "dim" if formulation == "exact" else None
        table.add_row(dataset, formulation, schedule, entries[0], brief(part["floor"].mean()), entries[1], style=style)
    return Group(Text(f"\n{metric} of each model: mean ± standard error over seeds", "bold"), table)


def _listed(floors: list[float]) -> str:
    """One floor, or the least and the largest of those that change with the number of steps."""
    return " to ".join(brief(floor) for floor in dict.fromkeys((floors[0], floors[-1]))) if floors else "-"


def _entry(row: Plain) -> str:
    """Mean and, of several seeds, its standard error."""
    rounding = 1e-12 * abs(row["mean"])
    return brief(row["mean"]) + (f" ±{brief(row['sem'] if row['sem'] > rounding else 0.0)}" if row["count"] > 1 else "")


def _baselines(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of formulations that were asked by one sampler in one step alone, where others
    were asked more of.
    """
    keys = ["dataset", "formulation"]
    questions = rows.assign(question=rows["sampler"] + "@" + rows["steps"].astype(str)).groupby(keys)["question"]
    by_sampler = rows.groupby(["dataset", "sampler"])["steps"]
    alone = (questions.transform("nunique") == 1) & (rows["steps"] == 1) & (by_sampler.transform("max") == 1)
    others = (~alone).groupby(rows["dataset"]).transform("any")
    return (alone & others).astype(bool)


def _in_one_step(rows: pd.DataFrame) -> str:
    """One line of all baselines of a data set."""
    return "in one step: " + "; ".join(
        f"{row['formulation']} by {row['sampler']} {_entry(row)}" for _, row in rows.iterrows()
    )


def _grids_apart(rows: pd.DataFrame) -> list[str]:
    """Of each row, a word for its grid where the same question was asked on several; nothing where
    the grid is one.
    """
    grids = rows.groupby(["dataset", "sampler", "formulation", "schedule"])["grid"].transform("nunique")
    several = set(rows.loc[grids > 1, "sampler"])
    return [f" on {grid}" if s in several else "" for s, grid in zip(rows["sampler"], rows["grid"], strict=True)]


def row_name(formulation: str, schedule: str) -> str:
    """What a row is called: an exact one by the schedule that it is exact on."""
    return f"exact {schedule}" if formulation == "exact" else formulation


def _ordered(part: pd.DataFrame) -> list[str]:
    names = list(dict.fromkeys(part["row"]))
    return [n for n in names if not n.startswith("exact")] + [n for n in names if n.startswith("exact")]


def spread(values: list[int], room: int) -> list[int]:
    """As many of them as there is room for, the first and the last included."""
    if len(values) <= room:
        return values
    chosen = {round(i * (len(values) - 1) / (room - 1)) for i in range(room)}
    return [values[i] for i in sorted(chosen)]
