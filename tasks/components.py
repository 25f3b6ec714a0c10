"""From a line of a study to a component: ``heun`` or ``{name: ddim, eta: 0.5}``.

A component's parameters are the fields of its dataclass. Pydantic validates them strictly (no text for a number, no unknown
key), so that a typing error is refused rather than guessed at.
"""

from __future__ import annotations

import dataclasses
import typing
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, create_model

from diffusion.registry import Component, Registry

C = TypeVar("C", bound=Component)


@cache
def model_of(cls: type[Any]) -> type[BaseModel]:
    """The strict pydantic model with the fields, types and defaults of a dataclass."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        default: Any = ...
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        fields[field.name] = (hints[field.name], default)
    return create_model(cls.__name__, __config__=ConfigDict(extra="forbid", strict=True), **fields)


def build(registry: Registry[C], spec: str | dict[str, Any]) -> C:
    """The component that `spec` names.

    Raises `diffusion.registry.UnknownName`, `pydantic.ValidationError` (parameters) or `ValueError` (a combination of
    parameters that the class itself refuses).
    """
    name, parameters = (spec, {}) if isinstance(spec, str) else (spec["name"], {k: v for k, v in spec.items() if k != "name"})
    cls = registry.find(name)
    values = model_of(cls).model_validate(parameters)
    return cls(**{field: getattr(values, field) for field in type(values).model_fields})
