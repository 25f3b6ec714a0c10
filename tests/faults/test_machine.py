"""A store does what a dictionary would, through whatever happens to it: growth, failures, crashes,
tags, time travel, collection.

Hypothesis makes up the stories. After each step the whole newest snapshot and the list of snapshots
are those of the model.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tasks.results import Answers
from tasks.results.export import export
from tasks.store import (
    Coordinator,
    MetricFacts,
    Rows,
    Store,
    WrongReference,
    point_columns,
    read_metrics,
    read_places,
    read_points,
    read_samples,
    read_study,
    read_weights,
    study_names,
    trained_cells,
    writing,
)
from tasks.store.schema import POINTS

METRICS = ("w1", "ks", "torus-distance", "sliced-w2(projections=64)")
STUDIES = ("one", "another study: ü/..")
NUMBERS = ("train_seconds", "sample_seconds")
TEXTS = (*POINTS.labels, "spec")

_TICK = timedelta(microseconds=1)

value = st.floats(allow_nan=False)
story = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


class _PowerCut(Exception):
    """What ends a write half-way."""


@contextlib.contextmanager
def ends_at(passage: int) -> Iterator[None]:
    """Raise at the n-th place that a transaction passes, or at its end if there are fewer."""
    left = [passage]

    def fail(place: str) -> None:
        left[0] -= 1
        if left[0] <= 0 or place == "commit.before":
            raise _PowerCut(place)

    with patch.object(writing, "failpoint", fail):
        yield


class State:
    """What a snapshot holds."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.samples: dict[str, np.ndarray] = {}
        self.weights: dict[str, bytes] = {}
        self.studies: dict[str, list[str]] = {}
        self.metrics: set[str] = set()
        self.facts: dict[str, MetricFacts] = {}

    def add(self, rows: Rows) -> State:
        """The next one."""
        after = copy.deepcopy(self)
        for row in rows.points:
            after.rows.setdefault(str(row["point_id"]), {}).update(row)
            after.metrics |= set(row) & {*METRICS, *(f"{m}_floor" for m in METRICS)}
        after.samples |= rows.samples
        after.weights |= rows.weights
        after.facts |= rows.metrics
        return after


class Machine(RuleBasedStateMachine):
    """The rules: each does one thing to the store and the same to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="diffatlas-machine-"))
        self.uri = str(self.folder / "store")
        self.tags: dict[str, str] = {}
        self.aside: set[str] = set()  # tagged, and collected from under the newest snapshot
        self.loose: set[str] = set()  # of these, untagged since: may still be listed where the newest one follows it
        self.used: set[str] = set()

    def teardown(self) -> None:
        try:
            for snapshot in self.history:
                self.check(snapshot)
            for tag in self.tags:
                self.check(tag)
        finally:
            shutil.rmtree(self.folder)

    # --- what is done

    @initialize()
    def create(self) -> None:
        self.store = Store.create(self.uri)
        created, root = (entry["snapshot"] for entry in self.store.history())
        self.history, self.root = [created], root  # newest first
        self.states = {created: State()}

    @property
    def now(self) -> State:
        return self.states[self.history[0]]

    @property
    def missing(self) -> list[str]:
        return [point for ids in self.now.studies.values() for point in ids if point not in self.now.rows]

    def committed(self, snapshot: str, state: State) -> None:
        assert snapshot not in self.states
        self.states[snapshot] = state
        self.history.insert(0, snapshot)

    def some(self, data: st.DataObject, points: list[str]) -> list[str]:
        return data.draw(st.lists(st.sampled_from(points), min_size=1, max_size=4, unique=True))

    def ask_for(self, coordinator: Coordinator, name: str, count: int) -> None:
        requested = self.now.studies.get(name, [])
        ids = [*requested, *(f"{name[:3]}-{len(requested) + i}" for i in range(count))]
        skipped = [answer(point, "skipped", error="refused") for point in ids[len(requested) :] if point.endswith("7")]
        facts = {metric: MetricFacts("samples", "lower", len(ids), {"name": metric}) for metric in METRICS[: count + 1]}
        rows = Rows(skipped, metrics=facts)
        state = self.now.add(rows)
        state.studies[name] = ids
        self.committed(coordinator.commit_study(name, {"points": len(ids)}, ids, rows, {"study": name}), state)

    @rule(name=st.sampled_from(STUDIES), count=st.integers(0, 5))
    def grow(self, name: str, count: int) -> None:
        """A study is asked for the first time, or with more points."""
        with self.store.coordinate() as coordinator:
            self.ask_for(coordinator, name, count)

    def shard(self, data: st.DataObject, points: list[str], status: str) -> Rows:
        metrics = data.draw(st.lists(st.sampled_from(METRICS), min_size=1, unique=True)) if status == "ok" else []
        rows = [
            answer(point, status, error=data.draw(story) if status == "failed" else "", **measured(data, metrics))
            for point in points
        ]
        kept = data.draw(st.lists(st.sampled_from(points), unique=True)) if status == "ok" else []
        samples = {
            point: np.array([[data.draw(st.floats(width=32))] for _ in range(3)], dtype=np.float32) for point in kept
        }
        cells = data.draw(st.dictionaries(st.sampled_from("abc"), st.binary(min_size=1, max_size=5), max_size=2))
        shapes = {point: {"samples": 3, "dim": 1} for point in samples}
        return Rows([row | shapes.get(row["point_id"], {}) for row in rows], weights=cells, samples=samples)

    @precondition(lambda self: self.missing)
    @rule(data=st.data(), status=st.sampled_from(["ok", "ok", "failed"]))
    def compute(self, data: st.DataObject, status: str) -> None:
        """A shard of missing points is answered, or fails."""
        rows = self.shard(data, self.some(data, self.missing), status)
        with self.store.coordinate() as coordinator:
            self.committed(coordinator.commit(rows, "a shard", {}), self.now.add(rows))

    @precondition(lambda self: any(row["status"] != "skipped" for row in self.now.rows.values()))
    @rule(data=st.data())
    def compute_again(self, data: st.DataObject) -> None:
        """Failed points are retried, or points of any kind measured by other metrics; several
        shards of one run.
        """
        with self.store.coordinate() as coordinator:
            for _ in range(data.draw(st.integers(1, 2))):
                rows = self.shard(
                    data, self.some(data, [p for p, r in self.now.rows.items() if r["status"] != "skipped"]), "ok"
                )
                self.committed(coordinator.commit(rows, "again", {}), self.now.add(rows))

    @rule(data=st.data(), passage=st.integers(1, 25), goes_on=st.booleans())
    def crash(self, data: st.DataObject, passage: int, goes_on: bool) -> None:
        """A write ends half-way; the coordinator is abandoned, or catches itself and commits
        something else.
        """
        rows = self.shard(data, self.some(data, [*self.missing, *self.now.rows, "new"]), "ok")
        studies = data.draw(st.booleans())
        with contextlib.suppress(_PowerCut), self.store.coordinate() as coordinator:
            with ends_at(passage), contextlib.suppress(_PowerCut) if goes_on else contextlib.nullcontext():
                if studies:
                    coordinator.commit_study("never", {}, ["x"], rows, {})
                else:
                    coordinator.commit(rows, "never", {})
            assert goes_on
            self.ask_for(coordinator, "one", 1)

    @rule()
    def reopen(self) -> None:
        self.store = Store.open(self.uri)

    @rule(data=st.data(), name=st.sampled_from(["march", "v1.0", "paper_2", "x-y"]))
    def tag(self, data: st.DataObject, name: str) -> None:
        snapshot = data.draw(st.sampled_from([None, *self.history]))
        if name in self.used:
            with pytest.raises(WrongReference, match=f"there is a tag {name!r}|the name {name!r} belonged"):
                self.store.tag(name, snapshot)
            return
        assert self.store.tag(name, snapshot) == (snapshot or self.history[0])
        self.tags[name] = snapshot or self.history[0]
        self.used.add(name)

    @precondition(lambda self: self.tags)
    @rule(data=st.data())
    def untag(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.tags)))
        self.store.untag(name)
        loose = (self.aside & {self.tags.pop(name)}) - set(self.tags.values())
        self.aside -= loose
        self.loose |= loose
        with pytest.raises(WrongReference):
            self.store.group(name)

    @precondition(lambda self: len(self.history) > 1)
    @rule(data=st.data(), dry_run=st.booleans())
    def collect(self, data: st.DataObject, dry_run: bool) -> None:
        """Everything before a time goes, but for what was the newest then and what is tagged."""
        newest = data.draw(st.integers(0, len(self.history) - 1))
        times = {info.id: info.time for info in self.store._repository.ancestry()}
        expired = self.history[newest + 1 :]
        removed = self.store.gc(times[self.history[newest]] + _TICK, dry_run, youngest=-2 * _TICK)
        assert removed.dry_run == dry_run
        assert set(removed.snapshots) - self.loose == set(expired) - set(self.tags.values())
        if not dry_run:
            self.aside |= set(expired) & set(self.tags.values())
            self.history = self.history[: newest + 1]

    # --- what is asked

    @rule(data=st.data())
    def travel(self, data: st.DataObject) -> None:
        """An older snapshot, by its id, the begin of it, or its tag."""
        reference = data.draw(st.sampled_from([*self.history, *self.tags, *sorted(self.aside)]))
        self.check(reference)
        begin = reference[:19] if reference in self.history else reference
        assert self.store.snapshot(begin) == self.tags.get(reference, reference)

    @precondition(lambda self: self.now.metrics)
    @rule(form=st.sampled_from(["zarr", "netcdf", "parquet"]))
    def export_and_read(self, form: str) -> None:
        path = export(Answers(self.store), form, self.folder / f"points.{form}", overwrite=True)
        if form == "parquet":
            found: Any = pd.read_parquet(path)
        else:
            with xr.open_dataset(path, engine={"zarr": "zarr", "netcdf": "h5netcdf"}[form]) as dataset:
                found = dataset.load()
        assert sorted(found["point_id"].values.tolist()) == sorted(self.now.rows)
        for i, point in enumerate(found["point_id"].values.tolist()):
            row = self.now.rows[point]
            assert found["status"].values[i] == row["status"]
            assert found["error"].values[i] == row["error"]
            for metric in self.now.metrics & set(METRICS):
                assert same(float(found[metric].values[i]), row.get(metric, np.nan))

    # --- what holds

    @invariant()
    def the_newest_snapshot_is_the_model(self) -> None:
        if hasattr(self, "history"):
            self.check(None)

    @invariant()
    def the_history_is_that_of_the_model(self) -> None:
        if not hasattr(self, "history"):
            return
        entries = self.store.history()
        listed = [entry["snapshot"] for entry in entries]
        apart = self.aside | self.loose
        assert [snapshot for snapshot in listed if snapshot not in apart] == [*self.history, self.root]
        tagged = {tag: entry["snapshot"] for entry in entries for tag in entry["tags"]}
        assert tagged.items() <= self.tags.items()
        assert {tag for tag, snapshot in self.tags.items() if snapshot not in self.aside} <= set(tagged)

    def check(self, as_of: str | None) -> None:
        """A snapshot holds what the model held then, every column of every row, in the order of the
        first commits.
        """
        state = self.states[self.tags.get(as_of, as_of) if as_of else self.history[0]]
        root = self.store.group(as_of)
        columns = read_points(root, point_columns(root))
        assert columns["point_id"].tolist() == list(state.rows)
        assert set(columns) >= state.metrics
        for name, values in columns.items():
            if name in ("sample_row", "trajectory_row"):
                continue
            absent = "" if name in TEXTS else np.nan if name in {*state.metrics, *NUMBERS} else -1
            expected = [row.get(name, absent) for row in state.rows.values()]
            assert all(map(same, values.tolist(), expected)), (name, values.tolist(), expected)
        places = read_places(root)
        for point in state.rows:
            found = read_samples(root, point, places)
            if point in state.samples:
                assert found is not None
                assert found.tobytes() == state.samples[point].tobytes()
            else:
                assert found is None
        assert trained_cells(root) == set(state.weights)
        assert all(read_weights(root, cell) == data for cell, data in state.weights.items())
        assert read_metrics(root) == state.facts
        assert study_names(root) == sorted(state.studies)
        for name, ids in state.studies.items():
            spec, stored = read_study(root, name)
            assert spec == {"points": len(ids)}
            assert stored.tolist() == ids


def answer(point: str, status: str, **more: Any) -> dict[str, Any]:
    """A row of the points."""
    spec = json.dumps({"of": point})
    found = {"point_id": point, "cell_id": f"cell of {point}", "dataset": "uniform", "sampler": "heun", "spec": spec}
    return found | {"steps": len(point), "seed": 0, "status": status} | more


def measured(data: st.DataObject, metrics: list[str]) -> dict[str, float]:
    """Values of some metrics and their floors."""
    return {name: data.draw(value) for metric in metrics for name in (metric, f"{metric}_floor")}


def same(found: Any, expected: Any) -> bool:
    """Equal to the last bit: NaN is NaN, and 0.0 is not -0.0."""
    if isinstance(expected, float):
        return np.float64(found).tobytes() == np.float64(expected).tobytes()
    return bool(found == expected)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    derandomize=True,  # what it draws is the same until the rules change; raise max_examples to search
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def old(tmp_path: Path) -> tuple[Store, list[str]]:
    """A store with four commits, and their snapshots."""
    store = Store.create(str(tmp_path / "store"))
    with store.coordinate() as coordinator:
        return store, [coordinator.commit(Rows([answer(str(i), "ok", w1=0.0)]), str(i), {}) for i in range(4)]


def test_a_tagged_snapshot_stays_in_the_history_when_those_around_it_are_collected(
    old: tuple[Store, list[str]],
) -> None:
    store, snapshots = old
    store.tag("kept", snapshots[1])
    store.gc(datetime.now(UTC), youngest=timedelta(0))
    assert [entry["snapshot"] for entry in store.history() if entry["tags"] == ["kept"]] == [snapshots[1]]


def test_a_dry_run_of_gc_names_the_snapshots_that_would_go_and_no_others(old: tuple[Store, list[str]]) -> None:
    store, snapshots = old
    then = next(info.time for info in store._repository.ancestry() if info.id == snapshots[2])
    found = store.gc(then, dry_run=True, youngest=timedelta(0))
    assert found.snapshots == store.gc(then, youngest=timedelta(0)).snapshots
