"""Samples in the plane, or in more dimensions, of which a plane is shown."""

from __future__ import annotations

from tasks.report.numbers.outlook import outlook_on
from tasks.report.page.sections import Section, pane_with_exact
from tasks.report.page.views.contract import DatasetAnswers, Shown
from tasks.report.page.views.panes import kept_of, notes_of_trajectories, panes_of
from tasks.report.pictures import plane


def plane_view(subject: DatasetAnswers) -> Shown:
    """Densities at a few step counts beside the target's, and on the way from noise to data."""
    kept = kept_of(subject)
    if not kept.runs:
        return Shown(notes=kept.notes + notes_of_trajectories(0, 0))
    seen = outlook_on(subject.target, kept.runs, subject.dim)
    first = plane.target_picture(seen)
    lead = (
        "Density of the samples drawn in N steps, on one scale of colours for all"
        f"{', beside the exact target' if first else ''}."
    )
    panes = panes_of(kept, lambda own, titled: plane.pictures(own, seen, by_panel=titled), "squares", first)
    key = ("no samples", "as dense as the target or denser")
    sections = [Section("plane", "Samples in the plane against N", lead, panes, key)]
    paths, more = plane.trajectories(subject.answers, subject.table, subject.name, subject.target, seen)
    if paths:
        trained = [picture for series, pictures in paths if not series.exact for picture in pictures]
        exact = [picture for series, pictures in paths if series.exact for picture in pictures]
        way = [pane_with_exact(trained, exact)]
        title, lead = "On the way between noise and data", "One kept trajectory per series."
        sections.append(Section("way", title, lead, way, ("density 0", "high")))
    return Shown(sections, kept.notes + notes_of_trajectories(len(paths), more))
