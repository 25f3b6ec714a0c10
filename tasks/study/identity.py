"""From the identity of a component, which stored specs hold, back to the component.

An identity is a canonical spec with the version of the component and of each of its parts. What it
names may be gone: a class of somebody's own that cannot be imported here, or a parameter that was
renamed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from diffusion.registry import Component, Registry
from tasks.plain import Plain
from tasks.study.components import build

_OF_IDENTITY = {"version", "parts"}  # what `Component.identity` adds to a spec

C = TypeVar("C", bound=Component)


def parameters_of(identity: object) -> Plain:
    """The spec within an identity."""
    if not isinstance(identity, Mapping):
        return identity
    return {k: parameters_of(v) for k, v in identity.items() if not ("name" in identity and k in _OF_IDENTITY)}


def rebuilt(registry: Registry[C], identity: Mapping[str, object]) -> C | None:
    """The component of an identity; None if it cannot be made here, whatever the reason."""
    try:
        return build(registry, parameters_of(identity))
    except (Exception, SystemExit):  # noqa: BLE001 - a user's module may do anything when it is imported
        return None


def class_named(registry: Registry[C], name: str) -> type[C] | None:
    """The class behind a name; None if there is none here."""
    try:
        return registry.find(name)
    except (Exception, SystemExit):  # noqa: BLE001 - as above
        return None


def label_of(registry: Registry[C], identity: Mapping[str, object]) -> str:
    """The label of a component; of one that cannot be made here its name with every parameter,
    defaults included.
    """
    found = rebuilt(registry, identity)
    return _spelled(parameters_of(identity)) if found is None else found.label()


def _spelled(spec: object) -> str:
    if not (isinstance(spec, Mapping) and "name" in spec):
        return str(spec)
    parameters = [f"{key}={_spelled(value)}" for key, value in spec.items() if key != "name"]
    return str(spec["name"]) + (f"({','.join(parameters)})" if parameters else "")
