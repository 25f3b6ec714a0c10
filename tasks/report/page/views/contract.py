"""What a view is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tasks.report.lookup.targets import Target
from tasks.report.numbers.curves import Tabulation
from tasks.report.page.sections import Section
from tasks.results.models import ModelledAnswers


@dataclass(frozen=True)
class DatasetAnswers:
    """A data set of a study.

    Args:
        answers: The answers of the study.
        table: The same as curves.
        name: The label of the data set.
        dim: How many coordinates its samples have.
    """

    answers: ModelledAnswers
    table: Tabulation
    name: str
    dim: int

    @property
    def target(self) -> Target:
        """What the samples should follow."""
        return self.table.targets[self.name]


@dataclass(frozen=True)
class Shown:
    """Sections in the order of the page, and notes about what is not drawn, each a sentence about
    the data set.
    """

    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


View = Callable[[DatasetAnswers], Shown]
