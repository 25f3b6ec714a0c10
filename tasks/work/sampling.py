"""From start noise to samples: the states that a sampler goes through, of points that ask the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion.guidance import Guided
from diffusion.models import Denoiser
from diffusion.randomness import stream
from diffusion.samplers import Begin, Level, NoiseStreams
from tasks.plan import Point
from tasks.work.data import stream_name


def states(points: Sequence[Point], denoiser: Denoiser, levels: Sequence[Level]) -> Iterator[Tensor]:
    """The state ``[members, samples, dim]`` at each level, from start noise to samples, of points that ask the same."""
    sampler = points[0].sampler
    x = _start(points, levels)
    yield x
    yield from sampler.trajectory(guided(points, denoiser), x, sampler.path(levels), noise_streams(points, "noise"))


def start_noise(points: Sequence[Point]) -> Tensor:
    """Standard start noise ``[members, samples, dim]``: of data set and seed alone, or the normal quantiles."""
    first = points[0]
    n, dim = first.samples, first.cell.dataset.dim
    if first.start == "quantiles":
        u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        quantiles: Tensor = torch.special.ndtri(u)[None, :, None]
        return quantiles.expand(len(points), n, dim).clone()
    return noise_streams(points, "start").fresh()


def noise_streams(points: Sequence[Point], purpose: str) -> NoiseStreams:
    """One stream per data set and seed: whatever is compared starts from the same noise and is driven by the same path."""
    keys = [(purpose, stream_name(p.cell.dataset), p.cell.seed) for p in points]
    return NoiseStreams(keys, points[0].samples, points[0].cell.dataset.dim)


def guided(points: Sequence[Point], denoiser: Denoiser) -> Denoiser:
    """The denoiser as the guidance of these points, which is one and the same, has it."""
    guidance = points[0].guidance
    return Guided(guidance, denoiser, tuple(point.cell.dataset for point in points)) if guidance else denoiser


def _start(points: Sequence[Point], levels: Sequence[Level]) -> Tensor:
    """The first states ``[members, samples, dim]``: where the sampler says, or the formulation, or the schedule's noise."""
    begin = Begin(
        start_noise(points),
        _spread(points, levels[0]),
        levels,
        tuple(point.cell.dataset for point in points),
        lambda: torch.stack([clean_data(point) for point in points]),
    )
    asked = points[0].sampler.start(begin)
    if asked is not None:
        return asked
    x = begin.noise * begin.spread[:, None, None]
    for m, point in enumerate(points):
        own = point.cell.formulation.start(begin.of_member(m))
        if own is not None:
            x[m] = own
    return x


def clean_data(point: Point) -> Tensor:
    """Data that are no part of any training set, ``[samples, dim]``: of data set and seed alone."""
    dataset = point.cell.dataset
    return dataset.sample(point.samples, stream("clean", stream_name(dataset), point.cell.seed))


def _spread(points: Sequence[Point], first: Level) -> Tensor:
    """Standard deviation of the start noise of each point: that of the grid's first level, or 1 if variance is preserved."""
    kept = torch.tensor([point.schedule.variance_preserving for point in points])
    return torch.where(kept, torch.ones_like(first.sigma), first.sigma)
