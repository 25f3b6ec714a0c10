"""What a data set promises: draws of the stated moments, and where it is exact a score, a denoiser
and a posterior variance that follow from its density.

All are held against differences of the log-density, and the draws too: for x of the law p and any
smooth f, ``E[f(x) grad log p(x) + grad f(x)] = 0`` (Stein's identity).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion.checks.findings import ClaimFound, findings_of, none_of, within
from diffusion.datasets import Dataset
from diffusion.randomness import stream

_ERRORS = 5.0  # standard errors: a false alarm in two million
_RATIOS = (0.1, 1.0, 10.0)
_COORDINATES = 4  # of more, so many are looked at
_SMALL = 3


def check_dataset(dataset: Dataset) -> Iterator[ClaimFound]:
    """Each claim of a data set, held against what it does."""
    yield from findings_of(
        dataset,
        (
            ("draws", draws),
            ("mean and std", moments),
            ("distribution function", distribution_function),
            ("quantiles", quantiles),
            ("score", score),
            ("denoiser", denoiser),
            ("posterior variance", posterior_variance),
            ("draws follow the density", draws_follow_the_density),
            ("the density is one", density_is_one),
            ("the batch may grow", batch_may_grow),
            ("modes", modes),
            ("labels", labels),
        ),
    )


# --- draws ----------------------------------------------------------------------------------------


def draws(dataset: Dataset) -> ClaimFound:
    """Of the stated shape, finite, and repeated by their generator."""
    first, again = (dataset.sample(17, stream("checks", "draws")) for _ in range(2))
    bad = []
    if first.shape != (17, dataset.dim) or first.dtype != torch.float64:
        bad.append(f"{str(first.dtype).removeprefix('torch.')} {list(first.shape)}")
    if not bool(torch.isfinite(first).all()):
        bad.append("numbers that are not finite")
    if not torch.equal(first, again):
        bad.append("others from the same generator")
    if len(dataset.mean) != dataset.dim:
        bad.append(f"a mean of {len(dataset.mean)} coordinates")
    return none_of("draws", f"float64 [n, {dataset.dim}], repeated by their generator", bad)


def moments(dataset: Dataset) -> ClaimFound:
    """Within five standard errors."""
    n = 8000 if dataset.dim <= _SMALL else 1000
    x = dataset.sample(n, stream("checks", "moments"))
    centred = x - torch.tensor(dataset.mean, dtype=torch.float64)
    off = centred.mean(0).abs() / (x.std(0) / math.sqrt(n)).clamp(min=1e-12)
    power = centred.square().mean(1)
    spread = abs(float(power.mean()) - dataset.std**2) / max(float(power.std()) / math.sqrt(n), 1e-12)
    bad = [f"mean off by {float(off.max()):.1f} standard errors"] if not float(off.max()) <= _ERRORS else []
    bad += [f"std off by {spread:.1f} standard errors"] if not spread <= _ERRORS else []
    return none_of("mean and std", "those of the draws", bad)


def distribution_function(dataset: Dataset) -> ClaimFound | None:
    """The largest difference from that of the draws, by Kolmogorov's law."""
    if not dataset.has_cdf:
        return None
    n = 4000
    x = dataset.sample(n, stream("checks", "cdf")).flatten().sort().values
    values, counts = torch.unique_consecutive(x, return_counts=True)
    share, stated = counts.cumsum(0) / n, dataset.cdf(values)
    below = dataset.cdf(torch.nextafter(values, torch.full_like(values, -math.inf)))
    distance = max(float((share - stated).abs().max()), float((share - counts / n - below).abs().max()))
    return within("distribution function", "that of the draws", distance, 2.4 / math.sqrt(n))


def quantiles(dataset: Dataset) -> ClaimFound | None:
    """The smallest points where the distribution function reaches its argument."""
    if not dataset.has_cdf:
        return None
    u = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    x = dataset.quantile(u)
    low, high = dataset.cdf(x - 1e-6 * dataset.std) - u, u - dataset.cdf(x + 1e-12 * dataset.std)
    return within("quantiles", "the inverse of the distribution function", float(torch.maximum(low, high).max()), 1e-9)


# --- the law of noised draws ----------------------------------------------------------------------


def score(dataset: Dataset) -> ClaimFound | None:
    """The gradient of the log-density, in units of 1 / sigma."""
    if not dataset.exact:
        return None
    error = 0.0
    for x, alpha, sigma in _noised(dataset, 12, "score"):
        found = dataset.score(x, alpha, sigma)[..., :_COORDINATES]
        error = max(error, _largest((found - _gradient(dataset, x, alpha, sigma)) * sigma))
    return within("score", "the gradient of the log-density", error, 1e-6)


def denoiser(dataset: Dataset) -> ClaimFound | None:
    """Tweedie's formula, ``D = (x + sigma^2 grad log p) / alpha``, relative to the noise."""
    if not dataset.exact:
        return None
    error = 0.0
    for x, alpha, sigma in _noised(dataset, 12, "denoiser"):
        by_score = (x[..., :_COORDINATES] + sigma**2 * _gradient(dataset, x, alpha, sigma)) / alpha
        found = dataset.denoise(x, alpha, sigma)[..., :_COORDINATES]
        error = max(error, _largest((found - by_score) * alpha / sigma))
    return within("denoiser", "Tweedie's formula", error, 1e-6)


def posterior_variance(dataset: Dataset) -> ClaimFound | None:
    """``sigma^2 / alpha  div D``, in units of the least that is known beforehand."""
    if not dataset.exact or dataset.dim > _COORDINATES:
        return None
    error = 0.0
    for x, alpha, sigma in _noised(dataset, 12, "variance"):
        step = 2e-3 * sigma
        divergence = torch.zeros(len(x), dtype=torch.float64)
        for k, axis in enumerate(torch.eye(dataset.dim, dtype=torch.float64)):
            ends = [dataset.denoise(x + h * step * axis, alpha, sigma)[:, k] for h in (1, -1, 2, -2)]
            divergence += (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * step)
        unit = dataset.dim * min(dataset.std, float(sigma / alpha)) ** 2 * max(1, float(sigma / alpha) / dataset.std)
        found = dataset.posterior_variance(x, alpha, sigma)
        error = max(error, _largest((found - sigma**2 / alpha * divergence) / unit))
    return within("posterior variance", "sigma^2 / alpha div D", error, 1e-6)


def draws_follow_the_density(dataset: Dataset) -> ClaimFound | None:
    """Stein's identity for f = 1, x and sin x, within five standard errors."""
    if not dataset.exact:
        return None
    n, worst = (3000 if dataset.dim == 1 else 600 if dataset.dim <= _SMALL else 150), 0.0
    for x, alpha, sigma in list(_noised(dataset, n, "stein"))[:2]:
        scale = torch.sqrt((alpha * dataset.std) ** 2 + sigma**2)
        s = _gradient(dataset, x, alpha, sigma) * scale
        y = (x - alpha * torch.tensor(dataset.mean, dtype=torch.float64))[..., :_COORDINATES] / scale
        for terms in (s, s * y + 1, s * torch.sin(2 * y) + 2 * torch.cos(2 * y)):
            worst = max(worst, _largest(terms.mean(0) / (terms.std(0) / math.sqrt(n))))
    found = f"off by {worst:.1f} standard errors"
    return ClaimFound("draws follow the density", worst <= _ERRORS, "Stein's identity, to 5 standard errors", found)


def density_is_one(dataset: Dataset) -> ClaimFound | None:
    """The trapezoidal rule on a lattice as wide as the law, spacing 0.6 sigma."""
    if not dataset.exact or dataset.dim >= _SMALL:
        return None
    alpha, sigma = _number(0.6), _number(0.42 * dataset.std)
    reach = 9 * math.hypot(0.6 * dataset.std, float(sigma))
    steps = math.ceil(reach / (0.6 * float(sigma)))
    line = reach / steps * torch.arange(-steps, steps + 1, dtype=torch.float64)
    x = torch.cartesian_prod(*[line] * dataset.dim).reshape(-1, dataset.dim)
    p = dataset.log_density(x + 0.6 * torch.tensor(dataset.mean, dtype=torch.float64), alpha, sigma).exp()
    return within("the density is one", "its integral", abs(float(p.sum()) * (reach / steps) ** dataset.dim - 1), 1e-6)


def batch_may_grow(dataset: Dataset) -> ClaimFound | None:
    """A point's numbers are the same to the last bit whatever points are beside it."""
    if not dataset.exact:
        return None
    x, alpha, sigma = next(iter(_noised(dataset, 37, "batch")))
    bad = []
    for name in ("denoise", "log_density", "score", "posterior_variance"):
        function = getattr(dataset, name)
        whole = function(x, alpha, sigma)
        if not all(torch.equal(function(x[:n], alpha, sigma), whole[:n]) for n in (1, 6)):
            bad.append(name)
    return none_of("the batch may grow", "the same numbers", [f"others of {name}" for name in bad])


# --- modes and labels -----------------------------------------------------------------------------


def modes(dataset: Dataset) -> ClaimFound | None:
    """As many draws in each as stated, within five standard errors."""
    if dataset.mode_weights is None:
        return None
    x = dataset.sample(4000, stream("checks", "modes"))
    return _shares("modes", dataset.mode_weights, dataset.mode_of(x))


def labels(dataset: Dataset) -> ClaimFound | None:
    """The draws of `sample`, with each label as often as stated."""
    if dataset.classes == 0:
        return None
    n = 2000
    x, given = dataset.sample_labelled(n, stream("checks", "labels"))
    if not torch.equal(x, dataset.sample(n, stream("checks", "labels"))):
        return ClaimFound("labels", False, "the draws of sample", "others")
    if not bool(((given >= 0) & (given < dataset.classes)).all()):
        return ClaimFound("labels", False, f"0 to {dataset.classes - 1}", f"{int(given.min())} to {int(given.max())}")
    return None if dataset.class_weights is None else _shares("labels", dataset.class_weights, given)


def _shares(claim: str, weights: tuple[float, ...], found: Tensor) -> ClaimFound:
    n, stated = len(found), torch.tensor(weights, dtype=torch.float64)
    share = torch.bincount(found, minlength=len(weights)).double() / n
    error = (stated * (1 - stated) / n).sqrt().clamp(min=1e-12)
    worst = float(((share - stated).abs() / error).max()) if len(share) == len(stated) else math.inf
    holds = worst <= _ERRORS and abs(sum(weights) - 1) < 1e-9
    return ClaimFound(claim, holds, "the stated weights", f"off by {worst:.1f} standard errors")


# --- terms ----------------------------------------------------------------------------------------


def _noised(dataset: Dataset, n: int, name: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Noisy draws at each of the ratios, with alpha and sigma."""
    for ratio in _RATIOS:
        generator = stream("checks", name, ratio)
        alpha, sigma = _number(0.6), _number(0.6 * ratio * dataset.std)
        noise = torch.randn(n, dataset.dim, generator=generator, dtype=torch.float64)
        yield alpha * dataset.sample(n, generator) + sigma * noise, alpha, sigma


def _gradient(dataset: Dataset, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The gradient of the log-density by differences of the fourth order, its first coordinates."""
    step = 1e-3 * sigma
    rows = []
    for axis in torch.eye(dataset.dim, dtype=torch.float64)[:_COORDINATES]:
        ends = [dataset.log_density(x + h * step * axis, alpha, sigma) for h in (1, -1, 2, -2)]
        rows.append((8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * step))
    return torch.stack(rows, dim=-1)


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _largest(errors: Tensor) -> float:
    """The largest; infinite if one is NaN, which no comparison would see."""
    return float(errors.abs().nan_to_num(nan=math.inf).max())
