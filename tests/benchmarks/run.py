"""Prints one table of ratios; every pair is timed alternately, and the median of the ratios is
shown.

Absolute times mean little on shared machines: each line compares two ways of doing the same on the
same core, or one way with the core's measured rate of multiplying matrices.

    python -m tests.benchmarks.run --json bench.json
    python -m tests.benchmarks.run --markdown bench.json

The second prints the table of the README.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from diffusion.datasets import Uniform
from diffusion.formulations import ElucidatedDM
from diffusion.networks import StackedMLP, features
from diffusion.randomness import stream
from diffusion.training import Member, Training, train
from tasks.store import Rows, Store
from tests.benchmarks import cells, exact, pages, quality, query, sampling, scores, startup, training
from tests.benchmarks.pairs import Ratio, paired


def _members(n: int) -> list[Member]:
    edm = ElucidatedDM()
    return [Member(Uniform(), edm, edm.own_schedule(), f"member {i}") for i in range(n)]


def matrix_rate() -> Ratio:
    """Floating-point rate of network evaluation over that of plain matrix products of the same
    size.
    """
    width, rows, members = 128, 2048, 5
    network = StackedMLP(1, width, 3)
    parameters = network.initialise([stream(i) for i in range(members)])
    z, c = torch.randn(members, rows, 1), features(torch.rand(members, 1))
    h, w = torch.randn(members, rows, width), torch.randn(members, width, width)
    products = 10

    def evaluate() -> None:
        with torch.no_grad():
            for _ in range(5):
                network(parameters, z, c)

    def multiply() -> None:
        for _ in range(products):
            torch.bmm(h, w)

    scale = (products * 2 * width**2) / (5 * network.flops())
    middle, low, high = paired(multiply, evaluate)
    return middle / scale, low / scale, high / scale


def exact_against_network() -> Ratio:
    """One evaluation of a trained network (width 128) over one of the exact denoiser of U[0,1],
    10,000 points.
    """
    members = _members(4)
    stack = train(members, [Uniform().sample(1000, stream("data"))] * 4, Training(steps=1))
    x = torch.randn(4, 10_000, 1, dtype=torch.float64)
    one = torch.ones(4, dtype=torch.float64)
    return paired(
        lambda: stack.denoiser(x, one, 0.5 * one), lambda: Uniform().denoise(x, one[:, None], 0.5 * one[:, None])
    )


def _shard(first: int, n: int) -> Rows:
    return Rows(points=[{"point_id": f"{first + i:020d}", "status": "ok", "w1": 0.1} for i in range(n)])


def commits() -> Ratio:
    """Committing 300 points one by one over committing them as one shard."""

    def write(size: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = Store.create(str(Path(folder) / "store"))
            with store.coordinate() as coordinator:
                for first in range(0, 300, size):
                    coordinator.commit(_shard(first, size), "points", {})

    return paired(lambda: write(10), lambda: write(300), rounds=3)


def growth(snapshots: int = 1000) -> Ratio:
    """A commit of 100 points to a store that has had that many over one to a store that has had
    ten.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        made = {}
        for name, count in (("old", snapshots), ("new", 10)):
            coordinator = held.enter_context(Store.create(str(Path(folder) / name)).coordinate())
            for n in range(count):
                coordinator.commit(_shard(100 * n, 100), "points", {})
            made[name] = coordinator, itertools.count(count)

        def commit(name: str) -> None:
            coordinator, numbers = made[name]
            coordinator.commit(_shard(100 * next(numbers), 100), "points", {})

        return paired(lambda: commit("old"), lambda: commit("new"), rounds=20)


MEASURES: tuple[tuple[str, Callable[[], Ratio | None]], ...] = (
    *training.MEASURES,
    *quality.MEASURES,
    *sampling.MEASURES,
    ("network evaluation: share of the core's matrix-product rate", matrix_rate),
    ("network evaluation / exact denoiser of U[0,1]", exact_against_network),
    ("300 points in commits of 10 / in one commit", commits),
    ("a commit of 100 points: after 1,000 commits / after 10", growth),
    *exact.MEASURES,
    *cells.MEASURES,
    *scores.MEASURES,
    *query.MEASURES,
    *pages.MEASURES,
    *startup.MEASURES,
)
"""What is measured, in words, and how; None where a peer is not installed."""

_NUMBERS = ("ratio", "from", "to")


def machine() -> dict[str, str]:
    """What the ratios were measured on."""
    named = [line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    packages = ("torch", "numpy", "azula", "diffusers", "smalldiffusion", "mlflow", "duckdb")
    installed = {name: version(name) for name in packages if importlib.util.find_spec(name)}
    processor = named[0] if named else platform.processor() or platform.machine()
    return {"processor": processor, "cores": str(os.cpu_count()), "python": platform.python_version(), **installed}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def markdown(ratios: Sequence[Mapping[str, Any]]) -> str:
    """The README's table of what ``--json`` has written; what was not installed is left out."""
    there = [row for row in ratios if row["ratio"] is not None]
    lines = [" | ".join([row["what"], *(_shown(row[name]) for name in _NUMBERS)]) for row in there]
    return "\n".join(["| what | ratio | from | to |", "|---|---|---|---|", *(f"| {line} |" for line in lines)]) + "\n"


def _shown(value: float) -> str:
    return f"{value:.{1 if value >= 10 else 2 if value >= 0.1 else 3}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, a line at a time; with ``--json FILE`` write the same beside the machine."""
    parser = argparse.ArgumentParser(description="Ratios of speed, measured side by side.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write them as well")
    parser.add_argument("--only", default="", metavar="TEXT", help="measure the lines that begin so")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="measure nothing: the README's table of that JSON"
    )
    asked = parser.parse_args(arguments)
    if asked.markdown:
        sys.stdout.write(markdown(json.loads(asked.markdown.read_text())["ratios"]))
        return
    torch.set_num_threads(1)
    table = Table("what", "ratio", "from", "to")
    rows: list[dict[str, object]] = []
    for name, measure in MEASURES:
        if not name.startswith(asked.only):
            continue
        print(name, file=sys.stderr)  # noqa: T201 - it takes minutes
        found = measure()
        table.add_row(name, *([f"{value:.2f}" for value in found] if found else ["not installed", "", ""]))
        rows.append({"what": name, **dict(zip(_NUMBERS, found or (None,) * 3, strict=True))})
    Console(width=110).print(table)
    if asked.json:
        asked.json.write_text(json.dumps({"machine": machine(), "ratios": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
