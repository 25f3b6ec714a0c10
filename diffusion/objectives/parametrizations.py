r"""What the network outputs, and how that becomes a denoiser.

A noisy sample scaled to unit power is a point on a circle between data and noise,

    z = x_t / sqrt(alpha^2 + sigma^2) = a x_0 + b eps,      a^2 + b^2 = 1,

and what a network F predicts is another combination of the same two,

    F = p x_0 + q eps.

Two equations, two unknowns: with ``det = a q - b p``

    x_0 = (q z - b F) / det,      eps = (a F - p z) / det,      score = -eps / sigma.

So a parametrization is two numbers for each noise level (and the scale of its inputs), and every
conversion between two of them goes through the pair (x_0, eps). It depends on ``sigma / alpha``
alone: a network trained on one schedule can be sampled on any other, as long as it knows the noise
levels.

| parametrization | the network predicts | p | q | input |
|---|---|---|---|---|
| `epsilon` | the noise | 0 | 1 | z |
| `x0` | the data | 1 | 0 | z |
| `score` | sigma / alpha times the score of ``x_t / alpha`` | 0 | -1 | z / a |
| `v` | the velocity on the circle | -b | a | z |
| `flow-velocity` | eps - x_0, the velocity of the straight path | -1 | 1 | z / (a + b) |
| `edm` | data and noise mixed to unit variance | b / (s c) | -s a / c | z / c |

with s the data's standard deviation (`sigma_data`, as the dataset states it) and
``c = sqrt(s^2 a^2 + b^2)``. The denoiser is ``D = c_skip z + c_out F(c_in z)`` with
``c_skip = q / det`` and ``c_out = -b / det``; in the coordinates ``x_t / alpha`` of Karras et al.
(2022) that is their eq. 7. `epsilon` and `score` have ``det = 0`` where no signal is left
(``alpha = 0``): they know nothing of the data there.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.registry import Component, Registry

parametrizations: Registry[Parametrization] = Registry("parametrization")


@dataclass(frozen=True)
class Circle:
    """A noise level as a point of the unit circle: ``a = alpha / r``, ``b = sigma / r``,
    ``r = sqrt(alpha^2 + sigma^2)``.
    """

    a: Tensor
    b: Tensor

    @classmethod
    def of(cls, alpha: Tensor, sigma: Tensor) -> Circle:
        """From a schedule's alpha and sigma, not both zero."""
        r = torch.sqrt(alpha**2 + sigma**2)
        return cls(alpha / r, sigma / r)

    @classmethod
    def at(cls, nsr: Tensor) -> Circle:
        """From the noise-to-signal ratio, which may be infinite."""
        inverse = 1 / nsr  # of large ratios, whose square may overflow
        large = nsr > 1
        r = torch.sqrt(1 + torch.where(large, inverse, nsr) ** 2)
        return cls(torch.where(large, inverse, torch.ones_like(nsr)) / r, torch.where(large, 1.0, nsr) / r)


@dataclass(frozen=True)
class Coefficients:
    """c_skip, c_out and c_in, shaped like the level they were asked for."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor


@dataclass(frozen=True)
class Parametrization(Component):
    """The two numbers p and q, and the scale of the network's input, as functions of the noise
    level.
    """

    needs_signal: ClassVar[bool] = False  # det = 0 at alpha = 0

    @abstractmethod
    def mixture(self, level: Circle, sigma_data: float) -> tuple[Tensor, Tensor]:
        """p and q of ``F = p x_0 + q eps``, shaped like the level."""

    def input_scale(self, level: Circle, sigma_data: float) -> Tensor:  # noqa: ARG002
        """c_in: what z is multiplied by before the network sees it."""
        return torch.ones_like(level.a)

    def coefficients(self, level: Circle, sigma_data: float) -> Coefficients:
        """c_skip, c_out, c_in of ``D = c_skip z + c_out F(c_in z)``."""
        p, q = self.mixture(level, sigma_data)
        det = level.a * q - level.b * p
        return Coefficients(q / det, -level.b / det, self.input_scale(level, sigma_data))

    def predict(self, data: Tensor, noise: Tensor, level: Circle, sigma_data: float) -> Tensor:
        """F for known data and noise ``[..., dim]``; the level is ``[...]``."""
        p, q = self.mixture(level, sigma_data)
        return p[..., None] * data + q[..., None] * noise

    def data_and_noise(self, prediction: Tensor, z: Tensor, level: Circle, sigma_data: float) -> tuple[Tensor, Tensor]:
        """x_0 and eps from F and z ``[..., dim]``, each by its own formula: neither is divided out
        of the other.
        """
        p, q = self.mixture(level, sigma_data)
        a, b, det = level.a[..., None], level.b[..., None], (level.a * q - level.b * p)[..., None]
        p, q = p[..., None], q[..., None]
        return (q * z - b * prediction) / det, (a * prediction - p * z) / det


def convert(
    prediction: Tensor, z: Tensor, level: Circle, given: Parametrization, wanted: Parametrization, sigma_data: float
) -> Tensor:
    """A prediction in one parametrization as another would have made it; z, predictions
    ``[..., dim]``, the level ``[...]``.
    """
    data, noise = given.data_and_noise(prediction, z, level, sigma_data)
    return wanted.predict(data, noise, level, sigma_data)


@parametrizations.register(
    "epsilon",
    formula="F = eps;  D = (x - sigma F) / alpha",
    source="Ho et al. 2020; Karras et al. 2022, Table 1, columns VP and iDDPM",
    document="S0 levels 1 to 3, S2 section 2.8",
)
@dataclass(frozen=True)
class Epsilon(Parametrization):
    """F predicts the noise."""

    needs_signal: ClassVar[bool] = True

    def mixture(self, level: Circle, sigma_data: float) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return torch.zeros_like(level.a), torch.ones_like(level.a)


@parametrizations.register(
    "x0",
    formula="F = x_0;  D = F",
    source="Ho et al. 2020, section 3.2; Salimans & Ho, ICLR 2022",
    document="S0 level 2, S2 section 2.7",
)
@dataclass(frozen=True)
class Data(Parametrization):
    """F predicts the data."""

    def mixture(self, level: Circle, sigma_data: float) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return torch.ones_like(level.a), torch.zeros_like(level.a)


@parametrizations.register(
    "score",
    formula="F = sigma score;  D = (x + sigma F) / alpha",
    source="Song & Ermon, NeurIPS 2019; Karras et al. 2022, Table 1, column VE",
    document="S0 level 3, S1",
)
@dataclass(frozen=True)
class PredictedScore(Parametrization):
    """F predicts sigma times the score from the unscaled input ``x_t / alpha``."""

    needs_signal: ClassVar[bool] = True

    def mixture(self, level: Circle, sigma_data: float) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return torch.zeros_like(level.a), -torch.ones_like(level.a)

    def input_scale(self, level: Circle, sigma_data: float) -> Tensor:  # noqa: ARG002
        return 1 / level.a


@parametrizations.register(
    "v",
    formula="F = a eps - b x_0, a = alpha/sqrt(alpha^2+sigma^2), b = sigma/sqrt(alpha^2+sigma^2)",
    source="Salimans & Ho, Progressive Distillation, ICLR 2022, appendix D",
)
@dataclass(frozen=True)
class Velocity(Parametrization):
    """F predicts d z / d phi, phi the angle from data to noise: bounded at both ends."""

    def mixture(self, level: Circle, sigma_data: float) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return -level.b, level.a


@parametrizations.register(
    "flow-velocity",
    formula="F = eps - x_0: dx/dt on the straight path x_t = (1 - t) x_0 + t eps with t = sigma/(alpha + sigma)",
    source="Lipman et al., Flow Matching, ICLR 2023; Liu et al., Rectified Flow, ICLR 2023",
)
@dataclass(frozen=True)
class FlowVelocity(Parametrization):
    """F predicts the straight path's velocity, from the point on that path."""

    def mixture(self, level: Circle, sigma_data: float) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return -torch.ones_like(level.a), torch.ones_like(level.a)

    def input_scale(self, level: Circle, sigma_data: float) -> Tensor:  # noqa: ARG002
        return 1 / (level.a + level.b)


@parametrizations.register(
    "edm",
    formula="c_skip = s^2/(sigma^2+s^2), c_out = sigma s/sqrt(sigma^2+s^2), c_in = 1/sqrt(sigma^2+s^2) on x/alpha; s = sigma_data",
    source="Karras et al. 2022, Table 1, column EDM",
    document="S0 level 4",
)
@dataclass(frozen=True)
class Preconditioned(Parametrization):
    """Inputs and targets of unit variance at every noise level (for centred data)."""

    def mixture(self, level: Circle, sigma_data: float) -> tuple[Tensor, Tensor]:
        c = self._spread(level, sigma_data)
        return level.b / (sigma_data * c), -sigma_data * level.a / c

    def input_scale(self, level: Circle, sigma_data: float) -> Tensor:
        return 1 / self._spread(level, sigma_data)

    @staticmethod
    def _spread(level: Circle, sigma_data: float) -> Tensor:
        """Standard deviation of z for centred data."""
        return torch.sqrt((sigma_data * level.a) ** 2 + level.b**2)
