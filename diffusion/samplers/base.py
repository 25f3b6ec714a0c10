r"""What a sampler owes the rest of the atlas, and the terms that all of them are written in."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffusion.randomness import BrownianPath, SampleNoise
from diffusion.registry import Component, Registry
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level

if TYPE_CHECKING:
    from diffusion.datasets import Dataset
    from diffusion.objectives.action_matching import Motion

samplers: Registry[Sampler] = Registry("sampler")

_NO_DATA = 1e8  # alpha^2 beside sigma^2 is then below a rounding error


class Denoiser(Protocol):
    """E[x_0 | x_t] for a stack: x ``[members, batch, dim]``, alpha and sigma ``[members]``."""

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...


@runtime_checkable
class HasDensity(Protocol):
    """A model that knows its own law: log p(x_t) for x ``[members, batch, dim]``, alpha and sigma ``[members]``."""

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...


@runtime_checkable
class HasDecoder(Protocol):
    """A model that turns latent points ``[members, batch, latent]`` into data ``[members, batch, dim]``, the means of a normal law.

    `latent_dim` is the number of their coordinates, `decoder_std` the standard deviation of that law, ``[members]``.
    """

    def latent_dim(self) -> int: ...

    def decode(self, z: Tensor) -> Tensor: ...

    def decoder_std(self) -> Tensor: ...


@runtime_checkable
class HasPerturbation(Protocol):
    """A model of incremental restoration: eps_t of its stochastic form at times ``[members]``."""

    def perturbation(self, time: Tensor) -> Tensor: ...


@runtime_checkable
class HasAction(Protocol):
    """A model whose samples follow the gradient of an action: x ``[members, batch, dim]``, alpha and sigma ``[members]``."""

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion: ...


@runtime_checkable
class HasLabels(Protocol):
    """A model that can be told labels ``[batch]`` int64, -1 for a sample of which nothing is known: E[x_0 | x_t, label]."""

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor: ...


class CountingDenoiser:
    """A model that counts in `nfe` how often it is evaluated, whichever of the things it gives is asked for."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.nfe = 0

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        self.nfe += 1
        return self.denoiser(x, alpha, sigma)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """See `HasDensity`. Raises TypeError if the model has none."""
        if not isinstance(self.denoiser, HasDensity):
            raise TypeError("the model has no density")
        self.nfe += 1
        return self.denoiser.log_density(x, alpha, sigma)

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """See `HasLabels`. Raises TypeError if the model knows no labels."""
        if not isinstance(self.denoiser, HasLabels):
            raise TypeError("the model knows no labels")
        self.nfe += 1
        return self.denoiser.labelled(x, alpha, sigma, labels)

    def decode(self, z: Tensor) -> Tensor:
        """See `HasDecoder`. Raises TypeError if the model has none."""
        decoder = self._decoder()
        self.nfe += 1
        return decoder.decode(z)

    def latent_dim(self) -> int:
        """See `HasDecoder`."""
        return self._decoder().latent_dim()

    def decoder_std(self) -> Tensor:
        """See `HasDecoder`."""
        return self._decoder().decoder_std()

    def _decoder(self) -> HasDecoder:
        if not isinstance(self.denoiser, HasDecoder):
            raise TypeError("the model has no decoder")
        return self.denoiser

    def perturbation(self, time: Tensor) -> Tensor:
        """See `HasPerturbation`. Raises TypeError if the model has none."""
        if not isinstance(self.denoiser, HasPerturbation):
            raise TypeError("the model has no perturbation")
        return self.denoiser.perturbation(time)

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion:
        """See `HasAction`. Raises TypeError if the model has none."""
        if not isinstance(self.denoiser, HasAction):
            raise TypeError("the model has no action")
        self.nfe += 1
        return self.denoiser.action(x, alpha, sigma)


@dataclass(frozen=True)
class Begin:
    """What a stack of samples may start from.

    `noise` is standard normal ``[members, samples, dim]``, the same for whatever is compared; `spread` ``[members]`` the standard
    deviation of the schedule's start noise, `levels` the grid's levels, noisiest first. `clean` draws data, ``[members, samples,
    dim]``, from a stream that neither training nor metrics use.
    """

    noise: Tensor
    spread: Tensor
    levels: Sequence[Level]
    datasets: tuple[Dataset, ...]
    clean: Callable[[], Tensor]

    def of_member(self, m: int) -> Begin:
        """The same for one member alone."""
        rows = slice(m, m + 1)
        return replace(
            self,
            noise=self.noise[rows],
            spread=self.spread[rows],
            datasets=self.datasets[rows],
            clean=lambda: self.clean()[rows],
        )


class Noise(Protocol):
    """Standard normal numbers ``[members, batch, dim]`` for stochastic samplers; sample i's do not depend on the batch."""

    def between(self, now: Level, then: Level) -> Tensor:
        """The normalised increment of one Brownian path over the move from `now` to `then`.

        Moves that do not overlap are independent; the same move has the same numbers on every grid that makes it, and a move
        that is divided has its parts' sum (see `diffusion.randomness`).
        """

    def fresh(self) -> Tensor:
        """The next draw, independent of the path and of every draw before."""


class NoiseStreams:
    """`Noise` for a stack: one stream for each member's key; members of one key see the same numbers."""

    def __init__(self, keys: Sequence[tuple[object, ...]], samples: int, dim: int) -> None:
        self._streams = {key: SampleNoise(key, samples, dim) for key in keys}
        self._keys = tuple(keys)
        self._paths = [BrownianPath(self._streams[key]) for key in keys]
        self._drawn = 0

    def between(self, now: Level, then: Level) -> Tensor:
        """See `Noise`."""
        rows = []
        for path, start, end in zip(self._paths, now.nsr.tolist(), then.nsr.tolist(), strict=True):
            rows.append(path.move(start, end))
        return torch.stack(rows)

    def fresh(self) -> Tensor:
        """See `Noise`."""
        drawn = {key: source.draw(self._drawn) for key, source in self._streams.items()}
        self._drawn += 1
        return torch.stack([drawn[key] for key in self._keys])


@dataclass(frozen=True)
class Sampler(Component):
    """One rule for a step from level `now` to the less noisy level `then`.

    A rule that remembers earlier steps overrides `trajectory` instead. What it may use of a level: time, alpha, sigma, their
    derivatives, and ``now.at(time)`` for levels between the grid's (then it declares `between_levels`).
    """

    order: ClassVar[int | None] = None  # global, on smooth problems; weak if stochastic; None: it discretises no flow
    stochastic: ClassVar[bool] = False
    between_levels: ClassVar[bool] = False  # evaluates the denoiser at times that are not the grid's
    adaptive: ClassVar[bool] = False  # chooses its own steps from the samples; wants one member at a time
    needs: ClassVar[str] = "denoiser"  # what a model must give: see `diffusion.formulations.Formulation`

    def evaluations(self, steps: int) -> int:
        """How often N steps evaluate the denoiser, for planning: what a run has cost is counted, not computed.

        Exact for every sampler that does not choose its own steps (a test compares); a rough guess for one that does.
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
        """Whether it follows the schedule down from its start noise, so that what is wrong with that noise stays."""
        return self.order is not None and type(self).start is Sampler.start

    @property
    def from_data(self) -> bool:
        """Whether it sets out from data, drawn from the target itself: its samples are then no work of a model's alone."""
        return False

    def start(self, begin: Begin) -> Tensor | None:  # noqa: ARG002
        """Where to start, ``[members, samples, dim]``; None: where the formulation says, as a rule from the schedule's noise."""
        return None

    def path(self, levels: Sequence[Level]) -> Sequence[Level]:
        """The levels in the order in which they are passed, the start's first and as many as `levels`, the grid's, noisiest first."""
        return levels

    def target(self, dataset: Dataset, last: Level) -> Dataset:  # noqa: ARG002
        """The law that samples at the end of the path should follow; `last` is the path's last level of one member."""
        return dataset

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
    """A rule that looks at more than one move at a time; on its own, a step is a trajectory of one move."""

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        return next(self.trajectory(denoiser, x, (now, then), noise))

    @abstractmethod
    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        """See `Sampler.trajectory`."""


def without_data_at_the_start(schedule: Schedule) -> bool:
    """Whether ``alpha(t_max)`` is 0 to working precision: there f = alpha' / alpha and g are infinite."""
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
    """Variance of x_t given x_s, s < t: ``sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2`` (B_k^2 of a chain)."""
    return now.sigma**2 - (now.alpha / then.alpha) ** 2 * then.sigma**2


def posterior_variance(now: Level, then: Level) -> Tensor:
    """Variance of x_s given x_t and x_0."""
    return then.sigma**2 / now.sigma**2 * transition_variance(now, then)
