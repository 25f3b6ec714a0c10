"""Tables of the command line: what is sampled in one step stands below every table of its data set."""

from __future__ import annotations

import pandas as pd
import pytest
import xarray as xr
from rich.console import Console

from tasks.query.tables import tables
from tests.tasks.metric_kit import saying

ROWS = [
    *((f, "edm", "heun", n, seed, 0.1 * n + seed) for f in ("edm", "exact") for n in (1, 5) for seed in (0, 1)),
    *((f, "edm", "euler", n, seed, 0.2 * n + seed) for f in ("edm", "exact") for n in (1, 5) for seed in (0, 1)),
    *(("vae", "flow", "decode", 1, seed, 7.0 + seed) for seed in (0, 1)),
]


DISTINCT = {"vp-linear": 0.02, "ve-geometric": 1.5, "edm": 0.0205}


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


@pytest.mark.parametrize(
    ("schedules", "shared"), [(("vp-linear", "ve-geometric"), False), (("vp-linear", "edm"), True), (("edm",), True)]
)
def test_rows_that_follow_different_laws_have_a_floor_each(schedules: tuple[str, ...], shared: bool) -> None:
    rows = [("exact", schedule, "forward-chain", n, 0, 0.03) for schedule in schedules for n in (1, 5)]
    made = points(rows)
    made["w1_floor"] = ("point", [DISTINCT[row[1]] for row in rows])
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(*tables(made, "w1", 120))
    lines = captured.get().splitlines()
    title = next(line for line in lines if "forward-chain" in line)
    assert ("sampling floor 0.02" in title) == shared
    for schedule in schedules:
        (line,) = [line for line in lines if f"exact {schedule}" in line]
        assert (line.split("│")[-2].strip() == f"{DISTINCT[schedule]:g}") == (not shared)


def test_a_floor_that_changes_with_the_number_of_steps_is_told_from_least_to_most() -> None:
    made = points([("exact", "edm", "annealed-langevin", n, 0, 0.03) for n in (1, 5, 9)])
    made["w1_floor"] = ("point", [0.5, 0.3, 0.1])
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(*tables(made, "w1", 120))
    assert "0.1 to 0.5" in captured.get()


def test_a_metric_of_models_has_one_row_for_each_model_however_often_it_was_asked() -> None:
    rows = [
        (f, s, by, n, seed, 0.1)
        for f, s in (("vp", "vp-linear"), ("exact", "edm"))
        for by in ("heun", "ddim")
        for n in (1, 5)
        for seed in (0, 1)
    ]
    made = points(rows)
    values = {("vp", 0): 1.5, ("vp", 1): 1.7, ("exact", 0): 1.2, ("exact", 1): 1.2}
    made["nll"] = ("point", [values[row[0], row[4]] for row in rows])
    made["nll_floor"] = ("point", [1.1] * len(rows))
    made = saying(made, ["nll"])
    made["cell_id"] = ("point", [f"{row[0]} {row[4]}" for row in rows])
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(*tables(made, "nll", 120))
    table = [line.replace(" ", "").strip("│").split("│") for line in captured.get().splitlines() if "uniform" in line]
    assert table == [
        ["uniform", "vp", "vp-linear", "1.6±0.1", "1.1", "0.5±0.1"],
        ["uniform", "exact", "edm", "1.2±0", "1.1", "0.1±0"],
    ]
