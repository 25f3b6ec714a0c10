"""Everything that the page shows of one data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.messages import counted
from tasks.report.lookup.targets import Target
from tasks.report.numbers import decomposition as parts
from tasks.report.numbers.curves import Tabulation
from tasks.report.numbers.kept import default_panel
from tasks.report.numbers.models import OfModels, of_models
from tasks.report.page.sections import Pane, Section, pane_with_exact
from tasks.report.page.tables import Measured, measured
from tasks.report.page.views import shown_of
from tasks.report.page.views.panes import FEW_SERIES, MOST_PICTURES, MOST_SELECTABLE
from tasks.report.pictures import decomposition
from tasks.report.pictures.fields import fields
from tasks.report.pictures.losses import losses
from tasks.report.pictures.score import score_errors
from tasks.report.pictures.style import Picture

if TYPE_CHECKING:
    from tasks.results.models import ModelledAnswers


@dataclass(frozen=True)
class OfDataset:
    """Everything about one dataset.

    Args:
        name: Its label.
        measured: By metric, the first one at the front.
        reading: Where the error of the first metric comes from, in a sentence; empty where that is
            not known.
        origins: The same as pictures, by sampler.
        sections: Samples and their ways, as they are seen, and the flow.
        models: What its models answer by themselves.
        score: How far the learned score is from the exact one.
        losses: How training went.
        notes: What is not drawn, and why, each a sentence.
    """

    name: str
    measured: list[Measured]
    reading: str
    origins: list[Pane]
    sections: list[Section]
    models: OfModels | None
    score: Picture | None
    losses: Picture | None
    notes: list[str] = field(default_factory=list)


def of_dataset(answers: ModelledAnswers, table: Tabulation, name: str) -> OfDataset:
    """Everything about the data set with this label."""
    target = table.targets[name]
    notes = [f"the exact target is not drawn ({target.missing})."] if target.missing else []
    origins, reading = _origins(table, name, notes)
    shown = shown_of(answers, table, name)
    notes += shown.notes
    flow = _flow(answers, table, target, notes)
    loss = losses(answers.losses(), table, name)
    if loss is None and any(not series.exact for series in table.series):
        notes.append("no training losses are stored.")
    return OfDataset(
        name=name,
        measured=[
            measured(table, name, metric, target.error_of_its_mean(table.known.get(metric)))
            for metric in table.metrics_of(name)
        ],
        reading=reading,
        origins=origins,
        sections=[*shown.sections, *flow],
        models=of_models(table, name),
        score=score_errors(answers.score_errors(), table, name),
        losses=loss,
        notes=[f"{name}: {note}" for note in notes],
    )


_FLOW = (
    "Which way the probability-flow ODE takes every x at every level of the schedule’s own grid, asked of the denoiser of the first "
    "seed. Colours: the exact density of x<sub>t</sub>, where it is known. All pictures have one scale for x, which is linear near "
    "the data (dashed: their support, 99 % of it where it has no ends) and logarithmic far away; arrows have the flow’s direction as "
    "it is drawn, and one length."
)


def _flow(answers: ModelledAnswers, table: Tabulation, target: Target, notes: list[str]) -> list[Section]:
    trained, exact, more = fields(answers, table, target)
    if more:
        notes.append(f"the flow of {counted(more, 'further denoiser')} is not drawn.")
    if not trained and not exact:
        return []
    return [Section("flow", "The flow from noise to data", _FLOW, [pane_with_exact(trained, exact)])]


def _origins(table: Tabulation, name: str, notes: list[str]) -> tuple[list[Pane], str]:
    """Pictures of where the error comes from, by sampler, and the sentence about them."""
    metric = parts.metric_with_parts(table, name)
    if metric is None:
        if table.curves:
            notes.append("errors are not split (that takes exact rows and their limit of many steps).")
        return [], ""
    found = parts.origins(table, name, metric)
    if not found:
        notes.append("errors are not split (no network has an answer).")
        return [], ""
    panels = list(dict.fromkeys(one.panel for one in found))
    first = default_panel(panels)
    order = sorted(panels, key=lambda panel: panel != first)
    reading = parts.reading(found, order[0], metric)
    if len({one.series for one in found}) <= FEW_SERIES and len(order) > 1:
        several = len({one.series for one in found}) > 1
        shown = [one for panel in order for one in found if one.panel == panel][:MOST_PICTURES]
        titles = [f"{one.panel.title}, {one.series.label}" if several else one.panel.title for one in shown]
        pictures = [decomposition.picture(one, metric, title) for one, title in zip(shown, titles, strict=True)]
        return [Pane("all samplers", pictures)], reading
    if len(order) > MOST_SELECTABLE:
        left_out = ", ".join(panel.title for panel in order[MOST_SELECTABLE:])
        notes.append(f"the split of the error with {left_out} is not drawn.")
    return [
        Pane(panel.title, [decomposition.picture(one, metric, one.series.label) for one in found if one.panel == panel])
        for panel in order[:MOST_SELECTABLE]
    ], reading
