"""Published numbers on a study's page: those of the file, beside the answers that ask the same."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tasks.report import draw_report
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.published import beside_published, published
from tasks.results.models import ModelledAnswers
from tests.tasks.chosen import answers_to
from tests.tasks.page_reader import Page

FILE = Path(__file__).parents[2] / "docs" / "published" / "c2st.csv"
LINEAR = {"name": "gaussian_linear_uniform_posterior", "observation": 2}
MOONS = {"name": "two_moons_posterior", "observation": 3}


def learned(simulations: int) -> dict[str, Any]:
    return {"name": "observation-conditional", "simulations": simulations}


@pytest.fixture(scope="module")
def answers() -> ModelledAnswers:
    usual: dict[str, Any] = {"sampler": "heun", "steps": 3}
    return answers_to(
        [
            {**usual, "dataset": LINEAR, "formulation": learned(1000), "seed": 0, "c2st": 0.61, "c2st_floor": 0.5},
            {**usual, "dataset": LINEAR, "formulation": learned(1000), "seed": 1, "c2st": 0.63, "c2st_floor": 0.5},
            {**usual, "dataset": LINEAR, "formulation": learned(777), "c2st": 0.7, "c2st_floor": 0.5},
            {**usual, "dataset": LINEAR, "c2st": 0.502, "c2st_floor": 0.5},
            {**usual, "dataset": MOONS, "formulation": learned(10000), "c2st": 0.55, "c2st_floor": 0.5},
            {**usual, "dataset": "eight_gaussians", "formulation": "edm", "c2st": 0.9, "c2st_floor": 0.5},
        ]
    )


def test_each_answer_stands_beside_the_rows_of_its_task_observation_and_budget(answers: ModelledAnswers) -> None:
    found = beside_published(tabulate(answers))
    asked = [(one.task, one.observation, one.simulations, one.ours.values) for one in found]
    assert asked == [
        ("gaussian_linear_uniform", 2, None, (0.502,)),
        ("gaussian_linear_uniform", 2, 1000, (0.61, 0.63)),
        ("two_moons", 3, 10000, (0.55,)),
    ]
    with FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for one in found:
        expected = {
            row["algorithm"]: float(row["c2st"])
            for row in rows
            if (row["task"], int(row["observation"]), int(row["simulations"]))
            == (one.task, one.observation, one.simulations)
        }
        assert one.published == expected
        assert len(one.published) == (8 if one.simulations else 0)


def test_rows_of_the_corrected_task_take_the_place_of_the_papers() -> None:
    with FILE.open(newline="") as file:
        rows = {
            (row["task"], int(row["simulations"]), int(row["observation"]), row["algorithm"], row["run"]): float(
                row["c2st"]
            )
            for row in csv.DictReader(file)
        }
    for (task, simulations, observation), found in published().items():
        run = "corrected" if task == "gaussian_mixture" else "paper"
        for algorithm, value in found.items():
            assert value == rows[task, simulations, observation, algorithm, run]
    assert any(task == "gaussian_mixture" for task, *_ in published())


def test_the_page_has_the_table_with_its_source_and_other_pages_do_not(answers: ModelledAnswers) -> None:
    page = Page(draw_report(answers))
    assert "published" in page.ids
    known = published()["gaussian_linear_uniform", 1000, 2]
    line = f"gaussian_linear_uniform 2 1,000 heun, N = 3 0.620 ± 0.010 2 {known['NPE']:.3f} {known['SNPE']:.3f}"
    assert line in page.text
    assert "Lueckmann, Boelts, Greenberg, Goncalves and Macke" in page.text
    other = Page(draw_report(answers_to([{"w1": 0.1}])))
    assert "published" not in other.ids
