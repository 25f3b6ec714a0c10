"""What a store knows of a study: which of its points are answered, and what is therefore to be done."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from tasks.columns import MetricColumns, metrics_among
from tasks.plan import Plan, StoredPoint, make_plan
from tasks.results.read import Answers
from tasks.store import Store
from tasks.study import Study


def known(answers: Answers, *, retry_failed: bool = False) -> dict[str, StoredPoint]:
    """What the planner needs to know of every point.

    A metric that has a version and neither value nor floor could not be measured: that is known of it too, unless what failed
    is to be tried again.
    """
    table = answers.table()
    metrics = metrics_among(table)
    of = {name: MetricColumns(name) for name in metrics}
    finite = {name: np.isfinite(table[name]) for name in metrics}
    unknown = np.full(len(table["point_id"]), np.nan)  # stored before versions were: the first ones
    told = dict(finite)
    if not retry_failed:
        for name in metrics:
            tried = np.isfinite(table.get(of[name].version, unknown)) & np.isnan(table[of[name].floor])
            told[name] = finite[name] | (np.isnan(table[name]) & tried)
    versions = {name: np.nan_to_num(table.get(of[name].version, unknown), nan=1.0) for name in metrics}
    return {
        str(table["point_id"][i]): StoredPoint(
            str(table["status"][i]),
            {name: int(versions[name][i]) for name in metrics if told[name][i]},
            bool(table["sample_row"][i] >= 0),
            bool(table["trajectory_row"][i] >= 0),
        )
        for i in range(len(table["point_id"]))
    }


def plan_against(store: Store, study: Study, *, retry_failed: bool = False, forced: Collection[str] = ()) -> Plan:
    """The plan of a study given all that a store holds; see `tasks.plan.make_plan`."""
    answers = Answers(store)
    return make_plan(
        study, known(answers, retry_failed=retry_failed), answers.trained(), retry_failed=retry_failed, forced=forced
    )


def is_recorded(store: Store, plan: Plan) -> bool:
    """Whether the store knows the study as it is, with all its impossible points."""
    answers = Answers(store)
    if plan.study.name not in answers.studies or plan.unrecorded:
        return False
    return Answers(store, plan.study.name).study == plan.study.spec()
