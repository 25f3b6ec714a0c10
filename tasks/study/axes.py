"""The axes of a study: what may stand in each list, and how an entry becomes a component.

Every axis is a list without repetitions; entries are compared as components, so that ``heun`` and
``{name: heun}`` are the same. All that is wrong in a list is reported at once, each complaint with
its own path.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, Strict, ValidationError, model_validator

from diffusion.datasets import Dataset, datasets
from diffusion.formulations import Formulation, formulations
from diffusion.guidance import Guidance, guidances
from diffusion.registry import Component
from diffusion.samplers import Sampler, samplers
from diffusion.schedules import Schedule, schedules
from diffusion.schedules.grids import Grid, grids
from diffusion.training import Training
from tasks.messages import shown
from tasks.plain import Plain, Spec, as_json
from tasks.study.components import (
    MISSING,
    Complaint,
    complaints_of,
    construct_or_complain,
    find,
    hint,
    read,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from diffusion.registry import Registry

OWN_GRID = "own"
MOST_STEPS = 1_000_000
MOST_SAMPLES = 100_000_000
MOST_SEEDS = 10_000
LARGEST_INTEGER = 2**63 - 1  # what the store can label

T = TypeVar("T")
C = TypeVar("C", bound=Component)
Name = TypeVar("Name", str, int)


class Missing:
    """Stands for a required axis that was not given, so that its own validator complains."""


@dataclass(frozen=True)
class SamplerChoice:
    """A sampler, the grid it runs on, the schedule it follows and what guides it.

    Without a grid it takes the one of each schedule's definition (``own``); without a schedule the
    one that the model was trained on. With another schedule the trained network is asked at that
    schedule's noise levels. With guidance samples are to follow the target given what is known.
    """

    sampler: Sampler
    grid: Grid | None = None
    schedule: Schedule | None = None
    guidance: Guidance | None = None

    def grid_on(self, schedule: Schedule) -> Grid:
        """The grid for a schedule."""
        return self.grid or grids.create(schedule.own_grid)

    def spec(self) -> Spec:
        """The sampler's spec with the key ``grid`` and, where there is one, ``schedule`` and
        ``guidance``.
        """
        parts = {"schedule": self.schedule, "guidance": self.guidance}
        more = {key: as_json(part.spec()) for key, part in parts.items() if part is not None}
        return {**self.sampler.spec(), "grid": as_json(self.grid.spec()) if self.grid else OWN_GRID, **more}


def refuse(message: str) -> ValidationError:
    """A complaint about the value itself, for a validator to raise."""
    return refusal([Complaint((), message)])


def whole(low: int, high: int) -> Callable[[object], int]:
    """The validator of an integer between two bounds; a truth value, a float and a quoted number
    are none.
    """

    def validate(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            expected = f"an integer from {low} to {high}"
            raise refuse(f"found {shown(value)}, expected {expected}{hint(value, expected)}")
        return value

    return validate


def list_of(
    name: str, item: Callable[[object], T], canonical: Callable[[T], object], *, may_be_empty: bool = False
) -> Callable[[object], tuple[T, ...]]:
    """A validator of lists: every entry through `item`, none twice by its `canonical` JSON."""

    def validate(entries: object) -> tuple[T, ...]:
        if entries is Missing:
            raise refuse(MISSING)
        if not isinstance(entries, list | tuple):
            word = entries if isinstance(entries, str) and re.fullmatch(r"[\w.:@-]{1,40}", entries) else None
            word = shown(entries) if type(entries) is int else word
            remedy = f" (write {name}: [{word}])" if word else ""
            raise refuse(f"found {shown(entries)}, expected a list{remedy}")
        if not entries and not may_be_empty:
            raise refuse("found an empty list, expected at least one entry")
        found: list[Complaint] = []
        built: dict[str, T] = {}
        first: dict[str, int] = {}
        for i, entry in enumerate(entries):
            try:
                value = item(entry)
            except ValidationError as error:
                found += complaints_of(error, (i,))
                continue
            key = json.dumps(canonical(value), sort_keys=True, default=repr)
            if key in built:
                found.append(Complaint((i,), f"found {shown(entry)} twice, the same as {name}[{first[key]}]; keep one"))
            built.setdefault(key, value)
            first.setdefault(key, i)
        if found:
            raise refusal(found)
        return tuple(built.values())

    return validate


def components(registry: Registry[C], base: type) -> Callable[[object], tuple[C, ...]]:
    """The validator of a list of components of one kind."""

    def item(entry: object) -> C:
        return read(registry, base, entry)

    return list_of(f"{registry.kind}s", item, lambda component: component.spec())


def _schedules(value: object) -> tuple[Schedule, ...] | None:
    return None if value is None else components(schedules, Schedule)(value)


BESIDE_A_SAMPLER: dict[str, tuple[Registry[Any], type, tuple[str, ...]]] = {
    "grid": (grids, Grid, (OWN_GRID,)),
    "schedule": (schedules, Schedule, ()),
    "guidance": (guidances, Guidance, ()),
}
"""Keys that a study's samplers take besides their own parameters, with the words that stand for
none.
"""


def read_sampler(entry: object) -> SamplerChoice:
    """The validator of an entry of `samplers`: a sampler and what stands beside it."""
    if isinstance(entry, SamplerChoice):
        return entry
    parts: dict[str, Any] = {}
    found: list[Complaint] = []
    if isinstance(entry, dict):
        for key, (registry, base, also) in BESIDE_A_SAMPLER.items():
            try:
                if key in entry and entry[key] not in also:
                    parts[key] = read(registry, base, entry[key], also=also)
            except ValidationError as error:
                found += complaints_of(error, (key,))
        entry = {key: value for key, value in entry.items() if key not in BESIDE_A_SAMPLER}
    try:
        sampler: Sampler = read(samplers, Sampler, entry)
    except ValidationError as error:
        raise refusal([*complaints_of(error), *found]) from error
    if found:
        raise refusal(found)
    return SamplerChoice(sampler, **parts)


def _known_name(registry: Registry[C], base: type, also: tuple[str, ...] = ()) -> Callable[[object], str]:
    def validate(name: object) -> str:
        if name in also:
            return str(name)
        if not isinstance(name, str):
            raise refuse(f"found {shown(name)}, expected the name of a {registry.kind}, without parameters")
        return str(find(registry, base, name, also=also).registered_name)  # an alias is not what points are called

    return validate


def read_training(value: object) -> Training:
    """The validator of training settings: integers from 1, learning_rate above 0."""
    if not isinstance(value, dict | Training):
        raise refuse(f"found {shown(value)}, expected a mapping such as {{steps: 3000, batch: 512}}")
    given = _fields(value) if isinstance(value, Training) else value
    training: Training = construct_or_complain(Training, "training", given)
    found = []
    for name, number in _fields(training).items():
        if isinstance(number, int) and not isinstance(number, bool) and not 1 <= number <= LARGEST_INTEGER:
            found.append(Complaint((name,), f"found {shown(number)}, expected an integer, 1 or more"))
        if name == "learning_rate" and not number > 0:
            found.append(Complaint((name,), f"found {shown(number)}, expected a number above 0"))
    if found:
        raise refusal(found)
    return training


def _fields(training: Training) -> Spec:
    return {field.name: getattr(training, field.name) for field in dataclasses.fields(training)}


def read_seeds(value: object) -> tuple[int, ...]:
    """The validator of seeds: how many, or which."""
    if isinstance(value, list | tuple):
        return list_of("seeds", whole(0, LARGEST_INTEGER), lambda seed: seed)(value)
    try:
        return tuple(range(whole(1, MOST_SEEDS)(value)))
    except ValidationError:
        expected = f"how many seeds, an integer from 1 to {MOST_SEEDS}, or a list of them"
        raise refuse(f"found {shown(value)}, expected {expected}{hint(value, expected)}") from None


def name_of_study(value: object) -> str:
    """The validator of a study's name, which becomes part of a path in the store."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
        expected = "1 to 64 letters, digits, '_', '.' and '-' that begin with a letter or a digit"
        raise refuse(f"found {shown(value)}, expected {expected}")
    return value


def read_text(value: object) -> str:
    """The validator of free text, which must be storable as UTF-8."""
    if not isinstance(value, str):
        raise refuse(f"found {shown(value)}, expected text")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise refuse(f"found {shown(value)}, expected text that can be written as UTF-8")
    return value


def _trajectory(value: object) -> str:
    match = re.fullmatch(r"(.+)@0*([1-9][0-9]{0,9})", value) if isinstance(value, str) else None
    if not match:
        raise refuse(f"found {shown(value)}, expected sampler@steps, for example heun@50")
    _known_name(samplers, Sampler)(match[1])
    return f"{match[1]}@{match[2]}"


class Frozen(BaseModel):
    """Base of the values of a study: immutable, no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def _one_or_more(item: Callable[[object], Name]) -> PlainValidator:
    def validate(value: object) -> tuple[Name, ...]:
        if not isinstance(value, list | tuple):
            return (item(value),)
        return tuple(sorted(list_of("", item, lambda name: name)(value)))

    return PlainValidator(validate)


class Exclusion(Frozen):
    """A pattern of points to leave out: those that match every key given. A key takes a value or a
    list of them.
    """

    dataset: Annotated[tuple[str, ...] | None, _one_or_more(_known_name(datasets, Dataset))] = None
    formulation: Annotated[tuple[str, ...] | None, _one_or_more(_known_name(formulations, Formulation))] = None
    schedule: Annotated[tuple[str, ...] | None, _one_or_more(_known_name(schedules, Schedule))] = None
    sampler: Annotated[tuple[str, ...] | None, _one_or_more(_known_name(samplers, Sampler))] = None
    grid: Annotated[tuple[str, ...] | None, _one_or_more(_known_name(grids, Grid))] = None
    guidance: Annotated[tuple[str, ...] | None, _one_or_more(_known_name(guidances, Guidance, also=("none",)))] = None
    steps: Annotated[tuple[int, ...] | None, _one_or_more(whole(1, MOST_STEPS))] = None
    seed: Annotated[tuple[int, ...] | None, _one_or_more(whole(0, LARGEST_INTEGER))] = None

    @model_validator(mode="after")
    def _not_everything(self) -> Exclusion:
        if not self.spec():
            raise refuse(
                f"found an empty pattern, which leaves everything out (keys: {', '.join(Exclusion.model_fields)})"
            )
        return self

    def matches(self, **point: str | int) -> bool:
        """Whether the point has an excluded value for every key of the pattern; names are
        registered names.
        """
        return all(point.get(key) in values for key, values in self.spec().items())

    def spec(self) -> dict[str, list[str | int]]:
        """The keys given, each with the list of its values."""
        return {key: list(value) for key in type(self).model_fields if (value := getattr(self, key)) is not None}


class Keep(Frozen):
    """What is stored besides numbers: final samples, and whole trajectories of ``sampler@steps``.

    A trajectory is kept where the study asks that question; one that it does not ask, say because
    ``--set steps=[1,2,4]`` narrowed it, keeps nothing.
    """

    samples: Annotated[bool, Strict()] = False
    trajectories: Annotated[
        tuple[str, ...], PlainValidator(list_of("trajectories", _trajectory, lambda name: name, may_be_empty=True))
    ] = ()


@dataclass(frozen=True)
class Block:
    """One cross of axes, everything resolved; ``schedules=None`` means each formulation's own."""

    datasets: tuple[Dataset, ...]
    formulations: tuple[Formulation, ...]
    schedules: tuple[Schedule, ...] | None
    seeds: tuple[int, ...]
    training: Training
    samplers: tuple[SamplerChoice, ...]
    steps: tuple[int, ...]
    exclude: tuple[Exclusion, ...]

    def pairs(self) -> list[tuple[Formulation, Schedule]]:
        """Every formulation with every schedule (its own, if the block names none), accepted or
        not.
        """
        return [
            (formulation, schedule) for formulation in self.formulations for schedule in self.schedules_of(formulation)
        ]

    def schedules_of(self, formulation: Formulation) -> Sequence[Schedule]:
        """The schedules that the formulation is crossed with."""
        return formulation.schedules_among(self.schedules or ())


# Validators are made here: inside the class, `datasets` is the field and no longer the registry.
DatasetAxis = Annotated[tuple[Dataset, ...] | None, PlainValidator(components(datasets, Dataset))]
FormulationAxis = Annotated[tuple[Formulation, ...] | None, PlainValidator(components(formulations, Formulation))]
ScheduleAxis = Annotated[tuple[Schedule, ...] | None, PlainValidator(_schedules)]
SamplerAxis = Annotated[
    tuple[SamplerChoice, ...] | None, PlainValidator(list_of("samplers", read_sampler, SamplerChoice.spec))
]
StepAxis = Annotated[
    tuple[int, ...] | None, PlainValidator(list_of("steps", whole(1, MOST_STEPS), lambda count: count))
]


class Axes(Frozen):
    """What a block of ``grids:`` may say; what it does not say, it takes from the top of the study."""

    datasets: DatasetAxis = None
    formulations: FormulationAxis = None
    schedules: ScheduleAxis = None
    seeds: Annotated[tuple[int, ...], PlainValidator(read_seeds)] = (0,)
    training: Annotated[Training, PlainValidator(read_training)] = Training()
    samplers: SamplerAxis = None
    steps: StepAxis = None
    exclude: tuple[Exclusion, ...] = ()

    def axes_spec(self, names: Iterable[str]) -> Spec:
        """The named axes as plain values, every default inside them written out."""
        return {name: _axis_spec(getattr(self, name)) for name in names}


def _axis_spec(value: Plain) -> Plain:
    if isinstance(value, Training):
        return as_json(value.spec())
    return None if value is None else as_json([entry if isinstance(entry, int) else entry.spec() for entry in value])
