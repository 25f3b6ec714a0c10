"""Scheduled runs with a work pool: ``python deployments/deploy.py [--schedules FILE]``.

Makes the process work pool `diffatlas` where there is none, and deploys every entry of the list to
it. Whatever machine has ``prefect worker start --pool diffatlas`` starts the runs, in the folder in
which this command was started.

``prefect deploy --prefect-file deployments/prefect.yaml --all`` does the same for the shipped list.

Exit codes: 2 the list is wrong; 3 there is no Prefect server.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.serve import WORK_POOL, deployment_of, parser_of, read_and_check

if TYPE_CHECKING:
    from collections.abc import Sequence


def ensure_work_pool(name: str = WORK_POOL) -> bool:
    """Make a process work pool of that name; False if there is one already."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
            return True
    return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Deploy every entry."""
    entries, url = read_and_check(parser_of(__doc__).parse_args(arguments))
    made = ensure_work_pool()
    print(f"work pool {WORK_POOL} {'made' if made else 'found'} at {url}", file=sys.stderr)  # noqa: T201
    for entry in entries:
        deployment_of(entry, Path.cwd(), WORK_POOL).apply()
        print(f"deployed run-study/{entry.title}: {entry.when}", file=sys.stderr)  # noqa: T201
    print(f"start the runs with: prefect worker start --pool {WORK_POOL}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
