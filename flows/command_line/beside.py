"""Own numbers beside those of another store: `run --beside` and `plan --against`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from flows.command_line.options import WrongOption, width

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from tasks.plan import Plan
    from tasks.study import Study

_MOST_DIFFERENCES = 8


def held_by(store: str, option: str, plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """What another store has of each study, as plain values.

    Raises:
        QueryError: it has nothing of any.
    """
    from tasks.results.beside import held_elsewhere, refuse_strangers

    held = [held_elsewhere(made.study, store) for made in plans]
    refuse_strangers(option, held)
    return [one.value() for one in held]


def refuse_several(name: str | None, beside: str) -> None:
    """A table beside another is of one study.

    Raises:
        WrongOption: several are asked for.
    """
    if name is not None:
        raise WrongOption(
            f"--beside {beside}: {name} names several studies; 'diffatlas diff --against {beside} --study NAME' shows each"
        )


def print_against(held: dict[str, Any]) -> None:
    """What another store has, for eyes."""
    console = Console(width=width())
    counts = held["points"]
    console.print(
        f"{held['store']} has {counts['answered']:,} of {counts['asked']:,} points; {counts['different']:,} stand there in another "
        f"form, {counts['failed']:,} failed there, {counts['absent']:,} are not there",
        markup=False,
    )
    for reason in held["differences"][:_MOST_DIFFERENCES]:
        console.print(f"{held['store']} differs in {reason['points']} points: {reason['reason']}", markup=False)
    if (more := len(held["differences"]) - _MOST_DIFFERENCES) > 0:
        console.print(f"{held['store']} differs in {more} more ways (--json has all)", markup=False)


def print_beside(study: Study, points: xr.Dataset, store: str) -> None:
    """A study's numbers beside those of another store, with what `diff` says of their difference."""
    from tasks.columns import metric_names
    from tasks.compare import compare, side_by_side
    from tasks.results.beside import points_beside

    console = Console(width=width())
    other = points_beside(points, store)
    here, there = set(metric_names(points)), set(metric_names(other))
    wanted = [metric.column for metric in study.metrics if metric.column in here & there]
    if not wanted:
        console.print(
            f"nothing can be compared: {store} measured {_listed(there)}, and here it is {_listed(here)}", markup=False
        )
        return
    console.print(side_by_side(compare(other, points, wanted), store, console.width))


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
