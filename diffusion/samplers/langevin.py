r"""Langevin dynamics: samples of a law from its score alone, by moves that stay at one noise level,
or go down level by level.

A move of length tau on the law p at a level (alpha, sigma) is

    x <- x + tau grad log p(x) + sqrt(2 tau) z,      grad log p(x) = (alpha D(x) - x) / sigma^2                    (*)

with D the denoiser, exact or trained. The literature has two conventions. Song & Ermon 2019 (and
with them the first version of annealed Langevin dynamics) write ``eps/2`` before the score and
``sqrt(eps)`` before z; Song & Ermon 2020, and texts on sampling, ``tau`` and ``sqrt(2 tau)``. They
are one: **eps = 2 tau**, and tau is the only step size here. What matters is that the noise is tied
to the step: with any other factor than sqrt(2 tau) the moves keep another law, without noise they
climb to a maximum.

tau is given in one of two units, in both of which a chain does not depend on the schedule that the
level belongs to:

- ``noise``: of sigma^2. As no noised law is curved more than 1/sigma^2, moves shorter than 2 are
  stable whatever the data.
- ``data``: of x_0, squared: ``x / alpha`` then takes moves of length tau on the law of
  ``x_0 + (sigma/alpha) eps``. It is for laws whose own width is known, normal ones and their
  mixtures, where the noise may be as small as one likes: as sigma goes to 0, (*) becomes Langevin
  dynamics on the density of the data. Targets without a density (atoms, curves) and those with
  edges make long moves unstable there.

**What law samples follow.** Not that of the data but that of ``alpha x_0 + sigma eps`` at the level
where the last move was made (`OwnTarget.target` says so to the metrics), and this but for a bias
that more moves do not remove: on a normal law of variance V the moves keep ``V / (1 - tau/2V)``.
`mala` has no bias. Final denoising replaces x by D(x), and is the last step.

**What moves do not find.** Between modes far apart the density is too low to be crossed: samples
stay in the mode in whose basin they began, whatever the modes' weights. `annealed-langevin` begins
where the noise has merged the modes.

Noise of moves at one level is no increment of a path: each takes the next draw of its own.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from diffusion.datasets import Dataset, noised_distribution
from diffusion.datasets.base import tree_sum
from diffusion.errors import WrongValue
from diffusion.models import Denoiser, DensityModel
from diffusion.samplers.base import (
    PathSampler,
    Sampler,
    SamplingStart,
    implied_noise,
    per_member,
    samplers,
)
from diffusion.samplers.noise import Noise
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level

Unit = Literal["noise", "data"]
Start = Literal["noise", "box", "data"]

MOST_MOVES = 1_000_000


def langevin_move(denoiser: Denoiser, x: Tensor, level: Level, tau: Tensor, z: Tensor) -> Tensor:
    """The move (*) for a stack: x and z ``[members, samples, dim]``, tau ``[members]`` in units of
    x squared.
    """
    return x + per_member(tau) * score_at(denoiser, x, level) + per_member(torch.sqrt(2 * tau)) * z


def score_at(denoiser: Denoiser, x: Tensor, level: Level) -> Tensor:
    """grad log p(x) at a level, by Tweedie's formula: ``[members, samples, dim]``."""
    return -implied_noise(x, denoiser(x, level.alpha, level.sigma), level) / per_member(level.sigma)


def least_noise(level: Level) -> str:
    """The least noise-to-signal ratio of a level's members, for a message."""
    return f"{float(level.host.nsr.min()):.3g}"


def check_tau(name: str, tau: float, unit: str) -> None:
    """Refuse a length of moves that is none.

    Raises:
        WrongValue: an unknown unit, or a length that is not positive or not stable.
    """
    if unit not in get_args(Unit):
        raise WrongValue(f"{name}: unit = {unit!r}; accepted: {', '.join(get_args(Unit))}")
    most = 2 if unit == "noise" else math.inf
    if not 0 < tau < most:
        stable = " (moves are stable for tau < 2 sigma^2)" if unit == "noise" else ""
        raise WrongValue(f"{name} needs 0 < tau < {most:g}{stable}, found tau = {tau}")


@dataclass(frozen=True)
class AtOneLevel(Sampler):
    """Moves at one noise level: N steps are N moves, or N - 1 and the estimate D(x), which is at no
    noise, with `denoise`.

    `nsr` is the level's noise-to-signal ratio sigma/alpha; None is the smallest that the schedule
    has. `tau` is the length of a move, in units of sigma^2 (``unit: noise``) or of x_0 squared
    (``unit: data``). `start_from` is where samples begin: the schedule's start noise (``noise``);
    the uniform law on ``[low, high]`` in each coordinate, for x/alpha (``box``); or the level's own
    law (``data``).

    Raises:
        WrongValue: tau or nsr not positive, tau of 2 sigma^2 or more, low not below high, an
            unknown unit or start.
    """

    nsr: float | None = None
    tau: float = 0.1
    unit: Unit = "noise"
    start_from: Start = "noise"
    low: float = -16.0
    high: float = 16.0
    denoise: bool = False
    order: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        name = type(self).registered_name
        check_tau(name, self.tau, self.unit)
        if self.nsr is not None and not 0 < self.nsr < math.inf:
            raise WrongValue(f"{name} needs a positive noise-to-signal ratio, found nsr = {self.nsr}")
        if self.start_from not in get_args(Start):
            raise WrongValue(f"{name}: start_from = {self.start_from!r}; accepted: {', '.join(get_args(Start))}")
        if not -math.inf < self.low < self.high < math.inf:
            raise WrongValue(f"{name} needs low < high, found low = {self.low} and high = {self.high}")

    @property
    def between_levels(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """True if a level is named: that of the schedule's smallest noise is always one of its own."""
        return self.nsr is not None

    @property
    def from_data(self) -> bool:
        return self.start_from == "data"

    def refuses(self, schedule: Schedule) -> str | None:
        reason = super().refuses(schedule)
        if reason is not None or self.nsr is None:
            return reason
        least = float(schedule.nsr(torch.tensor([schedule.t_min], dtype=torch.float64)))
        if not least <= self.nsr <= schedule.terminal_nsr:
            return (
                f"{self.registered_name!r} is asked for moves at noise-to-signal ratio {self.nsr:g}, and schedule "
                f"{schedule.registered_name!r} has ratios from {least:g} to {schedule.terminal_nsr:g}"
            )
        return None

    def evaluations(self, steps: int) -> int:
        return steps

    def path(self, levels: Sequence[Level]) -> Sequence[Level]:
        """One level for all states; with `denoise`, the clean one in the end."""
        level = self.level(levels[0])
        return [level] * (len(levels) - 1) + [levels[-1] if self.denoise else level]

    def level(self, like: Level) -> Level:
        """Where the moves are made, for the schedules of a level's stack."""
        if self.nsr is None:
            return like.at(torch.tensor([schedule.t_min for schedule in like.schedules], dtype=torch.float64))
        return like.at(like.time_of(torch.full_like(like.host.time, self.nsr)))

    def start(self, start: SamplingStart) -> Tensor | None:
        if self.start_from == "noise":
            return None
        level = self.level(start.levels[0])
        if self.start_from == "data":
            return per_member(level.alpha) * start.clean() + per_member(level.sigma) * start.noise
        share: Tensor = torch.special.ndtr(start.noise)
        return per_member(level.alpha) * (self.low + (self.high - self.low) * share)

    def target(self, dataset: Dataset, last: Level) -> Dataset:
        """The law at the level of the last move; after `denoise`, the data's, which denoised
        samples follow only nearly.
        """
        return dataset if last.clean else noised_distribution(dataset, float(last.alpha), float(last.sigma))

    def length(self, level: Level) -> Tensor:
        """tau in units of x squared, ``[members]``."""
        return self.tau * (level.sigma if self.unit == "noise" else level.alpha) ** 2

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        self.check_move(now, then)
        if then.clean:
            return denoiser(x, now.alpha, now.sigma)
        return self.move(denoiser, x, now, noise)

    def check_move(self, now: Level, then: Level) -> None:
        """Refuse levels that are not those of `path`: moves made while the level changes follow the
        law of none.

        Raises:
            WrongValue: the level changes, or the noise ends and nothing was said of denoising, or
                elsewhere than at the own level.
        """
        if now is then:
            return
        here, there = now.host, then.host
        stays = not then.clean and torch.equal(here.alpha, there.alpha) and torch.equal(here.sigma, there.sigma)
        if stays or (then.clean and self.denoise and torch.equal(here.nsr, self.level(here).nsr)):
            return
        raise WrongValue(
            f"{self.registered_name!r} makes its moves at one noise level and was handed a move from sigma/alpha = {least_noise(now)} to "
            f"{least_noise(then)}; accepted: the levels of sampler.path(levels), not the grid's"
        )

    @abstractmethod
    def move(self, denoiser: Denoiser, x: Tensor, level: Level, noise: Noise) -> Tensor:
        """x after one move at the level."""


@samplers.register(
    "gradient-ascent",
    formula="x += tau score(x) at one noise level, without noise",
    source="Chan, Tutorial on Diffusion Models for Imaging and Vision, 2024, section 3.1",
    document="S2 section 3.1 (there called descent)",
)
@dataclass(frozen=True)
class GradientAscent(AtOneLevel):
    """`langevin` without its noise: samples climb log p and end in its maxima, those of the noised
    law at the level.

    This optimises and does not sample: what it ends in has no law to be compared with, and the
    weights of the maxima are those of their basins at the start. A local maximum is as good an end
    as the highest. A sample that starts on a minimum stays there.
    """

    def move(self, denoiser: Denoiser, x: Tensor, level: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        return x + per_member(self.length(level)) * score_at(denoiser, x, level)


@samplers.register(
    "langevin",
    formula="x += tau score(x) + sqrt(2 tau) z at one noise level (tau = eps/2 where eps/2 and sqrt(eps) are written)",
    source="Roberts & Tweedie, Exponential convergence of Langevin distributions and their discrete approximations, 1996; "
    "Song & Ermon 2019, eq. 4",
    document="S1, S2 section 3.1",
)
@dataclass(frozen=True)
class Langevin(AtOneLevel):
    """Unadjusted Langevin dynamics at one noise level.

    On a normal law of variance V the moves keep variance ``V / (1 - tau/2V)``, tau in units of x
    squared: too wide by tau/2 to first order, and the mean is exact. What is kept is forgotten of a
    start by the factor ``1 - tau/V`` in each move.
    """

    stochastic: ClassVar[bool] = True

    def move(self, denoiser: Denoiser, x: Tensor, level: Level, noise: Noise) -> Tensor:
        return langevin_move(denoiser, x, level, self.length(level), noise.fresh())


@samplers.register(
    "mala",
    formula="y = x + tau score(x) + sqrt(2 tau) z, taken with probability min(1, p(y) q(x|y) / p(x) q(y|x)), else x stays",
    source="Besag 1994; Roberts & Tweedie 1996",
)
@dataclass(frozen=True)
class MALA(AtOneLevel, PathSampler):
    """The Metropolis-adjusted Langevin algorithm: `langevin` whose moves are accepted or not, and
    which has no bias.

    The law that it keeps is the level's own, whatever tau; tau that is too long shows as moves that
    are hardly ever accepted. It needs the density beside the score, which an exact model has and a
    trained one has not. The density of each new state is one more evaluation; what is known of a
    state is kept for its next move: M moves cost 2 (M + 1) evaluations.
    """

    stochastic: ClassVar[bool] = True
    needs: ClassVar[type] = DensityModel

    def evaluations(self, steps: int) -> int:
        return 2 * (steps - self.denoise + 1) + self.denoise

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        for now, then in itertools.pairwise(levels):
            self.check_move(now, then)
        moves = len(levels) - 1 - levels[-1].clean
        state = x
        for state, _ in self.walk(denoiser, x, levels[0], moves, noise):
            yield state
        if levels[-1].clean:
            yield denoiser(state, levels[0].alpha, levels[0].sigma)

    def walk(
        self, denoiser: Denoiser, x: Tensor, level: Level, moves: int, noise: Noise
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """After each move the state, and with what probability the move to it was accepted,
        ``[members, samples]``.

        Raises:
            TypeError: the model has no density.
        """
        if not isinstance(denoiser, DensityModel):
            raise TypeError("mala needs a model with a density")
        model: DensityModel = denoiser
        tau = self.length(level)
        spread = per_member(torch.sqrt(2 * tau))

        def known(x: Tensor) -> tuple[Tensor, Tensor]:
            """log p, and where a move without noise would lead."""
            density = model.log_density(x, level.alpha, level.sigma)
            return density, x + per_member(tau) * score_at(model, x, level)

        height, ahead = known(x)
        for _ in range(moves):
            z = noise.fresh()
            proposed = ahead + spread * z
            new_height, new_ahead = known(proposed)
            back = (x - new_ahead) / spread
            gain = new_height - height + 0.5 * (_squared_norm(z) - _squared_norm(back))
            # an own draw: its first coordinate, made uniform
            taken = torch.special.log_ndtr(noise.fresh()[..., 0]) < gain  # never where gain is not a number
            x, ahead = (torch.where(taken[..., None], new, old) for new, old in ((proposed, x), (new_ahead, ahead)))
            height = torch.where(taken, new_height, height)
            yield x, torch.exp(gain.clamp(max=0.0).nan_to_num(nan=-math.inf))

    def move(self, denoiser: Denoiser, x: Tensor, level: Level, noise: Noise) -> Tensor:
        return next(self.walk(denoiser, x, level, 1, noise))[0]


def _squared_norm(x: Tensor) -> Tensor:
    """``[members, samples]``, coordinates summed in an order that does not depend on the batch."""
    return tree_sum((x * x).movedim(-1, 0))
