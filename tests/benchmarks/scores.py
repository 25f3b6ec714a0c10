"""What the objectives of score matching cost and give as the dimension grows, each as a ratio to
denoising score matching.

One noise level, one target (two bumps, whose exact score is known), one network: only the objective
differs. Three ratios:

- processor time of a step of training, timed alternately (`paired`);
- variance of the gradient of a minibatch, at the weights that denoising score matching has reached,
  also by noise level;
- Fisher divergence to the exact noised score after the same number of steps.

``python -m tests.benchmarks.scores`` prints the whole table; some of its lines are part of
`make bench`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch
from rich.console import Console
from rich.table import Table

from diffusion.analysis.score_matching import fisher_divergence, score_of
from diffusion.datasets import GaussianMixture
from diffusion.formulations import Denoising, DenoisingScoreMatching, ImplicitScoreMatching, SlicedScoreMatching
from diffusion.objectives import SingleLevel
from diffusion.randomness import stream
from diffusion.training import Member, TrainedStack, Training, train
from diffusion.training.gradient_variance import gradient_variance
from tests.benchmarks.pairs import Ratio, paired

DIMENSIONS = (1, 4, 16, 64)
SIGMA = 0.5
SEEDS = 4
SIGMAS = (0.05, 0.15, 0.5, 1.5, 5.0)
DENOISING = DenoisingScoreMatching()
OBJECTIVES: dict[str, Denoising] = {
    "implicit, exact trace": ImplicitScoreMatching(),
    "implicit, Hutchinson, one sign": ImplicitScoreMatching(trace="hutchinson"),
    "implicit, Hutchinson, one normal probe": SlicedScoreMatching(variance_reduced=True),
    "sliced, one projection": SlicedScoreMatching(),
    "sliced, four projections": SlicedScoreMatching(projections=4),
}
SETTINGS = Training(steps=500, batch=128, width=32, depth=2, data=20_000)


def target(dim: int) -> GaussianMixture:
    """Two bumps of width 1/2 whose centres are two apart in any dimension."""
    half = dim**-0.5
    return GaussianMixture((0.3, 0.7), ((-half,) * dim, (half,) * dim), (0.5, 0.5))


def _members(formulation: Denoising, dim: int, sigma: float = SIGMA) -> list[Member]:
    requested = replace(formulation, noise_levels=SingleLevel(sigma))
    return [Member(target(dim), requested, requested.own_schedule(), f"{dim} {seed}") for seed in range(SEEDS)]


@cache
def _data(dim: int) -> torch.Tensor:
    return target(dim).sample(SETTINGS.data, stream("scores", dim))


@cache
def _trained(formulation: Denoising, dim: int, sigma: float = SIGMA) -> TrainedStack:
    return train(_members(formulation, dim, sigma), [_data(dim)] * SEEDS, SETTINGS)


def cost(formulation: Denoising, dim: int) -> Ratio:
    """A step of training over one of denoising."""
    few = Training(steps=4, batch=256, width=64, depth=2, data=SETTINGS.data)

    def run(requested: Denoising) -> None:
        train(_members(requested, dim)[:1], [_data(dim)], few)

    return paired(lambda: run(formulation), lambda: run(DENOISING), now=time.process_time)


def _over_seeds(number: Callable[[Denoising, int], float], formulation: Denoising, factor: float = 1.0) -> Ratio:
    ratios = [factor * number(formulation, seed) / number(DENOISING, seed) for seed in range(SEEDS)]
    return statistics.median(ratios), min(ratios), max(ratios)


def variance(formulation: Denoising, dim: int, sigma: float = SIGMA) -> Ratio:
    """Variance of a minibatch's gradient over that of denoising (whose loss is twice the
    objective), at the same weights.
    """
    stack = _trained(DENOISING, dim, sigma)

    def number(requested: Denoising, seed: int) -> float:
        one = _members(requested, dim, sigma)[seed]
        return gradient_variance(one, stack.network, stack.rows[seed], _data(dim), stream("variance", seed)).variance

    return _over_seeds(number, formulation, 4.0)


def fisher(formulation: Denoising, dim: int) -> Ratio:
    """Fisher divergence over that of denoising after the same steps, on the same data."""

    def number(requested: Denoising, seed: int) -> float:
        score = score_of(_trained(requested, dim).select([seed]).denoiser, 1.0, SIGMA)
        return fisher_divergence(score, target(dim), SIGMA, stream("fisher"))[0]

    return _over_seeds(number, formulation)


def _line(
    what: str, measure: Callable[[Denoising, int], Ratio], name: str, dim: int
) -> tuple[str, Callable[[], Ratio]]:
    return f"{what} in {dim} dimensions: {name} / denoising score matching", lambda: measure(OBJECTIVES[name], dim)


MEASURES: tuple[tuple[str, Callable[[], Ratio]], ...] = (
    *(_line("step of training", cost, "implicit, exact trace", dim) for dim in (1, 16, 64)),
    _line("step of training", cost, "implicit, Hutchinson, one sign", 64),
    *(_line("variance of the gradient", variance, name, 16) for name in list(OBJECTIVES)[:4]),
    *(_line("Fisher divergence", fisher, name, 16) for name in list(OBJECTIVES)[:4]),
)
"""Lines for the table of `tests.benchmarks.run`."""


def _print(title: str, columns: Sequence[str], row: Callable[[Denoising], list[Ratio]]) -> None:
    table = Table("objective", *columns, title=f"{title}, over that of denoising")
    for name, formulation in OBJECTIVES.items():
        table.add_row(name, *(f"{middle:.3g} ({low:.3g} to {high:.3g})" for middle, low, high in row(formulation)))
    Console(width=150).print(table)


def main() -> None:
    """Measure everything and print."""
    torch.set_num_threads(1)
    columns = [f"d = {dim}" for dim in DIMENSIONS]
    _print("processor time of a step", columns, lambda f: [cost(f, dim) for dim in DIMENSIONS])
    _print("variance of the gradient", columns, lambda f: [variance(f, dim) for dim in DIMENSIONS])
    levels = [f"sigma = {sigma}" for sigma in SIGMAS]
    _print("variance of the gradient, d = 4", levels, lambda f: [variance(f, 4, sigma) for sigma in SIGMAS])
    _print("Fisher divergence", columns, lambda f: [fisher(f, dim) for dim in DIMENSIONS])
    table = Table("denoising", *columns)
    table.add_row("2 sigma² Fisher divergence / d, mean of the seeds", *(f"{_absolute(dim):.2g}" for dim in DIMENSIONS))
    Console(width=150).print(table)


def _absolute(dim: int) -> float:
    stack = _trained(DENOISING, dim)
    each = [
        fisher_divergence(score_of(stack.select([seed]).denoiser, 1.0, SIGMA), target(dim), SIGMA, stream("fisher"))[0]
        for seed in range(SEEDS)
    ]
    return 2 * SIGMA**2 * statistics.mean(each) / dim


if __name__ == "__main__":
    main()
