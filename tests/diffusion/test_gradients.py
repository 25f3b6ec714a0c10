"""Derivatives of exact answers by automatic differentiation, at the places where formulas are folded:
centres, ends and corners, where one looks first and random points never lie.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from diffusion.datasets import Dataset, Noised, Uniform, datasets

PLACES = (-1.0, -0.5, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
FEW = (-1.0, 0.0, 0.1, 0.5, 1.0)
TARGETS = {
    **{entry.name: entry.cls() for entry in datasets if entry.has_defaults and entry.cls().exact},
    "noised uniform": Noised(Uniform(), 1.0, 0.2),
}
ELSEWHERE = {
    "torus": "no number on its axis and in the middle of its tube, where the direction to the tube is none",
    "two_moons_posterior": "another number where the quadrature of the moons goes from one peak to another",
}
"""Whose posterior variance alone is right at some places (`docs/howto/mathematics.md`)."""
FOLDED = {name: target for name, target in TARGETS.items() if target.dim <= 3 and name not in ELSEWHERE}


def places(dim: int) -> Tensor:
    return torch.tensor(list(itertools.product(PLACES if dim == 1 else FEW, repeat=dim)), dtype=torch.float64)


def divergence(target: Dataset, ask: str, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    point = x.clone().requires_grad_()
    found = getattr(target, ask)(point, alpha, sigma)
    columns = [torch.autograd.grad(found[:, k].sum(), point, retain_graph=True)[0][:, k] for k in range(target.dim)]
    return torch.stack(columns).sum(0)


@pytest.mark.parametrize("target", FOLDED.values(), ids=FOLDED.keys())
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.3), (1.0, 0.05), (0.5, 0.8)])
def test_the_gradient_of_a_denoiser_is_its_posterior_variance_also_where_formulas_are_folded(
    target: Dataset, alpha: float, sigma: float
) -> None:
    """``div D = alpha Var / sigma^2``, and of the score ``(alpha div D - dim) / sigma^2``."""
    a, s = torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
    x = places(target.dim)
    variance = target.posterior_variance(x, a, s)
    expected = a * variance / s**2
    scale = target.dim + expected
    assert float(((divergence(target, "denoise", x, a, s) - expected) / scale).abs().max()) < 1e-6
    of_score = (a * expected - target.dim) / s**2
    assert float(((divergence(target, "score", x, a, s) - of_score) * s**2 / scale).abs().max()) < 1e-6
