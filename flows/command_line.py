"""The command line ``diffatlas``. Thin: every command reads, calls one function, and shows.

What is meant for eyes goes to stderr or is a table; ``--json`` and ``--format`` print one document on stdout and nothing else.
Exit codes: 0 all good; 1 the run ended with failed points; 2 the input is wrong; 3 the store or a service is unavailable;
130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from tasks.plan import Plan
    from tasks.study import Study

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An atlas of the diffusion design space: one study file, one command, labelled answers.",
)

FAILED, WRONG_INPUT, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 130
_err = Console(stderr=True, highlight=False, soft_wrap=True)

StudyArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped study.", metavar="STUDY")]
StoreOption = Annotated[
    str, typer.Option("--store", envvar="DIFFATLAS_STORE", help="A folder, or s3://bucket/prefix.", metavar="URI")
]
StudyOption = Annotated[str | None, typer.Option("--study", help="Only this study's points.", metavar="NAME")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one key of the study, for example steps=[1,2,4].", metavar="KEY=VALUE"),
]
AsOfOption = Annotated[str | None, typer.Option("--as-of", help="A snapshot, a tag or a time.", metavar="WHEN")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn what can go wrong into one message and its exit code."""
    from flows.services import ServiceUnavailable
    from tasks.query import QueryError
    from tasks.results import UnknownStudy
    from tasks.store import StoreUnavailable, WrongReference
    from tasks.study import StudyError

    try:
        yield
    except (StudyError, QueryError, UnknownStudy, WrongReference) as error:
        _stop(str(error.args[0] if isinstance(error, LookupError) else error), WRONG_INPUT)
    except (StoreUnavailable, ServiceUnavailable) as error:
        _stop(str(error), UNAVAILABLE)
    except OSError as error:
        _stop(f"{error.strerror or error}: {error.filename}" if error.filename else str(error), UNAVAILABLE)
    except KeyboardInterrupt:
        _stop("interrupted: what is committed stays; run the same command again to go on", INTERRUPTED)


def _stop(message: str, code: int) -> None:
    _err.print(message, markup=False)
    raise typer.Exit(code)


@app.command()
def run(
    study: StudyArgument,
    store: StoreOption = "results",
    ray: Annotated[str | None, typer.Option("--ray", help="An existing Ray cluster.", metavar="ADDRESS")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Local workers (default: the cores).")] = None,
    overrides: SetOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Compute failed points again.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Where the page goes (reports/NAME.html).")] = None,
) -> None:
    """Run what is missing of a study; show its table; draw its report."""
    from flows.services import quiet_environment, terminate_as_interrupt

    quiet_environment()
    with _clear_errors(), terminate_as_interrupt():
        loaded, plan = _planned(study, store, overrides, retry_failed=retry_failed)
        outcome = (
            None if _finished(store, plan) else _run_flow(study, store, ray, workers, overrides, retry_failed, report)
        )
        _show(loaded, store, outcome, report)


def _planned(study: str, store: str, overrides: list[str] | None, *, retry_failed: bool = False) -> tuple[Study, Plan]:
    from tasks.plan import make_plan, points_of
    from tasks.results import plan_against
    from tasks.store import Store
    from tasks.study import StudyError, load_study

    loaded = load_study(study, overrides or ())
    if not points_of(loaded):
        raise StudyError(study, [f"{study}, at exclude: every point is excluded, nothing is asked"])
    if not Store.exists(store):
        return loaded, make_plan(loaded, {}, ())
    return loaded, plan_against(Store.open(store), loaded, retry_failed=retry_failed)


def _finished(store: str, plan: Plan) -> bool:
    from tasks.results import is_recorded
    from tasks.store import Store

    return not plan.jobs and Store.exists(store) and is_recorded(Store.open(store), plan)


def _run_flow(*arguments: Any) -> Any:
    """The flow, with a Prefect server found or started; its outcome."""
    from flows.services import prefect_server

    names = ("study", "store", "ray_address", "workers", "overrides", "retry_failed", "report")
    given = dict(zip(names, arguments, strict=True))
    given["report"] = str(given["report"]) if given["report"] else None
    with prefect_server():
        from flows.run_study import Outcome, run_study

        state = run_study(**given, return_state=True)
        result = state.result(raise_on_failure=False)
        if isinstance(result, Outcome):
            return result
        if isinstance(result, BaseException):
            raise result
        raise RuntimeError(f"the flow ended as {state.name}: {state.message}")


def _show(study: Study, store: str, outcome: Any, report: Path | None) -> None:
    """The table, the report's path, and the exit code that the points deserve."""
    from tasks.results import Answers, metric_names
    from tasks.store import Store
    from tasks.tables import tables

    answers = Answers(Store.open(store), study.name)
    points = answers.points
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120")))
    wanted = [m.column for m in study.metrics if m.column in metric_names(points)]
    for metric in wanted if len(wanted) > 1 and points.sizes["point"] < 100 else wanted[:1]:
        for table in tables(points, metric, console.width):
            console.print(table)
    if outcome is None:
        from tasks.report.files import default_page, write_report

        page = report or default_page(study.name)
        if report or not page.exists():
            write_report(answers, page)
        _err.print(f"study {study.name} is finished: nothing to compute, nothing committed", markup=False)
    else:
        page = Path(outcome.report)
        _err.print(
            f"{outcome.computed} points computed, {outcome.trained} cells trained; snapshot {outcome.snapshot}",
            markup=False,
        )
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    failed = points.isel(point=(points["status"] == "failed").values)
    if failed.sizes["point"]:
        reasons = sorted(
            {
                f"{f} seed {s}: {e}"
                for f, s, e in zip(*(failed[k].values for k in ("formulation", "seed", "error")), strict=True)
            }
        )
        _err.print(
            f"{failed.sizes['point']} points failed (diffatlas run --retry-failed computes them again):", markup=False
        )
        for reason in reasons[:20]:
            _err.print(f"  {reason}", markup=False)
        raise typer.Exit(FAILED)


@app.command()
def plan(
    study: StudyArgument,
    store: StoreOption = "results",
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What would run, what is done, what is impossible and why. Nothing is written."""
    with _clear_errors():
        _, made = _planned(study, store, overrides)
        told = _plan_as_values(made)
        if as_json:
            print(json.dumps(told, indent=2))  # noqa: T201 - the document asked for
            return
        console = Console()
        counts = told["points"]
        console.print(
            f"study {told['study']}: {counts['asked']} points asked, {counts['done']} done, {counts['missing']} to compute, "
            f"{counts['failed']} failed before, {counts['impossible']} impossible; {told['cells_to_train']} cells to train"
        )
        table = Table("dataset", "formulation", "schedule", "seeds", "points to compute", "train")
        for row in told["to_compute"]:
            numbers = (str(row[name]) for name in ("seeds", "points", "train"))
            table.add_row(row["dataset"], row["formulation"], row["schedule"], *numbers)
        if told["to_compute"]:
            console.print(table)
        for warning in told["warnings"]:
            console.print(f"warning: {warning}", markup=False)
        for entry in told["impossible"]:
            where = f"{entry['sampler']} of {entry['formulation']} on {entry['schedule']}, steps {entry['steps']}"
            console.print(f"impossible: {where}: {entry['reason']}", markup=False)


def _plan_as_values(made: Plan) -> dict[str, Any]:
    from tasks.warnings import end_warnings

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
            labels = point.labels
            reason = made.impossible[point.id]
            place = (labels["formulation"], labels["schedule"], labels["sampler"], reason)
            impossible.setdefault(place, {**labels, "steps": [], "reason": reason})["steps"].append(point.steps)
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
        "warnings": end_warnings((point.cell.dataset, point.schedule) for point in made.points),
        "missing_points": [
            {**p.labels, "point_id": p.id, "cell_id": p.cell.id} for job in made.jobs for p in job.points
        ],
    }


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


@app.command("query")
def query_command(
    store: StoreOption = "results",
    study: StudyOption = None,
    where: Annotated[
        str | None, typer.Option("--where", help="sampler == 'heun' and steps <= 20", metavar="EXPR")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Group by these columns.", metavar="A,B")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Only these metrics.", metavar="M,...")] = None,
    stat: Annotated[str, typer.Option("--stat", help="mean,std,sem,min,max,median,count")] = "mean,sem,count",
    as_of: AsOfOption = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, json or parquet")] = "table",
    out: Annotated[Path | None, typer.Option("--out", help="A file instead of stdout.", metavar="FILE")] = None,
) -> None:
    """Ask stored results."""
    with _clear_errors():
        from tasks.query import QueryError, query
        from tasks.results import open_results

        if form not in ("table", "csv", "json", "parquet"):
            raise QueryError(f"--format {form!r} is unknown (there are: table, csv, json, parquet)")
        if form == "parquet" and out is None:
            raise QueryError("--format parquet needs --out FILE")
        frame = query(open_results(store, study, as_of), where, _split(by), _split(metric), _split(stat))
        if frame.empty:
            _err.print("no point matches", markup=False)
        _write(frame, form, out, plain=not by)


def _write(frame: pd.DataFrame, form: str, out: Path | None, *, plain: bool) -> None:
    try:
        if form == "parquet":
            frame.to_parquet(out, index=False)
            return
        if form == "csv":
            text = frame.to_csv(index=False)
        elif form == "json":
            records = frame.astype(object).where(frame.notna(), None).to_dict("records")
            text = json.dumps(records, indent=2, default=lambda number: number.item()) + "\n"
        else:
            if plain:  # for eyes: ids and empty columns only make the lines long
                unseen = [name for name in ("cell_id", "point_id") if name in frame] + (
                    ["error"] if not frame["error"].any() else []
                )
                frame = frame.drop(columns=unseen)
            text = frame.to_string(index=False, float_format=lambda value: f"{value:.4g}") + "\n"
        if out:
            out.write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(text)
    except OSError as error:
        _stop(f"cannot write {out}: {error.strerror or error}", WRONG_INPUT)


@app.command("report")
def report_command(
    store: StoreOption = "results",
    study: StudyOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page's path (reports/NAME.html).", metavar="PATH")
    ] = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the page of a study: one HTML file that opens without a network.

    With --json, print what the study says of the literature's claims instead, and draw nothing unless --out asks for it.
    """
    with _clear_errors():
        from tasks.report.files import default_page, write_report
        from tasks.results import Answers, UnknownStudy
        from tasks.store import Store

        opened = Store.open(store)
        names = Answers(opened, None, as_of).studies
        if study is None and len(names) != 1:
            raise UnknownStudy(f"--study NAME is needed: store {store} holds {', '.join(names) or 'no study yet'}")
        answers = Answers(opened, study or names[0], as_of)
        if as_json:
            from tasks.report.claims import claims

            print(json.dumps(claims(answers.points, answers.study), indent=2))  # noqa: T201 - the document asked for
            if out is None:
                return
        page = out or default_page(answers.name or "store")
        try:
            write_report(answers, page)
        except OSError as error:
            _stop(f"cannot write {page}: {error.strerror or error}", WRONG_INPUT)
        print(f"report: {page}", file=sys.stderr if as_json else sys.stdout)


@app.command()
def history(store: StoreOption = "results", as_json: JsonOption = False) -> None:
    """Snapshots, newest first."""
    with _clear_errors():
        from tasks.store import Store

        entries = Store.open(store).history()
        if as_json:
            print(json.dumps(entries, indent=2))  # noqa: T201
            return
        for entry in entries:
            tags = f" ({', '.join(entry['tags'])})" if entry["tags"] else ""
            print(f"{entry['snapshot']}  {entry['time']}  {entry['message']}{tags}")  # noqa: T201


@app.command()
def catalog(
    kind: Annotated[str | None, typer.Argument(help="datasets, formulations, schedules, ...")] = None,
    as_json: JsonOption = False,
) -> None:
    """Every dataset, formulation, schedule, grid, sampler and metric, with its parameters and its formula's source."""
    with _clear_errors():
        from tasks.catalogue import catalogue
        from tasks.query import QueryError

        listed = catalogue()
        if kind is not None:
            plural = kind if kind in listed else f"{kind}s"
            if plural not in listed:
                raise QueryError(f"catalog: no kind {kind!r} (there are: {', '.join(listed)})")
            listed = {plural: listed[plural]}
        if as_json:
            print(json.dumps(listed, indent=2))  # noqa: T201
            return
        console = Console()
        for name, entries in listed.items():
            table = Table(title=name, title_justify="left", title_style="bold")
            for column in ("name", "parameters", "formula", "source"):
                table.add_column(column, overflow="fold")
            for entry in entries:
                parameters = ", ".join(
                    f"{k}={v['name'] if isinstance(v, dict) else v}" for k, v in entry["parameters"].items()
                )
                table.add_row(entry["name"], parameters, entry["formula"], entry["source"])
            console.print(table, markup=False)


def main() -> None:
    """Entry point of the console script."""
    app()
