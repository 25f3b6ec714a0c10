"""Every registered target keeps its contract; the exact ones are exact."""

from __future__ import annotations

import dataclasses
import math

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.datasets import (
    Checkerboard,
    Dataset,
    EightGaussians,
    FourPoints,
    Gaussian,
    GaussianMixture,
    GaussianMixturePosterior,
    LinearSubspace,
    Moons,
    PointSet,
    Standardised,
    SwissRoll,
    Torus,
    Uniform,
    datasets,
)
from diffusion.randomness import stream


class Cloud(PointSet):
    """More points than a few."""

    registered_name = "cloud"

    @property
    def points(self) -> Tensor:
        return 2 + torch.randn(90, 2, generator=stream("cloud"), dtype=torch.float64)


NEEDS_A_FILE = {"from_file", "images"}  # have tests of their own, beside the module that reads it
DEFAULTS = {entry.name: entry.cls for entry in datasets if entry.name not in NEEDS_A_FILE}
VARIANTS: dict[str, Dataset] = {
    **{name: cls() for name, cls in DEFAULTS.items()},
    "uniform[-1, 1]": Uniform(-1.0, 1.0),
    "uniform[5, 5.5]": Uniform(5.0, 5.5),
    "torus by angle": Torus(3.0, 1.0, "angle"),
    "torus with a narrow hole": Torus(1.0, 0.9),
    "four points of the code": FourPoints("code"),
    "gaussian off centre": Gaussian(3.0, 0.01),
    "gaussian in five dimensions": Gaussian((1.0, -2.0, 0.0, 0.5, 9.0), (1.0, 0.1, 2.0, 0.5, 1.0), 5),
    "mixture of one": GaussianMixture((1.0,), (4.0,), (0.5,)),
    "mixture of widths": GaussianMixture((0.25, 0.5, 0.25), (0.0, 0.0, 7.0), (1.0, 0.01, 0.3)),
    "mixture in the plane": GaussianMixture((0.2, 0.5, 0.3), ((0.0, 0.0), (3.0, 1.0), (-2.0, 2.0)), (0.1, 0.2, 0.05)),
    "mixture in space, overlapping": GaussianMixture((0.6, 0.4), ((0.0, 1.0, 0.0), (1.0, 0.0, 0.5)), (1.0, 0.5)),
    "a cloud of points": Cloud(),
    "eight wide gaussians": EightGaussians(1.0, 0.5),
    "checkerboard of five": Checkerboard(1.0, 5),
    "checkerboard of two": Checkerboard(3.0, 2),
    "thin moons": Moons(0.01),
    "blurred moons": Moons(1.0),
    "thin swiss roll": SwissRoll(0.015),
    "a subspace without noise": LinearSubspace(EightGaussians(), 5, 0.0),
    "standardised mixture, as models see it": Standardised(EightGaussians(30.0, 2.0)).working,
    "standardised points, as models see them": Standardised(Cloud(), each=True).working,
}
EXACT = {name: dataset for name, dataset in VARIANTS.items() if dataset.exact}
SCALAR = {name: dataset for name, dataset in VARIANTS.items() if dataset.has_cdf}
MODAL = {name: dataset for name, dataset in VARIANTS.items() if dataset.mode_weights is not None}
BOUNDED = (Uniform, Torus, PointSet, Checkerboard)
NOISED = ["denoise", "log_density", "score", "posterior_variance"]

every = pytest.mark.parametrize("dataset", VARIANTS.values(), ids=VARIANTS.keys())
every_exact = pytest.mark.parametrize("dataset", EXACT.values(), ids=EXACT.keys())
every_scalar = pytest.mark.parametrize("dataset", SCALAR.values(), ids=SCALAR.keys())
every_modal = pytest.mark.parametrize("dataset", MODAL.values(), ids=MODAL.keys())


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def noised(dataset: Dataset, n: int, alpha: float, sigma: float, *name: object) -> Tensor:
    generator = stream("test-datasets", *name)
    noise = torch.randn(n, dataset.dim, generator=generator, dtype=torch.float64)
    return alpha * dataset.sample(n, generator) + sigma * noise


# --- the contract ---------------------------------------------------------------------------------


def test_only_targets_that_read_a_file_have_parameters_without_a_default() -> None:
    required = {
        entry.name
        for entry in datasets
        if any(
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            for field in dataclasses.fields(entry.cls)
        )
    }
    assert required <= NEEDS_A_FILE


@every
def test_samples_have_the_stated_shape_type_and_are_repeated_by_their_generator(dataset: Dataset) -> None:
    first, again = (dataset.sample(17, stream("repeat")) for _ in range(2))
    assert first.shape == (17, dataset.dim)
    assert first.dtype == torch.float64
    assert torch.equal(first, again)
    assert len(dataset.mean) == dataset.dim


@every
def test_moments_of_samples_are_the_stated_ones(dataset: Dataset) -> None:
    """4.5 standard errors: false alarms 7e-6 for each of the numbers compared."""
    n = 40_000
    x = dataset.sample(n, stream("moments", dataset.spec()))
    centred = x - torch.tensor(dataset.mean, dtype=torch.float64)
    assert (centred.mean(0).abs() <= 4.5 * x.std(0) / math.sqrt(n)).all()
    power = centred.square().mean(1)
    assert abs(power.mean() - dataset.std**2) <= 4.5 * power.std() / math.sqrt(n)


@every
def test_a_target_equals_a_second_one_of_the_same_parameters(dataset: Dataset) -> None:
    again = type(dataset)(**{field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset)})
    assert again == dataset
    assert hash(again) == hash(dataset)
    assert again.spec() == dataset.spec()


@every_scalar
def test_quantile_is_the_smallest_point_where_the_distribution_function_reaches_its_argument(dataset: Dataset) -> None:
    assert dataset.dim == 1
    u = torch.cat([torch.linspace(0.001, 0.999, 999, dtype=torch.float64), torch.logspace(-12, -4, 9).double()])
    x = dataset.quantile(u)
    assert (dataset.cdf(x) >= u - 1e-12).all()
    assert (dataset.cdf(x - 1e-9 * dataset.std) <= u + 1e-12).all()
    if not isinstance(dataset, PointSet):  # its distribution function is a staircase
        torch.testing.assert_close(dataset.cdf(x), u, rtol=0, atol=1e-12)
    assert torch.equal(dataset.quantile(u.reshape(8, -1)), x.reshape(8, -1))
    ends = torch.tensor([-math.inf, math.inf], dtype=torch.float64)
    assert dataset.cdf(ends).tolist() == [0, 1]
    assert torch.equal(dataset.cdf(dataset.quantile(torch.tensor([1.0], dtype=torch.float64))), number(1.0)[None])


@every_scalar
def test_samples_follow_the_distribution_function(dataset: Dataset) -> None:
    """Dvoretzky-Kiefer-Wolfowitz: false alarms ``2 exp(-2 * 2.5^2)`` = 7e-6."""
    n = 20_000
    x = dataset.sample(n, stream("cdf", dataset.spec()))[:, 0].sort().values
    share = torch.searchsorted(x, x, right=True) / n
    assert (dataset.cdf(x) - share).abs().max() <= 2.5 / math.sqrt(n) + 1 / n


@every
def test_what_a_target_does_not_have_is_refused_by_name(dataset: Dataset) -> None:
    x = dataset.sample(3, stream("refused"))
    if not dataset.has_cdf:
        for function in (dataset.cdf, dataset.quantile):
            with pytest.raises(NotImplementedError, match=f"'{dataset.registered_name}' has"):
                function(x[:, 0])
    if dataset.mode_weights is None and type(dataset).mode_of is Dataset.mode_of:
        with pytest.raises(NotImplementedError, match=f"'{dataset.registered_name}' has no separate modes"):
            dataset.mode_of(x)
    if not dataset.exact:
        for what in NOISED:
            with pytest.raises(NotImplementedError, match=f"'{dataset.registered_name}' has no exact"):
                getattr(dataset, what)(x, number(1.0), number(1.0))


@every_modal
def test_samples_belong_to_modes_as_often_as_stated(dataset: Dataset) -> None:
    """4.5 standard errors: false alarms 7e-6 for each mode."""
    n = 40_000
    weights = torch.tensor(dataset.mode_weights, dtype=torch.float64)
    assert weights.sum().item() == pytest.approx(1, abs=1e-12)
    mode = dataset.mode_of(dataset.sample(n, stream("modes", dataset.spec())))
    assert mode.dtype == torch.int64
    assert mode.shape == (n,)
    share = torch.bincount(mode, minlength=len(weights)) / n
    assert len(share) == len(weights), "a mode that is none"
    assert ((share - weights).abs() <= 4.5 * torch.sqrt(weights * (1 - weights) / n) + 1e-15).all()


# --- what is exact --------------------------------------------------------------------------------


def test_every_target_registered_here_is_exact_but_for_those_that_offer_samples_alone() -> None:
    assert VARIANTS.keys() - EXACT.keys() == {"streaked_moons"}


@every_exact
@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("nsr", [0.03, 0.3, 1.0, 30.0])
def test_score_is_the_gradient_of_log_density(dataset: Dataset, alpha: float, nsr: float) -> None:
    sigma = alpha * nsr * dataset.std
    x = noised(dataset, 20 if dataset.dim <= 3 else 4, alpha, sigma, "gradient")
    score = dataset.score(x, number(alpha), number(sigma))
    step = 1e-3 * sigma

    def slope(h: float, axis: Tensor) -> Tensor:
        right, left = (dataset.log_density(x + sign * h * axis, number(alpha), number(sigma)) for sign in (1, -1))
        return (right - left) / (2 * h)

    for k, axis in enumerate(torch.eye(dataset.dim, dtype=torch.float64)):
        richardson = (4 * slope(step, axis) - slope(2 * step, axis)) / 3
        assert (richardson - score[:, k]).abs().max() * sigma <= 1e-8


@every_exact
@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("nsr", [1e-3, 0.1, 1.0, 100.0])
def test_denoiser_obeys_tweedies_formula(dataset: Dataset, alpha: float, nsr: float) -> None:
    sigma = alpha * nsr * dataset.std
    x = noised(dataset, 200, alpha, sigma, "tweedie")
    by_score = (x + sigma**2 * dataset.score(x, number(alpha), number(sigma))) / alpha
    error = (by_score - dataset.denoise(x, number(alpha), number(sigma))).abs().max()
    assert error <= 1e-13 * (1 + nsr) * (1 + x.abs().max() / alpha)


@every_exact
@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("nsr", [0.01, 0.1, 1.0, 30.0])
def test_posterior_variance_is_the_divergence_of_the_denoiser(dataset: Dataset, alpha: float, nsr: float) -> None:
    """``tr Cov[x_0 | x] = sigma^2 / alpha  div D(x)``, the derivative by Richardson's
    extrapolation.
    """
    sigma = alpha * nsr * dataset.std
    x = noised(dataset, 20, alpha, sigma, "divergence")
    found = dataset.posterior_variance(x, number(alpha), number(sigma))
    step = 2e-3 * sigma
    divergence = torch.zeros_like(found)
    for k, axis in enumerate(torch.eye(dataset.dim, dtype=torch.float64)):
        ends = [dataset.denoise(x + h * step * axis, number(alpha), number(sigma))[:, k] for h in (1, -1, 2, -2)]
        divergence += (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * step)
    unit = dataset.dim * min(dataset.std, sigma / alpha) ** 2
    assert (found - sigma**2 / alpha * divergence).abs().max() <= 1e-8 * unit * max(1, nsr)
    assert (found >= 0).all()


@every_exact
@pytest.mark.parametrize("nsr", [0.05, 0.5, 5.0])
def test_mean_posterior_variance_is_the_loss_that_no_denoiser_falls_below(dataset: Dataset, nsr: float) -> None:
    """The loss of D and the posterior variance agree in the mean; 4.5 standard errors, false alarms
    7e-6.
    """
    n = 20_000 if dataset.dim <= 3 else 2_000  # many coordinates make the mean as sharp
    sigma = nsr * dataset.std
    generator = stream("loss", dataset.spec(), nsr)
    x0 = dataset.sample(n, generator)
    x = x0 + sigma * torch.randn(n, dataset.dim, generator=generator, dtype=torch.float64)
    loss = (dataset.denoise(x, number(1.0), number(sigma)) - x0).square().sum(-1)
    gap = loss - dataset.posterior_variance(x, number(1.0), number(sigma))
    assert abs(gap.mean()) <= 4.5 * gap.std() / math.sqrt(n) + 1e-15 * dataset.std**2


@pytest.mark.parametrize("dataset", [pytest.param(d, id=name) for name, d in EXACT.items() if d.dim <= 3])
def test_density_integrates_to_one_and_has_the_moments_of_the_noised_target(dataset: Dataset) -> None:
    """The trapezoidal rule on a lattice as wide as the law, spacing 0.6 sigma: its error is
    ``exp(-55)``.
    """
    alpha = 0.6
    sigma = 0.7 * alpha * dataset.std
    tails = 16 if isinstance(dataset, GaussianMixturePosterior) else 9  # of which a part is much wider than the whole
    reach = tails * math.hypot(alpha * dataset.std, sigma)
    steps = math.ceil(reach / (0.6 * sigma))
    line = reach / steps * torch.arange(-steps, steps + 1, dtype=torch.float64)
    mean = alpha * torch.tensor(dataset.mean, dtype=torch.float64)
    x = torch.cartesian_prod(*[line] * dataset.dim).reshape(-1, dataset.dim)
    p = dataset.log_density(x + mean, number(alpha), number(sigma)).exp() * (reach / steps) ** dataset.dim
    assert p.sum().item() == pytest.approx(1, abs=1e-11)
    assert ((p[:, None] * x).sum(0).abs() <= 1e-11 * reach).all()
    power = dataset.dim * ((alpha * dataset.std) ** 2 + sigma**2)
    assert (p * x.square().sum(-1)).sum().item() == pytest.approx(power, rel=1e-10)


@every_exact
@pytest.mark.parametrize("sigma", [1e-4, 1e-2, 1.0, 1e3])
def test_everything_is_finite_on_the_data_thirty_sigma_away_and_at_a_thousand_million(
    dataset: Dataset, sigma: float
) -> None:
    start = dataset.sample(20, stream("finite"))
    mean = torch.tensor(dataset.mean, dtype=torch.float64)
    outward = start - mean
    outward = outward / outward.norm(dim=1, keepdim=True)
    far = [start + distance * outward for distance in (0.0, 30 * sigma, -30 * sigma, 1e3, 1e9, -1e9)]
    x = torch.cat([*far, torch.zeros_like(start), mean.expand_as(start)])
    largest = 20 * (dataset.std + max(map(abs, dataset.mean)))
    for alpha in (0.0, 1e-3, 1.0):
        arguments = (x, number(alpha), number(sigma))
        D = dataset.denoise(*arguments)
        assert torch.isfinite(D).all()
        if isinstance(dataset, BOUNDED) or alpha == 0:
            assert D.abs().max() <= largest  # it averages data
        else:
            assert (D.norm(dim=1) <= math.sqrt(dataset.dim) * largest + x.norm(dim=1) / alpha).all()
        assert torch.isfinite(dataset.log_density(*arguments)).all()
        assert torch.isfinite(dataset.score(*arguments)).all()
        variance = dataset.posterior_variance(*arguments)
        assert torch.isfinite(variance).all()
        assert (variance >= 0).all()


@every_exact
def test_pure_noise_says_nothing_about_the_data(dataset: Dataset) -> None:
    x = 3 * torch.randn(30, dataset.dim, generator=stream("noise"), dtype=torch.float64)
    mean = torch.tensor(dataset.mean, dtype=torch.float64).expand_as(x)
    torch.testing.assert_close(dataset.denoise(x, number(0.0), number(2.0)), mean, rtol=1e-14, atol=1e-14)
    normal = -0.5 * (x / 2).square().sum(-1) - dataset.dim * (math.log(2) + 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(dataset.log_density(x, number(0.0), number(2.0)), normal, rtol=1e-13, atol=0)
    variance = torch.full((30,), dataset.dim * dataset.std**2, dtype=torch.float64)
    torch.testing.assert_close(dataset.posterior_variance(x, number(0.0), number(2.0)), variance, rtol=1e-13, atol=0)


@every_exact
@pytest.mark.parametrize("what", NOISED)
def test_a_point_does_not_depend_on_its_batch_to_the_last_bit(dataset: Dataset, what: str) -> None:
    sigma = dataset.std * torch.logspace(-3, 2, 6, dtype=torch.float64)[:, None]
    alpha = torch.linspace(0.2, 1.0, 6, dtype=torch.float64)[:, None]
    generator = stream("batch")
    x0 = torch.stack([dataset.sample(61, generator) for _ in range(6)])
    spread = 10 ** (2 * torch.rand(6, 61, 1, generator=generator, dtype=torch.float64))
    x = alpha[..., None] * x0 + spread * sigma[..., None] * torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    function = getattr(dataset, what)
    whole = function(x, alpha, sigma)
    for member in range(6):
        one = slice(member, member + 1)
        assert torch.equal(function(x[one], alpha[one], sigma[one]), whole[one])
        assert torch.equal(function(x[member], alpha[member], sigma[member]), whole[member])
    for rows in ([0], [60], list(range(3, 8)), list(range(60, -1, -2))):
        assert torch.equal(function(x[:, rows], alpha, sigma), whole[:, rows])
    per_point = function(x.reshape(-1, dataset.dim), alpha.expand(6, 61).reshape(-1), sigma.expand(6, 61).reshape(-1))
    assert torch.equal(per_point.reshape(whole.shape), whole)
    copies = 45 if dataset.dim <= 3 else 2  # more than one block; those of images hold fewer points
    many = function(x.repeat(1, copies, 1), alpha, sigma)
    assert torch.equal(many[:, -61:], whole)


@every_exact
def test_nan_stays_nan_and_stays_alone(dataset: Dataset) -> None:
    x = dataset.sample(9, stream("nan"))
    clean = dataset.denoise(x, number(1.0), number(0.5))
    x[4] = math.nan
    D = dataset.denoise(x, number(1.0), number(0.5))
    assert torch.isnan(D[4]).all()
    keep = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(D[keep], clean[keep])


# --- uniform --------------------------------------------------------------------------------------


def truncated_normal(low: float, high: float, alpha: float, sigma: float, x: float) -> dict[str, mpmath.mpf]:
    """The textbook formulas, in 150 digits, with both ends seen in the upper tail."""
    a, b, A, S, X = (mpmath.mpf(v) for v in (low, high, alpha, sigma, x))
    left = A * (a + b) / 2 > X
    near, far = ((A * a - X) / S, (A * b - X) / S) if left else ((X - A * b) / S, (X - A * a) / S)
    mass = (mpmath.erfc(near / mpmath.sqrt(2)) - mpmath.erfc(far / mpmath.sqrt(2))) / 2
    at_near, at_far = mpmath.npdf(near), mpmath.npdf(far)
    pull = (at_near - at_far) / mass
    gap = (pull - near) * S / A
    ends = [(X - A * e) / S for e in (a, b)]
    spread = [u * mpmath.ncdf(u) + mpmath.npdf(u) for u in ends]
    return {
        "denoise": a + gap if left else b - gap,
        "log_density": mpmath.log(mass / (A * (b - a))),
        "score": (pull if left else -pull) / S,
        "posterior_variance": (1 + (near * at_near - far * at_far) / mass - pull**2) * (S / A) ** 2,
        "noised_cdf": (spread[0] - spread[1]) * S / (A * (b - a)),
    }


@pytest.mark.parametrize("exponent", [-4, -3, -2, -1, -0.6, -0.31, -0.29, 0, 1, 2, 3])
@pytest.mark.parametrize(("low", "high", "alpha"), [(0.0, 1.0, 1.0), (-1.0, 1.0, 0.25)])
def test_uniform_agrees_with_the_textbook_in_150_digits(low: float, high: float, alpha: float, exponent: float) -> None:
    dataset = Uniform(low, high)
    sigma = alpha * (high - low) * 10.0**exponent
    centre, half = alpha * (low + high) / 2, alpha * (high - low) / 2
    s = half / sigma
    inside = [half * u for u in (0.0, 1e-9, 0.3, 0.9, 0.999, 1.0)]
    outside = [half + z * sigma for z in (0.1, 1, 3, 5, 7.99, 8.01, 12, 30)]
    slopes = [tau / s * sigma for tau in (0.5, 2, 3.99, 4.01, 6, 12, 20, 100)]
    distances = [1e9, *inside, *outside, *slopes]
    points = [centre + side * distance for distance in distances for side in (1, -1)]
    x = torch.tensor(points, dtype=torch.float64)[:, None]
    found = {
        what: getattr(dataset, what)(x, number(alpha), number(sigma)).reshape(-1).tolist()
        for what in ("denoise", "log_density", "score", "posterior_variance", "noised_cdf")
    }
    with mpmath.workdps(150):
        for i, point in enumerate(points):
            true = truncated_normal(low, high, alpha, sigma, point)
            error = {what: abs(found[what][i] - true[what]) for what in true}
            assert error["denoise"] <= 1e-14 * (high - low)
            if low == 0:
                assert error["denoise"] <= 1e-12 * true["denoise"]
            assert error["log_density"] <= 1e-11 * max(1, abs(true["log_density"]))
            assert error["score"] <= 1e-11 * max(abs(true["score"]), 1e-4 / sigma)
            assert error["posterior_variance"] <= 2e-11 * true["posterior_variance"]
            assert error["noised_cdf"] <= 1e-12


def test_uniform_denoiser_never_leaves_the_interval() -> None:
    dataset = Uniform(-1.0, 3.0)
    magnitude = torch.logspace(-12, 300, 2000, dtype=torch.float64)
    x = torch.cat([magnitude, -magnitude, number(math.inf)[None], -number(math.inf)[None]])[:, None]
    for sigma in (1e-4, 1e-2, 0.3, 1.0, 30.0, 1e3):
        for alpha in (1e-6, 1e-2, 1.0):
            D = dataset.denoise(x, number(alpha), number(sigma))
            assert D.min() >= dataset.low
            assert D.max() <= dataset.high


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0), (-1.7e308, 1.7e308)]
)
def test_uniform_refuses_an_interval_that_is_none(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"uniform: .*(needed|must be finite)"):
        Uniform(low, high)


# --- torus ----------------------------------------------------------------------------------------


def brute_force(torus: Torus, x: np.ndarray, alpha: float, sigma: float, n: int) -> tuple[float, np.ndarray, float]:
    """log p, D and posterior variance by the trapezoidal rule over both angles, straight from the
    definition.
    """
    theta = (2 * np.pi / n * np.arange(n))[:, None]
    phi = (2 * np.pi / n * np.arange(n))[None, :]
    a = torus.R + torus.r * np.cos(theta)
    surface = [a * np.cos(phi), a * np.sin(phi), torus.r * np.sin(theta) + 0 * phi]
    exponent = -sum((x[k] - alpha * surface[k]) ** 2 for k in range(3)) / (2 * sigma**2)
    top = exponent.max()
    weight = np.exp(exponent - top) * (a / torus.R if torus.measure == "area" else 1.0)
    mass = weight.sum()
    log_p = top + np.log(mass / n**2) - 1.5 * np.log(2 * np.pi * sigma**2)
    D = np.array([(weight * axis).sum() / mass for axis in surface])
    return log_p, D, sum((weight * (axis - mean) ** 2).sum() for axis, mean in zip(surface, D, strict=True)) / mass


@pytest.mark.parametrize("nsr", [0.05, 0.1, 0.2, 0.4, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize(
    ("torus", "alpha"),
    [(Torus(), 1.0), (Torus(1.0, 0.4, "angle"), 0.3), (Torus(3.0, 0.2), 1.0), (Torus(1.0, 0.9), 0.5)],
    ids=["default", "by angle, scaled", "thin", "thick, scaled"],
)
def test_torus_agrees_with_brute_force_over_both_angles(torus: Torus, alpha: float, nsr: float) -> None:
    sigma = alpha * nsr * torus.R
    start = noised(torus, 3, alpha, sigma, "torus", nsr)
    fixed = [[0, 0, 0], [0, 0, 0.3 * torus.R], [alpha * torus.R, 0, 0], [-0.5 * alpha * (torus.R - torus.r), 0, 0]]
    x = torch.cat([start, torch.tensor([*fixed, [3 * sigma + alpha, sigma, 2 * sigma]], dtype=torch.float64)])
    log_p = torus.log_density(x, number(alpha), number(sigma))
    D = torus.denoise(x, number(alpha), number(sigma))
    variance = torus.posterior_variance(x, number(alpha), number(sigma))
    for i in range(len(x)):
        true_log_p, true_D, true_variance = brute_force(torus, x[i].numpy(), alpha, sigma, 500)
        assert abs(log_p[i].item() - true_log_p) <= 1e-12 * max(1, abs(true_log_p))
        assert np.abs(D[i].numpy() - true_D).max() <= 1e-12 * torus.R
        assert variance[i].item() == pytest.approx(true_variance, rel=1e-11)


@pytest.mark.parametrize("nsr", [1e-4, 1e-3, 1e-2])
def test_torus_at_small_noise_leaves_the_variance_of_its_tangent_plane(nsr: float) -> None:
    """On the surface ``2 sigma^2``, up to sigma^4 terms of the curvatures: relative ``5 sigma / r``
    at 4.5 sigma off.
    """
    torus, sigma = Torus(), nsr * 0.4
    x = noised(torus, 200, 1.0, sigma, "tangent")
    ratio = torus.posterior_variance(x, number(1.0), number(sigma)) / sigma**2
    assert ((ratio - 2).abs() <= 8 * sigma / (torus.R - torus.r)).all()


def test_torus_samples_lie_on_the_surface_and_are_uniform_by_area_or_by_angle() -> None:
    """Share of the outer half: ``1/2 + r / (pi R)`` by area, 1/2 by angle; 4.5 standard errors,
    false alarms 7e-6.
    """
    n = 40_000
    for torus, outer in ((Torus(), 0.5 + 0.4 / math.pi), (Torus(measure="angle"), 0.5)):
        x = torus.sample(n, stream("surface", torus.measure))
        assert torus.distance(x).max() <= 1e-15
        share = (x[:, :2].norm(dim=1) > torus.R).double().mean().item()
        assert abs(share - outer) <= 4.5 * math.sqrt(outer * (1 - outer) / n)


@pytest.mark.parametrize("measure", ["area", "angle"])
def test_torus_moments_in_closed_form_are_integrals_over_the_tube_angle(measure: str) -> None:
    torus = Torus(2.0, 0.7, measure)  # type: ignore[arg-type]
    theta = 2 * np.pi / 64 * np.arange(64)
    a = 2.0 + 0.7 * np.cos(theta)
    weight = a / a.sum() if measure == "area" else np.full(64, 1 / 64)
    assert torus.second_moment == pytest.approx((weight * a**2).sum(), rel=1e-14)
    assert torus.fourth_moment == pytest.approx((weight * a**4).sum(), rel=1e-14)
    total = (weight * (a**2 + (0.7 * np.sin(theta)) ** 2)).sum()
    assert torus.std == pytest.approx(math.sqrt(total / 3), rel=1e-14)


@pytest.mark.parametrize("radii", [(1.0, 0.0), (1.0, 1.0), (0.4, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, -0.2)])
def test_torus_refuses_radii_that_make_none(radii: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 < r < R"):
        Torus(*radii)


def test_torus_refuses_an_unknown_measure() -> None:
    with pytest.raises(ValueError, match="accepted: area, angle"):
        Torus(measure="volume")  # type: ignore[arg-type]
