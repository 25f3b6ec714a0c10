"""The exact answers against the definitions, in more digits than double precision has or by a much
finer quadrature.

Nobody can do better than the exact answer at an x that is a few last bits away from the one given.
That sets the tolerance here: where the posterior hangs on the last bits of x (between two atoms, at
tiny noise) an answer may be that far off, and not more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion.datasets import (
    Checkerboard,
    Dataset,
    EightGaussians,
    FourPoints,
    Gaussian,
    GaussianMixture,
    Moons,
    PointSet,
    SwissRoll,
    Torus,
    Uniform,
)
from diffusion.randomness import stream

if TYPE_CHECKING:
    from collections.abc import Iterator

ULP = 2.0**-53


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def answers(dataset: Dataset, x: Tensor, alpha: float, sigma: float) -> dict[str, Any]:
    names = ("log_density", "denoise", "score", "posterior_variance")
    return {name: getattr(dataset, name)(x, number(alpha), number(sigma)).tolist() for name in names}


def last_bits(x: list[float], alpha: float, reach: float) -> float:
    """Eight last bits of x, or of the data as they enter it."""
    return 8 * ULP * (math.hypot(*x) + alpha * reach)


# --- mixtures and atoms ---------------------------------------------------------------------------


def mixture_by_definition(
    weights: list[float], means: list[list[float]], stds: list[float], alpha: float, sigma: float, x: list[float]
) -> dict[str, Any]:
    """Sums over the components as the textbook has them, in the digits of the moment."""
    A, S = mpmath.mpf(alpha), mpmath.mpf(sigma)
    X = [mpmath.mpf(c) for c in x]
    d = len(x)
    shares, centres, spreads, pulls = [], [], [], []
    for w, mu, s in zip(weights, means, stds, strict=True):
        m = [mpmath.mpf(c) for c in mu]
        s2 = mpmath.mpf(s) ** 2
        v = A**2 * s2 + S**2
        q = sum((a - A * b) ** 2 for a, b in zip(X, m, strict=True))
        shares.append(mpmath.mpf(w) * mpmath.exp(-q / (2 * v)) * (2 * mpmath.pi * v) ** (-mpmath.mpf(d) / 2))
        centres.append([(A * s2 * a + S**2 * b) / v for a, b in zip(X, m, strict=True)])
        spreads.append(d * s2 * S**2 / v)
        pulls.append([(A * b - a) / v for a, b in zip(X, m, strict=True)])
    mass = sum(shares)
    r = [share / mass for share in shares]
    D = [sum(p * c[j] for p, c in zip(r, centres, strict=True)) for j in range(d)]
    return {
        "log_density": mpmath.log(mass),
        "denoise": D,
        "score": [sum(p * g[j] for p, g in zip(r, pulls, strict=True)) for j in range(d)],
        "posterior_variance": sum(
            p * (spread + sum((c[j] - D[j]) ** 2 for j in range(d)))
            for p, spread, c in zip(r, spreads, centres, strict=True)
        ),
    }


class Skewed(PointSet):
    """Points that are not equally likely: one of them occurs three times."""

    registered_name = "skewed"

    @property
    def points(self) -> Tensor:
        return torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.3, -2.0]], dtype=torch.float64)


class Cloud(PointSet):
    """Points enough to be taken the quick way where the noise is not small."""

    registered_name = "cloud"

    @property
    def points(self) -> Tensor:
        return 5 + torch.randn(80, 2, generator=stream("cloud"), dtype=torch.float64)


MIXTURES: dict[str, Any] = {
    "four_points": FourPoints(),
    "four_points of the code": FourPoints("code"),
    "points in the plane": Skewed(),
    "a cloud of points": Cloud(),
    "gaussian_mixture": GaussianMixture(),
    "widths far apart": GaussianMixture((0.25, 0.5, 0.25), (0.0, 0.0, 7.0), (1.0, 1e-3, 0.3)),
    "in the plane": GaussianMixture((0.2, 0.5, 0.3), ((0.0, 0.0), (3.0, 1.0), (-2.0, 2.0)), (0.1, 0.2, 0.05)),
    "eight_gaussians": EightGaussians(),
}


def places(dataset: Any, alpha: float, sigma: float) -> Tensor:
    """On the data, halfway between two centres, a hair from there, thirty noise widths away and
    very far.
    """
    means = dataset.mixture.means[:8]
    generator = stream("places", alpha, sigma)
    on = alpha * dataset.sample(4, generator)
    noise = torch.randn(4, dataset.dim, generator=generator, dtype=torch.float64)
    noise = noise / noise.norm(dim=1, keepdim=True)
    halfway = alpha * 0.5 * (means[:-1] + means[1:])
    far = [on + 30 * sigma * noise, on + 1e3 * noise, 1e9 * noise, -1e9 * torch.ones(1, dataset.dim).double()]
    return torch.cat([on + sigma * noise, on - 3 * sigma * noise, halfway, halfway + sigma * sigma, *far])


@pytest.mark.parametrize("exponent", [-4, -3, -2, -1, 0, 1, 3])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("dataset", MIXTURES.values(), ids=MIXTURES.keys())
def test_mixtures_agree_with_their_definition_in_a_hundred_digits(dataset: Any, alpha: float, exponent: float) -> None:
    sigma = alpha * dataset.std * 10.0**exponent
    mixture = dataset.mixture
    reach = mixture.means.abs().max().item()
    x = places(dataset, alpha, sigma)
    found = answers(dataset, x, alpha, sigma)
    distribution = mixture.weights.tolist(), mixture.means.tolist(), mixture.stds.tolist()
    with mpmath.workdps(100):
        for i, point in enumerate(x.tolist()):
            true = mixture_by_definition(*distribution, alpha, sigma, point)
            bits = last_bits(point, alpha, reach)
            variance = true["posterior_variance"]
            steepness = alpha / mpmath.mpf(sigma) ** 2 * variance  # of D
            score = max(abs(c) for c in true["score"])
            size = max(abs(c) for c in true["denoise"])
            assert abs(found["log_density"][i] - true["log_density"]) <= (
                1e-14 * abs(true["log_density"]) + 1e-13 + 2 * score * bits
            )
            for j in range(dataset.dim):
                assert abs(found["denoise"][i][j] - true["denoise"][j]) <= 1e-14 * (reach + size) + 2 * steepness * bits
                rise = (1 + alpha * steepness) / mpmath.mpf(sigma) ** 2  # a bound of the slope of the score
                assert abs(found["score"][i][j] - true["score"][j]) <= 1e-13 * score + 2 * rise * bits
            swing = 4 * (reach + dataset.std) * alpha / mpmath.mpf(sigma) ** 2
            error = abs(found["posterior_variance"][i] - variance)
            assert error <= variance * (1e-12 + swing * bits) + 1e-150  # the reference has its last digits too


def test_two_equally_near_atoms_share_a_point_evenly_however_small_the_noise() -> None:
    x = torch.tensor([[-10.0], [-2.0], [5.5]], dtype=torch.float64)
    for sigma in (1e-4, 1e-2, 0.5):
        D = FourPoints().denoise(x, number(1.0), number(sigma))
        torch.testing.assert_close(D, x, rtol=0, atol=1e-14)
        variance = FourPoints().posterior_variance(x, number(1.0), number(sigma))
        torch.testing.assert_close(variance, torch.tensor([25.0, 9.0, 20.25]).double(), rtol=1e-14, atol=0)


def test_far_away_the_outermost_atom_is_the_only_one_left() -> None:
    x = torch.tensor([[-1e9], [-1e3], [1e3], [1e9]], dtype=torch.float64)
    ends = torch.tensor([[-15.0], [-15.0], [10.0], [10.0]], dtype=torch.float64)
    for sigma in (1e-4, 1e-2, 1.0):
        assert torch.equal(FourPoints().denoise(x, number(1.0), number(sigma)), ends)
        assert (FourPoints().posterior_variance(x, number(1.0), number(sigma)) <= 1e-300).all()


def test_score_between_separated_atoms_does_not_know_their_weights() -> None:
    """Erratum S1-13: near one atom the weights enter the score by ``exp(-|a - b|^2 / 2 sigma^2)``
    only.
    """

    class TenPoints(PointSet):
        registered_name = "ten points"

        @property
        def points(self) -> Tensor:
            return torch.tensor([-15.0, *[15.0] * 9], dtype=torch.float64)[:, None]

    class TwoPoints(PointSet):
        registered_name = "two points"

        @property
        def points(self) -> Tensor:
            return torch.tensor([-15.0, 15.0], dtype=torch.float64)[:, None]

    x = torch.tensor([[-14.0]], dtype=torch.float64)
    scores = [d.score(x, number(1.0), number(0.5)).item() for d in (TenPoints(), TwoPoints())]
    assert scores == [-4.0, -4.0]
    middle = torch.tensor([[0.1]], dtype=torch.float64)
    assert (
        TenPoints().score(middle, number(1.0), number(5.0)) > TwoPoints().score(middle, number(1.0), number(5.0)) + 0.1
    )


# --- one dimension, by quadrature -----------------------------------------------------------------


def composite(low: float, high: float, panels: int, n: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a composite Gauss-Legendre rule."""
    u, w = np.polynomial.legendre.leggauss(n)
    edges = np.linspace(low, high, panels + 1)
    width = (edges[1:] - edges[:-1])[:, None]
    return (edges[:-1, None] + width * 0.5 * (1 + u)).ravel(), (width * 0.5 * w).ravel()


def bell(x: np.ndarray, m: float, s: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))


def line() -> Iterator[Any]:
    """A target on the line, and its clean law as points with weights, made from the definition
    alone.
    """
    x, w = composite(-16, 16, 400)
    yield pytest.param(Gaussian(), x, w * bell(x, 0, 1), id="gaussian")
    yield pytest.param(Gaussian(3.0, 0.5), 3 + x / 2, w * bell(x, 0, 1), id="gaussian off centre")
    x, w = composite(-20, 20, 800)
    yield pytest.param(GaussianMixture(), x, w * (0.3 * bell(x, -2, 0.2) + 0.7 * bell(x, 2, 1)), id="gaussian_mixture")
    x, w = composite(0, 1, 200)
    yield pytest.param(Uniform(), x, w, id="uniform")
    yield pytest.param(FourPoints(), np.array([-15.0, -5.0, 1.0, 10.0]), np.full(4, 0.25), id="four_points")
    yield pytest.param(FourPoints("code"), np.array([-15.0, -5.0, 1.0, 15.0]), np.full(4, 0.25), id="four_points, code")


@pytest.mark.parametrize(("dataset", "nodes", "weights"), list(line()))
@pytest.mark.parametrize("alpha", [1.0, 0.4])
@pytest.mark.parametrize("nsr", [0.1, 0.5, 2.0, 50.0])
def test_targets_on_the_line_agree_with_quadrature_over_the_clean_law(
    dataset: Dataset, nodes: np.ndarray, weights: np.ndarray, alpha: float, nsr: float
) -> None:
    sigma = alpha * nsr * dataset.std
    middle, width = alpha * dataset.mean[0], math.hypot(alpha * dataset.std, sigma)
    x = torch.linspace(middle - 5 * width, middle + 5 * width, 41, dtype=torch.float64)[:, None]
    found = answers(dataset, x, alpha, sigma)
    for i, (point,) in enumerate(x.tolist()):
        joint = weights * bell(point - alpha * nodes, 0, sigma)
        p = joint.sum()
        D = (joint * nodes).sum() / p
        variance = (joint * (nodes - D) ** 2).sum() / p
        assert found["log_density"][i] == pytest.approx(math.log(p), rel=1e-10, abs=1e-10)
        assert found["denoise"][i][0] == pytest.approx(D, rel=1e-9, abs=1e-10 * dataset.std)
        assert found["posterior_variance"][i] == pytest.approx(variance, rel=1e-8, abs=1e-12 * dataset.std**2)
        assert found["score"][i][0] == pytest.approx((alpha * D - point) / sigma**2, rel=1e-9, abs=1e-9 / sigma)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("exponent", [-4, -2, 0, 3])
def test_gaussian_is_its_textbook_conditioning_in_fifty_digits(alpha: float, exponent: float) -> None:
    dataset = Gaussian((1.0, -2.0, 300.0), (0.5, 1e-3, 20.0), 3)
    sigma = 10.0**exponent
    x = torch.cat([alpha * dataset.sample(5, stream("gaussian")), 1e9 * torch.ones(1, 3).double()])
    found = answers(dataset, x, alpha, sigma)
    with mpmath.workdps(50):
        A, S = mpmath.mpf(alpha), mpmath.mpf(sigma)
        for i, point in enumerate(x.tolist()):
            log_p, variance = mpmath.mpf(0), mpmath.mpf(0)
            for j, (c, m, s) in enumerate(zip(map(mpmath.mpf, point), dataset.mean, (0.5, 1e-3, 20.0), strict=True)):
                v = (A * mpmath.mpf(s)) ** 2 + S**2
                D = m + A * mpmath.mpf(s) ** 2 / v * (c - A * m)
                assert abs(found["denoise"][i][j] - D) <= 1e-14 * (abs(D) + abs(m))
                assert abs(found["score"][i][j] - (A * m - c) / v) <= 1e-15 * (abs(A * m) + abs(c)) / v
                log_p -= ((c - A * m) ** 2 / v + mpmath.log(2 * mpmath.pi * v)) / 2
                variance += mpmath.mpf(s) ** 2 * S**2 / v
            assert abs(found["log_density"][i] - log_p) <= 1e-12 * max(1, abs(log_p))
            assert abs(found["posterior_variance"][i] - variance) <= 1e-14 * variance


# --- quantiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dataset",
    [GaussianMixture(), GaussianMixture((0.5, 0.25, 0.25), (0.0, 0.0, 9.0), (1e-3, 3.0, 0.1)), Gaussian(2.0, 3.0)],
    ids=["default", "needle", "gaussian"],
)
def test_quantiles_invert_the_distribution_function_in_fifty_digits_far_into_the_tails(dataset: Any) -> None:
    """``F(Q(u)) = u`` to 1e-12 of the smaller tail, and Q itself to what the slope of F makes of
    that.
    """
    parts = (
        [(1.0,), (2.0,), (3.0,)] if isinstance(dataset, Gaussian) else [dataset.weights, dataset.means, dataset.stds]
    )
    distribution = list(zip(*parts, strict=True))
    u = [1e-300, 1e-100, 1e-20, 1e-9, 0.01, 0.25, 0.2999, 0.3, 0.30001, 0.5, 0.75, 0.9, 1 - 1e-9, 1 - 2.0**-50]
    x = dataset.quantile(torch.tensor(u, dtype=torch.float64)).tolist()
    with mpmath.workdps(50):
        for point, share in zip(x, u, strict=True):
            z = [(w, (mpmath.mpf(point) - m) / s) for w, m, s in distribution]
            if share < 0.5:
                found, wanted = sum(w * mpmath.ncdf(t) for w, t in z), mpmath.mpf(share)
            else:
                found, wanted = sum(w * mpmath.ncdf(-t) for w, t in z), 1 - mpmath.mpf(share)
            slope = sum(w * mpmath.npdf(t) / s for (w, t), (_, _, s) in zip(z, distribution, strict=True))
            assert abs(found - wanted) <= 1e-12 * wanted + 4 * ULP * abs(point) * slope


def test_quantiles_of_zero_and_one_are_the_ends_of_the_support() -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert GaussianMixture().quantile(ends).tolist() == [-math.inf, math.inf]
    assert Gaussian().quantile(ends).tolist() == [-math.inf, math.inf]
    assert FourPoints().quantile(ends).tolist() == [-15, 10]
    assert FourPoints("code").quantile(torch.tensor([0.25, 0.2500001, 0.5, 0.75]).double()).tolist() == [-15, -5, -5, 1]


def test_distribution_functions_are_for_the_line() -> None:
    for dataset in (
        Gaussian(dim=2),
        GaussianMixture((0.5, 0.5), ((0.0, 0.0), (1.0, 1.0)), (1.0, 1.0)),
        Skewed(),
    ):
        assert not dataset.has_cdf
        for function in (dataset.cdf, dataset.quantile):
            with pytest.raises(NotImplementedError, match="on the line only"):
                function(torch.tensor([0.5], dtype=torch.float64))


# --- checkerboard ---------------------------------------------------------------------------------


def cell_by_definition(low: Any, high: Any, A: Any, S: Any, x: Any) -> tuple[Any, Any, Any]:
    """Noised density, posterior mean and variance of U[low, high], seen in the upper tail."""
    flip = A * (low + high) / 2 > x
    near, far = ((A * low - x) / S, (A * high - x) / S) if flip else ((x - A * high) / S, (x - A * low) / S)
    mass = (mpmath.erfc(near / mpmath.sqrt(2)) - mpmath.erfc(far / mpmath.sqrt(2))) / 2
    pull = (mpmath.npdf(near) - mpmath.npdf(far)) / mass
    gap = (pull - near) * S / A
    spread = 1 + (near * mpmath.npdf(near) - far * mpmath.npdf(far)) / mass - pull**2
    return mass / (A * (high - low)), low + gap if flip else high - gap, spread * (S / A) ** 2


def checkerboard_by_definition(dataset: Checkerboard, alpha: float, sigma: float, point: list[float]) -> dict[str, Any]:
    """Sums over the black cells, one by one."""
    A, S = mpmath.mpf(alpha), mpmath.mpf(sigma)
    side = 2 * mpmath.mpf(dataset.half_width) / dataset.cells
    ends = [(-dataset.half_width + i * side, -dataset.half_width + (i + 1) * side) for i in range(dataset.cells)]
    columns, rows = ([cell_by_definition(a, b, A, S, mpmath.mpf(c)) for a, b in ends] for c in point)
    black = [(i, j) for i in range(dataset.cells) for j in range(dataset.cells) if (i + j) % 2 == 0]
    shares = [columns[i][0] * rows[j][0] for i, j in black]
    mass = sum(shares)
    r = [share / mass for share in shares]
    D = [
        sum(p * columns[i][1] for p, (i, _) in zip(r, black, strict=True)),
        sum(p * rows[j][1] for p, (_, j) in zip(r, black, strict=True)),
    ]
    variance = sum(
        p * (columns[i][2] + rows[j][2] + (columns[i][1] - D[0]) ** 2 + (rows[j][1] - D[1]) ** 2)
        for p, (i, j) in zip(r, black, strict=True)
    )
    return {
        "log_density": mpmath.log(mass / len(black)),
        "denoise": D,
        "score": [(A * m - c) / S**2 for m, c in zip(D, map(mpmath.mpf, point), strict=True)],
        "posterior_variance": variance,
    }


@pytest.mark.parametrize("exponent", [-4, -2, -1, -0.3, 0, 1, 3])
@pytest.mark.parametrize(
    ("dataset", "alpha"), [(Checkerboard(), 1.0), (Checkerboard(1.0, 5), 0.25)], ids=["default", "of five, scaled"]
)
def test_checkerboard_agrees_with_the_sum_over_its_cells_in_many_digits(
    dataset: Checkerboard, alpha: float, exponent: float
) -> None:
    sigma = alpha * dataset.half_width * 10.0**exponent
    generator = stream("checkerboard", exponent)
    on = alpha * dataset.sample(4, generator)
    noise = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    noise = noise / noise.norm(dim=1, keepdim=True)
    h = alpha * dataset.half_width
    fixed = torch.tensor([[0.0, 0.0], [h, h], [h / 2, -h / 2], [0.3 * h, h + sigma], [-h, 3 * h]], dtype=torch.float64)
    far = [on + 30 * sigma * noise, on + 1e3 * noise, torch.tensor([[1e7, 3.0], [-2e7, 1e7]]).double()]
    x = torch.cat([on, on + sigma * noise, on - 4 * sigma * noise, fixed, *far])
    found = answers(dataset, x, alpha, sigma)
    digits = 60 if exponent > -3 else 100
    for i, point in enumerate(x.tolist()):
        # The textbook formula loses as many digits as the square of the distance has, and as the
        # noise is large.
        with mpmath.workdps(digits + (0 if max(map(abs, point)) < 100 else 60)):
            true = checkerboard_by_definition(dataset, alpha, sigma, point)
            bits = last_bits(point, alpha, dataset.half_width)
            variance = true["posterior_variance"]
            steepness = alpha / mpmath.mpf(sigma) ** 2 * variance
            score = max(abs(c) for c in true["score"])
            log_p = true["log_density"]
            assert abs(found["log_density"][i] - log_p) <= 1e-12 * max(1, abs(log_p)) + 2 * score * bits
            for j in (0, 1):
                assert abs(found["denoise"][i][j] - true["denoise"][j]) <= (
                    1e-14 * dataset.half_width + 2 * steepness * bits
                )
                rise = (1 + alpha * steepness) / mpmath.mpf(sigma) ** 2
                assert abs(found["score"][i][j] - true["score"][j]) <= (
                    1e-11 * max(score, 1e-4 / sigma) + 2 * rise * bits
                )
            swing = 8 * dataset.half_width * alpha / mpmath.mpf(sigma) ** 2
            assert abs(found["posterior_variance"][i] - variance) <= variance * (2e-11 + swing * bits)


def test_checkerboard_has_black_where_the_definition_says_and_nothing_elsewhere() -> None:
    x = Checkerboard().sample(5000, stream("black"))
    assert x.abs().max() <= 2
    column, row = torch.floor(x + 2).clamp(0, 3).T
    assert ((column + row) % 2 == 0).all()
    lower_left = torch.tensor([[-1.5, -1.5], [-0.5, -1.5]], dtype=torch.float64)
    p = Checkerboard().log_density(lower_left, number(1.0), number(0.01)).exp()
    torch.testing.assert_close(p, torch.tensor([1 / 8, 0.0]).double(), rtol=1e-12, atol=1e-300)
    assert Checkerboard().mode_of(torch.tensor([[-1.5, -1.5], [1.5, 1.5], [9.0, 9.0], [-0.5, -1.9]]).double()).tolist()[
        :3
    ] == [0, 7, 7]


# --- curves ---------------------------------------------------------------------------------------


def fine_curve(dataset: Any, panels: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Points of the clean curve with weights, in long double: 64,000 an arc, whatever the noise."""
    u, w = np.polynomial.legendre.leggauss(16)
    ranges = [(0.0, math.pi)] * 2 if isinstance(dataset, Moons) else [(1.5 * math.pi, 4.5 * math.pi)]
    points, weights = [], []
    for arc, (low, high) in enumerate(ranges):
        edges = np.linspace(low, high, panels + 1).astype(np.longdouble)
        t = (edges[:-1, None] + np.diff(edges)[:, None] * (0.5 * (1 + u))).ravel()
        if isinstance(dataset, SwissRoll):
            c = [t * np.cos(t) / 10, t * np.sin(t) / 10]
        else:
            c = [np.cos(t), np.sin(t)] if arc == 0 else [1 - np.cos(t), 0.5 - np.sin(t)]
        points.append(np.stack(c))
        weights.append(np.tile(0.5 * w.astype(np.longdouble), panels) / panels / len(ranges))
    return np.concatenate(points, axis=1), np.concatenate(weights)


CURVES = [Moons(), SwissRoll(), Moons(0.01), SwissRoll(0.02), Moons(0.7), SwissRoll(30.0)]


@pytest.mark.parametrize("dataset", CURVES, ids=lambda d: d.label())
def test_curves_agree_with_a_much_finer_quadrature_near_far_and_at_thirty_noise_widths(dataset: Any) -> None:
    points, weights = fine_curve(dataset)
    s = np.longdouble(dataset.noise)
    for alpha, sigma in ((1.0, 1e-4), (1.0, 0.02), (1.0, 0.2), (0.3, 0.3), (1.0, 3.0), (1e-2, 1e3)):
        generator = stream("curves", alpha, sigma)
        x0 = dataset.sample(15, generator)
        noise = torch.randn(15, 2, generator=generator, dtype=torch.float64)
        length = torch.tensor([*[0.0] * 5, *[30.0] * 5, *[300.0] * 5]).double() / noise.norm(dim=1)
        x = alpha * x0 + sigma * torch.where(length[:, None] > 0, length[:, None], 1.0) * noise
        found = answers(dataset, x, alpha, sigma)
        A, S = np.longdouble(alpha), np.longdouble(sigma)
        v = (A * s) ** 2 + S**2
        for i, point in enumerate(x.numpy().astype(np.longdouble)):
            q = ((point[:, None] - A * points) ** 2).sum(0)
            r = weights * np.exp(-(q - q.min()) / (2 * v))
            mass = r.sum()
            r /= mass
            C = (r * points).sum(1)
            spread = (r * ((points - C[:, None]) ** 2).sum(0)).sum()
            log_p = float(np.log(mass) - q.min() / (2 * v) - np.log(2 * np.pi * v))
            assert found["log_density"][i] == pytest.approx(log_p, rel=1e-11, abs=1e-11)
            D, score = (A * s**2 * point + S**2 * C) / v, (A * C - point) / v
            np.testing.assert_allclose(found["denoise"][i], D.astype(float), rtol=1e-12, atol=1e-11 * dataset.std)
            np.testing.assert_allclose(
                found["score"][i], score.astype(float), rtol=1e-10, atol=float(1e-10 / np.sqrt(v))
            )
            variance = 2 * (s * S) ** 2 / v + (S**2 / v) ** 2 * spread
            assert found["posterior_variance"][i] == pytest.approx(float(variance), rel=1e-10)


@pytest.mark.parametrize("distance", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("angle", [1.5, 2.2, 2.9])
def test_moons_seen_from_very_far_above_are_the_nearest_part_of_the_first_arc(distance: float, angle: float) -> None:
    """The parameter t has the weight ``exp(kappa cos(t - angle))``, ``kappa = |x| / v``: moments by
    their series.
    """
    dataset, sigma = Moons(), 0.1
    direction = [math.cos(angle), math.sin(angle)]
    found = answers(dataset, distance * torch.tensor([direction], dtype=torch.float64), 1.0, sigma)
    v = dataset.noise**2 + sigma**2
    kappa = distance / v
    mean_cosine = 1 - 1 / (2 * kappa) - 1 / (8 * kappa**2)
    D = [(dataset.noise**2 * distance + sigma**2 * mean_cosine) * c / v for c in direction]
    np.testing.assert_allclose(found["denoise"][0], D, rtol=1e-14, atol=1e-11)
    variance = 2 * (dataset.noise * sigma) ** 2 / v + (sigma**2 / v) ** 2 / kappa
    assert found["posterior_variance"][0] == pytest.approx(variance, rel=1e-9)
    log_p = -((distance - 1) ** 2) / (2 * v) - math.log(2 * math.pi * v)  # exp(kappa (cos t - 1)) has this integral:
    log_p += math.log(math.sqrt(2 * math.pi / kappa) / (2 * math.pi)) + 1 / (8 * kappa)
    assert found["log_density"][0] == pytest.approx(log_p, rel=1e-14, abs=1e-6)


@pytest.mark.parametrize("distance", [1e2, 1e4, 1e6])
def test_the_end_of_the_roll_seen_from_very_far_has_the_posterior_of_the_last_bit_of_it(distance: float) -> None:
    """The end is nearest, the weight falls off exponentially along the curve: adaptive quadrature
    over ``u = 4.5 pi - t``.
    """
    dataset, sigma = SwissRoll(), 0.1
    end = [0.0, 0.45 * math.pi]
    outward = [-0.3, 0.95]  # the curve goes on towards -x, and bends to -y
    x = [e + distance * o for e, o in zip(end, outward, strict=True)]
    found = answers(dataset, torch.tensor([x], dtype=torch.float64), 1.0, sigma)
    v = dataset.noise**2 + sigma**2
    with mpmath.workdps(40):

        def place(u: Any) -> list[Any]:
            t = 4.5 * mpmath.pi - u
            return [t * mpmath.cos(t) / 10, t * mpmath.sin(t) / 10]

        def exponent(u: Any) -> Any:
            return -sum((mpmath.mpf(a) - b) ** 2 for a, b in zip(x, place(u), strict=True)) / (2 * mpmath.mpf(v))

        top = exponent(mpmath.mpf(0))
        reach = 90 * v / distance  # the slope of the exponent is 0.5 |x| / v there
        cuts = [reach * i / 6 for i in range(7)]
        mass = mpmath.quad(lambda u: mpmath.exp(exponent(u) - top), cuts)
        C = [
            float(mpmath.quad(lambda u, j=j: place(u)[j] * mpmath.exp(exponent(u) - top), cuts) / mass) for j in (0, 1)
        ]
        log_p = float(mpmath.log(mass / (3 * mpmath.pi)) + top - mpmath.log(2 * mpmath.pi * v))
    D = [(dataset.noise**2 * a + sigma**2 * c) / v for a, c in zip(x, C, strict=True)]
    np.testing.assert_allclose(found["denoise"][0], D, rtol=1e-13, atol=1e-11)
    assert found["log_density"][0] == pytest.approx(log_p, rel=1e-13, abs=1e-9)


@pytest.mark.parametrize("cls", [Moons, SwissRoll])
def test_curves_thinner_than_the_quadrature_can_follow_are_refused(cls: Any) -> None:
    for noise in (0.0, 0.009, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"{cls.registered_name}: noise = .* needed: a number from 0.01 to 100"):
            cls(noise)


@pytest.mark.parametrize("dataset", CURVES, ids=lambda d: d.label())
def test_moments_of_the_curves_are_integrals_along_them(dataset: Any) -> None:
    points, weights = fine_curve(dataset)
    mean = (weights * points).sum(1)
    np.testing.assert_allclose(np.array(dataset.mean), mean.astype(float), rtol=0, atol=1e-15)
    square = (weights * ((points - mean[:, None]) ** 2).sum(0)).sum() / 2 + dataset.noise**2
    assert dataset.std == pytest.approx(float(np.sqrt(square)), rel=1e-14)


def test_nearest_arc_is_the_one_that_a_search_along_both_finds() -> None:
    dataset = Moons()
    x = 3 * torch.randn(400, 2, generator=stream("arcs"), dtype=torch.float64)
    t = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    arcs = [torch.stack([t.cos(), t.sin()], -1), torch.stack([1 - t.cos(), 0.5 - t.sin()], -1)]
    nearest = torch.stack([torch.cdist(x, arc).amin(1) for arc in arcs])
    clear = (nearest[0] - nearest[1]).abs() > 1e-7
    assert clear.sum() > 390
    assert torch.equal(dataset.mode_of(x)[clear], nearest.argmin(0)[clear])


# --- what the classes refuse ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: FourPoints("slides"), "accepted: text, code"),  # type: ignore[arg-type]
        (lambda: Gaussian(dim=0), "dim = 0"),
        (lambda: Gaussian((1.0, 2.0)), "2 entries, dim = 1"),
        (lambda: Gaussian(math.nan), "finite"),
        (lambda: Gaussian(0.0, 0.0), "positive"),
        (lambda: Gaussian(0.0, (1.0, -1.0), 2), "positive"),
        (lambda: GaussianMixture((0.5,)), "1 weights, 2 means, 2 stds"),
        (lambda: GaussianMixture((), (), ()), "at least one component"),
        (lambda: GaussianMixture((0.5, 0.5), ((0.0, 1.0), (1.0,)), (1.0, 1.0)), "points of one dimension"),
        (lambda: GaussianMixture((0.5, 0.5), ((), ()), (1.0, 1.0)), "points of one dimension"),
        (lambda: GaussianMixture((0.5, 0.6)), "add up to 1.1"),
        (lambda: GaussianMixture((1.5, -0.5)), "positive"),
        (lambda: GaussianMixture(stds=(0.2, 0.0)), "positive"),
        (lambda: GaussianMixture(means=(0.0, math.inf)), "finite"),
        (lambda: EightGaussians(0.0), "radius = 0.0"),
        (lambda: EightGaussians(stds=math.inf), "stds = inf"),
        (lambda: Checkerboard(-1.0), "half_width = -1.0"),
        (lambda: Checkerboard(cells=1), "cells = 1"),
        (lambda: Checkerboard(cells=65), "from 2 to 64"),
    ],
)
def test_impossible_parameters_are_refused_with_a_reason(make: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()


def test_one_law_has_one_spelling() -> None:
    assert Gaussian((0.0, 0.0), 1, 2).spec() == Gaussian(0.0, (1.0, 1.0), 2).spec()
    assert GaussianMixture(means=((-2.0,), (2,))).spec() == GaussianMixture().spec()
    assert GaussianMixture((1.0,), ((1.0, 2.0),), (1.0,)).means == ((1.0, 2.0),)


# --- memory ---------------------------------------------------------------------------------------


class _Large(TorchDispatchMode):
    """Counts the tensors made that have the batch as an axis, views aside."""

    def __init__(self, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch, self.count = batch, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and not func.is_view and self.batch in found.shape:
            self.count += 1
        return found


@pytest.mark.parametrize("dataset", [Uniform(), Torus(), Checkerboard()], ids=lambda one: one.registered_name)
@pytest.mark.parametrize("sigma", [0.05, 3.0])
def test_answers_about_many_points_hold_no_temporaries_of_them_all(dataset: Dataset, sigma: float) -> None:
    """What is made for the whole batch are the answers, and of the torus a few sums of both in the end."""
    x = torch.randn(1, 1 << 16, dataset.dim, generator=stream("many"), dtype=torch.float64)
    level = torch.full((1, 1), sigma, dtype=torch.float64)
    for name in ("log_density", "denoise", "score", "posterior_variance"):
        with _Large(x.shape[1]) as large:
            getattr(dataset, name)(x, torch.ones_like(level), level)
        assert large.count <= 8, name
