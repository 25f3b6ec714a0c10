"""A store: whether it is whole, can be written, is free, and whether its server keeps promises."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from diffusion.errors import DiffatlasError
from flows.doctor.findings import Finding, clock
from flows.doctor.machine import nearest
from tasks.messages import counted
from tasks.store import SCHEMA, Store, StoreDamaged
from tasks.store.lease import Lease, LeaseError
from tasks.store.schema import schema_in
from tasks.store.storage import Place
from tasks.store.whole import Read, check

if TYPE_CHECKING:
    from pathlib import Path

_TRIED = 20  # snapshots that are read in search of one that is whole


def store(uri: str, *, deep: bool) -> Iterator[Finding]:
    """All about one store."""
    place = Place(uri)
    yield from _writable(place.folder) if place.folder is not None else _promises(place)
    try:
        if not Store.exists(uri):
            yield Finding("store", "note", f"store {uri}: there is none yet; the first run makes it")
            return
        opened = Store.open(uri)
        yield from _held(opened)
        schema = schema_in(opened.group())
        if schema < SCHEMA:
            yield Finding("store", "note", f"store {uri}: schema {schema}; the next run brings it to {SCHEMA}")
    except DiffatlasError as error:
        yield Finding("store", "problem", str(error), _remedy(uri, error))
        return
    yield from _whole(opened, deep=deep)


def amounts(read: Read) -> str:
    """``2 studies, 1 point, 3 cells``."""
    return (
        f"{counted(read.studies, 'study', 'studies')}, {counted(read.points, 'point')}, {counted(read.cells, 'cell')}"
    )


def _whole(opened: Store, *, deep: bool) -> Iterator[Finding]:
    try:
        read = check(opened, tables_only=not deep)
    except DiffatlasError as error:
        yield Finding("store", "problem", str(error), _sound_snapshot(opened, deep=deep) or _remedy(opened.uri, error))
        return
    what = "all of it" if deep else "its tables (--deep: all of it)"
    text = f"store {opened.uri}: snapshot {read.snapshot}, {amounts(read)}; "
    yield Finding("store", "ok", f"{text}{what} read, with checksums")


def _sound_snapshot(opened: Store, *, deep: bool) -> str | None:
    """The command that reads the newest snapshot that is whole."""
    try:
        for entry in opened.history()[1:_TRIED]:
            try:
                check(opened, entry["snapshot"], tables_only=not deep)
            except DiffatlasError:
                continue
            return f"diffatlas query --store {opened.uri} --as-of {entry['snapshot']} (the newest whole snapshot), or restore a backup"
    except DiffatlasError:
        pass
    return None


def _remedy(uri: str, error: DiffatlasError) -> str:
    if isinstance(error, StoreDamaged):
        return f"diffatlas restore BACKUP {uri}-restored"
    return f"ls -ld {uri}" if Place(uri).folder is not None else "look at AWS_ENDPOINT_URL, AWS_* and ~/.aws"


def _held(opened: Store) -> Iterator[Finding]:
    holder = opened.holder()
    if holder is None:
        return
    if holder.gone:
        yield Finding("lock", "note", f"the run that had the store ({holder}) was killed; the next run goes on")
        return
    text = f"the store is in use by a run ({holder})"
    wait = f"diffatlas run STUDY --store {opened.uri} --wait 60"
    if not holder.here:
        wait += "; if that host's run is sure to be gone: --force-unlock"
    yield Finding("lock", "note", text, wait)


def _writable(folder: Path) -> Iterator[Finding]:
    """Whether a file can be written where the store's would be, and beside it, where its lock is."""
    for place in dict.fromkeys((nearest(folder), nearest(folder.parent))):
        try:
            if not place.is_dir():
                raise NotADirectoryError(20, "not a folder")
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(bytes(1_000_000))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            remedy = f"ls -ld {place}; df -h {place}; then chown or chmod u+w it, make room, or --store elsewhere"
            yield Finding("store", "problem", f"{place} cannot be written: {error.strerror}", remedy)
            return


def _promises(place: Place) -> Iterator[Finding]:
    """Whether a server of objects writes on condition, on which locks and commits rest: tried on an
    object of its own, which is removed.
    """
    try:
        probe = Lease.of(place).probe(place.prefix)
        ignored = probe.broken_promises()
        yield from _server_clock(probe)
    except LeaseError as error:
        remedy = "look whether the server answers, and at AWS_ENDPOINT_URL, AWS_* and ~/.aws; make the bucket first"
        yield Finding("store", "problem", f"store {place.uri}: {error}", remedy)
        return
    except DiffatlasError as error:
        yield Finding("store", "problem", str(error), "pip install 'diffatlas[s3]'")
        return
    if not ignored:
        yield Finding("store", "ok", f"store {place.uri}: the server writes on condition (If-None-Match, If-Match)")
    else:
        text = f"store {place.uri}: the server ignores {' and '.join(ignored)}: two runs would overwrite one another's commits"
        remedy = "use a server that honours both, such as Amazon S3 or MinIO, or a folder"
        yield Finding("store", "problem", text, remedy)


def _server_clock(probe: Lease) -> Iterator[Finding]:
    """From the answer about the probe, which is gone."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    asked = time.time()
    try:
        answer = probe.client.get_object(Bucket=probe.bucket, Key=probe.key)
    except ClientError as error:
        answer = error.response
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date:
        yield clock("the store's server", parsedate_to_datetime(date).timestamp() - time.time(), time.time() - asked)
