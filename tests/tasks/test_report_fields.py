"""The field of the flow: what is drawn is what the denoisers say, and what cannot be asked is left
out.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from diffusion.datasets import Uniform
from diffusion.datasets.degradations import GaussianNoise
from diffusion.formulations import Exact, Formulation, InDI
from diffusion.models import ExactDenoiser
from diffusion.schedules import EDM, DDPMLinear, Flow, Schedule, VELinear, VPLinear
from tasks.models import Model
from tasks.plan import Cell
from tasks.report import draw_report
from tasks.report.numbers import flows
from tasks.report.numbers.curves import tabulate
from tasks.report.pictures import fields
from tasks.report.pictures.style import Picture
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tests.tasks.chosen import GivenAnswer, OfCell, answers_to, chosen
from tests.tasks.page_reader import Page, check_with_plotly, unpacked
from tests.tasks.tiny_store import answer

if TYPE_CHECKING:
    from pathlib import Path

SCHEDULES: list[Schedule] = [VPLinear(), VELinear(), EDM(), DDPMLinear()]


def exact(schedule: Schedule, formulation: Formulation | None = None) -> Model:
    return Model.of(Cell(Uniform(), formulation or Exact(schedule), schedule, 0, None), ExactDenoiser([Uniform()]))


def on(*schedules: str) -> ModelledAnswers:
    """The exact denoiser of U[0, 1] on each of these schedules."""
    return answers_to({"schedule": name, "w1": 0.1} for name in schedules)


def drawn(answers: ModelledAnswers) -> tuple[list[Picture], list[Picture], int]:
    table = tabulate(answers)
    return fields.fields(answers, table, table.targets[table.datasets[0]])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.registered_name)
def test_the_velocity_is_the_derivative_of_the_flow(schedule: Schedule) -> None:
    """f x - g^2/2 s with the exact score, at every level."""
    model = exact(schedule)
    levels, paths = flows.paths_of(model)
    requested = flows.FieldOfFlow(None, model, levels, paths)  # type: ignore[arg-type]
    x = np.linspace(-1.5, 2.5, 9)
    for i in (0, len(levels) // 2, len(levels) - 2):
        now = levels[i]
        score = Uniform().score(torch.from_numpy(x)[:, None], now.alpha, now.sigma)[:, 0].numpy()
        expected = float(now.drift) * x - 0.5 * float(now.diffusion_squared) * score
        np.testing.assert_allclose(requested.velocity(i, x), expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())


def test_the_field_has_the_figure_of_the_worked_example() -> None:
    """At x = .7, t = .3 on vp: -.291136248."""
    model, schedule = exact(VPLinear()), VPLinear()
    levels, paths = flows.paths_of(model)
    at = dataclasses.replace(
        levels[0],
        **{
            name: getattr(schedule, name)(torch.tensor([0.3], dtype=torch.float64))
            for name in ("alpha", "sigma", "alpha_dot", "sigma_dot")
        },
    )
    requested = flows.FieldOfFlow(None, model, [at], paths)  # type: ignore[arg-type]
    assert requested.velocity(0, np.array([0.7]))[0] == pytest.approx(-0.291136248, abs=1e-9)


def test_pictures_side_by_side_start_as_wide_as_their_noise_and_end_in_the_interval() -> None:
    """Row A28: standard deviations 1, 100, 80 and 1, on one scale."""
    answers = on(*(schedule.registered_name for schedule in SCHEDULES))
    trained, pictures, more = drawn(answers)
    assert (trained, more) == ([], 0)
    assert len(pictures) == 4
    ranges = {tuple(picture.spec["layout"]["yaxis"]["range"]) for picture in pictures}
    assert len(ranges) == 1
    for picture, std in zip(pictures, ("1.00", "100", "80.0", "1.00"), strict=True):
        assert f"starts with standard deviation {std}" in picture.caption
        heights = unpacked(picture.spec["data"][-1]["y"]).reshape(9, -1)[:, :-1]
        assert np.isfinite(heights).all()
        x = 0.5 + 0.5 * np.sinh(heights)
        assert (x[:, -1] > 0).all()
        assert (x[:, -1] < 1).all()
        check_with_plotly(picture.spec)


def test_arrows_of_the_uniform_law_are_antisymmetric_about_its_middle() -> None:
    """Row A22, on a schedule that keeps the mean in its place."""
    (picture,) = drawn(on("edm"))[1]
    (arrows,) = [trace for trace in picture.spec["data"] if trace.get("mode") == "lines+markers"]
    x, y = (unpacked(arrows[key]).reshape(-1, 19, 3)[..., :2] for key in ("x", "y"))
    rise = y[..., 1] - y[..., 0]
    np.testing.assert_allclose(rise, -rise[:, ::-1], atol=2e-6)
    assert np.abs(rise[:, 9]).max() < 1e-6  # none in the middle
    wide, high = x[1, 0, 0] - x[0, 0, 0], y[0, 1, 0] - y[0, 0, 0]
    length = np.hypot((x[..., 1] - x[..., 0]) / wide, rise / high)
    assert length.std() < 0.02 * length.mean()
    assert (np.diff(rise, axis=1) < 1e-6).all()  # the farther away, the more steeply home


def test_the_colours_are_the_exact_density_as_drawn() -> None:
    """A column's sum is one: density of the drawn x_t times the height of a bin."""
    (picture,) = drawn(on("edm"))[1]
    heat = picture.spec["data"][0]
    z = np.nan_to_num(unpacked(heat["z"])).reshape(90, -1)
    height = np.diff(picture.spec["layout"]["yaxis"]["range"])[0] / 90
    totals = z.sum(axis=0) * height
    assert totals[-1] == pytest.approx(1, abs=0.01)
    assert totals[0] == pytest.approx(math.erf(2.2 / math.sqrt(2)), abs=0.03)  # the picture ends at 2.2 deviations


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_denoiser_that_gives_no_numbers_is_left_out(value: float, tmp_path: Path) -> None:
    answer(str(tmp_path / "results"))
    trained = ModelledAnswers(Store.open(str(tmp_path / "results")), "tiny")

    def broken(cell: Cell) -> OfCell:
        if cell.training is None:
            return OfCell()
        weights = {name: torch.full_like(tensor, value) for name, tensor in load(trained.weights(cell.id)).items()}
        return OfCell(weights=save(weights))

    answers = chosen(trained.study, lambda _point: GivenAnswer({"w1": 0.1, "ks": 0.1}), broken)
    assert [len(found) for found in drawn(trained)[:2]] == [1, 1]
    assert [len(found) for found in drawn(answers)[:2]] == [0, 1]  # the exact one stays


def test_a_restoration_that_begins_with_an_observation_has_no_flow_from_noise() -> None:
    assert not flows.begins_with_noise(exact(Flow(), InDI()))
    assert flows.begins_with_noise(
        exact(Flow(), InDI(GaussianNoise(1.0, alone=True)))
    )  # the observation is the start noise
    assert flows.begins_with_noise(exact(Flow()))


def test_without_stored_denoisers_there_is_no_such_section() -> None:
    answers = answers_to([{"formulation": "edm", "w1": 0.1}])  # its weights are not stored
    assert drawn(answers) == ([], [], 0)
    assert "The flow from noise to data" not in Page(draw_report(answers)).text


def test_the_page_of_a_store_has_the_trained_field_and_the_exact_one_folded_away(tmp_path: Path) -> None:
    answer(str(tmp_path / "results"))
    answers = ModelledAnswers(Store.open(str(tmp_path / "results")), "tiny")
    trained, ideal, more = drawn(answers)
    assert (len(trained), len(ideal), more) == (1, 1, 0)
    page = Page(draw_report(answers))
    assert "The flow from noise to data" in page.text
    for spec in page.specs:
        check_with_plotly(spec)


def test_the_number_of_pictures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "MOST", 2)
    _, pictures, more = drawn(on(*(schedule.registered_name for schedule in SCHEDULES)))
    assert (len(pictures), more) == (2, 2)
