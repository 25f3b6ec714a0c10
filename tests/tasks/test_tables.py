"""Tables of the command line: what is sampled in one step stands below every table of its data set."""

from __future__ import annotations

import pytest
import xarray as xr
from rich.console import Console

from tasks.plain import Spec
from tasks.query.tables import tables
from tests.tasks.chosen import answers_to

ROWS: list[Spec] = [
    *(
        {"formulation": f, "sampler": by, "steps": n, "seed": seed, "w1": share * n + seed, "w1_floor": 0.01}
        for by, share in (("heun", 0.1), ("euler", 0.2))
        for f in ("edm", "exact")
        for n in (1, 5)
        for seed in (0, 1)
    ),
    *(
        {"formulation": "vae", "sampler": "decode", "steps": 1, "seed": seed, "w1": 7.0 + seed, "w1_floor": 0.01}
        for seed in (0, 1)
    ),
]


DISTINCT = {"vp-linear": 0.02, "ve-geometric": 1.5, "edm": 0.0205}


def drawn(points: xr.Dataset, metric: str = "w1") -> list[str]:
    console = Console(width=120, no_color=True)
    made = []
    for one in tables(points, metric, 120):
        with console.capture() as captured:
            console.print(one)
        made.append(captured.get())
    return made


def test_a_model_of_one_step_is_a_baseline_below_every_table_of_its_data_set() -> None:
    found = drawn(answers_to(ROWS).points)
    assert [next(sampler for sampler in ("heun", "euler", "decode") if sampler in table) for table in found] == [
        "heun",
        "euler",
    ]
    assert all("in one step: vae by decode 7.5 ±0.5" in " ".join(table.split()) for table in found)


@pytest.mark.parametrize("kept", [["decode"], ["heun"]])
def test_alone_it_has_its_own_table_and_where_there_is_none_nothing_is_told(kept: list[str]) -> None:
    (found,) = drawn(answers_to([row for row in ROWS if row["sampler"] in kept]).points)
    assert "in one step" not in found
    assert ("vae" in found) == (kept == ["decode"])


@pytest.mark.parametrize(
    ("schedules", "shared"), [(("vp-linear", "ve-geometric"), False), (("vp-linear", "edm"), True), (("edm",), True)]
)
def test_rows_that_follow_different_laws_have_a_floor_each(schedules: tuple[str, ...], shared: bool) -> None:
    lines = "".join(
        drawn(
            answers_to(
                {
                    "schedule": schedule,
                    "sampler": "forward-chain",
                    "steps": n,
                    "w1": 0.03,
                    "w1_floor": DISTINCT[schedule],
                }
                for schedule in schedules
                for n in (1, 5)
            ).points
        )
    ).splitlines()
    title = next(line for line in lines if "forward-chain" in line)
    assert ("sampling floor 0.02" in title) == shared
    for schedule in schedules:
        (line,) = [line for line in lines if f"exact {schedule}" in line]
        assert (line.split("│")[-2].strip() == f"{DISTINCT[schedule]:g}") == (not shared)


def test_a_floor_that_changes_with_the_number_of_steps_is_told_from_least_to_most() -> None:
    rows = [
        {"sampler": "annealed-langevin", "steps": n, "w1": 0.03, "w1_floor": floor}
        for n, floor in ((1, 0.5), (5, 0.3), (9, 0.1))
    ]
    assert "0.1 to 0.5" in "".join(drawn(answers_to(rows).points))


def test_a_metric_of_models_has_one_row_for_each_model_however_often_it_was_asked() -> None:
    values = {("vp", 0): 1.5, ("vp", 1): 1.7, ("exact", 0): 1.2, ("exact", 1): 1.2}
    rows = [
        {"formulation": f, "sampler": by, "steps": n, "seed": seed, "w1": 0.1, "nll": value, "nll_floor": 1.1}
        for (f, seed), value in values.items()
        for by in ("heun", "ddim")
        for n in (1, 5)
    ]
    lines = "".join(drawn(answers_to(rows).points, "nll")).splitlines()
    table = [line.replace(" ", "").strip("│").split("│") for line in lines if "uniform" in line]
    assert table == [
        ["uniform", "vp", "vp-linear", "1.6±0.1", "1.1", "0.5±0.1"],
        ["uniform", "exact", "edm", "1.2±0", "1.1", "0.1±0"],
    ]
