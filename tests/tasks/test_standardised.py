"""Data far from zero or of odd scale: models see them with mean 0 and deviation 1, and all that comes
out is in the data's own units.

What every target owes is tested over the registry; here is what goes in and out.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import diffatlas as da
from diffusion.datasets import Dataset, EightGaussians, Gaussian, GaussianMixture, Moons, Noised, Standardised, Uniform
from diffusion.datasets.own import own_points
from diffusion.errors import WrongValue
from diffusion.metrics import NegativeLogLikelihood
from flows.command_line import app
from tasks.plan import make_plan
from tasks.plan.warnings import end_warnings
from tasks.report import draw_report
from tasks.report.lookup.targets import Target, followed, solved
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.flows import flows_of
from tasks.report.page.frame import warnings as page_warnings
from tasks.results import open_results, open_samples, open_trajectory
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tasks.study import Study
from tests.tasks.tiny_store import answer

SCALES = (0.01, 7.0)
RING = torch.tensor(
    np.stack([np.cos(a := np.random.default_rng(1).uniform(0, 2 * np.pi, 1000)), 0.5 * np.sin(a)], 1)
    + 0.05 * np.random.default_rng(2).normal(size=(1000, 2))
)


def far(scale: float) -> Tensor:
    """The ring, centred at 50."""
    return 50 + scale * (RING - RING.mean(0))


def by_hand(points: Tensor) -> tuple[Tensor, Tensor, float]:
    mean = points.mean(0)
    scale = float((points - mean).square().mean().sqrt())
    return (points - mean) / scale, mean, scale


def file_of(folder: Path, points: Tensor) -> str:
    path = folder / "far.npy"
    np.save(path, points.numpy())
    return str(path)


# --- what comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_the_exact_answer_is_that_of_the_file_that_was_standardised_by_hand(tmp_path: Path, scale: float) -> None:
    """All through the affine map, to 1e-10 of the data's scale."""
    points = far(scale)
    hand, mean, size = by_hand(points)
    target = {"name": "standardised", "of": {"name": "from_file", "path": file_of(tmp_path, points)}}
    ours, other = da.exact(target), da.exact(hand)
    sigma = 0.3
    z = hand[:50] + sigma * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = mean + size * z
    # the points of the file are further apart than their last digits: what is left of 50 in them is 1e-14 / scale
    allowed = 1e-10
    torch.testing.assert_close(
        (ours.denoise(x, size * sigma) - mean) / size, other.denoise(z, sigma), rtol=0, atol=allowed
    )
    torch.testing.assert_close(
        ours.score(x, size * sigma) * size, other.score(z, sigma), rtol=0, atol=allowed / sigma**2
    )
    density = ours.log_density(x, size * sigma) + 2 * math.log(size)
    torch.testing.assert_close(density, other.log_density(z, sigma), rtol=0, atol=allowed / sigma**2)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_exact_samples_from_equal_noise_are_those_of_the_standardised_points_moved_back(
    scale: float, each: bool
) -> None:
    """On the line the start noise is the same quantiles for every target."""
    line = far(scale)[:, :1]
    hand, mean, size = by_hand(line)
    ours = da.exact(Standardised(own_points(line), each)).sample("heun", 12, n=64, start="quantiles")
    other = da.exact(hand).sample("heun", 12, n=64, start="quantiles")
    torch.testing.assert_close((ours - mean) / size, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("scale", "each"), [(0.01, False), (7.0, False), (7.0, True)])
def test_a_short_training_finds_mean_and_spread_wherever_the_data_are(scale: float, each: bool) -> None:
    """Mean within 0.2 and spread within 20 % of the data's deviation, for 400 samples of 200 steps;
    of the same data as they are the mean is more than two deviations away, and the warning says why.
    """
    points = far(scale)
    sizes: dict[str, Any] = {"steps": 200, "batch": 128, "width": 32}
    model = da.train(Standardised(own_points(points), each), **sizes)
    x = model.sample("heun", 12, n=400)
    assert ((x.mean(0) - points.mean(0)).abs() <= 0.2 * points.std(0)).all()
    assert ((x.std(0) / points.std(0) - 1).abs() <= 0.2).all()
    if each:
        return
    with pytest.warns(UserWarning, match="standardised"):
        plain = da.train(points, **{**sizes, "steps": 50})
    off = plain.sample("heun", 12, n=200).mean(0) - points.mean(0)
    assert float(off.abs().max()) > 2 * float(points.std())


def test_likelihoods_are_of_the_data_s_own_units() -> None:
    """Of N(50, 0.01^2): closed forms, and the numbers of N(0, 1) and the scale's logarithm."""
    target = Standardised(Gaussian(50.0, 0.01))
    model = da.exact(target)
    level = float(model.schedule.sigma(torch.tensor(model.schedule.t_min)))
    x = 50 + 0.01 * torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    spread = 0.01 * math.hypot(1, level)
    closed = -0.5 * ((x[:, 0] - 50) / spread) ** 2 - math.log(spread * math.sqrt(2 * math.pi))
    torch.testing.assert_close(model.log_likelihood(x), closed, rtol=0, atol=2e-3)
    noisy = 0.01 * math.hypot(1, 0.5)
    closed = -0.5 * ((x[:, 0] - 50) / noisy) ** 2 - math.log(noisy * math.sqrt(2 * math.pi))
    torch.testing.assert_close(model.log_density(x, 0.01 * 0.5), closed, rtol=0, atol=1e-9)
    asked = ["nll", "bits-per-dim", "score-error"]
    ours, unit = da.evaluate(model, target, asked), da.evaluate(da.exact(Gaussian()), Gaussian(), asked)
    more = {"nll": math.log(0.01), "bits-per-dim": math.log2(0.01), "score-error": 0.0}
    for name, score in ours.items():
        assert score.value == pytest.approx(unit[name].value + more[name], abs=1e-9)
        assert score.floor == pytest.approx(unit[name].floor + more[name], abs=1e-9)
    chain = da.exact(target, "ddpm-linear")
    many = target.sample(3000, torch.Generator().manual_seed(4))
    bounds = chain.elbo(many).bound, da.exact(Gaussian(), "ddpm-linear").elbo((many - 50) / 0.01).bound
    gap = bounds[0] - bounds[1]  # other noise, the same data
    assert abs(float(gap.mean()) + math.log(0.01)) < 5 * float(gap.std()) / math.sqrt(len(gap)) < 1
    found = da.evaluate(chain, target, "elbo")["elbo"]
    same = da.evaluate(da.exact(Gaussian(), "ddpm-linear"), Gaussian(), "elbo")["elbo"]
    assert found.value == pytest.approx(same.value + math.log(0.01), abs=1e-9)


@pytest.mark.parametrize(
    "law",
    [
        EightGaussians(3.0),
        Moons(0.1),
        Uniform(40.0, 41.0),
        Noised(Uniform(5.0, 6.0)),
        Gaussian((1.0, 9.0), (2.0, 0.1), 2),
    ],
    ids=lambda law: law.registered_name,
)
def test_a_law_in_a_model_s_coordinates_has_the_moments_and_the_mathematics_of_the_moved_law(law: Dataset) -> None:
    target = Standardised(law)
    seen, frame = target.working, target.frame
    assert seen.mean == pytest.approx((0.0,) * law.dim, abs=1e-12)
    assert seen.std == pytest.approx(1.0)
    assert seen.frame is None
    x = law.sample(20, torch.Generator().manual_seed(3))
    torch.testing.assert_close(frame.back(seen.sample(20, torch.Generator().manual_seed(3))), x, rtol=0, atol=1e-12)
    alpha, sigma = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    z = (0.7 * frame.into(x) + 0.4).requires_grad_()
    (gradient,) = torch.autograd.grad(seen.log_density(z, alpha, sigma).sum(), z)
    z = z.detach()
    torch.testing.assert_close(seen.score(z, alpha, sigma), gradient, rtol=1e-7, atol=1e-8)
    tweedie = (z + sigma**2 * seen.score(z, alpha, sigma)) / alpha
    torch.testing.assert_close(seen.denoise(z, alpha, sigma), tweedie, rtol=0, atol=1e-9)
    divergence = torch.zeros(20, dtype=torch.float64)
    for k, axis in enumerate(torch.eye(law.dim, dtype=torch.float64)):
        ends = [seen.denoise(z + h * axis, alpha, sigma)[:, k] for h in (1e-4, -1e-4)]
        divergence += (ends[0] - ends[1]) / 2e-4
    torch.testing.assert_close(
        seen.posterior_variance(z, alpha, sigma), sigma**2 / alpha * divergence, rtol=1e-5, atol=1e-6
    )
    if law.has_cdf:
        u = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
        torch.testing.assert_close(seen.cdf(seen.quantile(u)), u, rtol=0, atol=1e-9)
        torch.testing.assert_close(frame.back(seen.quantile(u)[:, None])[:, 0], law.quantile(u), rtol=0, atol=1e-9)


def test_each_coordinate_may_have_a_scale_of_its_own_and_a_constant_one_keeps_its_unit() -> None:
    points = torch.stack([far(7.0)[:, 0], 1e4 * RING[:, 1], torch.full((1000,), 3.0, dtype=torch.float64)], 1)
    target = Standardised(own_points(points), each=True)
    assert target.frame.scale == pytest.approx((*points[:, :2].std(0, correction=0).tolist(), 1.0), rel=1e-12)
    assert isinstance(target.working, Dataset)
    moments = target.working.sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moments.std(0), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), rtol=0, atol=0.03)
    assert target.working.std == pytest.approx(math.sqrt(2 / 3))
    with pytest.raises(WrongValue, match="scales of their own"):
        da.exact(target).denoise(points[:3], 0.1)
    for other in (Moons(), Uniform()):
        with pytest.raises(WrongValue, match="does not tell the deviation of each coordinate"):
            Standardised(other, each=True)


@pytest.mark.parametrize("constant", [0.1, 1e6 + 1 / 3, -3e-200])
def test_a_coordinate_that_is_the_same_in_all_points_has_no_deviation_whatever_its_last_digits(
    tmp_path: Path, constant: float
) -> None:
    """Its computed deviation is the rounding of its mean, 3e-17 for 0.1."""
    points = torch.stack([torch.full((1000,), constant, dtype=torch.float64), RING[:, 0]], 1)
    named = {"name": "from_file", "path": file_of(tmp_path, points)}
    one, other = (da.dataset("standardised", of=of, each=True).frame for of in (named, points))
    assert one is not None
    assert one == other
    assert one.scale[0] == 1.0
    assert one.scale[1] == pytest.approx(float(RING[:, 0].std(correction=0)), rel=1e-12)
    seen = Standardised(own_points(points), each=True).working.sample(100, torch.Generator().manual_seed(0))
    assert float(seen[:, 0].abs().max()) <= 1e-9
    with pytest.raises(WrongValue, match="all points of the data are the same one"):
        own_points(points[:, :1])
    with pytest.raises(ValueError, match=r"standard deviation of 0\.0"):
        da.dataset("from_file", path=file_of(tmp_path, points[:, :1]))


# --- what stands around it ------------------------------------------------------------------------


def test_a_saved_model_gives_the_same_bits_and_its_file_has_what_it_needs(tmp_path: Path) -> None:
    for each in (False, True):
        target = da.dataset("standardised", of=far(7.0), each=each)
        trained = da.train(target, steps=5, batch=16, width=8)
        for name, model in (("trained", trained), ("exact", da.exact(target))):
            again = da.load(model.save(tmp_path / f"{name}-{each}.safetensors"))
            assert torch.equal(again.sample("heun", 3, n=7), model.sample("heun", 3, n=7))
            assert again.dataset.frame == target.frame


def test_labels_are_asked_for_as_ever_and_observations_are_refused() -> None:
    target = Standardised(EightGaussians(20.0, 1.0))
    x = da.exact(target).sample("heun", 20, n=40, guidance={"name": "class-label", "labels": 2})
    assert (target.mode_of(x) == 2).all()
    observed = {"name": "observation", "coordinates": [0], "values": [3.0]}
    with pytest.raises(WrongValue, match="not standardised"):
        da.exact(target).sample("heun", 4, n=4, guidance=observed)
    inpainting = {"name": "inpainting", "coordinates": [0], "values": [3.0]}
    with pytest.raises(WrongValue, match="not standardised"):
        da.exact(target).sample("heun", 4, n=4, guidance=inpainting)


def test_what_makes_no_sense_is_refused_in_one_sentence() -> None:
    model = da.exact(Standardised(own_points(far(7.0))))
    with pytest.raises(WrongValue, match="sees its data standardised and the target is as they are"):
        da.evaluate(model, far(7.0), "score-error")
    moons = Standardised(Moons())
    with pytest.raises(WrongValue, match="starts from a data set in its own units"):
        da.train(moons, "flow-between", steps=2)
    own = da.model(lambda x, sigma: x / (1 + sigma**2), target=moons)  # of data as they are
    assert own.dataset == Moons()
    with pytest.raises(WrongValue, match="standardised already"):
        Standardised(Standardised(Uniform()))
    with pytest.raises(WrongValue, match="of the data's numbers are not finite"):
        da.dataset("standardised", of=[[math.nan], [1.0]])


def test_the_plan_warns_of_data_that_noise_does_not_cover_and_says_what_to_do() -> None:
    points = own_points(far(0.01))
    edm = da.schedule("edm")
    (line,) = end_warnings([(points, edm)])
    assert "standardised" in line
    assert end_warnings([(Standardised(points), edm)]) == []


def test_the_command_plan_warns_of_a_file_that_is_far_from_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points around 50 in a study; standardised ones are no cause for a warning."""
    monkeypatch.chdir(tmp_path)
    np.save("far.npy", far(0.01).numpy())
    for dataset, warned in (
        ({"name": "from_file", "path": "far.npy"}, True),
        ({"name": "standardised", "of": {"name": "from_file", "path": "far.npy"}}, False),
    ):
        Path("far.json").write_text(json.dumps({**SPEC, "datasets": [dataset]}))
        found = CliRunner().invoke(app, ["plan", "far.json", "--store", "none", "--json"])
        assert found.exit_code == 0
        lines = [line for line in json.loads(found.stdout)["warnings"] if "does not end in noise" in line]
        assert bool(lines) is warned
        assert all("standardised" in line for line in lines)


SPEC: dict[str, Any] = {
    "name": "far",
    "formulations": ["exact", "edm"],
    "training": {"steps": 100, "batch": 64, "width": 16, "depth": 2, "data": 1000},
    "samplers": ["heun"],
    "steps": [12],
    "samples": 100,
    "metrics": [{"name": "energy", "points": 100}, {"name": "nll", "batch": 16, "tolerance": 0.1}, "score-error"],
    "keep": {"samples": True, "trajectories": ["heun@12"]},
}


def test_a_study_stores_samples_paths_and_metrics_in_the_data_s_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path / "home"))
    points = far(0.01)[:150]
    hand, mean, size = by_hand(points)
    uri = str(tmp_path / "store")
    spec = {**SPEC, "datasets": [{"name": "standardised", "of": points}]}
    answer(uri, spec)
    (target,) = Study.from_spec(spec).blocks()[0].datasets
    rows = open_results(uri)
    unit = NegativeLogLikelihood().floor(own_points(hand), da.schedule("edm"))
    assert set(rows["status"].values.tolist()) == {"ok"}
    for i, point in enumerate(rows["point_id"].values.tolist()):
        x = torch.as_tensor(np.asarray(open_samples(uri, point)), dtype=torch.float64)
        assert (x.mean(0) - mean).abs().max() < 0.5 * size
        assert 0.5 * size < float(x.std()) < 2 * size
        (score,) = da.evaluate(x, target, {"name": "energy", "points": 100}).values()
        found = float(rows["energy(points=100)"].values[i])
        assert found == pytest.approx(score.value, rel=0.02)
        path = np.asarray(open_trajectory(uri, point))
        assert abs(path[0] - 50).max() > 50 * size
        np.testing.assert_array_equal(path[-1], x[: path.shape[1]].numpy())
        floor = next(
            float(rows[name].values[i])
            for name in rows.data_vars
            if str(name).startswith("nll") and str(name).endswith("_floor")
        )
        assert floor == pytest.approx(unit + 2 * math.log(size), abs=2.0)  # other draws


def test_a_page_draws_the_noised_law_in_the_data_s_units_and_names_another_target_of_a_sampler() -> None:
    """At a level of the schedule the data's mean stays where it is and noise is in units of the scale."""
    target = Target("far", Standardised(Gaussian(50.0, 0.01)))
    spread = 0.01 * math.hypot(0.6, 0.8)
    edges = 50 + spread * np.linspace(-3, 3, 13)
    cdf = torch.special.ndtr(torch.linspace(-3, 3, 13, dtype=torch.float64)).numpy()
    expected = np.diff(cdf) / np.diff(edges)
    drawn = target.density(edges, 0.6, 0.8)
    assert drawn is not None
    np.testing.assert_allclose(drawn, expected, rtol=1e-9)
    assert target.standard_deviation(0.6, 0.8) == pytest.approx(spread)
    schedule = da.schedule("vp-linear")
    time = float(schedule.time_of(torch.tensor([0.8 / 0.6]))[0])
    found = solved(target, schedule, time, edges)
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=0.01)
    study = Study.from_spec(
        {
            **SPEC,
            "metrics": ["w1"],
            "keep": {},
            "datasets": [{"name": "standardised", "of": {"name": "gaussian", "means": 50.0}}],
            "formulations": ["exact"],
            "samplers": ["forward-sde", "heun"],
        }
    )
    for point in make_plan(study, {}, []).points:
        if point.sampler.registered_name == "heun":
            assert point.target == Gaussian(50.0)
        else:  # noise of the last level is left, in the data's units
            assert point.target.std == pytest.approx(math.hypot(1, point.noise_left))
            assert point.target.mean == pytest.approx((50.0,))


LABELLED = GaussianMixture((0.25, 0.75), (48.0, 52.0), (0.5, 0.25))


def test_a_page_knows_in_which_coordinates_models_see_a_target_of_which_a_label_is_asked(tmp_path: Path) -> None:
    """The law of x at a level is that of ``m + alpha (x_0 - m) + s sigma eps``, x_0 of the label:
    a normal one, whose numbers are closed forms.
    """
    spec = {
        **SPEC,
        "datasets": [{"name": "standardised", "of": LABELLED.spec()}],
        "formulations": ["exact"],
        "schedules": ["vp-linear"],
        "samplers": [{"name": name, "guidance": {"name": "class-label", "labels": 1}} for name in ("heun", "langevin")],
        "metrics": ["w1"],
        "keep": {},
    }
    answer(str(tmp_path / "store"), spec)
    (block,) = Study.from_spec(spec).blocks()
    frame = block.datasets[0].frame
    assert frame is not None
    (mean,), (size,) = frame.shift, frame.scale
    answers = ModelledAnswers(Store.open(str(tmp_path / "store")), "far")
    table = tabulate(answers)
    (target,) = table.targets.values()
    alpha, sigma = 0.6, 0.8
    middle, spread = mean + alpha * (52 - mean), math.hypot(alpha * 0.25, size * sigma)
    assert target.frame == frame
    assert target.standard_deviation(alpha, sigma) == pytest.approx(spread)
    edges = middle + spread * np.linspace(-3, 3, 13)
    expected = np.diff(torch.special.ndtr(torch.linspace(-3, 3, 13, dtype=torch.float64)).numpy()) / np.diff(edges)
    drawn = target.density(edges, alpha, sigma)
    assert drawn is not None
    np.testing.assert_allclose(drawn, expected, rtol=1e-9)
    schedule = da.schedule("vp-linear")
    found = solved(target, schedule, float(schedule.time_of(torch.tensor([sigma / alpha]))[0]), edges)
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=0.02)
    x = middle + spread * np.linspace(-2, 2, 5)[:, None]
    closed = -0.5 * ((x[:, 0] - middle) / spread) ** 2 - math.log(spread * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(target.log_density(x, alpha, sigma), closed, rtol=1e-9)
    np.testing.assert_allclose(target.score(x, alpha, sigma), (middle - x) / spread**2, rtol=1e-9)
    # at 52 and in units of the data no schedule would drown it
    assert page_warnings(table) == []
    assert list(flows_of(answers, table, target.name)) == []  # of models without guidance, which follow another law
    assert "<html" in draw_report(answers)
    asked = {point.id: point for point in make_plan(Study.from_spec(spec), {}, []).points}
    assert {asked[row.point_id].noise_left > 0 for row in table.points} == {False, True}
    for row in table.points:
        point, law = asked[row.point_id], followed(target, row)
        assert law is not None
        assert law.distribution == point.target
        left = point.noise_left
        clean = law.density(52 + math.hypot(0.25, size * left) * np.array([-0.1, 0.1]), 1.0, 0.0)
        assert clean is not None
        assert float(clean[0]) == pytest.approx(1 / (math.hypot(0.25, size * left) * math.sqrt(2 * math.pi)), rel=0.01)


def test_arrays_stand_where_a_study_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path / "home"))
    points = far(7.0)
    for given in (points, points.numpy(), own_points(points)):
        study = Study.from_spec({**SPEC, "datasets": [given, {"name": "standardised", "of": given}]})
        assert Study.from_spec(study.spec()) == study
        (plain, moved) = study.blocks()[0].datasets
        assert isinstance(moved, Standardised)
        assert moved.of == plain
        assert torch.equal(plain.points, points)  # type: ignore[attr-defined]
    assert len(list((tmp_path / "home" / "points").iterdir())) == 1
    in_grids = Study.from_spec({**SPEC, "datasets": ["uniform"], "grids": [{"datasets": [points]}]})
    assert make_plan(in_grids, {}, []).points
    with pytest.raises(WrongValue, match=r"\[n, dim\]"):
        Study.from_spec({**SPEC, "datasets": [np.zeros((2, 3, 4))]})
    with pytest.raises(WrongValue, match="has labels"):
        Study.from_spec({**SPEC, "datasets": [own_points(points, torch.zeros(1000, dtype=torch.int64))]})
