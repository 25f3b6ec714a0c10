"""Every registered metric is zero for the target itself, has the floor it states, and refuses what
it cannot serve.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.datasets import (
    Dataset,
    EightGaussians,
    FourPoints,
    Gaussian,
    GaussianMixture,
    PointSet,
    Torus,
    Uniform,
    datasets,
)
from diffusion.metrics import (
    EnergyDistance,
    MaximumMeanDiscrepancy,
    Metric,
    ModeCoverage,
    base,
    metrics,
)
from diffusion.metrics.base import SimulatedFloor
from diffusion.randomness import stream


@dataclasses.dataclass(frozen=True)
class Cloud(PointSet):
    """Points in the plane, the atoms of no line."""

    @property
    def points(self) -> Tensor:
        return torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)


TARGETS: dict[str, Dataset] = {
    **{entry.name: entry.cls() for entry in datasets if entry.has_defaults},
    "uniform[-1, 3]": Uniform(-1.0, 3.0),
    "torus by angle": Torus(2.0, 0.5, "angle"),
    "gaussian in five dimensions": Gaussian(1.0, (1.0, 0.1, 2.0, 0.5, 0.5), 5),
    "two far bumps": GaussianMixture((0.25, 0.75), (-40.0, 40.0), (1.0, 0.1)),
    "cloud": Cloud(),
}
OF_DISTRIBUTIONS = [
    entry for entry in metrics if entry.cls.__module__.startswith("diffusion.")
]  # those of images: test_images
METRICS: dict[str, Metric] = {entry.name: entry.cls() for entry in OF_DISTRIBUTIONS if issubclass(entry.cls, Metric)}
PAIRS = [
    pytest.param(metric, target, id=f"{name} of {on}")
    for name, metric in METRICS.items()
    if not metric.costly  # those that train a network: test_metrics_classifier
    for on, target in TARGETS.items()
    if metric.refuses(target) is None
]
POINT_LIMITS = {
    "energy": 200,
    "energy-unbiased": 200,
    "mmd": 200,
    "w2": 150,
}  # small, so that floors are quick and the limit is met


def quick(metric: Metric) -> Metric:
    limit = POINT_LIMITS.get(metric.registered_name)
    return dataclasses.replace(metric, points=limit) if limit else metric  # type: ignore[call-arg]


# --- the floor ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "target"), PAIRS)
@pytest.mark.parametrize(("n", "repeats"), [(100, 150), (1000, 100)])
def test_floor_is_the_mean_over_independent_draws_from_the_target(
    metric: Metric, target: Dataset, n: int, repeats: int
) -> None:
    """4.5 standard errors, of a measured floor's own repeats too: false alarms 7e-6 each.

    A floor that is the leading term in n may be 2 % off, that of ks at n = 100 by 3 %.
    """
    metric = quick(metric)
    generator = stream("floor", n)
    values = np.array([metric.evaluate(target.sample(n, generator), target) for _ in range(repeats)])
    floor = metric.floor(target, n)
    spread, allowed = values.std() / math.sqrt(repeats), 0.03 if n < 1000 else 0.02
    if isinstance(metric, SimulatedFloor):
        spread = values.std() * math.sqrt(1 / repeats + 1 / metric._repeats(target, metric._used(target, n)))
    assert abs(values.mean() - floor) <= 4.5 * spread + allowed * floor + 1e-14


@pytest.mark.parametrize(
    ("name", "target", "power"),
    [
        ("w1", Gaussian(), 0.5),
        ("w1", FourPoints(), 0.5),
        ("ks", FourPoints(), 0.5),
        ("kl-grid", Uniform(), 1.0),
        ("energy", Uniform(), 0.5),
        ("mmd", Uniform(), 0.5),
        ("mode-coverage", EightGaussians(), 0.5),
        ("sliced-w2", Uniform(), 0.5),
        ("w2", FourPoints(), 0.25),  # mass c / sqrt(n) moves from atom to atom: the square falls like 1 / sqrt(n)
    ],
)
def test_floor_falls_with_the_stated_power_of_n(name: str, target: Dataset, power: float) -> None:
    """To 1 % where it is computed; 10 % where it is measured, 3 of its standard errors."""
    metric = METRICS[name]
    ratio = metric.floor(target, 500) / metric.floor(target, 8000) if name != "mmd" else None
    if ratio is None:
        ratio = metric.floor(target, 75) / metric.floor(target, 1200)  # which looks at 1500 at most
    assert ratio == pytest.approx(16**power, rel=0.1 if name in {"sliced-w2", "w2"} else 0.015)


@pytest.mark.parametrize("metric", [EnergyDistance(), MaximumMeanDiscrepancy()], ids=lambda m: m.registered_name)
def test_floor_at_full_size_is_near_the_mean_over_all_reference_samples(metric: Metric) -> None:
    """A mean square of ``E k (1/n + 1/m)``, n = 1500, m = 3000; one reference differs from another
    by 10 %, 30 % is 3 sd.
    """
    target = EightGaussians()
    x, y = (target.sample(4000, stream("pairs", i)) for i in range(2))
    squares = (x - y).square().sum(1)
    if isinstance(metric, EnergyDistance):
        scale = float(squares.sqrt().mean())
    else:
        kernel = [torch.exp(-squares / (2 * (h * target.std) ** 2 * 2)) for h in (0.1, 0.3, 1.0)]
        scale = 1 - float(torch.stack(kernel).mean())
    assert metric.floor(target, 10_000) == pytest.approx(math.sqrt(scale * (1 / 1500 + 1 / 3000)), rel=0.3)


@pytest.mark.parametrize("name", ["energy", "mmd", "sliced-w2", "w2"])
def test_numbers_do_not_depend_on_what_was_asked_before_nor_on_the_global_generator(name: str) -> None:
    metric, target = quick(METRICS[name]), EightGaussians()
    x = target.sample(200, stream("before"))
    torch.manual_seed(1)
    first = metric.floor(target, 50), metric.evaluate(x, target)
    assert isinstance(metric, SimulatedFloor)
    METRICS[name].evaluate(Torus().sample(50, stream("other")), Torus())
    torch.manual_seed(2)
    metric.floor(target, 51)
    anew = base._simulated_floor.__wrapped__(metric, target, 50)  # type: ignore[attr-defined]
    assert (anew, metric.evaluate(x, target)) == first


def test_a_dataset_that_cannot_be_hashed_is_measured_all_the_same() -> None:
    @dataclasses.dataclass(frozen=True)
    class Listed(PointSet):
        places: list[float] = dataclasses.field(default_factory=lambda: [0.0, 1.0, 5.0])

        @property
        def points(self) -> Tensor:
            return torch.tensor(self.places, dtype=torch.float64)[:, None]

    x = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    assert METRICS["w1"].evaluate(x, Listed()) == pytest.approx(1, rel=1e-12)
    for metric in (METRICS["energy"], METRICS["w2"], METRICS["mmd"]):
        assert metric.floor(Listed(), 10) > 0


# --- every metric ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "target"), PAIRS)
def test_metric_does_not_depend_on_the_order_of_samples_or_their_dtype(metric: Metric, target: Dataset) -> None:
    x = target.sample(300, stream("order")).float()
    value = metric.evaluate(x, target)
    assert metric.evaluate(x.flip(0), target) == pytest.approx(value, rel=1e-9, abs=1e-15)
    assert metric.evaluate(x.double(), target) == value


@pytest.mark.parametrize(("metric", "target"), PAIRS)
def test_metric_of_huge_samples_is_finite_and_above_its_floor(metric: Metric, target: Dataset) -> None:
    metric = quick(metric)
    x = target.sample(1000, stream("huge"))
    x[::2] = 1e8
    value = metric.evaluate(x, target)
    assert math.isfinite(value)
    assert value > 4 * metric.floor(target, 1000)  # known from above


@pytest.mark.parametrize(("metric", "target"), PAIRS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_metric_refuses_samples_that_are_not_finite(metric: Metric, target: Dataset, bad: float) -> None:
    x = target.sample(10, stream("bad"))
    x[3, 0] = bad
    with pytest.raises(ValueError, match="1 of 10 samples are not finite"):
        metric.evaluate(x, target)


@pytest.mark.parametrize(("metric", "target"), PAIRS)
def test_metric_refuses_samples_of_another_shape_and_floors_of_no_samples(metric: Metric, target: Dataset) -> None:
    for shape in ((5, target.dim + 1), (0, target.dim), (5,)):
        with pytest.raises(ValueError, match="needed: "):
            metric.evaluate(torch.zeros(shape, dtype=torch.float64), target)
    with pytest.raises(ValueError, match="n >= 1"):
        metric.floor(target, 0)


def test_metric_refuses_a_dataset_it_cannot_serve_with_a_reason() -> None:
    assert "on the line" in str(METRICS["w1"].refuses(Torus()))
    assert "'torus'" in str(METRICS["torus-moment"].refuses(Uniform()))
    assert "separate modes" in str(METRICS["mode-coverage"].refuses(Torus()))
    with pytest.raises(ValueError, match=r"'torus' is refused: .* on the line"):
        METRICS["ks"].evaluate(torch.zeros(4, 3), Torus())
    with pytest.raises(ValueError, match="'uniform' is refused"):
        METRICS["torus-distance"].floor(Uniform(), 10)
    for name in ("energy", "energy-unbiased", "mmd", "sliced-w2", "w2"):
        assert all(METRICS[name].refuses(target) is None for target in TARGETS.values())


def test_every_metric_says_what_its_axis_shows_and_serves_some_registered_dataset() -> None:
    for entry in OF_DISTRIBUTIONS:
        metric = entry.cls()
        assert metric.axis_label
        assert any(metric.refuses(dataset.cls()) is None for dataset in datasets if dataset.has_defaults)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("kl-grid", {"cells": 1}),
        ("energy", {"points": 0}),
        ("mmd", {"points": 0}),
        ("mmd", {"bandwidths": ()}),
        ("mmd", {"bandwidths": (0.1, 0.0)}),
        ("sliced-w2", {"projections": 0}),
        ("sliced-w2", {"points": 0}),
        ("w2", {"points": 0}),
        ("score-error", {"count": 0}),
        ("score-error", {"largest": math.inf}),
    ],
)
def test_parameters_without_a_meaning_are_refused(name: str, parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{name}: .*needed: "):
        metrics.create(name, **parameters)


# --- modes ----------------------------------------------------------------------------------------


def test_mode_coverage_is_the_share_of_samples_in_the_wrong_mode() -> None:
    target = FourPoints()
    shares = {-15.0: 50, -5.0: 30, 1.0: 20, 10.0: 0}
    x = torch.tensor([value for value, count in shares.items() for _ in range(count)], dtype=torch.float64)[:, None]
    assert ModeCoverage().evaluate(x, target) == pytest.approx(0.25 + 0.05, rel=1e-14)
    assert ModeCoverage().evaluate(x + 1.9, target) == pytest.approx(0.30, rel=1e-14)  # still nearest to its own
    balanced = torch.tensor([-15.0, -5.0, 1.0, 10.0], dtype=torch.float64)[:, None]
    assert ModeCoverage().evaluate(balanced, target) == 0


def test_mode_coverage_of_one_mode_alone_is_the_weight_of_the_others() -> None:
    target = EightGaussians()
    x = target.sample(5000, stream("one mode"))
    weights = target.mode_weights
    assert weights is not None
    for k, weight in enumerate(weights):
        assert ModeCoverage().evaluate(x[target.mode_of(x) == k], target) == pytest.approx(1 - weight, rel=1e-12)


def test_mode_coverage_floor_has_the_normal_approximation_as_its_limit() -> None:
    n, weights = 40_000, (0.25,) * 4
    limit = sum(math.sqrt(w * (1 - w)) for w in weights) / math.sqrt(2 * math.pi * n)
    assert ModeCoverage().floor(FourPoints(), n) == pytest.approx(limit, rel=1e-4)
    assert ModeCoverage().floor(FourPoints(), 1) == pytest.approx(0.75, rel=1e-14)  # one sample covers one mode


# --- torus ----------------------------------------------------------------------------------------


def test_torus_distance_is_in_units_of_the_tube_and_zero_on_the_surface() -> None:
    torus = Torus(2.0, 0.5)
    metric = METRICS["torus-distance"]
    assert metric.evaluate(torch.tensor([[2.0, 0, 0]]), torus) == 1  # the centre of the tube
    assert metric.evaluate(torch.tensor([[0, 3.0, 0]]), torus) == 1
    assert metric.evaluate(torus.sample(1000, stream("surface")), torus) <= 1e-15


def test_torus_moment_sees_points_that_gather_on_the_outer_equator() -> None:
    torus = Torus()
    x = torus.sample(1000, stream("outer"))
    x = torch.cat([1.4 * x[:, :2] / x[:, :2].norm(dim=1, keepdim=True), torch.zeros(1000, 1, dtype=torch.float64)], 1)
    assert METRICS["torus-distance"].evaluate(x, torus) <= 1e-15
    assert METRICS["torus-moment"].evaluate(x, torus) == pytest.approx(1.96 / 1.24 - 1, rel=1e-12)
