"""What a component claims, looked at by its name: `diffatlas check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from diffusion.checks import check_component
from diffusion.errors import WrongValue
from diffusion.plugins import typed
from diffusion.registry import Component, NotAllowed, Registry, UnknownName
from tasks.messages import shown
from tasks.models.named import component
from tasks.plain import Plain
from tasks.study.catalogue import REGISTRIES


@dataclass(frozen=True)
class Checked:
    """One claim of a component, held against what it does.

    Args:
        kind: of the component, such as ``sampler``.
        name: its name with the parameters that differ from their defaults.
        claim: what is promised.
        holds: whether it is kept.
        expected: the number or the answer that keeps it.
        found: the one that was found.
    """

    kind: str
    name: str
    claim: str
    holds: bool
    expected: str
    found: str


def check(given: object, *, kind: str | None = None, **parameters: Plain) -> list[Checked]:
    """Hold the claims of a component against what it does: ``check("mine:Ralston")``.

    Args:
        given: a registered name or ``package.module:Class``, a mapping
            ``{"name": ..., parameter: ...}``, an object, or a class of one's own.
        kind: ``sampler``, ``schedule``, ...: the only kind that is meant where several have the
            name; by default all of them are looked at that have the parameters.
        **parameters: of a name or a class.

    Returns:
        A row for each claim, in the order in which they are looked at.

    Raises:
        UnknownName: no component has the name.
        WrongValue: an unknown kind or parameter, or a value that is not accepted.
    """
    return list(checked(given, kind=kind, **parameters))


def checked(given: object, *, kind: str | None = None, **parameters: Plain) -> Iterator[Checked]:
    """The rows of `check`, each as soon as it is known."""
    among = _taking(_registries(given, kind), given, parameters)
    meant = [component(registry, registry.base, given, **parameters) for registry in among]
    for registry, one in zip(among, meant, strict=True):
        for finding in check_component(one):
            yield Checked(registry.kind, one.label(), finding.claim, finding.holds, finding.expected, finding.found)


def _registries(given: object, kind: str | None) -> list[Registry[Any]]:
    """The kinds that something may be of, at least one."""
    among = [registry for registry in REGISTRIES if kind in (None, registry.kind, f"{registry.kind}s")]
    if not among:
        raise WrongValue(f"kind: found {kind!r}; accepted: {', '.join(registry.kind for registry in REGISTRIES)}")
    name = given.get("name") if isinstance(given, Mapping) else given
    if isinstance(name, str) and ":" not in name:
        found = [registry for registry in among if name in registry]
        if not found:
            raise UnknownName(_what(kind), name, sorted({one for registry in among for one in registry.names()}))
        return found
    cls = _class_of(name, _what(kind)) if isinstance(name, str) else name if isinstance(name, type) else type(name)
    found = [registry for registry in among if issubclass(cls, registry.base)]
    if not found:
        kinds = ", ".join(registry.kind for registry in among)
        raise WrongValue(f"check: found {shown(given)}, which is none of these: {kinds}")
    return found


def _taking(among: list[Registry[Any]], given: object, parameters: Mapping[str, Plain]) -> list[Registry[Any]]:
    """Those of the kinds whose component of the name has all parameters; all kinds if none has, for
    the refusal to come.
    """
    named = (
        {str(key) for key in (*given, *parameters) if key != "name"} if isinstance(given, Mapping) else {*parameters}
    )
    name = given.get("name") if isinstance(given, Mapping) else given
    if not named or len(among) == 1 or not isinstance(name, str):
        return among
    taking = [one for one in among if named <= {field.name for field in fields(one.find(name))}]
    return taking or among


def _class_of(path: str, what: str) -> type[Component]:
    """The class behind ``package.module:Class``, whatever its kind."""
    try:
        with typed():
            return REGISTRIES[0].find(path)
    except NotAllowed as error:
        raise NotAllowed(what, path, error.reason) from error
    except UnknownName as error:
        raise UnknownName(what, path, [], error.detail) from error


def _what(kind: str | None) -> str:
    return "component" if kind is None else kind
