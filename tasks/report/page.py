"""The page: sections in the order in which a reader asks, rendered by one template.

What is in the file: the text and tables as HTML (readable without scripts), plotly.js once, and each picture's
numbers as JSON beside its place. A content-security policy in the page forbids every connection, so "opens without a
network" is kept by the browser and not by our good intentions. Pictures are drawn when they come into sight; with
``#all`` after the address everything is unfolded and drawn at once.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tasks.report import distributions, figures, space
from tasks.report.curves import Curve, Mean, Panel, Series, Table, names_of, tabulate
from tasks.report.findings import (
    FACTOR,
    Nearness,
    Verdicts,
    failures,
    not_numbers,
    panels_of,
    verdicts,
)
from tasks.report.look import DASHES, PALETTE, SYMBOLS, Picture, dash, symbol
from tasks.report.targets import Target, target_of
from tasks.report.text import counted, number, plus_minus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.report.answers import Answers

_MOST_SELECTABLE = 8
_FIELDS = ("point_id", "dataset", "formulation", "schedule", "sampler", "grid", "steps", "seed")


@dataclass(frozen=True)
class Choice:
    """One pane of a section in which the reader selects (a sampler)."""

    name: str
    pictures: list[Picture]
    more: list[Picture] = field(default_factory=list)


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
    nearness: list[tuple[Panel, list[int], list[tuple[Series, dict[int, Any], str]]]]


@dataclass(frozen=True)
class OfDataset:
    """Everything about one dataset."""

    name: str
    target: Target
    dim: int | None
    measured: list[Measured]
    sweeps: list[Choice]
    trajectories: list[list[Picture]]
    losses: Picture | None
    clouds: list[Picture]
    sections: list[Picture]
    plane: list[Picture]


def draw_report(answers: Answers) -> str:
    """The report as one HTML document that needs no network.

    Nothing is written and nothing is changed. Whatever is missing (samples, trajectories, losses, exact rows, even
    every answer) leaves its section out, and the page says so at its end.
    """
    table = tabulate(answers.points, answers.study)
    notes: list[str] = []
    parts = [_of_dataset(answers, table, name, notes) for name in table.datasets]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["numbers"] = _as_json
    environment.globals |= {"number": number, "plus_minus": plus_minus, "counted": counted}
    template = environment.from_string(_text("page.html.j2"))
    return template.render(
        study_text=json.dumps(answers.study, indent=2, ensure_ascii=False, default=str),
        name=str(answers.study.get("name", "study")),
        description=str(answers.study.get("description") or ""),
        provenance={str(key): str(value) for key, value in answers.provenance.items()},
        summary=_summary(answers, table),
        table=table,
        legend=_legend(table),
        parts=parts,
        failures=failures(table),
        broken=not_numbers(table),
        fields=_FIELDS,
        factor=f"{FACTOR:g}",
        slack=f"{FACTOR - 1:g}",
        commands=_commands(answers, table),
        notes=notes,
        style=Markup(_text("page.css")),  # noqa: S704  # our own files
        script=Markup(_text("page.js")),  # noqa: S704
        plotly=Markup(get_plotlyjs()),  # noqa: S704
        **_plate(),
    )


def _text(name: str) -> str:
    return files("tasks.report").joinpath(name).read_text(encoding="utf-8")


def _as_json(value: object) -> Markup:
    """JSON that may stand inside a script element: no text of a user can end it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704


def _plate() -> dict[str, Any]:
    """How legend entries are drawn: SVG outlines of plotly's symbols, and dashes."""
    outlines = {
        "circle": "M20 8m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
        "square": "M16.5 4.5h7v7h-7z",
        "diamond": "M20 3l5 5-5 5-5-5z",
        "triangle-up": "M20 3.5l4.8 8h-9.6z",
        "x": "M17 3.6l3 3 3-3 1.4 1.4-3 3 3 3-1.4 1.4-3-3-3 3-1.4-1.4 3-3-3-3z",
        "triangle-down": "M20 12.5l4.8-8h-9.6z",
        "cross": "M18.6 3.5h2.8v3.1h3.1v2.8h-3.1v3.1h-2.8v-3.1h-3.1v-2.8h3.1z",
        "star": "M20 3l1.5 3.3 3.6.4-2.7 2.4.8 3.6-3.2-1.8-3.2 1.8.8-3.6-2.7-2.4 3.6-.4z",
    }
    return {"outlines": {name: outlines[name] for name in SYMBOLS}, "dashes": DASHES, "palette": PALETTE}


def _legend(table: Table) -> list[dict[str, Any]]:
    """One button per series that has a line of its own; exact ones follow the trained ones on their schedule."""
    return [
        {
            "key": series.key,
            "label": series.label,
            "schedule": series.schedule,
            "colour": series.style % PALETTE + 1,
            "symbol": symbol(series.style),
            "dash": dash(series.style),
        }
        for series in table.series
        if not series.exact or series.shown_with == (series.key,)
    ]


def _summary(answers: Answers, table: Table) -> str:
    """The study in one paragraph for somebody who has not read the rest."""
    trained = [series for series in table.series if not series.exact]
    exact = [series for series in table.series if series.exact]
    samplers = list(dict.fromkeys(panel.title for panels in table.panels.values() for panel in panels))
    seeds = {point.seed for point in table.points if point.formulation != "exact"} or {p.seed for p in table.points}
    steps = sorted({point.steps for point in table.points})
    if not table.points:
        return "This study has asked nothing yet."
    compared = (
        f"{counted(len(trained), 'trained formulation')} ({', '.join(series.label for series in trained)})"
        if trained
        else "no trained formulation"
    )
    ideal = (
        f"For comparison the exact denoiser of the target, which needs no network, was integrated by the same samplers "
        f"on {counted(len(exact), 'schedule')}: what separates a trained curve from its exact one is the network's "
        f"error, what separates the exact one from the floor is the sampler's."
        if exact
        else "No exact denoiser was asked for, so network error and sampler error cannot be told apart."
    )
    range_ = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    drawn = answers.study.get("samples")
    each = f"; {drawn:,} samples each" if isinstance(drawn, int) else ""
    return (
        f"The study compares {compared} on {counted(len(table.datasets), 'dataset')} ({', '.join(table.datasets)}), "
        f"drawn with {counted(len(samplers), 'sampler')} ({', '.join(samplers)}) in {range_} steps, "
        f"by {counted(len(seeds), 'seed')}{each}. {ideal}"
    )


def _of_dataset(answers: Answers, table: Table, name: str, notes: list[str]) -> OfDataset:
    target = target_of(name, answers.study)
    dim = _dimension(answers, table, name, target)
    if target.missing:
        notes.append(f"{name}: no exact density is drawn ({target.missing}).")
    sweeps = _sweeps(answers, table, name, target, notes) if dim == 1 else []
    pairs, more = distributions.trajectories(answers, table, name, target) if dim == 1 else ([], 0)
    if more:
        notes.append(f"{name}: {counted(more, 'further kept trajectory', 'further kept trajectories')} not drawn.")
    found = space.clouds(answers, table, name, dim) if dim in (2, 3) else []
    if dim not in (1, 2, 3):
        notes.append(f"{name}: no samples are drawn ({'none were kept' if dim is None else f'dimension {dim}'}).")
    if dim == 1 and not pairs:
        notes.append(f"{name}: no trajectories were kept (keep: {{trajectories: [heun@50]}} keeps them).")
    loss = figures.losses(answers.losses(), table, name)
    if loss is None and any(not series.exact for series in table.series):
        notes.append(f"{name}: no training losses are stored.")
    return OfDataset(
        name=name,
        target=target,
        dim=dim,
        measured=[_measured(table, name, metric) for metric in table.metrics_of(name)],
        sweeps=sweeps,
        trajectories=pairs,
        losses=loss,
        clouds=space.in_space(found, target) if dim == 3 else [],
        sections=space.cross_sections(found, target) if dim == 3 else [],
        plane=space.in_plane(found) if dim == 2 else [],
    )


def _dimension(answers: Answers, table: Table, name: str, target: Target) -> int | None:
    if target.dim is not None:
        return target.dim
    for point in table.points:
        if point.dataset == name and point.status == "ok":
            kept = answers.samples(point.point_id)
            if kept is not None:
                return kept.sizes.get("coordinate", 1)
    return None


def _sweeps(answers: Answers, table: Table, name: str, target: Target, notes: list[str]) -> list[Choice]:
    kept = distributions.kept_samples(answers, table, name)
    if not kept:
        notes.append(f"{name}: no samples were kept, so their distribution is not drawn (keep: {{samples: true}}).")
        return []
    shown = distributions.window(kept, target)
    panels = list(dict.fromkeys(one.panel for one in kept))
    first = distributions.default_panel(panels)
    order = sorted(panels, key=lambda panel: panel != first)
    if len(order) > _MOST_SELECTABLE:
        notes.append(f"{name}: distributions of {figures.panel_names(order[_MOST_SELECTABLE:])} are not drawn.")
    choices = []
    for panel in order[:_MOST_SELECTABLE]:
        own = [one for one in kept if one.panel == panel]
        trained, exact = [one for one in own if not one.series.exact], [one for one in own if one.series.exact]
        first_shown = [distributions.against_steps(one, target, shown) for one in trained or exact]
        folded = [distributions.against_steps(one, target, shown) for one in exact] if trained else []
        choices.append(Choice(panel.title, first_shown, folded))
    return choices


def _measured(table: Table, dataset: str, metric: str) -> Measured:
    found = verdicts(table, dataset, metric)
    return Measured(
        verdicts=found,
        quality=figures.quality(table, dataset, metric),
        sheets=[_sheet(table, dataset, metric, panel) for panel in table.panels[dataset]],
        nearness=[_near(found.nearness, panel) for panel in panels_of(found.nearness) if _compared(found, panel)],
    )


def _compared(found: Verdicts, panel: Panel) -> bool:
    return any(one.ratios for one in found.nearness if one.curve.panel == panel)


def _sheet(table: Table, dataset: str, metric: str, panel: Panel) -> Sheet:
    curves: list[Curve] = table.select(dataset, metric, panel)
    steps = sorted({mean.steps for curve in curves for mean in curve.at})
    rows = []
    for curve in curves:
        by_steps = curve.by_steps()
        usual = max(len(mean.values) for mean in curve.at)
        cells = [_cell(by_steps.get(n), usual) for n in steps]
        rows.append((curve.series.label, curve.series.exact, cells))
    floor = table.floors.get((dataset, metric))
    return Sheet(panel, steps, rows, "" if floor is None else number(floor))


def _cell(mean: Mean | None, usual: int) -> tuple[str, str]:
    """A mean and, for the line below it, its standard error; and how many seeds, where some are missing."""
    if mean is None:
        return "", ""
    error = "" if np.isnan(mean.sem) else f"± {number(mean.sem, 2)}"
    few = counted(len(mean.values), "seed") if len(mean.values) < usual else ""
    return number(mean.mean), ", ".join(part for part in (error, few) if part)


def _near(
    nearness: Sequence[Nearness], panel: Panel
) -> tuple[Panel, list[int], list[tuple[Series, dict[int, Any], str]]]:
    own = [one for one in nearness if one.curve.panel == panel and one.ratios]
    steps = sorted({ratio.steps for one in own for ratio in one.ratios})
    return panel, steps, [(one.curve.series, {r.steps: r for r in one.ratios}, one.sentence()) for one in own]


def _commands(answers: Answers, table: Table) -> list[tuple[str, str]]:
    """Command lines that give the numbers of this page."""
    study = shlex.quote(str(answers.study.get("name", "study")))
    store = answers.provenance.get("store")
    common = f"diffatlas query{f' --store {shlex.quote(str(store))}' if store else ''} --study {study}"
    snapshot = answers.provenance.get("snapshot")
    if snapshot:
        common += f" --as-of {shlex.quote(str(snapshot))}"
    metric = shlex.quote(",".join(table.metrics or names_of(answers.study.get("metrics"))))
    return [
        (
            "the tables above",
            f"{common} --by dataset,formulation,schedule,sampler,grid,steps --metric {metric} --stat mean,sem,count",
        ),
        ("one line per point, failed ones included", f"{common} --format csv --out points.csv"),
    ]
