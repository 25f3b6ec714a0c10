"""From what a caller gives, a name, a mapping or an object, to a component, read as a study reads
it.

A *name* is a registered one or ``package.module:Class``; wherever one is accepted, so is a mapping
``{"name": ..., parameter: ...}``, an object, or a class of one's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeVar, cast, get_args, get_type_hints

import torch
from numpy.typing import ArrayLike
from pydantic import ValidationError

import tasks.data  # noqa: F401 - registers digits and their metrics
from diffusion.datasets import Dataset, datasets, misstated
from diffusion.datasets.own import own_array
from diffusion.errors import WrongValue
from diffusion.formulations import Formulation, formulations
from diffusion.guidance import Guidance, guidances
from diffusion.metrics import BaseMetric, metrics
from diffusion.plugins import typed
from diffusion.registry import Component, Registry
from diffusion.samplers import Sampler, samplers
from diffusion.schedules import Schedule, schedules
from tasks.data.from_file import FilePoints
from tasks.messages import shown
from tasks.plain import Plain, Spec
from tasks.study.axes import SamplerChoice, read_sampler
from tasks.study.components import complaints_of, read
from tasks.study.identity import class_named
from tasks.study.renamed import note_old_names

C = TypeVar("C", bound=Component)
T = TypeVar("T")

Named = str | Mapping[str, Plain] | type
"""A name, or a mapping ``{"name": ..., parameter: ...}``, or a class of one's own."""

Array = torch.Tensor | ArrayLike
"""Numbers: a tensor, an array, or lists of them."""

Target = Named | Dataset | Array
"""A data set by name, mapping, object or class; or points ``[n, dim]``."""


def component(registry: Registry[C], base: type, given: object, **parameters: Plain) -> C:
    """The component that is meant.

    Args:
        registry: where names are looked up.
        base: what an object has to derive from.
        given: a registered name or ``package.module:Class``; a mapping
            ``{"name": ..., parameter: ...}``; an object; or somebody's own class, of which an
            object is made.
        **parameters: of a name or a class. Where one is a data set, it may be points.

    Raises:
        WrongValue: an unknown name or parameter, a value that is not accepted, an object of another
            kind.
    """
    if isinstance(given, base) and not parameters:
        return _named(cast("C", given))
    if isinstance(given, type) and issubclass(given, base):
        own = cast("type[C]", given)
        return _named(_made(own, _with_data(own, parameters)))
    if parameters and not isinstance(given, str):
        names = ", ".join(parameters)
        raise WrongValue(f"{registry.kind}: parameters ({names}) belong to a name, found {shown(given)}")
    entry: object = {"name": given, **parameters} if parameters else given
    if isinstance(entry, Mapping):
        entry = dict(entry)
    note_old_names(entry)

    def reading() -> C:
        cls = class_named(registry, str(entry.get("name"))) if isinstance(entry, dict) else None
        return read(registry, base, entry if cls is None else _with_data(cls, cast("Spec", entry)))

    return _read(registry.kind, reading)


def dataset(given: Target, *, labels: Array | None = None, **parameters: Plain) -> Dataset:
    """A target: ``dataset("uniform", low=-1, high=1)``, or points of one's own.

    It has `sample`, and where `exact` is true `denoise`, `score` and `log_density` of noised
    points: ``denoise(x [n, dim], alpha, sigma)`` is ``E[x_0 | alpha x_0 + sigma eps = x]``.

    Args:
        given: a name, a mapping, an object or a class; or points ``[n, dim]``, on the line also
            ``[n]``.
        labels: of points of one's own, ``[n]`` whole numbers from 0 on.
        **parameters: of a name or a class. Where one is a data set, as `of` is, it may be points:
            ``dataset("standardised", of=points)``.

    Raises:
        WrongValue: an unknown name or parameter, a value that is not accepted, points of another
            shape.
    """
    if isinstance(given, Mapping) and _are_points(given.get("of")):
        given = {**given, "of": dataset(given["of"], labels=labels)}
        labels = None
    if _are_points(parameters.get("of")):
        parameters["of"] = cast("Plain", dataset(parameters["of"], labels=labels))
        labels = None
    if isinstance(given, str | Mapping | Dataset | type):
        _check_no_points_for_a_file(given, parameters)
        if labels is None:
            found: Dataset = component(datasets, Dataset, given, **parameters)
            if reason := misstated(found):
                raise WrongValue(reason)
            return found
        raise WrongValue("labels belong to points of one's own; a data set has its own labels")
    if parameters:
        raise WrongValue(f"points of one's own take no parameters, found {', '.join(parameters)}")
    return own_array(given, labels)


def _check_no_points_for_a_file(given: object, parameters: Mapping[str, Plain]) -> None:
    """Points are a data set without being in a file."""
    entry = {**given, **parameters} if isinstance(given, Mapping) else {"name": given, **parameters}
    cls = class_named(datasets, entry["name"]) if isinstance(entry.get("name"), str) else entry.get("name")
    if isinstance(cls, type) and issubclass(cls, FilePoints):
        for key in ("path", "array"):
            if hasattr(entry.get(key), "__array__") and not isinstance(entry[key], str):
                raise WrongValue(
                    f"{key}: found {shown(entry[key])}, and {cls.registered_name!r} asks for the name of a"
                    f"{' file' if key == 'path' else 'n array in its file'}; points in memory are a data set themselves, "
                    "da.dataset(points)"
                )


def schedule(given: Named | Schedule, **parameters: Plain) -> Schedule:
    """A noise schedule: ``schedule("vp-linear").alpha(0.5)``. Arguments and errors as of `dataset`."""
    found: Schedule = component(schedules, Schedule, given, **parameters)
    return found


def sampler(given: Named | Sampler, **parameters: Plain) -> Sampler:
    """A sampler: ``sampler("ddim", eta=0.5)``. Arguments and errors as of `dataset`."""
    found: Sampler = component(samplers, Sampler, given, **parameters)
    return found


def formulation(given: Named | Formulation, **parameters: Plain) -> Formulation:
    """What is trained: ``formulation("denoising", parametrization="v")``. Arguments and errors as
    of `dataset`.
    """
    found: Formulation = component(formulations, Formulation, given, **parameters)
    return found


def guidance(given: Named | Guidance, **parameters: Plain) -> Guidance:
    """What is known of samples: ``guidance("class-label", labels=2)``. Arguments and errors as of
    `dataset`.
    """
    found: Guidance = component(guidances, Guidance, given, **parameters)
    return found


def metric(given: Named | BaseMetric, **parameters: Plain) -> BaseMetric:
    """A metric: ``metric("sliced-w2", projections=64)``. Arguments and errors as of `dataset`."""
    found: BaseMetric = component(metrics, BaseMetric, given, **parameters)
    return found


def choice_of(given: object) -> SamplerChoice:
    """A sampler with what stands beside it: given as `component` takes it, or as an entry of a
    study.
    """
    if isinstance(given, SamplerChoice):
        return given
    if isinstance(given, Mapping):
        return _read("sampler", lambda: read_sampler(dict(given)))
    return SamplerChoice(component(samplers, Sampler, given))


def refused(error: ValidationError, what: str) -> WrongValue:
    """All that a refusal complains of, as one error."""
    complaints = [f"{'.'.join(map(str, c.path))}: {c.text}" if c.path else c.text for c in complaints_of(error)]
    return WrongValue(f"{what}: {'; '.join(complaints)}")


def _read(what: str, reading: Callable[[], T]) -> T:
    try:
        with typed():  # who calls writes the name here, or answers for it
            return reading()
    except ValidationError as error:
        raise refused(error, what) from error


def _made(cls: type[C], parameters: Mapping[str, Plain]) -> C:
    if not dataclasses.is_dataclass(cls):
        raise WrongValue(f"{cls.__name__} is no frozen dataclass; its parameters are the fields of one")
    try:
        return cls(**parameters)
    except TypeError as error:
        raise WrongValue(f"{cls.__name__}: {error}") from error


def _named(component: C) -> C:
    """The same, whose class has a name of its own: what streams and ids of somebody's own class are
    named by.
    """
    cls = type(component)
    if "registered_name" not in vars(cls):
        cls.registered_name = f"{cls.__module__}:{cls.__qualname__}"
    return component


def _with_data(cls: type[Component], parameters: Mapping[str, Plain]) -> dict[str, Plain]:
    """The parameters with a data set in the place of points, where one is asked for."""
    found = dict(parameters)
    if any(map(_has_points, found.values())):
        asked = {name for name, hint in get_type_hints(cls).items() if Dataset in (hint, *get_args(hint))}
        found |= {name: dataset(found[name]) for name in asked & found.keys() if _has_points(found[name])}
    return found


def _has_points(given: object) -> bool:
    """Whether points are given for a data set, or for one within it."""
    return any(map(_has_points, given.values())) if isinstance(given, Mapping) else _are_points(given)


def _are_points(given: object) -> bool:
    """Whether a data set that is a parameter was given as points."""
    return given is not None and not isinstance(given, str | Mapping | Dataset | type)
