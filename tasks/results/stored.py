"""What a store knows of a study: which of its points are answered, and what is therefore to be
done.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffusion.plugins import typed
from tasks.columns import MetricColumns, metrics_among
from tasks.plan import Plan, StoredPoint, make_plan, points_of
from tasks.results.facts import derived, metric_facts
from tasks.results.read import Answers
from tasks.results.rows import skipped_rows
from tasks.store import Coordinator, Rows, Store, StoreLocked
from tasks.study import Study, StudyError, load_study
from tasks.work.code import code_here, own_modules, own_sources, told_sources

_AGAIN_SECONDS = 2.0  # until a store that another run has is asked for again


def known(answers: Answers, *, retry_failed: bool = False) -> dict[str, StoredPoint]:
    """What the planner needs to know of every point.

    A metric that has a version and neither value nor floor could not be measured: that is known of
    it too, unless what failed is to be tried again.
    """
    table = answers.table()
    metrics = metrics_among(table)
    of = {name: MetricColumns(name) for name in metrics}
    finite = {name: np.isfinite(table[name]) for name in metrics}
    unknown = np.full(len(table["point_id"]), np.nan)  # stored before versions were: the first ones
    measured = dict(finite)
    if not retry_failed:
        for name in metrics:
            tried = np.isfinite(table.get(of[name].version, unknown)) & np.isnan(table[of[name].floor])
            measured[name] = finite[name] | (np.isnan(table[name]) & tried)
    versions = {name: np.nan_to_num(table.get(of[name].version, unknown), nan=1.0) for name in metrics}
    sources = _sources(answers)
    return {
        str(table["point_id"][i]): StoredPoint(
            str(table["status"][i]),
            {name: int(versions[name][i]) for name in metrics if measured[name][i]},
            bool(table["sample_row"][i] >= 0),
            bool(table["trajectory_row"][i] >= 0),
            sources(i),
        )
        for i in range(len(table["point_id"]))
    }


def _sources(answers: Answers) -> Callable[[int], frozenset[tuple[str, str]]]:
    """Of each row of the points, the own modules that computed it or trained its cell."""
    table = answers.table()
    trained = answers.sources_of_cells()
    if "sources" not in table and not trained:
        return lambda _: frozenset()
    own = table.get("sources", np.full(len(table["point_id"]), ""))
    return lambda i: told_sources(str(own[i])) | told_sources(trained.get(str(table["cell_id"][i]), ""))


def plan_against(store: Store, study: Study, *, retry_failed: bool = False, forced: Collection[str] = ()) -> Plan:
    """The plan of a study given all that a store holds; see `tasks.plan.make_plan`."""
    answers = Answers(store)
    stored = known(answers, retry_failed=retry_failed)
    own = own_modules(study)
    sources = own_sources(code_here(own)) if own else {}
    return make_plan(study, stored, answers.trained(), retry_failed=retry_failed, forced=forced, sources=sources)


@contextlib.contextmanager
def coordinate(
    store: Store,
    force_unlock: bool = False,
    wait: float = 0.0,
    waiting: Callable[[StoreLocked], object] = lambda _: None,
) -> Iterator[Coordinator]:
    """The only writer of a store, as long as the context lasts; one of an older schema is migrated
    first: see `Store.coordinate`.

    Where another run has the store, `waiting` is told once, and for `wait` seconds it is tried
    again.

    Raises:
        StoreLocked: it still has it then.
    """
    deadline, told = time.monotonic() + wait, False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                coordinator = stack.enter_context(store.coordinate(force_unlock, derived, can_wait=True))
                break
            except StoreLocked as locked:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                if not told:
                    waiting(locked)
                told = True
                time.sleep(min(_AGAIN_SECONDS, left))
        yield coordinator


def record(coordinator: Coordinator, plan: Plan, metadata: Mapping[str, str]) -> str:
    """Record a study with what needs no work: its impossible points, and what is known of its
    metrics. The snapshot's id.
    """
    impossible = skipped_rows(
        (point, plan.impossible[point.id]) for point in plan.points if point.id in plan.unrecorded
    )
    rows = replace(impossible, metrics=metric_facts(plan.study.metrics))
    ids = [point.id for point in plan.points]
    return coordinator.commit_study(plan.study.name, plan.study.spec(), ids, rows, metadata)


LOOK = "look"
"""Under which the metadata of a commit hold what a look at a growing study decided, as JSON."""


def record_look(
    store: Store,
    study: str,
    decision: str,
    metadata: Mapping[str, str],
    *,
    force_unlock: bool = False,
    wait: float = 0.0,
    waiting: Callable[[StoreLocked], object] = lambda _: None,
) -> bool:
    """Record beside a study what a look at its numbers decided; whether that was new. The options are
    those of `coordinate`.

    Raises:
        StoreLocked: another run has the store.
    """
    said = {**metadata, LOOK: decision}
    if any(known == decision for known in looks_recorded(store, study)):
        return False
    with coordinate(store, force_unlock, wait, waiting) as coordinator:
        answers = Answers(store, study)
        coordinator.commit_study(study, answers.study, answers.asked(study), Rows(), said)
    return True


def looks_recorded(store: Store, study: str) -> list[str]:
    """What looks at a study decided, as `record_look` was given it, the oldest first."""
    found = [entry["metadata"] for entry in reversed(store.history())]
    return [str(said[LOOK]) for said in found if LOOK in said and said.get("study") == study]


def is_recorded(store: Store, plan: Plan) -> bool:
    """Whether the store knows the study as it is, with all its impossible points and what there is
    to know of its metrics.
    """
    answers = Answers(store)
    if plan.study.name not in answers.studies or plan.unrecorded:
        return False
    if any(answers.metrics.get(name) != facts for name, facts in metric_facts(plan.study.metrics).items()):
        return False
    stored, requested = Answers(store, plan.study.name).study, plan.study.spec()
    with contextlib.suppress(StudyError):  # parameters may have been renamed since
        return stored == requested or Study.from_spec(stored).spec() == requested
    return False


def plan_for(
    source: Study | str | Path, store: str = "results", overrides: Sequence[str] = (), *, retry_failed: bool = False
) -> Plan:
    """The plan of a study on a store: `tasks.results.beside.planned` without another store."""
    refuse_changes(source, overrides)
    with typed() if isinstance(source, Study) else typed(source):
        study = source if isinstance(source, Study) else load_study(source, overrides)
    if not points_of(study):
        raise StudyError(study.name, [f"{study.name}, at exclude: every point is excluded, nothing is asked"])
    if not Store.exists(store):
        return make_plan(study, {}, ())
    return plan_against(Store.open(store), study, retry_failed=retry_failed)


def refuse_changes(source: Study | str | Path, overrides: Sequence[str]) -> None:
    """Raises `StudyError` where changes are asked for of a study that was loaded."""
    if isinstance(source, Study) and overrides:
        raise StudyError(source.name, [f"{source.name}: changes are made to what is loaded, found a loaded study"])
