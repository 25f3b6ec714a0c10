"""Which view a data set is seen in."""

from __future__ import annotations

from tasks.report.numbers.curves import Tabulation
from tasks.report.page.views.contract import DatasetAnswers, Shown, View
from tasks.report.page.views.image import image_view
from tasks.report.page.views.line import line_view
from tasks.report.page.views.plane import plane_view
from tasks.report.page.views.space import space_view
from tasks.results.models import ModelledAnswers


def shown_of(answers: ModelledAnswers, table: Tabulation, name: str) -> Shown:
    """The sections about the samples of a data set."""
    dim = _dimension(answers, table, name)
    if dim is None:
        return Shown(notes=["no samples are drawn (none were kept)."])
    subject = DatasetAnswers(answers, table, name, dim)
    return _view_of(subject)(subject)


def _view_of(subject: DatasetAnswers) -> View:
    if subject.target.image_shape is not None:
        return image_view
    return {1: line_view, 3: space_view}.get(subject.dim, plane_view)


def _dimension(answers: ModelledAnswers, table: Tabulation, name: str) -> int | None:
    """Of the target or, where that is not known, of the first samples kept; None where there are
    none.
    """
    if table.targets[name].dim is not None:
        return table.targets[name].dim
    for row in table.rows_of(name):
        if row.status == "ok":
            kept = answers.samples(row.point_id)
            if kept is not None:
                return kept.sizes["coordinate"]
    return None
