"""The store: one Icechunk repository of Zarr arrays, written in transactions by one coordinator.

Layout (schema 1), every table one-dimensional and append-only but for rows that are computed again:

    points/        one row per point: ids, coordinates, status, error, counts, one column per metric and per floor
    cells/         one row per denoiser: id, spec, status, error, training time, losses [cell, bin],
                   errors of the score by noise level [cell, level]
    weights/ID     uint8: the safetensors file of a trained cell
    samples/NxD    float32 [row, N, D]: final samples; ``points/sample_row`` points here
    trajectories/LxNxD   float32 [row, level, N, D] and ``levels`` float64 [row, 3, level] (time, alpha, sigma)
    studies/NAME   the study's canonical spec and the ids of its points

A commit is a snapshot; readers open one and never see half of a commit. Done means: committed here.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

os.environ.setdefault("ICECHUNK_LOG", "error")

import icechunk
import numpy as np
import zarr
from filelock import FileLock, Timeout

SCHEMA = 1
_CHUNK = 1024
_MAIN = "main"

POINT_TEXT = (
    "point_id",
    "cell_id",
    "dataset",
    "formulation",
    "schedule",
    "sampler",
    "grid",
    "status",
    "error",
    "spec",
    "start",
)
POINT_INTEGERS = ("steps", "nfe", "seed", "dim", "samples", "sample_row", "trajectory_row", "trajectory_samples")
POINT_SECONDS = ("train_seconds", "sample_seconds")
CELL_TEXT = ("cell_id", "spec", "status", "error", "device")
CELL_CURVES = ("losses", "loss_steps", "score_levels", "score_errors")
NO_ROW = -1


class StoreUnavailable(Exception):
    """The store cannot be opened, read or written, or another coordinator holds it."""


class WrongReference(LookupError):
    """An address that no store can have, or a snapshot, tag or time that this store does not know."""


_NOT_OURS = (icechunk.IcechunkError, icechunk.ConflictError, OSError, zarr.errors.BaseZarrError)
_DAMAGED = (*_NOT_OURS, RuntimeError, ValueError, KeyError)  # what codecs raise on bytes that are not theirs


def _in_brief(error: BaseException) -> str:
    """The first line of an error that says something, without the addresses of objects."""
    lines = [line.strip(" x\u2502\u2570\u25b6\u2500\u251c\t") for line in str(error).splitlines()]
    told = next((line for line in lines if line and not line.startswith("context:")), type(error).__name__)
    return re.sub(r" in store <[^>]*>( at path '')?", "", told)


@contextlib.contextmanager
def _speaking(uri: str, doing: str) -> Iterator[None]:
    try:
        yield
    except _NOT_OURS as error:
        raise StoreUnavailable(f"store {uri}: cannot {doing}: {_in_brief(error)}") from error


def _storage(uri: str) -> icechunk.Storage:
    if uri.startswith("s3://"):
        parsed = urlparse(uri)
        if not parsed.netloc or not parsed.path.strip("/"):
            raise WrongReference(f"store {uri}: expected s3://bucket/prefix")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return icechunk.s3_storage(
            bucket=parsed.netloc,
            prefix=parsed.path.strip("/"),
            from_env=True,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            endpoint_url=endpoint,
            allow_http=bool(endpoint and endpoint.startswith("http://")),
            force_path_style=endpoint is not None,
        )
    if "://" in uri:
        raise WrongReference(f"store {uri}: expected a folder or s3://bucket/prefix")
    return icechunk.local_filesystem_storage(str(Path(uri).resolve()))


@dataclass(frozen=True)
class Rows:
    """What one commit adds: rows of the two tables and the large arrays that go with them."""

    points: Sequence[Mapping[str, Any]] = ()
    cells: Sequence[Mapping[str, Any]] = ()
    weights: Mapping[str, bytes] = field(default_factory=dict)
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)  # point id: [n, dim]
    trajectories: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict
    )  # [levels, n, dim], [3, levels]


class Store:
    """A repository opened for reading. `coordinate` gives the right to write."""

    def __init__(self, uri: str, repository: icechunk.Repository) -> None:
        self.uri = uri
        self._repository = repository

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is a store at `uri`."""
        if "://" not in uri:
            if not uri.strip():
                raise WrongReference("store: found an empty name, expected a folder or s3://bucket/prefix")
            if not Path(uri).exists():
                return False
            if not Path(uri).is_dir():
                raise StoreUnavailable(f"store {uri}: this is a file; expected a folder")
        with _speaking(uri, "look for a store"):
            return icechunk.Repository.exists(_storage(uri))

    @classmethod
    def open(cls, uri: str) -> Store:
        """The store at `uri`. Raises `StoreUnavailable` if there is none or its schema is not ours."""
        if not cls.exists(uri):
            raise StoreUnavailable(f"store {uri}: there is no store here (diffatlas run STUDY --store {uri} makes one)")
        with _speaking(uri, "open it"):
            store = cls(uri, icechunk.Repository.open(_storage(uri)))
            schema = store.group().attrs.get("schema")
        if schema != SCHEMA:
            raise StoreUnavailable(f"store {uri}: schema {schema!r} is not {SCHEMA}, the one this version reads")
        return store

    @classmethod
    def create(cls, uri: str) -> Store:
        """A new, empty store. Raises `StoreUnavailable` where one cannot be made."""
        if "://" not in uri:
            folder = Path(uri)
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise StoreUnavailable(f"store {uri}: exists and is not a store; choose an empty or a new folder")
        with _speaking(uri, "create it"):
            if "://" not in uri:
                Path(uri).mkdir(parents=True, exist_ok=True)
            repository = icechunk.Repository.create(_storage(uri))
            session = repository.writable_session(_MAIN)
            root: Any = zarr.open_group(session.store, mode="a")
            root.attrs["schema"] = SCHEMA
            for name in ("points", "cells", "weights", "samples", "trajectories", "studies"):
                root.create_group(name)
            for name in POINT_TEXT:
                _create(root["points"], name, np.zeros(0, dtype=object))
            for name in POINT_INTEGERS:
                _create(root["points"], name, np.zeros(0, dtype=np.int64))
            for name in POINT_SECONDS:
                _create(root["points"], name, np.zeros(0))
            for name in CELL_TEXT:
                _create(root["cells"], name, np.zeros(0, dtype=object))
            _create(root["cells"], "train_seconds", np.zeros(0))
            session.commit("create the store")
        return cls(uri, repository)

    def group(self, as_of: str | None = None) -> Any:
        """The root group of a snapshot (the newest unless `as_of` names an id, a tag or a time), read-only."""
        with _speaking(self.uri, f"read it{f' as of {as_of}' if as_of else ''}"):
            session = self._repository.readonly_session(**self._reference(as_of))
            return zarr.open_group(session.store, mode="r")

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Turn whatever damaged or missing files raise into `StoreUnavailable`, which names what was being read."""
        try:
            yield
        except (StoreUnavailable, WrongReference):
            raise
        except _DAMAGED as error:
            raise StoreUnavailable(
                f"store {self.uri}: cannot read {what}: {_in_brief(error)} (the store is damaged: put the file back, "
                "read an older snapshot with --as-of, or use another store)"
            ) from error

    def snapshot(self, as_of: str | None = None) -> str:
        """The id of a snapshot."""
        with _speaking(self.uri, f"read it{f' as of {as_of}' if as_of else ''}"):
            return str(self._repository.readonly_session(**self._reference(as_of)).snapshot_id)

    def history(self) -> list[dict[str, Any]]:
        """Snapshots, newest first: id, time, message, metadata, tags."""
        with _speaking(self.uri, "read its history"):
            tags: dict[str, list[str]] = {}
            for tag in sorted(self._repository.list_tags()):
                tags.setdefault(self._repository.lookup_tag(tag), []).append(tag)
            return [
                {
                    "snapshot": info.id,
                    "time": info.written_at.astimezone(UTC).isoformat(timespec="seconds"),
                    "message": info.message,
                    "metadata": dict(info.metadata or {}),
                    "tags": tags.get(info.id, []),
                }
                for info in self._repository.ancestry(branch=_MAIN)
            ]

    def _reference(self, as_of: str | None) -> dict[str, Any]:
        if as_of is None:
            return {"branch": _MAIN}
        if as_of in self._repository.list_tags():
            return {"tag": as_of}
        if any(info.id == as_of for info in self._repository.ancestry(branch=_MAIN)):
            return {"snapshot_id": as_of}
        try:
            time = datetime.fromisoformat(as_of)
        except ValueError:
            raise WrongReference(
                f"store {self.uri}: {as_of!r} is neither a snapshot, a tag nor a time such as 2026-03-03T12:00 "
                "(diffatlas history lists them)"
            ) from None
        time = time.astimezone(UTC)  # a time without zone is local
        first = list(self._repository.ancestry(branch=_MAIN))[-1]
        if time < first.written_at:
            raise WrongReference(
                f"store {self.uri}: nothing is older than {first.written_at.isoformat(timespec='seconds')}"
            )
        return {"branch": _MAIN, "as_of": time}

    @contextlib.contextmanager
    def coordinate(self) -> Iterator[Coordinator]:
        """The only writer, as long as the context lasts. Raises `StoreUnavailable` if there is another one."""
        if "://" in self.uri:  # on object storage a second writer's commit is refused by the storage itself
            yield Coordinator(self)
            return
        folder = Path(self.uri).resolve()
        holder = folder.with_name(folder.name + ".coordinator.json")
        # The lock is the kernel's: it goes with the process that holds it. The note beside it is for people.
        with _speaking(self.uri, "lock it"):
            lock = FileLock(folder.with_name(folder.name + ".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise StoreUnavailable(
                    f"store {self.uri}: in use by {_holder(holder)}; wait for it, or end it"
                ) from None
        try:
            with _speaking(self.uri, "write beside it"):
                who = {
                    "host": platform.node(),
                    "pid": os.getpid(),
                    "since": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                holder.write_text(json.dumps(who))
            yield Coordinator(self)
        finally:
            holder.unlink(missing_ok=True)
            lock.release()


def _holder(note: Path) -> str:
    try:
        who = json.loads(note.read_text())
        return f"another run (host {who['host']}, process {who['pid']}, since {who['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def _create(group: Any, name: str, values: np.ndarray) -> None:
    if values.dtype == object:
        group.create_array(name, shape=values.shape, chunks=(_CHUNK,), dtype="string", fill_value="")
    else:
        fill = np.nan if values.dtype.kind == "f" else NO_ROW
        group.create_array(name, shape=values.shape, chunks=(_CHUNK,), dtype=values.dtype, fill_value=fill)
    if len(values):
        group[name][:] = values


def _texts(values: Sequence[Any]) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


class Coordinator:
    """The right to write to a store: commits rows, a transaction at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        root = store.group()
        self._points = {str(name): row for row, name in enumerate(root["points/point_id"][:])}
        self._cells = {str(name): row for row, name in enumerate(root["cells/cell_id"][:])}

    def commit_study(
        self, name: str, spec: Mapping[str, Any], points: Sequence[str], rows: Rows, metadata: Mapping[str, Any]
    ) -> str:
        """Record a study and rows that need no work (impossible points). Returns the snapshot's id."""

        def write(root: Any) -> None:
            studies = root["studies"]
            if name in studies:
                del studies[name]
            entry = studies.create_group(name)
            entry.attrs["spec"] = dict(spec)
            _create(entry, "point_id", _texts(points))
            self._write(root, rows)

        return self._transaction(write, f"study {name}: {len(points)} points asked", metadata, rows)

    def commit(self, rows: Rows, message: str, metadata: Mapping[str, Any]) -> str:
        """Write rows in one transaction; returns the snapshot's id."""
        return self._transaction(lambda root: self._write(root, rows), message, metadata, rows)

    def _transaction(self, write: Any, message: str, metadata: Mapping[str, Any], rows: Rows) -> str:
        with _speaking(self.store.uri, "write to it"):
            session = self.store._repository.writable_session(_MAIN)  # noqa: SLF001 - the two classes share this module
            write(zarr.open_group(session.store, mode="a"))
            snapshot = str(session.commit(message, metadata=dict(metadata)))
        for index, entries, key in ((self._points, rows.points, "point_id"), (self._cells, rows.cells, "cell_id")):
            for entry in entries:
                index.setdefault(entry[key], len(index))
        return snapshot

    def _write(self, root: Any, rows: Rows) -> None:
        points = [dict(entry) for entry in rows.points]
        for entry in points:
            final = rows.samples.get(entry["point_id"])
            if final is not None:
                entry["sample_row"] = _append(root["samples"], "{}x{}".format(*final.shape), {"": final})
            path = rows.trajectories.get(entry["point_id"])
            if path is not None:
                name = "{}x{}x{}".format(*path[0].shape)
                entry["trajectory_row"] = _append(root["trajectories"], name, {"": path[0], "_levels": path[1]})
                entry["trajectory_samples"] = path[0].shape[1]
        _put(root["points"], points, "point_id", self._points)
        cells = [dict(entry) for entry in rows.cells]
        curves = {name: [entry.pop(name, None) for entry in cells] for name in CELL_CURVES}
        at = _put(root["cells"], cells, "cell_id", self._cells)
        _put_curves(root["cells"], at, curves)
        for cell_id, data in rows.weights.items():
            array = np.frombuffer(data, dtype=np.uint8)
            root["weights"].create_array(
                cell_id, shape=array.shape, chunks=array.shape, dtype=np.uint8, fill_value=0, overwrite=True
            )[:] = array


def _append(group: Any, name: str, values: Mapping[str, np.ndarray]) -> int:
    """Append one row to the arrays `name` + suffix, made when the first row of that shape comes; its number."""
    row = 0
    for suffix, value in values.items():
        full = name + suffix
        if full not in group:
            group.create_array(full, shape=(0, *value.shape), chunks=(1, *value.shape), dtype=value.dtype, fill_value=0)
        array = group[full]
        row = array.shape[0]
        array.resize((row + 1, *array.shape[1:]))
        array[row] = value
    return row


def _put(group: Any, entries: Sequence[Mapping[str, Any]], key: str, index: Mapping[str, int]) -> list[int]:
    """Write entries to their rows, new ones at the end; columns appear when they are first needed."""
    if not entries:
        return []
    rows, size = [], len(index)
    for entry in entries:
        row = index.get(entry[key], size)
        size = max(size, row + 1)
        rows.append(row)
    old = len(index)
    for name in {name for entry in entries for name in entry} - set(group.array_keys()):
        _create(group, name, np.full(old, np.nan))  # only metrics are not known beforehand
    for name, array in list(group.arrays()):
        if array.ndim != 1:
            continue
        if array.shape[0] < size:
            array.resize((size,))
        told = [(row, entry[name]) for row, entry in zip(rows, entries, strict=True) if name in entry]
        if told:
            where = np.array([row for row, _ in told])
            values = [value for _, value in told]
            array.oindex[where] = _texts(values) if array.dtype.kind in "OTU" else np.array(values, dtype=array.dtype)
    return rows


def _put_curves(group: Any, rows: Sequence[int], curves: Mapping[str, Sequence[Any]]) -> None:
    """Two-dimensional columns ``[cell, k]``, wide enough for the longest curve, NaN where there is none."""
    for name, values in curves.items():
        width = max((len(value) for value in values if value is not None), default=0)
        if not width:
            continue
        if name not in group:
            group.create_array(name, shape=(0, width), chunks=(_CHUNK, width), dtype=np.float64, fill_value=np.nan)
        array = group[name]
        array.resize((max(array.shape[0], max(rows) + 1), max(array.shape[1], width)))
        for row, value in zip(rows, values, strict=True):
            if value is not None:
                array[row, : len(value)] = value
