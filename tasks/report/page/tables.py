"""The tables of the page: means over seeds, ratios to the exact denoiser, and verdicts on a claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.messages import counted
from tasks.report.numbers.claims import Weighed
from tasks.report.numbers.curves import Curve, Mean, Panel, Series, Tabulation
from tasks.report.numbers.evidence import Verdict
from tasks.report.numbers.findings import Verdicts, panels_of, verdicts
from tasks.report.numbers.nearness import Nearness, Ratio
from tasks.report.pictures.quality import quality
from tasks.report.pictures.style import Picture
from tasks.report.text import error, number, plus_minus


@dataclass(frozen=True)
class Sheet:
    """One table of means: rows are series, columns step counts."""

    panel: Panel
    steps: list[int]
    rows: list[tuple[str, bool, list[tuple[str, str]]]]
    floor: str


@dataclass(frozen=True)
class Measured:
    """Everything about one dataset and metric."""

    verdicts: Verdicts
    quality: list[Picture]
    sheets: list[Sheet]
    nearness: list[tuple[Panel, list[int], list[tuple[Series, dict[int, Ratio], str]]]]


def measured(table: Tabulation, dataset: str, metric: str, point_mass: float) -> Measured:
    """Findings, pictures and tables of one data set and metric; `point_mass` is the error of
    samples at the target's mean.
    """
    found = verdicts(table, dataset, metric, point_mass)
    alone = [curve.panel for curve in table.baselines(dataset, metric)]
    return Measured(
        verdicts=found,
        quality=quality(table, dataset, metric),
        sheets=[_sheet(table, dataset, metric, panel) for panel in table.panels[dataset] if panel not in alone],
        nearness=[_near(found.nearness, panel) for panel in panels_of(found.nearness) if _compared(found, panel)],
    )


def _compared(found: Verdicts, panel: Panel) -> bool:
    return any(one.ratios for one in found.nearness if one.curve.panel == panel)


def _sheet(table: Tabulation, dataset: str, metric: str, panel: Panel) -> Sheet:
    curves: list[Curve] = table.select(dataset, metric, panel)
    steps = sorted({mean.steps for curve in curves for mean in curve.at})
    rows = []
    for curve in curves:
        by_steps = curve.by_steps()
        usual = max(len(mean.values) for mean in curve.at)
        cells = [_cell(by_steps.get(n), usual) for n in steps]
        rows.append((curve.series.label, curve.series.exact, cells))
    for baseline in table.baselines(dataset, metric):
        (mean,) = baseline.at
        label = f"{baseline.series.label}, in {counted(mean.nfe, 'evaluation')}"
        rows.append((label, False, [_cell(mean, len(mean.values))] * len(steps)))
        curves.append(baseline)
    floors = table.floors_of(dataset, metric, panel.sampler)
    if len(floors) < 2:
        return Sheet(panel, steps, rows, "".join(map(number, floors)))
    own = [table.floor(dataset, metric, curve.panel, curve.series) for curve in curves]
    rows = [
        (label if floor is None else f"{label} (floor {number(floor)})", exact, cells)
        for (label, exact, cells), floor in zip(rows, own, strict=True)
    ]
    return Sheet(panel, steps, rows, "")


def _cell(mean: Mean | None, usual: int) -> tuple[str, str]:
    """A mean and, for the line below it, its standard error; and how many seeds, where some are
    missing.
    """
    if mean is None:
        return "", ""
    few = counted(len(mean.values), "seed") if len(mean.values) < usual else ""
    return plus_minus(mean.mean, math.nan), ", ".join(part for part in (error(mean.mean, mean.sem), few) if part)


def _near(
    nearness: Sequence[Nearness], panel: Panel
) -> tuple[Panel, list[int], list[tuple[Series, dict[int, Ratio], str]]]:
    own = [one for one in nearness if one.curve.panel == panel and one.ratios]
    steps = sorted({ratio.steps for one in own for ratio in one.ratios})
    return panel, steps, [(one.curve.series, {r.steps: r for r in one.ratios}, one.sentence()) for one in own]


def matrix(weighed: Weighed) -> tuple[list[str], list[tuple[str, str, list[Verdict | None]]], bool]:
    """Verdicts of a claim as a table: data sets across; denoiser and what was compared down, and if
    that varies.
    """
    across = list(dict.fromkeys(one.dataset for one in weighed.verdicts))
    rows: dict[tuple[str, str], dict[str, Verdict]] = {}
    for one in weighed.verdicts:
        rows.setdefault((one.denoiser, one.compared), {})[one.dataset] = one
    shown = [(*row, [found.get(dataset) for dataset in across]) for row, found in rows.items()]
    return across, shown, len({compared for _, compared in rows}) > 1
