"""Exact denoisers beside the bare arithmetic of the same shapes.

About points: their distances from every sample, a softmax and a product with the points, by torch's
`cdist`, `softmax` and a matrix product, in blocks of the size that serves them best. A sample's bits
depend there on the samples beside it, and far from all points its digits are lost; ours keep both, which
is what they take longer for. The exponentials alone are the least that any way has to compute. About the
torus: the exponentials, Bessel functions, products and sums of its quadrature, on as many nodes.

``python -m tests.benchmarks.run --only exact`` prints the lines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffusion.datasets import Dataset, Torus
from diffusion.datasets.own import own_points
from diffusion.randomness import stream
from tests.benchmarks.pairs import Ratio, paired

SAMPLES = 1_000
BLOCKS = (20, 50, 250, 1_000)
"""Samples at once, of the bare arithmetic."""

SHAPES = ((5_000, 2), (1_800, 64))
"""Points and coordinates: a file of the plane, and images of 8 x 8 pixels."""

LEVELS = (0.5, 0.002)
"""Noise, of points whose coordinates have deviation 1: among all points, and next to one of them."""

NODES = 32
"""Of the torus' quadrature where its noise is half its radius."""


def plane(points: int, dim: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Points ``[n, dim]``, and noised ones ``[SAMPLES, dim]``."""
    generator = stream("exact bench", points, dim)
    held = torch.randn(points, dim, generator=generator, dtype=torch.float64)
    chosen = held[torch.randint(points, (SAMPLES,), generator=generator)]
    return held, chosen + sigma * torch.randn(SAMPLES, dim, generator=generator, dtype=torch.float64)


def bare(points: Tensor, x: Tensor, sigma: float, rows: int) -> None:
    """E[x_0 | x] as one would write it, so many samples at once."""
    for part in x.split(rows):
        shares = torch.softmax(torch.cdist(part, points).square_().mul_(-0.5 / sigma**2), 1)
        torch.mm(shares, points)


def exponentials(points: Tensor, x: Tensor, rows: int) -> None:
    """As many as there are pairs, in a block that is used again."""
    block = torch.rand(rows, len(points), dtype=torch.float64).neg_()
    found = torch.empty_like(block)
    for _ in range(len(x) // rows):
        torch.exp(block, out=found)


def ours(law: Dataset, x: Tensor, sigma: float) -> None:
    """The exact denoiser."""
    level = torch.full((len(x),), sigma, dtype=torch.float64)
    law.denoise(x, torch.ones_like(level), level)


def about_points(points: int, dim: int, sigma: float, *, least: bool = False) -> Ratio:
    """Processor time of the exact denoiser over that of the bare arithmetic, or of the exponentials
    alone.
    """
    held, x = plane(points, dim, sigma)
    law = own_points(held)
    ways = {
        rows: partial(exponentials, held, x, rows) if least else partial(bare, held, x, sigma, rows) for rows in BLOCKS
    }
    best = min(ways.values(), key=_seconds)
    return paired(partial(ours, law, x, sigma), best, now=time.process_time)


def quadrature(x: Tensor, radius: float, sigma: float, block: int) -> None:
    """The functions and sums of a rule of `NODES` nodes in pairs, for every point."""
    angles = torch.arange(1, NODES, 2, dtype=torch.float64)[:, None] * (math.pi / NODES)
    versine = 1 - torch.cos(angles)
    for part in x.split(block):
        kappa = part.square().sum(1).sqrt() * (radius / sigma**2)
        weight = torch.exp(-versine * kappa).repeat(2, 1)
        y = weight * kappa
        zeroth, first = weight * torch.special.i0e(y), weight * torch.special.i1e(y)
        torch.stack([zeroth.sum(0), first.sum(0), (zeroth * y).sum(0)])


def about_the_torus() -> Ratio:
    """Processor time of the torus' exact denoiser over that of its quadrature's functions and sums."""
    law, sigma = Torus(), 0.5
    generator = stream("exact bench", "torus")
    x = law.sample(10 * SAMPLES, generator)
    x = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    ways = [partial(quadrature, x, law.r, sigma, block) for block in (500, 1_000, 2_000, 5_000)]
    return paired(partial(ours, law, x, sigma), min(ways, key=_seconds), now=time.process_time)


def _seconds(work: Callable[[], object]) -> float:
    work()
    begun = time.process_time()
    work()
    return time.process_time() - begun


MEASURES: tuple[tuple[str, Callable[[], Ratio]], ...] = (
    *(
        (
            f"exact: denoiser of {points:,} points in {dim} dimensions, noise {sigma} / cdist, softmax and product",
            partial(about_points, points, dim, sigma),
        )
        for points, dim in SHAPES
        for sigma in LEVELS
    ),
    (
        f"exact: denoiser of {SHAPES[0][0]:,} points in 2 dimensions, noise {LEVELS[0]} / its exponentials alone",
        partial(about_points, *SHAPES[0], LEVELS[0], least=True),
    ),
    ("exact: denoiser of the torus, noise 0.5 / the functions and sums of its quadrature", about_the_torus),
)
"""Lines for the table of `tests.benchmarks.run`."""
