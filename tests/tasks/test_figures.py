"""Every figure in every style, from one small store of real answers: what it shows is so, nothing
overlaps, and the same answers give the same file.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from mpl_toolkits.mplot3d import Axes3D
from PIL import Image

import diffatlas as da
from diffusion.errors import Unavailable, WrongValue
from diffusion.registry import UnknownName
from tasks.figures import FIGURES, STYLES, FigureLacksData, Movie, figure, figure_named, files, save
from tasks.figures.action import action_velocity
from tasks.figures.make import FoundNumbers, look_up, picture
from tasks.figures.scores import score_error, score_field
from tasks.figures.source import Source
from tasks.figures.steps import against_steps, sweep
from tasks.report.lookup.targets import Target
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tasks.study.document import shipped_name
from tests.tasks.chosen import answers_to
from tests.tasks.figure_store import figure_store, together
from tests.tasks.tiny_store import SPEC, answer

pytestmark = together
ROOT = Path(__file__).parents[2]


@cache
def looked_up(name: str) -> FoundNumbers:
    return look_up(FIGURES[name], None, figure_store())


def found(name: str) -> Any:
    """The numbers of a figure."""
    return looked_up(name).numbers


def drawn(name: str, style: str) -> Figure | Movie:
    return picture(FIGURES[name], looked_up(name), STYLES[style])


# --- every figure, every style --------------------------------------------------------------------


def texts(shown: Figure) -> Iterator[Text]:
    """Every text that is drawn: titles, names of axes, ticks, legends."""
    legends = [*shown.legends, *(ax.get_legend() for ax in shown.axes)]
    yield from (text for legend in legends if legend is not None for text in legend.get_texts())
    yield from shown.texts
    for ax in shown.axes:
        if not ax.get_visible():
            continue
        yield ax.title
        yield from ax.texts
        if isinstance(ax, Axes3D):  # its texts have their places from when it was drawn
            for way in (ax.xaxis, ax.yaxis, ax.zaxis):
                yield way.label
                yield from (tick.label1 for tick in way.majorTicks)
            continue
        if not ax.axison:
            continue
        for axis in (ax.xaxis, ax.yaxis):
            yield axis.label
            yield from (tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible())  # type: ignore[union-attr]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_overlaps_and_nothing_is_cut_off(name: str, style: str) -> None:
    made = drawn(name, style)
    check_layout(made.still() if isinstance(made, Movie) else made, style)


def check_layout(shown: Figure, style: str) -> None:
    """No text of a figure lies on another one, or beyond its edge."""
    with STYLES[style].worn():
        shown.draw_without_rendering()  # as a file is written
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(shown) if text.get_text().strip()]
    assert len(boxes) > 2
    width, height = shown.bbox.size
    assert [
        text for text, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ] == []
    pairs = itertools.combinations(boxes, 2)
    touching = [
        (one, other)
        for (one, a), (other, b) in pairs
        if _overlap(a, b) > 0.02 * min(a.width * a.height, b.width * b.height)
    ]
    assert touching == []


def _overlap(a: Any, b: Any) -> float:
    wide = min(a.x1, b.x1) - max(a.x0, b.x0)
    high = min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(wide * high) if wide > 0 and high > 0 else 0.0


@pytest.mark.parametrize("name", FIGURES)
def test_whatever_moves_says_so_and_has_frames(name: str) -> None:
    assert isinstance(drawn(name, "paper"), Movie) == FIGURES[name].moves


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_names_a_shipped_study_and_what_it_shows(name: str) -> None:
    entry = FIGURES[name]
    assert shipped_name(entry.study)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
    assert not entry.shows.endswith(".")


def test_the_page_lists_every_figure_as_it_is() -> None:
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \| (.*) \| `(.*)` \|$", page, re.MULTILINE)
    moves = {True: " (moves)", False: ""}
    assert rows == [(one.name, one.shows + moves[one.moves], one.document, one.study) for one in FIGURES.values()]


# --- where its numbers are from -------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_of_the_study_that_computes_it_and_says_so(name: str) -> None:
    """Of a store that holds all of them; two of the studies are no part of this small one."""
    ways = {
        "density-map": "slides-design-space",
        "reverse-histograms": "slides-design-space",
        "score-error": "notes-ncsn",
    }
    study = ways.get(name, FIGURES[name].stored_as)
    assert looked_up(name).study == study
    of = f"study {study}, target {FIGURES[name].target(found(name))}"
    for style in STYLES:
        made = drawn(name, style)
        shown = made.figure if isinstance(made, Movie) else made
        assert shown.get_label() == f"{name}: {of}"
        assert [text.get_text() for text in shown.texts if text.get_rotation() == 90 and text.get_text() == of] == (
            [] if style == "paper" else [of]
        )


def test_a_long_name_of_a_target_ends_in_dots() -> None:
    style = STYLES["dark"]
    with style.worn():
        sheet = style.sheet(height=0.3)
        style.credit(sheet, f"study mine, target mixture({'0.123456789,' * 30})")
        (credit,) = sheet.texts
        box = credit.get_window_extent()
    assert credit.get_text().startswith("study mine, target mixture(0.123")
    assert credit.get_text().endswith("…")
    assert 0.9 * sheet.bbox.height < box.height < sheet.bbox.height
    assert box.x1 < sheet.bbox.width


@pytest.mark.parametrize("ending", ["svg", "pdf", "png"])
def test_files_keep_study_and_target(ending: str, tmp_path: Path) -> None:
    file = save(drawn("quality", "paper"), tmp_path / f"a.{ending}").read_bytes()
    assert b"quality: study slides-design-space, target uniform" in file


# --- what figures show is so ----------------------------------------------------------------------

CLAIMED: set[str] = set()
Check = TypeVar("Check", bound=Callable[..., None])


def claims(*names: str) -> Callable[[Check], Check]:
    """Marks a test of what figures claim: of their numbers, not of their looks."""
    CLAIMED.update(names)
    return lambda check: check


def test_every_figure_has_a_test_of_its_numbers() -> None:
    assert set(FIGURES) == CLAIMED


def mass(density: np.ndarray, edges: np.ndarray) -> float:
    return float((density * np.diff(edges)).sum())


@claims("forward")
def test_marginals_of_the_forward_process_have_mass_one_and_agree_with_the_samples() -> None:
    process = found("forward")
    for one in process.marginals:
        assert mass(one.density, one.edges) == pytest.approx(1, abs=0.01)
        assert mass(one.exact, one.edges) == pytest.approx(1, abs=0.02)
    last = process.marginals[-1]
    assert float((np.abs(last.density - last.exact) * np.diff(last.edges)).sum()) < 0.3
    assert process.mean[-1] == pytest.approx(float(process.states[-1].mean()), abs=4 * process.std[-1] / 1500**0.5)
    inside = np.abs(process.states - process.mean[:, None]) < 4 * process.std[:, None]
    assert inside.mean() > 0.999


@claims("forward-moving")
def test_every_frame_shows_a_law() -> None:
    _, frames = found("forward-moving")
    for density, exact in zip(frames.densities, frames.exact, strict=True):
        assert mass(density, frames.edges) == pytest.approx(1, abs=0.02)
        assert mass(exact, frames.edges) == pytest.approx(1, abs=0.02)
    assert list(frames.levels[[0, -1]]) == [0, 60]


@claims("mixture-paths")
def test_a_mixture_becomes_normal() -> None:
    kept, marginals = found("mixture-paths")
    assert kept.forward
    middle = (marginals.edges[1:] + marginals.edges[:-1]) / 2
    normal = np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
    width = np.diff(marginals.edges)
    assert float((np.abs(marginals.exact[-1] - normal) * width).sum()) < 0.05 < 0.5
    assert float((np.abs(marginals.exact[0] - normal) * width).sum()) > 0.5


@claims("reverse-histograms")
def test_histograms_on_the_way_begin_as_noise() -> None:
    way = found("reverse-histograms")
    assert way.at[0].sigma > way.at[-1].sigma == 0
    first = way.at[0]
    assert float((np.abs(first.density - first.exact) * np.diff(first.edges)).sum()) < 0.5
    assert all(mass(one.density, one.edges) == pytest.approx(1, abs=0.02) for one in way.at)


@claims("density-map")
def test_the_map_has_a_law_at_each_level() -> None:
    _, marginals = found("density-map")
    for density in (*marginals.densities, *marginals.exact):
        assert mass(density, marginals.edges) == pytest.approx(1, abs=0.03)


@claims("flow-fields")
def test_the_field_of_the_exact_flow_is_the_velocity_of_its_law() -> None:
    """dx/dt = alpha' E[x_0 | x] + sigma' E[eps | x], asked of the target itself; arrows point along it."""
    flows = found("flow-fields")
    flow, field = flows.flows[0]
    exact = replace(flow, model=da.exact(flows.target.distribution, flow.model.cell.schedule))
    level, x = flow.levels[7], np.linspace(-1.0, 2.0, 13)
    alpha, sigma, alpha_dot, sigma_dot = (
        float(v) for v in (level.alpha, level.sigma, level.alpha_dot, level.sigma_dot)
    )
    one = torch.ones((), dtype=torch.float64)
    clean = flows.target.distribution.denoise(torch.from_numpy(x)[:, None], alpha * one, sigma * one)[:, 0].numpy()
    velocity = alpha_dot * clean + sigma_dot * (x - alpha * clean) / sigma
    np.testing.assert_allclose(exact.velocity(7, x), velocity, rtol=1e-12)
    there = field.x == flow.levels.index(level) // 3 * 3
    assert there.any()
    along = flow.velocity(int(field.x[there][0]), flows.scale.value(field.y[there]))
    step = float(flow.levels[int(field.x[there][0]) + 1].time - flow.levels[int(field.x[there][0])].time)
    np.testing.assert_array_equal(np.sign(field.rise[there]), np.sign(along * step))


@claims("steps")
def test_columns_hold_all_samples_that_they_do_not_count_as_outside() -> None:
    sweep = found("steps")
    for kept, columns in sweep.columns:
        assert columns.steps == sorted(kept.values)
        for density, outside in zip(columns.densities, columns.outside, strict=True):
            assert mass(density, columns.edges) + outside == pytest.approx(1)
        assert mass(columns.target, columns.edges) == pytest.approx(1)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("uniform", "dashed: ends of the target"),
        ("gaussian_mixture", "dashed: 0.5 % and 99.5 % quantiles of the target"),
    ],
)
def test_dashed_lines_are_called_what_they_are(dataset: str, words: str) -> None:
    drawn_of = np.random.default_rng(0).random((100, 1)).astype(np.float32)
    told = [{"dataset": dataset, "formulation": "edm", "steps": n, "w1": 0.1, "samples": drawn_of} for n in (1, 4)]
    shown = against_steps(sweep(Source(answers_to(told))), STYLES["paper"])
    assert isinstance(shown, Figure)
    assert shown.get_suptitle() == f"samples of heun; {words}"


@claims("torus")
def test_distances_to_the_torus_are_those_of_its_metric() -> None:
    shown = found("torus")
    R, r = shown.radii
    x, y, z = shown.cloud.values.T
    np.testing.assert_allclose(shown.distance, np.abs(np.hypot(np.hypot(x, y) - R, z) - r))
    assert shown.exact_moment == pytest.approx(R**2 + 1.5 * r**2)


@claims("ascent-and-langevin")
def test_langevin_dynamics_is_nearer_to_the_law_than_gradient_ascent() -> None:
    walks = found("ascent-and-langevin")
    assert walks.langevin.apart < 0.5 * walks.ascent.apart
    assert 0 <= walks.langevin.apart <= walks.ascent.apart <= 2
    still = walks.ascent.states[-1]
    assert float(np.abs(still[still < 0] + 1.999975).max()) < 0.01  # the narrow mode, a root of the score


@claims("annealed-langevin")
def test_annealed_walks_come_down_through_the_levels() -> None:
    steps = found("annealed-langevin")
    assert steps.sigmas == sorted(steps.sigmas, reverse=True)
    for exact, reach in zip(steps.exact, steps.reach, strict=True):
        assert float(exact.sum() * (2 * reach / len(exact)) ** 2) == pytest.approx(1, abs=0.05)


@claims("score-fields", "noise-levels")
@pytest.mark.parametrize("name", ["score-fields", "noise-levels"])
def test_exact_scores_are_the_gradients_of_the_log_density(name: str) -> None:
    scores = found(name)
    law = scores.target.distribution
    for one in scores.at:
        a, s = (torch.tensor(v, dtype=torch.float64) for v in (one.alpha, one.sigma))
        points = torch.from_numpy(one.points)
        step = 1e-5
        for k in range(2):
            aside = torch.zeros(2, dtype=torch.float64)
            aside[k] = step
            slope = (law.log_density(points + aside, a, s) - law.log_density(points - aside, a, s)) / (2 * step)
            np.testing.assert_allclose(one.exact[:, k], slope.numpy(), rtol=1e-4, atol=1e-4)


def test_scores_are_compared_where_there_are_data_in_the_noise() -> None:
    """A schedule that begins with noise alone has a level without data."""
    model = da.exact("eight_gaussians", "flow")
    target = Target("eight_gaussians", model.cell.dataset)
    one = score_field(target, model, 1.2)
    assert one.alpha > 0
    assert one.sigma / one.alpha == pytest.approx(1.2 * model.cell.dataset.std, rel=0.2)
    np.testing.assert_allclose(one.learned, one.exact, rtol=1e-6, atol=1e-6)


def test_one_in_twenty_of_the_law_lies_where_the_density_is_called_low() -> None:
    (one,) = found("score-fields").at
    assert float(one.density[one.density < one.least].sum() / one.density.sum()) == pytest.approx(0.05, abs=0.01)
    assert 0 < one.low.mean() < 1


def test_errors_of_scores_are_positive_and_by_ascending_noise() -> None:
    for levels in found("score-error").curves.values():
        ratios = [ratio for ratio, _ in levels]
        assert ratios == sorted(ratios)
        assert all(mean.geometric_mean > 0 for _, mean in levels)


@claims("score-error")
def test_errors_of_scores_are_those_of_the_model_at_fresh_draws() -> None:
    """sigma^2 E|s_theta - s|^2 / dim of 20,000 draws of ours; one standard error is at most 2 % here."""
    shown = found("score-error")
    answers = ModelledAnswers(Store.open(figure_store()), "notes-ncsn")
    row = next(row for row in Source(answers).table.points if row.formulation == "ncsn")
    model = answers.model(row.cell_id)
    assert model is not None
    law = shown.target.distribution
    draws = torch.Generator().manual_seed(5)
    clean = law.sample(20_000, draws)
    noise = torch.randn(clean.shape, generator=draws, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    (levels,) = shown.curves.values()
    for sigma, mean in levels:  # alpha is 1: the ratio is sigma itself
        x = clean + sigma * noise
        apart = model.score(x, sigma, alpha=1.0) - law.score(x, one, sigma * one)
        error = float(sigma**2 * (apart**2).mean())
        assert mean.geometric_mean == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize("style", STYLES)
def test_long_names_leave_room_for_the_curves(style: str) -> None:
    """Five ways of learning with their parameters: below the picture, not beside it."""
    shown = found("score-error")
    ((series, levels),) = shown.curves.items()
    name = "sliced-score-matching(projections=4,variance_reduced=True)"
    many = {replace(series, key=k, style=k, label=f"{name[: 40 + 5 * k]}"): levels for k in range(5)}
    with STYLES[style].worn():
        sheet = score_error(replace(shown, curves=many), STYLES[style])
        assert isinstance(sheet, Figure)
        sheet.draw_without_rendering()
        box, legend = sheet.axes[0].get_window_extent(), sheet.legends[0].get_window_extent()
    assert box.width > 0.8 * sheet.bbox.width
    assert box.height > 0.4 * sheet.bbox.height
    assert legend.y1 <= box.y0
    assert 0 <= legend.x0 < legend.x1 <= sheet.bbox.width


@claims("annealed-langevin")
def test_annealed_walks_are_drawn_as_they_are_stored() -> None:
    shown = found("annealed-langevin")
    stored = shown.kept.states
    for sigma, samples in zip(shown.sigmas, shown.samples, strict=True):
        level = int(np.abs(stored["sigma"].values - sigma).argmin())
        np.testing.assert_array_equal(samples, stored.transpose("level", "sample", "coordinate").values[level])


@claims("autoencoder-and-diffusion")
def test_sheets_hold_the_stored_images_and_those_of_the_data() -> None:
    shown = found("autoencoder-and-diffusion")
    answers = ModelledAnswers(Store.open(figure_store()), "digits")
    (_, data), *models = shown.shown()
    known = np.asarray(da.dataset("digits").sample(1797, torch.Generator().manual_seed(0)))
    apart = np.abs(data[:5, None] - known[None]).reshape(5, len(known), -1).max(axis=2)
    assert float(apart.min(axis=1).max()) < 1e-6  # each is one of the data
    for (_, values), kept in zip(models, (shown.autoencoder, shown.diffusion), strict=True):
        (row,) = (
            row
            for row in Source(answers).table.points
            if row.formulation == kept.series.formulation and row.requested.guidance is None
        )
        stored = answers.samples(row.point_id)
        assert stored is not None
        np.testing.assert_array_equal(values, stored.values.reshape(values.shape))


def test_an_autoencoder_and_a_diffusion_model_stand_beside_the_data() -> None:
    names = [name for name, _ in found("autoencoder-and-diffusion").shown()]
    assert len(names) == 3
    assert names[0] == "data"
    assert names[1].startswith("vae")
    assert names[2].startswith("edm")


@claims("inpainting")
def test_completions_end_with_what_is_known_and_differ_elsewhere() -> None:
    shown = found("inpainting")
    last = shown.states[-1]
    np.testing.assert_allclose(
        last[:, shown.known], np.broadcast_to(shown.given[shown.known], last[:, shown.known].shape), atol=1e-3
    )
    assert float(last[:, ~shown.known].std(axis=0).max()) > 0.01
    assert np.isnan(shown.given[~shown.known]).all()


@claims("action-velocity")
def test_velocities_of_one_path_are_compared_with_the_exact_one() -> None:
    shown = found("action-velocity")
    kinds = [flow.series.exact for flow in shown.flows]
    assert kinds.count(True) == 1
    exact = kinds.index(True)
    for level, one in enumerate(shown.at):
        assert shown.error(exact, level) == 0
        assert all(shown.error(k, level) > 0 for k in range(len(kinds)) if k != exact)
        assert (one.density >= 0).all()


def test_velocities_are_drawn_where_the_density_is_not_known() -> None:
    shown = found("action-velocity")
    unknown = replace(shown, at=[replace(one, density=np.zeros_like(one.density)) for one in shown.at])
    made = action_velocity(unknown, STYLES["paper"])
    assert isinstance(made, Figure)
    for ax, one in zip(made.axes, shown.at, strict=True):
        assert ax.get_ylim()[1] == pytest.approx(1.25 * max(np.abs(v).max() for v in one.velocities))


@claims("quality")
def test_curves_of_quality_are_means_over_the_stored_seeds() -> None:
    shown = found("quality")
    points = da.open_results(figure_store(), study="slides-design-space")
    panel, curves = shown.panels[0]
    curve = curves[0]
    at = curve.at[-1]
    rows = (
        (points["sampler"] == panel.sampler)
        & (points["formulation"] == curve.series.formulation)
        & (points["steps"] == at.steps)
    )
    stored = points[shown.metric].values[rows.values & (points["dataset"] == shown.dataset).values]
    np.testing.assert_allclose(sorted(at.values), sorted(stored))
    assert any(one.series.exact for one in curves)
    assert shown.floors[panel]


# --- what is refused ------------------------------------------------------------------------------


def test_a_name_that_is_not_there_has_a_nearest_one() -> None:
    with pytest.raises(UnknownName, match="did you mean 'flow-fields'"):
        figure_named("flow-field")
    with pytest.raises(UnknownName, match=r"figure style 'papier'; did you mean 'paper'\? \(known: [\w, ]+\)$"):
        figure("forward", style="papier", store=figure_store())


def test_what_a_store_lacks_is_named_with_the_command_that_computes_it(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    answer(uri, {**SPEC, "samples": 20, "seeds": 1, "steps": [1], "keep": {}})
    entries = [entry for entry in FIGURES.values() if entry.name != "flow-fields"]
    for entry in entries:
        with pytest.raises(FigureLacksData) as refused:
            figure(entry.name, store=uri)
        text = str(refused.value)
        assert f"diffatlas run {entry.study} --store {uri}" in text
        assert "\n" not in text
    with pytest.raises(FigureLacksData, match=r"which study tiny of store .* has not"):
        figure("forward", store=uri, study="tiny")


@pytest.mark.parametrize(
    ("name", "path", "why"),
    [
        ("forward", "a.jpg", "found the ending 'jpg'; accepted: svg, pdf, png, gif, mp4"),
        ("forward", "a", "found the ending ''"),
        ("forward", "a.gif", "does not move; accepted: svg, pdf, png"),
    ],
)
def test_an_ending_that_cannot_be_is_refused(name: str, path: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(WrongValue, match=re.escape(why)):
        save(drawn(name, "paper"), tmp_path / path)


def test_mp4_without_ffmpeg_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(Unavailable, match=r"diffatlas\[video\]"):
        files.ending_of("a.mp4", moves=True)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "ending"), [("ascent-and-langevin", "svg"), ("flow-fields", "pdf")])
def test_the_same_answers_give_the_same_bytes(name: str, ending: str, tmp_path: Path) -> None:
    one, other = (save(drawn(name, "paper"), tmp_path / f"{k}.{ending}") for k in range(2))
    assert one.read_bytes() == other.read_bytes()


def short(frames: int) -> Movie:
    movie = drawn("forward-moving", "dark")
    assert isinstance(movie, Movie)
    return replace(movie, frames=frames)


def test_a_movie_is_written_frame_by_frame(tmp_path: Path) -> None:
    with Image.open(short(3).save(tmp_path / "deep" / "a.gif")) as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
    from imageio_ffmpeg import get_ffmpeg_exe

    film_of = short(3).save(tmp_path / "a.mp4")
    played = subprocess.run(
        [get_ffmpeg_exe(), "-i", film_of, "-f", "null", "-"], capture_output=True, text=True, check=True
    )
    assert re.search(r"frame=\s*3 ", played.stderr)


def test_a_still_of_a_movie_is_the_frame_that_is_asked_for(tmp_path: Path) -> None:
    movie = short(60)
    movie.save(tmp_path / "last.png")
    assert movie.figure.axes[0].get_title().startswith("after 60 of 60 moves")
    movie.save(tmp_path / "first.png", frame=0)
    assert movie.figure.axes[0].get_title().startswith("after 0 of 60 moves")
    with pytest.raises(WrongValue, match="accepted: 0 to 59"):
        movie.still(60)


# --- styles ---------------------------------------------------------------------------------------


def test_colours_are_those_of_the_page() -> None:
    css = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tasks/report/page").glob("*.css")))
    for style in STYLES.values():
        for color in (style.page, style.ink, style.muted, style.accent, *style.series, *style.ramp):
            assert color in css, (style.name, color)


# Machado, Oliveira & Fernandes, A physiologically-based model for simulation of color vision deficiency, 2009, severity 1
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def lab(color: str, seen: list[list[float]] | None) -> np.ndarray:
    """CIELAB of an sRGB colour as somebody sees it."""
    srgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    if seen is not None:
        linear = np.clip(np.array(seen) @ linear, 0, 1)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = to_xyz @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen", [None, *DEFICIENCIES])
@pytest.mark.parametrize("style", STYLES)
def test_the_first_colours_stay_apart_for_everybody(style: str, seen: str | None) -> None:
    matrix = None if seen is None else DEFICIENCIES[seen]
    colours = [lab(color, matrix) for color in (STYLES[style].page, *STYLES[style].series[:5])]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(colours, 2)) > 13


def test_a_figure_leaves_matplotlib_as_it_was() -> None:
    code = """
import json, sys
import matplotlib
before = dict(matplotlib.rcParams)
import diffatlas as da
da.figure("forward", store=sys.argv[1], style="dark")
assert dict(matplotlib.rcParams) == before
print(json.dumps(sorted({"plotly", "jinja2", "prefect", "ray", "sklearn"} & sys.modules.keys())))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, figure_store()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


# --- the command ----------------------------------------------------------------------------------

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)

    def give(*arguments: str) -> tuple[int, str, str]:
        from flows.command_line import app

        code = app(["figure", *arguments], standalone_mode=False)
        out, err = capsys.readouterr()
        return code or 0, out, err

    return give


def test_the_command_draws_lists_and_refuses(command: Command) -> None:
    store = ["--store", figure_store()]
    assert command("mixture-paths", *store, "--style", "slide") == (0, "figure: figures/mixture-paths.svg\n", "")
    assert Path("figures/mixture-paths.svg").read_text(encoding="utf-8").startswith("<?xml")
    code, out, err = command("forward-moving", *store, "--out", "still.png", "--frame", "3")
    assert (code, out) == (0, "figure: still.png\n")
    assert "still.png holds frame 3 of 60 frames" in err
    listed = command("--list")[1]
    assert [name for name in FIGURES if name not in listed] == []
    assert command("flow-field")[::2] == (2, command("flow-field")[2])
    assert "did you mean 'flow-fields'" in command("flow-field")[2]
    assert command()[0] == 2
    assert command("forward", *store, "--out", "a.gif")[0] == 2
    assert command("forward", *store, "--frame", "2")[0] == 2
    shutil.rmtree("figures")
