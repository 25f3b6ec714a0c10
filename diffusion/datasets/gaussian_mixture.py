r"""Mixtures of isotropic normal distributions as targets: any number of components, and the ring of
eight.

Their noised laws are in `diffusion.datasets.mixtures`; here are the parameters, the distribution
function on the line and the modes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion.datasets.base import check_label, datasets, tree_sum
from diffusion.datasets.mixtures import Mixture, MixtureDataset, nearest
from diffusion.errors import NoExactAnswer, WrongValue

_SEPARATE = 1e-6  # share of the samples that may lie nearer to another centre than to their own
_MOST_STEPS = 200  # of the search for a quantile; some ten are needed, bisection alone needs a hundred

Centres = tuple[float, ...] | tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class LabelledMixture(MixtureDataset):
    """A mixture whose classes are its components: a sample's label is the component that it was
    drawn from.
    """

    @property
    def classes(self) -> int:
        return len(self.mixture.weights)

    def sample_labelled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._draw(n, generator)

    @property
    def class_weights(self) -> tuple[float, ...]:
        return tuple((self.mixture.weights / self.mixture.weights.sum()).tolist())

    def of_class(self, label: int) -> GaussianMixture:
        """One component, with weight 1.

        Raises:
            WrongValue: there is no such label.
        """
        check_label(self, label)
        return self._of_components((label,))

    def of_classes(self, labels: Sequence[int]) -> MixtureDataset:
        """These components, each with the same weight; this target itself if that is what it is."""
        same = bool((self.mixture.weights == self.mixture.weights[0]).all())
        return self if same and list(labels) == list(range(self.classes)) else self._of_components(labels)

    def _of_components(self, chosen: Sequence[int]) -> GaussianMixture:
        means, stds = self.mixture.means.tolist(), self.mixture.stds.tolist()
        return GaussianMixture(
            (1 / len(chosen),) * len(chosen), tuple(tuple(means[k]) for k in chosen), tuple(stds[k] for k in chosen)
        )


@datasets.register(
    "gaussian_mixture",
    formula="p(x) = sum_k w_k N(x; alpha mu_k, v_k I), v_k = alpha^2 s_k^2 + sigma^2,  "
    "D = sum_k r_k (alpha s_k^2 x + sigma^2 mu_k) / v_k",
    source="mixtures: Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3.9",
    document="S1, S2",
)
@dataclass(frozen=True)
class GaussianMixture(LabelledMixture):
    r"""``sum_k w_k N(mu_k, s_k^2 I)`` on R^d: `weights` w, `means` mu, `stds` s.

    A mean is a point, or a number that all `dim` coordinates have: ``dim: 64`` alone is the default's
    pair of bumps on the diagonal of R^64, 4 sqrt(64) apart. Of points `dim` need not be given.

    The default is the pair of bumps on which the documents climb and walk,
    ``0.3 N(-2, 0.2^2) + 0.7 N(2, 1)``. Their numbers are lost in the tutorial's text; these are the
    ones whose density has its maxima at -1.999975 and 2.000000 and its minimum between them at
    -1.213288. Mean 0.8, std 2.017920.

    ``mean = sum w_k mu_k``; ``std^2 = sum w_k (s_k^2 + |mu_k - mean|^2 / d)``.

    On the line `cdf` is ``sum w_k Phi((x - mu_k) / s_k)`` and `quantile` its inverse, by Newton's
    method within a bracket.

    Modes are the distinct centres in the order given, `mode_of` is the nearest, and `mode_weights`
    the probability of that, not w: a sample of a wide component may lie nearer to the centre of
    another (0.0159 of the default's do). On the line it is exact. In more dimensions it is w if at
    most 1e-6 of the samples lie nearer to another centre than to their own; otherwise the target
    counts as having no separate modes.

    Classes are the components in the order given, whether they share a centre or not.

    Shapes: ``x`` is ``[..., batch, d]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: no components, lists of unequal lengths, centres of different dimensions or of
            another one than `dim`, a number that is not finite, a weight or std that is not
            positive, or weights that do not add up to 1 (within 1e-9).
    """

    weights: tuple[float, ...] = (0.3, 0.7)
    means: Centres = (-2.0, 2.0)
    stds: tuple[float, ...] = (0.2, 1.0)
    dim: int = 1

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise WrongValue(f"gaussian_mixture: dim = {self.dim!r}; needed: an integer of at least 1")
        points = [tuple(map(float, m)) if isinstance(m, tuple) else (float(m),) for m in self.means]
        weights, stds = tuple(map(float, self.weights)), tuple(map(float, self.stds))
        if not (len(weights) == len(points) == len(stds) > 0):
            raise WrongValue(
                f"gaussian_mixture: {len(weights)} weights, {len(points)} means, {len(stds)} stds; "
                f"needed: one of each for every component, and at least one component"
            )
        if len({len(point) for point in points}) != 1 or not points[0]:
            raise WrongValue(f"gaussian_mixture: means = {self.means!r}; needed: points of one dimension")
        if not all(map(math.isfinite, (*weights, *stds, *(v for point in points for v in point)))):
            raise WrongValue("gaussian_mixture: weights, means and stds must be finite numbers")
        if min(weights) <= 0 or min(stds) <= 0:
            raise WrongValue(f"gaussian_mixture: weights = {weights!r}, stds = {stds!r}; needed: positive numbers")
        if abs(math.fsum(weights) - 1) > 1e-9:
            raise WrongValue(f"gaussian_mixture: the weights add up to {math.fsum(weights)!r}; needed: 1")
        given = len(points[0])
        if self.dim not in (1, given) and given > 1:
            raise WrongValue(
                f"gaussian_mixture: dim = {self.dim!r}, and the means have {given} coordinates; needed: numbers, or points of one dimension"
            )
        centres: Centres = tuple(p[0] for p in points) if given == 1 else tuple(points)
        dim = self.dim if given == 1 else given
        for name, value in (("weights", weights), ("means", centres), ("stds", stds), ("dim", dim)):
            object.__setattr__(self, name, value)

    @property
    def _tells_dim(self) -> bool:
        """Whether it cannot be read off the means: then it is part of what the target is known by."""
        return self.dim > 1 and not isinstance(self.means[0], tuple)

    def parameters(self) -> dict[str, Any]:
        return {name: value for name, value in super().parameters().items() if name != "dim" or self._tells_dim}

    def differences(self) -> tuple[str, ...]:
        return tuple(each for each in super().differences() if self._tells_dim or not each.startswith("dim="))

    @cached_property
    def mixture(self) -> Mixture:
        weights, means, stds = (torch.tensor(v, dtype=torch.float64) for v in (self.weights, self.means, self.stds))
        return Mixture(weights, means.reshape(len(weights), -1).expand(-1, self.dim).contiguous(), stds)

    @property
    def has_cdf(self) -> bool:
        return self.dim == 1

    def cdf(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1)
        lower, upper = torch.exp(self._log_cdf(flat, 1.0)), torch.exp(self._log_cdf(flat, -1.0))
        return torch.where(lower <= 0.5, lower, 1 - upper).reshape(
            x.shape
        )  # from the smaller tail: at infinity it is 1

    def quantile(self, u: Tensor) -> Tensor:
        flat = u.reshape(-1)
        side = torch.where(flat <= 0.5, 1.0, -1.0).to(torch.float64)  # the tail in which u is a small number
        tail = torch.log(torch.where(flat <= 0.5, flat, 1 - flat))
        z = torch.special.ndtri(flat)
        ends = torch.stack([m + s * z for m, s in self._components()])
        low, high = ends.amin(0), ends.amax(0)
        x, step = 0.5 * (low + high), high - low
        moving = torch.isfinite(x)  # not at u = 0 or 1, where x = -inf or inf
        for _ in range(_MOST_STEPS):
            if not moving.any():
                break
            log_tail = self._log_cdf(x, side)
            excess = side * (log_tail - tail)
            low, high = torch.where(excess < 0, x, low), torch.where(excess > 0, x, high)
            newton = -excess * torch.exp(log_tail - self._log_slope(x))
            inside = (x + newton > low) & (x + newton < high) & (newton.abs() < 0.5 * step.abs())
            step = torch.where(inside, newton, 0.5 * (low + high) - x)
            step = torch.where(excess == 0, 0.0, step)
            moving = moving & (x + step != x)
            x = torch.where(moving, x + step, x)
        return x.reshape(u.shape)

    def _components(self) -> list[tuple[float, float]]:
        """Mean and std of each component on the line."""
        if self.dim != 1:
            message = f"has distribution and quantile functions on the line only, not in {self.dim} dimensions"
            raise NoExactAnswer(f"dataset 'gaussian_mixture' {message}")
        return list(zip(self.mixture.means[:, 0].tolist(), self.stds, strict=True))

    def _log_cdf(self, x: Tensor, side: Tensor | float) -> Tensor:
        """log P(x_0 <= x) where `side` is 1, log P(x_0 >= x) where it is -1."""
        parts = [torch.special.log_ndtr(side * (x - m) / s) for m, s in self._components()]
        return self._log_average(torch.stack(parts))

    def _log_slope(self, x: Tensor) -> Tensor:
        """log p(x) of the clean data."""
        parts = [-0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi)) for m, s in self._components()]
        return self._log_average(torch.stack(parts))

    def _log_average(self, logs: Tensor) -> Tensor:
        """log of the sum of w_k exp(logs_k) over the first axis."""
        logs = logs + self.mixture.log_weights
        top = logs.amax(0)
        return top + torch.log(tree_sum(torch.exp(logs - torch.where(torch.isfinite(top), top, 0.0))))

    @cached_property
    def _centres(self) -> tuple[tuple[float, ...], ...]:
        """The distinct centres, in the order given."""
        return tuple(dict.fromkeys(map(tuple, self.mixture.means.tolist())))

    @cached_property
    def mode_weights(self) -> tuple[float, ...] | None:
        if len(self._centres) < 2:
            return None
        return self._weights_on_the_line() if self.dim == 1 else self._weights_if_separate()

    def mode_of(self, x: Tensor) -> Tensor:
        return nearest(x, torch.tensor(self._centres, dtype=torch.float64))

    def _weights_on_the_line(self) -> tuple[float, ...]:
        """The probability of each centre's interval, which reaches halfway to its neighbours."""
        centres = sorted(centre for (centre,) in self._centres)
        halfway = [0.5 * (a + b) for a, b in pairwise(centres)]
        edges = [0.0, *self.cdf(torch.tensor(halfway, dtype=torch.float64)).tolist(), 1.0]
        share = {centre: edges[i + 1] - edges[i] for i, centre in enumerate(centres)}
        return tuple(share[centre] for (centre,) in self._centres)

    def _weights_if_separate(self) -> tuple[float, ...] | None:
        total = math.fsum(self.weights)
        share = dict.fromkeys(self._centres, 0.0)
        astray = 0.0
        for w, point, s in zip(self.weights, map(tuple, self.mixture.means.tolist()), self.stds, strict=True):
            share[point] += w / total
            others = [centre for centre in self._centres if centre != point]
            astray += w * sum(0.5 * math.erfc(math.dist(point, c) / (2 * math.sqrt(2) * s)) for c in others)
        return tuple(share.values()) if astray <= _SEPARATE else None


@datasets.register(
    "eight_gaussians",
    formula="gaussian_mixture of eight equal weights at radius (cos(k pi / 4), sin(k pi / 4)), k = 0 .. 7",
    source="the ring of Gaussians of Metz, Poole, Pfau & Sohl-Dickstein, 'Unrolled GANs', 2017, appendix",
)
@dataclass(frozen=True)
class EightGaussians(LabelledMixture):
    r"""``1/8 sum_k N(radius (cos(k pi / 4), sin(k pi / 4)), stds^2 I)``, k = 0 .. 7, in the plane.

    Mean (0, 0); the std of the target is ``sqrt(radius^2 / 2 + stds^2)``, 1.417745 for the default.
    Modes are the eight centres, mode k at the angle ``k pi / 4``; each has weight 1/8 exactly, by
    symmetry. Class k is the component there.

    Shapes: ``x`` is ``[..., batch, 2]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: `radius` or `stds` is not positive and finite.
    """

    radius: float = 2.0
    stds: float = 0.1

    def __post_init__(self) -> None:
        for name in ("radius", "stds"):
            if not 0 < getattr(self, name) < math.inf:
                raise WrongValue(f"eight_gaussians: {name} = {getattr(self, name)!r}; needed: a positive number")

    @cached_property
    def mixture(self) -> Mixture:
        diagonal = math.sqrt(0.5)
        x = (1.0, diagonal, 0.0, -diagonal, -1.0, -diagonal, 0.0, diagonal)
        means = self.radius * torch.tensor([x, x[-2:] + x[:-2]], dtype=torch.float64).T
        weights, stds = (torch.full((8,), v, dtype=torch.float64) for v in (0.125, self.stds))
        return Mixture(weights, means, stds)

    @property
    def mode_weights(self) -> tuple[float, ...] | None:
        return (0.125,) * 8

    def mode_of(self, x: Tensor) -> Tensor:
        return nearest(x, self.mixture.means)
