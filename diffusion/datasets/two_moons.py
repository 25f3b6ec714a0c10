r"""The posterior of the two moons: two half-circles with a blurred radius, by quadrature over the
angle.

    x = (r cos a + 1/4 - |u|, r sin a + v),      a ~ U(-pi/2, pi/2),  r ~ N(0.1, 0.01^2)
    u = (theta_1 + theta_2) / sqrt 2,            v = (theta_2 - theta_1) / sqrt 2

Given x_o the parameters lie at ``|u| = c + r cos a``, ``v = x_o2 + r sin a`` with ``c = 1/4 - x_o1``
and the simulator's own law of a and r, either sign of u as likely as the other: two moons, cut off
where they leave the prior's square. Eight of the ten observations lead to moons that lie inside;
only these have exact answers.

In the coordinates of the moon on one side, ``z = (+-u_t - alpha c, v_t - alpha x_o2)``, and with
``along = z . e(a)``, ``across = z . e'(a)``, ``B = sigma^2 + alpha^2 s^2``, a noised point has, given
the angle, the density

    N(along; alpha r_0, B) N(across; 0, sigma^2) = exp(kappa along^2 + lambda along) * (what has no angle)
    kappa = (1 / sigma^2 - 1 / B) / 2,   lambda = alpha r_0 / B

and the radius the mean ``(r_0 sigma^2 + alpha s^2 along) / B`` and the variance ``s^2 sigma^2 / B``.
On a quarter of the half-circle the exponent has one maximum, at an end or where z points along or
against e(a). On either side of it the part where the exponent has fallen by less than 40 to 80 is
found by shrinking and gets 24 Gauss-Legendre nodes, which leaves 1e-12 of the integral at any noise
and any distance. Differences of exponents are products, not differences of large numbers.

Everything is elementwise, on whole vectors of points, or summed by halves: a point's numbers do not
depend on its batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion.datasets.base import InBlocks, datasets, tree_sum
from diffusion.datasets.box import Box
from diffusion.datasets.posterior import Numbers, SimulatorPosterior
from diffusion.datasets.rejection import BLOCK, accepted_draws
from diffusion.errors import NoExactAnswer
from diffusion.randomness import stream

_RADIUS, _BLUR, _BASE = 0.1, 0.01, 0.25  # r_0, s
_FAR = 8.0  # blurs from the radius, where nothing is left of the moon
_DEPTH = 40.0  # below the maximum, where the integrand is left out
_SHRINKINGS = 128
_VECTOR = 32  # points; the last few of an array have sines of their own
_REFERENCE = 1 << 18  # draws that the moments of moons that are cut off are averages of
_QUARTERS = torch.linspace(-math.pi / 2, math.pi / 2, 5, dtype=torch.float64)
_U, _W = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(24))
_NODES, _WEIGHTS = 0.5 * (1 + _U), 0.5 * _W  # on [0, 1]
_ROOT_HALF = math.sqrt(0.5)


class _Rows(NamedTuple):
    """Points seen from one moon each: how far and in which direction from its centre, and what the
    noise makes of them; ``[P]`` each.
    """

    rho: Tensor
    phi: Tensor
    kappa: Tensor
    slope: Tensor  # lambda
    alpha: Tensor
    sigma: Tensor
    B: Tensor

    def of(self, index: Tensor) -> _Rows:
        return _Rows(*(part[index] for part in self))

    def value(self, along: Tensor) -> Tensor:
        return along * (self.kappa * along + self.slope)


class _Peak(NamedTuple):
    """Where the exponent is largest in a quarter: the angle, cosine and sine of its distance from
    the point's own direction, and the exponent.
    """

    angle: Tensor
    cos: Tensor
    sin: Tensor
    value: Tensor


class _Known(NamedTuple):
    """What is known of angle and radius: log mass, the mean of ``r e(a)`` and its spread, and the
    mean of the gradient in z.
    """

    log_mass: Tensor
    x: Tensor
    y: Tensor
    spread: Tensor
    pull_x: Tensor
    pull_y: Tensor


@datasets.register(
    "two_moons_posterior",
    formula="|u| = 1/4 - x_o1 + r cos a, v = x_o2 + r sin a, a ~ U(-pi/2, pi/2), r ~ N(0.1, 0.01^2), "
    "(u, v) = (theta_1 + theta_2, theta_2 - theta_1) / sqrt 2",
    source="Lueckmann et al., Benchmarking Simulation-Based Inference, AISTATS 2021, appendix T.8; observations: sbibm 1.1.0",
)
@dataclass(frozen=True)
class TwoMoonsPosterior(InBlocks, SimulatorPosterior):
    """Two half-circles in the plane, a tenth in radius and a hundredth in width.

    Shapes: ``x`` is ``[..., batch, 2]``, alpha and sigma broadcast against ``[..., batch]``; all
    float64.
    """

    block: ClassVar[int] = 1 << 11
    effort: ClassVar[float] = 16.0
    observations: ClassVar[tuple[Numbers, ...]] = (
        (-0.6396706, 0.16234657),
        (-0.5676688, -0.33194834),
        (0.0030109584, -0.6457662),
        (-0.25049388, 0.633055),
        (-0.66463584, -0.42604533),
        (-0.12940255, 0.3873573),
        (0.19458583, 1.0400153),
        (0.13603824, 0.9160449),
        (-0.17962828, -0.5452459),
        (0.14563406, -1.170141),
    )

    @property
    def exact(self) -> bool:
        """Whether the moons lie inside of the prior's square, but for 1e-15 of their mass."""
        farthest = self._centre[0] + abs(self._centre[1]) + math.sqrt(2) * (_RADIUS + _FAR * _BLUR)
        return farthest * _ROOT_HALF <= 1

    @property
    def dim(self) -> int:
        return 2

    @property
    def _centre(self) -> tuple[float, float]:
        """Of the moon on the right, in u and v."""
        return _BASE - self.observed[0], self.observed[1]

    @property
    def prior(self) -> Box:
        return Box(-1.0, 1.0, 2)

    @property
    def outcomes(self) -> tuple[Numbers, Numbers]:
        """|u| has mean sqrt(2) / 3 and second moment 1/3."""
        square, forward = _RADIUS**2 + _BLUR**2, 2 * _RADIUS / math.pi
        mean = (_BASE + forward - math.sqrt(2) / 3, 0.0)
        return mean, (math.sqrt(square / 2 - forward**2 + 1 / 9), math.sqrt(square / 2 + 1 / 3))

    def simulate(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        forward, aside = self._crescent(len(theta), generator)
        u, v = (theta[:, 0] + theta[:, 1]) * _ROOT_HALF, (theta[:, 1] - theta[:, 0]) * _ROOT_HALF
        return torch.stack([forward + _BASE - u.abs(), aside + v], 1)

    @staticmethod
    def _crescent(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``r cos a`` and ``r sin a``."""
        a = math.pi * (torch.rand(n, generator=generator, dtype=torch.float64) - 0.5)
        r = _RADIUS + _BLUR * torch.randn(n, generator=generator, dtype=torch.float64)
        return r * torch.cos(a), r * torch.sin(a)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        if self.exact:
            return self._drawn(n, generator)

        def draw() -> tuple[Tensor, Tensor]:
            theta = self._drawn(BLOCK, generator)
            return theta, (theta.abs() <= 1).all(1)

        return accepted_draws(n, "hardly any of the two moons lies in the prior's square", draw)

    def _drawn(self, n: int, generator: torch.Generator) -> Tensor:
        """Of both moons, whole."""
        forward, aside = self._crescent(n, generator)
        side = torch.where(torch.rand(n, generator=generator, dtype=torch.float64) < 0.5, -1.0, 1.0)
        u, v = side * (self._centre[0] + forward), self._centre[1] + aside
        return torch.stack([u - v, u + v], 1) * _ROOT_HALF

    @cached_property
    def _moments(self) -> tuple[Numbers, float]:
        """In closed form, or averages over a fixed large sample of moons that are cut off."""
        if not self.exact:
            x = self.sample(_REFERENCE, stream("two moons", self.observation))
            return tuple(x.mean(0).tolist()), float(x.var(0, correction=0).mean().sqrt())
        c, v = self._centre
        square = (_RADIUS**2 + _BLUR**2) / 2
        power = c * c + 2 * c * (2 * _RADIUS / math.pi) + 2 * square  # of u and of v
        return (-v * _ROOT_HALF, v * _ROOT_HALF), math.sqrt(power / 2)

    @property
    def mean(self) -> Numbers:
        return self._moments[0]

    @property
    def std(self) -> float:
        return self._moments[1]

    # --- noised

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        known = self._both(x, alpha, sigma)
        c = alpha * self._centre[0]
        u, v = self._turned(x, alpha)
        fixed = 0.5 * (u * u + c * c + v * v) / (sigma * sigma)
        B = sigma * sigma + (alpha * _BLUR) ** 2
        return known.log_mass - fixed - 0.5 * (alpha * _RADIUS) ** 2 / B - torch.log(2 * math.pi * sigma * B.sqrt())

    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        known = self._both(x, alpha, sigma)
        return _turned_back(known.x, self._centre[1] + known.y)

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        known = self._both(x, alpha, sigma)
        return _turned_back(known.pull_x, known.pull_y)

    def _variance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._both(x, alpha, sigma).spread

    def _turned(self, x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """u of a noised point, and its v from that of the moons' centres."""
        u, v = (x[:, 0] + x[:, 1]) * _ROOT_HALF, (x[:, 1] - x[:, 0]) * _ROOT_HALF
        return u, v - alpha * self._centre[1]

    def _both(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> _Known:
        """What both moons together say, ``[n]``: the mean of u and of v from the centres', and the
        gradient in u and v.
        """
        if not self.exact:
            raise NoExactAnswer(f"{self.label()} has no exact denoiser: the prior's square cuts its moons off")
        n = len(x)
        x, alpha, sigma = (_whole_vectors(part) for part in (x, alpha, sigma))
        u, v = self._turned(x, alpha)
        c = self._centre[0]
        B = sigma * sigma + (alpha * _BLUR) ** 2
        kappa, slope = 0.5 * (alpha * _BLUR) ** 2 / (sigma * sigma * B), alpha * _RADIUS / B
        sides = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None]
        across = sides * u - alpha * c  # [2, n]
        v = v.expand_as(across).contiguous()  # elsewhere functions take another path, and the last bit with it
        rows = _Rows(torch.hypot(across, v), torch.atan2(v, across), kappa, slope, alpha, sigma, B)
        tilt = sides * u * alpha * c / (sigma * sigma)
        # [2, 4, n]: either moon, each quarter of it
        peaks = _peaks(rows)
        height = peaks.value + tilt[:, None]
        best = height.amax((0, 1))
        kept = ~(height < best - _DEPTH)
        side, quarter, row = _whole_vectors(kept.nonzero()).T
        pair = _Rows(rows.rho[side, row], rows.phi[side, row], *(part[row] for part in rows[2:]))
        peak = _Peak(*(part[side, quarter, row] for part in peaks))
        known = _quarter(pair, peak, _QUARTERS[quarter], _QUARTERS[quarter + 1])
        sign = 1.0 - 2.0 * side.double()
        all_of = [torch.zeros(2, 4, len(u), dtype=torch.float64) for _ in _Known._fields]
        all_of[0].fill_(-math.inf)
        found = known._replace(
            log_mass=known.log_mass + height[side, quarter, row] - math.log(2 * math.pi),
            x=sign * (c + known.x),
            pull_x=sign * known.pull_x,
        )
        for into, part in zip(all_of, found, strict=True):
            into[side, quarter, row] = part
        pooled = _pooled(_Known(*(part.flatten(0, 1) for part in all_of)))
        return _Known(*(part[:n] for part in pooled))


def _whole_vectors(rows: Tensor) -> Tensor:
    """With the first row again and again behind the last."""
    missing = -len(rows) % _VECTOR
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows


def _turned_back(u: Tensor, v: Tensor) -> Tensor:
    return torch.stack([u - v, u + v], -1) * _ROOT_HALF


def _peaks(rows: _Rows) -> _Peak:
    """Of each quarter of each moon, ``[2, 4, n]``."""
    low, high = _QUARTERS[:-1, None], _QUARTERS[1:, None]
    phi = rows.phi[:, None]
    opposite = torch.where(phi > 0, phi - math.pi, phi + math.pi)
    choices = []
    for angle, exact in ((low, None), (high, None), (phi, 1.0), (opposite, -1.0)):
        angle = angle.expand(2, 4, phi.shape[-1])  # noqa: PLW2901
        cos = torch.cos(angle - phi) if exact is None else torch.full_like(angle, exact)
        sin = torch.sin(angle - phi) if exact is None else torch.zeros_like(angle)
        value = rows.value(rows.rho[:, None] * cos)
        inside = (angle >= low) & (angle <= high)
        choices.append((angle, cos, sin, value if exact is None else torch.where(inside, value, -math.inf)))
    angle, cos, sin, value = (torch.stack(parts) for parts in zip(*choices, strict=True))
    which = value.nan_to_num(nan=math.inf).argmax(0, keepdim=True)
    return _Peak(*(part.gather(0, which)[0] for part in (angle, cos, sin, value)))


def _fall(rows: _Rows, peak: _Peak, t: Tensor) -> tuple[Tensor, Tensor]:
    """How far along e(a) and the exponent lie above those of the peak, t from it: the former is
    ``-2 rho sin(delta + t/2) sin(t/2)``.
    """
    half_sin, half_cos = torch.sin(t / 2), torch.cos(t / 2)
    change = -2 * rows.rho * (peak.sin * half_cos + peak.cos * half_sin) * half_sin
    return change, change * (rows.kappa * (2 * rows.rho * peak.cos + change) + rows.slope)


def _quarter(rows: _Rows, peak: _Peak, low: Tensor, high: Tensor) -> _Known:
    """The integral over a quarter, ``[P]``, in units of its largest value."""
    parts = []
    for reach in (high - peak.angle, low - peak.angle):
        t = reach
        for _ in range(_SHRINKINGS):
            deep = _fall(rows, peak, t * _ROOT_HALF)[1] < -_DEPTH
            if not bool(deep.any()):
                break
            t = torch.where(deep, t * _ROOT_HALF, t)
        at = t * _NODES[:, None]
        parts.append((at, torch.log(t.abs().clamp(min=1e-300)) + torch.log(_WEIGHTS)[:, None]))
    at, log_width = (torch.cat(part) for part in zip(*parts, strict=True))
    change, fall = _fall(rows, peak, at)
    angle = peak.angle + at
    cos, sin = torch.cos(angle), torch.sin(angle)
    along = rows.rho * peak.cos + change
    across = -rows.rho * (peak.sin * torch.cos(at) + peak.cos * torch.sin(at))
    s2 = _BLUR**2
    r = (_RADIUS * rows.sigma**2 + rows.alpha * s2 * along) / rows.B
    own = (s2 * rows.sigma**2 / rows.B).expand_as(r)
    pull_r, pull_a = (rows.alpha * _RADIUS - along) / rows.B, -across / rows.sigma**2
    return _pooled(
        _Known(fall + log_width, r * cos, r * sin, own, pull_r * cos - pull_a * sin, pull_r * sin + pull_a * cos)
    )


def _pooled(parts: _Known) -> _Known:
    """Of ``[K, n]`` parts, weighed with their masses; the spread within and between."""
    top = parts.log_mass.amax(0)
    weight = torch.exp(parts.log_mass - top)
    mass = tree_sum(weight)
    share = weight / mass
    x, y = tree_sum(share * parts.x), tree_sum(share * parts.y)
    spread = tree_sum(share * (parts.spread + (parts.x - x) ** 2 + (parts.y - y) ** 2))
    pull_x, pull_y = tree_sum(share * parts.pull_x), tree_sum(share * parts.pull_y)
    return _Known(top + torch.log(mass), x, y, spread, pull_x, pull_y)
