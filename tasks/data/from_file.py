"""Targets that are read from a file: the empirical law of somebody's own points or images.

A file's content is part of what the target is. The points are read once, when the target is made; a
digest of them goes into its spec, and so into every id derived from it: a file that has changed is
another target, and a spec that names the digest of the old one is refused. The points travel with
the object, so that a worker on another machine needs no file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion.datasets import PointSet, datasets
from diffusion.datasets.points import deviations
from tasks.home import home
from tasks.plain import Spec

MOST_BYTES = 1_000_000_000
MOST_EXACT = 5000
"""Points up to which the ideal denoiser is offered: it compares every sample with every point."""


@dataclass(frozen=True)
class FilePoints(PointSet):
    """The points in a ``.npy`` or ``.npz`` file or a Zarr folder; a subclass says of which shape
    the array is.
    """

    version: ClassVar[int] = 2  # 1: streams of metrics were named by the file's path
    _accepted: ClassVar[dict[int, str]]  # by the number of the array's axes

    path: str
    array: str | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        what = f"{self.registered_name}: {self.path!r}"
        try:
            held = self._held()
        except _Refused as refused:
            given = self.digest and Path(self.path).name == kept_place(self.digest).name
            hint = " (a study was given it as an array: give the same to a study here, and it is kept again)"
            raise ValueError(f"{what} {refused}{hint if given else ''}") from refused
        object.__setattr__(self, "digest", digest_of(held))
        self.__dict__["_shape"] = held.shape[1:]
        self.__dict__["_points"] = torch.from_numpy(held.reshape(len(held), -1))
        std = self.std if bool(deviations(self.points).any()) else 0.0
        if not 0 < std < math.inf:
            raise ValueError(f"{what} has a standard deviation of {std!r}; needed: a positive number")

    def _held(self) -> NDArray[np.float64]:
        """The array in the file or, if that is not there any more or has changed, the one which a
        study was given and which was kept here under this digest (`tasks.data.kept`). Raises
        `_Refused`.
        """
        try:
            return self._in_file()
        except _Refused:
            kept = self._kept()
            if kept is None:
                raise
            return kept

    def _in_file(self) -> NDArray[np.float64]:
        held = _read(self.path, self.array, self._accepted)
        found = digest_of(held)
        if self.digest not in ("", found):
            raise _Refused(f"has changed since: its digest is {found[:12]}..., expected {self.digest[:12]!r}...")
        return held

    def _kept(self) -> NDArray[np.float64] | None:
        with suppress(_Refused):
            held = _read(str(kept_place(self.digest)), None, self._accepted)
            if digest_of(held) == self.digest:
                return held
        return None

    @property
    def points(self) -> Tensor:
        points: Tensor = self.__dict__["_points"]
        return points

    @property
    def exact(self) -> bool:
        return len(self.points) <= MOST_EXACT

    def identity(self) -> Spec:
        """The content alone: where the file lies, and how its path is spelled, changes no number."""
        return _without_place(super().identity())

    def stream_spec(self) -> Spec:
        """The content alone, as of `identity`."""
        return _without_place(super().stream_spec())

    def label(self) -> str:
        """The file's name without its ending, the array, and the beginning of the digest:
        ``faces@1f2e3d4c``.
        """
        inner = f":{self.array}" if self.array else ""
        text = f"{Path(self.path).stem}{inner}@{self.digest[:8]}"
        return "".join(c if c.isprintable() else "?" for c in text)


@datasets.register(
    "from_file",
    formula="p(x) = mean over the points of N(x; alpha x_k, sigma^2 I),  D = sum_k r_k x_k, r = softmax(-|x - alpha x_k|^2 / (2 sigma^2))",
    source="the empirical ideal denoiser: Karras et al., 'Elucidating the design space', 2022, appendix B.3",
)
@dataclass(frozen=True)
class FromFile(FilePoints):
    """The points in a ``.npy`` or ``.npz`` file or a Zarr folder, each as likely as any other.

    `path` is taken from the current folder if it is relative. `array` names the array where there
    are several (``.npz``, Zarr group). Real numbers of shape ``[n]`` or ``[n, dim]``, ``n >= 2``,
    become float64; nothing is shifted or scaled. Samples are drawn with replacement. The exact
    answer, the *empirical* ideal denoiser, is offered for up to 5000 points.

    `digest` is the SHA-256 of shape and values. Leave it out to take the file as it is; a spec that
    was stored has it. Where the file is not there any more, or has changed, an array with this digest
    that a study was given from Python on this machine takes its place.

    Raises:
        ValueError: in one line: the file is missing, unreadable or of another kind; holds pickled
            objects, or several arrays and none is named, or not the one named; is larger than 1 GB
            as float64; is not an array of real finite numbers of one of these shapes; holds one
            point only, again and again; or has another digest than the one given.
    """

    _accepted: ClassVar[dict[int, str]] = {1: "[n]", 2: "[n, dim]"}


@datasets.register(
    "images",
    formula="p(x) = mean over the images of N(x; alpha x_k, sigma^2 I),  D = sum_k r_k x_k, r = softmax(-|x - alpha x_k|^2 / (2 sigma^2))",
    source="the empirical ideal denoiser: Karras et al., 'Elucidating the design space', 2022, appendix B.3",
)
@dataclass(frozen=True)
class Images(FilePoints):
    """Images in a ``.npy`` or ``.npz`` file or a Zarr folder, each as likely as any other:
    `from_file` that knows height and width.

    Real numbers of shape ``[n, height, width]`` or ``[n, channels, height, width]``, ``n >= 2``;
    nothing is shifted or scaled, and pixels between -1 and 1 suit the formulations best. A point is
    an image, channel by channel, row by row. Everything else, what is refused included, is as of
    `from_file`.
    """

    _accepted: ClassVar[dict[int, str]] = {3: "[n, height, width]", 4: "[n, channels, height, width]"}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        *channels, height, width = self.__dict__["_shape"]
        return (*channels, height, width) if channels else (1, height, width)


def kept_place(digest: str) -> Path:
    """Where the user's cache folder keeps points that a study was given in memory."""
    return home() / "points" / f"points-{digest[:16]}.npy"


def _without_place(spec: Spec) -> Spec:
    return {key: value for key, value in spec.items() if key not in {"path", "array"}}


class _Refused(Exception):
    """Why a file is not a set of points; completes a sentence that begins with the file's name."""


def digest_of(points: NDArray[np.float64]) -> str:
    """The SHA-256 of an array's shape and values."""
    shape = ",".join(map(str, points.shape))
    return hashlib.sha256(shape.encode() + b"\n" + points.astype("<f8").tobytes()).hexdigest()


Convert = Callable[[Any], NDArray[np.float64]]


def _read(path: str, array: str | None, accepted: dict[int, str]) -> NDArray[np.float64]:
    """The array, contiguous; one point to a row, or to what lies behind the first axis. Raises
    `_Refused`.
    """
    try:
        return _reader(Path(path))(Path(path), array, partial(_points, accepted=accepted))
    except _Refused:
        raise
    except Exception as error:  # a broken file fails in as many ways as there are libraries
        message = " ".join((getattr(error, "strerror", None) or str(error)).split()) or type(error).__name__
        raise _Refused(f"cannot be read: {message}") from error


def _reader(place: Path) -> Callable[[Path, str | None, Convert], NDArray[np.float64]]:
    """What reads a file of that kind; its first bytes say which, whatever it is called."""
    if place.is_dir():
        return _from_zarr
    if place.exists() and not place.is_file():  # a pipe would be waited for
        raise _Refused("is no file")
    with place.open("rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return _from_npy
    if start.startswith(b"PK"):
        return _from_npz
    raise _Refused("is neither a .npy or .npz file nor a Zarr folder")


def _from_npy(place: Path, array: str | None, convert: Convert) -> NDArray[np.float64]:
    if array is not None:
        raise _Refused(f"is a single array; array = {array!r} is for .npz files and Zarr groups")
    return convert(np.load(place, mmap_mode="r", allow_pickle=False))


def _from_npz(place: Path, array: str | None, convert: Convert) -> NDArray[np.float64]:
    with place.open("rb") as file, np.load(file, allow_pickle=False) as held:
        name = _one_of(held.files, array)
        member = name if name in held.zip.namelist() else f"{name}.npy"
        if held.zip.getinfo(member).file_size > 2 * MOST_BYTES:  # before it is unpacked
            raise _Refused("is larger than 1 GB")
        return convert(held[name])


def _from_zarr(place: Path, array: str | None, convert: Convert) -> NDArray[np.float64]:
    import zarr

    held = zarr.open(place, mode="r")
    if isinstance(held, zarr.Array):
        if array is not None:
            raise _Refused(f"is a single array; array = {array!r} is for .npz files and Zarr groups")
        return convert(held)
    return convert(held[_one_of([name for name, _ in held.arrays()], array)])


def _one_of(names: list[str], array: str | None) -> str:
    """The array that is meant, among those there are."""
    listed = ", ".join(map(repr, sorted(names)[:10])) or "none"
    if array is None and len(names) == 1:
        return names[0]
    if array is None:
        raise _Refused(f"holds {len(names)} arrays ({listed}); say which with array: NAME")
    if array not in names:
        raise _Refused(f"holds no array {array!r} (there are: {listed})")
    return array


def _points(held: Any, accepted: dict[int, str]) -> NDArray[np.float64]:
    """An array, in memory or still on disk, as float64."""
    if held.dtype.kind not in "iuf":
        raise _Refused(f"holds {held.dtype}, needed: real numbers")
    if held.ndim not in accepted or held.shape[0] < 2 or 0 in held.shape:
        raise _Refused(f"has shape {list(held.shape)}; needed: {' or '.join(accepted.values())} with n >= 2")
    if math.prod(held.shape) * max(8, held.dtype.itemsize) > MOST_BYTES:
        raise _Refused("is larger than 1 GB as float64")
    points = np.ascontiguousarray(np.asarray(held[...]), dtype=np.float64)
    points = points.reshape(-1, 1) if points.ndim == 1 else points
    if not np.isfinite(points).all():
        raise _Refused(f"has {int((~np.isfinite(points)).sum())} numbers that are not finite")
    return points if points.flags.writeable and points.flags.owndata else points.copy()
