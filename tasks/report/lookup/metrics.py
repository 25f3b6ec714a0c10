"""The metrics of the answers, by the columns that their values are stored in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion.metrics import BaseMetric, metrics
from tasks.columns import metric_names
from tasks.study.identity import rebuilt

if TYPE_CHECKING:
    from tasks.results import Answers


def columns_in_order(answers: Answers) -> list[str]:
    """The columns of metrics: in the order of the study, then those that it does not name."""
    requested = list(answers.study.get("metrics") or ())

    def place(column: str) -> int:
        facts = answers.metrics.get(column)
        return requested.index(facts.spec) if facts is not None and facts.spec in requested else len(requested)

    return sorted(metric_names(answers.points), key=place)


def metrics_by_column(answers: Answers) -> dict[str, BaseMetric]:
    """The metrics themselves; those that cannot be made here are left out."""
    made = {column: rebuilt(metrics, facts.spec) for column, facts in answers.metrics.items()}
    return {column: metric for column, metric in made.items() if isinstance(metric, BaseMetric)}
