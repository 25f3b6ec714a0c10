"""From what a caller gives, a name, a mapping or an object, to a component, read as a study reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
from pydantic import ValidationError

import tasks.data  # noqa: F401 - registers digits and their metrics
from diffusion.datasets import Dataset, datasets
from diffusion.datasets.own import own_points
from diffusion.errors import WrongValue
from diffusion.registry import Component, Registry
from diffusion.samplers import Sampler, samplers
from tasks.messages import shown
from tasks.study.axes import SamplerChoice, read_sampler
from tasks.study.components import complaints_of, read

C = TypeVar("C", bound=Component)
T = TypeVar("T")


def component(registry: Registry[C], base: type, given: object, **parameters: Any) -> C:
    """The component that is meant.

    Args:
        registry: where names are looked up.
        base: what an object has to derive from.
        given: a registered name or ``package.module:Class``; a mapping ``{"name": ..., parameter: ...}``;
            an object; or somebody's own class, of which an object is made.
        **parameters: of a name or a class.

    Raises:
        WrongValue: an unknown name or parameter, a value that is not accepted, an object of another kind.
    """
    if isinstance(given, base) and not parameters:
        return _named(cast("C", given))
    if isinstance(given, type) and issubclass(given, base):
        return _named(_made(cast("type[C]", given), parameters))
    if parameters and not isinstance(given, str):
        told = ", ".join(parameters)
        raise WrongValue(f"{registry.kind}: parameters ({told}) belong to a name, found {shown(given)}")
    entry: object = {"name": given, **parameters} if parameters else given
    if isinstance(entry, Mapping):
        entry = dict(entry)
    return _read(registry.kind, lambda: read(registry, base, entry))


def choice_of(sampler: object) -> SamplerChoice:
    """A sampler with what stands beside it: given as `component` takes it, or as an entry of a study."""
    if isinstance(sampler, SamplerChoice):
        return sampler
    if isinstance(sampler, Mapping):
        return _read("sampler", lambda: read_sampler(dict(sampler)))
    return SamplerChoice(component(samplers, Sampler, sampler))


def target_of(given: object, labels: object = None) -> Dataset:
    """A target: as `component` takes it, or points ``[n, dim]`` (on the line ``[n]``) of one's own."""
    if isinstance(given, str | Mapping | Dataset | type):
        if labels is None:
            found: Dataset = component(datasets, Dataset, given)
            return found
        raise WrongValue("labels belong to points of one's own; a data set has its own labels")
    points = _tensor("the data", given)
    return own_points(
        points[:, None] if points.ndim == 1 else points, None if labels is None else _tensor("the labels", labels)
    )


def refused(error: ValidationError, what: str) -> WrongValue:
    """All that a refusal complains of, as one error."""
    told = [f"{'.'.join(map(str, c.path))}: {c.text}" if c.path else c.text for c in complaints_of(error)]
    return WrongValue(f"{what}: {'; '.join(told)}")


def _read(what: str, reading: Callable[[], T]) -> T:
    try:
        return reading()
    except ValidationError as error:
        raise refused(error, what) from error


def _made(cls: type[C], parameters: Mapping[str, Any]) -> C:
    if not dataclasses.is_dataclass(cls):
        raise WrongValue(f"{cls.__name__} is no frozen dataclass; its parameters are the fields of one")
    try:
        return cls(**parameters)
    except TypeError as error:
        raise WrongValue(f"{cls.__name__}: {error}") from error


def _named(component: C) -> C:
    """The same, whose class has a name of its own: what streams and ids of somebody's own class are named by."""
    cls = type(component)
    if "registered_name" not in vars(cls):
        cls.registered_name = f"{cls.__module__}:{cls.__qualname__}"
    return component


def _tensor(what: str, given: Any) -> torch.Tensor:
    try:
        found = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise WrongValue(f"{what}: found {shown(given)}; accepted: a tensor or an array of numbers") from None
    return found
