"""Where an error comes from: network, discretisation, prior and floor against the number of steps.

The parts of a metric add up to it (`error_decomposition`). They are means over seeds, and may be
negative, being differences of noisy numbers.

*Dominates.* The network's error is larger than the discretisation's at N if the rule of
`tasks.statistics.decision` tells the two apart, seed by seed; the step counts of one series are a
family of tests. It dominates from the least N on from which that is so and after which the opposite
is said nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.columns import PARTS, MetricColumns
from tasks.report.lookup.points import Row
from tasks.report.numbers.curves import Mean, Panel, Series, Tabulation, values_by_seed
from tasks.report.text import ROUNDING, listing, some
from tasks.statistics import decision

FLOOR = "floor"
SHOWN = (*PARTS, FLOOR)


@dataclass(frozen=True)
class Split:
    """The parts of a metric at one step count, a mean over seeds each; `total` is their sum, the
    metric.
    """

    total: Mean
    parts: dict[str, Mean]

    @property
    def steps(self) -> int:
        return self.total.steps

    @property
    def largest(self) -> str:
        """The largest part."""
        return max(SHOWN, key=lambda part: self.parts[part].mean)


@dataclass(frozen=True)
class Origin:
    """The parts of one series in one panel, step counts ascending."""

    panel: Panel
    series: Series
    at: tuple[Split, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        """The parts that it can have: an exact denoiser has no network."""
        return SHOWN[1:] if self.series.exact else SHOWN

    def network_from(self) -> int | None:
        """The least N from which on the network's error is larger than the discretisation's; None
        if there is none.
        """
        network, discretisation = (
            values_by_seed([split.parts[part] for split in self.at]) for part in ("network", "discretisation")
        )
        contrasts = decision.by_seed(discretisation, network, scale=decision.LINEAR)
        signs = np.where(decision.decided(contrasts).apart, contrasts.sign, 0)
        start = None
        for split, way in zip(self.at, signs, strict=True):
            if way < 0:
                start = None
            elif way > 0 and start is None:
                start = split.steps
        return start


def metric_with_parts(table: Tabulation, dataset: str) -> str | None:
    """The data set's first metric whose error is split; None where there is no exact denoiser to
    split it with.
    """
    rows = [point for point in table.rows_of(dataset) if point.status == "ok"]
    for metric in table.metrics_of(dataset):
        if any(_parts(point, metric) for point in rows):
            return metric
    return None


def _parts(point: Row, metric: str) -> dict[str, float]:
    """The parts of one point; empty where it was not split."""
    columns = MetricColumns(metric)
    shown = {**columns.parts, FLOOR: columns.floor}
    found = {part: point.beside.get(shown[part], math.nan) for part in SHOWN}
    size = max(map(abs, (point.values[metric], *found.values())))
    found = {part: 0.0 if abs(value) <= ROUNDING * size else value for part, value in found.items()}
    return found if all(math.isfinite(value) for value in found.values()) else {}


def origins(table: Tabulation, dataset: str, metric: str) -> list[Origin]:
    """Every series whose error is split, by panel; exact ones only where no trained one is on their
    schedule.
    """
    groups: dict[tuple[Panel, Series], dict[int, list[tuple[Row, dict[str, float]]]]] = {}
    for point in table.rows_of(dataset):
        series = table.series_of(point.formulation, point.schedule)
        if point.status == "ok" and series is not None:
            parts = _parts(point, metric)
            if parts and (not series.exact or series.shown_with == (series.key,)):
                steps = groups.setdefault((table.panel_of(point), series), {})
                steps.setdefault(point.steps, []).append((point, parts))
    place = {panel: i for i, panel in enumerate(table.panels[dataset])}
    return [
        Origin(
            panel,
            series,
            tuple(_split(n, steps[n], metric) for n in sorted(steps)),
        )
        for (panel, series), steps in sorted(groups.items(), key=lambda item: (place[item[0][0]], item[0][1].key))
    ]


def _split(n: int, found: Sequence[tuple[Row, dict[str, float]]], metric: str) -> Split:
    found = sorted(found, key=lambda item: item[0].seed)
    nfe = int(np.median([point.nfe for point, _ in found]))
    seeds = tuple(point.seed for point, _ in found)
    total = Mean(n, nfe, tuple(point.values[metric] for point, _ in found), seeds)
    return Split(total, {part: Mean(n, nfe, tuple(parts[part] for _, parts in found), seeds) for part in SHOWN})


def reading(found: Sequence[Origin], panel: Panel, metric: str) -> str:
    """One sentence: what dominates at the fewest and at the most steps, and from where on the
    network does.
    """
    own = [origin for origin in found if origin.panel == panel]
    if not own:
        return ""
    first, last = min(o.at[0].steps for o in own), max(o.at[-1].steps for o in own)
    parts = [f"at N = {first} {_leaders([o for o in own if o.at[0].steps == first], 0)}"]
    if last > first:
        parts.append(f"at N = {last} {_leaders([o for o in own if o.at[-1].steps == last], -1)}")
    trained = [origin for origin in own if not origin.series.exact]
    if trained:
        parts.append(_network(trained))
    return f"{metric} with {panel.title}: {'; '.join(parts)}."


def _leaders(own: Sequence[Origin], place: int) -> str:
    """``the largest part is discretisation for all 5`` or ``... for a and b, the network for c``."""
    groups: dict[str, list[str]] = {}
    for origin in own:
        groups.setdefault(origin.at[place].largest, []).append(origin.series.label)
    if len(groups) == 1:
        (part,) = groups
        return f"the largest part is {_article(part)}" + (f" for all {len(own)}" if len(own) > 1 else "")
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return "the largest part is " + ", ".join(f"{_article(part)} for {some(names, 5)}" for part, names in ordered)


def _article(part: str) -> str:
    return {"network": "the network’s error", "discretisation": "discretisation", "prior": "the prior"}.get(
        part, "the sampling floor"
    )


def _network(trained: Sequence[Origin]) -> str:
    starts = [(origin, origin.network_from()) for origin in trained]
    by_start: dict[int, list[str]] = {}
    for origin, start in starts:
        if start is not None:
            by_start.setdefault(start, []).append(origin.series.label)
    never = [origin.series.label for origin, start in starts if start is None]
    found = [f"N ≥ {start} on for {some(names, 5)}" for start, names in sorted(by_start.items())]
    parts = [f"the network’s error exceeds discretisation from {listing(found)}"] if found else []
    if never:
        last = trained[0].at[-1].steps
        whose = f" for {some(never, 5)}" if len(trained) > 1 else ""
        what = "that" if found else "that the network’s error exceeds discretisation for good"
        parts.append(f"{what} cannot be told up to N = {last}{whose}")
    return ", ".join(parts)
