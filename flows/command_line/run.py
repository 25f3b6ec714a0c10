"""`run` and `plan`: what a study asks for, computed or listed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from diffusion.errors import DiffatlasError
from flows.command_line.batch import page_of_finished, run_each, sums
from flows.command_line.beside import held_by, print_against, print_beside, refuse_several
from flows.command_line.foretold import MOST_WORKERS, foretold, told
from flows.command_line.options import (
    AgainstOption,
    AllowPluginsOption,
    BesideOption,
    DeviceOption,
    ForceOption,
    ForceUnlockOption,
    JsonOption,
    PageOption,
    RayOption,
    RetryOption,
    SetOption,
    ShardLimitOption,
    StoreOption,
    StudyArgument,
    WaitOption,
    WorkersOption,
    app,
    check_device,
    clear_errors,
    err,
    width,
)
from flows.exit_codes import FAILED
from tasks.messages import counted

if TYPE_CHECKING:
    from flows.request import Outcome
    from tasks.plan import Plan
    from tasks.study import Study
    from tasks.study.collection import CollectedStudy, Collection


@app.command()
def run(
    study: StudyArgument,
    store: StoreOption = "results",
    ray: RayOption = None,
    workers: WorkersOption = None,
    overrides: SetOption = None,
    retry_failed: RetryOption = False,
    force: ForceOption = None,
    force_unlock: ForceUnlockOption = False,
    report: PageOption = None,
    device: DeviceOption = "cpu",
    wait: WaitOption = 0.0,
    shard_limit: ShardLimitOption = None,
    beside: BesideOption = None,
    allow_plugins: AllowPluginsOption = None,  # noqa: ARG001 - its callback has done it
) -> None:
    """Run what is missing of a study; show its table; draw its report.

    Of a file that names other studies each is run, one after the other, and one table tells how
    they ended; --report is then the folder of their pages.
    """
    from flows.request import RunRequest
    from flows.services import prefect_server, quiet_environment, ray_cluster, terminate_as_interrupt
    from flows.start import start

    quiet_environment()
    with clear_errors(), terminate_as_interrupt():
        check_device(device)
        collection, each = _collection(study, overrides)
        plans = _plans(study, collection, store, retry_failed=retry_failed, force=force)
        if beside is not None:
            refuse_several(collection.name, beside)
            held_by(beside, "--beside", plans)

        def run_one(source: str, plan: Plan, page: Path | None) -> Outcome | None:
            from tasks.plan.warnings import of_other_sources
            from tasks.store import Store

            if _finished(store, plan):
                for warning in of_other_sources(plan):  # otherwise the run says it
                    err.print(f"warning: {warning}", markup=False)
                return None
            Store.check_writable(store)
            err.print(f"study {plan.study.name}: getting Prefect and Ray ready", markup=False)  # seconds without a word
            return start(
                RunRequest(
                    source,
                    store,
                    tuple(each),
                    ray_address=ray,
                    workers=workers,
                    retry_failed=retry_failed,
                    force=force,
                    force_unlock=force_unlock,
                    report=str(page) if page else None,
                    device=device,
                    wait=wait,
                    shard_limit=shard_limit,
                )
            )

        if collection.name is None:
            _show(plans[0].study, store, run_one(study, plans[0], report), report, beside)
            return

        def run_member(member: CollectedStudy, page: Path | None) -> Outcome | None:
            # planned again: a study before this one may have answered some of its points
            return run_one(member.source, _plan_of(member.study, store, retry_failed, force), page)

        idle = all(_finished(store, plan) for plan in plans)
        services = () if idle else (prefect_server, partial(ray_cluster, ray, workers, {}))
        run_each(collection, run_member, store, report, services)


def _collection(study: str, overrides: list[str] | None) -> tuple[Collection, list[str]]:
    """What is asked for, and the changes that each study of it takes."""
    from diffusion.plugins import typed
    from tasks.study.collection import load_collection, of_each

    with typed(study):
        collection = load_collection(study, overrides or ())
    return collection, list(overrides or ()) if collection.name is None else of_each(overrides or ())


def _plans(
    study: str, collection: Collection, store: str, *, retry_failed: bool = False, force: str | None = None
) -> list[Plan]:
    """What is to be done of each study that was asked for."""
    from tasks.plan import points_of
    from tasks.study import StudyError

    empty = [member.source for member in collection.members if not points_of(member.study)]
    if empty:
        raise StudyError(
            study, [f"{source}, at exclude: every point is excluded, nothing is asked" for source in empty]
        )
    if force and not any(_forced(member.study, force) for member in collection.members):
        raise StudyError(study, [f"--force {force!r}: no point of {study} matches"])
    return [_plan_of(member.study, store, retry_failed, force) for member in collection.members]


def _forced(study: Study, force: str | None) -> frozenset[str]:
    from tasks.plan import points_of
    from tasks.results.explain import matching

    return frozenset(matching(points_of(study), force)) if force else frozenset()


def _plan_of(study: Study, store: str, retry_failed: bool, force: str | None) -> Plan:
    from tasks.plan import make_plan
    from tasks.results.stored import plan_against
    from tasks.store import Store

    forced = _forced(study, force)
    if not Store.exists(store):
        return make_plan(study, {}, (), forced=forced)
    return plan_against(Store.open(store), study, retry_failed=retry_failed, forced=forced)


def _finished(store: str, plan: Plan) -> bool:
    from tasks.results.stored import is_recorded
    from tasks.store import Store

    return not plan.jobs and Store.exists(store) and is_recorded(Store.open(store), plan)


def _show(study: Study, store: str, outcome: Outcome | None, report: Path | None, beside: str | None) -> None:
    """The table, the report's path, what failed, the table beside another store's, and the exit code
    that the points deserve.
    """
    from tasks.columns import metric_names, of_models
    from tasks.query.tables import failure_lines, tables
    from tasks.results import open_results

    points = open_results(store, study.name)
    console = Console(width=width())
    wanted = [m.column for m in study.metrics if m.column in metric_names(points)]
    few = points.sizes["point"] < 100
    for metric in (metric for i, metric in enumerate(wanted) if few or i == 0 or of_models(points, metric)):
        for table in tables(points, metric, console.width):
            console.print(table)
    if outcome is None:
        page = page_of_finished(store, study.name, report)
        err.print(f"study {study.name} is finished: nothing to compute, nothing committed", markup=False)
    else:
        page = Path(outcome.report)
        err.print(
            f"{counted(outcome.computed, 'point')} computed, {counted(outcome.trained, 'cell')} trained; snapshot {outcome.snapshot}",
            markup=False,
        )
        if outcome.moved:
            err.print(f"since the last run: {outcome.moved}", markup=False)
        if outcome.untold:
            err.print(outcome.untold, markup=False)
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    failed = failure_lines(points)
    for line in failed:
        err.print(line, markup=False)
    if beside is not None:  # last: the other store may be gone by now, and all else is told
        try:
            print_beside(study, points, beside)
        except DiffatlasError as error:
            if not failed:
                raise
            err.print(str(error), markup=False)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def plan(
    study: StudyArgument,
    store: StoreOption = "results",
    overrides: SetOption = None,
    retry_failed: RetryOption = False,
    force: ForceOption = None,
    explained: Annotated[bool, typer.Option("--explain", help="Why each point is to be computed.")] = False,
    on: Annotated[
        int | None,
        typer.Option(
            "--on", min=1, max=MOST_WORKERS, help="How long it takes on N workers, and what limits it.", metavar="N"
        ),
    ] = None,
    against: AgainstOption = None,
    as_json: JsonOption = False,
    allow_plugins: AllowPluginsOption = None,  # noqa: ARG001 - as above
) -> None:
    """What would run, what is done, what is impossible and why. Nothing is written."""
    with clear_errors():
        collection, _ = _collection(study, overrides)
        plans = _plans(study, collection, store, retry_failed=retry_failed, force=force)
        each = [_plan_as_values(made) | ({"reasons": _reasons(made, store)} if explained else {}) for made in plans]
        if on is not None:
            each = [values | {"on": foretold(made, on)} for values, made in zip(each, plans, strict=True)]
        if against is not None:
            held = held_by(against, "--against", plans)
            each = [values | {"against": one} for values, one in zip(each, held, strict=True)]
        if as_json:
            print(json.dumps(each[0] if collection.name is None else sums(collection, each), indent=2))  # noqa: T201 - the document asked for
            return
        for summary in each:
            _print_plan(summary)
        if collection.name is not None:
            points, cells = (sums(collection, each)[key] for key in ("points", "cells_to_train"))
            err.print(
                f"{collection.name}: {counted(len(each), 'study', 'studies')}, "
                f"{counted(points['asked'], 'point')} asked, {points['missing']:,} to compute; "
                f"{counted(cells, 'cell')} to train",
                markup=False,
            )


def _print_plan(summary: dict[str, Any]) -> None:
    """A plan for eyes."""
    console = Console(width=width())
    counts = summary["points"]
    console.print(
        f"study {summary['study']}: {counted(counts['asked'], 'point')} asked, {counts['done']:,} done, {counts['missing']:,} to compute, "
        f"{counts['failed']:,} failed before, {counts['impossible']:,} impossible; {counted(summary['cells_to_train'], 'cell')} to train"
    )
    table = Table()
    for column in ("dataset", "formulation", "schedule"):
        table.add_column(column, overflow="fold")
    for column in ("seeds", "points to compute", "train"):
        table.add_column(column, justify="right")
    for row in summary["to_compute"]:
        numbers = (str(row[name]) for name in ("seeds", "points", "train"))
        table.add_row(row["dataset"], row["formulation"], row["schedule"], *numbers)
    if summary["to_compute"]:
        console.print(table)
    for reason in summary.get("reasons", ()):
        example = reason["example"]
        places = ", ".join(f"{example[axis]}" for axis in ("dataset", "formulation", "sampler"))
        console.print(
            f"{counted(reason['points'], 'point')} to compute: {reason['reason']} (for example {places}, steps "
            f"{example['steps']}, seed {example['seed']})",
            markup=False,
        )
    if summary.get("against"):
        print_against(summary["against"])
    for line in told(summary["on"]) if summary.get("on") else ():
        console.print(line, markup=False)
    for warning in summary["warnings"]:
        console.print(f"warning: {warning}", markup=False)
    for entry in summary["impossible"]:
        where = f"{entry['sampler']} of {entry['formulation']} on {entry['schedule']}, steps {entry['steps']}"
        console.print(f"impossible: {where}: {entry['reason']}", markup=False)


def _reasons(made: Plan, store: str) -> list[dict[str, Any]]:
    from tasks.results import Answers
    from tasks.results.explain import explain
    from tasks.store import Store

    return [reason.value() for reason in explain(made, Answers(Store.open(store)) if Store.exists(store) else None)]


def _plan_as_values(made: Plan) -> dict[str, Any]:
    from tasks.plan.warnings import called_alike, end_warnings, kept_in_vain, measured_in_vain, of_other_sources

    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for job in made.jobs:
        labels = job.cell.labels
        key = (labels["dataset"], labels["formulation"], labels["schedule"])
        entry = groups.setdefault(key, {**labels, "seeds": 0, "points": 0, "train": 0})
        entry["seeds"] += 1
        entry["points"] += len(job.points)
        entry["train"] += int(job.train)
    impossible: dict[tuple[Any, ...], dict[str, Any]] = {}
    for point in made.points:
        if point.id in made.impossible:
            its, reason = point.labels, made.impossible[point.id]
            place = (its["formulation"], its["schedule"], its["sampler"], reason)
            impossible.setdefault(place, {**its, "steps": [], "reason": reason})["steps"].append(point.steps)
    for entry in impossible.values():
        entry["steps"] = sorted(set(entry["steps"]))
        entry.pop("seed")
    return {
        "study": made.study.name,
        "points": {
            "asked": len(made.points),
            "done": len(made.done),
            "missing": made.missing,
            "failed": len(made.failed),
            "impossible": len(made.impossible),
        },
        "cells": len(made.cells),
        "cells_to_train": sum(job.train for job in made.jobs),
        "estimated_core_seconds": round(sum(job.work() for job in made.jobs), 1),
        "to_compute": list(groups.values()),
        "impossible": list(impossible.values()),
        "warnings": [
            *end_warnings((point.cell.dataset, point.schedule) for point in made.points if point.starts_from_noise),
            *kept_in_vain(made.study),
            *measured_in_vain(made),
            *called_alike(made),
            *of_other_sources(made),
        ],
        "missing_points": [
            {**p.labels, "point_id": p.id, "cell_id": p.cell.id} for job in made.jobs for p in job.points
        ],
    }
