"""What the samplers of other libraries have in common: levels, units, evaluations, noise.

Each library walks in units of its own, x_t = unit z:

| unit | z | who |
|---|---|---|
| 1 | x_t | azula |
| alpha | ``x_0 + nsr eps`` | k-diffusion, and of diffusers the schedulers of Karras et al. |
| sqrt(alpha^2 + sigma^2) | the variance-preserving form | the other schedulers of diffusers |
| alpha + sigma | the straight line | flow matching in diffusers |

A level is known to it by its noise-to-signal ratio alone (to azula by alpha and sigma). What the
library asks of its denoiser is asked of ours at that level, and counted by the same counter; what
it draws from torch's global generator is taken from the samples' own streams.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffusion.devices import to_device
from diffusion.errors import WrongValue
from diffusion.models import Denoiser
from diffusion.samplers.base import PathSampler, per_member, without_data_at_the_start
from diffusion.samplers.noise import Noise
from diffusion.samplers.peers.libraries import check_there, version_of
from diffusion.samplers.peers.lockstep import Asking, in_step
from diffusion.samplers.peers.options import Within, check_options
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level

_SAME = 1e-5  # relative; a library's float32 tables know a level's noise-to-signal ratio to 1e-7
_DRAWING = (torch.randn_like, torch.randn)


# --- what a library's code asks for ---------------------------------------------------------------


@dataclass(frozen=True)
class AskedClean:
    """The clean data behind z at a noise-to-signal ratio."""

    z: Tensor
    nsr: float


@dataclass(frozen=True)
class DrawnMove:
    """The normalised increment of the path between two ratios."""

    start: float
    end: float


@dataclass(frozen=True)
class DrawnFresh:
    """Standard normal numbers that belong to no move."""


@dataclass(frozen=True)
class ReachedLevel:
    """The state at the level of this number."""

    z: Tensor
    number: int


@dataclass(frozen=True)
class WayDown:
    """One way down for the members that pass the same levels, as a library's code has it: tables
    ``[levels]`` on the host, noisiest first, and what may be asked on the way.
    """

    alpha: Tensor
    sigma: Tensor
    nsr: Tensor
    schedule: Schedule
    ask: Asking

    @property
    def clean(self) -> bool:
        """Whether no noise is left at the last level."""
        return float(self.sigma[-1]) == 0

    def denoised(self, z: Tensor, nsr: float) -> Tensor:
        """E[x_0 | z] for z in the library's units."""
        found: Tensor = self.ask(AskedClean(z, nsr))
        return found

    def drawn(self, start: float, end: float) -> Tensor:
        """See `Noise.between`."""
        found: Tensor = self.ask(DrawnMove(start, end))
        return found

    def fresh(self) -> Tensor:
        """See `Noise.fresh`."""
        found: Tensor = self.ask(DrawnFresh())
        return found

    def reached(self, z: Tensor, number: int) -> None:
        """Hand on the state at a level."""
        self.ask(ReachedLevel(z, number))


class HandedNoise(TorchFunctionMode):
    """While it is entered, `torch.randn_like` and `torch.randn` give the numbers that `draw` does."""

    def __init__(self, draw: Callable[[], Tensor]) -> None:
        super().__init__()
        self._draw = draw

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _DRAWING:
            return func(*args, **kwargs)
        found = self._draw()
        like = args[0] if func is torch.randn_like else None
        dtype = kwargs.get("dtype") or (like.dtype if like is not None else None)
        return found if dtype is None else found.to(dtype)


# --- samplers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What one of a library's rules claims, and what it costs.

    Args:
        order: global, as its documentation or its name says.
        stochastic: whether it draws.
        between: whether it looks between the levels of a grid.
        overlapping: whether it draws for two moves that overlap (see `increments`).
        cost: evaluations in N steps.
    """

    order: int
    stochastic: bool = False
    between: bool = False
    overlapping: bool = False
    cost: Callable[[int], int] = lambda steps: steps


def two_stages(steps: int) -> int:
    """Evaluations of a rule of two stages whose last step is Euler's."""
    return 2 * steps - 1


@dataclass(frozen=True)
class PeerSampler(PathSampler):
    """A sampler of another library, run as it stands.

    `installed`, its name and version, is part of the ids; leave it out to take the one that is
    there. Options that are left out have the library's own defaults, written out in the spec.

    Raises:
        WrongValue: the library is not installed, or is of another version than `installed`; it has
            no such sampler; or the sampler has no such option, or the option no such value. On
            the way down: the machine has another version than the one that made the sampler.
    """

    library: ClassVar[str]
    named: ClassVar[str]  # the parameter that names one of its samplers
    names: ClassVar[tuple[str, ...]]  # those that it may name

    @property
    @abstractmethod
    def rule(self) -> Rule:
        """What is claimed, with the options as they are."""

    @abstractmethod
    def known_options(self) -> Mapping[str, Any]:
        """The options that the sampler has, with the library's defaults."""

    @abstractmethod
    def run(self, walk: WayDown, z: Tensor) -> None:
        """The library's loop from z at the first level ``[members, samples, dim]``, which tells
        every level that it reaches.
        """

    @abstractmethod
    def unit(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x_t / z."""

    @property
    def chooses_levels(self) -> bool:
        """Whether it passes levels of its own choice, and not the grid's."""
        return False

    def by_amplitudes(self) -> bool:
        """Whether it knows alpha and sigma, and not their ratio alone."""
        return False

    def _settle(self) -> None:
        """Check the name, the version and the options, and fill in what was left out."""
        names, version, name = self.names, version_of(self.library), getattr(self, self.named)
        if vars(self)["installed"]:
            self._check_version()
        if name not in names:
            raise WrongValue(f"{self.named}: {version} is asked for {name!r}; accepted: {', '.join(names)}")
        check_there(self.library, name, names)
        object.__setattr__(self, "installed", version)
        known = dict(self.known_options())
        for option in self._options():
            given = getattr(self, option)
            if given is None:
                object.__setattr__(self, option, known.get(option))
            elif option not in known:
                has = ", ".join(known) or "none"
                raise WrongValue(f"{name} of {version} has no option {option!r}; it has: {has}")
        check_options(name, self.chosen(), self.limits())

    def _check_version(self) -> None:
        installed, version = vars(self)["installed"], version_of(self.library)
        if installed != version:
            raise WrongValue(
                f"installed: found {installed!r}, and here is {version}: its samplers may be others "
                "(a study needs one version on every machine)"
            )

    def limits(self) -> Mapping[str, Within]:
        """The numbers that options take, where it is not all from 0."""
        return {}

    def _options(self) -> list[str]:
        return [field.name for field in fields(self) if field.name not in (self.named, "installed")]

    def chosen(self) -> dict[str, Any]:
        """The options as the library takes them."""
        return {name: getattr(self, name) for name in self.known_options()}

    def parameters(self) -> dict[str, Any]:
        """Without options that the sampler does not have."""
        known = {self.named, "installed", *self.known_options()}
        return {name: value for name, value in super().parameters().items() if name in known}

    def differences(self) -> tuple[str, ...]:
        """The sampler with the version, and the options that differ from the library's defaults:
        ``HeunSampler@0.11.1``.
        """
        version = vars(self)["installed"].rpartition(" ")[2]
        known = self.known_options()
        others = [f"{name}={getattr(self, name)}" for name in known if getattr(self, name) != known[name]]
        return (f"{getattr(self, self.named)}@{version}", *others)

    @property
    def version(self) -> int:  # type: ignore[override]  # depends on a parameter
        """Of rules whose draws overlap 2 (1: correlated by the clock of our paths)."""
        return 2 if self.rule.overlapping else 1

    @property
    def stochastic(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """Whether the rule draws."""
        return self.rule.stochastic

    @property
    def between_levels(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """Whether the rule looks between the levels."""
        return self.rule.between

    def evaluations(self, steps: int) -> int:
        return self.rule.cost(steps)

    def refuses(self, schedule: Schedule) -> str | None:
        if without_data_at_the_start(schedule):
            return (
                f"schedule {schedule.registered_name!r} starts at alpha = 0, and {self.library} divides by it "
                "(a smaller t_max leaves some signal)"
            )
        return super().refuses(schedule)

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        self._check_version()  # it may have been made on another machine
        stack = _Stack(self, denoiser, x, levels, noise)
        asked = in_step(stack.programs())
        try:
            requests = next(asked, None)
            while requests is not None:
                if isinstance(requests[0], ReachedLevel):
                    yield stack.state(requests)
                    answers: list[Any] = [None] * len(requests)
                else:
                    answers = stack.answers(requests)
                try:
                    requests = asked.send(answers)
                except StopIteration:
                    return
        finally:
            asked.close()


class _Stack:
    """The members of a stack, in groups that pass the same levels."""

    def __init__(
        self, sampler: PeerSampler, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise
    ) -> None:
        self._sampler, self._denoiser, self._noise = sampler, denoiser, noise
        self._x, self._levels, self._host = x, levels, [level.host for level in levels]
        self._nsr = torch.stack([level.nsr for level in self._host])  # [levels, members]
        told = [level.nsr for level in self._host]
        if sampler.by_amplitudes():
            told = [part for level in self._host for part in (level.alpha, level.sigma)]
        keys = torch.stack(told, 1).tolist()  # what the library sees of each member's levels
        groups: dict[tuple[float, ...], list[int]] = {}
        for m, key in enumerate(keys):
            groups.setdefault(tuple(key), []).append(m)
        self._groups = list(groups.values())

    def programs(self) -> list[Callable[[Asking], None]]:
        z = self._x / per_member(self._unit(self._levels[0]))
        return [self._program(rows, z[rows]) for rows in self._groups]

    def _program(self, rows: list[int], z: Tensor) -> Callable[[Asking], None]:
        first = rows[0]
        alpha, sigma, nsr = (
            torch.stack([value[first] for value in values])
            for values in ([one.alpha for one in self._host], [one.sigma for one in self._host], list(self._nsr))
        )
        schedules = self._host[0].schedules
        schedule = schedules[first] if schedules else None

        def program(ask: Asking) -> None:
            walk = WayDown(alpha, sigma, nsr, schedule, ask)  # type: ignore[arg-type]  # levels of a grid have schedules
            self._sampler.run(walk, z)

        return program

    def answers(self, requests: Sequence[Any]) -> list[Any]:
        if isinstance(requests[0], AskedClean):
            level = self._level_at([one.nsr for one in requests])
            x = per_member(self._unit(level)) * self._joined([one.z for one in requests])
            return self._parted(self._denoiser(x, level.alpha, level.sigma))
        if isinstance(requests[0], DrawnMove):
            ends = [self._level_at([getattr(one, end) for one in requests]) for end in ("start", "end")]
            return self._parted(self._noise.between(*ends))
        return self._parted(self._noise.fresh())

    def state(self, requests: Sequence[ReachedLevel]) -> Tensor:
        level = self._levels[requests[0].number]
        return per_member(self._unit(level)) * self._joined([one.z for one in requests])

    def _unit(self, level: Level) -> Tensor:
        return self._sampler.unit(level.alpha, level.sigma)

    def _level_at(self, ratios: Sequence[float]) -> Level:
        """The level of each group's ratio: one of the grid's, or one between."""
        if not all(math.isfinite(ratio) and ratio >= 0 for ratio in ratios):
            raise ArithmeticError(
                f"{self._sampler.label()} asks at noise-to-signal ratio {', '.join(f'{ratio:g}' for ratio in ratios)}"
            )
        numbers = {self._number(rows[0], ratio) for rows, ratio in zip(self._groups, ratios, strict=True)}
        number = numbers.pop() if len(numbers) == 1 else None
        if number is not None:
            return self._levels[number]
        wanted = torch.empty(self._nsr.shape[1], dtype=torch.float64)
        for rows, ratio in zip(self._groups, ratios, strict=True):
            wanted[rows] = ratio
        first = self._host[0]
        return first.at(first.time_of(wanted)).to(self._x.device)

    def _number(self, member: int, ratio: float) -> int | None:
        known = self._nsr[:, member]
        nearest = int((known - ratio).abs().argmin())
        return nearest if math.isclose(float(known[nearest]), ratio, rel_tol=_SAME, abs_tol=0.0) else None

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        out = torch.empty_like(self._x)
        for rows, part in zip(self._groups, parts, strict=True):
            out[rows] = to_device(part, out.device).to(out.dtype)
        return out

    def _parted(self, whole: Tensor) -> list[Any]:
        return [whole[rows] for rows in self._groups]


def defaults_of(function: Any, wanted: Sequence[str]) -> dict[str, Any]:
    """The options among `wanted` that a function or a class takes, with its defaults."""
    known = inspect.signature(function).parameters
    return {name: known[name].default for name in wanted if name in known}
