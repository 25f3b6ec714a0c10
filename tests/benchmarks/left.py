"""How right the time left is, on a real run: what it said after each shard, and what was left.

    python -m tests.benchmarks.left points
    python -m tests.benchmarks.left uniform --set seeds=1

``points`` is a study of exact answers and small networks on a file of 2,000 points of the plane; any
other study is taken by its name or file, with changes after ``--set``. It runs on two workers, and what
its live file says is read every second, as `diffatlas status` reads it. Other work on the machine
counts: the clock is what is foretold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flows.clock import clock
from flows.services import prefect_server, quiet_environment, ray_cluster

quiet_environment()

POINTS, WORKERS = 2_000, 2
EVERY = 20.0
"""Seconds after which it is noted what a run says, if no shard ends."""

OF_POINTS: dict[str, Any] = {
    "name": "points",
    "formulations": ["edm", "vp"],
    "seeds": 3,
    "training": {"steps": 1000, "batch": 256, "width": 64, "depth": 3, "data": 2000},
    "samplers": ["ddim", "heun"],
    "steps": [2, 4, 8, 16],
    "samples": 2000,
    "metrics": ["energy"],
}

Said = tuple[float, float, int, int]
"""Seconds after the run began, seconds left as it said, shards that were done, and all of them."""


def own_study(folder: Path) -> str:
    """The study on a file of points of two noisy rings."""
    rng = np.random.default_rng(1)
    angle, radius = rng.uniform(0, 2 * np.pi, POINTS), rng.choice([1.0, 2.0], POINTS)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1) + 0.05 * rng.standard_normal((POINTS, 2))
    np.save(folder / "rings.npy", points)
    spec = {**OF_POINTS, "datasets": [{"name": "from_file", "path": str(folder / "rings.npy")}]}
    (folder / "points.yaml").write_text(json.dumps(spec))
    return str(folder / "points.yaml")


@contextmanager
def heard(store: str, said: list[Said]) -> Iterator[None]:
    """What the run that has a store says meanwhile, as often as it says something else."""
    from tasks.results.live import told
    from tasks.store.lock import holder_of
    from tasks.store.storage import Place

    over = threading.Event()

    def listen() -> None:
        while not over.wait(1.0):
            holder = holder_of(Place(store))
            live = told(holder.token) if holder else None
            if live is None or live.seconds_left is None:
                continue
            if not said or live.shards_done > said[-1][2] or live.time > said[-1][0] + EVERY:
                said.append((live.time, live.seconds_left, live.shards_done, live.shards))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run(study: str, changes: tuple[str, ...], folder: Path) -> tuple[float, float, list[Said]]:
    """Seconds that are planned from the first task run on, seconds from the request to the last commit,
    and what was said.
    """
    from flows.request import RunRequest
    from flows.scale import Costs, predict
    from flows.start import start
    from tasks.plan import make_plan
    from tasks.store import Store
    from tasks.study import load_study

    prediction = predict(make_plan(load_study(study, changes), {}, ()), WORKERS, Costs(worker=0.11))
    assert prediction is not None
    said: list[Said] = []
    with prefect_server(), ray_cluster(None, WORKERS, {}):
        store = str(folder / "store")
        begun = time.time()
        with heard(store, said):
            start(RunRequest(study, store, changes, None, WORKERS, quiet=True, report=str(folder / "page.html")))
        history = [(str(one["message"]), str(one["time"])) for one in Store.open(store).history()]
    commits = [at for message, at in history if ": trained" in message or ": swept" in message]
    last = max(datetime.fromisoformat(at).timestamp() for at in commits) - begun
    return prediction.line.seconds, last, [(at - begun, left, done, of) for at, left, done, of in said]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description="The time left of a real run, held against the clock.")
    parser.add_argument("study", help="points, or the name or file of a study")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = own_study(folder) if asked.study == "points" else asked.study
        planned, took, said = run(study, tuple(asked.changes), folder)
    sys.stdout.write(f"planned: {clock(planned)}; from the request to the last commit: {clock(took)}\n")
    table = Table("after", "shards", "said", "was left", "too long by")
    for at, left, done, of in said:
        really = took - at
        off = f"{100 * (left / really - 1):.0f} %" if really > 1 else ""
        table.add_row(clock(at), f"{done}/{of}", clock(left), clock(really), off)
    Console(width=80).print(table)


if __name__ == "__main__":
    main()
