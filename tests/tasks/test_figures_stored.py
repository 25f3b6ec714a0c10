"""What figures show is what the store holds: samples, ways and models of it, asked once more by the
public face, beside laws that are worked out here.
"""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.quiver import Quiver
from PIL import Image

import diffatlas as da
from diffusion.models import ActionModel
from tasks.figures import FIGURES, STYLES, Movie
from tasks.figures.action import action_velocity
from tasks.figures.flow import fields
from tasks.figures.forward import forward as forward_figure
from tasks.figures.forward import process, wider_than_exact
from tasks.figures.quality import quality_by_cost
from tasks.figures.source import KeptTrajectory, Source
from tasks.figures.steps import sweep
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tests.tasks.chosen import answers_to
from tests.tasks.figure_store import figure_store, together
from tests.tasks.test_figures import check_layout, drawn, found

pytestmark = together

GUIDE = Path(__file__).parents[2] / "docs" / "figures.md"
Array = np.ndarray


@cache
def points(study: str) -> Any:
    return da.open_results(figure_store(), study=study)


def one_row(study: str, **labels: object) -> dict[str, str]:
    """The ids of the one row with these labels (of texts, how they begin), of its first seed."""
    rows = points(study)
    keep = rows["seed"].values == rows["seed"].values.min()
    for name, label in labels.items():
        own = rows[name].values
        keep &= [str(value).startswith(label) for value in own] if isinstance(label, str) else own == label
    cells = dict.fromkeys(rows["cell_id"].values[keep].tolist())
    assert len(cells) == 1, cells
    return {name: str(rows[name].values[keep][0]) for name in ("cell_id", "point_id")}


def model_of(study: str, **labels: object) -> da.Model:
    return da.open_model(figure_store(), one_row(study, **labels)["cell_id"])


def way_of(kept: KeptTrajectory) -> Array:
    """A stored way ``[level, sample, coordinate]`` by its point."""
    states = da.open_trajectory(figure_store(), kept.row.point_id)
    return np.asarray(states.transpose("level", "sample", "coordinate").values, dtype=float)


def samples_of(point_id: str) -> Array:
    return np.asarray(da.open_samples(figure_store(), point_id).values, dtype=float)


def density(values: Array, edges: Array) -> Array:
    """A histogram of all values, those outside the bins among them."""
    return np.asarray(np.histogram(values, edges)[0] / values.size / np.diff(edges))


def noised_uniform(edges: Array, alpha: float, sigma: float) -> Array:
    """The mean density of ``alpha U + sigma Z`` in bins, U from [0, 1]: with ``G(z) = z Phi(z) + phi(z)``,
    whose derivative is Phi, its distribution function is ``sigma/alpha (G(x/sigma) - G((x - alpha)/sigma))``.
    """
    if sigma == 0:
        return np.asarray(np.diff(np.clip(edges / alpha, 0, 1)) / np.diff(edges))

    def primitive(z: Array) -> Array:
        return np.asarray(z * scipy.stats.norm.cdf(z) + scipy.stats.norm.pdf(z))

    cdf = sigma / alpha * (primitive(edges / sigma) - primitive((edges - alpha) / sigma))
    return np.asarray(np.diff(cdf) / np.diff(edges))


# --- ways -----------------------------------------------------------------------------------------


def test_the_map_s_colours_are_the_stored_way_and_its_exact_law_and_lines_are_stored_paths() -> None:
    kept, marginals = found("density-map")
    states = way_of(kept)[marginals.levels, :, 0] / marginals.scales[:, None]
    np.testing.assert_allclose(marginals.values, states, rtol=1e-12)
    alphas, sigmas = (
        np.broadcast_to(kept.states[name].values, kept.states.sizes["level"])[marginals.levels]
        for name in ("alpha", "sigma")
    )
    for k in range(len(marginals.levels)):
        np.testing.assert_allclose(marginals.densities[k], density(states[k], marginals.edges))
        scale = marginals.scales[k]
        law = noised_uniform(marginals.edges * scale, float(alphas[k]), float(sigmas[k])) * scale
        np.testing.assert_allclose(marginals.exact[k], law, atol=1e-6 * law.max())
    np.testing.assert_allclose(way_of(kept)[-1], samples_of(kept.row.point_id)[: states.shape[1]], rtol=1e-6)

    made = drawn("density-map", "paper")
    assert isinstance(made, Figure)
    samples, exact = (ax for ax in made.axes if ax.get_title() in {"samples", "exact"})
    for ax, shown in ((samples, marginals.densities), (exact, marginals.exact)):
        np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), shown.T)
        paths = [np.asarray(line.get_xydata()) for line in ax.lines]
        assert len(paths) == 8
        for i, path in enumerate(paths):
            np.testing.assert_allclose(path, np.stack([marginals.levels, states[:, i]], axis=1))


def test_the_last_histogram_on_the_way_is_that_of_the_samples_and_dashed_is_the_law_there() -> None:
    way = found("reverse-histograms")
    states = way_of(way.kept)[..., 0]
    for one in way.at:
        np.testing.assert_allclose(one.density, density(states[one.level], one.edges))
        law = noised_uniform(one.edges, one.alpha, one.sigma)
        np.testing.assert_allclose(one.exact, law, atol=1e-6 * law.max())
    last = way.at[-1]
    assert (last.level, last.sigma) == (len(states) - 1, 0)
    samples = samples_of(way.kept.row.point_id)[: states.shape[1], 0]
    np.testing.assert_allclose(last.density, density(samples, last.edges))

    made = drawn("reverse-histograms", "paper")
    assert isinstance(made, Figure)
    panels = [ax for ax in made.axes if ax.get_visible()]
    assert len(panels) == len(way.at)
    for ax, one in zip(panels, way.at, strict=True):
        assert ax.get_title().startswith(f"level {one.level}, ")
        filled = next(patch for patch in ax.patches if isinstance(patch, StepPatch))
        np.testing.assert_array_equal(filled.get_data()[0], one.density)
        np.testing.assert_array_equal(np.asarray(ax.lines[0].get_ydata()), one.exact)


def test_frame_after_frame_the_histogram_is_that_of_the_stored_states_beside_the_law_of_four_atoms() -> None:
    kept, frames = found("forward-moving")
    states = way_of(kept)[..., 0]
    movie = drawn("forward-moving", "paper")
    assert isinstance(movie, Movie)
    assert movie.frames == len(frames.levels)
    (ax,) = movie.figure.axes
    middles = (frames.edges[1:] + frames.edges[:-1]) / 2
    alphas, sigmas = (np.broadcast_to(kept.states[name].values, len(states)) for name in ("alpha", "sigma"))
    for frame in (0, 1, 29, movie.frames - 1):
        movie.still(frame)
        level = int(frames.levels[frame])
        assert ax.get_title().startswith(f"after {level} of {len(states) - 1} moves")
        x = states[level] / frames.scales[frame]
        for patch in ax.patches:
            assert isinstance(patch, StepPatch)
            np.testing.assert_allclose(patch.get_data()[0], density(x, frames.edges))
        (exact,) = (line for line in ax.lines if line.get_label() == "exact $q_k$")
        np.testing.assert_allclose(np.asarray(exact.get_xdata()), middles)
        if level:
            ends = frames.edges * frames.scales[frame]
            atoms = float(alphas[level]) * np.array([-15.0, -5.0, 1.0, 10.0])
            cdf = scipy.stats.norm.cdf((ends[:, None] - atoms) / float(sigmas[level])).mean(axis=1)
            np.testing.assert_allclose(
                np.asarray(exact.get_ydata()), np.diff(cdf) / np.diff(frames.edges), rtol=1e-9, atol=1e-12
            )


def test_forward_ways_and_walks_are_the_stored_ones() -> None:
    shown = found("forward")
    np.testing.assert_array_equal(shown.states, way_of(shown.kept)[..., 0])
    kept, marginals = found("mixture-paths")
    stored = way_of(kept)[marginals.levels, :, 0] / marginals.scales[:, None]
    np.testing.assert_allclose(marginals.values, stored, rtol=1e-12)
    walks = found("ascent-and-langevin")
    for walk, rule in ((walks.ascent, "gradient-ascent"), (walks.langevin, "langevin")):
        assert walk.kept.row.requested.sampler.name == rule
        np.testing.assert_array_equal(walk.states, way_of(walk.kept)[..., 0])


def test_columns_are_the_stored_samples_of_their_step_count() -> None:
    shown = found("steps")
    assert len(shown.columns) == 2
    for kept, columns in shown.columns:
        for steps, column in zip(columns.steps, columns.densities, strict=True):
            row = one_row(
                "slides-design-space", formulation=kept.series.formulation, sampler=kept.panel.sampler, steps=steps
            )
            np.testing.assert_allclose(column, density(samples_of(row["point_id"])[:, 0], columns.edges))


def test_the_cloud_is_stored_and_turns_once_at_an_even_pace() -> None:
    shown = found("torus")
    np.testing.assert_array_equal(shown.cloud.values, samples_of(shown.cloud.point.point_id))
    movie = drawn("torus", "dark")
    assert isinstance(movie, Movie)
    space: Any = movie.figure.axes[0]
    seen = []
    for frame in (0, 1, movie.frames // 2, movie.frames - 1):
        movie.show(frame)
        seen.append((space.azim % 360, space.elev))
    (first, high), (second, _), (middle, _), (last, _) = seen
    assert {elev for _, elev in seen} == {high}
    for frame in (0, 13, 30, 47):
        check_layout(movie.still(frame), "dark")
    pace = 360 / movie.frames
    assert (second - first) % 360 == pytest.approx(pace)
    assert (middle - first) % 360 == pytest.approx(180)
    assert (first - last) % 360 == pytest.approx(pace)  # the first frame follows the last
    np.testing.assert_allclose(space.collections[-1].get_array(), np.log10(np.maximum(inside(shown), 1e-6)))


def inside(shown: Any) -> Array:
    """The distances of those samples that are in the box."""
    (R, r), x = shown.radii, shown.cloud.values
    held = (np.abs(x) <= [1.05 * (R + r), 1.05 * (R + r), 2.2 * r]).all(axis=1)
    return np.asarray(np.abs(np.hypot(np.hypot(x[:, 0], x[:, 1]) - R, x[:, 2]) - r)[held])


# --- models ---------------------------------------------------------------------------------------


def eight_bells(points: Array, alpha: float, sigma: float) -> Array:
    """The density of the noised eight normal laws of radius 2 and deviation 0.1."""
    angles = np.arange(8) * np.pi / 4
    middles = 2 * alpha * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    covariance = ((0.1 * alpha) ** 2 + sigma**2) * np.eye(2)
    return np.asarray(
        np.mean([scipy.stats.multivariate_normal(middle, covariance).pdf(points) for middle in middles], axis=0)
    )


@pytest.mark.parametrize("name", ["score-fields", "noise-levels"])
def test_learned_scores_are_the_stored_model_s_and_the_ground_is_the_law(name: str) -> None:
    scores, model = found(name), model_of("notes-ncsn", formulation="ncsn")
    assert scores.series.formulation == "ncsn"
    for one in scores.at:
        clean = model.denoise(torch.from_numpy(one.points), one.sigma, alpha=one.alpha).detach().numpy()
        np.testing.assert_allclose(one.learned, (one.alpha * clean - one.points) / one.sigma**2, rtol=1e-9, atol=1e-9)
        assert np.abs(one.learned - one.exact).max() > 1e-3 * np.abs(one.exact).max()  # it was trained for a moment
        cells = len(one.density)
        along = (np.arange(cells) + 0.5) / cells * 2 * one.reach - one.reach
        x, y = np.meshgrid(along + one.middle[0], along + one.middle[1])
        law = eight_bells(np.stack([x.ravel(), y.ravel()], axis=1), one.alpha, one.sigma).reshape(cells, cells)
        np.testing.assert_allclose(one.density, law, rtol=1e-6, atol=1e-9)
        assert float(law.sum()) * (2 * one.reach / cells) ** 2 == pytest.approx(1, abs=0.04)  # of 2.4 deviations
        np.testing.assert_array_equal(one.low, eight_bells(one.points, one.alpha, one.sigma) < one.least)
    ratios = [one.sigma / one.alpha for one in scores.at]
    assert ratios == sorted(ratios, reverse=True)


@pytest.mark.parametrize("name", ["score-fields", "noise-levels"])
def test_arrows_are_those_of_the_score_that_the_panel_is_named_after(name: str) -> None:
    scores, made = found(name), drawn(name, "paper")
    assert isinstance(made, Figure)
    if name == "score-fields":
        (one,) = scores.at
        of_title = {"exact score": one.exact, "learned score": one.learned, "difference": one.learned - one.exact}
        named = [(ax, of_title[ax.get_title()], one) for ax in made.axes]
    else:
        above, below = made.axes[: len(scores.at)], made.axes[len(scores.at) :]
        assert above[0].get_ylabel().startswith("exact")
        assert below[0].get_ylabel().startswith("learned")
        named = [(ax, one.exact, one) for ax, one in zip(above, scores.at, strict=True)]
        named += [(ax, one.learned, one) for ax, one in zip(below, scores.at, strict=True)]
    assert len(named) == 3 * (1 if name == "score-fields" else 2)
    for ax, score, one in named:
        (arrows,) = (part for part in ax.collections if isinstance(part, Quiver))
        shown = np.stack([arrows.U, arrows.V], axis=1)
        np.testing.assert_allclose(np.asarray(arrows.XY), one.points)
        size, long = np.linalg.norm(score, axis=1), np.linalg.norm(shown, axis=1)
        along = (shown * score).sum(axis=1)
        np.testing.assert_allclose(along, size * long, rtol=1e-6, atol=1e-9)  # the same way
        order = np.argsort(size)
        assert (np.diff(long[order]) >= -1e-9).all()  # longer where it is larger
        np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), one.density)


def test_velocities_are_those_of_the_stored_models_and_curves_have_their_names() -> None:
    """Of an action by its gradient and the schedule's angle, of a score by ``f x - g^2/2 score``."""
    shown = found("action-velocity")
    stored = [
        None if flow.series.exact else model_of("talk-action-matching", formulation=flow.series.formulation)
        for flow in shown.flows
    ]
    assert [flow.series.formulation.partition("(")[0] for flow in shown.flows] == [
        "action-matching",
        "denoising",
        "exact",
    ]
    level_of = {round(float(level.sigma), 12): level for level in shown.flows[0].levels}
    law = da.dataset("gaussian_mixture")
    for one in shown.at:
        level = level_of[round(one.sigma, 12)]
        alpha, sigma, alpha_dot, sigma_dot = (
            float(v) for v in (level.alpha, level.sigma, level.alpha_dot, level.sigma_dot)
        )
        f = alpha_dot / alpha
        half_g2 = sigma * sigma_dot - f * sigma**2
        x = torch.from_numpy(one.x)[:, None]
        expected = []
        for model in stored:
            if model is None:
                at = (torch.tensor(v, dtype=torch.float64) for v in (alpha, sigma))
                expected.append(f * one.x - half_g2 * law.score(x, *at)[:, 0].numpy())
            elif isinstance(model.model, ActionModel):
                motion = model.model.action(x[None], level.alpha, level.sigma)
                std = float(motion.std)
                scale = math.hypot(alpha * std, sigma)
                scale_dot = (alpha * alpha_dot * std**2 + sigma * sigma_dot) / scale
                angle_dot = std * (sigma_dot * alpha - sigma * alpha_dot) / scale**2
                slope = motion.slope[0, :, 0].detach().double().numpy()  # dz / dtau, tau falls as the angle grows
                expected.append(scale_dot / scale * one.x - scale * angle_dot * slope)
            else:
                score = model.score(x, sigma, alpha=alpha)[:, 0].detach().numpy()
                expected.append(f * one.x - half_g2 * score)
        for own, wanted in zip(one.velocities, expected, strict=True):
            np.testing.assert_allclose(own, wanted, atol=1e-5 * np.abs(wanted).max())
        assert np.abs(expected[0] - expected[1]).max() > 1e-3  # two models, and not one twice

    made = action_velocity(shown, STYLES["paper"])
    assert isinstance(made, Figure)
    for ax, one in zip(made.axes, shown.at, strict=True):
        curves = {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}
        names = ["exact" if flow.series.exact else flow.series.label for flow in shown.flows]
        assert list(curves) == names
        for name, speed in zip(names, one.velocities, strict=True):
            np.testing.assert_array_equal(curves[name], speed)


def test_flows_are_those_of_the_stored_models_and_paths_follow_them() -> None:
    shown = found("flow-fields")
    for flow, field in shown.flows:
        model = model_of("slides-design-space", formulation=flow.series.formulation)
        k = len(flow.levels) // 2
        now, then = flow.levels[k], flow.levels[k + 1]
        alpha, sigma, alpha_dot, sigma_dot = (float(v) for v in (now.alpha, now.sigma, now.alpha_dot, now.sigma_dot))
        x = np.linspace(-1.0, 2.0, 7)
        clean = model.denoise(torch.from_numpy(x)[:, None], sigma, alpha=alpha).detach()[:, 0].numpy()
        velocity = alpha_dot * clean + sigma_dot * (x - alpha * clean) / sigma
        np.testing.assert_allclose(flow.velocity(k, x), velocity, atol=1e-6 * np.abs(velocity).max())
        # Heun's step: the mean of the velocities at both ends
        step = float(then.time - now.time)
        first = flow.velocity(k, flow.paths[k])
        second = flow.velocity(k + 1, flow.paths[k] + step * first)
        np.testing.assert_allclose(flow.paths[k + 1], flow.paths[k] + step * (first + second) / 2, atol=1e-5)
        assert len(field.x) == len(field.rise) > 100


# --- what few moves do ----------------------------------------------------------------------------


def kept_by(rule: str) -> KeptTrajectory:
    source = Source(ModelledAnswers(Store.open(figure_store()), "talk-forward"))
    return next(one for one in source.trajectories(1, forward=True) if one.row.requested.sampler.name == rule)


def test_samples_of_few_moves_are_as_much_wider_as_the_caption_says() -> None:
    """Euler and Maruyama's 40 moves along `vp-linear`; their deviation has a standard error of 2.2 %, and
    the caption's is at most three of these away (false alarms 3e-3, seed fixed).
    """
    kept = kept_by("forward-sde")
    ratio = wider_than_exact(kept)
    # at the end beta is 20: of dx = -beta/2 x dt + sqrt(beta) dw in steps h = beta dt / 2 the law is 2 / (2 - h)
    settled = math.sqrt(2 / (2 - 20 / 40 / 2))
    assert ratio == pytest.approx(settled, rel=0.02)
    states = way_of(kept)[..., 0]
    alpha, sigma = (float(np.broadcast_to(kept.states[name].values, len(states))[-1]) for name in ("alpha", "sigma"))
    exact = math.hypot(alpha * da.dataset("gaussian_mixture").std, sigma)
    assert states[-1].std() / exact == pytest.approx(ratio, rel=3 * math.sqrt(0.5 / states.shape[1]))

    title = drawn("mixture-paths", "paper")
    assert isinstance(title, Figure)
    assert f"40 moves of forward-sde make $\\sigma_k$ up to {ratio:.2f} times the exact one" in title.get_suptitle()
    shown = process(Source(ModelledAnswers(Store.open(figure_store()), "talk-forward")))
    made = forward_figure(shown, STYLES["slide"])
    assert isinstance(made, Figure)
    assert "40 moves of forward-sde" in made.get_suptitle()


def test_of_a_chain_nothing_is_said_for_it_is_exact() -> None:
    shown = found("forward")
    assert shown.wider == pytest.approx(1, abs=1e-9)
    made = drawn("forward", "paper")
    assert isinstance(made, Figure)
    assert made.get_suptitle() == ""


# --- what is left out -----------------------------------------------------------------------------

SCHEDULES = ("edm", "vp-linear", "ve-linear", "iddpm", "ddpm-linear", "flow", "vp-cosine", "ve-geometric")
TRAINED = ("edm", "vp", "ve", "ddpm", "iddpm", "flow", "v-prediction", "edm2")
SOLVERS = ("heun", "euler", "ddim", "ancestral", "dpmpp-2m", "euler-maruyama")


def drawn_of(name: str, many: int) -> tuple[Any, int]:
    """The numbers of a figure on a store that has `many` of what it compares; and how many are drawn."""
    drawn_by = np.random.default_rng(0).random((50, 1)).astype(np.float32)
    if name == "flow-fields":
        rows = [{"schedule": schedule, "steps": 4, "w1": 0.1} for schedule in SCHEDULES[:many]]
        flows = fields(Source(answers_to(rows)))
        return flows, len(flows.flows)
    if name == "steps":
        rows = [
            {"formulation": one, "steps": n, "w1": 0.1, "samples": drawn_by} for one in TRAINED[:many] for n in (1, 4)
        ]
        columns = sweep(Source(answers_to(rows)))
        return columns, len(columns.columns)
    rows = [{"formulation": "edm", "sampler": one, "steps": n, "w1": 1 / n} for one in SOLVERS[:many] for n in (1, 4)]
    curves = quality_by_cost(Source(answers_to(rows)))
    return curves, len(curves.panels)


@pytest.mark.parametrize(("name", "room"), [("flow-fields", 6), ("steps", 6), ("quality", 4)])
def test_what_has_no_room_is_named_and_what_has_is_drawn(name: str, room: int) -> None:
    for many in (5, room + 2) if room > 4 else (room, room + 2):
        shown, count = drawn_of(name, many)
        assert count == min(many, room)
        for style in STYLES:
            with STYLES[style].worn():
                made = FIGURES[name].draw(shown, STYLES[style])
                assert isinstance(made, Figure)
                check_layout(made, style)
            title = made.get_suptitle()
            assert sum(ax.get_visible() for ax in made.axes) == count
            assert ("not drawn: " in title) == (many > room)
            if many > room:
                others = {"flow-fields": "exact on vp-cosine, exact on ve-geometric", "steps": "v-prediction, edm2"}
                assert title.splitlines()[-1] == f"not drawn: {others.get(name, 'dpmpp-2m, euler-maruyama')}"


def test_the_guide_s_lines_of_a_figure_that_moves_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three frames in place of sixty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(figure_store())
    monkeypatch.setattr("tasks.figures.torus._FRAMES", 3)
    (block,) = re.findall(r"^```pycon\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = block.splitlines()
    assert all(line.startswith(">>> ") for line in lines)
    pages: list[str] = []
    exec("\n".join(line.removeprefix(">>> ") for line in lines), {"da": da, "HTML": pages.append})  # noqa: S102 - it is ours
    with Image.open(tmp_path / "torus.gif") as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
    assert (tmp_path / "torus.pdf").read_bytes().startswith(b"%PDF")
    (page,) = pages
    assert page.count("data:image/png;base64") == 3


def luminance(color: object) -> float:
    """Relative luminance by WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]  # type: ignore[arg-type]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("style", STYLES)
def test_no_colour_of_a_distance_is_lost_in_the_ground(style: str) -> None:
    """The contrast to the page is at least 1.9, as `cividis` whole would not have it: its ends have 1.2."""
    ground = luminance(STYLES[style].page)
    for color in STYLES[style].distance(np.linspace(0, 1, 33))[:, :3]:
        low, high = sorted([ground, luminance(tuple(color))])
        assert (high + 0.05) / (low + 0.05) > 1.9
