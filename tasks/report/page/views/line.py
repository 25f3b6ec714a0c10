"""Samples on the line: their distribution against the number of steps, and along the way."""

from __future__ import annotations

from tasks.report.numbers.by_steps import window
from tasks.report.numbers.kept import Kept
from tasks.report.page.sections import EXACT_TOO, Pane, Section
from tasks.report.page.views.contract import DatasetAnswers, Shown
from tasks.report.page.views.panes import KeptSamples, kept_of, notes_of_trajectories, panes_of
from tasks.report.pictures.distributions import against_steps
from tasks.report.pictures.style import Picture
from tasks.report.pictures.trajectories import trajectories


def line_view(subject: DatasetAnswers) -> Shown:
    """Histograms as columns of colours for each step count, and the law of x_t at each level."""
    kept = kept_of(subject)
    paths, more = trajectories(subject.answers, subject.table, subject.name, subject.target)
    trained = [pictures for series, pictures in paths if not series.exact]
    exact = [pictures for series, pictures in paths if series.exact]
    sections = [_against_steps(subject, kept)] if kept.runs else []
    if paths:
        pane = _still(trained or exact)
        if trained and exact:
            pane.folded.append((EXACT_TOO, _still(exact)))
        moving = [picture for pictures in trained + exact for picture in pictures[2:]]
        pane.folded.append(("The same in motion", Pane("", moving)))
        lead = "One kept trajectory per series: its histograms at a few levels, and p<sub>t</sub>(x) along all of them."
        sections.append(Section("way", "On the way between noise and data", lead, [pane], ("density 0", "high")))
    return Shown(sections, kept.notes + notes_of_trajectories(len(paths), more))


def _against_steps(subject: DatasetAnswers, kept: KeptSamples) -> Section:
    target = subject.target
    shown = window([one for one in kept.runs if one.target is None], target)

    def draw(own: list[Kept], titled: bool) -> list[Picture]:
        return [
            against_steps(one, target, window([one], one.target) if one.target else shown, by_panel=titled)
            for one in own
        ]

    beside = ", the last one the exact target; dashed lines mark its support (99 % of it, where it has no ends)"
    lead = (
        f"Each column is the histogram of the samples drawn in N steps{beside if target.support() else ''}. A number above a "
        "column: the percentage of samples outside the picture."
    )
    key = ("density 0", "twice the target’s")
    return Section("sweep", "Distribution of the samples against N", lead, panes_of(kept, draw), key)


def _still(found: list[list[Picture]]) -> Pane:
    """Histograms and map of each trajectory beside each other."""
    return Pane("", [picture for pictures in found for picture in pictures[:2]], grid="pairs")
