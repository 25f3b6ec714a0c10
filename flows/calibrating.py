"""How fast the GPUs of a cluster do the work of a plan, asked before it is packed into shards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from diffusion.formulations import Given
from diffusion.training.placement import BUCKETS
from flows.events import Hindered, Waiting
from flows.workers import signals_as_raised
from tasks.plan.pace import Paces
from tasks.plan.shards import stack_key
from tasks.work.calibration import Sample, paces_on

if TYPE_CHECKING:
    from flows.events import Emit
    from flows.resources import Claims
    from tasks.plan import Job
    from tasks.work.code import Code

SECONDS = 120.0
"""How long a run waits for it: a GPU may be taken by others."""

_SAMPLES = 4096  # asked for at once, at most


def samples_of(jobs: Sequence[Job], slots: int) -> dict[str, Sample]:
    """A piece of work of each kind, of the size that a shard's has; of given models there is none."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if not isinstance(job.cell.formulation, Given):
            groups.setdefault(stack_key(job.cell), []).append(job)
    found = {}
    for kind, group in groups.items():
        asked = max((point.samples for job in group for point in job.points), default=1)
        members = min(math.ceil(len(group) / slots), BUCKETS[-1])
        found[kind] = Sample(group[0].cell, members, min(asked, _SAMPLES))
    return found


def calibrated(jobs: Sequence[Job], claims: Claims, code: Code, emit: Emit, seconds: float = SECONDS) -> Paces:
    """The pace of each kind on a device of those that its stages compute on; none where only
    processors compute, or where it cannot be had: then work is packed as planned.

    It says beforehand with `emit` that it waits, and for how long, and afterwards if in vain.
    """
    stage = next((stage for stage, device in claims.devices.items() if device == "cuda"), None)
    kinds = samples_of(jobs, claims.slots) if stage else {}
    return asked_of(stage, kinds, claims, code, emit, seconds) if stage and kinds else {}


def asked_of(stage: str, kinds: dict[str, Sample], claims: Claims, code: Code, emit: Emit, seconds: float) -> Paces:
    """The same, of a worker with what a task run of the stage is given."""
    device = claims.devices[stage]
    emit(Waiting(f"{device} is asked how fast it works, for at most {seconds:.0f} s"))
    asking: Any = ray.remote(max_retries=0, **claims.options(stage))(paces_on)  # `options` would take no `max_calls`
    answer = asking.remote(device, kinds, code)
    try:
        with signals_as_raised():
            found = ray.get(answer, timeout=seconds)
    except (RayError, GetTimeoutError) as error:
        with suppress(RayError):
            ray.cancel(answer, force=True)
        emit(Hindered(f"{device} was not measured ({type(error).__name__}): shards are sized as planned"))
        return {}

    def on_it(name: str, value: float) -> float:
        return value if claims.devices[name] == device else 1.0

    steady = {kind: pace.steady() for kind, pace in found.items()}
    return {
        kind: replace(pace, train=on_it("train", pace.train), sweep=on_it("sweep", pace.sweep))
        for kind, pace in steady.items()
    }
