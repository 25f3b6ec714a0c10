"""Kept samples as panes: one for each sampler, or one for all where there are few series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tasks.messages import counted
from tasks.report.numbers.curves import Panel
from tasks.report.numbers.kept import Kept, default_panel, kept_samples
from tasks.report.page.sections import EXACT_TOO, Pane
from tasks.report.page.views.contract import DatasetAnswers
from tasks.report.pictures.style import Picture
from tasks.report.text import some

MOST_SELECTABLE = 8
MOST_PICTURES = 36
FEW_SERIES = 2  # so few are shown for all samplers side by side; more, for one sampler at a time

Draw = Callable[[list[Kept], bool], list[Picture]]
"""Pictures of some kept samples, one each; titled by the sampler if asked."""


@dataclass(frozen=True)
class KeptSamples:
    """The kept samples of a data set.

    Args:
        runs: By sampler, the one that is shown first at the front.
        panels: The samplers in that order.
        notes: What is not drawn, and why.
    """

    runs: list[Kept]
    panels: list[Panel]
    notes: list[str]


def kept_of(subject: DatasetAnswers) -> KeptSamples:
    """What was kept of a data set, as much as the page draws."""
    panels = subject.table.panels[subject.name]
    first = default_panel(panels)
    found = KeptSamples([], [], [])
    dropped: list[str] = []
    elsewhere: list[str] = []
    for panel in sorted(panels, key=lambda panel: panel != first):
        if len(found.panels) >= MOST_SELECTABLE and len(found.runs) + FEW_SERIES > MOST_PICTURES:
            dropped.append(panel.title)
            continue
        own, foreign = kept_samples(subject.answers, subject.table, subject.name, subject.dim, panel, subject.target)
        if foreign:
            elsewhere.append(panel.title)
        if own:
            found.panels.append(panel)
            found.runs.extend(own)
    if dropped:
        found.notes.append(f"samples with {some(dropped, 8)} are not drawn.")
    if elsewhere:
        found.notes.append(f"samples with {some(elsewhere, 8)} follow another law than the data and are not drawn.")
    elif not found.runs:
        found.notes.append("no samples were kept, so their distribution is not drawn (keep: {samples: true}).")
    return found


def panes_of(kept: KeptSamples, draw: Draw, grid: str = "", first: Picture | None = None) -> list[Pane]:
    """Panes of pictures: one for all samplers where there are few series, otherwise one for each.

    Exact denoisers are folded away beside trained ones.

    Args:
        kept: What is drawn.
        draw: How.
        grid: How the pictures stand, see `Pane`.
        first: A picture to stand before those of every pane.
    """
    before = [first] if first else []
    trained = [one for one in kept.runs if not one.series.exact]
    if len({one.series for one in trained or kept.runs}) <= FEW_SERIES and len(kept.panels) > 1:
        exact = [one for one in kept.runs if one.series.exact] if trained else []
        return [_pane("all samplers", before, _titled(trained or kept.runs, draw), _titled(exact, draw), grid)]
    panes = []
    for panel in kept.panels[:MOST_SELECTABLE]:
        own = [one for one in kept.runs if one.panel == panel]
        learned, exact = [one for one in own if not one.series.exact], [one for one in own if one.series.exact]
        folded = draw(exact, False) if learned else []
        panes.append(_pane(panel.title, before, draw(learned or exact, False), folded, grid))
    return panes


def _pane(name: str, before: list[Picture], shown: list[Picture], exact: list[Picture], grid: str) -> Pane:
    folded = [(EXACT_TOO, Pane("", exact, grid=grid))] if exact else []
    return Pane(name, before + shown, folded, grid)


def _titled(kept: Sequence[Kept], draw: Draw) -> list[Picture]:
    """The pictures of all samplers, titled by the sampler; by the series too, where there are
    several.
    """
    pictures = draw(list(kept), True)
    if len({one.series for one in kept}) < 2:
        return pictures
    return [
        replace(picture, title=f"{picture.title}, {one.series.label}")
        for picture, one in zip(pictures, kept, strict=True)
    ]


def notes_of_trajectories(drawn: int, more: int) -> list[str]:
    """What is to be said of kept trajectories: that there are none, or that there are more than are
    drawn.
    """
    if not drawn:
        return ["no trajectories were kept (keep: {trajectories: [heun@50]} keeps them)."]
    if not more:
        return []
    return [f"{counted(more, 'further kept trajectory', 'further kept trajectories')} not drawn."]
