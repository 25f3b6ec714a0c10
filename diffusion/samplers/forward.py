r"""The forward process as a row of a study: from data to noise, step by step, beside the exact law
of where it arrives.

Nothing is learned and no model is asked: what a study sees is whether steps, however many, give the
law that one formula gives at once,

    x_t = alpha_t x_0 + sigma_t eps.

The chain does, by construction: with ``A = alpha_t / alpha_s`` and
``B^2 = sigma_t^2 - A^2 sigma_s^2``, s < t, a move is

    x_t = A x_s + B eps,                  Var[x_t | x_0] = 1 - prod A^2 where variance is preserved.

Euler and Maruyama's rule for ``dx = f x dt + g dw`` does in the limit of many steps.

Levels are passed from the clean one upwards, and state k has been through k moves: state 0 *is* the
data. A metric compares the last state with the exact law there, `diffusion.datasets.Noised`. Moves
are driven by the Brownian path that drives the reverse samplers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets import Dataset, noised_distribution
from diffusion.errors import WrongValue
from diffusion.models import Denoiser, KnownDistribution
from diffusion.samplers.base import Sampler, SamplingStart, per_member, samplers, transition_variance
from diffusion.samplers.noise import Noise
from diffusion.schedules.levels import Level


@dataclass(frozen=True)
class Forward(Sampler):
    """From clean data over the levels of the grid, the least noisy first; asks no model, and so
    only exact rows answer it.
    """

    stochastic: ClassVar[bool] = True
    to_noise: ClassVar[bool] = True
    needs: ClassVar[type] = KnownDistribution

    def evaluations(self, steps: int) -> int:  # noqa: ARG002
        return 0

    @property
    def from_data(self) -> bool:
        return True

    def start(self, start: SamplingStart) -> Tensor | None:
        return start.clean()

    def path(self, levels: Sequence[Level]) -> Sequence[Level]:
        """The grid's levels turned round: state k of the trajectory has been through k moves."""
        return levels[::-1]

    def target(self, dataset: Dataset, last: Level) -> Dataset:
        """The exact law of x_t at the last level."""
        return noised_distribution(dataset, float(last.alpha), float(last.sigma))


def _check_upwards(now: Level, then: Level) -> None:
    """Raise WrongValue unless a move leads to more noise."""
    start, end = now.host.nsr, then.host.nsr
    if not bool((end > start).all()):
        raise WrongValue(
            f"the forward process was handed a move from sigma/alpha = {float(start.min()):.3g} to {float(end.min()):.3g}; "
            "accepted: the levels of sampler.path(levels), which grow noisier, not the grid's"
        )


def _link(x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
    """``A x + B eps``, from `now` to the noisier level `then`."""
    shrink = then.alpha / now.alpha
    spread = torch.sqrt(transition_variance(then, now).clamp(min=0))
    return per_member(shrink) * x + per_member(spread) * noise.between(now, then)


@samplers.register(
    "forward-chain",
    formula="x_t = A x_s + B z, s < t, A = alpha_t/alpha_s, B^2 = sigma_t^2 - A^2 sigma_s^2, from the data to the noise",
    source="Sohl-Dickstein et al., Deep Unsupervised Learning using Nonequilibrium Thermodynamics, ICML 2015; Ho et al. 2020, eq. 2",
    document="S0 level 1, S2 section 2.2, S3 section 1.1",
)
@dataclass(frozen=True)
class ForwardChain(Forward):
    """The noise chain: exact in law at every level, however few they are."""

    order: ClassVar[int | None] = None  # no error falls with the number of steps

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        _check_upwards(now, then)
        return _link(x, now, then, noise)


@samplers.register(
    "forward-sde",
    formula="x_t = x_s + f(s) x_s (t - s) + g(s) sqrt(t - s) z, s < t; from the clean data a link of the chain",
    source="Song et al. 2021, eq. 5; Kloeden & Platen 1992, section 9.1",
    document="S0 level 3",
)
@dataclass(frozen=True)
class ForwardSDE(Forward):
    """Euler and Maruyama's rule for the forward SDE, in the schedule's own time: weak order 1.

    The first move, from the clean data to the least noisy level, is one of the chain: f and g may
    be infinite at t = 0. On ``dx = -x dt + sqrt(2) dw`` with steps dt it settles at the variance 2
    / (2 - dt), not at 1.
    """

    order: ClassVar[int | None] = 1

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        _check_upwards(now, then)
        if now.clean:
            return _link(x, now, then, noise)
        duration = then.time - now.time
        spread = torch.sqrt(now.diffusion_squared.clamp(min=0) * duration)
        return per_member(1 + now.drift * duration) * x + per_member(spread) * noise.between(now, then)
