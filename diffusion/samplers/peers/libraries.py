"""Other libraries: which are there, of which version, and their code."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from diffusion.errors import WrongValue

_ALONE = "_k_diffusion_alone"  # what its sampling module is imported as, without the package around it
_PICTURES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
_HOW = {
    "azula": "pip install 'diffatlas[peers]' && pip install --no-deps azula",
    "diffusers": "pip install 'diffatlas[peers]'",
    "k-diffusion": "pip install 'diffatlas[peers]' && pip install --no-deps k-diffusion",
}
_importing = threading.Lock()


def version_of(library: str) -> str:
    """``azula 0.11.1``: name and version of an installed library.

    Raises:
        WrongValue: it is not installed; the text says how it is.
    """
    try:
        return f"{library} {importlib.metadata.version(library)}"
    except importlib.metadata.PackageNotFoundError:
        raise WrongValue(
            f"the library {library} is not installed, and its samplers are its own code (extra peers: {_HOW[library]})"
        ) from None


def module_of(library: str) -> Any:
    """The module of a library that holds its samplers.

    Raises:
        WrongValue: it is not installed, or its code cannot be imported.
    """
    version = version_of(library)
    try:
        with _importing:
            if library == "k-diffusion":
                return _k_diffusion_alone()
            return importlib.import_module({"azula": "azula.sample"}.get(library, library))
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise WrongValue(f"{version} could not be imported: {text} (extra peers: {_HOW[library]})") from error


def check_there(library: str, name: str, names: Sequence[str]) -> None:
    """Whether the installed version has the sampler of that name, one of `names`.

    Raises:
        WrongValue: it has none; the text says which of `names` it has.
    """
    module = module_of(library)
    if not _has(module, name):
        there = ", ".join(one for one in names if _has(module, one)) or "none that is known here"
        raise WrongValue(f"{version_of(library)} has no {name}; it has: {there}")


def _has(module: Any, name: str) -> bool:
    try:
        return getattr(module, name, None) is not None
    except (ImportError, RuntimeError):  # some are imported when they are looked up
        return False


def _k_diffusion_alone() -> ModuleType:
    """Its sampling module alone: the package's own door imports networks, evaluation and the
    seventeen packages that they need.

    Beside it lies a module of helpers, one of which the samplers use; others draw pictures with
    torchvision, which is bound to one build of torch. Where that is not imported, an empty module
    stands in its place while the helpers are read.
    """
    if "k_diffusion.sampling" in sys.modules:
        return sys.modules["k_diffusion.sampling"]
    if _ALONE not in sys.modules:
        found = importlib.util.find_spec("k_diffusion")
        if found is None or not found.submodule_search_locations:
            raise ImportError("there is no package k_diffusion")
        package = ModuleType(_ALONE)
        package.__path__ = list(found.submodule_search_locations)
        sys.modules[_ALONE] = package
    with _without_pictures():
        return importlib.import_module(f"{_ALONE}.sampling")


@contextmanager
def _without_pictures() -> Iterator[None]:
    lacking = [name for name in _PICTURES if name not in sys.modules]
    for name in lacking:
        sys.modules[name] = ModuleType(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    try:
        yield
    finally:
        for name in lacking:
            del sys.modules[name]
