"""What is stored with each commit, so that its numbers can be explained and made again: versions,
revision, machine, person.

All values are texts. The study itself lies in the snapshot, and the version of every component in
the spec of each cell.
"""

from __future__ import annotations

import getpass
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("diffatlas", "torch", "numpy", "scipy", "scikit-learn", "zarr", "icechunk", "xarray", "ray", "prefect")
_GIT_SECONDS = 10


def provenance(study: str, **more: str) -> dict[str, str]:
    """Study, machine, person, versions of what computes, revision of the code; `more` as the caller
    knows it.
    """
    return {
        "study": study,
        "host": f"{platform.system()} {platform.machine()}",
        "cpu_capability": cpu_capability(),
        "user": _user(),
        "python": platform.python_version(),
        **_versions(),
        **revision(Path(__file__).parent),
        **more,
    }


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES}


@cache
def cpu_capability() -> str:
    """Which instructions torch's kernels use on this machine's processor, such as ``AVX512``: with
    the same versions they decide the bits.
    """
    from torch.backends.cpu import get_cpu_capability  # not needed to read

    return str(get_cpu_capability())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"


@cache
def revision(folder: Path) -> dict[str, str]:
    """``git`` (the commit's full id) and ``git_dirty`` ("yes" if tracked files differ from it);
    empty outside a checkout.
    """
    head = _git(folder, "rev-parse", "HEAD")
    # A package inside somebody else's repository (a virtual environment in it) is not what that
    # commit describes.
    if not head or _git(folder, "ls-files", "--error-unmatch", __file__) is None:
        return {}
    return {"git": head, "git_dirty": "yes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "no"}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        completed = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip()
