"""Points in memory where a study needs a file: they are written to the user's cache folder, under
their digest, and read from there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffusion.datasets.own import OwnPoints, own_array
from diffusion.errors import WrongValue
from tasks.data.from_file import digest_of, kept_place
from tasks.plain import Spec

_DATA = ("of", "source")  # parameters that are data sets


def with_files(entry: object) -> object:
    """An entry of `datasets` or `formulations` of a study, with a file in the place of each array,
    tensor or object of points: anything else passes as it is.

    Raises:
        WrongValue: the array is no set of points, or has labels, which files have not.
    """
    if isinstance(entry, Mapping):
        return {**entry, **{key: with_files(entry[key]) for key in _DATA if key in entry}}
    if isinstance(entry, OwnPoints):
        return _kept(entry)
    if hasattr(entry, "__array__") and not isinstance(
        entry, str
    ):  # NumPy's strings are names; of lists a study has its own
        return _kept(own_array(entry))
    return entry


def _kept(own: OwnPoints) -> Spec:
    if own.labels is not None:
        raise WrongValue(f"{own.label()} has labels, which a study does not take; accepted: points without labels")
    points = own.points.numpy()
    digest = digest_of(points)
    place = kept_place(digest)
    if not _holds(place, digest):
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(f"{place}.{os.getpid()}.partial")
        with beside.open("wb") as file:
            np.save(file, points)
        beside.replace(place)
    return {"name": "from_file", "path": str(place), "digest": digest}


def _holds(place: Path, digest: str) -> bool:
    """Whether the file is there and has the points: what lies in a cache folder may have been cut off
    or changed.
    """
    try:
        return digest_of(np.load(place, allow_pickle=False)) == digest
    except (OSError, ValueError, EOFError):
        return False
