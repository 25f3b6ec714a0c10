"""Every registered metric is zero for the target itself, has the floor it states, and refuses what it cannot serve."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from diffusion.datasets import Dataset, ScalarDataset, Torus, Uniform, datasets
from diffusion.metrics import Metric, metrics
from diffusion.randomness import stream


@dataclass(frozen=True)
class Normal(ScalarDataset):
    """N(0, 1): unbounded, so that it takes the general path of w1."""

    @property
    def mean(self) -> tuple[float, ...]:
        return (0.0,)

    @property
    def std(self) -> float:
        return 1.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 1, generator=generator, dtype=torch.float64)

    def cdf(self, x: Tensor) -> Tensor:
        return torch.special.ndtr(x)  # type: ignore[no-any-return]

    def quantile(self, u: Tensor) -> Tensor:
        return torch.special.ndtri(u)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Coin(ScalarDataset):
    """0 or 1: a law with atoms."""

    @property
    def mean(self) -> tuple[float, ...]:
        return (0.5,)

    @property
    def std(self) -> float:
        return 0.5

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (n, 1), generator=generator).double()

    def cdf(self, x: Tensor) -> Tensor:
        return 0.5 * (x >= 0).double() + 0.5 * (x >= 1).double()

    def quantile(self, u: Tensor) -> Tensor:
        return (u > 0.5).double()


TARGETS: dict[str, Dataset] = {
    **{entry.name: entry.cls() for entry in datasets},
    "uniform[-1, 3]": Uniform(-1.0, 3.0),
    "torus by angle": Torus(2.0, 0.5, "angle"),
    "normal": Normal(),
}
METRICS: dict[str, Metric] = {entry.name: entry.cls() for entry in metrics}
PAIRS = [
    pytest.param(metric, target, id=f"{name} of {on}")
    for name, metric in METRICS.items()
    for on, target in TARGETS.items()
    if metric.refuses(target) is None
]
w1, ks = METRICS["w1"], METRICS["ks"]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


# --- every metric -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "target"), PAIRS)
@pytest.mark.parametrize("n", [200, 2000])
def test_floor_is_the_mean_over_independent_draws_from_the_target(metric: Metric, target: Dataset, n: int) -> None:
    """4.5 standard errors, false alarms 7e-6 each; the floor is the leading term in n, hence 2 % more."""
    generator = stream("floor", n)
    values = np.array([metric.evaluate(target.sample(n, generator), target) for _ in range(400)])
    floor = metric.floor(target, n)
    assert abs(values.mean() - floor) <= 4.5 * values.std() / 20 + 0.02 * floor + 1e-14


@pytest.mark.parametrize(("metric", "target"), PAIRS)
def test_metric_does_not_depend_on_the_order_of_samples_or_their_dtype(metric: Metric, target: Dataset) -> None:
    x = target.sample(300, stream("order")).float()
    value = metric.evaluate(x, target)
    assert metric.evaluate(x.flip(0), target) == pytest.approx(value, rel=1e-12, abs=1e-15)
    assert metric.evaluate(x.double(), target) == value


@pytest.mark.parametrize(("metric", "target"), PAIRS)
def test_metric_of_huge_samples_is_finite_and_above_its_floor(metric: Metric, target: Dataset) -> None:
    x = target.sample(100, stream("huge"))
    x[::2] = 1e8
    value = metric.evaluate(x, target)
    assert math.isfinite(value)
    assert value > 4 * metric.floor(target, 100)


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
    assert "on the line" in str(w1.refuses(Torus()))
    assert "'torus'" in str(METRICS["torus-moment"].refuses(Uniform()))
    with pytest.raises(ValueError, match=r"'torus' is refused: .* on the line"):
        ks.evaluate(torch.zeros(4, 3), Torus())
    with pytest.raises(ValueError, match="'uniform' is refused"):
        METRICS["torus-distance"].floor(Uniform(), 10)


def test_every_metric_says_what_its_axis_shows_and_serves_some_registered_dataset() -> None:
    for metric in METRICS.values():
        assert metric.axis_label
        assert any(metric.refuses(entry.cls()) is None for entry in datasets)


# --- w1 ---------------------------------------------------------------------------------------------------------------


def test_w1_of_equally_spaced_quantiles_of_the_uniform_law_is_a_quarter_of_their_spacing() -> None:
    n = 10_000
    x = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n
    assert w1.evaluate(x, Uniform()) == pytest.approx(2.5e-5, rel=1e-12)


def test_w1_of_a_single_point_is_the_mean_distance_to_it() -> None:
    assert w1.evaluate(column(0.5), Uniform()) == 0.25
    assert w1.evaluate(column(0.5, 0.5, 0.5), Uniform()) == pytest.approx(0.25, rel=1e-15)
    assert w1.evaluate(column(1e8), Uniform()) == 1e8 - 0.5
    assert w1.evaluate(column(-7.0), Uniform()) == 7.5
    assert w1.evaluate(column(0.0), Normal()) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-7)
    assert w1.evaluate(column(40.0), Normal()) == pytest.approx(40.0, rel=1e-7)


@pytest.mark.parametrize("target", [Uniform(), Uniform(-1.0, 3.0), Normal()], ids=["uniform", "wider", "normal"])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 1.0), (0.0, 0.2), (-1.0, 12.0)])
def test_w1_agrees_with_scipy_on_a_hundred_thousand_quantiles_of_the_target(
    target: ScalarDataset, shift: float, scale: float
) -> None:
    x = shift + scale * target.sample(250, stream("scipy"))
    m = 100_000
    quantiles = target.quantile((torch.arange(m, dtype=torch.float64) + 0.5) / m)
    reference = scipy.stats.wasserstein_distance(x[:, 0].numpy(), quantiles.numpy())
    assert w1.evaluate(x, target) == pytest.approx(reference, abs=3e-5 * target.std)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("n", [1, 2, 3, 100])
def test_w1_of_the_normal_law_agrees_with_its_closed_form(n: int, scale: float) -> None:
    x = scale * Normal().sample(n, stream("closed form", n))
    norm = scipy.stats.norm
    total = 0.0
    for i, value in enumerate(np.sort(x[:, 0].numpy())):
        low, high = i / n, (i + 1) / n
        cut = float(np.clip(norm.cdf(value), low, high))
        at_low, at_cut, at_high = (norm.pdf(norm.ppf(u)) for u in (low, cut, high))  # minus the integral of Q
        total += value * (cut - low) + at_cut - at_low - value * (high - cut) + at_cut - at_high
    assert w1.evaluate(x, Normal()) == pytest.approx(total, rel=1e-7)


def test_w1_of_a_law_with_atoms_is_the_misplaced_mass() -> None:
    assert w1.evaluate(column(0, 0, 0, 1), Coin()) == pytest.approx(0.25, rel=1e-12)
    assert w1.evaluate(column(0, 0, 1, 1), Coin()) == 0
    assert w1.evaluate(column(0.25, 0.5), Coin()) == pytest.approx(0.5 * 0.25 + 0.5 * 0.5, rel=1e-12)


def test_w1_floor_has_the_published_values() -> None:
    assert w1.floor(Uniform(), 10_000) == pytest.approx(0.003133, abs=5e-7)
    assert w1.floor(Uniform(-1.0, 1.0), 100) == pytest.approx(2 * 0.03133, abs=1e-5)
    spread, _ = scipy.integrate.quad(lambda x: math.sqrt(scipy.stats.norm.cdf(x) * scipy.stats.norm.sf(x)), -30, 30)
    assert w1.floor(Normal(), 4) == pytest.approx(math.sqrt(2 / math.pi) * spread / 2, rel=1e-6)
    assert w1.floor(Coin(), 100) == pytest.approx(math.sqrt(2 / math.pi) * 0.5 / 10, rel=1e-6)


# --- ks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.2, 5.0])
def test_ks_agrees_with_scipy(shift: float) -> None:
    for n in (1, 2, 57, 1000):
        x = shift + Uniform().sample(n, stream("ks", n))
        reference = scipy.stats.kstest(x[:, 0].numpy(), "uniform").statistic
        assert ks.evaluate(x, Uniform()) == pytest.approx(reference, abs=1e-14)
        z = shift + Normal().sample(n, stream("ks", n))
        assert ks.evaluate(z, Normal()) == pytest.approx(
            scipy.stats.kstest(z[:, 0].numpy(), "norm").statistic, abs=1e-14
        )


def test_ks_counts_ties_once_and_knows_atoms() -> None:
    assert ks.evaluate(column(0.5, 0.5, 0.5), Uniform()) == pytest.approx(0.5, abs=1e-15)
    assert ks.evaluate(column(0, 0, 1, 1), Coin()) == 0
    assert ks.evaluate(column(0, 0, 0, 1), Coin()) == pytest.approx(0.25, abs=1e-15)


def test_ks_of_samples_beyond_the_target_is_one() -> None:
    assert ks.evaluate(torch.full((7, 1), 1e8), Uniform()) == 1


# --- torus ------------------------------------------------------------------------------------------------------------


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
