r"""Guidance by a noisy observation of some coordinates, the linear inverse problem
``y = A x_0 + n``, ``n ~ N(0, s^2 I)``.

    p_t(y | x_t) = E[N(y; A x_0, s^2 I) | x_t]

is known where the conditioned law is: for normal data and mixtures of them, for point sets, and for
every target with an exact denoiser if all of its coordinates are observed. There the denoiser is
shifted by ``w (D_y - D)``, exact posterior means both.

Elsewhere the posterior of x_0 is taken for a normal law around the denoiser that is to be guided,

    p_t(y | x_t) ~ N(y; A D(x_t), A C A^T + s^2 I)
    (sigma^2 / alpha) grad log p_t(y | x_t) ~ (sigma^2 / alpha) J^T A^T (A C A^T + s^2 I)^(-1) (y - A D),   J = dD/dx

with the dependence of C on x_t left out; J^T acts by one pass of automatic differentiation for each
observed coordinate. C is

| likelihood | C | |
|---|---|---|
| `moments` | (sigma^2 / alpha) J, symmetric part | the posterior's own covariance (Tweedie's second-order formula): exact for normal data |
| `prior` | std^2 sigma^2 / (alpha^2 std^2 + sigma^2) I | as if the data were ``N(., std^2 I)`` (Song et al. 2023) |
| `point` | 0 | as if the posterior were the point D (Chung et al. 2023); stiff where s is small |

A network's J is wrong by about as much at every level, and sigma^2 J the more: at rho = sigma /
(alpha std) = 100 by several times the variance of the data, where there is next to nothing to know
of x_0 but the law of the data. So `moments` takes for (sigma^2 / alpha) J at high noise the
covariance ``S (1 + alpha^2 S / sigma^2)^(-1)`` that normal data of the same covariance S would
leave, in parts ``1 / (1 + (rho/5)^4)`` and the rest: right in the limit, and on normal data at
every level.

What the approximation is worth, samples against the reference law tell: its error does not vanish
with more steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets import Dataset, Gaussian
from diffusion.datasets.observed import closed_form, observed
from diffusion.devices import indices, numbers, to_device
from diffusion.errors import WrongValue
from diffusion.formulations import Formulation
from diffusion.guidance.base import by_dataset, guidances, with_signal
from diffusion.guidance.coordinates import KnownCoordinates
from diffusion.models import Denoiser
from diffusion.randomness import stream
from diffusion.registry import identity_text

_MOST_PULLS = 16  # coordinates up to which every row of the Jacobian is worked out
_NOISY = 5.0  # noise beside the data's deviation from which on a Jacobian counts for less than half
_DRAWS, _NUMBERS = 100_000, 4_000_000  # at most, for a covariance
_LEAST = 1e-6  # of the variance that normal data would have: a network's Jacobian may have no sign


@guidances.register(
    "observation",
    formula="D + w sigma^2/alpha grad log p_t(y | x_t),  y = A x_0 + N(0, s^2 I);  exact, or N(y; A D, A C A^T + s^2 I)",
    source="Song et al., Pseudoinverse-Guided Diffusion Models for Inverse Problems, ICLR 2023; Chung et al., Diffusion Posterior "
    "Sampling, ICLR 2023; Boys et al., Tweedie Moment Projected Diffusions, TMLR 2024",
    document="S1",
)
@dataclass(frozen=True)
class NoisyObservation(KnownCoordinates):
    """A linear inverse problem: the named coordinates were measured with noise of standard
    deviation `std`.

    `likelihood` is ``best`` (exact where it is known, else ``moments``), ``moments``, ``prior`` or
    ``point``.

    Raises:
        WrongValue: besides what `KnownCoordinates` refuses, `std` negative, a weight that is not
            finite, a ``point`` without noise.
    """

    version: ClassVar[int] = 2  # 1: a network's Jacobian was believed at every level
    cost: ClassVar[float] = 4.0

    std: float = 0.1
    weight: float = 1.0
    likelihood: Literal["best", "moments", "prior", "point"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.std < math.inf and math.isfinite(self.weight)):
            raise WrongValue(f"std = {self.std!r}, weight = {self.weight!r}; needed: finite numbers, std not negative")
        if self.likelihood == "point" and self.std == 0:
            raise WrongValue("likelihood 'point' of an observation without noise is infinite; needed: std > 0")

    @property
    def noise(self) -> float:
        return self.std

    def refuses(self, dataset: Dataset, formulation: Formulation) -> str | None:
        if reason := super().refuses(dataset, formulation):
            return reason
        if self.exact_on(dataset):
            return self.refuses_target(dataset)
        n = len(self._listed(dataset.dim))
        if self.likelihood in ("best", "moments") and n > _MOST_PULLS:
            return f"likelihood 'moments' works out a row of the Jacobian for each of {n} coordinates, at most {_MOST_PULLS} (use prior)"
        return None

    def exact_on(self, dataset: Dataset) -> bool:
        """Whether p_t(y | x_t) itself is used."""
        return self.likelihood == "best" and closed_form(dataset, self.observation(dataset))

    def denoise(
        self, denoiser: Denoiser, datasets: Sequence[Dataset], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        rows = [m for m, dataset in enumerate(datasets) if not self.exact_on(dataset)]
        if not rows:
            return denoiser(x, alpha, sigma) + self.weight * by_dataset(datasets, self._exact_shift, x, alpha, sigma)
        denoised, shift = self._approximate(denoiser, datasets, x, alpha, sigma)
        exact = [m for m in range(len(datasets)) if m not in rows]
        if exact:
            chosen, own = [datasets[m] for m in exact], indices(exact, x.device)
            shift[own] = by_dataset(chosen, self._exact_shift, x[own], alpha[own], sigma[own])
        return denoised + self.weight * shift

    def _exact_shift(self, dataset: Dataset, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        conditioned = observed(dataset, self.observation(dataset))
        return conditioned.denoise(x, alpha, sigma) - dataset.denoise(x, alpha, sigma)

    def _approximate(
        self, denoiser: Denoiser, datasets: Sequence[Dataset], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The denoiser and its shift, from the normal law around it."""
        signal = with_signal(alpha, sigma)
        seen = list(self._listed(x.shape[-1]))
        known_at = indices(seen, x.device)
        y = numbers([self.observation(dataset).values for dataset in datasets], x.device)[:, None]
        scale = (sigma * sigma / signal)[:, None, None]
        std = numbers([dataset.std for dataset in datasets], x.device)
        if_normal = ((std * sigma) ** 2 / ((signal * std) ** 2 + sigma**2))[:, None, None]
        with torch.enable_grad():
            place = x.detach().requires_grad_()
            denoised = denoiser(place, signal, sigma)
            residual = y - denoised.detach()[..., known_at]
            if self.likelihood in ("best", "moments"):
                pulls = [
                    torch.autograd.grad(denoised[..., j].sum(), place, retain_graph=j != seen[-1])[0] for j in seen
                ]
                known = 1 / (1 + (sigma / (_NOISY * signal * std)) ** 4)[:, None, None, None]
                normal = torch.stack([_left(*each, known_at) for each in zip(datasets, signal, sigma, strict=True)])
                rows = known * scale[..., None] * torch.stack(pulls, dim=-2) + (1 - known) * normal[:, None]
                shift = rows * self._weights(rows[..., known_at], if_normal, residual)[..., None]  # [.., observed, dim]
                return denoised.detach(), shift.sum(-2)
            variance = self.std**2 + (if_normal if self.likelihood == "prior" else 0.0)
            (pull,) = torch.autograd.grad((denoised[..., known_at] * (residual / variance)).sum(), place)
        return denoised.detach(), scale * pull

    def _weights(self, covariance: Tensor, if_normal: Tensor, residual: Tensor) -> Tensor:
        """``(C + s^2 I)^(-1) residual``, C the positive part of
        ``covariance [members, batch, observed, observed]``.
        """
        values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.mT))
        spread = torch.maximum(values, _LEAST * if_normal) + self.std**2
        along = (vectors * residual[..., None]).sum(-2) / spread
        weights: Tensor = (vectors * along[..., None, :]).sum(-1)
        return weights


def _left(dataset: Dataset, alpha: Tensor, sigma: Tensor, seen: Tensor) -> Tensor:
    """Rows ``[observed, dim]`` of the covariance of x_0 given x_t, if the data were normal with the
    covariance that they have.
    """
    values, vectors = _axes_on(dataset, alpha.device)
    return (vectors[seen] * (values * sigma**2 / (alpha**2 * values + sigma**2))) @ vectors.T


@remembered(64)
def _axes_on(dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    values, vectors = _axes(dataset)
    return to_device(values, device), to_device(vectors, device)


@remembered(64)
def _axes(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[dim]`` and eigenvectors ``[dim, dim]``, in columns, of the covariance of the
    data: known, or of fixed draws.
    """
    if isinstance(dataset, Gaussian):
        return torch.tensor([s**2 for s in dataset.coordinates()[1]], dtype=torch.float64), torch.eye(
            dataset.dim
        ).double()
    draws = dataset.sample(
        min(_DRAWS, _NUMBERS // dataset.dim) + dataset.dim, stream("covariance", identity_text(dataset))
    )
    values, vectors = torch.linalg.eigh(draws.T.cov(correction=0).reshape(dataset.dim, dataset.dim))
    return values.clamp(min=0), vectors
