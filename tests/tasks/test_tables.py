"""Tables of the command line: what is sampled in one step stands below every table of its data set."""

from __future__ import annotations

import pandas as pd
import pytest
import xarray as xr
from rich.console import Console

from tasks.tables import tables

ROWS = [
    *((f, "edm", "heun", n, seed, 0.1 * n + seed) for f in ("edm", "exact") for n in (1, 5) for seed in (0, 1)),
    *((f, "edm", "euler", n, seed, 0.2 * n + seed) for f in ("edm", "exact") for n in (1, 5) for seed in (0, 1)),
    *(("vae", "flow", "decode", 1, seed, 7.0 + seed) for seed in (0, 1)),
]


def points(rows: list[tuple[str, str, str, int, int, float]]) -> xr.Dataset:
    frame = pd.DataFrame(rows, columns=["formulation", "schedule", "sampler", "steps", "seed", "w1"])
    frame = frame.assign(dataset="uniform", grid="edm", status="ok", w1_floor=0.01)
    return frame.rename_axis("point").to_xarray()


def drawn(rows: list[tuple[str, str, str, int, int, float]]) -> list[str]:
    console = Console(width=120, no_color=True)
    made = []
    for one in tables(points(rows), "w1", 120):
        with console.capture() as captured:
            console.print(one)
        made.append(captured.get())
    return made


def test_a_model_of_one_step_is_a_baseline_below_every_table_of_its_data_set() -> None:
    found = drawn(ROWS)
    assert [next(sampler for sampler in ("heun", "euler", "decode") if sampler in table) for table in found] == [
        "heun",
        "euler",
    ]
    assert all("in one step: vae by decode 7.5 ±0.5" in " ".join(table.split()) for table in found)


@pytest.mark.parametrize("kept", [["decode"], ["heun"]])
def test_alone_it_has_its_own_table_and_where_there_is_none_nothing_is_told(kept: list[str]) -> None:
    (found,) = drawn([row for row in ROWS if row[2] in kept])
    assert "in one step" not in found
    assert ("vae" in found) == (kept == ["decode"])
