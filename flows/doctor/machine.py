"""This machine: its packages, its disks, and what killed runs have left on it."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path

from flows.doctor.findings import Finding
from flows.services.orphans import RUN_PREFIX, is_abandoned, short_temporary_directory
from tasks.home import home
from tasks.store.storage import Place

LEAST_FREE = 500_000_000
"""Bytes: a run of a large study writes some hundred megabytes, Ray's logs and its spilled objects as
much.
"""
_PINNED = Path(__file__).resolve().parents[2] / "constraints.txt"
_DEVICES = Path("/dev")


def packages() -> Iterator[Finding]:
    """Whether what is installed is what the package asks for, and what its tests ran with."""
    from packaging.requirements import Requirement

    wrong = 0
    if _version("diffatlas") is None:
        yield Finding("packages", "note", "diffatlas is not installed, it is run from its folder", "pip install -e .")
        return
    for text in importlib.metadata.requires("diffatlas") or ():
        asked = Requirement(text)
        if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
            continue
        found = _version(asked.name)
        if found is None or not asked.specifier.contains(found, prereleases=True):
            wrong += 1
            told = f"{asked.name} is {found or 'not installed'}, {asked.specifier} is needed"
            yield Finding("packages", "problem", told, f"pip install '{asked.name}{asked.specifier}'")
    others = [f"{name} {found} instead of {pinned}" for name, pinned, found in _pinned() if found not in (None, pinned)]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        remedy = f"pip install --constraint {_PINNED} diffatlas"
        text = f"the tests ran with other versions: {', '.join(others[:5])}{more}"
        yield Finding("packages", "note", text, remedy)
    if not wrong:
        named = ", ".join(f"{name} {_version(name)}" for name in ("diffatlas", "torch", "prefect", "ray", "icechunk"))
        yield Finding("packages", "ok", named)


def devices() -> Iterator[Finding]:
    """A GPU that torch cannot use, because its build has no code for one."""
    if "+cpu" in (_version("torch") or "") and any(_DEVICES.glob("nvidia[0-9]*")):
        text = "this machine has a GPU, and torch is its build for CPUs"
        yield Finding("devices", "note", text, "pip install torch from PyTorch's index for your CUDA (docs/devices.md)")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pinned() -> Iterator[tuple[str, str, str | None]]:
    """Names, the versions of the tests, and those installed; nothing where the list is not
    installed.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    if not _PINNED.is_file():
        return
    for line in _PINNED.read_text(encoding="utf-8").splitlines():
        try:
            asked = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            continue
        if asked.marker is None or asked.marker.evaluate():
            pinned = next((one.version for one in asked.specifier), "")
            yield asked.name, pinned, _version(asked.name)


def left_behind() -> Iterator[Finding]:
    """Folders of runs that were killed, whose processes may live on."""
    folders = [folder for folder in short_temporary_directory().glob(f"{RUN_PREFIX}*") if is_abandoned(folder)]
    if folders:
        names = ", ".join(map(str, folders[:3]))
        text = f"killed runs have left {len(folders)} folders, perhaps processes ({names})"
        remedy = 'python -c "from flows.services import end_orphans; end_orphans()", or the next run'
        yield Finding("processes", "note", text, remedy)


def disks(store: str) -> Iterator[Finding]:
    """Free space where a run writes: the store, temporary files, the user's folder."""
    places = {"temporary files": short_temporary_directory(), "databases and tables": home()}
    folder = Place(store).folder
    if folder is not None:
        places = {"the store": folder, **places}
    told, wanting = [], False
    for what, place in places.items():
        there = nearest(place)
        try:
            free = shutil.disk_usage(there).free
        except OSError as error:
            yield Finding("disk", "problem", f"{there} cannot be read: {error.strerror}", f"ls -ld {there}")
            continue
        told.append(f"{free / 1e9:.1f} GB for {what} ({there})")
        if free < LEAST_FREE:
            wanting = True
            text = f"{free / 1e6:.0f} MB free for {what} on the disk of {there}; a run needs {LEAST_FREE / 1e6:.0f} MB"
            yield Finding("disk", "problem", text, f"make room: du -xsh {there}/* | sort -h | tail")
    if not wanting:
        yield Finding("disk", "ok", f"free: {', '.join(told)}")


def nearest(place: Path) -> Path:
    """The place, or the folder above it that is there."""
    return next((one for one in (place, *place.parents) if one.exists()), Path("/"))
