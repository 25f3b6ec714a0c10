"""Which modules a name may lead to: ``package.module:Object`` in a study imports a module, and what
is imported runs.

Whoever types a study trusts it; whoever reads a store, or starts a run through a deployment, has
not read what is named there. So a module is imported only if one of these says so:

- it is ours (`diffusion`, `tasks`);
- the process has imported it already: nothing runs that did not run before;
- it is allowed by name, itself or a package that it is in: ``--allow-plugins``, or the environment
  variable `DIFFATLAS_ALLOW_PLUGINS`, which processes started by this one inherit;
- an installed package lists it as an entry point of the group ``diffatlas.plugins``;
- the name was typed by the person who started this process (`typed`), and the module lies in the
  folder where they work or beside the study that they typed.

What travels to workers are objects, made where the permission is known.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from diffusion.errors import WrongValue

VARIABLE = "DIFFATLAS_ALLOW_PLUGINS"
GROUP = "diffatlas.plugins"
_OURS = frozenset({"diffusion", "tasks"})
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

_folders: ContextVar[tuple[Path, ...]] = ContextVar("folders", default=())


def allow(modules: Iterable[str]) -> None:
    """Let names lead to these modules and what is in them, in this process and those that it
    starts from now on.

    Raises:
        WrongValue: one of them cannot be the name of a module.
    """
    new = list(modules)
    for module in new:
        if not _MODULE.fullmatch(module):
            raise WrongValue(f"found {module!r}, expected the name of a module, such as mine or package.module")
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*_allowed(), *new]))


@contextmanager
def typed(*sources: str | Path) -> Iterator[None]:
    """While what a person typed is read: modules in the working folder, or beside a file among
    `sources`, may be named. Those that are stay allowed.
    """
    beside = [Path(source).parent for source in sources if _is_file(source)]
    token = _folders.set(tuple(folder.resolve() for folder in (Path(), *beside)))
    try:
        yield
    finally:
        _folders.reset(token)


def why_not(module: str) -> str | None:
    """Why a name must not lead to a module, in one sentence; None if it may."""
    if _permitted(module) or not _found(module):  # the import then says that it is not there
        return None
    return (
        f"the module {module!r} is not imported, because nobody has allowed it (if you trust it: --allow-plugins "
        f"{module}, or {VARIABLE}={module})"
    )


def loaded(module: str, attribute: str) -> Any:
    """What a module that this process has imported calls so; None if there is nothing. It imports
    nothing.
    """
    return vars(sys.modules[module]).get(attribute) if module in sys.modules else None


def is_ours(module: str) -> bool:
    """Whether a module, or the path of something in it, is of this package."""
    return module.partition(":")[0].partition(".")[0] in _OURS


def _permitted(module: str) -> bool:
    top = module.partition(".")[0]
    if is_ours(module) or _in(module, _allowed()):
        return True
    if _is_beside(top):
        allow([module])
        return True
    return _in(module, (point.value for point in importlib.metadata.entry_points(group=GROUP)))


def _allowed() -> list[str]:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def _in(module: str, allowed: Iterable[str]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in allowed)


def _is_beside(top: str) -> bool:
    """Whether a module lies in one of the typed folders themselves: an environment within one is
    somebody else's.
    """
    folders = _folders.get()
    spec = _spec(top) if folders else None
    if spec is None:
        return False
    if spec.submodule_search_locations is not None:
        places = [Path(place) for place in spec.submodule_search_locations]
    else:
        places = [Path(spec.origin)] if spec.has_location and spec.origin else []
    return bool(places) and all(place.resolve().parent in folders for place in places)


def _found(module: str) -> bool:
    return _spec(module.partition(".")[0]) is not None


def _spec(top: str) -> Any:
    """Where a module without dots would come from, which imports nothing."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _is_file(source: str | Path) -> bool:
    try:
        return Path(source).is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return False
