"""From a line of a study to a component: ``heun`` or ``{name: ddim, eta: 0.5}``.

A component's parameters are the fields of its dataclass. Pydantic validates them strictly (no text
for a number, no unknown key, no infinity), so that a typing error is refused rather than guessed
at. What is refused is said as a *complaint*: where (a path of keys and list positions) and one line
of what was found and what would be accepted. Complaints travel inside pydantic's own
`ValidationError`, so that one from deep inside arrives with its whole path.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, Strict, ValidationError, create_model
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

import tasks.data  # noqa: F401 - registers digits and their metrics
from diffusion.datasets import Dataset, datasets, misstated
from diffusion.datasets.degradations import Degradation, degradations
from diffusion.formulations import Formulation, formulations
from diffusion.guidance import Guidance, guidances
from diffusion.networks import Architecture, architectures
from diffusion.objectives import NoiseLevels, Weighting, noise_distributions, weightings
from diffusion.objectives.parametrizations import Parametrization, parametrizations
from diffusion.registry import Component, Registry, UnknownName
from diffusion.schedules import Schedule, schedules
from diffusion.schedules.grids import Grid, grids
from tasks.messages import shown, unknown
from tasks.plain import Spec

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

C = TypeVar("C", bound=Component)
T = TypeVar("T")
Path = tuple[str | int, ...]

MOST_COORDINATES = 4096  # networks and exact denoisers hold whole batches of them
LARGEST_DATA = 1e100  # squares of it are numbers
MISSING = "this key is required and is missing"

EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_from_float": "an integer",
    "int_type": "an integer",
    "invalid_key": "a key that is text",
    "is_instance_of": "a mapping",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text",
    "string_unicode": "text that can be written as UTF-8",
    "tuple_type": "a list",
    "none_required": "null",
}


class Complaint(NamedTuple):
    """One thing that is wrong: where, and a line that says what was found and what would be
    accepted.
    """

    path: Path
    text: str


def refusal(complaints: Iterable[Complaint]) -> ValidationError:
    """The complaints as one pydantic error, for a validator to raise."""
    return ValidationError.from_exception_data(
        "study",
        [
            InitErrorDetails(type=PydanticCustomError("complaint", "{text}", {"text": c.text}), loc=c.path, input=None)
            for c in complaints
        ],
    )


def complaints_of(error: ValidationError, base: Path = ()) -> list[Complaint]:
    """What a refusal says, each path continued from `base`."""
    return [Complaint(base + c.path, c.text) for c in map(complaint_of, error.errors(include_url=False))]


def complaint_of(details: ErrorDetails) -> Complaint:
    """One entry of ``ValidationError.errors()``: a complaint as it was made, or pydantic's own in
    our words.
    """
    path = tuple(details["loc"])
    return Complaint(path, details["ctx"]["text"] if details["type"] == "complaint" else in_our_words(details))


def in_our_words(details: ErrorDetails) -> str:
    """One of pydantic's own errors in our words: what was found, what was expected."""
    kind = details["type"]
    if kind == "missing":
        return MISSING
    context = details.get("ctx", {})
    expected = context.get("expected") if kind == "literal_error" else EXPECTED.get(kind)
    found = details["input"]
    return f"found {shown(found)}, expected {expected}{hint(found, expected)}" if expected else str(details["msg"])


def hint(found: object, expected: str) -> str:
    """What to do about a number or a truth value that YAML reads as text."""
    if not isinstance(found, str):
        return ""
    number = re.fullmatch(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?", found.strip())
    if number and ("integer" in expected or "number" in expected):
        return " (write it without quotes and underscores)"
    if expected == "true or false" and found.lower() in {"yes", "no", "on", "off", "true", "false"}:
        return " (write true or false, without quotes)"
    return ""


KINDS: tuple[tuple[type[Component], Registry[Any]], ...] = (
    (Dataset, datasets),
    (Schedule, schedules),
    (Parametrization, parametrizations),
    (NoiseLevels, noise_distributions),
    (Weighting, weightings),
    (Grid, grids),
    (Architecture, architectures),
    (Formulation, formulations),
    (Guidance, guidances),
    (Degradation, degradations),
)
"""Kinds of components that may be parameters of another one."""


def _readable(hint_: Any) -> Any:
    """The type as YAML and JSON can give it: tuples read from lists, components from their names or
    specs.
    """
    for base, registry in KINDS:
        if hint_ is base:
            return Annotated[Any, PlainValidator(partial(read, registry, base))]
    origin, arguments = typing.get_origin(hint_), typing.get_args(hint_)
    if origin is tuple:
        inner = tuple(a if a is Ellipsis else _readable(a) for a in arguments)
        return Annotated[tuple.__class_getitem__(inner), Strict(strict=False)]
    if origin in {typing.Union, types.UnionType}:
        return typing.Union[tuple(_readable(a) for a in arguments)]  # noqa: UP007 - members known at run time
    return hint_


@cache
def validator_of(cls: type) -> type[BaseModel]:
    """The strict pydantic model with the fields, types and defaults of a dataclass."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        default: Any = ...
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        fields[field.name] = (_readable(hints[field.name]), default)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    return create_model(cls.__name__, __config__=config, **fields)


def build(registry: Registry[C], spec: str | Spec) -> C:
    """The component that `spec` names.

    Raises:
        UnknownName: nothing is registered under the name.
        ValidationError: a parameter is unknown or of a wrong type.
        ValueError: the class itself refuses the combination of parameters.
    """
    name, parameters = (
        (spec, {}) if isinstance(spec, str) else (spec["name"], {k: v for k, v in spec.items() if k != "name"})
    )
    return construct(registry.find(name), parameters)


def construct(cls: type[T], parameters: Spec) -> T:
    """An instance of a dataclass from plain values, strictly; stored ones may have a parameter's
    first name. Raises as `build` does.
    """
    now = present_names(cls)
    present = {now.get(name, name): value for name, value in parameters.items()}
    values = validator_of(typing.cast("Hashable", cls)).model_validate(present)
    return cls(**{field: getattr(values, field) for field in type(values).model_fields})


def present_names(cls: type) -> dict[str, str]:
    """Of parameters that were renamed: first name -> present one."""
    return {old: name for name, old in cls.stored_names.items()} if issubclass(cls, Component) else {}


def construct_or_complain(cls: type[T], what: str, parameters: Spec) -> T:
    """`construct`, with everything that can be wrong as one `ValidationError` made of complaints."""
    known = [field.name for field in dataclasses.fields(typing.cast("Any", cls))]
    renamed = {old: name for old, name in present_names(cls).items() if old in parameters}
    for old, name in renamed.items():
        if name in parameters:
            raise refusal(
                [Complaint((old,), f"this parameter of {what} is called {name} now and is given too; keep one")]
            )
    parameters = {renamed.get(key, key): value for key, value in parameters.items()}
    written: dict[str | int, str] = {name: old for old, name in renamed.items()}
    found = [
        Complaint((str(key),), unknown("parameter", key, known, of=f" of {what}"))
        for key in parameters
        if key not in known
    ]
    wrong: dict[Path, list[ErrorDetails]] = {}  # of a union, every member complains: gather them at the parameter
    try:
        built = construct(cls, {key: value for key, value in parameters.items() if key in known})
    except ValidationError as error:
        for e in error.errors(include_url=False):
            if e["type"] == "complaint":  # from inside a parameter that is a component itself
                found.append(complaint_of(e))
                continue
            inner = next((i for i, part in enumerate(e["loc"][1:], 1) if not isinstance(part, int)), None)
            wrong.setdefault(e["loc"][:inner], []).append(e)
    except Exception as error:  # noqa: BLE001 - a refusal in the class's own words; it may be a user's
        found.append(Complaint((), f"{what}: {_one_line(error)}"))
    for path, errors in wrong.items():
        whole = [EXPECTED.get(e["type"]) for e in errors]
        if len(errors) > 1 and all(whole):
            expected = " or ".join(dict.fromkeys(w for w in whole if w))
            found.append(Complaint(path, f"found {shown(errors[0]['input'])}, expected {expected}"))
        else:
            found.append(Complaint(path, in_our_words(errors[0])))
    found = [c._replace(path=(written.get(c.path[0], c.path[0]), *c.path[1:])) if c.path else c for c in found]
    if not found and isinstance(built, Dataset):
        found += [Complaint((), f"{what}: {reason}") for reason in _unusable(built)]
    if found:
        raise refusal(found)
    return built


def _unusable(dataset: Dataset) -> Iterator[str]:
    """Why a target, whose parameters are each allowed, cannot be worked with."""
    if dataset.dim > MOST_COORDINATES:
        yield f"{dataset.dim} coordinates; at most {MOST_COORDINATES} are accepted"
        return
    try:
        if reason := misstated(dataset):
            yield reason
            return
        size = max(dataset.std, *map(abs, dataset.mean))
    except (ArithmeticError, ValueError) as error:
        size, reason = math.inf, f" ({_one_line(error)})"
    else:
        reason = ""
    if not size <= LARGEST_DATA:
        yield f"its mean or standard deviation is beyond {LARGEST_DATA:g}{reason}; use smaller parameters"


def read(registry: Registry[C], base: type, entry: object, *, also: tuple[str, ...] = ()) -> C:
    """The component that an entry of a study describes; an instance of `base` passes as it is.

    `also` are words that the caller accepts besides, for the message about an unknown name.

    Raises:
        ValidationError: a wrong shape, an unknown name, an unknown parameter, a wrong type, a value
            that the class refuses, or a class of another kind: every complaint, with its path in
            the entry.
    """
    kind = registry.kind
    if isinstance(entry, base):
        return typing.cast("C", entry)
    name: str
    parameters: Spec = {}
    if isinstance(entry, str):
        name = entry
    elif isinstance(entry, dict):
        name, parameters = _name_and_parameters(kind, registry.names(), entry)
    else:
        raise refusal(
            [Complaint((), f"found {shown(entry)}, expected the name of a {kind} or {{name: ..., parameter: ...}}")]
        )
    cls = find(registry, base, name, ("name",) if isinstance(entry, dict) else (), also=also)
    return construct_or_complain(cls, repr(name), parameters)


def _name_and_parameters(kind: str, known: list[str], entry: Spec) -> tuple[str, Spec]:
    name = entry.get("name")
    if "name" not in entry:
        message = f"found {shown(entry)}, expected a key 'name' with the name of a {kind}"
        if len(entry) == 1 and next(iter(entry)) in known:
            message += f" (write {{name: {next(iter(entry))}, parameter: ...}})"
        raise refusal([Complaint((), message)])
    if not isinstance(name, str):
        raise refusal([Complaint(("name",), f"found {shown(name)}, expected the name of a {kind}")])
    return name, {key: value for key, value in entry.items() if key != "name"}


def find(registry: Registry[C], base: type, name: str, path: Path = (), *, also: tuple[str, ...] = ()) -> type[C]:
    """The class behind a name, of the kind `base`.

    Raises:
        ValidationError: there is no such component; the complaint is at `path`.
    """
    try:
        cls = registry.find(name)
    except UnknownName as error:
        if ":" in name:  # the reason lies in the user's own module
            raise refusal([Complaint(path, _one_line(error))]) from error
        note = "; your own class is named as package.module:Object"
        raise refusal([Complaint(path, unknown(registry.kind, name, [*also, *registry.names()], note=note))]) from error
    except Exception as error:  # a user's module may fail in any way while it is imported
        message = f"{registry.kind} {shown(name)} could not be imported: {type(error).__name__}: {_one_line(error)}"
        raise refusal([Complaint(path, message)]) from error
    if not issubclass(cls, base):
        message = f"{shown(name)} is not a {registry.kind}: it must derive from {base.__module__}.{base.__qualname__}"
        raise refusal([Complaint(path, message)])
    return cls


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
