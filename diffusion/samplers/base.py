r"""What a sampler owes the rest of the atlas, and the terms that all of them are written in."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.models import Denoiser
from diffusion.registry import Component, Registry
from diffusion.samplers.noise import Noise
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level

samplers: Registry[Sampler] = Registry("sampler")

_NO_DATA = 1e8  # alpha^2 beside sigma^2 is then below a rounding error


def _nothing_drawn(law: Dataset, m: int) -> Tensor:
    """Of a start that was made without draws of other laws."""
    raise TypeError(f"no draws of {law.label()!r} were prepared for member {m}")


@dataclass(frozen=True)
class SamplingStart:
    """What a stack of samples may start from.

    `noise` is standard normal ``[members, samples, dim]``, the same for whatever is compared;
    `spread` ``[members]`` the standard deviation of the schedule's start noise, `levels` the grid's
    levels, noisiest first. `clean` draws data, ``[members, samples, dim]``, from a stream that
    neither training nor metrics use; ``drawn(law, m)`` draws ``[samples, dim]`` of any other law for
    member m, the same for whatever is compared.
    """

    noise: Tensor
    spread: Tensor
    levels: Sequence[Level]
    datasets: tuple[Dataset, ...]
    clean: Callable[[], Tensor]
    drawn: Callable[[Dataset, int], Tensor] = _nothing_drawn

    def of_member(self, m: int) -> SamplingStart:
        """The same for one member alone."""
        rows = slice(m, m + 1)
        return replace(
            self,
            noise=self.noise[rows],
            spread=self.spread[rows],
            datasets=self.datasets[rows],
            clean=lambda: self.clean()[rows],
            drawn=lambda law, k: self.drawn(law, m + k),
        )


@runtime_checkable
class OwnStart(Protocol):
    """A sampler that says where samples start; whoever has the method is one."""

    def start(self, start: SamplingStart) -> Tensor | None:
        """Where to start, ``[members, samples, dim]``; None: where the formulation says, as a rule
        from the schedule's noise.
        """


@runtime_checkable
class OwnTarget(Protocol):
    """A sampler whose samples follow another law than that of the data; whoever has the method is
    one.
    """

    def target(self, dataset: Dataset, last: Level) -> Dataset:
        """The law that samples at the end of the path should follow; `last` is the path's last
        level of one member.
        """


@dataclass(frozen=True)
class Sampler(Component):
    """One rule for a step from level `now` to the less noisy level `then`.

    A rule that remembers earlier steps overrides `trajectory` instead. What it may use of a level:
    time, alpha, sigma, their derivatives, and ``now.at(time)`` for levels between the grid's (then
    it declares `between_levels`).

    It starts where the formulation says, as a rule from the schedule's noise, unless it has a
    `start` (`OwnStart`), and its samples follow the data's law unless it has a `target`
    (`OwnTarget`).
    """

    order: ClassVar[int | None] = None  # global, on smooth problems; weak if stochastic; None: it discretises no flow
    stochastic: ClassVar[bool] = False
    between_levels: ClassVar[bool] = False  # evaluates the denoiser at times that are not the grid's
    adaptive: ClassVar[bool] = False  # chooses its own steps from the samples; wants one member at a time
    to_noise: ClassVar[bool] = False  # goes from the data to the noise
    needs: ClassVar[type] = Denoiser  # what a model must be: see `diffusion.models.capabilities`

    def evaluations(self, steps: int) -> int:
        """How often N steps evaluate the denoiser, for planning: what a run has cost is counted,
        not computed.

        Exact for every sampler that does not choose its own steps (a test compares); a rough guess
        for one that does.
        """
        return steps

    def refuses(self, schedule: Schedule) -> str | None:
        """Why this sampler cannot serve the schedule, or None."""
        if self.between_levels and schedule.max_steps is not None:
            return (
                f"{self.registered_name!r} asks the denoiser between the levels of a grid, and schedule "
                f"{schedule.registered_name!r} is known at its own discrete levels only"
            )
        return None

    @property
    def from_noise(self) -> bool:
        """Whether it follows the schedule down from its start noise, so that what is wrong with
        that noise stays.
        """
        return self.order is not None and not isinstance(self, OwnStart)

    @property
    def from_data(self) -> bool:
        """Whether it sets out from data, drawn from the target itself; its samples are then no work
        of a model's alone.
        """
        return False

    def showing_order(self) -> Sampler:
        """The same rule with parameters at which its `order` shows within a few hundred steps, where
        its own need more: what `diffatlas check` measures it with.
        """
        return self

    def path(self, levels: Sequence[Level]) -> Sequence[Level]:
        """The levels in the order in which they are passed, the start's first and as many as
        `levels`, the grid's, noisiest first.
        """
        return levels

    @abstractmethod
    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        """x at level `then`. ``then.sigma == 0`` for every member in the last step, and only there."""

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        """The states at ``levels[1:]``, as they are computed; `x` is the state at ``levels[0]``."""
        for now, then in itertools.pairwise(levels):
            x = self.step(denoiser, x, now, then, noise)
            yield x


@dataclass(frozen=True)
class PathSampler(Sampler):
    """A rule that looks at more than one move at a time; on its own, a step is a trajectory of one
    move.
    """

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return next(self.trajectory(denoiser, x, (now, then), noise))

    @abstractmethod
    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        """See `Sampler.trajectory`."""


def without_data_at_the_start(schedule: Schedule) -> bool:
    """Whether ``alpha(t_max)`` is 0 to working precision: there f = alpha' / alpha and g are
    infinite.
    """
    return schedule.terminal_nsr > _NO_DATA


def per_member(value: Tensor) -> Tensor:
    """``[members]`` -> ``[members, 1, 1]``."""
    return value[:, None, None]


def implied_noise(x: Tensor, denoised: Tensor, level: Level) -> Tensor:
    """eps = (x - alpha D) / sigma."""
    return (x - per_member(level.alpha) * denoised) / per_member(level.sigma)


def velocity(denoiser: Denoiser, x: Tensor, level: Level) -> Tensor:
    """dx/dt of the probability-flow ODE, ``alpha' D + sigma' eps``."""
    denoised = denoiser(x, level.alpha, level.sigma)
    return per_member(level.alpha_dot) * denoised + per_member(level.sigma_dot) * implied_noise(x, denoised, level)


def transition_variance(now: Level, then: Level) -> Tensor:
    """Variance of x_t given x_s, s < t: ``sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2`` (B_k^2 of a
    chain).
    """
    return now.sigma**2 - (now.alpha / then.alpha) ** 2 * then.sigma**2


def posterior_variance(now: Level, then: Level) -> Tensor:
    """Variance of x_s given x_t and x_0."""
    return then.sigma**2 / now.sigma**2 * transition_variance(now, then)
