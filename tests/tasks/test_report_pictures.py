"""Where an error comes from, the error of the learned score, and samples in the plane: what is drawn is what is there."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
import xarray as xr

from diffusion.datasets import datasets
from diffusion.guidance import guidances
from diffusion.samplers import samplers
from diffusion.schedules import schedules
from tasks.report import draw_report
from tasks.report.lookup.labels import short_labels
from tasks.report.lookup.named import component_called, components_in
from tasks.report.lookup.targets import Target, target_of
from tasks.report.numbers.curves import Panel, Series, tabulate
from tasks.report.numbers.decomposition import metric_with_parts, origins, reading
from tasks.report.pictures import plane
from tasks.report.pictures.decomposition import picture as picture_of_parts
from tasks.report.pictures.distributions import against_steps, window
from tasks.report.pictures.kept import Kept, kept_samples
from tasks.report.pictures.quality import _Scale, quality
from tasks.report.pictures.score import score_errors
from tasks.report.pictures.style import one_byte
from tasks.report.text import counted, listing, some
from tests.tasks import report_fixture as fixture

MadeUp, dataset_of, realistic, study_of = (
    getattr(fixture, name) for name in ("MadeUp", "dataset_of", "realistic", "study_of")
)


def pictures_of(html: str) -> dict[str, list[dict]]:
    """The pictures' specifications by title."""
    found: dict[str, list[dict]] = {}
    for title, spec in re.findall(r'<h5>(.*?)</h5>.*?<script type="application/json">(.*?)</script>', html, re.DOTALL):
        found.setdefault(title, []).append(json.loads(spec))
    return found


def sections_of(html: str) -> list[str]:
    return re.findall(r"<h3>(.*?)</h3>", html)


# --- where the error comes from ---------------------------------------------------------------------------------------


def split_rows(*, formulation: str = "edm", steps, seeds: int = 3, noise: float = 0.0, floor: float = 0.01, **laws):
    """Rows whose parts are given by step count, with the same relative noise on every part of a seed."""
    rows = []
    for i, n in enumerate(steps):
        for seed in range(seeds):
            factor = 1 + noise * (seed - 1)
            own = {f"w1_{part}": law[i] * factor for part, law in laws.items()}
            total = math.fsum(own.values()) + floor
            where = {"formulation": formulation, "steps": n, "nfe": n, "seed": seed}
            rows.append({**where, "w1": total, "w1_floor": floor, "w1_limit": 0.0, **own})
    return rows


def origin_of(rows):
    table = tabulate(dataset_of(rows, ("w1",)), {})
    assert metric_with_parts(table, "uniform") == "w1"
    (origin,) = origins(table, "uniform", "w1")
    return origin


def test_shares_are_of_the_sum_of_magnitudes_and_keep_their_signs() -> None:
    rows = split_rows(steps=(1, 2), network=(0.3, -0.02), discretisation=(0.6, 0.06), prior=(0.09, 0.01))
    spec = picture_of_parts(origin_of(rows), "w1", "edm").spec
    bars = {trace["name"]: trace["y"] for trace in spec["data"] if trace["type"] == "bar"}
    assert bars == {
        "network": [0.3, -0.2],
        "discretisation": [0.6, 0.6],
        "prior": [0.09, 0.1],
        "sampling floor": [0.01, 0.1],
    }
    assert spec["layout"]["barmode"] == "relative"  # plotly's word for: negative ones hang below the line
    low, high = spec["layout"]["yaxis"]["range"]
    assert low < -0.2
    assert high > 1


def test_the_hover_gives_every_part_with_its_standard_error() -> None:
    rows = split_rows(steps=(2,), network=(0.3,), discretisation=(0.6,), prior=(0.09,), noise=0.1)
    spec = picture_of_parts(origin_of(rows), "w1", "edm").spec
    assert spec["layout"]["hovermode"] == "x unified"
    assert [trace["text"] for trace in spec["data"]] == [
        ["network 0.300 ± 0.017"],
        ["discretisation 0.600 ± 0.035"],
        ["prior 0.0900 ± 0.0052"],
        ["sampling floor 0.0100"],
        ["NFE = 2: w1 1.00 ± 0.057"],
    ]


@pytest.mark.parametrize(
    ("network", "start"),
    [
        ((0.1, 0.1, 0.1, 0.1), 5),  # discretisation is 0.4 / n
        ((0.1, 0.1, 0.0, 0.1), 8),
        ((0.9, 0.9, 0.9, 0.9), 1),
        ((0.0, 0.0, 0.0, 0.0), None),
        ((0.1, 0.1, 0.1, 0.0), None),
    ],
)
def test_the_network_dominates_from_the_step_count_after_which_it_never_stops(
    network: tuple[float, ...], start: int | None
) -> None:
    steps = (1, 2, 5, 8)
    laws = {"network": network, "discretisation": tuple(0.4 / n for n in steps), "prior": (0.0,) * 4}
    assert origin_of(split_rows(steps=steps, noise=1e-6, **laws)).network_from() == start


def test_what_noise_hides_does_not_dominate() -> None:
    laws = {"network": (0.101,) * 2, "discretisation": (0.1,) * 2, "prior": (0.0,) * 2}
    rows = split_rows(steps=(1, 2), **laws)
    for row in rows:
        row["w1_network"] += 0.01 * (row["seed"] - 1)
    assert origin_of(rows).network_from() is None
    laws["network"] = (0.5,) * 2
    assert origin_of(split_rows(steps=(1, 2), noise=1e-6, **laws)).network_from() == 1
    assert origin_of(split_rows(steps=(1, 2), seeds=1, **laws)).network_from() is None  # what is the noise of one?


def test_the_sentence_says_what_dominates_where() -> None:
    edm = {"network": (0.1, 0.1), "discretisation": (0.9, 0.01), "prior": (0.0, 0.0)}
    vp = {"network": (0.0, 0.0), "discretisation": (0.9, 0.001), "prior": (0.0, 0.0)}
    rows = split_rows(steps=(1, 10), noise=1e-6, **edm)
    rows += split_rows(formulation="vp", steps=(1, 10), noise=1e-6, **vp)
    table = tabulate(dataset_of(rows, ("w1",)), study_of())
    found = origins(table, "uniform", "w1")
    assert reading(found, Panel("heun"), "w1") == (
        "w1 with heun: at N = 1 the largest part is discretisation for all 2; at N = 10 the largest part is the sampling "
        "floor for vp, the network’s error for edm; the network’s error exceeds discretisation from N ≥ 10 on for edm, "
        "that cannot be told up to N = 10 for vp."
    )


def test_an_exact_denoiser_has_no_network_to_blame() -> None:
    rows = split_rows(formulation="exact", steps=(1, 10), network=(0, 0), discretisation=(0.9, 0.01), prior=(0, 0))
    html = draw_report(MadeUp(dataset_of(rows, ("w1",)), study_of()))
    assert "Where the error comes from" in sections_of(html)
    (spec,) = (s for title in pictures_of(html).values() for s in title if s["layout"].get("barmode") == "relative")
    assert [trace["name"] for trace in spec["data"][:-1]] == ["discretisation", "prior", "sampling floor"]
    assert "network’s error" not in html


def test_without_an_exact_row_nothing_is_split_and_the_page_says_so() -> None:
    html = draw_report(realistic(exact=False, keep=False))
    assert "Where the error comes from" not in sections_of(html)
    assert "errors are not split" in html


def test_many_samplers_of_few_denoisers_stand_side_by_side() -> None:
    rows = []
    for name in ("a", "b", "c"):
        more = split_rows(formulation="exact", steps=(1, 10), network=(0, 0), discretisation=(1, 0.1), prior=(0, 0))
        rows += [{**row, "sampler": name} for row in more]
    html = draw_report(MadeUp(dataset_of(rows, ("w1",)), study_of()))
    assert all(len(pictures_of(html)[name]) == 2 for name in "abc")  # quality, and the split
    assert "<option" not in html


# --- the error of the learned score -----------------------------------------------------------------------------------


def errors_of(values, nsr, **more):
    cells = len(values)
    coords = {
        "nsr": (("cell", "level"), np.array(nsr, dtype=float)),
        "cell_id": ("cell", [f"c{i}" for i in range(cells)]),
        "dataset": ("cell", ["uniform"] * cells),
        "formulation": ("cell", ["edm"] * cells),
        "schedule": ("cell", ["edm"] * cells),
        "seed": ("cell", list(range(cells))),
    }
    coords |= {name: ("cell", given) for name, given in more.items()}
    return xr.DataArray(np.array(values, dtype=float), dims=("cell", "level"), coords=coords)


TABLE = tabulate(dataset_of([{"w1": 0.1}, {"formulation": "exact", "w1": 0.1}], ("w1",)), {})


def test_the_curve_is_the_geometric_mean_over_seeds_with_a_band() -> None:
    found = score_errors(errors_of([[1, 4], [2, 4], [4, 4]], [[0.1, 10]] * 3), TABLE, "uniform")
    band, curve = found.spec["data"]
    assert curve["x"] == [0.1, 10]
    assert curve["y"] == pytest.approx([2, 4], rel=1e-4)
    factor = math.exp(4.302653 * math.log(2) / math.sqrt(3))  # Student's t of two degrees of freedom
    assert band["y"] == pytest.approx([2 * factor, 4, 4, 2 / factor], rel=1e-4)
    assert found.spec["layout"]["xaxis"]["type"] == found.spec["layout"]["yaxis"]["type"] == "log"


def test_from_two_seeds_no_band_is_drawn() -> None:
    found = score_errors(errors_of([[1, 4], [2, 4]], [[0.1, 10]] * 2), TABLE, "uniform")
    assert len(found.spec["data"]) == 1


def test_exact_rows_other_datasets_and_what_is_no_number_are_left_out() -> None:
    values, nsr = [[1e-30, 1e-30], [1.0, 2.0], [np.nan, 3.0]], [[0.1, 10], [0.1, 10], [np.nan, 10]]
    more = {"formulation": ["exact", "edm", "edm"], "dataset": ["uniform", "torus", "uniform"]}
    found = score_errors(errors_of(values, nsr, **more), TABLE, "uniform")
    (curve,) = found.spec["data"]
    assert (curve["x"], curve["y"]) == ([10], [3])
    assert score_errors(errors_of(values[:2], nsr[:2], formulation=["exact"] * 2), TABLE, "uniform") is None
    assert score_errors(xr.DataArray(np.empty((0, 0)), dims=("cell", "level")), TABLE, "uniform") is None


def test_the_metric_of_the_denoiser_has_this_picture_and_no_curves_against_n() -> None:
    answers = realistic(seeds=3, samplers=("heun",))
    answers.points = answers.points.assign({"score-error": ("point", np.full(answers.points.sizes["point"], 0.01))})
    answers.study = study_of(metrics=["w1", "ks", "score-error"])
    html = draw_report(answers)
    assert "Error of the learned score by noise level" in sections_of(html)
    assert not [title for title in sections_of(html) if title.startswith("score-error")]
    bare = realistic(seeds=1, steps=(1,), samplers=("heun",), keep=False)
    assert "Error of the learned score by noise level" not in sections_of(draw_report(bare))


# --- samples on the line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["four_points", "uniform", "gaussian_mixture"])
def test_the_target_s_own_samples_look_like_its_column(name: str) -> None:
    target = target_of(name, {})
    kept = Kept(Panel("heun"), Series(0, "edm", "edm", "edm", 0, (0,)), 0, {10: target.sample(40_000)[:, 0]})
    trace = against_steps(kept, target, window([kept], target)).spec["data"][0]
    assert trace["x"] == ["10", "target"]
    shape = tuple(int(part) for part in trace["z"]["shape"].split(", "))
    drawn = np.nan_to_num(np.frombuffer(base64.b64decode(trace["z"]["bdata"]), "<f4").reshape(shape))
    assert np.abs(drawn[:, 0] - drawn[:, 1]).sum() < 0.1 * drawn[:, 1].sum()


@pytest.mark.parametrize(
    ("sampler", "nsr"),
    [("forward-chain", None), ("langevin(nsr=2.0)", 2.0), ("ddim", 0.0), ("own.module:Sampler", 0.0)],
)
def test_samples_stand_beside_the_law_that_they_should_follow(sampler: str, nsr: float | None) -> None:
    top = schedules.create("edm").terminal_nsr if nsr is None else nsr
    target = target_of("uniform", {})
    drawn = target.sample(4000)[:, 0] + top * np.random.default_rng(0).normal(size=4000)
    row = {"formulation": "exact", "sampler": sampler, "grid": "edm", "point_id": "p", "w1": 0.1}
    answers = MadeUp(dataset_of([row], ("w1",)), {"samplers": [{"name": "langevin", "nsr": 2.0}]})
    answers.kept_samples["p"] = xr.DataArray(drawn[:, None], dims=("sample", "coordinate"))
    table = tabulate(answers.points, answers.study)
    ((kept,), left_out) = kept_samples(answers, table, "uniform", 1, table.panels["uniform"][0], target)
    assert not left_out
    assert (kept.target is None) == (top == 0)
    picture = against_steps(kept, target, window([kept], kept.target or target))
    trace = picture.spec["data"][0]
    shape = tuple(int(part) for part in trace["z"]["shape"].split(", "))
    columns = np.nan_to_num(np.frombuffer(base64.b64decode(trace["z"]["bdata"]), "<f4").reshape(shape))
    assert np.abs(columns[:, 0] - columns[:, 1]).sum() < 0.2 * columns[:, 1].sum()


@pytest.mark.parametrize(("sampler", "dim"), [("forward-chain", 2), ("langevin(unknown=1)", 1)])
def test_samples_of_a_law_that_is_not_drawn_are_left_out_and_the_page_says_so(sampler: str, dim: int) -> None:
    name = "uniform" if dim == 1 else "moons"
    row = {"dataset": name, "formulation": "exact", "sampler": sampler, "grid": "edm", "point_id": "p", "w1": 0.1}
    answers = MadeUp(dataset_of([row], ("w1",)), {})
    answers.kept_samples["p"] = xr.DataArray(np.zeros((10, dim)), dims=("sample", "coordinate"))
    assert "follow another law than the data and are not drawn" in draw_report(answers)


# --- samples in the plane ---------------------------------------------------------------------------------------------


def kept_of(values, n: int = 10):
    return [Kept(Panel("heun"), Series(0, "edm", "edm", "edm", 0, (0,)), 0, {n: values})]


def decoded(trace):
    shape = tuple(int(part) for part in trace["z"]["shape"].split(", "))
    return np.frombuffer(base64.b64decode(trace["z"]["bdata"]), np.uint8).reshape(shape)


def test_the_target_and_its_own_samples_look_alike() -> None:
    target = target_of("eight_gaussians", {})
    samples = target.sample(5000)
    view = plane.view_of(target, kept_of(samples), 2)
    pictured, drawn = (
        decoded(spec["data"][0]).astype(float)
        for spec in (plane.target_picture(view).spec, plane.pictures(kept_of(samples), view)[0].spec)
    )
    assert np.corrcoef(pictured.ravel(), drawn.ravel())[0, 1] > 0.95
    # rows are y, columns x: the modes on the axes are where they are
    middle = plane.BINS // 2
    assert drawn[:, middle - 3 : middle + 3].sum() == pytest.approx(drawn[middle - 3 : middle + 3, :].sum(), rel=0.2)


def test_the_picture_is_the_right_way_round() -> None:
    values = np.random.default_rng(0).normal([3.0, 0.0], [1.0, 0.1], (4000, 2))
    view = plane.view_of(Target("mine", None), kept_of(values), 2)
    (picture,) = plane.pictures(kept_of(values), view)
    counts = decoded(picture.spec["data"][0]).astype(float)
    across, upwards = counts.sum(axis=0), counts.sum(axis=1)
    assert (across > 0).sum() > 3 * (upwards > 0).sum()
    assert plane.target_picture(view) is None


def test_what_lies_outside_is_counted() -> None:
    target = target_of("checkerboard", {})
    samples = np.concatenate([target.sample(900), np.full((50, 2), 1e5), np.full((50, 2), np.nan)])
    view = plane.view_of(target, kept_of(samples), 2)
    assert view.density(samples)[1] == pytest.approx(0.1, abs=0.01)
    assert "Outside the picture: up to 10 %" in plane.pictures(kept_of(samples), view)[0].caption


@pytest.mark.parametrize("dim", [4, 7])
def test_in_many_dimensions_the_plane_of_largest_variance_is_drawn(dim: int) -> None:
    rng = np.random.default_rng(dim)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    scales = np.array([3.0, 2.0] + [0.1] * (dim - 2))
    values = (rng.standard_normal((20_000, dim)) * scales) @ rotation.T
    axes, share = plane.principal_axes(values, dim)
    assert np.abs(axes @ rotation[:, :2]) == pytest.approx(np.eye(2), abs=0.03)
    assert share == pytest.approx(13 / (13 + 0.01 * (dim - 2)), rel=1e-3)
    view = plane.view_of(Target("mine", None), kept_of(values), dim)
    assert f"Of {dim} dimensions" in view.note
    assert view.density(values)[1] < 0.03


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_a_data_set_of_any_dimension_is_drawn_known_or_not(dim: int) -> None:
    rng = np.random.default_rng(0)
    rows = [{"dataset": "mine", "steps": n, "nfe": n, "point_id": f"{n}", "w1": 0.1} for n in (1, 4)]
    kept = {f"{n}": xr.DataArray(rng.standard_normal((300, dim)), dims=("sample", "coordinate")) for n in (1, 4)}
    path = xr.DataArray(
        rng.standard_normal((5, 300, dim)),
        dims=("level", "sample", "coordinate"),
        coords={
            "time": ("level", np.linspace(1, 0, 5)),
            "alpha": ("level", np.linspace(0, 1, 5)),
            "sigma": ("level", np.linspace(1, 0, 5)),
        },
    )
    answers = MadeUp(
        dataset_of(rows, ("w1",)),
        study_of(datasets=["mine"]),
        kept_samples=kept,
        kept_trajectories={"4": path},
    )
    html = draw_report(answers)
    wanted = {1: "Distribution of the samples against N", 3: "Samples in space"}.get(
        dim, "Samples in the plane against N"
    )
    assert wanted in sections_of(html)
    assert ("On the way between noise and data" in sections_of(html)) == (dim != 3)


def test_moves_at_one_noise_level_are_drawn_with_the_paths_of_some_samples() -> None:
    """Langevin dynamics, with or without a last step to the data: lines over the map, which a way through the levels has not."""
    rng = np.random.default_rng(0)
    states = 0.5 + rng.standard_normal((5, 300, 1)).cumsum(0)
    for sigma, lines in (([0.1] * 5, 6), ([0.1] * 4 + [0.0], 6), ([80.0, 10.0, 1.0, 0.1, 0.0], 0)):
        path = xr.DataArray(
            states,
            dims=("level", "sample", "coordinate"),
            coords={
                name: ("level", np.array(values))
                for name, values in (("time", sigma), ("alpha", [1.0] * 5), ("sigma", sigma))
            },
        )
        rows = [{"steps": 4, "nfe": 4, "point_id": "4", "w1": 0.1}]
        answers = MadeUp(dataset_of(rows, ("w1",)), study_of(datasets=["uniform"]), kept_trajectories={"4": path})
        html = draw_report(answers)
        (picture,) = (found for title, found in pictures_of(html).items() if title.endswith("pₜ(x)"))
        traces = picture[0]["data"]
        lines_of = [trace["y"] for trace in traces if trace.get("mode") == "lines"]
        paths = [np.frombuffer(base64.b64decode(y["bdata"]), np.float32) for y in lines_of]
        assert len(paths) == lines
        for i, drawn in enumerate(paths):
            assert drawn == pytest.approx(states[:, i, 0], rel=1e-3)
        assert ("at one noise level" in html) is (lines > 0)
        assert ("noise on the left" in html) is (lines == 0)


def test_bytes_keep_what_is_small_visible_and_end_at_the_top() -> None:
    found = one_byte(np.array([[0.0, 1e-9, 0.5], [1.0, 7.0, 0.25]]))
    assert decoded({"z": found}).tolist() == [[0, 1, 128], [255, 255, 64]]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["heun", "ddim(eta=0.5)"], ["heun", "ddim(eta=0.5)"]),
        (["churn(s_churn=80.0,s_noise=1.007)", "heun"], ["churn", "heun"]),
        (
            ["denoising(parametrization=v,told=angle)", "denoising(parametrization=x0,told=angle)"],
            ["denoising(parametrization=v)", "denoising(parametrization=x0)"],
        ),
        (
            ["churn(s_churn=80.0,s_noise=1.007) on vp-linear", "churn(s_churn=80.0,s_noise=1.007)"],
            ["churn on vp-linear", "churn"],
        ),
        (["mixture(means=((0.0, 1.0), (2.0, 3.0)),stds=(1.0, 1.0))", "mixture"], None),
        (["a(first=1234567890,second=1234567890)", "a"], None),
    ],
)
def test_long_labels_lose_what_tells_nothing_and_different_ones_stay_different(
    labels: list[str], wanted: list[str] | None
) -> None:
    found = short_labels(labels)
    assert list(found) == labels
    assert len(set(found.values())) == len(labels)
    assert wanted is None or list(found.values()) == wanted


def test_the_page_has_short_names_and_says_what_they_stand_for() -> None:
    label = "denoising(parametrization=v,noise_levels=uniform-t,weighting=simple)"
    rows = [{"formulation": label, "schedule": s, "steps": n, "nfe": n, "w1": 1 / n} for s in "ab" for n in (1, 2)]
    html = draw_report(MadeUp(dataset_of(rows, ("w1",)), study_of()))
    assert html.count(label) == 1  # in the list of names
    assert "1 trained formulation (denoising) with 2 schedules (a, b)" in html


# --- targets with parameters ------------------------------------------------------------------------------------------


def test_a_target_is_found_by_the_label_that_points_carry() -> None:
    study = {"datasets": [{"name": "uniform", "low": 0.0, "high": 1.0}, {"name": "uniform", "low": -1.0, "high": 1.0}]}
    labels = list(components_in(study["datasets"], datasets))
    assert len(labels) == 2
    assert [target_of(label, study).support() for label in labels] == [(0.0, 1.0), (-1.0, 1.0)]
    assert target_of("no such thing", study).missing


def test_components_are_found_wherever_a_study_names_them() -> None:
    study = {
        "description": "edm, heun: package.module:Object and other text",
        "formulations": [{"name": "exact", "schedule": {"name": "edm", "sigma_max": 40.0}}, {"name": "vp"}],
        "samplers": [{"name": "ddim", "eta": 0.5, "grid": "own"}, {"name": "heun", "schedule": {"name": "flow"}}],
    }
    assert list(components_in(study, schedules)) == ["edm(sigma_max=40.0)", "flow"]
    assert list(components_in(study, samplers)) == ["ddim(eta=0.5)", "heun"]
    assert component_called("vp-linear", study, schedules) == schedules.create("vp-linear")
    assert component_called("nothing", study, schedules) is None


def test_a_target_on_the_line_need_not_be_scalar_by_its_class() -> None:
    mixture = target_of("gaussian_mixture", {})
    low, high = mixture.support()
    assert -3 < low < -2 < 2 < high < 6
    edges = np.linspace(-6, 8, 200)
    for alpha, sigma in ((1.0, 0.0), (1.0, 0.5), (0.5, 2.0)):
        density = mixture.density(edges, alpha, sigma)
        assert (density * np.diff(edges)).sum() == pytest.approx(1, abs=0.02)


def test_the_error_of_a_single_point_is_what_the_metric_says_of_it() -> None:
    study = study_of()
    assert target_of("uniform", study).error_of_its_mean("w1", study) == pytest.approx(0.25)
    assert target_of("uniform", study).error_of_its_mean("ks", study) == pytest.approx(0.5)
    assert math.isnan(target_of("uniform", study).error_of_its_mean("torus-distance", study))
    assert math.isnan(target_of("mine", study).error_of_its_mean("w1", study))


# --- warnings and wishes ----------------------------------------------------------------------------------------------


def test_a_schedule_that_does_not_end_in_noise_is_pointed_out() -> None:
    study = study_of(datasets=[{"name": "uniform", "low": 100.0, "high": 101.0}])
    label = "uniform(low=100.0,high=101.0)"
    points = dataset_of([{"dataset": label, "w1": 0.1}], ("w1",))
    assert f"{label}: schedule edm does not end in noise" in draw_report(MadeUp(points, study))
    swapped = dataset_of([{"dataset": label, "schedule": "flow", "sampler": "heun on edm", "w1": 0.1}], ("w1",))
    assert f"{label}: schedule edm does not end in noise" in draw_report(MadeUp(swapped, study))
    assert 'class="warnings"' not in draw_report(realistic(seeds=1, steps=(1,), samplers=("heun",), keep=False))


def test_lines_end_at_the_edge_of_the_picture_and_none_runs_along_it() -> None:
    scale = _Scale(0.01, 1.0, logarithmic=True)
    x, y = scale.line([1, 2, 4, 8, 16, 32, 64], [0.1, 10.0, 1000.0, 100.0, 0.1, 1e-5, 0.1])
    gaps = [i for i, value in enumerate(y) if math.isnan(value)]
    assert len(gaps) == 2
    assert all(0.01 * (1 - 1e-9) <= value <= 1 * (1 + 1e-9) for value in y if not math.isnan(value))
    assert x[:2] == pytest.approx([1, math.sqrt(2)])  # from 0.1 to 10 in one doubling, the edge half way
    assert y[:2] == pytest.approx([0.1, 1])
    assert not [pair for pair in itertools.pairwise(y) if pair == pytest.approx((1, 1))]
    x, y = scale.line([1, 2], [5.0, 7.0])
    assert x == []
    x, y = scale.line([1], [0.5])
    assert y == pytest.approx([0.5] * len(y))


def test_a_line_that_crosses_the_whole_picture_is_drawn() -> None:
    x, y = _Scale(0.0, 1.0, logarithmic=False).line([1, math.e**4], [-1.0, 3.0])
    assert x == pytest.approx([math.e, math.e**2])
    assert y == pytest.approx([0, 1])


def test_bands_are_drawn_from_three_seeds_on() -> None:
    def banded(seeds):
        html = draw_report(realistic(seeds=seeds, samplers=("heun",), keep=False))
        return any(trace.get("fill") == "toself" for trace in pictures_of(html)["heun"][0]["data"])

    assert [banded(seeds) for seeds in (1, 2, 3)] == [False, False, True]


def test_one_is_singular() -> None:
    html = draw_report(MadeUp(dataset_of([{"w1": 0.1}], ("w1",)), study_of()))
    assert "<b>1 point</b>" in html
    text = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"\b1 (points|seeds|samples|evaluations|datasets|schedules|samplers|verdicts|reasons)\b", text)
    assert [counted(1, "seed"), counted(1200, "seed")] == ["1 seed", "1,200 seeds"]
    assert [listing([]), listing(["a"]), listing(["a", "b"]), some(["a", "b", "c"], 2)] == [
        "",
        "a",
        "a and b",
        "a, b and 1 more",
    ]


# --- the way between noise and data -----------------------------------------------------------------------------------


def a_way(levels: int, n: int = 400, *, forward: bool) -> MadeUp:
    """A kept trajectory of four atoms on a schedule that preserves variance, one way or the other."""
    schedule = schedules.create("vp-constant")
    times = np.linspace(0, schedule.t_max, levels)
    alpha, sigma = (part(torch.from_numpy(times)).numpy() for part in (schedule.alpha, schedule.sigma))
    rng = np.random.default_rng(1)
    atoms = target_of("four_points", {}).sample(n)[:, 0]
    states = alpha[:, None] * atoms + sigma[:, None] * rng.standard_normal((levels, n))
    order = slice(None) if forward else slice(None, None, -1)
    path = xr.DataArray(
        states[order, :, None],
        dims=("level", "sample", "coordinate"),
        coords={name: ("level", row[order]) for name, row in (("time", times), ("alpha", alpha), ("sigma", sigma))},
    )
    sampler = "forward-chain" if forward else "ddim"
    rows = [
        {
            "dataset": "four_points",
            "formulation": "exact",
            "schedule": "vp-constant",
            "sampler": sampler,
            "steps": n,
            "nfe": 0 if forward else n,
            "point_id": f"p{n}",
            "w1": 0.1 / n,
        }
        for n in (levels - 1, 3)
    ]
    return MadeUp(
        dataset_of(rows, ("w1",)), study_of(datasets=["four_points"]), kept_trajectories={f"p{levels - 1}": path}
    )


def test_the_solved_equation_stands_over_the_histograms_of_the_way_to_noise_and_agrees_with_the_formula() -> None:
    html = draw_report(a_way(41, forward=True))
    (spec,) = pictures_of(html)["exact on vp-constant: histograms on the way"]
    lines: dict[str, dict[str, np.ndarray]] = {}
    for trace in spec["data"]:
        found = np.frombuffer(base64.b64decode(trace["y"]["bdata"]), "<f4")
        lines.setdefault(trace["line"].get("dash", "samples"), {})[trace["xaxis"]] = found
    assert len(lines["dot"]) == len(lines["dash"]) - 1  # the data themselves are where the equation starts from
    for place, solved in lines["dot"].items():
        formula = lines["dash"][place]
        assert np.abs(solved - formula).sum() < 0.02 * formula.sum()
    assert "Dotted: the Fokker-Planck equation, solved." in html
    assert "the data on the left" in html
    assert "Fokker-Planck" not in draw_report(a_way(41, forward=False))


def test_histograms_can_be_played_level_by_level() -> None:
    (spec,) = pictures_of(draw_report(a_way(81, forward=False)))["exact on vp-constant: histogram in motion"]
    frames = spec["frames"]
    (slider,) = spec["layout"]["sliders"]
    assert [frame["name"] for frame in frames] == [step["label"] for step in slider["steps"]]
    assert frames[0]["name"] == "0"
    assert frames[-1]["name"] == "80"
    low, high = spec["layout"]["xaxis"]["range"]
    width = (high - low) / len(frames[0]["data"][0]["y"])
    for frame in frames:
        samples, exact = (np.array(trace["y"]) for trace in frame["data"])
        assert width * samples.sum() > 0.98
        assert width * exact.sum() == pytest.approx(1, abs=0.03)
    assert spec["layout"]["updatemenus"][0]["buttons"][0]["method"] == "animate"


def test_what_asks_no_model_is_drawn_against_steps() -> None:
    (picture,) = quality(tabulate(a_way(41, forward=True).points, {}), "four_points", "w1")
    assert picture.spec["layout"]["xaxis"]["title"]["text"] == "steps N (no network is asked)"
    (marks,) = [trace for trace in picture.spec["data"] if trace.get("mode") == "markers"]
    assert marks["x"] == [3, 40]


# --- parts of a study that the page has to build again ------------------------------------------------------------------


def test_labels_that_a_target_does_not_have_are_no_law() -> None:
    told = {"samplers": [{"name": "heun", "guidance": {"name": "class-label", "labels": "all"}}]}
    assert target_of("eight_gaussians | all labels", told).law is not None
    without = target_of("torus | all labels", told)
    assert without.law is None
    assert "has no labels" in without.missing


def test_a_class_of_somebodys_own_is_of_its_own_kind_only() -> None:
    own = "tests.tasks.own_parts:First"
    study = {"samplers": [{"name": own}, {"name": "heun", "guidance": {"name": "class-label", "labels": 3}}]}
    assert set(components_in(study, guidances)) == {"class-label(labels=3)"}
    assert own in components_in(study, samplers)
    assert target_of("eight_gaussians | label 3", study).law is not None


def test_restorations_of_different_observations_have_floors_and_rankings_of_their_own() -> None:
    rows = [
        {
            "formulation": f"indi({what})",
            "sampler": "euler",
            "start": f"observation: {what}",
            "process": "restoration",
            "w1": floor + 0.1,
            "w1_floor": floor,
            "nfe": 10,
        }
        for what, floor in (("blur", 0.005), ("mask", 1.0))
    ]
    table = tabulate(dataset_of(rows, ("w1",)), {})
    floors = [table.floor("uniform", "w1", curve.panel, curve.series) for curve in table.select("uniform", "w1")]
    assert floors == [0.005, 1.0]
    page = draw_report(MadeUp(dataset_of(rows, ("w1",)), {}))
    assert "Best at each budget, from observation: blur" in page
    assert "Best at each budget, from observation: mask" in page


def test_a_label_with_parameters_stands_for_its_component() -> None:
    for schedule in (
        schedules.create("edm", sigma_min=0.2997, sigma_max=0.3),
        schedules.create("ncsn", levels=7),
        schedules.create("vp-cosine"),
    ):
        assert component_called(schedule.label(), {}, schedules) == schedule
    assert component_called("edm(sigma_min=0.1", {}, schedules) is None
    assert component_called("edm(nothing=1)", {}, schedules) is None
