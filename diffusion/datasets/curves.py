r"""Two moons and a swiss roll: curves in the plane, blurred by Gaussian noise; and moons with streaks.

Their noised laws are in `diffusion.datasets.blurred_curve`; here are the curves, their moments and
the modes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.datasets.base import Dataset, datasets
from diffusion.datasets.blurred_curve import LONGEST_PANEL, BlurredCurve, Panels, Plane
from diffusion.errors import WrongValue


def arc_points(t: Tensor, arc: Tensor) -> Plane:
    """The half circles at t: ``(cos t, sin t)`` of arc 0 and ``(1 - cos t, 1/2 - sin t)`` of arc 1."""
    sign = 1.0 - 2.0 * arc
    return arc + sign * torch.cos(t), 0.5 * arc + sign * torch.sin(t)


@datasets.register(
    "moons",
    formula="p(x) = mean over the arc and t of N(x; alpha c(t), (alpha^2 noise^2 + sigma^2) I),  "
    "c = (cos t, sin t) or (1 - cos t, 1/2 - sin t), t ~ U(0, pi)",
    source="make_moons of scikit-learn: Pedregosa et al., JMLR 12, 2011",
)
@dataclass(frozen=True)
class Moons(BlurredCurve):
    r"""Two half circles ``(cos t, sin t)`` and ``(1 - cos t, 1/2 - sin t)``, ``t ~ U(0, pi)``,
    equally likely, blurred.

    `noise` is the standard deviation of the isotropic Gaussian added to each coordinate, and the
    circles have radius 1. Mean (1/2, 1/4); ``std^2 = 21/32 - 1 / (2 pi) + noise^2``, so that std is
    0.706820 by default.

    Modes are the two arcs, in this order, and `mode_of` is the nearest; each has weight 1/2 for any
    noise, since turning the plane by pi about the mean exchanges them.

    Shapes: ``x`` is ``[..., batch, 2]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: the noise is not between 0.01 and 100.
    """

    @property
    def mean(self) -> tuple[float, ...]:
        return (0.5, 0.25)

    @property
    def std(self) -> float:
        return math.sqrt(21 / 32 - 1 / (2 * math.pi) + self.noise**2)

    def curve(self, t: Tensor, arc: Tensor) -> Plane:
        return arc_points(t, arc)

    def _cut(self) -> Panels:
        n = max(4, math.ceil(math.pi / (LONGEST_PANEL * self.noise)))
        edges = math.pi * torch.arange(n + 1, dtype=torch.float64) / n
        arc = torch.arange(2).repeat_interleave(n)
        return Panels(math.pi / n, arc, edges[:-1].repeat(2), edges[1:].repeat(2), speed=1.0, bend=1.0)

    @property
    def mode_weights(self) -> tuple[float, ...] | None:
        return (0.5, 0.5)

    def mode_of(self, x: Tensor) -> Tensor:
        distances = []
        for arc, sign in ((0.0, 1.0), (1.0, -1.0)):
            across, up = sign * (x[:, 0] - arc), sign * (x[:, 1] - 0.5 * arc)
            radius = torch.sqrt(across * across + up * up)
            to_end = torch.sqrt((across.abs() - 1) ** 2 + up * up)
            distances.append(torch.where(up >= 0, (radius - 1).abs(), to_end))
        return (distances[1] < distances[0]).to(torch.int64)


@datasets.register(
    "streaked_moons",
    formula="x = radius (c(t) + u (1, 1)) + offset,  c = (cos t, sin t) or (1 - cos t, 1/2 - sin t),  t ~ U(0, pi),  u ~ U(0, streak)",
    source="generate_moons of torchdyn: Poli, Massaroli et al., TorchDyn: A Neural Differential Equations Library, 2020; "
    "scale and offset: Tong et al., TMLR 2024 (torchcfm)",
)
@dataclass(frozen=True)
class StreakedMoons(Dataset):
    r"""The two half circles of `moons`, each point moved along the diagonal by one uniform number.

    torchdyn's moons, whose ``noise`` is this number and no Gaussian; the defaults are the target of
    papers that go from eight Gaussians to moons: ``3 generate_moons(noise=0.2) - 1``. There t runs
    over equal steps and exactly half of the points lie on each arc; here draws are independent.
    Mean ``radius ((1/2, 1/4) + streak/2) + offset``, and

        std^2 = radius^2 (21/32 - 1 / (2 pi) + streak^2 / 12),

    2.122229 by default. The law of noised points has no closed form and is not offered.

    Raises:
        WrongValue: `radius` is not positive, `streak` negative, or a number not finite.
    """

    radius: float = 3.0
    streak: float = 0.2
    offset: float = -1.0

    def __post_init__(self) -> None:
        if not (0 < self.radius < math.inf and 0 <= self.streak < math.inf and math.isfinite(self.offset)):
            raise WrongValue(
                f"streaked_moons: radius = {self.radius!r}, streak = {self.streak!r}, offset = {self.offset!r}; "
                "needed: a positive radius, a streak of at least 0, finite numbers"
            )

    @property
    def dim(self) -> int:
        return 2

    @property
    def mean(self) -> tuple[float, ...]:
        return tuple(self.radius * (c + self.streak / 2) + self.offset for c in (0.5, 0.25))

    @property
    def std(self) -> float:
        return self.radius * math.sqrt(21 / 32 - 1 / (2 * math.pi) + self.streak**2 / 12)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        t, u = torch.rand(2, n, generator=generator, dtype=torch.float64)
        arc = torch.randint(2, (n,), generator=generator).double()
        moved = torch.stack(arc_points(math.pi * t, arc), -1) + self.streak * u[:, None]
        found: Tensor = self.radius * moved + self.offset
        return found


_FIRST, _LAST = 1.5 * math.pi, 4.5 * math.pi
_SCALE = 0.1


@datasets.register(
    "swiss_roll",
    formula="p(x) = mean over t of N(x; alpha c(t), (alpha^2 noise^2 + sigma^2) I),  c = (t cos t, t sin t) / 10, "
    "t ~ U(1.5 pi, 4.5 pi)",
    source="make_swiss_roll of scikit-learn, without the height: Marsland, Machine Learning, 2009, chapter 10",
)
@dataclass(frozen=True)
class SwissRoll(BlurredCurve):
    r"""The spiral ``(t cos t, t sin t) / 10``, ``t = 1.5 pi (1 + 2 u)``, ``u ~ U(0, 1)``, blurred.

    `noise` is the standard deviation of the isotropic Gaussian added to each coordinate (after the
    division by 10); the turns are ``pi / 5 = 0.628`` apart and the curve is 8.937 long. Mean
    ``(1/5, 1 / (15 pi))``;

        std^2 = (39 pi^2 / 400 - 1/25 - 1 / (225 pi^2)) / 2 + noise^2

    so that std is 0.680748 by default.

    Shapes: ``x`` is ``[..., batch, 2]``, `alpha` and `sigma` broadcast against ``[..., batch]``;
    all float64.

    Raises:
        WrongValue: the noise is not between 0.01 and 100.
    """

    @property
    def mean(self) -> tuple[float, ...]:
        return (0.2, 1 / (15 * math.pi))

    @property
    def std(self) -> float:
        square = 39 * math.pi**2 / 400 - 1 / 25 - 1 / (225 * math.pi**2)
        return math.sqrt(square / 2 + self.noise**2)

    def curve(self, t: Tensor, arc: Tensor) -> Plane:  # noqa: ARG002  # there is one only
        radius = _SCALE * t
        return radius * torch.cos(t), radius * torch.sin(t)

    def _cut(self) -> Panels:
        whole = _arc_length(_LAST) - _arc_length(_FIRST)
        n = max(8, math.ceil(whole / (LONGEST_PANEL * self.noise)))
        edges = [_FIRST]
        for i in range(1, n):
            edges.append(_at_arc_length(_arc_length(_FIRST) + whole * i / n, edges[-1]))
        t = torch.tensor([*edges, _LAST], dtype=torch.float64)
        speed, bend = _SCALE * math.sqrt(1 + _LAST**2), _SCALE * math.sqrt(4 + _LAST**2)
        return Panels(whole / n, torch.zeros(n, dtype=torch.int64), t[:-1], t[1:], speed, bend)


def _arc_length(t: float) -> float:
    """Length of the spiral from its centre to t."""
    return 0.5 * _SCALE * (t * math.sqrt(1 + t * t) + math.asinh(t))


def _at_arc_length(length: float, start: float) -> float:
    """The t at which the spiral has that length: Newton's method, which converges from below since
    the length is convex.
    """
    t = start
    for _ in range(20):
        t += (length - _arc_length(t)) / (_SCALE * math.sqrt(1 + t * t))
    return t
