"""Stored results as plain files: Zarr v3, netCDF-4 or Parquet, for those who have neither this
package nor Icechunk.

    xarray.open_zarr("points.zarr")         xarray.open_dataset("points.nc")         pandas.read_parquet("points.parquet")

All three hold every point with its coordinates, metrics, the columns beside them, and as attributes
where the numbers come from: snapshot, versions, device, the names of the studies, and the chosen
study's canonical spec as JSON text.

Zarr and netCDF can also hold the final samples that were kept, one group for each shape:
``samples/NxD`` with ``samples [kept, sample, coordinate]`` and ``point_id [kept]``. Nothing is
padded.

A file is written beside its place and renamed when it is whole, so that there is never half of one.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

from diffusion.errors import WrongInput
from tasks.failpoints import failpoint
from tasks.results.read import Answers
from tasks.store import Store
from tasks.where.columns import frame_of, of_points

_BLOCK = 1 << 22  # bytes of samples that are read, and written as one chunk
Shape = tuple[int, int]


class ExportError(WrongInput, ValueError):
    """What cannot be written as asked; the message says why and what could be."""

    kind = "wrong-export"


def export(answers: Answers, form: str, path: str | Path, *, samples: bool = False, overwrite: bool = False) -> Path:
    """Write all points of `answers` to `path`.

    Args:
        answers: a store, or one study of it, as of some snapshot.
        form: `zarr` (a folder), `netcdf` or `parquet` (a file).
        path: where; missing folders above it are made.
        samples: also the final samples that were kept.
        overwrite: replace what an earlier export wrote there. Anything else is never replaced.

    Returns:
        The path.

    Raises:
        ExportError: an unknown form, samples asked of Parquet, a path that is taken.
        OSError: it cannot be written; then nothing is left at the path, or what was there before.
    """
    path = Path(path)
    if form not in WRITERS:
        raise ExportError(f"--format {form!r} is unknown (there are: {', '.join(WRITERS)})")
    if samples and form == "parquet":
        raise ExportError("parquet holds a table and no samples: export them as zarr or netcdf")
    _refuse_what_is_there(path, form, overwrite)
    points = answers.points.assign_attrs(_attributes(answers))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path) as partial:
        WRITERS[form](points, partial)
        if samples:
            for shape, ids in _kept(answers).items():
                _SAMPLE_WRITERS[form](partial, shape, ids, _blocks(answers, shape, ids))
    return path


def export_store(
    store: str,
    path: str | Path,
    form: str = "zarr",
    *,
    study: str | None = None,
    as_of: str | None = None,
    samples: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write stored points, and samples, as plain files that need neither this package nor Icechunk.

    Args:
        store: a folder, or ``s3://bucket/prefix``.
        path: where; missing folders above it are made.
        form: ``zarr`` (a folder), ``netcdf`` or ``parquet`` (a file, which holds no samples).
        study: the name of one; None: the whole store.
        as_of: a snapshot's id, a tag or a time; None: now.
        samples: also the final samples that were kept.
        overwrite: replace what an earlier export wrote there. Anything else is never replaced.

    Returns:
        The path.

    Raises:
        ExportError: an unknown form, samples asked of Parquet, a path that is taken.
        StoreUnavailable: the store cannot be read.
        OSError: it cannot be written; then what was there before is still there.
    """
    return export(Answers(Store.open(store), study, as_of), form, path, samples=samples, overwrite=overwrite)


def _attributes(answers: Answers) -> dict[str, str]:
    attributes = {"studies": json.dumps(answers.studies)}
    return attributes | {"spec": json.dumps(answers.study, sort_keys=True)} if answers.name else attributes


def _refuse_what_is_there(path: Path, form: str, overwrite: bool) -> None:
    if not path.name:
        raise ExportError(f"--out {str(path)!r}: found a folder's path, expected a name in it")
    if not os.path.lexists(path):
        return
    if not _is_export(path, form):
        raise ExportError(f"--out {path}: exists and is no earlier export as {form}; choose another path")
    if not overwrite:
        raise ExportError(f"--out {path}: exists; choose another path, or replace it with --overwrite")


def _is_export(path: Path, form: str) -> bool:
    """Whether an earlier export wrote what lies at a path: it says from which snapshot."""
    try:
        if form == "zarr":
            import zarr

            return "snapshot" in zarr.open_group(path, mode="r").attrs
        if form == "netcdf":
            import h5netcdf

            with h5netcdf.File(path, "r") as file:
                return "snapshot" in file.attrs
        import pyarrow.parquet

        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        return "snapshot" in json.loads(metadata.get(b"PANDAS_ATTRS", b"{}"))
    except Exception:  # noqa: BLE001 - whatever else lies there
        return False


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path in a temporary folder beside `path`; what is written there takes the place of `path`
    at the end, unless there is an error.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield folder / path.name
        failpoint("export")
        _put_in_place(folder / path.name, path, folder / "before")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(new: Path, path: Path, aside: Path) -> None:
    if not path.is_dir():
        new.replace(path)
        return
    path.rename(aside)  # a folder cannot be renamed onto another one
    try:
        new.rename(path)
    except BaseException:
        aside.rename(path)
        raise


def _writable(points: xr.Dataset) -> xr.Dataset:
    """Texts of variable length, the only ones that Zarr v3 and netCDF both store in a way that is
    specified.
    """
    texts = {
        name: (variable.dims, np.array(variable.values.tolist(), dtype=np.dtypes.StringDType()))
        for name, variable in points.variables.items()
        if variable.dtype.kind in "OUT"
    }
    return points.assign_coords({n: v for n, v in texts.items() if n in points.coords}).assign(
        {n: v for n, v in texts.items() if n not in points.coords}
    )


@contextmanager
def _consolidating() -> Iterator[None]:
    """Zarr warns that consolidated metadata is not specified yet; without it, xarray warns whoever
    opens the folder.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part", category=UserWarning)
        yield


def _write_zarr(points: xr.Dataset, path: Path) -> None:
    with _consolidating():
        _writable(points).to_zarr(path, zarr_format=3, mode="w-", consolidated=True)


def _write_netcdf(points: xr.Dataset, path: Path) -> None:
    _writable(points).to_netcdf(path, engine="h5netcdf")


def _write_parquet(points: xr.Dataset, path: Path) -> None:
    frame = frame_of(of_points(points))
    frame.attrs = dict(points.attrs)
    frame.to_parquet(path, engine="pyarrow", index=False)


def _kept(answers: Answers) -> dict[Shape, list[str]]:
    """The points whose samples were kept, by shape ``(samples, dim)``."""
    table = answers.table()
    found: dict[Shape, list[str]] = {}
    for row in np.flatnonzero(table["sample_row"] >= 0):
        shape = (int(table["samples"][row]), int(table["dim"][row]))
        found.setdefault(shape, []).append(str(table["point_id"][row]))
    return found


def _rows_at_once(shape: Shape) -> int:
    return max(1, _BLOCK // (4 * shape[0] * shape[1]))


def _blocks(answers: Answers, shape: Shape, ids: list[str]) -> Iterator[tuple[slice, np.ndarray]]:
    size = _rows_at_once(shape)
    for first in range(0, len(ids), size):
        block = np.empty((min(size, len(ids) - first), *shape), dtype=np.float32)
        for i, point_id in enumerate(ids[first : first + size]):
            final = answers.samples(point_id)
            assert final is not None  # noqa: S101 - for the type checker: these are the ones that were kept
            block[i] = final.values
        yield slice(first, first + len(block)), block


_DIMS = ("kept", "sample", "coordinate")
Blocks = Iterator[tuple[slice, np.ndarray]]


def _zarr_samples(path: Path, shape: Shape, ids: list[str], blocks: Blocks) -> None:
    import zarr

    name = "samples/{}x{}".format(*shape)
    with _consolidating():
        _writable(xr.Dataset(coords={"point_id": ("kept", ids)})).to_zarr(
            path, group=name, zarr_format=3, consolidated=False
        )
        group = zarr.open_group(path, path=name, mode="a")
        whole = (len(ids), *shape)
        chunks = (min(_rows_at_once(shape), len(ids)), *shape)
        array = group.create_array("samples", shape=whole, chunks=chunks, dtype=np.float32, dimension_names=_DIMS)
        for rows, block in blocks:
            array[rows] = block
        zarr.consolidate_metadata(str(path), path=name)
        zarr.consolidate_metadata(str(path))


def _netcdf_samples(path: Path, shape: Shape, ids: list[str], blocks: Blocks) -> None:
    import h5netcdf

    name = "samples/{}x{}".format(*shape)
    _writable(xr.Dataset(coords={"point_id": ("kept", ids)})).to_netcdf(path, mode="a", group=name, engine="h5netcdf")
    with h5netcdf.File(path, "a") as file:
        group = file[name]
        group.dimensions.update(dict(zip(_DIMS[1:], shape, strict=True)))
        variable = group.create_variable("samples", _DIMS, np.float32)
        variable.attrs["coordinates"] = "point_id"
        for rows, block in blocks:
            variable[rows] = block


WRITERS: Mapping[str, Callable[[xr.Dataset, Path], None]] = {
    "zarr": _write_zarr,
    "netcdf": _write_netcdf,
    "parquet": _write_parquet,
}
_SAMPLE_WRITERS: Mapping[str, Callable[[Path, Shape, list[str], Blocks], None]] = {
    "zarr": _zarr_samples,
    "netcdf": _netcdf_samples,
}
