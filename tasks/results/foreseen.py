"""The points that a plan will have, as columns, before anything is computed: so that a question can
be refused before a run.
"""

from __future__ import annotations

import math

import numpy as np

from tasks.columns import COORDINATES, DEVICE, FACTS, MetricColumns
from tasks.plan import Plan
from tasks.results.facts import metric_facts
from tasks.results.rows import point_row
from tasks.where.columns import PointColumns


def foreseen(plan: Plan) -> PointColumns:
    """The columns that the points of a plan will have.

    Args:
        plan: what is asked, whether computed yet or not.

    Returns:
        Labels as they will be; `nfe` where it is known beforehand, otherwise NaN. Every point that is
        possible is `ok`; of a metric there is 0 where it can be measured, NaN where it cannot.
    """
    possible = [point.id not in plan.impossible for point in plan.points]
    rows = [point_row(p, "ok" if can else "skipped", "") for p, can in zip(plan.points, possible, strict=True)]
    labels = (*COORDINATES, *FACTS, DEVICE, "error")
    columns = {name: np.array([row.get(name, "") for row in rows]) for name in labels}
    known = [not point.sampler.adaptive and point.guidance is None for point in plan.points]
    evaluations = [p.sampler.evaluations(p.steps) if k else math.nan for p, k in zip(plan.points, known, strict=True)]
    columns["nfe"] = np.array(evaluations, dtype=float)
    numbers = {name: np.full(len(rows), math.nan) for name in ("sample_seconds", "train_seconds")}
    for metric in plan.study.metrics:
        of = MetricColumns(metric.column)
        measured = [math.nan if point.refuses(metric) else 0.0 for point in plan.points]
        numbers |= {name: np.array(measured) for name in (of.name, *of.beside)}
    columns |= numbers
    facts = metric_facts(plan.study.metrics)
    said = {name: {"better": fact.better, "of": fact.of} for name, fact in facts.items()}
    return PointColumns(labels, sorted(numbers), len(rows), columns.__getitem__, said, {})
