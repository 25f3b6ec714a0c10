"""Samples that are images."""

from __future__ import annotations

import math

from tasks.report.numbers.sheets import sheets_of
from tasks.report.page.sections import Section, pane_with_exact
from tasks.report.page.views.contract import DatasetAnswers, Shown
from tasks.report.page.views.panes import kept_of, notes_of_trajectories, panes_of
from tasks.report.pictures import images


def image_view(subject: DatasetAnswers) -> Shown:
    """Sheets of images at a few step counts beside the data, and images on their way from noise."""
    kept = kept_of(subject)
    shape = subject.target.image_shape
    if not kept.runs or shape is None or math.prod(shape) != subject.dim:
        return Shown(notes=kept.notes + notes_of_trajectories(0, 0))
    sheets = sheets_of(subject.target, kept.runs, shape)
    lead = (
        "The first samples drawn in N steps, beside the data; the same place on two sheets started from the same noise. "
        "Light is the lowest value of the data and dark the highest (the other way round on a dark page)."
    )
    panes = panes_of(
        kept,
        lambda own, titled: images.pictures(own, sheets, by_panel=titled),
        "squares",
        images.data_picture(sheets),
    )
    sections = [Section("images", "Samples as images", lead, panes)]
    paths, more = images.trajectories(subject.answers, subject.table, subject.name, subject.target, sheets)
    if paths:
        trained = [picture for series, pictures in paths if not series.exact for picture in pictures]
        exact = [picture for series, pictures in paths if series.exact for picture in pictures]
        way = [pane_with_exact(trained, exact)]
        title, lead = "On the way between noise and data", "One kept trajectory per series, as images."
        sections.append(Section("way", title, lead, way))
    return Shown(sections, kept.notes + notes_of_trajectories(len(paths), more))
