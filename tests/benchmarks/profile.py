"""Where the time of training goes: shares of the processor's time, by kind of operation.

``python -m tests.benchmarks.profile`` prints the table.
"""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.training import SIZES, stack

STEPS = 320
MEMBERS = 4
"""As many as step together at width 128; more would only repeat them, and the profiler keeps every call."""

KINDS = {
    "matrix products": ("bmm", "baddbmm", "baddbmm_"),
    "hidden units: activations, gains, their derivatives and sums": (
        "sigmoid",
        "mul_",
        "addcmul",
        "addcmul_",
        "lerp",
        "sum",
    ),
    "Adam, clipping, the average of the weights": ("_fused_adam_", "lerp_", "square", "pow", "clamp"),
}
REST = "the rest: batches, losses, small arrays, Python"


def shares(width: int, batch: int) -> dict[str, float]:
    """Each kind's share of the time that operations take themselves."""
    stack(width, batch, 20, MEMBERS)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        stack(width, batch, STEPS, MEMBERS)
    times = {one.key.removeprefix("aten::"): one.self_cpu_time_total for one in found.key_averages()}
    total = sum(times.values())
    told = {kind: sum(times.pop(name, 0.0) for name in names) / total for kind, names in KINDS.items()}
    return {**told, REST: sum(times.values()) / total}


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    table = Table("what", *(f"width {width}, batch {batch}" for width, batch in SIZES))
    columns = [shares(*size) for size in SIZES]
    for kind in columns[0]:
        table.add_row(kind, *(f"{100 * column[kind]:.0f} %" for column in columns))
    Console().print(table)


if __name__ == "__main__":
    main()
