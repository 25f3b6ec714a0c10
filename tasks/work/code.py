"""The code that computes, wherever a worker runs: equal sources and libraries are what equal numbers
rest on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

import diffusion
import tasks
from diffusion.errors import Unavailable
from tasks.study import Study

_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn")
_PATH = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*")
_NAMED = 4  # differences in a message

COMPUTE_NOTHING = frozenset(
    f"{package}/{room}"
    for package, rooms in {
        "diffusion": ("checks",),
        "tasks": (
            "accessor.py",
            "compare",
            "explorer",
            "figures",
            "query",
            "report",
            "results",
            "statistics",
            "store",
            "where",
        ),
    }.items()
    for room in rooms
)
"""Rooms that hold, ask and draw answers: no worker imports them, so they may differ on a node."""

_MISSING = "not there"
_SHORT, _SOURCES = 10, ", "
_WORDS = ("name", "description")


class OtherCode(Unavailable, RuntimeError):
    """A worker would compute with other code than the run was started with."""

    kind = "other-code"


@dataclass(frozen=True)
class Code:
    """What the numbers of a machine rest on."""

    own: tuple[str, ...]  # modules that a study names
    versions: tuple[tuple[str, str], ...]  # of Python and of the libraries that compute
    sources: tuple[tuple[str, str], ...]  # a file of ours or an own module, and the hash of its source

    @property
    def digest(self) -> str:
        """20 hexadecimal digits for all of it."""
        return hashlib.sha256(repr((self.versions, self.sources)).encode()).hexdigest()[:20]

    def differences(self, other: Code) -> list[str]:
        """What the other machine has otherwise, one phrase each: libraries, then sources."""
        here, there = dict(self.versions), dict(other.versions)
        found = [
            f"{name} is {there.get(name, _MISSING)}, not {version}"
            for name, version in here.items()
            if there.get(name) != version
        ]
        mine, others = dict(self.sources), dict(other.sources)
        different = [name for name in sorted(mine.keys() | others.keys()) if mine.get(name) != others.get(name)]
        return found + [
            f"{name} is {_MISSING if others.get(name, _MISSING) == _MISSING else 'another one'}" for name in different
        ]


def code_here(own: tuple[str, ...] = ()) -> Code:
    """The code of this process's machine: what computes in our packages, the modules `own`, Python
    and libraries.

    Read once in a process: what it has imported does not change with the files.
    """
    return _read(own)


@cache
def _read(own: tuple[str, ...]) -> Code:
    ours = [
        (f"{package.__name__}/{path.relative_to(folder).as_posix()}", _hash(path))
        for package in (diffusion, tasks)
        for folder in map(Path, package.__path__)
        for path in sorted(folder.rglob("*.py"))
        if f"{package.__name__}/{path.relative_to(folder).parts[0]}" not in COMPUTE_NOTHING
    ]
    theirs = [(f"module {name}", _hash_of_module(name)) for name in own]
    # A build for a GPU is of the same version: what follows the plus is no difference of sources.
    versions = [(name, importlib.metadata.version(name).partition("+")[0]) for name in _LIBRARIES]
    return Code(own, (("python", platform.python_version()), *versions), (*ours, *theirs))


def check(expected: Code) -> None:
    """Refuse to compute here for a run that was started with other code.

    Raises:
        OtherCode: the sources or versions differ; the message names some that do.
    """
    found = expected.differences(code_here(expected.own))
    if found:
        raise OtherCode(f"{platform.node()} has other code than the run was started with: {told(found)}")


def told(differences: list[str]) -> str:
    """Differences as part of a sentence."""
    more = f", and {len(differences) - _NAMED} more" if len(differences) > _NAMED else ""
    return ", ".join(differences[:_NAMED]) + more


def own_modules(study: Study) -> tuple[str, ...]:
    """The modules outside of this package that a study names, by path or by entry point; what its
    words for people say names nothing.
    """
    return _named({key: value for key, value in study.spec().items() if key not in _WORDS})


def own_sources(code: Code) -> dict[str, str]:
    """The first ten digits of the hash of each own module's source, by the module's name."""
    known = dict(code.sources)
    return {module: known[f"module {module}"][:_SHORT] for module in code.own}


def sources_text(code: Code, *specs: object) -> str:
    """Of the own modules that specs name, what is stored beside their numbers: ``mine 0f3a9c27d1``,
    one after a comma for each; empty if they name none.
    """
    if not code.own:
        return ""
    own = own_sources(code)
    return _SOURCES.join(f"{module} {own[module]}" for module in _named(specs) if module in own)


def told_sources(text: str) -> frozenset[tuple[str, str]]:
    """The pairs of a module and its digits in such a text."""
    pairs = (one.rpartition(" ") for one in text.split(_SOURCES) if one)
    return frozenset((module, digits) for module, _, digits in pairs)


def _named(specs: object) -> tuple[str, ...]:
    points = _entry_points()
    found = set()
    for text in _texts(specs):
        path = _PATH.fullmatch(text)
        module = path.group(1) if path else points.get(text)
        if module is not None and module.split(".")[0] not in ("diffusion", "tasks"):
            found.add(module)
    return tuple(sorted(found))


@cache
def _entry_points() -> dict[str, str]:
    """The modules of installed components, by the names that they go by."""
    groups = [group for group in importlib.metadata.entry_points().groups if group.startswith("diffatlas.")]
    return {point.name: point.module for group in groups for point in importlib.metadata.entry_points(group=group)}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _hash_of_module(name: str) -> str:
    """Of its source, where it lies: nothing is imported, the packages that it is in included."""
    top, *inner = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    for place in range(len(inner)):
        if spec is None or spec.submodule_search_locations is None:
            return _MISSING
        spec = PathFinder.find_spec(".".join((top, *inner[: place + 1])), list(spec.submodule_search_locations))
    return _MISSING if spec is None or not spec.origin else _hash(Path(spec.origin))


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # built in, or in an archive
        return str(path.name)
