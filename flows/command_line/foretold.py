"""`plan --on`: how long a plan takes on so many workers, as values and in two sentences."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.clock import clock
from flows.scale import Costs, predict
from tasks.messages import counted

if TYPE_CHECKING:
    from tasks.plan import Plan

MOST_WORKERS = 100_000

_LIMITS = {
    "workers": "the workers: {more} workers need {after}",
    "coordinator": "the one process that hands over and commits shards: if it needed half as long, the run would take "
    "{after}. More workers do not help; several studies with a store each do",
    "server": "Prefect's server, which is told of each task run: twice as fast, the run would take {after}. Give it "
    "PostgreSQL and a machine of its own",
    "start": "the start of {started}: in half the time, the run would take {after}. Keep running what several runs can use "
    "(PREFECT_API_URL, --ray)",
    "longest shard": "its longest shards, such as {longest} of {seconds}: were they half as long, the run would take "
    "{after}. More workers do not help; fewer training steps or samples in a cell do",
}


_SERVICES = {"server": "Prefect's server", "ray": "Ray"}


def _started() -> list[str]:
    """The services that a run from here starts itself."""
    from flows.doctor.services import configured_server

    named = {"server": configured_server(), "ray": os.environ.get("RAY_ADDRESS")}
    return [name for name in _SERVICES if named[name] in (None, "", "local")]


def foretold(plan: Plan, workers: int) -> dict[str, Any] | None:
    """What is foretold, for JSON; None if nothing is to be done.

    A Prefect server or a cluster that is named is not started, and costs nothing until then.
    """
    started = _started()
    costs = Costs()
    unneeded = {f"start_{name}": 0.0 for name in _SERVICES if name not in started}
    found = predict(plan, workers, replace(costs, **unneeded))
    if found is None:
        return None
    line = found.line
    return {
        "workers": workers,
        "starts": started,
        "seconds": round(found.seconds, 1),
        "before_the_first_shard": round(found.before, 1),
        "shards": found.shards,
        "task_runs": found.task_runs,
        "core_seconds": {
            "workers": round(line.work, 1),
            "coordinator": round(line.coordinator, 1),
            "server": round(line.server, 1),
        },
        "busy": {
            "workers": round(line.busy, 3),
            "coordinator": round(line.coordinator / line.seconds, 3),
            "server": round(line.server / line.seconds, 3),
        },
        "coordinator_bytes": round(found.bytes),
        "limit": found.limit,
        "seconds_if_half": {name: round(seconds, 1) for name, seconds in found.changed.items()},
        "longest_shard": {"name": found.longest.name, "seconds": round(found.longest.train + found.longest.sweep, 1)},
    }


def told(found: dict[str, Any]) -> list[str]:
    """The same for eyes."""
    busy = ", ".join(f"{name} {share:.0%}" for name, share in found["busy"].items())
    longest = found["longest_shard"]
    reason = _LIMITS[found["limit"]].format(
        more=2 * found["workers"],
        started=" and of ".join(_SERVICES[name] for name in found["starts"]),
        after=clock(found["seconds_if_half"][found["limit"]]),
        longest=longest["name"],
        seconds=clock(longest["seconds"]),
    )
    first = (
        f"on {counted(found['workers'], 'worker')}: about {clock(found['seconds'])}, of which {clock(found['before_the_first_shard'])} "
        f"before the first shard; {counted(found['shards'], 'shard')} in {counted(found['task_runs'], 'task run')}; busy: {busy}; "
        f"memory of "
        f"the coordinator {found['coordinator_bytes'] / 1e9:.1f} GB"
    )
    return [first, f"limited by {reason}"]
