"""The table of docs/scale.md: how long so many cells take on so many workers, as `flows.scale` foretells it.

    python -m tests.benchmarks.foretold

Cells of 6 s of training and twelve questions of 0.05 s, in shards as a plan packs them.
"""

from __future__ import annotations

import sys

from flows.scale import Costs, Load, follow
from tasks.plan.shards import aimed_at

CELLS = (1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 10, 100, 1_000)
TRAINING, QUESTIONS, QUESTION = 6.0, 12, 0.05
HEADINGS = ("cells", "1 worker", *(f"{workers:,}" for workers in WORKERS[1:]), "memory")


def loads(cells: int, workers: int) -> list[Load]:
    """The shards of so many cells, as long as many workers ask for."""
    work = TRAINING + QUESTIONS * QUESTION
    each = max(round(aimed_at(work * cells, workers) / work), 1)
    last = cells % each
    shards = [each] * (cells // each) + [last] * bool(last)
    return [Load(TRAINING * n, QUESTIONS * QUESTION * n, n, QUESTIONS * n) for n in shards]


def seconds(cells: int, workers: int) -> float:
    """From the command to the last commit."""
    costs = Costs()
    before = costs.start + costs.plan_cell * cells + costs.plan_point * QUESTIONS * cells
    return before + follow(loads(cells, workers), workers, costs).seconds


def memory(cells: int) -> float:
    """Bytes of the coordinator."""
    costs = Costs()
    return costs.base_bytes + costs.cell_bytes * cells + costs.point_bytes * QUESTIONS * cells


def row(cells: int) -> list[str]:
    """A line of the table."""
    return [f"{cells:,}", *(f"{seconds(cells, number):,.0f}" for number in WORKERS), f"{memory(cells) / 1e9:.1f} GB"]


def main() -> None:
    """Print the table."""
    for line in (HEADINGS, ["---"] * len(HEADINGS), *map(row, CELLS)):
        sys.stdout.write(f"| {' | '.join(line)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
