"""From the labels that points carry back to the components of the study.

A point says ``ddim(eta=0.5)`` or ``uniform(low=-1.0)``, a study `{name: ddim, eta: 0.5}`. Every entry of the study that can be
a component of a kind is built and asked for its label; a plain name stands for itself. What cannot be built (a plug-in that
is not installed here, an older version) is left out, and the page does without it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import yaml

from diffusion.registry import Component, Registry
from diffusion.samplers import Sampler, samplers
from tasks.study.components import build

C = TypeVar("C", bound=Component)
_OF_THE_STUDY = {"grid", "schedule", "guidance"}  # keys that a study adds to those of a sampler


def components_in(study: Any, registry: Registry[C]) -> dict[str, C]:
    """Everything in a study's specification that is a component of one kind, by label."""
    found: dict[str, C] = {}
    plugged = {point.name for point in importlib.metadata.entry_points(group=f"diffatlas.{registry.kind}s")}
    for entry in _entries(study):
        name = entry if isinstance(entry, str) else entry["name"]
        if not (name in registry or name in plugged or (isinstance(entry, dict) and ":" in name)):
            continue
        component = _built(registry, entry)
        if component is not None:
            found.setdefault(component.label(), component)
    return found


def component_called(label: str, study: Any, registry: Registry[C]) -> C | None:
    """The component with this label, from the study or, for a plain name, with its defaults; None if there is none."""
    return components_in(study, registry).get(label) or plain(label, registry)


def sampler_called(label: str, study: Any) -> Sampler | None:
    """The sampler with this label; None if there is none."""
    return component_called(label, study, samplers)


def plain(label: str, registry: Registry[C]) -> C | None:
    """The component that a registered name, alone or with the parameters of a label, stands for; None if it is none.

    Schedules are fitted to data and noise levels: their labels are not in the study.
    """
    name, bracket, inner = label.removesuffix(")").partition("(")
    if name not in registry:
        return None
    if not bracket:
        return _built(registry, name)
    try:
        parameters = {
            key: yaml.safe_load(value) for key, _, value in (part.partition("=") for part in inner.split(","))
        }
    except yaml.YAMLError:
        return None
    found = _built(registry, {"name": name, **parameters})
    return found if found is not None and found.label() == label else None


def _built(registry: Registry[C], entry: str | dict[str, Any]) -> C | None:
    try:
        found = build(registry, entry)
    except Exception:  # noqa: BLE001 - not of this kind; and a user's module may fail in any way
        return None
    # a class of somebody's own is built from its address, whatever its kind is
    return found if isinstance(found, registry.base) else None


def _entries(value: Any) -> Iterator[str | dict[str, Any]]:
    """Names and mappings with a name, wherever they stand; keys that only the study itself reads are dropped."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        if isinstance(value.get("name"), str):
            yield {str(k): v for k, v in value.items() if k not in _OF_THE_STUDY}
        for key, inner in value.items():
            if key != "name":
                yield from _entries(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _entries(inner)
