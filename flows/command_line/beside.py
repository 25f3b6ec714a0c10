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
    from flows.direct import compared_beside
    from tasks.compare import side_by_side
    from tasks.where.language import QueryError

    console = Console(width=width())
    try:
        compared = compared_beside(study, points, store)
    except QueryError as error:  # the numbers are there, and only have nothing beside them
        console.print(str(error), markup=False)
        return
    console.print(side_by_side(compared, store, console.width))
