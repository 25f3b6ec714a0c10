"""The page: sections in the order in which a reader asks, rendered by one template.

What is in the file: the text and tables as HTML (readable without scripts), plotly.js once, and each picture's
numbers as JSON beside its place. A content-security policy in the page forbids every connection, so "opens without a
network" is kept by the browser and not by our good intentions. Pictures are drawn when they come into sight; with
``#all`` after the address everything is unfolded and drawn at once.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from diffusion.samplers import samplers
from diffusion.schedules import schedules
from tasks.report import claims, distributions, evidence, fields, figures, images, models, parts, plane, score, space
from tasks.report.comparisons import CONFIDENCE, WITHOUT_FLOOR, WORTH
from tasks.report.curves import Curve, Mean, Panel, Series, Table, names_of, tabulate
from tasks.report.distributions import Kept
from tasks.report.findings import (
    BEYOND,
    FACTOR,
    Nearness,
    Verdicts,
    failures,
    not_numbers,
    panels_of,
    verdicts,
)
from tasks.report.look import DASHES, PALETTE, SYMBOLS, Picture, dash, symbol
from tasks.report.named import components_in, plain
from tasks.report.targets import Target, target_of
from tasks.report.text import counted, number, plus_minus, some
from tasks.warnings import end_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.report.answers import Answers

_MOST_SELECTABLE = 8
_MOST_PICTURES = 36
_FEW_SERIES = 2  # so few are shown for all samplers side by side; more, for one sampler at a time
_SIGNS = {evidence.HOLDS: "✓", evidence.PART: "◐", evidence.FAILS: "✗", evidence.OPEN: "?"}
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
    origins: list[Choice]
    reading: str
    sweeps: list[Choice]
    trajectories: list[list[Picture]]
    exact_trajectories: list[list[Picture]]  # folded away beside those of trained ones
    flows: list[Picture]
    exact_flows: list[Picture]  # folded away beside those of trained ones
    losses: Picture | None
    score: Picture | None
    models: models.OfModels | None
    clouds: list[Picture]
    sections: list[Picture]
    in_plane: Picture | None
    plane: list[Choice]
    images: list[Choice]


def draw_report(answers: Answers) -> str:
    """The report as one HTML document that needs no network.

    Nothing is written and nothing is changed. Whatever is missing (samples, trajectories, losses, exact rows, even
    every answer) leaves its section out, and the page says so at its end.
    """
    table = tabulate(answers.points, answers.study)
    notes: list[str] = []
    data = [_of_dataset(answers, table, name, notes) for name in table.datasets]
    weighed = claims.weigh(table, answers.study)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["numbers"] = _as_json
    environment.globals |= {"number": number, "plus_minus": plus_minus, "counted": counted, "matrix": _matrix}
    template = environment.from_string(_text("page.html.j2"))
    return template.render(
        study_text=json.dumps(answers.study, indent=2, ensure_ascii=False, default=str),
        name=str(answers.study.get("name", "study")),
        description=str(answers.study.get("description") or ""),
        provenance={str(key): str(value) for key, value in answers.provenance.items()},
        summary=_summary(answers, table),
        table=table,
        legend=_legend(table),
        most_bands=figures.MOST_BANDS,
        parts=data,
        warnings=_warnings(answers, table, data),
        claims=[one for one in weighed if one.verdicts],
        unweighed=[one.claim for one in weighed if not one.verdicts],
        rule={"confidence": f"{CONFIDENCE:.0%}", "worth": f"{WORTH - 1:.0%}", "unknown": f"{WITHOUT_FLOOR:.0%}"},
        signs=_SIGNS,
        shortened=[(short, label) for label, short in table.shorts.items() if short != label],
        learned=any(not series.exact for series in table.series),
        words=parts.WORDS,
        failures=failures(table),
        broken=not_numbers(table),
        fields=_FIELDS,
        factor=f"{FACTOR:g}",
        most_beyond=f"{BEYOND:g}",
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
    formulations = list(dict.fromkeys(table.short(series.formulation) for series in trained))
    compared = f"{counted(len(formulations), 'trained formulation')} ({', '.join(formulations)})"
    if len(trained) > len(formulations):
        on_schedules = list(dict.fromkeys(table.short(series.schedule) for series in trained))
        compared += f" with {counted(len(on_schedules), 'schedule')} ({', '.join(on_schedules)})"
    on = f"{counted(len(exact), 'schedule')} ({', '.join(table.short(series.schedule) for series in exact)})"
    if not trained:
        compared = f"exact denoisers, which need no network, on {on} for"
        ideal = "No network was trained: what separates a curve from the floor is the sampler's error, and the prior's."
    elif exact:
        ideal = (
            f"For comparison the exact denoiser of the target, which needs no network, was integrated by the same samplers "
            f"on {counted(len(exact), 'schedule')}: what separates a trained curve from its exact one is the network's "
            f"error, what separates the exact one from the floor is the sampler's."
        )
    else:
        ideal = "No exact denoiser was asked for, so network error and sampler error cannot be told apart."
    range_ = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    drawn = answers.study.get("samples")
    each = f"; {drawn:,} samples each" if isinstance(drawn, int) else ""
    return (
        f"The study compares {compared} {'on ' if trained else ''}{counted(len(table.datasets), 'dataset')} "
        f"({', '.join(table.short(name) for name in table.datasets)}), "
        f"drawn with {counted(len(samplers), 'sampler')} ({', '.join(samplers)}) in {range_} steps, "
        f"by {counted(len(seeds), 'seed')}{each}. {ideal}"
    )


def _of_dataset(answers: Answers, table: Table, name: str, notes: list[str]) -> OfDataset:
    target = target_of(name, answers.study)
    dim = _dimension(answers, table, name, target)
    if target.missing:
        notes.append(f"{name}: the exact target is not drawn ({target.missing}).")
    origins, reading = _origins(table, name, notes)
    kept, order = _kept(answers, table, target, dim, notes) if dim not in (None, 3) else ([], [])
    sweeps = _sweeps(kept, order, target) if dim == 1 else []
    paths, more = distributions.trajectories(answers, table, name, target) if dim == 1 else ([], 0)
    in_plane: Picture | None = None
    samples_in_plane: list[Choice] = []
    as_images: list[Choice] = []
    if kept and target.image_shape is not None:
        sheets = images.sheets_of(target, kept, target.image_shape)
        data = images.data_picture(sheets)
        as_images = [
            replace(choice, pictures=([data] if data else []) + choice.pictures)
            for choice in _choices(kept, order, lambda own, titled: images.pictures(own, sheets, by_panel=titled))
        ]
        paths, more = images.trajectories(answers, table, name, target, sheets)
    elif kept and dim is not None and dim != 1:
        view = plane.view_of(target, kept, dim)
        in_plane = plane.target_picture(view)
        samples_in_plane = [
            replace(choice, pictures=([in_plane] if in_plane else []) + choice.pictures)
            for choice in _choices(kept, order, lambda own, titled: plane.pictures(own, view, by_panel=titled))
        ]
        paths, more = plane.trajectories(answers, table, name, target, view)
    trained = [pictures for series, pictures in paths if not series.exact]
    exact = [pictures for series, pictures in paths if series.exact]
    if more:
        notes.append(f"{name}: {counted(more, 'further kept trajectory', 'further kept trajectories')} not drawn.")
    found = space.clouds(answers, table, target, dim) if dim == 3 else []
    if dim is None or (dim == 3 and not found):
        notes.append(f"{name}: no samples are drawn (none were kept).")
    if dim not in (None, 3) and not paths:
        notes.append(f"{name}: no trajectories were kept (keep: {{trajectories: [heun@50]}} keeps them).")
    flows, exact_flows, more = fields.fields(answers, table, name, target)
    if more:
        notes.append(f"{name}: the flow of {counted(more, 'further denoiser')} is not drawn.")
    loss = figures.losses(answers.losses(), table, name)
    if loss is None and any(not series.exact for series in table.series):
        notes.append(f"{name}: no training losses are stored.")
    return OfDataset(
        name=name,
        target=target,
        dim=dim,
        measured=[
            _measured(table, name, metric, target.error_of_its_mean(metric, answers.study))
            for metric in table.metrics_of(name)
        ],
        origins=origins,
        reading=reading,
        sweeps=sweeps,
        trajectories=trained or exact,
        exact_trajectories=exact if trained else [],
        flows=flows or exact_flows,
        exact_flows=exact_flows if flows else [],
        losses=loss,
        score=score.score_errors(answers.score_errors(), table, name),
        models=models.of_models(table, name, answers.study),
        clouds=space.in_space(found, target) if dim == 3 else [],
        sections=space.cross_sections(found, target) if dim == 3 else [],
        in_plane=in_plane,
        plane=samples_in_plane,
        images=as_images,
    )


def _warnings(answers: Answers, table: Table, data: Sequence[OfDataset]) -> list[str]:
    """What is wrong with a schedule for one of the data sets that were asked on it."""
    laws = {part.name: part.target.law for part in data}
    named = components_in(answers.study, schedules)
    rules = components_in(answers.study, samplers)

    def from_noise(label: str) -> bool:
        rule = rules.get(label) or plain(label, samplers)
        return rule is None or rule.from_noise

    asked = [p for p in table.points if from_noise(p.sampler.partition(" on ")[0].partition(" | ")[0])]
    labels = dict.fromkeys((p.dataset, p.sampler.partition(" on ")[2] or p.schedule) for p in asked)
    pairs = [(laws[dataset], named.get(label) or plain(label, schedules)) for dataset, label in labels]
    return end_warnings((law, schedule) for law, schedule in pairs if law is not None and schedule is not None)


def _dimension(answers: Answers, table: Table, name: str, target: Target) -> int | None:
    if target.dim is not None:
        return target.dim
    for point in table.points:
        if point.dataset == name and point.status == "ok":
            kept = answers.samples(point.point_id)
            if kept is not None:
                return kept.sizes.get("coordinate", 1)
    return None


def _kept(
    answers: Answers, table: Table, target: Target, dim: int | None, notes: list[str]
) -> tuple[list[Kept], list[Panel]]:
    """Kept samples by panel, the one shown first at the front, and the panels in that order."""
    name = target.name
    first = distributions.default_panel(table.panels[name])
    found: list[Kept] = []
    order: list[Panel] = []
    dropped: list[str] = []
    elsewhere: list[str] = []
    for panel in sorted(table.panels[name], key=lambda panel: panel != first):
        if len(order) >= _MOST_SELECTABLE and len(found) + _FEW_SERIES > _MOST_PICTURES:
            dropped.append(panel.title)
            continue
        own, foreign = distributions.kept_samples(answers, table, name, dim or 1, panel, target)
        if foreign:
            elsewhere.append(panel.title)
        if own:
            order.append(panel)
            found += own
    if dropped:
        notes.append(f"{name}: samples with {some(dropped, 8)} are not drawn.")
    if elsewhere:
        notes.append(f"{name}: samples with {some(elsewhere, 8)} follow another law than the data and are not drawn.")
    elif not found:
        notes.append(f"{name}: no samples were kept, so their distribution is not drawn (keep: {{samples: true}}).")
    return found, order


def _choices(
    kept: Sequence[Kept], order: Sequence[Panel], draw: Callable[[list[Kept], bool], list[Picture]]
) -> list[Choice]:
    """Panes of pictures: one for all samplers where there are few series, otherwise one for each.

    Exact denoisers are folded away beside trained ones.
    """
    trained = [one for one in kept if not one.series.exact]
    if len({one.series for one in trained or kept}) <= _FEW_SERIES and len(order) > 1:
        return [
            Choice("all samplers", _titled(trained or kept, draw), _titled(kept, draw, exact=True) if trained else [])
        ]
    choices = []
    for panel in order[:_MOST_SELECTABLE]:
        own = [one for one in kept if one.panel == panel]
        learned, exact = [one for one in own if not one.series.exact], [one for one in own if one.series.exact]
        choices.append(Choice(panel.title, draw(learned or exact, False), draw(exact, False) if learned else []))
    return choices


def _titled(
    kept: Sequence[Kept], draw: Callable[[list[Kept], bool], list[Picture]], *, exact: bool = False
) -> list[Picture]:
    """The pictures of all samplers, titled by the sampler; by the series too, where there are several."""
    own = [one for one in kept if one.series.exact or not exact]
    pictures = draw(own, True)
    if len({one.series for one in own}) == 1:
        return pictures
    return [
        replace(picture, title=f"{picture.title}, {one.series.label}")
        for picture, one in zip(pictures, own, strict=True)
    ]


def _sweeps(kept: Sequence[Kept], order: Sequence[Panel], target: Target) -> list[Choice]:
    if not kept:
        return []
    shown = distributions.window([one for one in kept if one.target is None], target)
    return _choices(
        kept,
        order,
        lambda own, titled: [
            distributions.against_steps(
                one, target, distributions.window([one], one.target) if one.target else shown, by_panel=titled
            )
            for one in own
        ],
    )


def _origins(table: Table, name: str, notes: list[str]) -> tuple[list[Choice], str]:
    """Pictures of where the error comes from, by sampler, and the sentence about them."""
    metric = parts.metric_with_parts(table, name)
    if metric is None:
        if table.curves:
            notes.append(f"{name}: errors are not split (that takes exact rows and their limit of many steps).")
        return [], ""
    found = parts.origins(table, name, metric)
    panels = list(dict.fromkeys(one.panel for one in found))
    first = distributions.default_panel(panels)
    order = sorted(panels, key=lambda panel: panel != first)
    reading = parts.reading(found, order[0], metric)
    if len({one.series for one in found}) <= _FEW_SERIES and len(order) > 1:
        several = len({one.series for one in found}) > 1
        shown = [one for panel in order for one in found if one.panel == panel][:_MOST_PICTURES]
        titles = [f"{one.panel.title}, {one.series.label}" if several else one.panel.title for one in shown]
        pictures = [parts.picture(one, metric, title) for one, title in zip(shown, titles, strict=True)]
        return [Choice("all samplers", pictures)], reading
    if len(order) > _MOST_SELECTABLE:
        notes.append(
            f"{name}: the split of the error with {figures.panel_names(order[_MOST_SELECTABLE:])} is not drawn."
        )
    return [
        Choice(panel.title, [parts.picture(one, metric, one.series.label) for one in found if one.panel == panel])
        for panel in order[:_MOST_SELECTABLE]
    ], reading


def _matrix(weighed: claims.Weighed) -> tuple[list[str], list[tuple[str, str, list[evidence.Verdict | None]]], bool]:
    """Verdicts of a claim as a table: data sets across; denoiser and what was compared down, and if that varies."""
    across = list(dict.fromkeys(one.dataset for one in weighed.verdicts))
    rows: dict[tuple[str, str], dict[str, evidence.Verdict]] = {}
    for one in weighed.verdicts:
        rows.setdefault((one.denoiser, one.compared), {})[one.dataset] = one
    shown = [(*row, [found.get(dataset) for dataset in across]) for row, found in rows.items()]
    return across, shown, len({compared for _, compared in rows}) > 1


def _measured(table: Table, dataset: str, metric: str, point_mass: float) -> Measured:
    found = verdicts(table, dataset, metric, point_mass)
    alone = [curve.panel for curve in table.baselines(dataset, metric)]
    return Measured(
        verdicts=found,
        quality=figures.quality(table, dataset, metric),
        sheets=[_sheet(table, dataset, metric, panel) for panel in table.panels[dataset] if panel not in alone],
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
