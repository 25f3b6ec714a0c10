"""How long a question to 100,000 stored points takes, beside the same question to a parquet file
and to a tracking server.

The question is one that people ask: mean and standard error of one metric over seeds, by
formulation, sampler and steps, of the points with few steps. Every pair is timed alternately on one
core, `paired`, from opening what is on the disk to the answer as a frame. What is kept of a snapshot
(`tasks.results.kept`) lies in a folder of the measure's own, or is switched off.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.services.environment import temporary_environment
from tasks.query import query
from tasks.results import open_results
from tasks.results.kept import LIMIT
from tasks.store import Rows, Store
from tests.benchmarks.pairs import Ratio, paired

AXES: Mapping[str, list[Any]] = {
    "dataset": ["uniform", "moons", "torus", "gaussian_mixture", "checkerboard"],
    "formulation": ["vp", "ve", "iddpm", "edm", "exact"],
    "sampler": [*(f"ddim(eta={eta / 10})" for eta in range(8)), "heun", "euler"],
    "steps": list(range(1, 101, 5)),
    "seed": list(range(20)),
}
WHERE, BY, METRIC = "steps <= 20 and formulation != 've'", ("formulation", "sampler", "steps"), "w1"


def rows(number: int) -> Iterator[dict[str, Any]]:
    """Rows as a run files them, with numbers from a fixed stream; 100,000 are the whole cross of
    `AXES`.
    """
    draws = np.random.default_rng(0).lognormal(size=(number, 2))
    for i, values in enumerate(itertools.islice(itertools.product(*AXES.values()), number)):
        labels = dict(zip(AXES, values, strict=True))
        cell = repr([labels[name] for name in ("dataset", "formulation", "seed")])
        w1, ks = (float(draw) / labels["steps"] for draw in draws[i])
        yield {
            **labels,
            "cell_id": hashlib.sha256(cell.encode()).hexdigest()[:20],
            "point_id": hashlib.sha256(repr(values).encode()).hexdigest()[:20],
            "schedule": "edm" if labels["formulation"] == "exact" else labels["formulation"],
            "grid": "edm",
            "nfe": labels["steps"] * (1 + (labels["sampler"] == "heun")),
            "status": "ok",
            "error": "",
            "spec": "{}",
            "start": "gaussian",
            "dim": 1,
            "samples": 10_000,
            "sample_row": -1,
            "trajectory_row": -1,
            "trajectory_samples": 0,
            "train_seconds": 10.0,
            "sample_seconds": 0.1,
            "w1": w1,
            "w1_floor": 0.003,
            "w1_limit": 0.003,
            "ks": ks,
            "ks_floor": 0.008,
            "ks_limit": 0.008,
        }


def make_store(uri: str, number: int, commit: int = 5000) -> str:
    """A store of that many points, written as a run writes them, `commit` at a time; its address."""
    store = Store.create(uri)
    with store.coordinate() as coordinator:
        left = rows(number)
        while some := list(itertools.islice(left, commit)):
            coordinator.commit(Rows(points=some), f"{len(some)} points", {"study": "benchmark"})
    return uri


def ours(uri: str) -> pd.DataFrame:
    """The answer out of a store."""
    return query(open_results(uri), WHERE, BY, [METRIC], ["mean", "sem", "count"])


@contextmanager
def _kept_in(folder: str, megabytes: int) -> Iterator[None]:
    """Where tables of snapshots are kept for now, and how much of them."""
    with temporary_environment({"DIFFATLAS_HOME": folder, LIMIT: str(megabytes)}):
        yield


def against_duckdb(number: int = 100_000, megabytes: int = 1024) -> Ratio | None:
    """Our store over duckdb on a parquet file of the same points, in processor time; None if duckdb
    is not installed.

    Opened and asked anew each time, after a first question: of what is kept of the snapshot, unless
    `megabytes` is 0.
    """
    try:
        import duckdb
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder, _kept_in(folder, megabytes):
        uri = make_store(str(Path(folder) / "store"), number)
        file = Path(folder) / "points.parquet"
        pd.DataFrame(list(rows(number))).to_parquet(file, index=False)
        requested = (
            f"SELECT {', '.join(BY)}, avg({METRIC}) AS w1_mean, stddev_samp({METRIC}) / sqrt(count({METRIC})) AS w1_sem, "  # noqa: S608
            f"count({METRIC}) AS w1_count FROM '{file}' WHERE steps <= 20 AND formulation <> 've' AND status = 'ok' "
            f"GROUP BY {', '.join(BY)} ORDER BY {', '.join(BY)}"
        )

        def theirs() -> pd.DataFrame:
            with duckdb.connect() as connection:
                connection.execute("SET threads = 1")
                answer: pd.DataFrame = connection.execute(requested).df()
                return answer

        _same(ours(uri), theirs())
        return paired(lambda: ours(uri), theirs, 9, time.process_time)


def again(number: int = 100_000, rounds: int = 11) -> tuple[float, float]:
    """Milliseconds of the clock and of the processor in which a store is opened and asked, from the
    second question on: the medians.
    """
    taken = []
    with tempfile.TemporaryDirectory() as folder, _kept_in(folder, 1024):
        uri = make_store(str(Path(folder) / "store"), number)
        for _ in range(1 + rounds):
            clock, processor = time.perf_counter(), time.process_time()
            ours(uri)
            taken.append((1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - processor)))
    by_clock, by_processor = zip(*taken[1:], strict=True)
    return statistics.median(by_clock), statistics.median(by_processor)


def against_mlflow(number: int = 1000) -> Ratio | None:
    """Our store over MLflow's `search_runs` and pandas, with one run per point in SQLite; None if
    MLflow is not installed.

    Fewer points: to be given 100,000 runs, each a transaction of its own, takes MLflow more than an
    hour.
    """
    try:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder, _kept_in(folder, 1024):
        uri = make_store(str(Path(folder) / "store"), number)
        with _quiet(), _tracked(f"sqlite:///{folder}/runs.db") as address:
            client = MlflowClient(address)
            experiment = client.create_experiment("points")
            for row in rows(number):
                run = client.create_run(experiment)
                numbers = [Metric(name, row[name], 0, 0) for name in ("w1", "ks")]
                params = [Param(name, str(row[name])) for name in (*AXES, "schedule", "grid", "nfe", "status")]
                client.log_batch(run.info.run_id, numbers, params)
            import mlflow

            def theirs() -> pd.DataFrame:
                # parameters are texts there: an inequality of numbers has to wait for the frame
                frame = mlflow.search_runs(
                    [experiment], "params.formulation != 've' and params.status = 'ok'", max_results=50_000
                )
                frame = frame.rename(columns=lambda name: name.split(".", 1)[-1]).astype({"steps": int})
                groups = frame[frame["steps"] <= 20].groupby(list(BY))[METRIC]
                answer: pd.DataFrame = groups.agg(w1_mean="mean", w1_sem="sem", w1_count="count").reset_index()
                return answer

            _same(ours(uri), theirs())
            return paired(lambda: ours(uri), theirs, rounds=3)


@contextmanager
def _tracked(address: str) -> Iterator[str]:
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)
    try:
        yield address
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def _quiet() -> Iterator[None]:
    import logging
    import warnings

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        yield


def _same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Raises AssertionError unless both answers are the same: a comparison of speed needs that."""
    first, second = (frame.sort_values(list(BY), ignore_index=True) for frame in (first, second))
    pd.testing.assert_frame_equal(first, second, check_dtype=False, rtol=1e-9)


MEASURES: tuple[tuple[str, Callable[[], Ratio | None]], ...] = (
    ("filter and group mean of 100,000 points, a kept snapshot / duckdb on parquet (2)", against_duckdb),
    (
        "filter and group mean of 100,000 points, nothing kept / duckdb on parquet",
        lambda: against_duckdb(megabytes=0),
    ),
    ("filter and group mean of 1,000 points: our store / MLflow on SQLite", against_mlflow),
)
"""Lines for the table of `tests.benchmarks.run`; a measure gives None where the peer is not
installed.
"""


def main() -> None:
    """Measure and print."""
    clock, processor = again()
    print(f"100,000 points opened and asked again: {clock:.0f} ms, of the processor {processor:.0f} ms")  # noqa: T201
    for name, measure in MEASURES:
        ratio = measure()
        found = "not installed" if ratio is None else "{:.2f} (from {:.2f} to {:.2f})".format(*ratio)
        print(f"{name}: {found}")  # noqa: T201


if __name__ == "__main__":
    main()
