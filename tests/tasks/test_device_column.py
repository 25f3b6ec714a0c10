"""Points say on what their cells were computed; queries group by it, and a comparison tells when
its sides differ in it.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

import tasks.work.shard
from diffusion.devices import HOST
from tasks.compare import compare, table
from tasks.query import query
from tasks.results import open_results
from tasks.work.placing import Bucket, gpu_label, label
from tests.tasks import tiny_store

SPEC = tiny_store.SPEC | {"steps": [1], "samplers": ["euler"], "samples": 20, "keep": {}}
GPU = gpu_label("A GPU", [Bucket(8)])


def test_points_say_on_what_their_cell_was_computed_and_sides_that_differ_in_it_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = f"{tmp_path}/here", f"{tmp_path}/there"
    tiny_store.answer(here, SPEC)
    tiny_store.answer(there, SPEC | {"seeds": 1})
    monkeypatch.setattr(tasks.work.shard, "label", lambda *_: GPU)
    tiny_store.answer(there, SPEC)  # what is done stays as it was computed

    host = label(HOST)
    mixed = open_results(there)
    assert set(mixed["device"].values[mixed["seed"].values == 0].tolist()) == {host}
    (trained,) = set(mixed["device"].values[(mixed["seed"].values == 1) & (mixed["formulation"] == "edm")].tolist())
    assert trained == GPU
    counted = query(mixed, "formulation == 'edm'", ["device"], ["w1"], ["count"])
    assert dict(zip(counted["device"], counted["w1_count"], strict=True)) == {GPU: 1, host: 1}
    assert set(query(mixed, f"device == '{host}'")["device"]) == {host}

    told = io.StringIO()
    comparison = compare(open_results(here), mixed)
    assert [side["device"] for side in comparison.provenance] == [host, f"{GPU}; {host}"]
    Console(file=told, width=200).print(table(comparison, 200))
    assert f"device {host} -> {GPU}; {host}" in told.getvalue()
