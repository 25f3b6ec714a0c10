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

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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

    def moments(self, passed: Sequence[Level], std: float) -> tuple[Tensor, Tensor]:
        """What these moves, and not their limit, make of the data's mean and standard deviation.

        Each move is ``A x + B eps`` with numbers A and B, so that from state to state

            m_k = A m_{k-1},    v_k = A^2 v_{k-1} + B^2.

        Args:
            passed: the levels of `path`, in its order.
            std: of the data.

        Returns:
            ``m`` of data of mean 1, and the standard deviation ``sqrt v``, at each level
            ``[level, members]``.
        """
        gain, variance = passed[0].alpha, (passed[0].alpha * std) ** 2 + passed[0].sigma ** 2
        found = [(gain, variance)]
        for now, then in pairwise(passed):
            shrink, spread = self.move(now, then)
            gain, variance = shrink * gain, shrink**2 * variance + spread**2
            found.append((gain, variance))
        means, variances = zip(*found, strict=True)
        return torch.stack(means), torch.stack(variances).sqrt()

    @abstractmethod
    def move(self, now: Level, then: Level) -> tuple[Tensor, Tensor]:
        """A and B of the move ``A x + B eps`` to the noisier level `then`, ``[members]``."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        _check_upwards(now, then)
        shrink, spread = self.move(now, then)
        return per_member(shrink) * x + per_member(spread) * noise.between(now, then)


def _check_upwards(now: Level, then: Level) -> None:
    """Raise WrongValue unless a move leads to more noise."""
    start, end = now.host.nsr, then.host.nsr
    if not bool((end > start).all()):
        raise WrongValue(
            f"the forward process was handed a move from sigma/alpha = {float(start.min()):.3g} to {float(end.min()):.3g}; "
            "accepted: the levels of sampler.path(levels), which grow noisier, not the grid's"
        )


def _link(now: Level, then: Level) -> tuple[Tensor, Tensor]:
    """A and B of a link of the chain, from `now` to the noisier level `then`."""
    return then.alpha / now.alpha, torch.sqrt(transition_variance(then, now).clamp(min=0))


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

    def move(self, now: Level, then: Level) -> tuple[Tensor, Tensor]:
        return _link(now, then)


@samplers.register(
    "forward-sde",
    formula="x_t = x_s + f(s) x_s (t - s) + g(s) sqrt(t - s) z, s < t; from the clean data a link of the chain",
    source="Song et al., SDE, ICLR 2021, eq. 5; Kloeden & Platen 1992, section 9.1",
    document="S0 level 3",
)
@dataclass(frozen=True)
class ForwardSDE(Forward):
    """Euler and Maruyama's rule for the forward SDE, in the schedule's own time: weak order 1.

    The first move, from the clean data to the least noisy level, is one of the chain: f and g may
    be infinite at t = 0. On ``dx = -x dt + sqrt(2) dw`` with steps dt it settles at the variance 2
    / (2 - dt), not at 1: few steps make the law too wide, by a factor that `moments` gives for every
    schedule.
    """

    order: ClassVar[int | None] = 1

    def move(self, now: Level, then: Level) -> tuple[Tensor, Tensor]:
        if now.clean:
            return _link(now, then)
        duration = then.time - now.time
        return 1 + now.drift * duration, torch.sqrt(now.diffusion_squared.clamp(min=0) * duration)
