r"""Targets given a noisy observation of some of their coordinates.

Given ``y = A x_0 + n``, ``n ~ N(0, s^2 I)``, where A picks coordinates, Bayes' rule weighs the
distribution of x_0 with ``N(y; A x_0, s^2 I)``. `observed` gives the conditioned distribution in
the best form there is:

- of normal distributions and mixtures of them in closed form (`Gaussian`, `DiagonalMixture`; s = 0
  is allowed): component k keeps the weight ``w_k N(y; A mu_k, s_k^2 + s^2)``, and its observed
  coordinates have precision ``1/s_k^2 + 1/s^2``;
- where *every* coordinate is observed, from the exact answers of the whole: x_t and y together are
  one observation of x_0 of precision ``alpha^2 / sigma^2 + 1 / s^2`` in every direction, that is,
  another noise level,

      D(x_t | y) = D(m; 1, P^(-1/2)),   P = alpha^2 / sigma^2 + 1 / s^2,   m = (alpha x_t / sigma^2 + y / s^2) / P;

- of any other target as its samples: draws of the whole that are accepted with probability
  ``exp(-|y - A x_0|^2 / 2 s^2)``, which are independent draws of the conditioned distribution. Mean
  and standard deviation are averages over a fixed large sample of the whole with self-normalised
  weights ``N(y; A x_0, s^2)`` (Owen, Monte Carlo Theory, Methods and Examples, 2013, section 9.2).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets.base import Dataset
from diffusion.datasets.diagonal import DiagonalMixture
from diffusion.datasets.gaussian import Gaussian
from diffusion.datasets.gaussian_mixture import GaussianMixture
from diffusion.datasets.mixtures import Mixture, MixtureDataset
from diffusion.datasets.rejection import BLOCK, accepted_draws
from diffusion.datasets.torus import Torus
from diffusion.devices import numbers
from diffusion.errors import NoExactAnswer, WrongValue
from diffusion.randomness import stream

_REFERENCE = 1 << 18  # draws that stand for the whole
RAREST = 1e-4
"""Share of the draws of the whole that must be acceptable: fewer would take too long to find."""
_CIRCLE = 1024  # nodes of each angle of the torus


@dataclass(frozen=True)
class Observation:
    """``y = x_0[coordinates] + n``, ``n ~ N(0, std^2 I)``, was found to be `values`.

    Raises:
        WrongValue: no coordinates, one twice or negative, not one value for each, a value that is
            not finite, `std` < 0.
    """

    coordinates: tuple[int, ...]
    values: tuple[float, ...]
    std: float

    def __post_init__(self) -> None:
        if not self.coordinates or len(self.coordinates) != len(self.values):
            raise WrongValue(
                f"{len(self.coordinates)} coordinates and {len(self.values)} values; needed: one value for each, and at least one"
            )
        if min(self.coordinates) < 0 or len(set(self.coordinates)) != len(self.coordinates):
            raise WrongValue(f"coordinates = {list(self.coordinates)}; needed: different integers from 0")
        if not all(map(math.isfinite, self.values)):
            raise WrongValue(f"values = {list(self.values)}; needed: finite numbers")
        if not 0 <= self.std < math.inf:
            raise WrongValue(f"std = {self.std!r}; needed: a finite number, not negative")

    def complete(self, dim: int) -> bool:
        """Whether every coordinate of x_0 is observed."""
        return len(self.coordinates) == dim

    def log_likelihood(self, x: Tensor) -> Tensor:
        """``-|y - A x|^2 / 2 s^2`` of ``x [..., dim]``, that is, but for a constant, log p(y | x_0
        = x).
        """
        total = torch.zeros(x.shape[:-1], dtype=torch.float64)
        for j, y in zip(self.coordinates, self.values, strict=True):
            total = total - 0.5 * ((y - x[..., j]) / self.std) ** 2
        return total

    def refuses(self, dataset: Dataset) -> str | None:
        """Why nothing of the kind can have been observed of the data set, or None."""
        if max(self.coordinates) >= dataset.dim:
            return f"coordinate {max(self.coordinates)} of a data set of dimension {dataset.dim} (accepted: 0 to {dataset.dim - 1})"
        return None


@remembered(256)
def observed(dataset: Dataset, observation: Observation) -> Dataset:
    """The law of x_0 given the observation, in the best form there is; see the module's text.

    Raises:
        WrongValue: the data set has not these coordinates, or the law cannot be had: exact
            observations (``std = 0``) of a law that is not a mixture, or one that hardly any sample
            of the law could have led to.
    """
    if reason := observation.refuses(dataset):
        raise WrongValue(reason)
    match dataset:
        case Gaussian():
            return _observed_gaussian(dataset, observation)
        case MixtureDataset():
            return _observed_mixture(dataset, observation)
        case Torus() if not observation.complete(3):
            return ObservedTorus(dataset.R, dataset.r, dataset.measure, observation)
        case _:
            return Observed(dataset, observation)


def closed_form(dataset: Dataset, observation: Observation) -> bool:
    """Whether the noised laws given the observation are known exactly."""
    return isinstance(dataset, Gaussian | MixtureDataset) or (
        dataset.exact and observation.complete(dataset.dim) and observation.std > 0
    )


def _observed_gaussian(dataset: Gaussian, observation: Observation) -> Dataset:
    means, stds = dataset.coordinates()
    noise = observation.std**2
    for j, y in zip(observation.coordinates, observation.values, strict=True):
        square = stds[j] ** 2
        means[j] += square / (square + noise) * (y - means[j])
        stds[j] = math.sqrt(square * noise / (square + noise))
    if min(stds) > 0:
        return Gaussian(tuple(means), tuple(stds), dataset.dim)
    return DiagonalMixture((1.0,), (tuple(means),), (tuple(stds),))


def _observed_mixture(dataset: MixtureDataset, observation: Observation) -> Dataset:
    mixture: Mixture = dataset.mixture
    noise = observation.std**2
    squares = mixture.stds**2  # [K]
    log_weights = torch.log(mixture.weights)
    means = mixture.means.clone()
    stds = mixture.stds[:, None].repeat(1, dataset.dim)
    total = squares + noise
    for j, y in zip(observation.coordinates, observation.values, strict=True):
        offset = y - mixture.means[:, j]
        if noise == 0:  # atoms either are what was observed, or not
            log_weights = log_weights + torch.where(squares > 0, 0.0, torch.where(offset == 0, 0.0, -math.inf))
        total_j = torch.where(total > 0, total, 1.0)
        log_weights = log_weights - torch.where(total > 0, 0.5 * (offset * offset / total_j + torch.log(total_j)), 0.0)
        share = torch.where(total > 0, squares / total_j, 0.0)
        means[:, j] += share * offset
        stds[:, j] = torch.sqrt(share * noise)
    weights = torch.exp(log_weights - log_weights.max())
    kept = weights > 0
    if not bool(kept.any()):
        raise WrongValue("the observation is none that a sample could have led to")
    weights = weights[kept] / weights[kept].sum()
    parameters = (
        tuple(weights.tolist()),
        tuple(map(tuple, means[kept].tolist())),
        tuple(map(tuple, stds[kept].tolist())),
    )
    if dataset.dim == 1 and float(stds.min()) > 0:
        return GaussianMixture(parameters[0], tuple(m for (m,) in parameters[1]), tuple(s for (s,) in parameters[2]))
    return DiagonalMixture(*parameters)


@dataclass(frozen=True)
class Observed(Dataset):
    """Any target given an observation: samples by rejection, and the exact answers where every
    coordinate is observed.

    Raises:
        WrongValue: an exact observation, or one that fewer than `RAREST` of the draws of the whole
            are acceptable for.
    """

    registered_name: ClassVar[str] = "observed"
    on_device: ClassVar[bool] = True

    of: Dataset
    observation: Observation

    def __post_init__(self) -> None:
        _check_observation(self.of, self.observation)

    def parameters(self) -> dict[str, object]:
        return {"of": self.of.spec(), "observation": dataclasses.asdict(self.observation)}

    @property
    def exact(self) -> bool:
        return self.of.exact and self.observation.complete(self.of.dim)

    @property
    def dim(self) -> int:
        return self.of.dim

    @property
    def mean(self) -> tuple[float, ...]:
        return _reference(self.of, self.observation).mean

    @property
    def std(self) -> float:
        return _reference(self.of, self.observation).std

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return _accepted_draws(self.of, self.observation, n, generator)

    def _seen(self, device: torch.device) -> Tensor:
        """What was observed, ``[dim]``, in the order of the coordinates."""
        pairs = sorted(zip(self.observation.coordinates, self.observation.values, strict=True))
        return numbers([value for _, value in pairs], device)

    def _as_one(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x_t and y as one observation of x_0: its place m ``[..., batch, dim]`` and its noise
        P^(-1/2).
        """
        y = self._seen(x.device)
        s2 = self.observation.std**2
        spread = sigma * sigma + alpha * alpha * s2  # sigma^2 s^2 P
        m = ((alpha * s2)[..., None] * x + (sigma * sigma)[..., None] * y) / spread[..., None]
        return m, sigma * self.observation.std / torch.sqrt(spread)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        self._check_exact()
        m, noise = self._as_one(x, alpha, sigma)
        return self.of.denoise(m, torch.ones_like(noise), noise)

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        self._check_exact()
        m, noise = self._as_one(x, alpha, sigma)
        return self.of.posterior_variance(m, torch.ones_like(noise), noise)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``log N(x; alpha y, sigma^2 + alpha^2 s^2) + log p(m) - log p(y)``, p(m) and p(y) under
        their own noise.
        """
        self._check_exact()
        m, noise = self._as_one(x, alpha, sigma)
        y = self._seen(x.device)
        one = torch.ones_like(noise)
        spread = sigma * sigma + alpha * alpha * self.observation.std**2
        offset = x - alpha[..., None] * y
        across = -0.5 * ((offset * offset).sum(-1) / spread + self.dim * torch.log(2 * math.pi * spread))
        evidence = self.of.log_density(y[None], one.new_ones(1), one.new_full((1,), self.observation.std))
        return across + self.of.log_density(m, one, noise) - evidence

    def _check_exact(self) -> None:
        if not self.exact:
            raise NoExactAnswer(
                f"dataset {self.of.registered_name!r} given some of its coordinates has no exact denoiser"
            )


@dataclass(frozen=True)
class ObservedTorus(Torus):
    """The torus given an observation of some of its coordinates: its samples, and its moments by
    quadrature over both angles.
    """

    registered_name: ClassVar[str] = "observed-torus"

    observation: Observation = Observation((2,), (0.0,), 0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_observation(self.whole, self.observation)

    def parameters(self) -> dict[str, object]:
        return {**self.whole.parameters(), "observation": dataclasses.asdict(self.observation)}

    @property
    def whole(self) -> Torus:
        """The torus itself."""
        return Torus(self.R, self.r, self.measure)

    @property
    def exact(self) -> bool:
        return False

    @cached_property
    def _quadrature(self) -> tuple[tuple[float, ...], float, float, float]:
        """Mean, std, E[rho^2] and E[rho^4], by the trapezoidal rule, which converges exponentially
        on circles.
        """
        angles = 2 * math.pi * (torch.arange(_CIRCLE, dtype=torch.float64) + 0.5) / _CIRCLE
        theta, phi = angles[:, None], angles[None]
        a = self.R + self.r * torch.cos(theta)
        x = torch.stack(
            [a * torch.cos(phi), a * torch.sin(phi), (self.r * torch.sin(theta)).expand(-1, _CIRCLE)], dim=-1
        )
        weight = torch.exp(self.observation.log_likelihood(x)) * (a if self.measure == "area" else 1.0)
        weight = weight / weight.sum()
        mean = (weight[..., None] * x).sum((0, 1))
        spread = float((weight * (x - mean).square().sum(-1)).sum())
        squares = (a * a).expand(-1, _CIRCLE)
        return (
            tuple(mean.tolist()),
            math.sqrt(spread / 3),
            float((weight * squares).sum()),
            float((weight * squares**2).sum()),
        )

    @property
    def mean(self) -> tuple[float, ...]:
        return self._quadrature[0]

    @property
    def std(self) -> float:
        return self._quadrature[1]

    @property
    def second_moment(self) -> float:
        """E[x^2 + y^2] given the observation."""
        return self._quadrature[2]

    @property
    def fourth_moment(self) -> float:
        """E[(x^2 + y^2)^2] given the observation."""
        return self._quadrature[3]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return _accepted_draws(self.whole, self.observation, n, generator)

    def _posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        raise NoExactAnswer("the torus given some of its coordinates has no exact denoiser")

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        raise NoExactAnswer("the torus given some of its coordinates has no exact posterior variance")


@dataclass(frozen=True)
class _Reference:
    """Averages over the whole with self-normalised weights, and the share of its draws that
    rejection keeps.
    """

    mean: tuple[float, ...]
    std: float
    accepted: float


@lru_cache(maxsize=64)
def _reference(dataset: Dataset, observation: Observation) -> _Reference:
    x = dataset.sample(_REFERENCE, stream("observed", dataset.identity()))
    likelihood = torch.exp(observation.log_likelihood(x))
    accepted = float(likelihood.mean())
    weight = likelihood / likelihood.sum()
    mean = (weight[:, None] * x).sum(0)
    spread = float((weight * (x - mean).square().sum(1)).sum())
    return _Reference(tuple(mean.tolist()), math.sqrt(spread / dataset.dim), accepted)


def _check_observation(dataset: Dataset, observation: Observation) -> None:
    name = repr(dataset.registered_name)
    if observation.std == 0:
        raise WrongValue(
            f"the law of {name} given some coordinates exactly is not known; use an observation with std > 0"
        )
    if (accepted := _reference(dataset, observation).accepted) < RAREST:
        raise WrongValue(
            f"the observation keeps a share of {accepted:.1g} of the samples of {name}, which are too few to find its law by; "
            f"needed: {RAREST:g} (observe a likelier value, or with a larger std)"
        )


def _accepted_draws(dataset: Dataset, observation: Observation, n: int, generator: torch.Generator) -> Tensor:
    def draw() -> tuple[Tensor, Tensor]:
        x = dataset.sample(BLOCK, generator)
        u = torch.rand(BLOCK, generator=generator, dtype=torch.float64)
        return x, u < torch.exp(observation.log_likelihood(x))

    return accepted_draws(n, f"the observation hardly ever follows from a sample of {dataset.registered_name!r}", draw)
