"""Samples on the line: their distribution against the number of steps, and on the way between noise
and data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffusion.datasets import Dataset, datasets
from diffusion.schedules import schedules
from tasks.plain import Spec
from tasks.report import draw_report
from tasks.report.lookup.targets import Target
from tasks.report.numbers.by_steps import window
from tasks.report.numbers.curves import Panel, Series, tabulate
from tasks.report.numbers.kept import Kept, kept_samples
from tasks.report.pictures.distributions import against_steps
from tasks.report.pictures.quality import quality
from tasks.report.pictures.style import Picture
from tasks.results.models import ModelledAnswers
from tests.tasks.chosen import answers_to
from tests.tasks.page_reader import pictures_of, unpacked

# --- against the number of steps ------------------------------------------------------------------


def of_name(name: str) -> Target:
    dataset: Dataset = datasets.create(name)
    return Target(name, dataset)


def columns_of(picture: Picture) -> np.ndarray:
    columns: np.ndarray = np.nan_to_num(unpacked(picture.spec["data"][0]["z"]))
    return columns


def drawn_from(target: Target, n: int) -> np.ndarray:
    """n samples of a target on the line."""
    samples = target.sample(n)
    assert samples is not None
    return samples[:, 0]


@pytest.mark.parametrize("name", ["four_points", "uniform", "gaussian_mixture"])
def test_the_target_s_own_samples_look_like_its_column(name: str) -> None:
    target = of_name(name)
    kept = Kept(Panel("heun"), Series(0, "edm", "edm", "edm", 0, (0,)), 0, {10: drawn_from(target, 40_000)})
    picture = against_steps(kept, target, window([kept], target))
    assert picture.spec["data"][0]["x"] == ["10", "target"]
    drawn = columns_of(picture)
    assert np.abs(drawn[:, 0] - drawn[:, 1]).sum() < 0.1 * drawn[:, 1].sum()


@pytest.mark.parametrize(
    ("sampler", "nsr"),
    [
        ("forward-chain", None),
        ({"name": "langevin", "nsr": 2.0}, 2.0),
        ("ddim", 0.0),
        ("tests.tasks.own_parts:First", 0.0),
    ],
)
def test_samples_stand_beside_the_law_that_they_should_follow(
    sampler: str | Spec, nsr: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", "tests.tasks.own_parts")
    top = schedules.create("edm").terminal_nsr if nsr is None else nsr
    drawn = drawn_from(of_name("uniform"), 4000) + top * np.random.default_rng(0).normal(size=4000)
    answers = answers_to([{"sampler": sampler, "w1": 0.1, "samples": drawn[:, None].astype(np.float32)}])
    table = tabulate(answers)
    target = table.targets["uniform"]
    ((kept,), left_out) = kept_samples(answers, table, "uniform", 1, table.panels["uniform"][0], target)
    assert not left_out
    assert (kept.target is None) == (top == 0)
    columns = columns_of(against_steps(kept, target, window([kept], kept.target or target)))
    assert np.abs(columns[:, 0] - columns[:, 1]).sum() < 0.2 * columns[:, 1].sum()


def test_samples_of_a_law_that_is_not_drawn_are_left_out_and_the_page_says_so() -> None:
    kept = np.zeros((10, 2), np.float32)
    answers = answers_to([{"dataset": "moons", "sampler": "forward-chain", "sliced-w2": 0.1, "samples": kept}])
    assert "follow another law than the data and are not drawn" in draw_report(answers)


def test_a_target_on_the_line_need_not_be_scalar_by_its_class() -> None:
    mixture = of_name("gaussian_mixture")
    support = mixture.support()
    assert support is not None
    low, high = support
    assert -3 < low < -2 < 2 < high < 6
    edges = np.linspace(-6, 8, 200)
    for alpha, sigma in ((1.0, 0.0), (1.0, 0.5), (0.5, 2.0)):
        density = mixture.density(edges, alpha, sigma)
        assert density is not None
        assert (density * np.diff(edges)).sum() == pytest.approx(1, abs=0.02)


# --- the way between noise and data ---------------------------------------------------------------


def of_a_way(moves: int, n: int = 400, *, forward: bool, schedule: str = "vp-constant") -> list[dict[str, Any]]:
    """The points of a kept trajectory of four atoms on a schedule, one way or the other."""
    law = schedules.create(schedule)
    times = np.linspace(0, law.t_max, moves + 1)
    alpha, sigma = (part(torch.from_numpy(times)).numpy() for part in (law.alpha, law.sigma))
    atoms = drawn_from(of_name("four_points"), n)
    noise = np.random.default_rng(1).standard_normal((moves + 1, n))
    states = (alpha[:, None] * atoms + sigma[:, None] * noise).astype(np.float32)
    order = slice(None) if forward else slice(None, None, -1)
    path = states[order, :, None], np.stack([times, alpha, sigma])[:, order]
    sampler = "forward-chain" if forward else "ddim"
    common = {"dataset": "four_points", "schedule": schedule, "sampler": sampler}
    rows = [{**common, "steps": steps, "w1": 0.1 / steps} for steps in (moves, 3)]
    return [{**rows[0], "trajectory": path}, rows[1]]


def a_way(moves: int, n: int = 400, *, forward: bool) -> ModelledAnswers:
    """The answers that such a trajectory, on a schedule that preserves variance, is kept with."""
    return answers_to(of_a_way(moves, n, forward=forward), samples=n)


def test_the_solved_equation_stands_over_the_histograms_of_the_way_to_noise_and_agrees_with_the_formula() -> None:
    html = draw_report(a_way(40, forward=True))
    (spec,) = pictures_of(html)["exact on vp-constant: histograms on the way"]
    lines: dict[str, dict[str, np.ndarray]] = {}
    for trace in spec["data"]:
        lines.setdefault(trace["line"].get("dash", "samples"), {})[trace["xaxis"]] = unpacked(trace["y"])
    assert len(lines["dot"]) == len(lines["dash"]) - 1  # the data themselves are where the equation starts from
    for place, solved in lines["dot"].items():
        formula = lines["dash"][place]
        assert np.abs(solved - formula).sum() < 0.02 * formula.sum()
    assert "Dotted: the Fokker-Planck equation, solved." in html
    assert "the data on the left" in html
    assert "Fokker-Planck" not in draw_report(a_way(40, forward=False))


def test_histograms_can_be_played_level_by_level() -> None:
    (spec,) = pictures_of(draw_report(a_way(80, forward=False)))["exact on vp-constant: histogram in motion"]
    frames = spec["frames"]
    assert frames[0]["name"] == "level 0, σ = 1.0"
    assert frames[-1]["name"] == "level 80, σ = 0"
    low, high = spec["layout"]["xaxis"]["range"]
    width = (high - low) / len(frames[0]["data"][0]["y"])
    for frame in frames:
        samples, exact = (np.array(trace["y"]) for trace in frame["data"])
        assert width * samples.sum() > 0.98
        assert width * exact.sum() == pytest.approx(1, abs=0.03)


def test_what_asks_no_model_is_drawn_against_steps() -> None:
    (picture,) = quality(tabulate(a_way(40, forward=True)), "four_points", "w1")
    assert picture.spec["layout"]["xaxis"]["title"]["text"] == "steps N (no network is asked)"
    (marks,) = [trace for trace in picture.spec["data"] if trace.get("mode") == "markers"]
    assert marks["x"] == [3, 40]


@pytest.mark.parametrize(
    ("sampler", "sigma", "lines"),
    [
        ({"name": "langevin", "nsr": 0.1}, [0.1] * 5, 6),
        ({"name": "langevin", "nsr": 0.1, "denoise": True}, [0.1] * 4 + [0.0], 6),
        ("ddim", [80.0, 10.0, 1.0, 0.1, 0.0], 0),
    ],
)
def test_moves_at_one_noise_level_are_drawn_with_the_paths_of_some_samples(
    sampler: str | Spec, sigma: list[float], lines: int
) -> None:
    """Langevin dynamics, with or without a last step to the data: lines over the map, which a way
    through the levels has not.
    """
    states = (0.5 + np.random.default_rng(0).standard_normal((5, 300, 1)).cumsum(0)).astype(np.float32)
    path = states, np.stack([sigma, np.ones(5), sigma])
    html = draw_report(answers_to([{"sampler": sampler, "steps": 4, "w1": 0.1, "trajectory": path}], samples=300))
    (picture,) = (found for title, found in pictures_of(html).items() if title.endswith("pₜ(x)"))
    paths = [unpacked(trace["y"]) for trace in picture[0]["data"] if trace.get("mode") == "lines"]
    assert len(paths) == lines
    for i, drawn in enumerate(paths):
        assert drawn == pytest.approx(states[:, i, 0], rel=1e-3)
    assert ("at one noise level" in html) is (lines > 0)
    assert ("noise on the left" in html) is (lines == 0)
