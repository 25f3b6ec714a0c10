r"""The surface of a torus in space, with the exact noised law by a one-dimensional quadrature.

A point of the surface is ``((R + r cos theta) cos phi, (R + r cos theta) sin phi, r sin theta)``.
Under Gaussian noise the azimuth `phi` integrates to a Bessel function and leaves the tube angle
`theta`. Let (rho, z) be cylindrical coordinates of `x`; scale the torus by alpha,
``R' = alpha R, r' = alpha r``; and write ``d = |(rho - R', z)|``, ``psi = atan2(z, rho - R')``,
``kappa = r' d / sigma^2``, ``a(theta) = R + r cos theta``, ``I0e(y) = exp(-y) I0(y)``. Then

    p(x) = (2 pi sigma^2)^(-3/2) exp(-(d - r')^2 / 2 sigma^2)  times the integral over theta of
           w(theta) / 2 pi  I0e(alpha a rho / sigma^2)  exp(-2 kappa sin^2((theta - psi) / 2))

    D_rho = E[a A],   D_z = E[r sin theta],   A = I1 / I0
    E[|x_0 - D|^2 | x] = E[(a A - D_rho)^2 + (r sin theta - D_z)^2 + a^2 (1 - A^2)]

where I0 and I1 are taken at ``alpha a rho / sigma^2``, E is taken with the integrand as weight, and
``w = 1 + (r / R) cos theta`` (area) or 1 (angle).

With ``delta = theta - psi`` no trigonometric function of a point is needed, only
``cos psi = (rho - R') / d`` and ``sin psi = z / d``. Two rules, chosen for each point from its own
kappa:

- ``kappa < 40``: the trapezoidal rule on the whole circle, which converges exponentially; 24 to 56
  nodes, more for a larger kappa;
- else: ``sin(delta / 2) = S t``, ``S^2 = 19 / kappa``, 48-point Gauss-Legendre in t on [-1, 1]: the
  exponential becomes ``exp(-38 t^2)`` for every point, and what is cut off is below 1e-16.

Tori whose hole nearly closes (``r > 0.7 R``) get 128 nodes: the integrand's nearest singularity
lies ``arccosh(R / r)`` off the real axis. Where the argument of the Bessel functions is at least 40
on the whole circle, 13 terms of their asymptotic series take the place of the library's.

Nodes come in pairs +-delta and are summed one after another, elementwise, so that a point's numbers
do not depend, not even in the last bit, on what else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, datasets, in_blocks
from diffusion.errors import WrongValue

Measure = Literal["area", "angle"]

_CIRCLES = ((1.0, 24), (5.0, 32), (15.0, 40), (40.0, 56))  # trapezoidal nodes below each kappa
_WINDOW, _THICK = 48, 128  # Gauss-Legendre nodes above; nodes of either rule for r > 0.7 R
_REACH = 38.0  # exp(-38) = 3e-17
_BLOCK = 1 << 14  # points at a time: what belongs to a point stays in the cache
_PAIRS = 1 << 16  # of node and point at a time: half a megabyte for each temporary
_ASYMPTOTIC = 40.0


class Nodes(NamedTuple):
    """Nodes in pairs +-delta, ``[pairs, points]`` each: weight, cos delta, sin delta."""

    weight: Tensor
    cos_delta: Tensor
    sin_delta: Tensor


def _asymptotic_terms(order: int) -> list[float]:
    """Coefficients of ``sqrt(2 pi y) exp(-y) I_order(y)`` in powers of 1/y (Abramowitz & Stegun
    9.7.1).
    """
    terms = [1.0]
    for k in range(1, 14):
        terms.append(-terms[-1] * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k))
    return terms


_SERIES = (_asymptotic_terms(0), _asymptotic_terms(1))


def _bessel(y: Tensor, *, large: bool) -> tuple[Tensor, Tensor]:
    """``exp(-y) I0(y)`` and ``exp(-y) I1(y)``."""
    if not large:
        return torch.special.i0e(y), torch.special.i1e(y)
    inverse = 1 / y
    front = torch.sqrt(inverse / (2 * math.pi))
    sums = []
    for terms in _SERIES:
        total = torch.full_like(y, terms[-1])
        for term in terms[-2::-1]:
            total = total * inverse + term
        sums.append(front * total)
    return sums[0], sums[1]


def _bessel_shortfall(y: Tensor, *, large: bool) -> tuple[Tensor, Tensor]:
    """``exp(-y) I0(y)`` and ``1 - I1(y) / I0(y)``, the latter without cancellation for large y."""
    if not large:
        zeroth = torch.special.i0e(y)
        return zeroth, 1 - torch.special.i1e(y) / zeroth
    inverse = 1 / y
    total = torch.full_like(y, _SERIES[0][-1])
    gap = torch.full_like(y, _SERIES[0][-1] - _SERIES[1][-1])
    for term, other in zip(_SERIES[0][-2::-1], _SERIES[1][-2::-1], strict=True):
        total = total * inverse + term
        gap = gap * inverse + (term - other)
    return torch.sqrt(inverse / (2 * math.pi)) * total, gap / total


class _Place(NamedTuple):
    """Where n points are, seen from the tube's centre: the numbers of the module's text."""

    rho: Tensor
    d: Tensor
    cos_psi: Tensor
    sin_psi: Tensor
    kappa: Tensor
    bessel: Tensor  # alpha rho / sigma^2


def _circle(kappa: Tensor, n: int) -> Nodes:
    """Trapezoidal rule in delta on the whole circle."""
    delta = [math.pi * (2 * i + 1) / n for i in range(n // 2)]
    versine, sine = (
        kappa.new_tensor(values)[:, None]
        for values in ([2 * math.sin(d / 2) ** 2 for d in delta], [math.sin(d) for d in delta])
    )
    return Nodes(torch.exp(-versine * kappa) / n, (1 - versine).expand(-1, *kappa.shape), sine.expand(-1, *kappa.shape))


@cache
def _gauss_legendre(n: int) -> tuple[tuple[float, ...], ...]:
    """Of the positive nodes t on [-1, 1]: 2 t, t^2, and the part of the weight that all points
    share.
    """
    nodes, weights = (v.tolist() for v in np.polynomial.legendre.leggauss(n))
    kept = [(t, w) for t, w in zip(nodes, weights, strict=True) if t > 0]
    share = tuple(w * math.exp(-_REACH * t * t) / math.pi for t, w in kept)
    return tuple(2 * t for t, _ in kept), tuple(t * t for t, _ in kept), share


def _window(kappa: Tensor, n: int) -> Nodes:
    """Gauss-Legendre rule in t, ``sin(delta / 2) = S t``."""
    twice, squares, share = (kappa.new_tensor(values)[:, None] for values in _gauss_legendre(n))
    reach = 0.5 * _REACH / kappa  # S^2
    root = torch.sqrt(reach)
    square = reach * squares
    cosine = torch.sqrt(1 - square)  # cos(delta / 2)
    return Nodes(share * root / cosine, 1 - 2 * square, twice * root * cosine)


@datasets.register(
    "torus",
    formula="p(x) ~ integral over theta of w I0e(alpha a rho/sigma^2) "
    "exp(-((rho - alpha a)^2 + (z - alpha r sin(theta))^2) / (2 sigma^2)), a = R + r cos(theta), w = a (area) or 1 (angle)",
    source="uniform sampling by area: Diaconis, Holmes & Shahshahani, 'Sampling from a manifold', 2013",
    document="S0",
)
@dataclass(frozen=True)
class Torus(Dataset):
    r"""The torus with major radius `R` (to the centre of the tube) and minor radius `r` (of the
    tube), axis along z.

    ``measure="area"`` is uniform on the surface, ``theta`` with density proportional to
    ``R + r cos theta``; ``"angle"`` is uniform in both angles.

    Shapes: ``x`` is ``[..., batch, 3]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Accuracy against a brute-force trapezoid over both angles, ``r / R`` up to 0.9: D to 1e-13 R,
    log p to 1e-13; a hole that is nearly closed costs digits (D to 1e-9 R at ``r / R = 0.99``).

    Raises:
        WrongValue: not ``0 < r < R``, not finite, or an unknown measure.
    """

    R: float = 1.0
    r: float = 0.4
    measure: Measure = "area"

    def __post_init__(self) -> None:
        if not (0 < self.r < self.R < math.inf):
            raise WrongValue(f"torus: R = {self.R!r}, r = {self.r!r}; needed: finite radii with 0 < r < R")
        if self.measure not in get_args(Measure):
            raise WrongValue(f"torus: measure = {self.measure!r}; accepted: {', '.join(get_args(Measure))}")

    @property
    def exact(self) -> bool:
        return True

    @property
    def dim(self) -> int:
        return 3

    @property
    def mean(self) -> tuple[float, ...]:
        return (0.0, 0.0, 0.0)

    @property
    def std(self) -> float:
        return math.sqrt((self.second_moment + self.r**2 / 2) / 3)

    @property
    def second_moment(self) -> float:
        """E[x^2 + y^2]: ``R^2 + 3 r^2 / 2`` (area) or ``R^2 + r^2 / 2`` (angle)."""
        return self.R**2 + self.r**2 * (1.5 if self.measure == "area" else 0.5)

    @property
    def fourth_moment(self) -> float:
        """E[(x^2 + y^2)^2]: ``R^4 + 5 R^2 r^2 + 15 r^4 / 8`` (area) or
        ``R^4 + 3 R^2 r^2 + 3 r^4 / 8`` (angle).
        """
        cross, quartic = (5.0, 1.875) if self.measure == "area" else (3.0, 0.375)
        return self.R**4 + cross * self.R**2 * self.r**2 + quartic * self.r**4

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` independent draws, ``[n, 3]`` float64: exact, and without rejection.

        ``w(theta) + w(theta + pi) = 2``: a uniform angle is kept with probability ``w(theta) / 2``,
        else turned by pi.
        """
        u = torch.rand(3, n, generator=generator, dtype=torch.float64)
        phi, theta = 2 * math.pi * u[0], 2 * math.pi * u[1]
        cosine, sine = torch.cos(theta), torch.sin(theta)
        if self.measure == "area":
            side = torch.where(u[2] < 0.5 * (1 + self.r / self.R * cosine), 1.0, -1.0)
            cosine, sine = side * cosine, side * sine
        a = self.R + self.r * cosine
        return torch.stack([a * torch.cos(phi), a * torch.sin(phi), self.r * sine], dim=-1)

    def distance(self, x: Tensor) -> Tensor:
        """Distance of ``x [..., 3]`` to the surface, ``[...]``: ``|sqrt((rho - R)^2 + z^2) - r|``."""
        rho = torch.hypot(x[..., 0], x[..., 1])
        return (torch.hypot(rho - self.R, x[..., 2]) - self.r).abs()

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._posterior(x, alpha, sigma)[1]

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._posterior(x, alpha, sigma)[0]

    def posterior_variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return in_blocks(self._variance, x, alpha, sigma, block=_BLOCK)

    def _posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """log p ``[..., batch]`` and D ``[..., batch, 3]``, a block of points at a time."""
        shape = (x[..., 0] + alpha + sigma).shape
        points = x.expand(*shape, 3).reshape(-1, 3)
        alphas, sigmas = alpha.expand(shape).reshape(-1), sigma.expand(shape).reshape(-1)
        log_p, denoised = torch.empty_like(alphas), torch.empty_like(points)
        for start in range(0, len(points), _BLOCK):
            rows = slice(start, start + _BLOCK)
            log_p[rows], denoised[rows] = self._block(points[rows], alphas[rows], sigmas[rows])
        return log_p.reshape(shape), denoised.reshape(*shape, 3)

    def _block(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        at = self._place(x, alpha, sigma)
        mass, radial, axial = self._by_rules(at, 3, self._integrate)
        offset = (at.d - alpha * self.r) / sigma
        log_p = torch.log(mass) - 0.5 * offset * offset - 1.5 * math.log(2 * math.pi) - 3 * torch.log(sigma)
        scale = radial / mass / torch.where(at.rho > 0, at.rho, 1.0)
        return log_p, torch.stack([scale * x[:, 0], scale * x[:, 1], axial / mass], dim=-1)

    def _variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        mass, radial, axial, square = self._by_rules(self._place(x, alpha, sigma), 4, self._integrate_squares)
        u, w = radial / mass, axial / mass
        variance: Tensor = square / mass - u * u - w * w
        return variance

    def _place(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> _Place:
        rho = torch.sqrt(x[:, 0] * x[:, 0] + x[:, 1] * x[:, 1])
        across, z = rho - alpha * self.R, x[:, 2]
        d = torch.sqrt(across * across + z * z)
        # psi is arbitrary at d = 0; any unit vector will do there.
        cos_psi = torch.where(d > 0, across / d, 1.0)
        sin_psi = torch.where(d > 0, z / d, 0.0)
        kappa = alpha * self.r * d / (sigma * sigma)
        return _Place(rho, d, cos_psi, sin_psi, kappa, alpha * rho / (sigma * sigma))

    def _by_rules(self, at: _Place, count: int, integrate: Callable[..., Tensor]) -> Tensor:
        """The integrals of each point by the rule that is its own, ``[count, points]``."""
        sharp = at.bessel * (self.R - self.r) >= _ASYMPTOTIC
        moments = torch.full((count, len(at.d)), math.nan, dtype=at.d.dtype)  # a point that is NaN belongs to no rule
        for low, high, rule, n in self._rules():
            for large in (False, True):
                own = ((at.kappa >= low) & (at.kappa < high) & (sharp == large)).nonzero().squeeze(1)
                for index in own.split(_PAIRS // n):
                    nodes = rule(at.kappa[index], n)
                    terms = integrate(nodes, at.bessel[index], at.cos_psi[index], at.sin_psi[index], large=large)
                    moments[:, index] = _one_after_another(terms)
        return moments

    def _rules(self) -> Iterator[tuple[float, float, Callable[[Tensor, int], Nodes], int]]:
        """(lowest kappa, upper bound of kappa, rule, nodes), together covering [0, inf]."""
        thick = self.r > 0.7 * self.R
        low = 0.0
        for high, n in _CIRCLES:
            yield low, high, _circle, _THICK if thick else n
            low = high
        yield low, math.inf, _window, _THICK if thick else _WINDOW

    def _integrate(self, rule: Nodes, bessel: Tensor, cos_psi: Tensor, sin_psi: Tensor, *, large: bool) -> Tensor:
        """Terms of the integrals of 1, a I1 / I0 and r sin theta against the weight, ``[nodes, 3,
        points]``.
        """
        weight, cos_theta, sin_theta = _both_sides(rule, cos_psi, sin_psi)
        a = self.R + self.r * cos_theta
        share = weight * (1 + self._lean * cos_theta)
        zeroth, first = _bessel(bessel * a, large=large)
        zeroth = share * zeroth
        return torch.stack([zeroth, share * a * first, zeroth * (self.r * sin_theta)], dim=2).flatten(0, 1)

    def _integrate_squares(
        self, rule: Nodes, bessel: Tensor, cos_psi: Tensor, sin_psi: Tensor, *, large: bool
    ) -> Tensor:
        """Terms of the integrals of 1, u, w and ``u^2 + w^2 + a^2 (1 - A^2)``, ``[nodes, 4, points]``.

        u and w are the means of rho and z at the angle theta, less those of the tube's point on the
        side of `x`: where the posterior is narrow they are small, and nothing cancels.
        """
        weight, cos_theta, sin_theta = _both_sides(rule, cos_psi, sin_psi)
        a = self.R + self.r * cos_theta
        zeroth, short = _bessel_shortfall(bessel * a, large=large)
        zeroth = weight * (1 + self._lean * cos_theta) * zeroth
        u = self.r * (cos_theta - cos_psi) - a * short
        w = self.r * (sin_theta - sin_psi)
        square = zeroth * (u * u + w * w + a * a * short * (2 - short))
        return torch.stack([zeroth, zeroth * u, zeroth * w, square], dim=2).flatten(0, 1)

    @property
    def _lean(self) -> float:
        """How the weight of an angle leans outwards."""
        return self.r / self.R if self.measure == "area" else 0.0


def _both_sides(rule: Nodes, cos_psi: Tensor, sin_psi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, cos theta and sin theta of each node and its mirror image, ``[pairs, 2, points]``."""
    sine = torch.stack([rule.sin_delta, -rule.sin_delta], dim=1)
    cosine = rule.cos_delta[:, None]
    return rule.weight[:, None], cos_psi * cosine - sin_psi * sine, sin_psi * cosine + cos_psi * sine


def _one_after_another(terms: Tensor) -> Tensor:
    """The sum over the first axis, elementwise and in its order."""
    total = terms[0]
    for term in terms[1:].unbind():
        total = total + term
    return total
