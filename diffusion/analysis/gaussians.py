r"""Normal distributions beside each other: log-densities, and how far one is from another.

The Kullback-Leibler divergence of ``N(m_0, S_0)`` from ``N(m_1, S_1)`` on R^d, in nats,

    KL = 1/2 ( tr S_1^-1 S_0 - d + (m_1 - m_0)^T S_1^-1 (m_1 - m_0) + ln det S_1 / det S_0 )

It is no distance: the two arguments do not trade places. Two cases have closed forms of their own:

- both covariances a multiple of I: ``1/2 ( d (v_0/v_1 - 1 - ln v_0/v_1) + |m_0 - m_1|^2 / v_1 )``.
  With equal variances it is ``|m_0 - m_1|^2 / (2 v)``: half the squared distance *in units of the
  variance*, not the squared distance;
- the second one standard: ``1/2 sum_j ( s_j^2 + m_j^2 - 1 - 2 ln s_j )``, the price of a latent
  variable in an autoencoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_TWO_PI = math.log(2 * math.pi)


def divergence(mean_0: Tensor, covariance_0: Tensor, mean_1: Tensor, covariance_1: Tensor) -> Tensor:
    """``KL(N(mean_0, covariance_0) || N(mean_1, covariance_1))`` in nats; means ``[..., d]``,
    covariances ``[..., d, d]``.

    Raises:
        torch.linalg.LinAlgError: a covariance is not positive definite.
    """
    root_0, root_1 = torch.linalg.cholesky(covariance_0), torch.linalg.cholesky(covariance_1)
    spread: Tensor = torch.linalg.solve_triangular(root_1, root_0, upper=False).square().sum((-2, -1))
    offset: Tensor = (
        torch.linalg.solve_triangular(root_1, (mean_1 - mean_0)[..., None], upper=False).square().sum((-2, -1))
    )
    volume = 2 * (_log_diagonal(root_1) - _log_diagonal(root_0))
    return 0.5 * (spread - mean_0.shape[-1] + offset + volume)


def _log_diagonal(root: Tensor) -> Tensor:
    logs: Tensor = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return logs


def isotropic_divergence(distance_squared: Tensor, variance_0: Tensor, variance_1: Tensor, dim: int) -> Tensor:
    """``KL(N(m_0, variance_0 I) || N(m_1, variance_1 I))`` on R^dim; `distance_squared` is
    ``|m_0 - m_1|^2``.
    """
    excess = (variance_0 - variance_1) / variance_1  # small where the variances are nearly equal, and kept so
    return 0.5 * (dim * (excess - torch.log1p(excess)) + distance_squared / variance_1)


def divergence_from_standard(mean: Tensor, log_std: Tensor) -> Tensor:
    """``KL(N(mean, diag(exp(log_std))^2) || N(0, I))``, ``[...]``; `log_std` ``[..., d]``, or
    ``[..., 1]`` for all coordinates.
    """
    terms = torch.exp(2 * log_std) + mean.square() - 1 - 2 * log_std
    return 0.5 * terms.sum(-1)


def log_normal_density(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """``log N(x; mean, variance I)``, ``[...]``; x and mean ``[..., d]``, variance ``[...]``."""
    return -0.5 * ((x - mean).square().sum(-1) / variance + x.shape[-1] * (torch.log(variance) + _LOG_TWO_PI))
