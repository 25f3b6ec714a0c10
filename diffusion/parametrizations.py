r"""What the network outputs, and how that becomes a denoiser.

In the coordinates ``y = x_t / alpha = x_0 + sigma eps`` (sigma is the noise-to-signal ratio) the denoiser is

    D(y; sigma) = c_skip(sigma) y + c_out(sigma) F(c_in(sigma) y; c_noise)

with the raw network F (Karras et al. 2022, eq. 7). Training F to the *effective target* ``(x_0 - c_skip y) / c_out`` with
weight ``lambda c_out^2`` is the denoising loss ``lambda |D - x_0|^2`` without its cancellations.

| parametrization | the network predicts | c_skip | c_out | c_in |
|---|---|---|---|---|
| `epsilon` | the noise, from unit-variance inputs | 1 | -sigma | 1/sqrt(sigma^2 + 1) |
| `score` | sigma times the score (minus the noise), from raw inputs | 1 | sigma | 1 |
| `edm` | a mixture of data and noise of unit variance | s^2/(sigma^2+s^2) | sigma s/sqrt(sigma^2+s^2) | 1/sqrt(sigma^2+s^2) |

where s is the data's standard deviation, `sigma_data`, as the dataset states it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.registry import Component, Registry

parametrizations: Registry[Parametrization] = Registry("parametrization")


@dataclass(frozen=True)
class Coefficients:
    """c_skip, c_out and c_in, shaped like the sigma they were asked for."""

    skip: Tensor
    out: Tensor
    into: Tensor


@dataclass(frozen=True)
class Parametrization(Component):
    """The three coefficients as functions of the noise-to-signal ratio and of the data's standard deviation."""

    @abstractmethod
    def coefficients(self, sigma: Tensor, sigma_data: float) -> Coefficients:
        """Coefficients at `sigma`, any shape, float64."""


@parametrizations.register(
    "epsilon",
    formula="D = y - sigma F(y / sqrt(sigma^2 + 1))",
    source="Ho et al. 2020; Karras et al. 2022, Table 1, columns VP and iDDPM",
    seed="S0 levels 1 to 3, S2 section 2.8",
)
@dataclass(frozen=True)
class Epsilon(Parametrization):
    """F predicts the noise."""

    def coefficients(self, sigma: Tensor, sigma_data: float) -> Coefficients:  # noqa: ARG002
        return Coefficients(torch.ones_like(sigma), -sigma, 1 / torch.sqrt(sigma**2 + 1))


@parametrizations.register(
    "score",
    formula="D = y + sigma F(y)",
    source="Song & Ermon, NeurIPS 2019; Karras et al. 2022, Table 1, column VE",
    seed="S1",
)
@dataclass(frozen=True)
class Score(Parametrization):
    """F predicts sigma times the score from the unscaled input."""

    def coefficients(self, sigma: Tensor, sigma_data: float) -> Coefficients:  # noqa: ARG002
        return Coefficients(torch.ones_like(sigma), sigma, torch.ones_like(sigma))


@parametrizations.register(
    "edm",
    formula="c_skip = s^2/(sigma^2+s^2), c_out = sigma s/sqrt(sigma^2+s^2), c_in = 1/sqrt(sigma^2+s^2), s = sigma_data",
    source="Karras et al. 2022, Table 1, column EDM",
    seed="S0 level 4",
)
@dataclass(frozen=True)
class Preconditioned(Parametrization):
    """Inputs and targets of unit variance at every noise level (for centred data)."""

    def coefficients(self, sigma: Tensor, sigma_data: float) -> Coefficients:
        total = torch.sqrt(sigma**2 + sigma_data**2)
        return Coefficients(sigma_data**2 / total**2, sigma * sigma_data / total, 1 / total)
