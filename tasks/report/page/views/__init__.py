"""Samples as they are seen: one view for each kind of target, and one contract for all.

A *view* is a function from a `DatasetAnswers` (a data set with its answers) to what is `Shown`:
sections of the page, and notes about what is not drawn. `line` draws distributions, `plane`
densities in two axes, `space` clouds, `image` the images themselves.
"""

from tasks.report.page.views.choice import shown_of
from tasks.report.page.views.contract import DatasetAnswers, Shown, View

__all__ = ["DatasetAnswers", "Shown", "View", "shown_of"]
