"""Points to curves: seeds become a mean, a standard error and an interval.

For n seeds with values x_i at one question, ``mean = sum x_i / n``, ``sem = s / sqrt(n)`` with s^2
the unbiased variance, and the interval of the mean is Student's (`tasks.statistics.intervals`).

On a logarithmic axis the same is said of ``log x_i``: the curve is the geometric mean, and its band
that mean's interval.

A *series* is what one line of a figure shows: a trained formulation on a schedule, or the exact
denoiser on a schedule. A *panel* is a sampler (and its grid, where a study asks for several). A
*baseline* is a model that samples in its own way at one cost (an autoencoder's decoder): it has no
curve, and stands as a level line in the panels of others.

A metric that looks at the model and not at samples (`nll`, `score-error`) does not depend on
sampler and steps: it is one of `of_models`, which `models` tabulates, and none of the `metrics`
here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffusion.metrics import BaseMetric
from tasks.columns import GENERATION, distinct, higher_is_better, of_models
from tasks.report.lookup.labels import labels_of, short_labels
from tasks.report.lookup.metrics import columns_in_order, metrics_by_column
from tasks.report.lookup.points import Row, rows_in
from tasks.report.lookup.requested import EXACT
from tasks.report.lookup.targets import Target, target_of
from tasks.statistics.intervals import geometric_interval, mean_interval

if TYPE_CHECKING:
    from tasks.results import Answers


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a figure, with the number that gives it its colour and symbol.

    An exact series has the style of the first trained one on its schedule and is shown as long as
    one of the trained series in `shown_with` is.
    """

    key: int
    formulation: str
    schedule: str
    label: str
    style: int
    shown_with: tuple[int, ...]
    on: str = field(default="", compare=False)  # what the page calls its schedule

    @property
    def exact(self) -> bool:
        return self.formulation == EXACT


@dataclass(frozen=True, slots=True)
class Panel:
    """A sampler, and a grid where the study compares grids; `name` is what the page calls the
    sampler, `rule` its own name.
    """

    sampler: str
    grid: str | None = None
    name: str = field(default="", compare=False)
    rule: str = field(default="", compare=False)  # see `Requested.rule`
    plain: bool = field(default=True, compare=False)  # whether the sampler has its default parameters

    @property
    def title(self) -> str:
        name = self.name or self.sampler
        return name if self.grid is None else f"{name}, grid {self.grid}"


@dataclass(frozen=True)
class Mean:
    """The seeds at one step count, with a value each; `lost` is how many failed to answer."""

    steps: int
    nfe: int
    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    lost: int = 0

    @cached_property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @cached_property
    def sem(self) -> float:
        """Standard error of the mean; NaN for a single seed."""
        n = len(self.values)
        return float(np.std(self.values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean; None for fewer than three seeds."""
        return mean_interval(self.values)

    @cached_property
    def geometric_mean(self) -> float:
        """``exp(mean log x)``; 0 if one of the values is 0, NaN if one is negative."""
        least = min(self.values)
        return math.exp(float(np.log(self.values).mean())) if least > 0 else 0.0 if least == 0 else math.nan

    @cached_property
    def geometric_interval(self) -> tuple[float, float] | None:
        """``exp`` of the 95 % interval of the mean of ``log x``; None for fewer than three seeds,
        and if one is not positive.
        """
        return geometric_interval(self.values)


def values_by_seed(means: Sequence[Mean]) -> NDArray[np.float64]:
    """The values of each by seed ``[mean, seed]``, NaN where a seed has none."""
    known = sorted({seed for mean in means for seed in mean.seeds})
    total, count = np.zeros((len(means), len(known))), np.zeros((len(means), len(known)))
    for i, mean in enumerate(means):
        places = np.searchsorted(known, mean.seeds)
        np.add.at(total[i], places, mean.values)
        np.add.at(count[i], places, 1)
    return total / np.where(count > 0, count, np.nan)


@dataclass(frozen=True, slots=True)
class Curve:
    """One series in one panel: a mean per step count, ascending; `start` is what its samples set
    out from.
    """

    dataset: str
    metric: str
    panel: Panel
    series: Series
    at: tuple[Mean, ...]
    start: str = ""
    process: str = GENERATION

    @property
    def from_noise(self) -> bool:
        """Whether its samples were made from noise: what others know more is not compared with it."""
        return self.process == GENERATION

    def by_steps(self) -> dict[int, Mean]:
        return {mean.steps: mean for mean in self.at}


def _in_one_step(curve: Curve) -> bool:
    """Whether a curve is one point that a trained model made in one step, from noise."""
    return [mean.steps for mean in curve.at] == [1] and curve.from_noise and not curve.series.exact


@dataclass(frozen=True)
class Tabulation:
    """Everything the report needs of the points, in a stable order."""

    points: tuple[Row, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    higher_is_better: frozenset[str]
    known: Mapping[str, BaseMetric]  # the metrics themselves, by column
    targets: Mapping[str, Target]
    panels: Mapping[str, tuple[Panel, ...]]
    series: tuple[Series, ...]
    floors: Mapping[
        tuple[str, str, str, str, str], float
    ]  # of dataset, metric, sampler, schedule, formulation: see `tasks.columns`
    of_models: tuple[str, ...] = ()
    shorts: Mapping[str, str] = field(default_factory=dict)  # what the page calls a label, see `labels`
    fixed: frozenset[str] = frozenset()  # samplers that draw nothing at random, where the start is none either
    curves: tuple[Curve, ...] = field(default=())
    _answered: dict[str, list[tuple[Panel, Series, int, list[Row]]]] = field(
        default_factory=dict, init=False, repr=False
    )

    def short(self, label: str) -> str:
        """What the page calls a dataset, schedule, formulation or sampler."""
        return self.shorts.get(label, label)

    def nothing_random(self, sampler: str, series: Series) -> bool:
        """Whether seeds change nothing: an exact denoiser, a deterministic sampler, quantiles to
        start from.
        """
        return series.exact and sampler in self.fixed

    def select(self, dataset: str, metric: str, panel: Panel | None = None) -> list[Curve]:
        """The curves of one figure, trained ones first."""
        return [
            curve
            for curve in self.curves
            if (curve.dataset, curve.metric) == (dataset, metric) and (panel is None or curve.panel == panel)
        ]

    def baselines(self, dataset: str, metric: str) -> list[Curve]:
        """The curves of panels that hold nothing but single points at N = 1, beside panels with
        more to see.
        """
        by_panel: dict[Panel, list[Curve]] = {}
        for curve in self.select(dataset, metric):
            by_panel.setdefault(curve.panel, []).append(curve)
        alone = [own for own in by_panel.values() if all(_in_one_step(curve) for curve in own)]
        return [curve for own in alone for curve in own] if len(alone) < len(by_panel) else []

    def floor(self, dataset: str, metric: str, panel: Panel, series: Series) -> float | None:
        """The sampling floor of the law that one curve's samples should follow; None if it is not
        known.
        """
        return self.floors.get((dataset, metric, panel.sampler, series.schedule, series.formulation))

    def floors_of(self, dataset: str, metric: str, *names: str) -> list[float]:
        """The different sampling floors of some samplers on all schedules, ascending."""
        return distinct(
            floor
            for (d, m, sampler, *_), floor in self.floors.items()
            if (d, m) == (dataset, metric) and sampler in names
        )

    def metrics_of(self, dataset: str) -> list[str]:
        """The metrics that mean something for a dataset: those with an answer; all, where nothing
        was answered.
        """
        return self._answered_metrics.get(dataset) or list(self.metrics)

    @cached_property
    def _answered_metrics(self) -> dict[str, list[str]]:
        return {
            name: [m for m in self.metrics if any(math.isfinite(point.values[m]) for point in rows)]
            for name, rows in self._rows.items()
        }

    def rows_of(self, dataset: str) -> list[Row]:
        """The points of one dataset."""
        return self._rows.get(dataset, [])

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for point in self.points:
            found.setdefault(point.dataset, []).append(point)
        return found

    def series_of(self, formulation: str, schedule: str) -> Series | None:
        return self._series_named.get((formulation, schedule))

    @cached_property
    def _series_named(self) -> dict[tuple[str, str], Series]:
        return {(series.formulation, series.schedule): series for series in self.series}

    def panel_of(self, point: Row) -> Panel:
        named = self._panels_named
        key = (point.dataset, point.sampler)
        return named.get((*key, None)) or named[(*key, point.grid)]  # every point made one

    @cached_property
    def _panels_named(self) -> dict[tuple[str, str, str | None], Panel]:
        return {(name, panel.sampler, panel.grid): panel for name, own in self.panels.items() for panel in own}

    def answered(self, dataset: str) -> list[tuple[Panel, Series, int, list[Row]]]:
        """The answered points of a dataset by panel, series and seed, most steps first."""
        if dataset not in self._answered:
            groups: dict[tuple[Panel, Series, int], list[Row]] = {}
            for point in self.rows_of(dataset):
                series = self.series_of(point.formulation, point.schedule)
                if point.status == "ok" and series is not None:
                    groups.setdefault((self.panel_of(point), series, point.seed), []).append(point)
            place = {panel: i for i, panel in enumerate(self.panels[dataset])}
            order = sorted(groups.items(), key=lambda group: (place[group[0][0]], group[0][1].key, group[0][2]))
            self._answered[dataset] = [(*key, sorted(points, key=lambda point: -point.steps)) for key, points in order]
        return self._answered[dataset]


def tabulate(answers: Answers) -> Tabulation:
    """The answers in the order of the study, grouped into curves."""
    points = answers.points
    named = columns_in_order(answers)
    models = tuple(name for name in named if of_models(points, name))
    metrics = tuple(name for name in named if name not in models)
    rows = rows_in(answers, (*metrics, *models))
    by_dataset: dict[str, list[Row]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, []).append(row)
    shorts = {k: v for labels in labels_of(rows).values() for k, v in short_labels(labels).items()}
    table = Tabulation(
        points=rows,
        datasets=tuple(by_dataset),
        metrics=metrics,
        higher_is_better=frozenset(name for name in metrics if higher_is_better(points, name)),
        known=metrics_by_column(answers),
        targets={name: target_of(own) for name, own in by_dataset.items()},
        panels={name: _panels(own, shorts) for name, own in by_dataset.items()},
        series=_series(rows, shorts),
        floors=_floors(rows),
        of_models=models,
        shorts=shorts,
        fixed=_fixed(rows) if answers.study.get("start") == "quantiles" else frozenset(),
    )
    return replace(table, curves=tuple(_curves(table)))


def _fixed(rows: Iterable[Row]) -> frozenset[str]:
    """Those that are known and deterministic."""
    known = ((row.sampler, row.requested.sampler.component) for row in rows)
    return frozenset(label for label, sampler in known if sampler is not None and not sampler.stochastic)


def _panels(rows: Sequence[Row], shorts: Mapping[str, str]) -> tuple[Panel, ...]:
    grids: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        grids.setdefault((row.formulation, row.schedule, row.sampler), set()).add(row.grid)
    several = any(len(found) > 1 for found in grids.values())
    samplers = list(dict.fromkeys(row.sampler for row in rows))
    found: dict[Panel, None] = {}
    for row in sorted(rows, key=lambda row: samplers.index(row.sampler)):
        requested = row.requested
        grid = row.grid if several else None
        found.setdefault(Panel(row.sampler, grid, shorts[row.sampler], requested.rule, requested.sampler.plain))
    return tuple(found)


def _series(rows: Sequence[Row], shorts: Mapping[str, str]) -> tuple[Series, ...]:
    pairs = list(dict.fromkeys((row.formulation, row.schedule) for row in rows))
    order = list(dict.fromkeys(formulation for formulation, _ in pairs))
    trained = sorted((pair for pair in pairs if pair[0] != EXACT), key=lambda pair: order.index(pair[0]))
    several = {f for f, _ in trained if sum(other == f for other, _ in trained) > 1}
    steps: dict[str, set[int]] = {}
    for row in rows:
        steps.setdefault(row.formulation, set()).add(row.steps)
    swept = {f for f, _ in trained if steps[f] != {1}}  # all but baselines
    alone = several and len(swept) == 1  # one formulation on many schedules: it need not be repeated
    made = [
        Series(
            key,
            f,
            s,
            shorts[s] if alone and f in several else f"{shorts[f]} on {shorts[s]}" if f in several else shorts[f],
            key,
            (key,),
        )
        for key, (f, s) in enumerate(trained)
    ]
    for formulation, schedule in pairs:
        if formulation == EXACT:
            companions = tuple(one.key for one in made if not one.exact and one.schedule == schedule)
            key, on = len(made), shorts[schedule]
            style = companions[0] if companions else key
            made.append(Series(key, EXACT, schedule, f"exact on {on}", style, companions or (key,), on))
    return tuple(made)


def _floors(rows: Sequence[Row]) -> dict[tuple[str, str, str, str, str], float]:
    """The median sampling floor of each dataset, metric, sampler, schedule and formulation (of
    restorations, by what was observed).
    """
    found: dict[tuple[str, str, str, str, str], list[float]] = {}
    for row in rows:
        for metric in row.values:
            floor = row.floor(metric)
            if math.isfinite(floor):
                found.setdefault((row.dataset, metric, row.sampler, row.schedule, row.formulation), []).append(floor)
    return {key: float(np.median(floors)) for key, floors in found.items()}


def _curves(table: Tabulation) -> Iterable[Curve]:
    groups: dict[tuple[str, Panel, Series, int], list[Row]] = {}
    lost: dict[tuple[str, Panel, Series, int], int] = {}
    for row in table.points:
        series = table.series_of(row.formulation, row.schedule)
        if series is not None:
            key = (row.dataset, table.panel_of(row), series, row.steps)
            lost[key] = lost.get(key, 0) + (row.status == "failed")
            if row.status == "ok":
                groups.setdefault(key, []).append(row)
    lines: dict[tuple[str, Panel, Series], list[tuple[int, list[Row]]]] = {}
    for (dataset, panel, series, steps), rows in groups.items():
        lines.setdefault((dataset, panel, series), []).append((steps, sorted(rows, key=lambda row: row.seed)))
    place = {(dataset, panel): i for dataset in table.datasets for i, panel in enumerate(table.panels[dataset])}
    for (dataset, panel, series), found in sorted(
        lines.items(), key=lambda li: (li[0][2].key, place[li[0][0], li[0][1]])
    ):
        for metric in table.metrics:
            means = []
            for steps, rows in sorted(found, key=lambda one: one[0]):
                own = [row for row in rows if math.isfinite(row.values[metric])]
                if own:
                    values, seeds = tuple(row.values[metric] for row in own), tuple(row.seed for row in own)
                    failed = lost[dataset, panel, series, steps]
                    means.append(Mean(steps, int(np.median([row.nfe for row in rows])), values, seeds, failed))
            if means:
                yield Curve(dataset, metric, panel, series, tuple(means), found[0][1][0].start, found[0][1][0].process)
