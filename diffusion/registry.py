"""Names of the field, and how one becomes an object.

Every entry of the atlas (a dataset, a schedule, a sampler, ...) is a frozen dataclass: its fields
*are* its parameters, their types and defaults included. A registry maps the name used in a study to
that class, together with where its formula comes from. Three ways lead to an entry:

- a registered name, ``heun``;
- an installed entry point of the group ``diffatlas.<kind>s`` (``diffatlas.samplers``, ...);
- a path ``package.module:Object``, where `diffusion.plugins` allows the module.

Nothing here reads files or validates user input beyond names: `tasks.study.components` turns a line
of YAML into parameters.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

from diffusion import plugins
from diffusion.errors import WrongInput

_MOST_LISTED = 60  # names that a message lists: those of one kind, not those of all kinds
_MOST_NEAR = 5


class UnknownName(WrongInput, LookupError):
    """A name that no registry entry, entry point or importable object answers to."""

    kind = "unknown-name"

    def __init__(self, what: str, name: str, known: list[str], detail: str = "", own: bool = True) -> None:
        self.what, self.name, self.known, self.detail, self.own = what, name, known, detail, own
        near = difflib.get_close_matches(name, known, n=_MOST_NEAR, cutoff=0.5)
        self.nearest = near[0] if near else None
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        if len(known) > _MOST_LISTED:
            listed = (f"near: {', '.join(near)}; " if near else "") + f"'diffatlas catalog' lists all {len(known)}"
        else:
            listed = f"known: {', '.join(known)}" if known else ""
        remarks = [listed, "your own class is named as package.module:Object" if own else ""]
        super().__init__(
            f"unknown {what} {name!r}{hint}{' ' + detail if detail else ''} ({'; '.join(filter(None, remarks))})"
        )

    def __reduce__(self) -> tuple[type[UnknownName], tuple[str, str, list[str], str, bool]]:
        return type(self), (self.what, self.name, self.known, self.detail, self.own)


class NotAllowed(UnknownName):
    """A name that leads to a module which nobody has allowed: see `diffusion.plugins`."""

    kind = "not-allowed"

    def __init__(self, what: str, name: str, reason: str) -> None:
        super().__init__(what, name, [])
        self.reason = reason
        self.args = (f"{what} {name!r}: {reason}",)

    def __reduce__(self) -> tuple[type[NotAllowed], tuple[str, str, str]]:  # type: ignore[override]
        return type(self), (self.what, self.name, self.reason)


@dataclass(frozen=True)
class Component:
    """Base of every registered class. Subclasses are frozen dataclasses whose fields are the public
    parameters.

    `version` is part of every id derived from the component: raise it when the numbers it produces
    change.
    """

    registered_name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    stored_names: ClassVar[Mapping[str, str]] = {}
    """Parameters that were renamed, with their first names: ids and labels are made with those,
    studies may use both.
    """

    def parameters(self) -> dict[str, Any]:
        """The parameters as plain values, defaults written out; a parameter that is a component is
        its spec.
        """
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def differences(self) -> tuple[str, ...]:
        """The parameters that differ from their defaults, as labels have them: ``eta=0.5``."""
        given = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        return tuple(
            f"{self.stored_names.get(name, name)}={value.label() if isinstance(value, Component) else value}"
            for name, value in given.items()
        )

    def label(self) -> str:
        """The name with whatever differs from the defaults: ``ddim``, ``ddim(eta=0.5)``; for tables
        and pictures.
        """
        differences = self.differences()
        return self.registered_name + (f"({','.join(differences)})" if differences else "")

    def spec(self) -> dict[str, Any]:
        """The canonical description: name and every parameter, whether it was spelled or not."""
        return {"name": self.registered_name, **self.parameters()}

    def identity(self) -> dict[str, Any]:
        """What ids and random streams are derived from: the spec with the version of the component
        and of each of its parts.

        A subclass leaves out what does not change its numbers (where a file lies) and adds parts
        that are not parameters.
        """
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        inner = {name: part.identity() for name, part in parts.items() if isinstance(part, Component)}
        whole = {**self.spec(), **inner, "version": self.version}
        return {self.stored_names.get(name, name): value for name, value in whole.items()}

    def stream_spec(self) -> dict[str, Any]:
        """What the random streams of metrics are named by: the spec, without what changes no number,
        such as where a file lies. Versions are not in it.
        """
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        spec = self.spec()
        inner = {
            name: part.stream_spec() for name, part in parts.items() if isinstance(part, Component) and name in spec
        }
        return {**spec, **inner}

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle with the name: a class of somebody's own has it from the study that named it, not
        from its module.
        """
        reduced: Any = super().__reduce_ex__(2)
        _, arguments, *state = reduced
        return _made, (type(self).registered_name, *arguments), *state


def spec_text(component: Component) -> str:
    """The canonical text of a component: its name and parameters, with the place of a file."""
    return json.dumps(component.spec(), sort_keys=True, default=str)


def stream_text(component: Component) -> str:
    """The same for the names of random streams, which do not change when a file is moved."""
    return json.dumps(component.stream_spec(), sort_keys=True, default=str)


def identity_text(component: Component) -> str:
    """The canonical text of what a component's numbers follow from: of a file its content, not its
    place.
    """
    return json.dumps(component.identity(), sort_keys=True, default=str)


def _made(name: str, cls: type[Component], *arguments: Any) -> Component:
    """An object without its state, of a class that goes by `name` from now on."""
    if cls.registered_name != name:
        cls.registered_name = name
    return cls.__new__(cls, *arguments)


def _plain(value: Any) -> Any:
    return value.spec() if isinstance(value, Component) else copy.deepcopy(value)


C = TypeVar("C", bound=Component)


@dataclass(frozen=True)
class Entry(Generic[C]):
    """One line of the catalogue."""

    name: str
    cls: type[C]
    formula: str
    source: str
    document: str

    @property
    def has_defaults(self) -> bool:
        """Whether the name alone is enough: every parameter has a default."""
        return all(
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            for field in dataclasses.fields(self.cls)
        )


class Registry(Generic[C]):
    """The names of one kind, in the order in which they were registered."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[C]] = {}
        self._aliases: dict[str, str] = {}

    @cached_property
    def base(self) -> type[Component]:
        """What all classes of this kind have in common: the most special class that they all
        inherit from.
        """
        lines = [entry.cls.__mro__ for entry in self._entries.values()]
        return next(cls for cls in lines[0] if issubclass(cls, Component) and all(cls in line for line in lines))

    def alias(self, other: str, name: str) -> None:
        """Let `other` be understood as the registered `name`; ids, tables and the catalogue know
        the one name only.
        """
        if other in self._entries or name not in self._entries:
            raise ValueError(f"{other!r} cannot be an alias of the {self.kind} {name!r}")
        self._aliases[other] = name

    def aliases(self, name: str | None = None) -> list[str]:
        """The other words for the registered `name`, or for any."""
        return [other for other, meant in self._aliases.items() if name in (None, meant)]

    def register(self, name: str, *, formula: str, source: str, document: str = "") -> Callable[[type[C]], type[C]]:
        """Class decorator. `formula` is one line, `source` the paper or text, `document` the source
        document it occurs in.
        """

        def add(cls: type[C]) -> type[C]:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            cls.registered_name = name
            self._entries[name] = Entry(name, cls, formula, source, document)
            return cls

        return add

    def names(self) -> list[str]:
        return list(self._entries)

    def __iter__(self) -> Iterator[Entry[C]]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._aliases

    def find(self, name: str) -> type[C]:
        """The class behind a name.

        Raises:
            UnknownName: nothing is registered under the name; the message has the nearest name.
            NotAllowed: the name leads to a module that must not be imported.
        """
        name = self._aliases.get(name, name)
        if name in self._entries:
            return self._entries[name].cls
        if ":" in name:
            return self._import(name)
        for point in importlib.metadata.entry_points(group=f"diffatlas.{self.kind}s"):
            if point.name == name:
                return self._adopt(point.load(), name)
        raise UnknownName(self.kind, name, self.names())

    def create(self, name: str, **parameters: Any) -> C:
        """`find` and construct; for use from Python, where parameters are already of their types."""
        return self.find(name)(**parameters)

    def _import(self, path: str) -> type[C]:
        module, _, attribute = path.partition(":")
        found = plugins.loaded(module, attribute)
        if found is not None:
            return self._adopt(found, path)
        if reason := plugins.why_not(module):
            if module in sys.modules:
                raise UnknownName(self.kind, path, self.names(), f"({_lacks(sys.modules[module], attribute)})")
            raise NotAllowed(self.kind, path, reason)
        try:
            imported = importlib.import_module(module)
        except (ImportError, AttributeError, ValueError) as error:
            raise UnknownName(self.kind, path, self.names(), f"({error})") from error
        if not hasattr(imported, attribute):
            raise UnknownName(self.kind, path, self.names(), f"({_lacks(imported, attribute)})")
        return self._adopt(getattr(imported, attribute), path)

    def _adopt(self, found: Any, name: str) -> type[C]:
        if not (isinstance(found, type) and issubclass(found, Component) and dataclasses.is_dataclass(found)):
            raise UnknownName(self.kind, name, self.names(), "(it must be a frozen dataclass derived from Component)")
        if "registered_name" not in vars(found):  # a shipped class named by its path keeps its name, and so its ids
            found.registered_name = name
        return found  # type: ignore[return-value]  # the kind's own base class is checked where it is used


def _lacks(module: Any, attribute: str) -> str:
    """That a module has no such attribute, and which components of its own it has."""
    own = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Component) and value.__module__ == module.__name__
    ]
    has = f"; its components: {', '.join(own)}" if own else ", and no component of its own"
    return f"module {module.__name__!r} has no attribute {attribute!r}{has}"
