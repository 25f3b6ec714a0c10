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

To call a function only because a name leads to it takes more (`why_not_call`): that its module is
ours or imported already is no permission then.

What was typed is found where it lies: its folder joins Python's path, behind all that is installed,
once a name leads there and nowhere else. What travels to workers are objects, made where the
permission is known; processes that this one starts are told of the folders (`FOLDERS`), and other
machines are sent the modules themselves (`carried`).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from diffusion.errors import WrongValue

VARIABLE = "DIFFATLAS_ALLOW_PLUGINS"
FOLDERS = "DIFFATLAS_PLUGIN_FOLDERS"
"""Set by this process for those that it starts: where typed modules were found."""
GROUP = "diffatlas.plugins"
_OURS = frozenset({"diffusion", "tasks"})
_NOT_BESIDE = _OURS | {"flows", "deployments", "diffatlas"}  # who works in a checkout did not write these for a study
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
    for module in new:
        _reach(module.partition(".")[0])


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
    _reach(module.partition(".")[0])
    if is_ours(module) or _permitted(module) or not _found(module):  # the import then says that it is not there
        return None
    return f"the module {module!r} is not imported, {_not_allowed(module)}"


def why_not_call(module: str) -> str | None:
    """Why nothing in a module may be called because a name leads there, in one sentence; None if
    it may. Only a permission counts: any module that is loaded has functions that end the process.
    """
    _reach(module.partition(".")[0])
    if _permitted(module) or not _found(module):
        return None
    return f"nothing in the module {module!r} is called, {_not_allowed(module)}"


def carried() -> list[Path]:
    """The files and folders of the modules that somebody has allowed and nobody has installed: what
    a machine lacks that did not start with this folder.
    """
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
    found = []
    for top in dict.fromkeys(module.partition(".")[0] for module in _allowed()):
        places = [] if top in _NOT_BESIDE else _places(_spec(top))
        found += [place for place in places if not any(place.is_relative_to(folder) for folder in installed)]
    return found


def loaded(module: str, attribute: str) -> Any:
    """What a module that this process has imported calls so; None if there is nothing. It imports
    nothing.
    """
    return vars(sys.modules[module]).get(attribute) if module in sys.modules else None


def is_ours(module: str) -> bool:
    """Whether a module, or the path of something in it, is of this package."""
    return module.partition(":")[0].partition(".")[0] in _OURS


def _not_allowed(module: str) -> str:
    return f"because nobody has allowed it (if you trust it: --allow-plugins {module}, or {VARIABLE}={module})"


def _permitted(module: str) -> bool:
    """Whether somebody has allowed a module, which a typed name does."""
    top = module.partition(".")[0]
    if _in(module, _allowed()):
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
    places = _places(_spec(top)) if folders and top not in _NOT_BESIDE else []
    return bool(places) and all(place.parent in folders for place in places)


def _places(spec: Any) -> list[Path]:
    """The file of a module, or the folders of a package."""
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place).resolve() for place in spec.submodule_search_locations]
    return [Path(spec.origin).resolve()] if spec.has_location and spec.origin else []


def _reach(top: str) -> None:
    """Have a module that lies in a typed folder and nowhere else be found there: the installed
    command has neither that of the study nor the working one on its path.
    """
    folders = [str(folder) for folder in _folders.get()]
    if not folders or not top or _found(top):
        return
    importlib.invalidate_caches()
    for folder in folders:
        if importlib.machinery.PathFinder.find_spec(top, [folder]) is not None:
            os.environ[FOLDERS] = os.pathsep.join(dict.fromkeys([*_told_folders(), folder]))
            _join_path()
            return


def _told_folders() -> list[str]:
    return [folder for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]


def _join_path() -> None:
    sys.path += [folder for folder in _told_folders() if folder not in sys.path]


def _found(module: str) -> bool:
    top = module.partition(".")[0]
    return top in sys.modules or _spec(top) is not None


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


_join_path()  # of who started this process
