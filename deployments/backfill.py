"""Runs what is lacking: ``python deployments/backfill.py [--entry NAME] [--each CHANGES]``.

Asks the store of every entry of the list, or of those that are named, what a run would compute, and
where it lacks something starts a run of the entry's deployment and waits for it: after a change of
many studies, or of the code. With ``--each "seeds=5 name=more"`` (several times) each entry is asked
for once with each of these changes on top of its own. One run at a time: runs of one entry that
overlap are cancelled.

The deployments have to be served, or deployed and have a worker. What a terminal can do alone,
``diffatlas run LIST`` does.

Exit codes: 1 a run has not completed, or points have failed; 2 the list or a change is wrong; 3
there is no Prefect server, or it does not know a deployment.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.schedules import ScheduledRun, ScheduleError
from deployments.serve import parser_of, read_and_check
from diffusion.errors import DiffatlasError
from flows.exit_codes import FAILED, exit_code_of
from flows.services import ServiceUnavailable
from tasks.results.stored import plan_for
from tasks.study import load_study

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BUSY_SECONDS = 15.0  # until a run is tried again that another one of its entry kept out
_BUSY = "concurrency limit"  # as Prefect says it


@dataclass(frozen=True)
class Lacking:
    """A run that has something to do."""

    entry: ScheduledRun
    parameters: dict[str, Any]
    points: int  # to be computed

    @property
    def name(self) -> str:
        """The entry's, with the changes."""
        more = self.parameters["overrides"][len(self.entry.overrides) :]
        return " ".join([self.entry.title, *more])


def lacking(
    entries: Sequence[ScheduledRun], folder: Path, changes: Sequence[Sequence[str]] = ((),), names: Sequence[str] = ()
) -> Iterator[Lacking]:
    """What the stores lack of the entries, or of those of these names, with each of the changes.

    Raises:
        ScheduleError: no entry has that name, or a change would redefine the entry's own study.
        DiffatlasError: a study cannot be used, or a store cannot be read.
    """
    titles = [entry.title for entry in entries]
    if unknown := [name for name in names if name not in titles]:
        raise ScheduleError("--entry", [f"no entry {name!r} (there are: {', '.join(titles)})" for name in unknown])
    for entry in entries:
        given = entry.parameters(folder)
        own = load_study(given["study"], entry.overrides)
        for more in changes if not names or entry.title in names else ():
            overrides = [*entry.overrides, *more]
            asked = load_study(given["study"], overrides)
            if asked.name == own.name and asked.spec() != own.spec():
                what = f"--each {' '.join(more)!r}: would redefine study {own.name!r}, which {entry.title} asks for every time"
                raise ScheduleError("--each", [f"{what}; add a name of its own (name=...)"])
            points = plan_for(given["study"], given["store"], overrides).missing
            if points:
                yield Lacking(entry, {**given, "overrides": overrides}, points)


def run_through(one: Lacking) -> tuple[bool, str]:
    """Start a run of the entry's deployment and wait for its end; whether it completed, and what it
    said.

    Raises:
        ServiceUnavailable: the server knows no such deployment.
    """
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    while True:
        try:
            ended: Any = run_deployment(
                f"run-study/{one.entry.title}",
                parameters=one.parameters,
                tags=["backfill"],
                as_subflow=False,
                poll_interval=2,
            )
        except ObjectNotFound:
            raise ServiceUnavailable(
                f"The Prefect server knows no deployment run-study/{one.entry.title}: serve or deploy the list first"
            ) from None
        message = ended.state.message or ended.state.name
        if not (ended.state.is_cancelled() and _BUSY in message):
            return ended.state.is_completed(), message
        _say(f"{one.name}: another run of it is going on; trying again")
        time.sleep(_BUSY_SECONDS)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - for the person at the terminal


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is lacking, one after the other, whatever becomes of each."""
    parser = parser_of(__doc__)
    parser.add_argument("--entry", action="append", default=[], metavar="NAME", help="of these alone; may be repeated")
    parser.add_argument(
        "--each", action="append", metavar="CHANGES", help="as in `diffatlas run --set`, separated by blanks"
    )
    options = parser.parse_args(arguments)
    entries, _ = read_and_check(options)
    failed = False
    try:
        found = list(lacking(entries, Path.cwd(), [each.split() for each in options.each or [""]], options.entry))
        for number, one in enumerate(found, start=1):
            _say(f"{number}/{len(found)} {one.name}: {one.points} points are lacking")
            completed, message = run_through(one)
            _say(f"{number}/{len(found)} {one.name}: {message}")
            failed = failed or not completed
    except DiffatlasError as error:
        _say(str(error))
        sys.exit(exit_code_of(error))
    if not found:
        _say("nothing is lacking")
    sys.exit(FAILED if failed else 0)


if __name__ == "__main__":
    main()
