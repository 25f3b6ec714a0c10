"""`query`, `report`, `export` and `catalog`: what is stored and what there is, for eyes and for
programs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.console import Console
from rich.table import Table

from flows.command_line.options import (
    AllowPluginsOption,
    AsOfOption,
    ByOption,
    JsonOption,
    MetricOption,
    StoreOption,
    StudyOption,
    WrongOption,
    app,
    clear_errors,
    err,
    split,
    width,
    writing,
)
from tasks.columns import GENERATION
from tasks.messages import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from tasks.results.models import ModelledAnswers
    from tasks.where.columns import PointColumns


_FORMS = ("table", "csv", "json", "latex", "markdown", "parquet")
_FOR_EYES = ("table", "latex", "markdown")  # of which nothing is written where nothing matches
_MOST = 8
_LONGEST = 200  # rows of points that eyes are shown of several studies at once


@app.command("query")
def query_command(
    store: StoreOption = "results",
    study: StudyOption = None,
    where: Annotated[
        str | None, typer.Option("--where", help="sampler == 'heun' and steps <= 20", metavar="EXPR")
    ] = None,
    by: ByOption = None,
    metric: MetricOption = None,
    stat: Annotated[
        str | None, typer.Option("--stat", help="mean,std,sem,ci95,min,max,median,count,best (mean,sem,count)")
    ] = None,
    best: Annotated[
        str | None, typer.Option("--best", help="Rank the values of this axis, for example sampler.", metavar="AXIS")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="With --best: a condition such as nfe <= 20.", metavar="EXPR")
    ] = None,
    pareto: Annotated[
        str | None, typer.Option("--pareto", help="What nothing beats in all of these: w1,nfe", metavar="M,...")
    ] = None,
    as_of: AsOfOption = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, json, latex, markdown or parquet")] = "table",
    out: Annotated[Path | None, typer.Option("--out", help="A file instead of stdout.", metavar="FILE")] = None,
) -> None:
    """Ask stored results: filter and group them, rank an axis (--best), or find what nothing beats
    (--pareto).
    """
    with clear_errors():
        import pandas as pd

        from tasks.query import DEFAULT_STATISTICS, pooled, pooled_schedules, rank
        from tasks.query import pareto as front
        from tasks.query import query as ask
        from tasks.results.read import open_columns

        metrics = split(metric)
        _refuse(form, out, stat, best, at, pareto, metrics)
        points = open_columns(store, study, as_of)
        if best:
            frame = rank(
                points, best, metrics[0] if metrics else None, at, split(by) or ("dataset", "formulation"), where
            )
        elif pareto:
            frame = front(points, split(pareto), split(by), where)
        else:
            frame = ask(points, where, split(by), metrics, split(stat) or DEFAULT_STATISTICS)
            if by and "cell_id" not in split(by) and (mixed := pooled(points, where)):
                err.print(f"warning: {mixed}", markup=False)
            if mixed := pooled_schedules(points, split(by), where):
                err.print(f"note: {mixed}", markup=False)
        if best and study is None:
            _tell_of_studies(store, as_of)
        plain = not (by or best or pareto)
        if plain and study is None and out is None and form == "table" and len(frame) > _LONGEST:
            counts = _of_studies(store, as_of, where)
            if len(counts) > 1:
                err.print(_too_long(len(frame), next(iter(counts))), markup=False)
                frame = pd.DataFrame({"study": list(counts), "points": list(counts.values())})
                _write(frame, form, None, plain=False, asked=())
                return
        _remark(frame)
        if frame.empty:
            err.print(_nothing(points, where, at, ranked=bool(best or pareto)), markup=False)
            if form in _FOR_EYES:
                return
        measured = (*(metrics or points.metrics()), *split(pareto))
        asked = (*split(by), *measured, *(f"{name}_{each}" for name in measured for each in ("mean", *split(stat))))
        _write(frame, form, out, plain=plain, asked=asked)


def _refuse(
    form: str,
    out: Path | None,
    stat: str | None,
    best: str | None,
    at: str | None,
    pareto: str | None,
    metrics: Sequence[str],
) -> None:
    """Raises `WrongOption` for options that do not go together."""
    if form not in _FORMS:
        raise WrongOption(f"--format {form!r} is unknown (there are: {', '.join(_FORMS)})")
    if form == "parquet" and out is None:
        raise WrongOption("--format parquet needs --out FILE")
    if best and pareto:
        raise WrongOption("--best and --pareto are two questions: ask one at a time")
    if stat and (best or pareto):
        raise WrongOption("--stat is for groups; --best and --pareto tell mean, sem and count")
    if at and not best:
        raise WrongOption("--at is a condition of --best; elsewhere it is --where")
    if pareto and metrics:
        raise WrongOption("--pareto names its metrics itself: leave --metric out")
    if best and len(metrics) > 1:
        raise WrongOption(f"--best ranks by one metric; found {', '.join(metrics)}")


def _tell_of_studies(store: str, as_of: str | None) -> None:
    """That a ranking without `--study` is over all studies of a store, where it has several."""
    from tasks.results import Answers
    from tasks.store import Store

    names = Answers(Store.found(store), None, as_of).studies
    if len(names) > 1:
        listed = ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
        err.print(
            f"note: ranked over all {len(names)} studies of the store ({listed}); --study NAME ranks one", markup=False
        )


def _of_studies(store: str, as_of: str | None, where: str | None) -> dict[str, int]:
    """How many points of each study of a store were chosen."""
    from tasks.query.records import chosen
    from tasks.results import Answers
    from tasks.results.read import open_columns
    from tasks.store import Store

    names = Answers(Store.found(store), None, as_of).studies
    return {name: chosen(open_columns(store, name, as_of), where).size for name in names}


def _too_long(rows: int, study: str) -> str:
    """Why the studies are named instead of the points."""
    return (
        f"note: {rows:,} points of several studies, so only the studies are named; --study {study} has those of one, "
        "--by COLUMNS their means, --format csv all of them"
    )


def _nothing(points: PointColumns, where: str | None, at: str | None, *, ranked: bool) -> str:
    """Why an answer is empty, in one sentence."""
    from tasks.query.records import chosen
    from tasks.where.nothing import why_nothing

    if not points.size:
        return "no point matches: the results hold none yet"
    found = why_nothing(where, points) if where else None
    left = chosen(points, where)
    if found is None and at and ranked:
        found = why_nothing(at, left, "--at")
    if found is not None:
        return f"no point matches {found}"
    ok = int((left["status"] == "ok").sum())
    if not ok:
        return f"no point matches: none of the {counted(left.size, 'point')} chosen is ok (status failed or skipped)"
    return (
        f"no point matches: {counted(ok, 'point')} that are ok were chosen, and no configuration is whole, with all of its "
        f"seeds ok{' and within --at' if at else ''}"
    )


def _remark(frame: pd.DataFrame) -> None:
    """What stderr says of a ranking: what it leaves out."""
    if left_out := frame.attrs.get("left_out"):
        omitted = f"rows of {', '.join(left_out)} that do not make samples of the data from noise (see their `start`)"
        err.print(f"note: left out {omitted}; to rank them by themselves choose them with --where", markup=False)


def _unseen(frame: pd.DataFrame) -> Iterator[str]:
    """Columns that a table for eyes does without: ids, and what tells nothing of any of its rows."""
    for name in ("cell_id", "point_id"):
        if name in frame:
            yield name
    silent = {
        "error": not frame["error"].any(),
        "guidance": not frame["guidance"].any(),
        "sampling_schedule": (frame["sampling_schedule"] == frame["schedule"]).all(),
        "process": (frame["process"] == GENERATION).all(),
    }
    yield from (name for name, says_nothing in silent.items() if says_nothing)


def _write(frame: pd.DataFrame, form: str, out: Path | None, *, plain: bool, asked: Sequence[str]) -> None:
    with writing(out):
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
                frame = frame.drop(columns=list(_unseen(frame)))
            if form != "table":
                from tasks.query.paper import paper_table

                text = paper_table(frame, form, asked)
            else:
                text = frame.to_string(index=False, float_format=lambda value: f"{value:.4g}") + "\n"
        if out:
            out.write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(text)
            sys.stdout.flush()


@app.command("report")
def report_command(
    store: StoreOption = "results",
    study: StudyOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page's path (reports/NAME.html).", metavar="PATH")
    ] = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
    allow_plugins: AllowPluginsOption = None,  # noqa: ARG001 - its callback has done it
) -> None:
    """Draw the page of a study: one HTML file that opens without a network.

    With --json, print what the study says of the literature's claims instead, and draw nothing
    unless --out asks for it. For a file that names other studies, each of them that the store
    holds; --out is then a folder.
    """
    with clear_errors():
        from flows.request import default_page
        from tasks.results import Answers, UnknownStudy
        from tasks.results.models import ModelledAnswers
        from tasks.store import Store

        opened = Store.open(store)
        names = Answers(opened, None, as_of).studies
        if study is None and len(names) != 1:
            raise UnknownStudy(f"--study NAME is needed: store {store} holds {', '.join(names) or 'no study yet'}")
        listed = _listed(study) if study is not None and study not in names else None
        wanted = [study or names[0]] if listed is None else [name for name in listed if name in names]
        if listed is not None:
            lacking = [name for name in listed if name not in names]
            if not wanted:
                raise UnknownStudy(f"store {store} holds no study of {study}: {', '.join(lacking)}")
            if lacking:
                err.print(f"not in the store yet: {', '.join(lacking)}", markup=False)
        each = {name: ModelledAnswers(opened, name, as_of) for name in wanted}
        if as_json:
            from tasks.report.numbers.claims import claims

            found = {name: claims(answers) for name, answers in each.items()}
            print(json.dumps(found[wanted[0]] if listed is None else found, indent=2))  # noqa: T201 - the document asked for
            if out is None:
                return
        for name, answers in each.items():
            page = default_page(name) if out is None else out if listed is None else out / f"{name}.html"
            _draw(answers, page, sys.stderr if as_json else sys.stdout)


def _listed(study: str) -> list[str] | None:
    """The names of the studies in a file that names studies; None if `study` is not such a file."""
    from diffusion.plugins import typed
    from tasks.study.collection import load_collection
    from tasks.study.document import shipped_name

    if not (shipped_name(study) or Path(study).is_file()):
        return None
    with typed(study):
        collection = load_collection(study)
    return None if collection.name is None else [member.study.name for member in collection.members]


def _draw(answers: ModelledAnswers, page: Path, output: TextIO) -> None:
    from tasks.report.page.files import write_report

    with writing(page):
        write_report(answers, page)
    print(f"report: {page}", file=output)


@app.command("export")
def export_command(
    out: Annotated[Path, typer.Option("--out", help="The new file, or folder for Zarr.", metavar="PATH")],
    store: StoreOption = "results",
    study: StudyOption = None,
    form: Annotated[str, typer.Option("--format", help="zarr, netcdf or parquet")] = "zarr",
    samples: Annotated[bool, typer.Option("--samples", help="Also the final samples that were kept.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    as_of: AsOfOption = None,
) -> None:
    """Write points as plain Zarr, netCDF or Parquet, which open without this package."""
    with clear_errors():
        from tasks.results import Answers
        from tasks.results.export import export
        from tasks.store import Store

        with writing(out):
            written = export(Answers(Store.open(store), study, as_of), form, out, samples=samples, overwrite=overwrite)
        print(f"exported: {written}")  # noqa: T201


@app.command()
def catalog(
    kind: Annotated[str | None, typer.Argument(help="datasets, formulations, schedules, ...")] = None,
    as_json: JsonOption = False,
) -> None:
    """Every dataset, formulation, schedule, grid, sampler and metric, with its parameters and its
    formula's source.
    """
    with clear_errors():
        from tasks.study.catalogue import catalogue

        listed = catalogue()
        if kind is not None:
            plural = kind if kind in listed else f"{kind}s"
            if plural not in listed:
                raise WrongOption(f"catalog: no kind {kind!r} (there are: {', '.join(listed)})")
            listed = {plural: listed[plural]}
        if as_json:
            print(json.dumps(listed, indent=2))  # noqa: T201
            return
        console = Console(width=width())
        for name, entries in listed.items():
            table = Table(title=name, title_justify="left", title_style="bold")
            for column in ("name", "parameters", "formula", "source"):
                table.add_column(column, overflow="fold")
            for entry in entries:
                named: dict[str, list[str]] = entry.get("accepted", {})
                parameters = [
                    f"{k}: one of {', '.join(named[k])}"
                    if k in named
                    else f"{k}={v['name'] if isinstance(v, dict) else v}"
                    for k, v in sorted(entry["parameters"].items(), key=lambda one: one[0] in named)
                ]
                table.add_row(entry["name"], ", ".join(parameters), entry["formula"], entry["source"])
            console.print(table, markup=False)


@app.command()
def schema() -> None:
    """The keys of a study as a JSON schema, for an editor that completes and checks while one
    types.
    """
    from tasks.study.schema import study_schema

    print(json.dumps(study_schema(), indent=1))  # noqa: T201
