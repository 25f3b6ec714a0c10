"""A network that somebody has already: asked like the others, and not trained."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffusion import plugins
from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.formulations.base import Untrained, formulations
from diffusion.models import Denoiser
from diffusion.models.given import AsTrained, Takes, given_denoiser
from diffusion.models.own import OwnDenoiser, Predicts, described
from diffusion.randomness import stream
from diffusion.schedules import Schedule

_SHOWN = 8  # digits of the digest in a label
_NAMED = 3  # weights in a message
_DEEPEST = 4  # of what holds what, where networks are looked for
_NOISE = (0.25, 0.5, 1.0)  # in root mean squares of the data
_NUMBERS = 1024  # how many coordinates of points a network is asked for, to see what it predicts
_FEWEST = 8  # points at least
_CLEAR = 4.0  # times nearer to the ideal denoiser

_at_import: dict[str, tuple[object, bytes]] = {}
"""By module, the spec that it was first seen with, which a reload replaces, and its source then."""


@formulations.register(
    "given",
    formula="E[x_0 | x_t] from what somebody's own network says of x_t",
    source="the identities of Karras et al. 2022, section 2, and Salimans & Ho, ICLR 2022, appendix D",
)
@dataclass(frozen=True)
class Given(Untrained):
    """A network that is brought along, with its weights, asked as it was trained.

    `module` names a factory, ``package.module:load``: called without arguments it returns a
    `torch.nn.Module` or any function ``f(x [n, dim], t [n])``. `predicts` says what that returns
    and `schedule` which x_t and t it knows (`diffusion.models.given`); `takes` is `time`, or
    `timestep` for the number of a discrete level from 0 on, or `sigma` for the noise-to-signal
    ratio beside ``x_t / alpha``. `weights`, a safetensors file, is loaded into the module.

    What it is goes into its ids as `digest`: the SHA-256 of the source of its module and of what
    its `state_dict` holds. Modules that it imports are not in it, nor is what a function holds that
    is no module. Leave it out to take them as they are; a spec that was stored has it.

    Raises:
        WrongValue: there is no such module or factory, nobody has allowed the module, or its file
            has changed since it was imported; it returns no function of two arguments, or one that
            is no module and holds one; the weights are missing or those of another network; or the
            digest is another one than that given.
    """

    module: str
    predicts: Predicts
    schedule: Schedule
    weights: str | None = None
    takes: Takes = "time"
    digest: str = ""

    def __post_init__(self) -> None:
        if self.takes == "timestep" and self.schedule.max_steps is None:
            raise WrongValue(
                f"takes: timestep counts the levels of a discrete schedule, and {self.schedule.label()} has none"
            )
        factory, source = _factory(self.module)
        network = _made(self.module, factory)
        if self.weights is not None:
            _fill(self.module, network, self.weights)
        found = _digest(self.module, source, network)
        if self.digest not in ("", found):
            unnamed = (
                ", or they stood in a file: a store does not hold which, so what needs one cannot be made from a store "
                "(plan or run the study that names the file, or let the factory load its weights itself)"
            )
            raise WrongValue(
                f"{self.module!r} or its weights have changed since{'' if self.weights else unnamed}: "
                f"their digest is {found[:12]}..., expected {self.digest[:12]!r}..."
            )
        object.__setattr__(self, "digest", found)
        self.__dict__["_model"] = given_denoiser(network, self.predicts, self.takes, self.schedule)

    @property
    def model(self) -> OwnDenoiser:
        """The network as a denoiser."""
        model: OwnDenoiser = self.__dict__["_model"]
        return model

    def model_of(self, datasets: Sequence[Dataset]) -> OwnDenoiser:  # noqa: ARG002
        """One network, whatever the targets."""
        return self.model

    @property
    def parameters_held(self) -> int:
        """How many numbers the network holds, for estimates of time."""
        network = self.model.function.network  # type: ignore[attr-defined]
        return sum(p.numel() for p in network.parameters()) if isinstance(network, torch.nn.Module) else 0

    @property
    def gives(self) -> type[Denoiser]:
        return Denoiser

    def own_schedule(self) -> Schedule:
        return self.schedule

    def schedules_among(self, offered: object) -> tuple[Schedule]:  # noqa: ARG002
        """Its own: it was trained on no other."""
        return (self.schedule,)

    def noise_range(self, schedule: Schedule) -> tuple[float, float] | None:  # noqa: ARG002
        own = self.schedule
        low, high = own.nsr(torch.tensor([own.t_min, own.t_max], dtype=torch.float64)).tolist()
        return low, high

    def refuses_dataset(self, dataset: Dataset) -> str | None:
        """Why it says nothing of the target's points, told by asking it for some of them: not as many
        as they have coordinates, so that levels ``[n]`` that are meant as ``[n, 1]`` do not fit.
        """
        x, own = torch.zeros(1, 3 if dataset.dim == 2 else 2, dataset.dim, dtype=torch.float64), self.schedule
        t = own.level_times[:1] if own.max_steps else torch.tensor([own.t_min], dtype=torch.float64)
        try:
            found = self.model(x, own.alpha(t), own.sigma(t))
        except Exception as error:  # noqa: BLE001 - somebody's own code may raise anything
            text = " ".join(str(error).split()) or type(error).__name__
            return f"{self.module!r} cannot be asked for points of {dataset.dim} coordinates: {text}"
        if not bool(torch.isfinite(found).all()):
            return f"{self.module!r} gives numbers that are not finite for points of {dataset.dim} coordinates"
        return self._read_otherwise(dataset)

    def _read_otherwise(self, dataset: Dataset) -> str | None:
        """Why what it returns is not what `predicts` says, as far as the target's ideal denoiser
        tells.

        It is refused if another reading than the declared one is `_CLEAR` times nearer to the ideal
        denoiser, in mean squares, and as much nearer than an answer of zero in that reading, which for
        `v` is the best linear denoiser; and within a tenth of the data's variance. A network without
        training, or of other data, is near in no reading. At the levels of `_NOISE` times the data's
        size; where these are not among the schedule's, nothing is told.
        """
        size = dataset.root_mean_square
        low, high = self.noise_range(self.schedule) or (0.0, 0.0)
        levels = [share * size for share in _NOISE if low <= share * size <= high]
        asked = self.model.function
        if not (levels and dataset.exact and isinstance(asked, AsTrained)):
            return None
        generator = stream("how a network is read")
        clean = dataset.sample(max(_FEWEST, _NUMBERS // dataset.dim), generator)
        eps = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        errors: dict[Predicts, float] = dict.fromkeys(get_args(Predicts), 0.0)
        zeros = dict(errors)
        for level in torch.tensor(levels, dtype=clean.dtype):
            y = clean + level * eps
            ideal = dataset.denoise(y, torch.ones_like(level), level)
            for kind, (error, zero) in asked.errors(y, level, ideal).items():
                errors[kind] += float(error) / len(levels)
                zeros[kind] += float(zero) / len(levels)
        best = min(errors, key=lambda kind: errors[kind])
        if errors[best] < min(errors[self.predicts] / _CLEAR, zeros[best] / _CLEAR, dataset.std**2 / 10):
            return (
                f"{self.module!r} does not predict {self.predicts!r}: read so, its mean squared distance from the ideal denoiser "
                f"of {dataset.label()!r} is {errors[self.predicts]:.2g}; read as {best!r} it is {errors[best]:.2g} "
                f"(write predicts: {best})"
            )
        return None

    def identity(self) -> dict[str, Any]:
        """Without the place of the weights, which are in the digest."""
        return {key: value for key, value in super().identity().items() if key != "weights"}

    def label(self) -> str:
        """The factory, the beginning of the digest and what it predicts:
        ``given(mine:load@1f2e3d4c,epsilon)``.
        """
        told = "" if self.takes == "time" else f",{self.takes}"
        return f"given({self.module}@{self.digest[:_SHOWN]},{self.predicts}{told})"


def _factory(path: str) -> tuple[Any, bytes]:
    """What a path names, and the source of the module that it lies in."""
    name, _, attribute = path.partition(":")
    if not name or not attribute:
        raise WrongValue(f"module: found {path!r}; accepted: package.module:factory, such as mine:load")
    if reason := plugins.why_not_call(name):
        raise WrongValue(f"module: {path!r}: {reason}")
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise WrongValue(f"module: {path!r} could not be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        near = ", ".join(one for one, value in vars(module).items() if callable(value) and not one.startswith("_"))
        raise WrongValue(f"module: {name!r} has no {attribute!r}; it has: {near or 'nothing that can be called'}")
    return getattr(module, attribute), _source(name, module)


def _source(name: str, module: Any) -> bytes:
    """The source that a module was imported from, as far as can be told."""
    try:
        source = Path(inspect.getsourcefile(module) or "").read_bytes()
    except (OSError, TypeError) as error:
        raise WrongValue(f"module: {name!r} has no source that its ids could follow from ({error})") from error
    spec, first = _at_import.get(name, (None, b""))
    if spec is None or spec is not module.__spec__:
        _at_import[name] = module.__spec__, source
    elif source != first:
        raise WrongValue(
            f"module: the file of {name!r} has changed since it was imported, and this process has what it was (start it "
            "again, or importlib.reload the module)"
        )
    return source


def _made(path: str, factory: Any) -> Any:
    """What the factory returns."""
    if not callable(factory):
        raise WrongValue(f"module: {path!r} is no function; accepted: one without arguments that returns the network")
    try:
        found = factory()
    except Exception as error:
        raise WrongValue(
            f"module: {path!r}, called without arguments, ended with {type(error).__name__}: {error}"
        ) from error
    held = None if isinstance(found, torch.nn.Module) else next(_networks(found), None)
    if held is not None:
        raise WrongValue(
            f"module: {path!r} returned {described(found)} that holds a torch.nn.Module ({described(held)}), whose weights "
            "would not be in its ids; accepted: a module, whose forward may do the same"
        )
    return found


def _networks(found: Any, depth: int = 0) -> Iterator[torch.nn.Module]:
    """The networks that something holds: in its closure, its attributes, what it is bound to, or the
    globals that it names.
    """
    if isinstance(found, torch.nn.Module):
        if found.state_dict():  # an activation has no weights
            yield found
    elif depth < _DEEPEST and not isinstance(found, type):
        for one in _held(found):
            yield from _networks(one, depth + 1)


def _held(found: Any) -> Iterator[Any]:
    if isinstance(found, Mapping):
        yield from found.values()
    elif isinstance(found, list | tuple | set | frozenset):
        yield from found
    elif isinstance(found, functools.partial):
        yield from (found.func, *found.args, *found.keywords.values())
    elif inspect.ismethod(found):
        yield from (found.__self__, found.__func__)
    elif inspect.isfunction(found):
        seen = inspect.getclosurevars(found)
        yield from (*seen.nonlocals.values(), *(found.__defaults__ or ()), *(found.__kwdefaults__ or {}).values())
        yield from (one for one in seen.globals.values() if not inspect.ismodule(one))
    elif hasattr(found, "__dict__") and not inspect.ismodule(found):
        yield from vars(found).values()
        if inspect.isfunction(call := inspect.getattr_static(type(found), "__call__", None)):
            yield call


def _fill(path: str, network: Any, weights: str) -> None:
    """Load the weights into the network."""
    if not isinstance(network, torch.nn.Module):
        raise WrongValue(f"weights: {path!r} returned {type(network).__name__}; only a torch.nn.Module takes weights")
    try:
        loaded = load_file(weights)
        network.load_state_dict(loaded)
    except FileNotFoundError:
        raise WrongValue(f"weights: there is no file {weights!r} (here is {Path.cwd()})") from None
    except (OSError, SafetensorError) as error:
        raise WrongValue(f"weights: {weights!r} is no safetensors file that can be read: {error}") from error
    except RuntimeError as error:
        found = _differences(network, loaded) or " ".join(str(error).split())
        raise WrongValue(f"weights: {weights!r} are not those of {path!r}: {found}") from error


def _differences(network: torch.nn.Module, loaded: Mapping[str, torch.Tensor]) -> str:
    """What a file lacks of a network's weights, has beyond them, or has in other shapes."""
    own = network.state_dict()
    shapes = [
        f"{name} {list(loaded[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in loaded and isinstance(value, torch.Tensor) and value.shape != loaded[name].shape
    ]
    told = {
        f"lacks {{}} of {len(own)}": [name for name in own if name not in loaded],
        "has {} that the network has not": [name for name in loaded if name not in own],
        "has {} of another shape": shapes,
    }
    return ", ".join(f"it {what.format(len(names))} ({_some(names)})" for what, names in told.items() if names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _digest(path: str, source: bytes, network: Any) -> str:
    """SHA-256 of a module's source and of all that the network holds."""
    found = hashlib.sha256(source.replace(b"\r\n", b"\n"))
    if isinstance(network, torch.nn.Module):
        for name, value in sorted(network.state_dict().items()):
            try:
                held = value.detach().cpu().contiguous()
                content = held.flatten().view(torch.uint8).numpy().tobytes()
            except (AttributeError, RuntimeError, TypeError):
                raise WrongValue(
                    f"module: the state_dict of {path!r} holds {described(value)} at {name!r}; accepted: dense tensors, which "
                    "its ids can follow from"
                ) from None
            found.update(f"{name} {held.dtype} {list(held.shape)}".encode())
            found.update(content)
    return found.hexdigest()
