"""Rows of a store that tests write, and a second process that holds one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from tasks.plain import Plain, Spec
from tasks.results import Answers
from tasks.store import Rows, Store

ROOT = Path(__file__).resolve().parents[2]

_HOLD = """
import sys
from tasks.store import Store
with Store.open(sys.argv[1]).coordinate():
    print("held", flush=True)
    sys.stdin.read()
"""


def point(i: int, **more: Plain) -> Spec:
    """A row of the points."""
    found: Spec = {
        "point_id": f"{i:020d}",
        "cell_id": "c" * (1 + i % 20),
        "status": "ok",
        "steps": i,
        "w1": float(i),
        "w1_floor": 0.5,
    }
    return found | more


def python(code: str, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A process of its own that runs `code` with the packages of this repository."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    command = [sys.executable, "-c", code, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def kept_samples(answers: Answers, point_id: str) -> xr.DataArray:
    """The samples of a point that has some."""
    found = answers.samples(point_id)
    assert found is not None
    return found


def kept_trajectory(answers: Answers, point_id: str) -> xr.DataArray:
    """The trajectory of a point that has one."""
    found = answers.trajectory(point_id)
    assert found is not None
    return found


@contextlib.contextmanager
def held_by_another_process(uri: str) -> Iterator[subprocess.Popen[str]]:
    """A process that coordinates the store until the context ends, unless it is killed before."""
    with python(_HOLD, uri) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n", process.stderr and process.stderr.read()
        try:
            yield process
        finally:
            if process.poll() is None:
                process.communicate()


def small_store(uri: str) -> tuple[Store, dict[str, np.ndarray]]:
    """A store with every kind of array and of file, in two commits, and its samples by point."""
    store = Store.create(uri)
    random = np.random.default_rng(0)
    points = [point(i, samples=300, steps=2, dim=1, dataset="uniform", spec=f'{{"steps": {i}}}') for i in range(4)]
    samples = {p["point_id"]: random.normal(size=(300, 1)).astype(np.float32) for p in points}
    path = (random.normal(size=(3, 4, 1)).astype(np.float32), np.arange(9.0).reshape(3, 3))
    cell = {"cell_id": "c", "spec": '{"seed": 0}', "status": "ok", "losses": [3.0, 2.0], "loss_steps": [1.0, 2.0]}
    first, second = dict(list(samples.items())[:2]), dict(list(samples.items())[2:])
    with store.coordinate() as coordinator:
        coordinator.commit_study("small", {"metrics": []}, list(samples), Rows(), {"study": "small"})
        coordinator.commit(
            Rows(points[:2], [cell], {"c": random.bytes(2000)}, first, {points[1]["point_id"]: path}), "first", {}
        )
        coordinator.commit(Rows(points[2:], samples=second), "second", {})
    return store, samples
