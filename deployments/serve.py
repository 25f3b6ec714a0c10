"""Scheduled runs on one machine: ``python deployments/serve.py [--schedules FILE]``.

Every entry of the list becomes a deployment of the flow `run-study` on its cron line, and this
process starts the runs, each in a process of its own. There is no work pool and no worker. A
Prefect server keeps the schedule and the record; it has to be running, and `PREFECT_API_URL` says
where.

Runs of one entry do not pile up: a run that is due while the one before is still running is
cancelled. Entries that share a store are kept apart by the store's own lock. When this process
stops, its runs are cancelled; the schedules stay active, so that the next start goes on.

Exit codes: 2 the list is wrong; 3 there is no Prefect server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from deployments.schedules import SHIPPED_LIST, ScheduledRun, read_schedules
from diffusion.errors import DiffatlasError
from flows.exit_codes import exit_code_of
from flows.services import ServiceUnavailable, quiet_environment
from flows.services.server import check_configured_server
from tasks.study import load_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect.deployments.runner import RunnerDeployment

WORK_POOL = "diffatlas"
TAG = "diffatlas"

_START_A_SERVER = (
    "Start one in another terminal and say where it is:\n"
    "  prefect server start\n"
    "  export PREFECT_API_URL=http://127.0.0.1:4200/api"
)


def running_server() -> str:
    """The address of the Prefect server in force. Raises `ServiceUnavailable` if there is none or
    it does not answer.

    A temporary server will not do: it ends with us, and the schedule with it.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if url is None:
        raise ServiceUnavailable(f"Scheduled runs need a Prefect server, and none is configured. {_START_A_SERVER}")
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        raise ServiceUnavailable(f"The Prefect server at {url} does not answer ({error}). {_START_A_SERVER}")
    check_configured_server(str(url))
    return str(url)


def deployment_of(entry: ScheduledRun, folder: Path, work_pool: str | None = None) -> RunnerDeployment:
    """The deployment of an entry; relative paths are taken from `folder`, where the runs of a work
    pool also start. Its tags: ours, the study's name, and the entry's own.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.events import DeploymentEventTrigger
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.run_study import run_study
    from flows.telling import FINISHED, POINTS_FAILED

    given = entry.parameters(folder)
    ended_well = DeploymentEventTrigger(
        name=f"diffatlas: {entry.title} after {entry.after}",
        expect={FINISHED},  # Prefect's own event waits for those before it, which its scheduler does not send
        match={POINTS_FAILED: "0"},
        match_related={"prefect.resource.role": "deployment", "prefect.resource.name": entry.after or ""},
    )
    found = run_study.to_deployment(
        name=entry.title,
        schedules=[Cron(entry.cron, timezone=entry.timezone)] if entry.cron else [],
        triggers=[ended_well] if entry.after else [],
        parameters=given,
        tags=list(dict.fromkeys([TAG, load_study(given["study"], entry.overrides).name, *entry.tags])),
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,  # workers import the flow by the name it travels under
        work_pool_name=work_pool,
        job_variables={"working_dir": str(folder)} if work_pool else None,
    )
    return cast("RunnerDeployment", found)  # the coroutine of its type is for callers with an event loop


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The command line of a program that reads the list; the first paragraph describes it."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    help_text = "the list (default: %(default)s)"
    parser.add_argument("--schedules", type=Path, default=SHIPPED_LIST, metavar="FILE", help=help_text)
    return parser


def read_and_check(options: argparse.Namespace) -> tuple[list[ScheduledRun], str]:
    """The entries that the command line leads to, and the server's address; ends the process
    without them.
    """
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")  # this terminal is where runs are followed
    quiet_environment()
    try:
        return read_schedules(options.schedules), running_server()
    except DiffatlasError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the message for the person at the terminal
        sys.exit(exit_code_of(error))


def serve(deployments: Sequence[RunnerDeployment]) -> None:
    """Start runs as they fall due, until SIGTERM or Ctrl-C; the runs then going on are cancelled,
    and end in order.

    Prefect's own `serve` ends at once on SIGTERM and kills its runs: they stay Running in the
    record, and for minutes every later run of theirs is refused as overlapping. It also ends, and its
    runs with it, when it has asked three times in vain what is due: see `flows.patience`.
    """
    from prefect.runner import Runner, _scheduled_run_poller

    from flows.patience import ask_on, outlast_the_server

    outlast_the_server()
    ask_on(_scheduled_run_poller, lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201 - for the person

    class Patient(Runner):
        def handle_sigterm(self, *_args: Any, **_kwargs: Any) -> None:
            if self.stopping:  # a second signal does not cut short what the first began
                return
            if not self.started:
                sys.exit(0)
            self.execute_in_background(self.astop)

    runner = Patient(name="diffatlas", pause_on_shutdown=False)
    for deployment in deployments:
        runner.add_deployment(deployment)
    signal.signal(signal.SIGINT, runner.handle_sigterm)
    asyncio.run(runner.start())


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve every entry until this process is stopped."""
    entries, url = read_and_check(parser_of(__doc__).parse_args(arguments))
    folder = Path.cwd()
    print(f"serving {len(entries)} schedules with the Prefect server at {url}; Ctrl-C stops", file=sys.stderr)  # noqa: T201
    for entry in entries:
        where = entry.parameters(folder)["store"]
        print(f"  {entry.title}: {entry.when}, store {where}", file=sys.stderr)  # noqa: T201
    serve([deployment_of(entry, folder) for entry in entries])
    print("stopped; the schedules stay active, the next start goes on", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
