r"""What was done to the data before anybody saw them, and how well the best guess can undo it.

An *observation* of clean data x is a linear map of its coordinates with white noise on top,

    y = M x + s n,      n ~ N(0, I),

in the same space as x: of a masked image the hidden pixels are zero, a projection stays where it
is. `restoration` (formulation `indi`) starts from it. Images are square and flattened row by row: a
point of ``side^2`` coordinates.

The estimate with the least mean squared error is the posterior mean E[x | y], and its error

    E |x - E[x | y]|^2 = E tr Cov[x | y]

is the floor of every restoration, of one step or of many. Where M x + s n says as much as x under
noise of a single level the posterior variance of the target answers that; for normal laws and
mixtures of them it follows for every M, in the singular vectors of M: with ``M = U S V^T`` the
observation says

    w_i = (V^T x)_i + (s / S_i) n_i,      for every singular value S_i > 0,

and nothing else of x, so that within a component ``N(mu_k, C_k)`` the posterior is normal with
``K_k = C_k V (V^T C_k V + diag(s^2/S^2))^-1``, mean ``mu_k + K_k (w - V^T mu_k)``, covariance
``C_k - K_k V^T C_k``, and the weights of the components follow from the normal densities of w.
(Kay, Fundamentals of Statistical Signal Processing: Estimation Theory, 1993, theorem 10.3.)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets.base import Dataset
from diffusion.datasets.gaussian import Gaussian
from diffusion.datasets.mixtures import MixtureDataset
from diffusion.devices import to_device
from diffusion.errors import WrongValue
from diffusion.randomness import stream
from diffusion.registry import Component, Registry

degradations: Registry[Degradation] = Registry("degradation")

_DRAWS = 20_000  # observations that a least error is averaged over where no formula knows it
_PAIRS = 1 << 20  # of observation and atom at a time
_SEEN = 1e-9  # singular values below this part of the largest are zero


@dataclass(frozen=True)
class Degradation(Component):
    """A linear observation ``y = M x + noise n`` of data with known M."""

    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise WrongValue(
                f"{self.registered_name}: noise, a standard deviation, must be at least 0, found {self.noise}"
            )

    def refuses(self, dim: int) -> str | None:  # noqa: ARG002
        """Why data of `dim` coordinates cannot be observed so, or None."""
        return None

    @abstractmethod
    def map(self, x: Tensor) -> Tensor:
        """M x of points ``[..., dim]``; a point's numbers do not depend on the others."""

    @property
    def blind(self) -> bool:
        """Whether y says nothing of x: M = 0."""
        return False

    def observe(self, x: Tensor, n: Tensor) -> Tensor:
        """y for clean data x and standard normal n, both ``[..., dim]``."""
        return self.map(x) + self.noise * n

    def matrix(self, dim: int) -> Tensor:
        """M, ``[dim, dim]`` float64."""
        return self.map(torch.eye(dim, dtype=torch.float64)).T.contiguous()

    def least_error(self, dataset: Dataset, noise: float | None = None) -> float | None:
        """E|x - E[x|y]|^2, summed over coordinates; None where it is not known. `noise` stands for
        the degradation's own.

        Exact for normal laws and for a blind observation; elsewhere the mean over 20 000 fixed
        draws of y. Not known if the target is no mixture and M is not the identity, and for atoms
        without noise.
        """
        return _least_error(self, dataset, self.noise if noise is None else noise)


@degradations.register(
    "noise",
    formula="y = x + s n; or y = s n, noise alone",
    source="Delbracio & Milanfar, Inversion by Direct Iteration, TMLR 2023, section 3.3",
    document="S2 section 2.9",
)
@dataclass(frozen=True)
class GaussianNoise(Degradation):
    """White noise of standard deviation `noise`; `alone`, without any data beneath it."""

    noise: float = 1.0
    alone: bool = False

    @property
    def blind(self) -> bool:
        return self.alone

    def map(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) if self.alone else x.clone()


@degradations.register(
    "blur",
    formula="y = (G x G) + s n for square images, G x + s n for lines; rows of G: a Gaussian of standard deviation `width`, "
    "reflected at the edges",
    source="Gonzalez & Woods, Digital Image Processing, 4th ed., 2018, section 3.5; Delbracio & Milanfar, TMLR 2023, section 5",
    document="S2 section 2.9",
)
@dataclass(frozen=True)
class Blur(Degradation):
    """Convolution with a Gaussian `width` pixels wide, along both axes of a square image or along
    the coordinates of a `line`.

    Light is kept: what would leave the picture is reflected at its edge. `layout` ``square`` wants
    ``side^2`` coordinates and at least four.
    """

    width: float = 1.0
    layout: Literal["square", "line"] = "square"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.width < math.inf:
            raise WrongValue(f"blur: width, in pixels, must be positive, found {self.width}")

    def refuses(self, dim: int) -> str | None:
        if self.layout == "square" and _side(dim) is None:
            return f"'blur' wants a square image, and {dim} coordinates are none (layout: line blurs along the coordinates)"
        return None

    def map(self, x: Tensor) -> Tensor:
        dim = x.shape[-1]
        side = _side(dim) if self.layout == "square" else dim
        if side is None:
            raise WrongValue(str(self.refuses(dim)))
        kernel = to_device(torch.from_numpy(_gaussian_rows(side, self.width)), x.device)
        picture = x.unflatten(-1, (-1, side))
        picture = _along_last(kernel, picture)
        if self.layout == "square":
            picture = _along_last(kernel, picture.transpose(-1, -2)).transpose(-1, -2)
        return picture.flatten(-2)


@degradations.register(
    "mask",
    formula="y_j = x_j + s n_j where coordinate j is seen, s n_j where it is not",
    source="Delbracio & Milanfar, TMLR 2023, section 5; Kawar et al., Denoising Diffusion Restoration Models, NeurIPS 2022",
)
@dataclass(frozen=True)
class Mask(Degradation):
    """Coordinates that are hidden: all but those in `seen`, or a square `hole` of that many pixels
    in the middle of an image.
    """

    seen: tuple[int, ...] = (0,)
    hole: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hole < 0 or any(j < 0 for j in self.seen):
            raise WrongValue(f"mask: seen = {self.seen}, hole = {self.hole}; needed: numbers from 0")

    def refuses(self, dim: int) -> str | None:
        if self.hole:
            side = _side(dim)
            if side is None:
                return f"a hole wants a square image, and {dim} coordinates are none (use seen: [...])"
            return (
                None
                if self.hole <= side
                else f"a hole of {self.hole} x {self.hole} does not fit into {side} x {side} pixels"
            )
        if any(j >= dim for j in self.seen):
            return f"coordinate {max(self.seen)} is to be seen, and the data have {dim}, counted from 0"
        return None

    def map(self, x: Tensor) -> Tensor:
        dim = x.shape[-1]
        if reason := self.refuses(dim):
            raise WrongValue(reason)
        keep = torch.zeros(dim, dtype=torch.bool)
        if self.hole:
            side = math.isqrt(dim)
            first = (side - self.hole) // 2
            middle = slice(first, first + self.hole)
            keep[:] = True
            keep.view(side, side)[middle, middle] = False
        else:
            keep[list(self.seen)] = True
        return torch.where(to_device(keep, x.device), x, torch.zeros_like(x))


@degradations.register(
    "projection",
    formula="y = u (u . x) / |u|^2 + s n",
    source="orthogonal projection: Strang, Introduction to Linear Algebra, 5th ed., 2016, section 4.2",
)
@dataclass(frozen=True)
class Projection(Degradation):
    """The shadow of a point on the line through zero along `onto`, by default the diagonal."""

    onto: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.onto and not (all(map(math.isfinite, self.onto)) and any(self.onto)):
            raise WrongValue(
                f"projection: onto = {self.onto}; needed: finite numbers that are not all zero, or none for the diagonal"
            )

    def refuses(self, dim: int) -> str | None:
        if self.onto and len(self.onto) != dim:
            return f"the direction of the projection has {len(self.onto)} coordinates, the data have {dim}"
        return None

    def map(self, x: Tensor) -> Tensor:
        dim = x.shape[-1]
        if reason := self.refuses(dim):
            raise WrongValue(reason)
        u = torch.tensor(self.onto or (1.0,) * dim, dtype=torch.float64)
        u = to_device(u / u.square().sum().sqrt(), x.device)
        along = _along_last(u[None], x)
        return along * u


def _side(dim: int) -> int | None:
    side = math.isqrt(dim)
    return side if side > 1 and side * side == dim else None


def _along_last(rows: Tensor, x: Tensor) -> Tensor:
    """``rows x`` on the last axis ``[..., n] -> [..., m]``, summed in one order whatever the batch:
    no matrix product does that.
    """
    out = x[..., 0, None] * rows[:, 0]
    for j in range(1, x.shape[-1]):
        out = out + x[..., j, None] * rows[:, j]
    return out


@lru_cache(maxsize=32)
def _gaussian_rows(side: int, width: float) -> np.ndarray:
    """The blur of a line of `side` pixels, ``[side, side]``; rows add up to 1, and so do columns."""
    reach = math.ceil(6 * width)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weights /= weights.sum()
    rows = np.zeros((side, side))
    for i in range(side):
        place = (i + np.arange(-reach, reach + 1)) % (
            2 * side
        )  # reflected: the picture, its mirror image, the picture, ...
        np.add.at(rows[i], np.minimum(place, 2 * side - 1 - place), weights)
    return rows


@remembered(128)
def _least_error(degradation: Degradation, dataset: Dataset, noise: float) -> float | None:
    if degradation.refuses(dataset.dim) is not None:
        return None
    if degradation.blind:
        return dataset.dim * dataset.std**2
    if isinstance(dataset, MixtureDataset) and not bool(dataset.mixture.stds.any()):
        parts = dataset.mixture
        return _of_atoms(degradation.matrix(dataset.dim), noise, parts.weights.numpy(), parts.means.numpy())
    components = _components(dataset)
    if components is not None:
        return _of_mixture(degradation.matrix(dataset.dim), noise, *components)
    if isinstance(degradation, GaussianNoise) and dataset.exact and noise > 0:
        generator = stream("least error", repr(degradation.spec()), repr(dataset.identity()), noise)
        x = dataset.sample(_DRAWS, generator)
        y = x + noise * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        one = torch.ones(1, dtype=torch.float64)
        return float(dataset.posterior_variance(y, one, noise * one).mean())
    return None


def _components(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Weights ``[K]``, means ``[K, dim]``, covariances ``[K, dim, dim]`` of a law that is a mixture
    of normal ones.
    """
    match dataset:
        case Gaussian():
            stds = np.broadcast_to(np.asarray(dataset.stds, dtype=float), dataset.dim)
            return np.ones(1), np.asarray(dataset.mean)[None], np.diag(stds**2)[None]
        case MixtureDataset():
            parts = dataset.mixture
            weights, means, stds = (np.asarray(part) for part in (parts.weights, parts.means, parts.stds))
            return weights / weights.sum(), means, stds[:, None, None] ** 2 * np.eye(means.shape[1])
        case _:
            return None


def _of_atoms(m: Tensor, noise: float, weights: np.ndarray, means: np.ndarray) -> float | None:
    """As `_of_mixture` of components without width, of which there may be thousands: all images of
    a set.
    """
    _, size, right = np.linalg.svd(np.asarray(m))
    seen = size > _SEEN * size.max()
    if not seen.any() or noise == 0:
        return None
    places = (means @ right[seen].T) * (size[seen] / noise)  # what is seen of each, in units of the noise
    rng = np.random.Generator(np.random.Philox(key=stream("least error of mixture").initial_seed()))
    which = rng.choice(len(weights), size=_DRAWS, p=weights / weights.sum())
    draws = rng.standard_normal((_DRAWS, places.shape[1]))
    total = 0.0
    for rows in np.array_split(np.arange(_DRAWS), -(-_DRAWS * len(means) // _PAIRS)):
        w = places[which[rows]] + draws[rows]
        logs = np.log(weights) + w @ places.T - 0.5 * np.square(places).sum(1)
        responsible = np.exp(logs - logs.max(1, keepdims=True))
        responsible /= responsible.sum(1, keepdims=True)
        mean = responsible @ means
        total += float((responsible @ np.square(means).sum(1) - np.square(mean).sum(1)).sum())
    return total / _DRAWS


def _of_mixture(
    m: Tensor, noise: float, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> float | None:
    _, size, right = np.linalg.svd(np.asarray(m))
    seen = size > _SEEN * size.max()
    if not seen.any():
        return None
    v, tau = right[seen].T, noise / size[seen]
    spread = v.T @ covariances @ v + np.diag(tau**2)  # of w within each component
    if np.linalg.cond(spread).max() > 1 / _SEEN**1.5:
        return None
    gain = covariances @ v @ np.linalg.inv(spread)
    within = np.trace(covariances - gain @ v.T @ covariances, axis1=1, axis2=2)
    if len(weights) == 1:
        return float(within[0])
    rng = np.random.Generator(np.random.Philox(key=stream("least error of mixture").initial_seed()))
    which = rng.choice(len(weights), size=_DRAWS, p=weights)
    factors = np.linalg.cholesky(spread)
    w = (means @ v)[which] + np.einsum("nij,nj->ni", factors[which], rng.standard_normal((_DRAWS, v.shape[1])))
    off = w[:, None] - means @ v  # [draws, K, seen]
    logs = np.log(weights) - 0.5 * (
        np.linalg.slogdet(spread)[1] + np.einsum("nki,kij,nkj->nk", off, np.linalg.inv(spread), off)
    )
    responsible = np.exp(logs - logs.max(1, keepdims=True))
    responsible /= responsible.sum(1, keepdims=True)
    centres = means + np.einsum("kij,nkj->nki", gain, off)
    mean = np.einsum("nk,nki->ni", responsible, centres)
    between = np.square(centres - mean[:, None]).sum(2)
    return float((responsible * (within + between)).sum(1).mean())
