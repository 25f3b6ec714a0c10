"""`grow`: seeds are added to a study until it is decided who is best."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.command_line.options import (
    AllowPluginsOption,
    ByOption,
    DeviceOption,
    ForceUnlockOption,
    JsonOption,
    MetricOption,
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
    split,
    width,
)
from flows.exit_codes import FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flows.growing import Growth
    from flows.refining import Refinement
    from flows.request import Outcome, RunRequest
    from tasks.plain import Spec
    from tasks.query.growing import LookTaken
    from tasks.query.refining import StepsTaken


_MOST_LEFT_OUT = 8  # of the configurations that are named below the table


@app.command()
def grow(
    study: StudyArgument,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            help="The question: best(sampler) if none is asked, or best(AXIS) at nfe<=20.",
            metavar="QUESTION",
        ),
    ] = None,
    steps_until: Annotated[
        str | None,
        typer.Option(
            "--steps-until",
            help="floor: instead of seeds, step counts are added between neighbours that differ.",
            metavar="floor",
        ),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option("--margin", help="What counts as no difference: 2% if not given, or in the metric's units."),
    ] = None,
    max_seeds: Annotated[int | None, typer.Option("--max-seeds", help="Seeds at the last look: 40.")] = None,
    max_looks: Annotated[int | None, typer.Option("--max-looks", help="Looks at the step counts: 4.")] = None,
    by: ByOption = None,
    metric: MetricOption = None,
    store: StoreOption = "results",
    ray: RayOption = None,
    workers: WorkersOption = None,
    overrides: SetOption = None,
    retry_failed: RetryOption = False,
    force_unlock: ForceUnlockOption = False,
    report: PageOption = None,
    device: DeviceOption = "cpu",
    wait: WaitOption = 0.0,
    shard_limit: ShardLimitOption = None,
    as_json: JsonOption = False,
    allow_plugins: AllowPluginsOption = None,  # noqa: ARG001 - its callback has done it
) -> None:
    """Add seeds to a study until every rival of the best is told apart from it or equivalent to it.

    Seeds are added in looks that are announced (5, 10, 20, 40), at a level of 5 % over all looks and
    groups. With --steps-until floor steps are added instead.
    """
    with clear_errors():
        from flows.command_line.options import WrongOption
        from flows.direct_growth import MARGIN, QUESTION, refuse_together
        from flows.growing import Growth, design_of, grown
        from flows.refining import checked_looks, refined
        from flows.request import RunRequest
        from flows.services import quiet_environment, terminate_as_interrupt
        from flows.start import starting_once
        from tasks.query.growing import read_margin, read_question
        from tasks.query.ranking import BY
        from tasks.statistics.bisection import MOST_LOOKS
        from tasks.statistics.sequential import MOST_SEEDS

        check_device(device)
        metrics = split(metric)
        if len(metrics) > 1:
            raise WrongOption(f"grow decides by one metric; found {', '.join(metrics)}")
        refuse_together(
            steps_until=steps_until, until=until, margin=margin, max_seeds=max_seeds, by=by, max_looks=max_looks
        )
        named = metrics[0] if metrics else None
        request = RunRequest(
            study,
            store,
            tuple(overrides or ()),
            ray_address=ray,
            workers=workers,
            retry_failed=retry_failed,
            force_unlock=force_unlock,
            report=str(report) if report else None,
            quiet=as_json,
            device=device,
            wait=wait,
            shard_limit=shard_limit,
        )
        quiet_environment()
        found: Growth | Refinement
        with terminate_as_interrupt(), starting_once() as start:
            run = partial(_run, start)
            if steps_until is not None:
                looks = checked_looks(steps_until, MOST_LOOKS if max_looks is None else max_looks)
                found = refined(request, named, looks, run, _tell_steps, warn=_say, announce=_say)
            else:
                question = read_question(QUESTION if until is None else until, BY if by is None else split(by), named)
                design = design_of(
                    read_margin(MARGIN if margin is None else margin), MOST_SEEDS if max_seeds is None else max_seeds
                )
                found = grown(request, question, design, run, _tell, warn=_say, announce=_say)
        if as_json:
            print(json.dumps(found.value(), indent=2))  # noqa: T201 - the document asked for
        elif isinstance(found, Growth):
            _show(found)
        else:
            _show_steps(found)
        if found.failed:
            err.print(
                f"{_counted(found.failed, 'point')} failed (diffatlas query --where \"status == 'failed'\")",
                markup=False,
            )
            raise typer.Exit(FAILED)


def _run(start: Callable[[RunRequest], Outcome], request: RunRequest) -> None:
    err.print("getting Prefect and Ray ready", markup=False)  # seconds without a word
    outcome = start(request)
    done = f"{_counted(outcome.computed, 'point')} computed, {_counted(outcome.trained, 'cell')} trained"
    err.print(done, markup=False)
    if outcome.untold:
        err.print(outcome.untold, markup=False)


def _tell(look: LookTaken) -> None:
    done = len(look.rows) - look.undecided
    err.print(f"{look.seeds} seeds: {done} of {_counted(len(look.rows), 'rival')} decided", markup=False)


def _tell_steps(look: StepsTaken) -> None:
    added = len({(group, steps) for group, more in look.added.items() for steps in more})
    told = f"look {look.look}: {_counted(len(look.rows), 'pair')} of neighbours, {_counted(added, 'step count')} added"
    err.print(f"{told}, {look.open} left open" if look.open else told, markup=False)


def _say(sentence: str) -> None:
    err.print(sentence, markup=False)


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _show(found: Growth) -> None:
    """The table of looks, and how it ended."""
    console = Console(width=width(), highlight=False)
    table = Table(title=escape(f"{found.question} by {found.looks[0].metric}"), title_justify="left")
    table.add_column("seeds", justify="right")
    for name in (*found.question.by, "best", "rival"):
        table.add_column(name, overflow="fold")
    table.add_column("difference, interval", no_wrap=True)
    table.add_column("verdict")
    for look in found.looks:
        for row in look.rows:
            since = f" (at {row['since']})" if row["since"] not in (None, look.seeds) else ""
            cells = (*(row[name] for name in found.question.by), row["best"], row["rival"], _interval(row))
            table.add_row(str(look.seeds), *(escape(str(cell)) for cell in cells), row["verdict"] + since)
        table.add_section()
    console.print(table)
    last = found.looks[-1]
    left = f"{_counted(last.undecided, 'rival')} {_is(last.undecided)} undecided"
    said = "decided" if found.decided else f"the seeds are spent and {left}"
    among = ", among the configurations that were compared" if last.left_out else ""
    level = f"{100 * found.design.level:g} % over all looks and groups"
    console.print(f"{said} with {last.seeds} seeds{among}; level {level}", markup=False)
    if any(row["verdict"] == "contradicted" for row in last.rows):
        console.print("contradicted: told apart from the best, but as the better of the two", markup=False)
    _list_left_out(console, last.left_out)


def _show_steps(found: Refinement) -> None:
    """Where each group comes down to the floor, and how it ended."""
    from tasks.query.refining import GROUP
    from tasks.statistics.bisection import FLOORS

    console = Console(width=width(), highlight=False)
    table = Table(title=escape(f"steps by {found.metric}"), title_justify="left")
    for name in (*GROUP, "steps", f"within {FLOORS:g} floors"):
        table.add_column(name, overflow="fold")
    for row in found.groups:
        steps = ", ".join(map(str, row["steps"]))
        reached = "not yet" if row["reached"] is None else f"from {row['reached']} on"
        table.add_row(*(escape(str(row[name])) for name in GROUP), steps, reached)
    console.print(table)
    last = found.looks[-1]
    left = []
    if last.open:
        left.append(
            f"the looks are spent and {_counted(last.open, 'pair')} of neighbours {_is(last.open)} left open (--max-looks)"
        )
    if found.left_out:
        left.append(f"{_counted(len(found.left_out), 'pair')} of neighbours could not be compared")
    said = ", and ".join(left) or "nothing is left to refine"
    level = f"{100 * found.announced.level:g} % over all looks and groups"
    console.print(f"{said} after {_counted(len(found.looks), 'look')}; level {level}", markup=False)
    _list_left_out(console, found.left_out)


def _list_left_out(console: Console, left_out: Sequence[Spec]) -> None:
    for row in left_out[:_MOST_LEFT_OUT]:
        where = ", ".join(f"{name} {value}" for name, value in row.items() if name != "reason")
        console.print(f"left out: {where}: {row['reason']}", markup=False)
    if len(left_out) > _MOST_LEFT_OUT:
        console.print(f"left out: {len(left_out) - _MOST_LEFT_OUT} more (--json has all)", markup=False)


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _interval(row: Spec) -> str:
    """The paired difference to the best, or the factor, with its interval."""
    times = "x " if row["scale"] == "logarithmic" else ""
    middle, low, high = ("-" if row[name] is None else f"{row[name]:.3g}" for name in ("difference", "low", "high"))
    return f"{times}{middle} [{low}, {high}]"
