"""Samples in space."""

from __future__ import annotations

from tasks.report.numbers.clouds import clouds
from tasks.report.page.sections import Pane, Section
from tasks.report.page.views.contract import DatasetAnswers, Shown
from tasks.report.pictures import space
from tasks.report.text import number


def space_view(subject: DatasetAnswers) -> Shown:
    """Clouds at the largest step count that was kept and, of a torus, their cross-sections."""
    target = subject.target
    found = clouds(subject.answers, subject.table, target, subject.dim)
    if not found:
        return Shown(notes=["no samples are drawn (none were kept)."])
    by_distance = "Colour is the distance to the torus, which is drawn translucent. " if target.torus_radii else ""
    lead = f"The largest step count that was kept. {by_distance}Drag to turn."
    sections = [Section("space", "Samples in space", lead, [Pane("", space.in_space(found, target))])]
    across = space.cross_sections(found, target)
    if across:
        lead = (
            "ρ is the distance from the axis. On the torus every sample lies on the dashed circle; the picture shows by how much "
            "it does not, and on which side. Darker or brighter: more samples (logarithmic). Distance alone can be fooled by "
            "samples crowding on part of the surface: compare E ρ² with that of the target, "
            f"{number(target.torus_moment)}."
        )
        sections.append(Section("cross", "Cross-section", lead, [Pane("", across, grid="squares")]))
    return Shown(sections)
